"""Kept samples, read where they are needed."""

from dataclasses import replace

import made_pool
from drive_train import tiny_samples

from o1p_jax.config.text import fingerprint
from o1p_jax.data.shards import ShardedTable
from o1p_jax.stages.weigh import WEIGHTS
from o1p_jax.training.samples import TrainingSet


def made(count):
    """Samples of which those of one problem share a prompt."""
    first = {}
    samples = tiny_samples(count)
    return [replace(s, prompt_ids=first.setdefault(s.problem_id, s).prompt_ids) for s in samples]


def weighed(path, samples, shards=3):
    """The set of a pool that holds these samples, and one a shard that has no weight."""
    rows = [
        [
            made_pool.sample(s.problem_id, s.sample_idx, 0, True, prompt_ids=list(s.prompt_ids),
                             completion_ids=list(s.completion_ids))
            for s in samples[shard::shards]
        ] + [made_pool.sample("not kept", shard, 3, False)]
        for shard in range(shards)
    ]  # fmt: skip
    pool, _ = made_pool.write_pool(path / "pool", *rows)
    weights = ShardedTable.create(path / "weights", WEIGHTS, {}, 1)
    columns = [{"problem_id": s.problem_id, "sample_idx": s.sample_idx, "weight": s.weight} for s in samples]
    weights.write_shard(0, columns + [{"problem_id": "not kept", "sample_idx": i} for i in range(shards)])
    return TrainingSet.of_pool(pool, weights)


def in_order(samples):
    return sorted(samples, key=lambda s: (s.problem_id, s.sample_idx))


def test_a_folder_says_what_samples_in_memory_do_whatever_its_shards(tmp_path):
    samples = made(25)
    for shards in (1, 3):
        folder = weighed(tmp_path / str(shards), samples, shards)
        memory = TrainingSet.of(in_order(samples))
        for name in ("names", "prompt_tokens", "completion_tokens", "digests", "lengths"):
            assert list(getattr(folder, name)) == list(getattr(memory, name))
        assert len(folder) == 25 and folder.read(range(25)) == memory.read(range(25))


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    samples = in_order(made(24))
    folder = weighed(tmp_path, samples)
    opened, read_shard = [], ShardedTable.read_shard

    def note(self, shard, columns=None):
        opened.append(shard)
        return read_shard(self, shard, columns)

    monkeypatch.setattr(ShardedTable, "read_shard", note)
    assert folder.read([3, 9]) == {3: samples[3], 9: samples[9]} and opened == [0]


def test_the_digest_sees_every_field():
    [sample] = tiny_samples(1)
    digest = TrainingSet.of([sample]).digests[0]
    for field, value in (("weight", 0.25), ("completion_ids", (7,)), ("prompt_ids", (7,)), ("problem_id", "other")):
        assert TrainingSet.of([replace(sample, **{field: value})]).digests[0] != digest
    assert digest == fingerprint(
        [sample.problem_id, sample.sample_idx, sample.prompt_ids, sample.completion_ids, sample.weight]
    )
