"""Kept samples, read where they are needed."""

from dataclasses import replace

import made_pool
import numpy as np
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


def test_what_the_sampler_told_of_kept_samples_is_read_when_asked_for(tmp_path):
    told = [-0.25, -1.5]
    rows = [
        made_pool.sample(p, k, 2, True, completion_ids=[3, 4 + k], **({} if k else {"logprobs": told}))
        for p in ("a", "b", "c") for k in (0, 1)
    ]  # fmt: skip
    pool, _ = made_pool.write_pool(tmp_path / "pool", rows[:4], rows[4:])
    weights = ShardedTable.create(tmp_path / "weights", WEIGHTS, {}, 1)
    kept = [("a", 0), ("a", 1), ("c", 0)]
    weights.write_shard(0, [{"problem_id": p, "sample_idx": k, "weight": 1.0} for p, k in kept])
    samples = TrainingSet.of_pool(pool, weights)
    found = samples.told()
    assert {samples.names[i]: values.tolist() for i, values in found.items()} == {("a", 0): told, ("c", 0): told}
    assert not TrainingSet.of(made(3)).told()


def values(samples):
    """All values of samples, as plain ones."""
    return [
        (s.problem_id, s.sample_idx, [*map(int, s.prompt_ids)], [*map(int, s.completion_ids)], s.weight)
        for s in samples
    ]


def in_order(samples):
    return sorted(samples, key=lambda s: (s.problem_id, s.sample_idx))


def test_a_folder_says_what_samples_in_memory_do_whatever_its_shards(tmp_path):
    samples = made(25)
    for shards in (1, 3):
        folder = weighed(tmp_path / str(shards), samples, shards)
        memory = TrainingSet.of(in_order(samples))
        for name in ("names", "prompt_tokens", "completion_tokens", "digests", "lengths"):
            assert list(getattr(folder, name)) == list(getattr(memory, name))
        read = folder.read(range(25))
        assert len(folder) == 25 and values(read[i] for i in range(25)) == values(memory.read(range(25)).values())


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    samples = in_order(made(24))
    folder = weighed(tmp_path, samples)
    opened, read_shard = [], ShardedTable.read_shard

    def note(self, shard, columns=None):
        opened.append(shard)
        return read_shard(self, shard, columns)

    monkeypatch.setattr(ShardedTable, "read_shard", note)
    read = folder.read([3, 9])
    assert read.keys() == {3, 9} and opened == [0]
    assert values([read[3], read[9]]) == values([samples[3], samples[9]])


def test_a_token_of_what_was_read_takes_four_bytes(tmp_path):
    samples = weighed(tmp_path, in_order(made(24))).read(range(24)).values()
    for ids in (ids for s in samples for ids in (s.prompt_ids, s.completion_ids)):
        assert ids.dtype == np.int32 and ids.base is None  # no view of a whole shard


def test_the_digest_sees_name_and_tokens_and_leaves_the_weight_to_the_weights():
    [sample] = tiny_samples(1)
    digest = TrainingSet.of([sample]).digests[0]
    for field, value in (("completion_ids", (7,)), ("prompt_ids", (7,)), ("problem_id", "other")):
        assert TrainingSet.of([replace(sample, **{field: value})]).digests[0] != digest
    assert digest == fingerprint([sample.problem_id, sample.sample_idx, sample.prompt_ids, sample.completion_ids])
    other = TrainingSet.of([replace(sample, weight=0.25)])
    assert (other.digests, other.weights) == ([digest], [0.25])


def test_units_come_back_from_their_places(tmp_path):
    """Sample 2 of p1 is in both units of its problem; p0 has one, whose first sample is the later one."""
    rows = [made_pool.sample(p, k, 4 + k, True) for p in ("p0", "p1") for k in range(4)]
    pool, _ = made_pool.write_pool(tmp_path / "pool", rows[1::2], rows[::2])
    places = {("p0", 3): [0], ("p0", 1): [1], ("p1", 2): [1, 3], ("p1", 0): [0], ("p1", 3): [2]}
    weights = ShardedTable.create(tmp_path / "weights", WEIGHTS, {}, 1)
    of = [{"problem_id": r["problem_id"], "sample_idx": r["sample_idx"]} for r in rows]
    weights.write_shard(0, [r | ({"weight": 0.5, "places": places[key]} if (key := tuple(r.values())) in places else {})
                            for r in of])  # fmt: skip
    found = TrainingSet.of_pool(pool, weights, 2)
    units = [[found.names[i] for i in unit] for unit in found.units]
    assert units == [[("p0", 3), ("p0", 1)], [("p1", 0), ("p1", 2)], [("p1", 3), ("p1", 2)]]
    assert found.unit_lengths == [8 + 6, 5 + 7, 8 + 7]  # each with a prompt of one token
    assert TrainingSet.of_pool(pool, weights).units == [(0,), (1,), (2,), (3,), (4,)]
