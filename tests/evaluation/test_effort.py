import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_rollouts import rollouts, row

from o1p_jax.evaluation.effort import effort_of, with_passes
from o1p_jax.evaluation.summary import Graded, compare, summarize
from o1p_jax.grading.passes import AFTER, FIRST, KINDS, REPEATED, TO_RIGHT, TO_WRONG, UNCHANGED

CHECK = "Wait, check: = 4.\n"  # 18 characters
ANSWER = "The answer is 4.\n"  # 17


def one_a_token(ids):
    """As if each token were one character."""
    return [1] * len(ids)


def cut(rows, text_lengths=one_a_token):
    return with_passes(rollouts(rows), text_lengths)


def solution(problem: str, text: str, grade: str = "correct", **more) -> dict:
    return row(problem, len(text), grade, text=text, **more)


def test_each_kinds_tokens_by_hand():
    wrong = "Wait, no: the answer is 5.\n"
    back = "Hmm. The answer is 4.\n"
    text = ANSWER + CHECK + CHECK + wrong + back + "</think>" + "So \\boxed{4}."
    [tokens] = cut([solution("a", text)])["tokens_by_kind"].to_pylist()
    assert dict(zip(KINDS, tokens, strict=True)) == {
        FIRST: 17,
        UNCHANGED: 18,
        REPEATED: 18,
        TO_WRONG: len(wrong),
        TO_RIGHT: len(back) + len("</think>"),
        AFTER: len("So \\boxed{4}."),
    }


def test_what_is_right_is_said_by_the_gold_answer_wherever_it_stands_and_by_what_was_graded_correct():
    gold = r"Doubling the angle gives \boxed{2\sin(x)\cos(x)}."
    text = r"So \boxed{2\sin(x)\cos(x)}. Wait, \boxed{3}. Wait, \boxed{\sin(2x)}."
    graded = {"answer": gold, "pred": r"\sin(2x)"}
    for grade, back in ("correct", TO_RIGHT), ("wrong", UNCHANGED):
        [tokens] = cut([solution("a", text, grade) | graded])["tokens_by_kind"].to_pylist()
        found = {kind for kind, n in zip(KINDS, tokens, strict=True) if n}
        assert found == {FIRST, TO_WRONG, back}


def test_a_token_belongs_to_the_stretch_in_which_its_text_ends_and_tokens_without_text_to_the_last():
    lengths = [10, 7, 10, 8, 0]  # the second ends with the first pass
    ids = {"completion_ids": list(range(5))}
    assert cut([solution("a", ANSWER + CHECK) | ids], lambda _: lengths)["tokens_by_kind"].to_pylist() == [
        [2, 0, 0, 3, 0, 0]
    ]
    lengths = [10, 8, 10, 7, 0]  # the second crosses the border
    assert cut([solution("a", ANSWER + CHECK) | ids], lambda _: lengths)["tokens_by_kind"].to_pylist() == [
        [1, 0, 0, 4, 0, 0]
    ]


def test_lengths_that_miss_those_of_the_text_are_scaled_to_it():
    rows = [solution("a", ANSWER + CHECK)]
    assert cut(rows, lambda ids: [2] * len(ids))["tokens_by_kind"] == cut(rows)["tokens_by_kind"]


@given(
    st.lists(st.sampled_from([CHECK, ANSWER, "Wait, ", "= 5.\n", "</think>", "<think>", "x "]), max_size=9),
    st.lists(st.integers(0, 9), max_size=30),
)
def test_the_kinds_tokens_add_up_to_the_solutions(pieces, lengths):
    rows = [solution("a", "".join(pieces)) | {"completion_ids": list(range(len(lengths)))}]
    [tokens] = cut(rows, lambda _: lengths)["tokens_by_kind"].to_pylist()
    assert sum(tokens) == len(lengths) and min(tokens) >= 0


def test_what_was_removed_is_paired_by_problem_and_adds_up_to_the_change_of_tokens():
    rng = np.random.default_rng(0)
    base = [
        solution(f"p{i}", ANSWER + CHECK * n, sample=s, level=str(i % 2))
        for i in range(12)
        for s, n in enumerate(rng.integers(0, 9, 2))
    ]
    new = [solution(f"p{i}", ANSWER + CHECK * (i % 3 > 0), level=str(i % 2)) for i in reversed(range(12))]
    runs = [Graded("base", "set", cut(base)), Graded("new", "set", cut(new))]
    results = compare(runs, resamples=200)
    for summary, before in [
        (results[1].overall, results[0].overall),
        (results[1].levels["1"], results[0].levels["1"]),
    ]:
        assert summary.effort and before.effort and summary.effort.change
        for kind, change in summary.effort.change.items():
            assert change.value == pytest.approx(summary.effort.tokens[kind] - before.effort.tokens[kind])
            assert change.low <= change.value <= change.high
        assert sum(summary.effort.tokens.values()) == pytest.approx(summary.tokens.value)
    overall = results[1].overall.effort
    assert overall.change[FIRST] == (0, 0, 0) and overall.change[REPEATED].high < 0 < overall.tokens[UNCHANGED]
    assert results[0].overall.effort.change is None
    same = compare([runs[0], runs[0]._replace(model="again")], resamples=50)[1].overall.effort
    assert set(same.change.values()) == {(0, 0, 0)}


def test_solutions_without_a_recognised_answer_are_counted():
    effort = effort_of(cut([solution("a", "Wait, so?"), solution("b", ANSWER)]), None, 20, 0)
    assert effort.unanswered == 0.5 and effort.tokens[FIRST] == 13


def test_whether_harder_problems_get_more_is_told_by_the_bases_accuracy():
    right = {"easy": 4, "half": 2, "hard": 1, "none": 0}
    base = [
        solution(name, ANSWER, "correct" if s < n else "wrong", sample=s) for name, n in right.items() for s in range(4)
    ]
    tokens = {"easy": 10, "half": 20, "hard": 40, "none": 80}
    new = [row(name, n, "correct", text=ANSWER) for name, n in tokens.items()]
    before, after = cut(base), cut(new)
    effort = effort_of(after, before, 200, 0)
    assert effort.by_accuracy == {"0-25%": (2, 60), "25-50%": (1, 20), "75-100%": (1, 10)}
    assert effort.follows_difficulty.value == pytest.approx(1)
    assert np.isnan(effort_of(before, None, 200, 0).follows_difficulty.value)  # all solutions are of one length


def test_rollouts_that_are_not_cut_have_no_effort():
    rows = [solution("a", ANSWER)]
    assert summarize(rollouts(rows)).effort is None
    assert summarize(cut(rows), rollouts(rows)).effort is None
    assert summarize(cut(rows), cut(rows)).effort
