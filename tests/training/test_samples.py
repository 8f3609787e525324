"""Kept samples, read where they are needed."""

from dataclasses import replace

from drive_train import tiny_samples

from o1p_jax.config.text import fingerprint
from o1p_jax.data.rollouts import RolloutFolder
from o1p_jax.training.samples import TrainingSet


def weighed(path, samples, shards=3):
    folder = RolloutFolder.create(path, {}, shards)
    for shard in range(shards):
        rows = [
            {"problem_id": s.problem_id, "sample_idx": s.sample_idx, "weight": s.weight,
             "prompt_ids": list(s.prompt_ids), "completion_ids": list(s.completion_ids)}
            for s in samples[shard::shards]
        ]  # fmt: skip
        folder.write_shard(shard, [*rows, {"problem_id": "not kept", "sample_idx": 0, "prompt_ids": [1]}])
    return path


def in_order(samples):
    return sorted(samples, key=lambda s: (s.problem_id, s.sample_idx))


def test_a_folder_says_what_samples_in_memory_do_whatever_its_shards(tmp_path):
    samples = tiny_samples(25)
    for shards in (1, 3):
        folder = TrainingSet.weighed(weighed(tmp_path / str(shards), samples, shards))
        memory = TrainingSet.of(in_order(samples))
        for name in ("names", "prompt_tokens", "completion_tokens", "digests", "lengths"):
            assert list(getattr(folder, name)) == list(getattr(memory, name))
        assert len(folder) == 25 and folder.read(range(25)) == memory.read(range(25))


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    samples = in_order(tiny_samples(24))
    folder = TrainingSet.weighed(weighed(tmp_path, samples))
    opened, read_shard = [], RolloutFolder.read_shard

    def note(self, shard, columns=None):
        opened.append(shard)
        return read_shard(self, shard, columns)

    monkeypatch.setattr(RolloutFolder, "read_shard", note)
    assert folder.read([3, 9]) == {3: samples[3], 9: samples[9]} and opened == [0]
    some = folder.only([5, 9, 2])
    assert some.read([0, 2]) == {0: samples[5], 2: samples[2]}
    assert some.names == [folder.names[i] for i in (5, 9, 2)]


def test_the_digest_sees_every_field():
    [sample] = tiny_samples(1)
    digest = TrainingSet.of([sample]).digests[0]
    for field, value in (("weight", 0.25), ("completion_ids", (7,)), ("prompt_ids", (7,)), ("problem_id", "other")):
        assert TrainingSet.of([replace(sample, **{field: value})]).digests[0] != digest
    assert digest == fingerprint(
        [sample.problem_id, sample.sample_idx, sample.prompt_ids, sample.completion_ids, sample.weight]
    )
