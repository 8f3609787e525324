"""The module finds test problems that stand among the training problems, word for word or nearly.

A text is compared by its words, numbers and mathematical signs. Case, white space, punctuation, LaTeX's spacing,
delimiters and braces do not count. Two texts of the same words, numbers and signs in one order are the same. They are
nearly the same where their numbers and signs are the same in one order, and of all runs of three words, numbers and
signs that stand in either at least 70% stand in both: a text of twenty words may have one word replaced. So a template
that is filled in with other numbers is another problem; a problem that was put into other words is not found.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_SAME_RUNS = 0.7
"""The share of two texts' runs that is to stand in both."""
_RUN = 3
"""The length of a run, in words, numbers and signs."""
_SPACING = re.compile(
    r"(?<=\d)(?P<thousands>,|\{,\}|\\[,!])(?=\d{3}(?!\d))"  # 1,000 and 1{,}000
    r"|\\(?:[,;:!> ()\[\]]|(?:q?quad|left|right|[bB]igg?[lr]?|displaystyle|limits|text|textbf|textit|mathrm|mbox"
    r"|hspace|vspace)(?![A-Za-z]))"
    r"|\*\*"  # bold in Markdown
    r"|(?<=[^\W\d_]{2})-(?=[^\W\d_])|(?<=[^\W\d_])-(?=[^\W\d_]{2})"  # a hyphen, but no minus: x-y
)
_HIDDEN = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Characters that do not show, other than white space."""
_MINUS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*"})  # noqa: RUF001
_TOKEN = re.compile(
    r"\d+(?:\.\d+)?"
    r"|[\u3040-\u30ff\u3400-\u9fff]"  # scripts without spaces between words
    r"|(?:(?![\u3040-\u30ff\u3400-\u9fff])[^\W\d_])+"
    r"|(?<=\d)!"  # a factorial
    r"|[^\w\s.,;:?!'\"`“”‘’„«»…。，、；：？！$\\{}_&~#]"  # noqa: RUF001
)


class Shared(NamedTuple):
    """A test problem that stands among the training problems."""

    test: int
    """The test problem's number, from 0."""
    train: int
    """The number of the training problem, from 0."""
    exact: bool
    """Whether the texts are the same; otherwise they are nearly the same."""


def find_overlap(train: Iterable[str], test: Sequence[str]) -> list[Shared]:
    """Returns the test problems whose text stands among the training problems', each with the first that it meets.

    A text that is the same goes before one that is nearly the same. The time grows with the texts' length and hardly
    with the product of their numbers: a training problem is compared with those test problems alone that have its
    numbers and signs, and one of the rare runs that two texts with so many runs in common can't do without.
    """
    tests = [words(text) for text in test]
    by_words, by_signs = defaultdict(list), defaultdict(list)
    for i, of_test in enumerate(tests):
        if of_test:
            by_words[of_test].append(i)
            by_signs[_signs(of_test)].append(i)
    runs = [_runs(of_test) for of_test in tests]
    by_run = {signs: _by_rare_run(members, runs) for signs, members in by_signs.items()}
    found: dict[int, Shared] = {}
    for j, text in enumerate(train):
        of_train = words(text)
        for i in by_words.get(of_train, ()):
            if i not in found or not found[i].exact:
                found[i] = Shared(i, j, True)
        index = by_run.get(_signs(of_train))
        if not index:
            continue
        runs_of_train = _runs(of_train)
        for i in {i for run in runs_of_train for i in index.get(run, ()) if i not in found}:
            common = len(runs[i] & runs_of_train)
            if common >= _SAME_RUNS * (len(runs[i]) + len(runs_of_train) - common):
                found[i] = Shared(i, j, False)
    return [found[i] for i in sorted(found)]


def words(text: str) -> tuple[str, ...]:
    """Returns the words, numbers and mathematical signs of a text, in one form whatever their typography."""
    plain = unicodedata.normalize("NFKC", _HIDDEN.sub("", text)).translate(_MINUS)
    return tuple(_TOKEN.findall(_SPACING.sub(_gap, plain).casefold()))


def _gap(match: re.Match) -> str:
    """What takes the place of typography: nothing inside a number, else a space."""
    return "" if match["thousands"] else " "


def _signs(of_text: tuple[str, ...]) -> tuple[str, ...]:
    """The numbers and signs of a text."""
    return tuple(word for word in of_text if not word.isalpha())


def _runs(of_text: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """The runs of `_RUN` words, numbers and signs of a text; of a shorter text the one that it is."""
    return frozenset(of_text[i : i + _RUN] for i in range(max(len(of_text) - _RUN, 0) + 1))


def _by_rare_run(members: Sequence[int], runs: Sequence[frozenset]) -> dict[tuple[str, ...], list[int]]:
    """The `members` by so many of their rarest runs that another text must have one of them to be nearly the same.

    What is nearly the same has at least the share `_SAME_RUNS` of a text's runs (the prefix filter of set joins,
    Bayardo et al., WWW 2007).
    """
    frequency = Counter(run for i in members for run in runs[i])
    index = defaultdict(list)
    for i in members:
        rare = sorted(runs[i], key=lambda run: (frequency[run], run))
        for run in rare[: int((1 - _SAME_RUNS) * len(rare)) + 1]:
            index[run].append(i)
    return index
