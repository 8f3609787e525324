"""Grades and weights: groups by problem, independent of order, the same after a restart."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1p_jax.config.tree import MethodConfig
from o1p_jax.data.rollouts import RolloutFolder
from o1p_jax.methods.o1_pruner import length_harmonizing
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages.grade import grade_rollouts
from o1p_jax.stages.weigh import weigh_rollouts
from o1p_jax.training.samples import TrainingSet

KEEP_ALL = MethodConfig(keep=4)


def sample(problem, k, length, right, **values):
    answer = r"\boxed{7}" if right else r"\boxed{8}"
    return {
        "problem_id": problem,
        "source": "s",
        "split": "t",
        "level": "1",
        "problem": problem,
        "answer": "7",
        "prompt_ids": [1],
        "completion": answer,
        "completion_ids": [5] * length,
        "sample_idx": k,
        "seed": k,
        "finish_reason": "stop",
        "grade": "correct" if right else "wrong",
    } | values


GOLDEN = [sample("p", k, n, c) for k, (n, c) in enumerate([(100, True), (200, True), (300, False), (400, True)])]


def write(path, *shards):
    folder = RolloutFolder.create(path, {"seed": 0}, len(shards))
    for i, rows in enumerate(shards):
        folder.write_shard(i, rows)
    return path


def weigh(path, *shards, method=KEEP_ALL, seed=0):
    """{(problem, sample): row} and the report."""
    report = weigh_rollouts(write(path / "src", *shards), path / "dst", method, seed)
    return {(r["problem_id"], r["sample_idx"]): r for r in RolloutFolder(path / "dst").read().to_pylist()}, report


def digests(path):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in path.glob("*.parquet")}


def test_golden_values_reach_the_trainer(tmp_path):
    rows, report = weigh(tmp_path, GOLDEN)
    assert [rows["p", k]["reward"] for k in range(4)] == pytest.approx([2.0, 0.75, -5 / 3, 0.125])
    assert {(r["ref_mean_len"], r["ref_acc"]) for r in rows.values()} == {(250.0, 0.75)}
    kept = TrainingSet.weighed(tmp_path / "dst")
    samples = [kept.read(range(4))[i] for i in range(4)]
    assert [s.weight for s in samples] == pytest.approx([1.284341, 0.338814, -1.489205, -0.133950], abs=1e-6)
    assert [len(s.completion_ids) for s in samples] == [100, 200, 300, 400]
    assert (report.kept, report.wrong, report.wrong_positive, report.truncated) == (4, 1, 0, 0)


def test_paper_mode_keeps_raw_rewards(tmp_path):
    rows, _ = weigh(tmp_path, GOLDEN, method=MethodConfig(mode="paper", keep=4))
    assert all(r["weight"] == r["reward"] for r in rows.values())


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=5), min_size=1, max_size=5),
    st.randoms(),
    st.integers(1, 3),
)
def test_neither_order_nor_shards_matter_and_m_are_kept(tmp_path_factory, groups, random, keep):
    rows = [sample(f"p{i}", k, n, c) for i, group in enumerate(groups) for k, (n, c) in enumerate(group)]
    if not any(r["completion_ids"] for r in rows):
        return
    method = MethodConfig(keep=keep)
    first, report = weigh(tmp_path_factory.mktemp("a"), rows, method=method)
    random.shuffle(rows)
    second, _ = weigh(tmp_path_factory.mktemp("b"), rows[::2], rows[1::2], method=method)
    assert first == second
    kept = [key for key, row in first.items() if row["weight"] is not None]
    assert report.kept == len(kept) == sum(min(keep, sum(n > 0 for n, _ in group)) for group in groups)
    assert np.isfinite([first[key]["weight"] for key in kept]).all()
    for i, group in enumerate(groups):
        expected = length_harmonizing(np.array([n for n, _ in group]), np.array([c for _, c in group]), method.lam)
        assert [first[f"p{i}", k]["reward"] for k in range(len(group))] == pytest.approx(list(expected))


def test_a_lost_sample_does_not_shift_other_groups(tmp_path):
    other = [sample("q", k, 10 * (k + 1), k % 2 == 0) for k in range(4)]
    method = MethodConfig(keep=2, normalize="none")
    whole, _ = weigh(tmp_path / "a", GOLDEN + other, method=method)
    lost, _ = weigh(tmp_path / "b", GOLDEN[1:] + other, method=method)
    assert {k: v for k, v in whole.items() if k[0] == "q"} == {k: v for k, v in lost.items() if k[0] == "q"}


def test_kept_samples_depend_on_the_seed(tmp_path):
    rows = [sample(f"p{i}", k, k + 1, True) for i in range(20) for k in range(4)]
    method = MethodConfig(keep=1)
    kept = [
        frozenset(
            k
            for k, r in weigh(tmp_path / str(seed), rows, method=method, seed=seed)[0].items()
            if r["weight"] is not None
        )
        for seed in (0, 1)
    ]
    assert kept[0] != kept[1]
    assert {k for _, k in kept[0]} == {0, 1, 2, 3}  # no sample index is favoured


def test_truncated_samples_count_in_the_means_and_may_be_dropped(tmp_path):
    rows = [*GOLDEN[:3], GOLDEN[3] | {"finish_reason": "length"}]
    dropped, report = weigh(tmp_path / "drop", rows, method=MethodConfig(keep=4, truncated="drop"))
    assert dropped["p", 3]["weight"] is None and dropped["p", 0]["ref_mean_len"] == 250
    assert (report.kept, report.truncated) == (3, 1)
    kept, report = weigh(tmp_path / "keep", rows)
    assert kept["p", 3]["weight"] is not None and (report.kept, report.truncated) == (4, 1)


def test_undecided_samples_are_counted_and_stay_out(tmp_path):
    rows = [
        *GOLDEN,
        sample("p", 4, 9999, False, grade="timeout"),
        sample("q", 0, 50, False, grade="bad_gold"),
        sample("q", 1, 50, False),
    ]
    result, report = weigh(tmp_path, rows, method=MethodConfig(keep=5))
    assert result["p", 0]["ref_mean_len"] == 250.0
    assert {key for key, row in result.items() if row["weight"] is None} == {("p", 4), ("q", 0), ("q", 1)}
    assert result["q", 0]["ref_acc"] is None and report.undecided == 3


@pytest.mark.parametrize(
    ("group", "all_right", "all_wrong"),
    [
        ([(10, True), (30, True)], 1, 0),
        ([(10, False), (30, False)], 0, 1),
        ([(8, False), (8, False)], 0, 1),
    ],
)
def test_one_sided_groups(tmp_path, group, all_right, all_wrong):
    rows, report = weigh(tmp_path, [sample("p", k, n, c) for k, (n, c) in enumerate(group)])
    assert (report.all_right, report.all_wrong) == (all_right, all_wrong)
    if len({n for n, _ in group}) == 1:
        assert report.reward_std == 0 and [r["weight"] for r in rows.values()] == [0.0, 0.0]


def test_wrong_samples_with_positive_weight_are_reported(tmp_path, capsys):
    rows = [sample("p", 0, 500, False), *[sample("p", k, 4000, True) for k in range(1, 4)]]
    _, report = weigh(tmp_path, rows)
    assert report.wrong_positive == 1 and report.wrong_positive_share == 0.25
    assert "1 wrong with a positive weight (25.0% of the kept)" in capsys.readouterr().err


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(BadInput, match="no sample can be trained on"):
        weigh(tmp_path, [sample("p", 0, 0, False)])


def test_grading_fills_two_columns_and_goes_on_after_a_kill(tmp_path):
    blank = {"grade": None}
    src = write(tmp_path / "src", [r | blank for r in GOLDEN[:2]], [r | blank for r in GOLDEN[2:]])
    with pytest.raises(BadInput, match="without a grade"):
        weigh_rollouts(src, tmp_path / "w", KEEP_ALL, 0)
    graded = RolloutFolder(grade_rollouts(src, tmp_path / "dst"))
    table = graded.read()
    assert table["grade"].to_pylist() == ["correct", "correct", "wrong", "correct"]
    assert table["pred"].to_pylist() == ["7", "7", "8", "7"]
    before = digests(graded.path)
    graded.shard_path(1).unlink()
    grade_rollouts(src, tmp_path / "dst")
    assert digests(graded.path) == before


def test_weighing_goes_on_after_a_kill_and_refuses_another_method(tmp_path):
    weigh(tmp_path, GOLDEN[:2], GOLDEN[2:])
    before = digests(tmp_path / "dst")
    RolloutFolder(tmp_path / "dst").shard_path(1).unlink()
    weigh_rollouts(tmp_path / "src", tmp_path / "dst", KEEP_ALL, 0)
    assert digests(tmp_path / "dst") == before and len(before) == 2
    with pytest.raises(BadInput, match=r"lam=2\.0, not 5\.0"):
        weigh_rollouts(tmp_path / "src", tmp_path / "dst", MethodConfig(keep=4, lam=5.0), 0)
