"""Answers of several parts: lists and sets, points and intervals, vectors and matrices, the rows of cases.

`same` compares two parts; a verdict is None where a part's is.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from o1p_jax.grading.leaves import is_empty
from o1p_jax.grading.structure import assignment
from o1p_jax.grading.tree import Answer, Verdict

Same = Callable[[Answer, Answer], Verdict]

_MOST_IN_ANY_ORDER = 20
"""Elements of the longest list that is compared in any order; longer ones are compared in theirs."""


def same_groups(pred: Answer, gold: Answer, same: Same) -> Any:
    """Compares two answers, one of which has several parts; returns NotImplemented where none has."""
    for rule in (_lists, _sequences, _cases):
        if (verdict := rule(pred, gold, same)) is not NotImplemented:
            return verdict
    return NotImplemented


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Returns False if one of the verdicts is, None if one is open, else True."""
    found: Verdict = True
    for verdict in verdicts:
        if verdict is False:
            return False
        found = found and verdict
    return found


def any_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Returns True if one of the verdicts is, None if one is open, else False."""
    found: Verdict = False
    for verdict in verdicts:
        if verdict:
            return True
        found = None if verdict is None else found
    return found


def in_order(preds: Sequence[Answer], golds: Sequence[Answer], same: Same) -> Verdict:
    """Returns whether two sequences have the same parts in the same order."""
    if len(preds) != len(golds):
        return False
    return all_of(same(pred, gold) for pred, gold in zip(preds, golds, strict=True))


def _in_any_order(preds: Sequence[Answer], golds: Sequence[Answer], same: Same) -> Verdict:
    if len(preds) != len(golds) or len(golds) > _MOST_IN_ANY_ORDER:
        return in_order(preds, golds, same)
    rest = list(preds)
    for gold in golds:
        verdicts = [same(pred, gold) for pred in rest]
        if True not in verdicts:
            return None if None in verdicts else False
        del rest[verdicts.index(True)]
    return True


def _lists(pred: Answer, gold: Answer, same: Same) -> Any:
    """Lists and sets compare in any order, sets without repeats; x = 1, y = 2 is the point (1, 2)."""
    kinds = {pred.kind, gold.kind}
    if not kinds & {"list", "set"} or "region" in kinds:
        return NotImplemented
    mine, theirs = _coordinates(pred), _coordinates(gold)
    if bool(mine) != bool(theirs) and "set" not in kinds and "leaf" not in kinds:
        return "[]" not in (pred.mark, gold.mark) and in_order(mine or pred.parts, theirs or gold.parts, same)
    pred, gold = _ungrouped(pred, gold), _ungrouped(gold, pred)
    if gold.kind not in ("list", "set"):
        if pred.kind == "list":  # 3/4, or 75%
            return all_of(same(part, gold) for part in pred.parts)
        return same(pred.parts[0], gold) if len(pred.parts) == 1 else not pred.parts and is_empty(gold.text)
    if pred.kind not in ("list", "set"):
        if gold.kind == "list":
            return False
        return same(pred, gold.parts[0]) if len(gold.parts) == 1 else not gold.parts and is_empty(pred.text)
    if r"\ldots" in gold.text:
        return in_order(pred.parts, gold.parts, same)
    if "set" in kinds:
        return _in_any_order(_distinct(pred.parts, same), _distinct(gold.parts, same), same)
    return _in_any_order(pred.parts, gold.parts, same)


def _coordinates(answer: Answer) -> list[Answer] | None:
    """Returns the values of a list of equations that name different letters, in the letters' order; or None."""
    if answer.kind != "list" or not all(part.kind == "equation" and part.mark is None for part in answer.parts):
        return None
    named = {name: value for name, value in map(assignment, answer.parts) if name and re.fullmatch(r"[A-Za-z]", name)}
    return [named[name] for name in sorted(named)] if len(named) == len(answer.parts) else None


def _ungrouped(one: Answer, other: Answer) -> Answer:
    """Returns 100,200,300 as the list that the other answer is."""
    if one.kind != "leaf" or other.kind != "list" or "," not in one.text:
        return one
    return Answer("list", "", tuple(Answer("leaf", part) for part in one.text.split(",")))


def _distinct(parts: Sequence[Answer], same: Same) -> list[Answer]:
    """Returns the elements without those that repeat another."""
    kept: list[Answer] = []
    for part in parts[:_MOST_IN_ANY_ORDER]:
        if not any(part.text == other.text or (part.kind == "leaf" and same(part, other)) for other in kept):
            kept.append(part)
    return [*kept, *parts[_MOST_IN_ANY_ORDER:]]


def _sequences(pred: Answer, gold: Answer, same: Same) -> Any:
    """Points and intervals compare in order, with their brackets; vectors and columns are sequences too."""
    kinds = {pred.kind, gold.kind}
    if kinds in ({"sequence"}, {"matrix"}):
        return pred.mark == gold.mark and in_order(pred.parts, gold.parts, same)
    if kinds != {"matrix", "sequence"}:
        return NotImplemented
    if all(part.kind == "sequence" for part in (*pred.parts, *gold.parts)):  # [[1, 2], [3, 4]]
        mine, theirs = ([row._replace(mark="()") for row in one.parts] for one in (pred, gold))
        return in_order(mine, theirs, same)
    a, b = _vector(pred), _vector(gold)
    return a is not None and b is not None and in_order(a, b, same)


def _vector(answer: Answer) -> Sequence[Answer] | None:
    """Returns the entries of a sequence, or of a matrix of one column or one row; else None."""
    if answer.kind == "sequence":
        return answer.parts if answer.mark in ("()", "[]") else None
    if len(answer.parts) == 1:
        return answer.parts[0].parts
    return [row.parts[0] for row in answer.parts] if all(len(row.parts) == 1 for row in answer.parts) else None


def _cases(pred: Answer, gold: Answer, same: Same) -> Any:
    """The rows of cases compare in any order."""
    if pred.kind == gold.kind == "cases":
        return _in_any_order(pred.parts, gold.parts, same)
    return NotImplemented
