"""Grades and weights: groups by problem, independent of order, the same after a restart."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pool import sample, write_pool

from o1p_jax.config.tree import BatchConfig, GradingConfig, RunConfig, SamplingConfig
from o1p_jax.data.pool import Pool
from o1p_jax.methods.base import Group
from o1p_jax.methods.dler import DLERParams
from o1p_jax.methods.dpo_shortest import DPOShortestParams
from o1p_jax.methods.o1_pruner import O1Pruner, O1PrunerParams
from o1p_jax.methods.tlmre import TLMREParams
from o1p_jax.runtime.errors import BadInput
from o1p_jax.stages import identity
from o1p_jax.stages import weigh as stages_weigh
from o1p_jax.stages.grade import grade
from o1p_jax.stages.presample import sample_seed
from o1p_jax.stages.weigh import read_weights
from o1p_jax.training.samples import TrainingSet

KEEP_ALL = O1PrunerParams(m=4)


GOLDEN = [sample("p", k, n, c) for k, (n, c) in enumerate([(100, True), (200, True), (300, False), (400, True)])]


BITS = {
    "code": (O1PrunerParams(m=3, lam=4.5), "0x1.e47797f2c0873p+0", {
        "p0/2": "0x1.e9ce48d1bb869p-2", "p0/3": "-0x1.2a908a20d1a1ap-1", "p0/4": "-0x1.6556276cf0a66p-1",
        "p1/2": "-0x1.2499ed2ccf5b8p-3", "p1/3": "0x1.7de36e884cf83p+0", "p1/4": "-0x1.603ca61661c51p-1",
        "p2/1": "0x1.7de36e884cf83p+0", "p2/2": "-0x1.2932e48663a7ap-1", "p2/4": "-0x1.87e0ea66373bcp-1",
        "p3/1": "-0x1.adc2081fafe8ep+0", "p3/2": "0x1.7697da029c129p-3", "p3/4": "0x1.7de36e884cf83p+0",
    }),
    "drop": (O1PrunerParams(m=3, truncated="drop"), "0x1.b0a0e5f8b6178p+0", {
        "p0/2": "0x1.56de454539732p-1", "p0/3": "-0x1.09b80ba3b7b40p-1", "p0/4": "-0x1.4b8876c02a5f5p-1",
        "p1/2": "-0x1.09c4616e52762p-1", "p1/4": "0x1.663e764b22694p-2", "p2/1": "0x1.cdf51d322e22dp+0",
        "p2/2": "-0x1.083080c456b08p-1", "p2/4": "-0x1.7236c9ab87e38p-1", "p3/1": "-0x1.7375dee3d3568p+0",
        "p3/2": "-0x1.02f4125392d11p-2", "p3/4": "0x1.cdf51d322e22dp+0",
    }),
    "paper": (O1PrunerParams(m=2, mode="paper"), "0x1.3efb837c65275p+0", {
        "p0/3": "0x1.2c93bdc569b60p-4", "p0/4": "-0x1.269a69a69a69cp-3", "p1/2": "0x1.2becf990a5a20p-4",
        "p1/3": "0x1.9ad1ad1ad1ad2p+1", "p2/2": "0x1.4141414141410p-4", "p2/4": "-0x1.160a2c145828cp-2",
        "p3/1": "-0x1.807058f114300p+0", "p3/2": "0x1.0bd0bd0bd0bd1p-1",
    }),
}  # fmt: skip
"""For `test_choice_and_weights_to_the_bit`: parameters, deviation of the rewards, weights of the kept samples."""


def weigh(path, *shards, method=KEEP_ALL, **options):
    """{(problem, sample): row} and the report."""
    pool, grades = write_pool(path / "pool", *shards)
    report = weigh_again(path, pool, grades, method, **options)
    return {(r["problem_id"], r["sample_idx"]): r for r in read_weights(path / "w").read().to_pylist()}, report


def weigh_again(path, pool, grades, method=KEEP_ALL, seed=0, means=None, **batch):
    sampling = SamplingConfig(samples_per_problem=max(method.m, method.k or 2, 2))
    cfg = RunConfig(seed=seed, method=method, sampling=sampling, batch=BatchConfig(**batch | {"too_long": "drop"}))
    training = replace(cfg.training, batch=BatchConfig(**batch))
    made_by = identity.of_weights(cfg, pool.identity)
    return stages_weigh.weigh(pool, grades, training, made_by, path / "w", means)


def digests(path):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in path.glob("*.parquet")}


def test_golden_values_reach_the_trainer(tmp_path):
    rows, report = weigh(tmp_path, GOLDEN)
    assert [rows["p", k]["reward"] for k in range(4)] == pytest.approx([2.0, 0.75, -5 / 3, 0.125])
    assert {(r["ref_mean_len"], r["ref_acc"]) for r in rows.values()} == {(250.0, 0.75)}
    kept = TrainingSet.of_pool(Pool(tmp_path / "pool"), read_weights(tmp_path / "w"))
    samples = [kept.read(range(4))[i] for i in range(4)]
    assert [s.weight for s in samples] == pytest.approx([1.284341, 0.338814, -1.489205, -0.133950], abs=1e-6)
    assert [len(s.completion_ids) for s in samples] == [100, 200, 300, 400]
    assert (report.kept, report.wrong, report.wrong_positive, report.truncated) == (4, 1, 0, 0)


def test_choice_and_weights_to_the_bit(tmp_path):
    rng, rows = np.random.default_rng(0), []
    for i in range(4):
        for k in range(5):
            length, right, cut = int(rng.integers(0, 400)), bool(rng.integers(0, 2)), bool(rng.integers(0, 4) == 0)
            values = {"finish_reason": "length" if cut else "stop"}
            values |= {"grade": "timeout"} if rng.integers(0, 8) == 0 else {}
            rows.append(sample(f"p{i}", k, length, right, **values))
    for name, (method, std, weights) in BITS.items():
        got, report = weigh(tmp_path / name, rows, method=method, seed=3)
        assert report.reward_std.hex() == std
        kept = {f"{p}/{k}": row["weight"].hex() for (p, k), row in got.items() if row["weight"] is not None}
        assert kept == weights


def test_a_users_reward_takes_the_place_of_the_methods(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine.py"
    mine.write_text("def short(group, params):\n    return params.lam * group.correct_K - group.length_K / 100\n")
    method = O1PrunerParams(m=4, normalize="none", reward="mine.py:short")
    rows, _ = weigh(tmp_path / "a", GOLDEN, method=method)
    assert [rows["p", k]["reward"] for k in range(4)] == [1.0, 0.0, -3.0, -2.0]
    assert [rows["p", k]["weight"] for k in range(4)] == [1.0, 0.0, -2.0, -2.0]  # within the method's limits
    made_by = identity.of_weights(RunConfig(method=method), {})
    assert made_by["method.reward"] == "short"
    mine.write_text(mine.read_text() + "# another\n")
    assert identity.of_weights(RunConfig(method=method), {}) != made_by
    mine.write_text("def short(group, params):\n    return [1.0]\n")
    with pytest.raises(BadInput, match=r"mine\.py:short: must return one number for each .* \(problem p\)"):
        weigh(tmp_path / "b", GOLDEN, method=method)


def test_paper_mode_keeps_raw_rewards(tmp_path):
    rows, _ = weigh(tmp_path, GOLDEN, method=O1PrunerParams(mode="paper", m=4))
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
    method = O1PrunerParams(m=keep)
    try:
        first, report = weigh(tmp_path_factory.mktemp("a"), rows, method=method)
    except BadInput as e:
        assert "kept samples are 0" in str(e)
        return
    random.shuffle(rows)
    second, _ = weigh(tmp_path_factory.mktemp("b"), rows[::2], rows[1::2], method=method)
    assert first == second
    kept = [key for key, row in first.items() if row["weight"] is not None]
    assert report.kept == len(kept) == sum(min(keep, sum(n > 0 for n, _ in group)) for group in groups)
    assert np.isfinite([first[key]["weight"] for key in kept]).all()
    for i, group in enumerate(groups):
        lengths, right = np.array([n for n, _ in group]), np.array([c for _, c in group])
        expected = O1Pruner().reward(Group(lengths, right, np.zeros_like(right)), method)
        assert [first[f"p{i}", k]["reward"] for k in range(len(group))] == pytest.approx(list(expected))


def test_the_means_may_be_those_of_another_runs_samples(tmp_path):
    others = [sample("q", k, 50, k == 0) for k in range(2)]
    method = O1PrunerParams(mode="paper", m=4)
    rows, report = weigh(tmp_path, GOLDEN + others, method=method, means={"p": (300.0, 0.5)})
    # 300/L - 1 + 2 (A - 1/2) for lengths of 100, 200, 300 and 400, of which the third is wrong
    assert [rows["p", k]["reward"] for k in range(4)] == [3.0, 1.5, -1.0, 0.75]
    assert {(rows["p", k]["ref_mean_len"], rows["p", k]["ref_acc"]) for k in range(4)} == {(300.0, 0.5)}
    assert all(rows["q", k][name] is None for k in range(2) for name in ("ref_acc", "reward", "weight"))
    assert (report.kept, report.undecided, report.left_out, report.all_right, report.all_wrong) == (4, 2, 1, 0, 0)


def test_a_lost_sample_does_not_shift_other_groups(tmp_path):
    other = [sample("q", k, 10 * (k + 1), k % 2 == 0) for k in range(4)]
    method = O1PrunerParams(m=2, normalize="none")
    whole, _ = weigh(tmp_path / "a", GOLDEN + other, method=method)
    lost, _ = weigh(tmp_path / "b", GOLDEN[1:] + other, method=method)
    assert {k: v for k, v in whole.items() if k[0] == "q"} == {k: v for k, v in lost.items() if k[0] == "q"}


def test_kept_samples_depend_on_the_seed(tmp_path):
    rows = [sample(f"p{i}", k, k + 1, True) for i in range(20) for k in range(4)]
    method = O1PrunerParams(m=1)
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
    dropped, report = weigh(tmp_path / "drop", rows, method=O1PrunerParams(m=4, truncated="drop"))
    assert dropped["p", 3]["weight"] is None and dropped["p", 0]["ref_mean_len"] == 250
    assert (report.kept, report.truncated) == (3, 1)
    kept, report = weigh(tmp_path / "keep", rows)
    assert kept["p", 3]["weight"] is not None and (report.kept, report.truncated) == (4, 1)


def test_the_first_k_samples_count_as_if_no_more_had_been_drawn(tmp_path):
    few, report = weigh(tmp_path / "few", [*GOLDEN[:3]], method=O1PrunerParams(m=2))
    many, of_k = weigh(tmp_path / "many", GOLDEN, method=O1PrunerParams(m=2, k=3))
    assert report == of_k and {key: many[key] for key in few} == few
    assert many["p", 3]["weight"] is None and many["p", 3]["reward"] is None


def test_undecided_samples_are_counted_and_stay_out(tmp_path):
    rows = [
        *GOLDEN,
        sample("p", 4, 9999, False, grade="timeout"),
        sample("q", 0, 50, False, grade="bad_gold"),
        sample("q", 1, 50, False),
    ]
    result, report = weigh(tmp_path, rows, method=O1PrunerParams(m=5))
    assert result["p", 0]["ref_mean_len"] == 250.0
    assert {key for key, row in result.items() if row["weight"] is None} == {("p", 4), ("q", 0), ("q", 1)}
    assert result["q", 0]["ref_acc"] is None and report.undecided == 3


@pytest.mark.parametrize(
    ("group", "all_right", "all_wrong"),
    [
        ([(10, True), (30, True)], 1, 0),
        ([(10, False), (30, False)], 0, 1),
    ],
)
def test_one_sided_groups(tmp_path, group, all_right, all_wrong):
    rows, report = weigh(tmp_path, [sample("p", k, n, c) for k, (n, c) in enumerate(group)])
    assert (report.all_right, report.all_wrong) == (all_right, all_wrong)
    assert all(row["weight"] for row in rows.values())


@pytest.mark.parametrize(
    "rows",
    [
        [sample("p", k, 8, False, finish_reason="length") for k in range(4)],
        [sample(f"p{k}", 0, 10 * (k + 1), True) for k in range(4)],  # K = 1
    ],
)
def test_weights_that_are_all_0_are_no_weights(tmp_path, rows):
    message = r"weights of all 4 kept samples are 0, .* \([04] of 4 samples were cut off .*more max_tokens, a higher"
    with pytest.raises(BadInput, match=message):
        weigh(tmp_path, rows)
    assert not (tmp_path / "w").exists()


def test_samples_longer_than_a_row_are_refused_or_leave_before_normalisation(tmp_path, capsys):
    """`sample` gives every problem a prompt of one token."""
    rows = [*GOLDEN, sample("p", 4, 401, True), sample("p", 5, 9000, False, grade="timeout")]
    with pytest.raises(BadInput, match=r"row_length=401: 1 of 6 samples are longer, up to 9001 .*too_long=drop"):
        weigh(tmp_path / "a", rows, method=O1PrunerParams(m=5), row_length=401)
    dropped, report = weigh(tmp_path / "b", rows, method=O1PrunerParams(m=5), row_length=401, too_long="drop")
    assert dropped["p", 4]["weight"] is None and dropped["p", 0]["ref_mean_len"] == (1000 + 401) / 5
    kept = [dropped["p", k]["weight"] for k in range(4)]
    assert sum(kept) == pytest.approx(0) and np.std(kept) == pytest.approx(1)
    assert (report.kept, report.too_long) == (4, 1) and "1 longer than a row" in capsys.readouterr().err
    assert report.for_card()["solutions left out because a row has no room for them"] == 1
    assert report.for_metrics()["too_long"] == 1


def test_m_samples_are_kept_where_longer_ones_leave(tmp_path):
    rows = [sample("p", k, n, True) for k, n in enumerate([200, 300, 400, 500, 600, 700])]
    for seed in range(4):
        options = {"seed": seed, "row_length": 401, "too_long": "drop"}
        got, report = weigh(tmp_path / str(seed), rows, method=O1PrunerParams(m=2), **options)
        assert report.kept == 2 and all(got["p", k]["weight"] is None for k in (3, 4, 5))


def test_an_empty_sample_counts_as_one_token_in_the_mean_and_in_the_reward(tmp_path):
    empty = [sample("p", 0, 0, True), sample("p", 1, 9, True)]
    one = [sample("p", 0, 1, True), sample("p", 1, 9, True)]
    rows, report = weigh(
        tmp_path / "a", [*empty, sample("q", 0, 5, True)], method=O1PrunerParams(m=2, normalize="none")
    )
    told, _ = weigh(tmp_path / "b", [*one, sample("q", 0, 5, True)], method=O1PrunerParams(m=2, normalize="none"))
    for name in ("ref_mean_len", "reward"):
        assert [rows["p", k][name] for k in range(2)] == [told["p", k][name] for k in range(2)]
    assert rows["p", 0]["weight"] is None and report.empty == 1


def test_what_is_kept_does_not_depend_on_the_samples_seeds(tmp_path):
    """The m with the smallest seeds are kept once in so many problems, not in all."""
    rows = [sample(f"p{i}", k, k + 1, True, seed=sample_seed(0, f"p{i}", k)) for i in range(40) for k in range(4)]
    got, _ = weigh(tmp_path, rows, method=O1PrunerParams(m=1))
    smallest = [min(range(4), key=lambda k: sample_seed(0, f"p{i}", k)) for i in range(40)]
    kept = [next(k for k in range(4) if got[f"p{i}", k]["weight"] is not None) for i in range(40)]
    assert sum(a == b for a, b in zip(kept, smallest, strict=True)) < 25


def test_wrong_samples_with_positive_weight_are_reported(tmp_path, capsys):
    rows = [sample("p", 0, 500, False), *[sample("p", k, 4000, True) for k in range(1, 4)]]
    _, report = weigh(tmp_path, rows)
    assert report.wrong_positive == 1 and report.wrong_positive_share == 0.25
    assert "1 wrong with a positive weight (25.0% of the kept)" in capsys.readouterr().err


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(BadInput, match="no sample can be trained on"):
        weigh(tmp_path, [sample("p", 0, 0, False)])


def test_grading_goes_on_after_a_kill(tmp_path):
    pool, _ = write_pool(tmp_path, *([r | {"grade": None} for r in rows] for rows in (GOLDEN[:2], GOLDEN[2:])))
    graded = grade(pool, GradingConfig())
    table = graded.read()
    assert table["grade"].to_pylist() == ["correct", "correct", "wrong", "correct"]
    assert table["pred"].to_pylist() == ["7", "7", "8", "7"]
    before = digests(graded.path)
    graded.shard_path(1).unlink()
    grade(pool, GradingConfig())
    assert digests(graded.path) == before


def test_another_grader_has_grades_of_its_own_and_the_first_ones_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def never(solution, answer):\n    return False\n")
    pool, grades = write_pool(tmp_path / "pool", GOLDEN)
    other = grade(pool, GradingConfig(grader="mine.py:never"))
    assert set(other.read()["grade"].to_pylist()) == {"wrong"}
    assert grades.read()["grade"].to_pylist() == ["correct", "correct", "wrong", "correct"]
    assert grade(pool, GradingConfig()).path == grades.path != other.path


def test_samples_without_a_grade_are_not_weighed(tmp_path):
    pool, grades = write_pool(tmp_path / "pool", [r | {"grade": None} for r in GOLDEN])
    with pytest.raises(BadInput, match="not written yet"):
        weigh_again(tmp_path, pool, grades)


def test_weights_are_made_once_and_again_for_another_method(tmp_path):
    rows, report = weigh(tmp_path, GOLDEN[:2], GOLDEN[2:])
    pool = Pool(tmp_path / "pool")
    grades = grade(pool, GradingConfig())
    stamp = (tmp_path / "w" / "part-00000.parquet").stat().st_mtime_ns
    assert weigh_again(tmp_path, pool, grades) == report
    assert (tmp_path / "w" / "part-00000.parquet").stat().st_mtime_ns == stamp
    weigh_again(tmp_path, pool, grades, O1PrunerParams(m=4, lam=5.0))
    again = read_weights(tmp_path / "w").read(["reward"])["reward"].to_pylist()
    assert again != [row["reward"] for row in rows.values()]


PAIRS = DPOShortestParams(m=2)


def test_pairs_reach_the_trainer_with_the_winner_first(tmp_path, capsys):
    """Of p the two shortest right samples against the longest, of q one pair; r has no right sample."""
    q = [sample("q", 0, 9, False), sample("q", 1, 5, True)]
    rows, report = weigh(tmp_path, [*GOLDEN, *q, sample("r", 0, 4, False), sample("r", 1, 6, False)], method=PAIRS)
    assert {key: (row["weight"], row["places"]) for key, row in rows.items() if row["weight"] is not None} == {
        ("p", 0): (1.0, [0]), ("p", 1): (1.0, [2]), ("p", 3): (-2.0, [1, 3]),
        ("q", 0): (-1.0, [1]), ("q", 1): (1.0, [0]),
    }  # fmt: skip
    kept = TrainingSet.of_pool(Pool(tmp_path / "pool"), read_weights(tmp_path / "w"), PAIRS.UNIT)
    units = [[kept.names[i] for i in unit] for unit in kept.units]
    assert units == [[("p", 0), ("p", 3)], [("p", 1), ("p", 3)], [("q", 1), ("q", 0)]]
    assert (report.kept, report.left_out, report.parted, report.wrong_positive) == (5, 1, 0, 0)
    assert "1 all wrong, 1 left out)" in capsys.readouterr().err and report.for_card()["problems left out"] == 1


def test_pairs_that_no_row_has_room_for_are_refused_or_left_out(tmp_path):
    """With prompts of one token the pairs of GOLDEN take 502 and 602."""
    with pytest.raises(BadInput, match=r"^batch\.row_length=502: 1 units of 2 samples, .*too_long=drop"):
        weigh(tmp_path / "a", GOLDEN, method=PAIRS, row_length=502)
    rows, report = weigh(tmp_path / "b", GOLDEN, method=PAIRS, row_length=502, too_long="drop")
    assert (report.kept, report.parted, rows["p", 1]["weight"], rows["p", 3]["places"]) == (2, 1, None, [1])
    with pytest.raises(BadInput, match="no sample can be trained on"):
        weigh(tmp_path / "c", GOLDEN, method=PAIRS, row_length=401, too_long="drop")


def test_problems_that_teach_nothing_are_left_out_and_the_message_says_so(tmp_path):
    easy, hard = ([sample(p, k, 5 + k, right) for k in range(3)] for p, right in (("e", True), ("h", False)))
    method = DLERParams(limit=200, m=4)
    rows, report = weigh(tmp_path / "a", [*GOLDEN, *easy, *hard], method=method)
    assert {p for (p, _), row in rows.items() if row["weight"] is not None} == {"p"}
    assert (report.kept, report.left_out, report.all_right, report.all_wrong) == (4, 2, 1, 1)
    # R - mean is 1/2, 1/2, -1/2, -1/2; the standard deviation over the problem that is trained on is 1/2
    assert [rows["p", k]["weight"] for k in range(4)] == [1.0, 1.0, -1.0, -1.0]
    with pytest.raises(
        BadInput, match=r"of 2 problems 1 have only right ones, 1 only others; .*another method than dler"
    ):
        weigh(tmp_path / "b", [*easy, *hard], method=method)


def test_samples_that_a_row_has_no_room_for_are_still_compared_with(tmp_path):
    """All that fit are right; the wrong one is longer than a row, and the others are worth more for it."""
    rows = [sample("p", 0, 10, True), sample("p", 1, 20, True), sample("p", 2, 900, False)]
    got, report = weigh(tmp_path, rows, method=TLMREParams(m=3, alpha=0.0), row_length=401, too_long="drop")
    assert [got["p", k]["weight"] for k in range(3)] == pytest.approx([0.5, 0.5, None]) and report.kept == 2
