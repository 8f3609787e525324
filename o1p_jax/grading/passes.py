"""A solution is cut into passes: the first one to an answer, and the checks behind it, told apart by what they changed.

A text is cut where it turns back, at a sentence or a line that begins with 'Wait', 'Let me check', 'Alternatively',
'Try 5:' and the like (`_TURN`, English). A pass is made of one or more of these stretches: it ends with the first of
them that states an answer. So each pass but the last has an answer, as the solution rounds of arXiv 2412.21187 have
(which were cut by a model). What stands behind the thought is no pass.

An answer is stated in a box, after '####', by 'the answer (or guess) is ...' or by a trial of a value that ends in
'Yes' ('Try 5: 5 + 2 = 7. Yes.'), where it holds a digit; and by any statement (`extract.statements`), the end of an
equation or a clause among them, that equals the right answer or the solution's final one.

The texts were written by models: every pattern here reads its text once, whatever it is.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from o1p_jax.grading.extract import same_answer, statements
from o1p_jax.grading.thoughts import closing_mark

FIRST, TO_RIGHT, TO_WRONG, UNCHANGED, REPEATED, AFTER = KINDS = (
    "first",  # the first pass, up to its answer and on to the first turn behind it; all, where no answer is recognised
    "to_right",  # a check behind which the answer is another one, and right
    "to_wrong",  # a check behind which the answer is another one, and wrong, whatever it was before
    "unchanged",  # a check behind which the answer is the same, or that states none before the text ends
    "repeated",  # a stretch in the words of an earlier one, in whatever pass
    "after",  # what stands behind the thought, where an answer is recognised in the thought
)

_TURN = re.compile(
    r"""(?:^|(?<=[.!?:;)\]*])\ )[ \t>*\#-]{0,9}
    (?:(?:but|so|okay|ok|oh|ah|now|and|or|well|yeah|yes|no|then|just)\b[,.\ ]{1,3}){0,3}
    (?:
        wait | h+m+ | hold\ on | alternatively | actually | on\ second\ thought | (?:looking|going)\ back
      | (?:double[-\ ]?)?check(?:ing)? | verif\w{1,9} | (?:re-?)(?:check|calculat|comput|consider|examin|evaluat)\w{0,5}
      | to\ (?:be\ (?:sure|safe|certain)|make\ sure|verify|check|confirm|double)
      | let(?:'s|\u2019s|\ me|\ us)\ (?:just\ |also\ |quickly\ |now\ |maybe\ ){0,2}
        (?:double|check|verify|confirm|test|try|redo|go\ back|make\ sure|see\ (?:if|whether)|think\ again|look\ again
          |start\ over|re-?(?:check|calculat|comput|consider|examin|evaluat|verif|think|do|read|trace)\w{0,5})
      | i\ (?:should|need\ to|could|can|might|want\ to|think\ i|may\ have|must\ have)\ (?:also\ )?
        (?:double|check|verify|confirm|test|try|have\ made|made)
      | (?:is|does|could|can)\ (?:that|this|it)\b | are\ (?:there|these|those)\b
      | another\ (?:way|approach|method|possibility|option) | (?:what|how)\ (?:about|if) | maybe | perhaps
      | try(?:ing)? | (?:if\ (?:i|we)\ )?(?:plug|substitut)\w{0,5}
    )\b""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_TRIAL = re.compile(r"[^:\n\d]{0,40}?(?P<value>-?\d[\d.,/]{0,40})[^:\n\d]{0,20}:(?P<working>[^\n]{0,2000})")
"""The first line of a stretch that tries a value; the answer is the value where the working ends in 'Yes'."""


class Stretch(NamedTuple):
    """A part of a solution's text, from the character `start` up to `end`, and what it is for, of `KINDS`."""

    start: int
    end: int
    kind: str


class Cut(NamedTuple):
    """A solution's text in its parts."""

    stretches: list[Stretch]
    """The parts in their order; together they are the text."""
    is_answered: bool
    """Whether an answer was recognised. Otherwise the text is cut nowhere but for repeated stretches."""


def cut(text: str, right: Sequence[str], final: str | None = None) -> Cut:
    """Cuts a solution's text.

    `right` are the right answer's known forms (the gold answer, and the final answer where it was graded correct);
    `final` is the solution's final answer, None where it has none.
    """
    known = [*right, *([final] if final else [])]
    found = [
        (said.end, said.value)
        for said in statements(text)
        if any(same_answer(said.value, answer) for answer in known)
        or (not said.is_step and re.search(r"\d", said.value))
    ]
    mark = closing_mark(text)
    if mark and mark[1] < len(text):
        stretches, is_answered = _passes(text[: mark[0]], found, right)
        if is_answered:
            last = stretches[-1]._replace(end=mark[1])
            return Cut([*stretches[:-1], last, Stretch(mark[1], len(text), AFTER)], True)
    return Cut(*_passes(text, found, right))


def _passes(text: str, found: Sequence[tuple[int, str]], right: Sequence[str]) -> tuple[list[Stretch], bool]:
    """The stretches of a text, whose statements are (place, answer), and whether one of them has an answer."""
    turns = [turn.start() for turn in _TURN.finditer(text) if turn.start()]
    places = [place for place, _ in found]
    held: str | None = None
    seen: set[str] = set()
    pass_so_far: list[int] = []  # the numbers of its stretches
    parts = list(pairwise([0, *turns, len(text)]))
    kinds = [UNCHANGED] * len(parts)
    for i, (start, end) in enumerate(parts):
        words = " ".join(text[start:end].split())
        number = bisect_right(places, end) - 1
        answer = found[number][1] if number >= 0 and places[number] > start else _tried(words and text[start:end])
        if words in seen:
            kinds[i] = REPEATED
        else:
            seen.add(words)
            pass_so_far.append(i)
        if answer is None:
            continue
        for j in pass_so_far:
            kinds[j] = FIRST if held is None else _change(held, answer, right)
        held, pass_so_far = answer, []
    if held is None:
        for j in pass_so_far:
            kinds[j] = FIRST
    return [Stretch(*part, kind) for part, kind in zip(parts, kinds, strict=True)], held is not None


def _tried(stretch: str) -> str | None:
    """The value that a stretch tries, and finds to be the answer."""
    trial = _TRIAL.match(stretch)
    return trial["value"] if trial and trial["working"].rstrip(" .!*").lower().endswith("yes") else None


def _change(before: str, after: str, right: Sequence[str]) -> str:
    """The kind of a pass between two answers. Two that cannot be told apart without algebra count as the same."""
    was_right, is_right = (any(same_answer(x, answer) for answer in right) for x in (before, after))
    if is_right:
        return UNCHANGED if was_right else TO_RIGHT
    return TO_WRONG if was_right or same_answer(after, before) is False else UNCHANGED
