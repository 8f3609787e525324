"""Answers in figures that are no numbers: times, dates, numerals of another base, residues, ratios.

Their signs would be division, subtraction and indices if they were read as mathematics. `read_figures` and
`read_ratio` recognise them, `same_figures` compares them.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

from o1p_jax.grading.dates import read_date, read_time, same_date, same_time
from o1p_jax.grading.numbers import read_number
from o1p_jax.grading.tree import LIST_SEPARATOR, Answer, plain_text, split_top


def _time(text: str) -> Answer | None:
    time = read_time(plain_text(text))
    return None if time is None else Answer("time", text, _ratio_parts(text), time)


def _date(text: str) -> Answer | None:
    date = read_date(plain_text(text))
    return None if date is None else Answer("date", text, mark=date)


_BASE = re.compile(
    r"(?:0x(?P<hex>[0-9A-Fa-f]+)|0b(?P<binary>[01]+)"
    r"|\(?(?P<digits>[0-9A-Za-z][0-9A-Za-z., ]*?)\)?\s*"
    r"(?:_\s*\{?\s*\(?(?:base )?(?P<base>\d{1,2}|[a-z]+)\)?\s*\}?|\(?(?:in )?base[ -](?P<name>\w+)\)?))"
)
_BASE_NAMES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASE_NAMES |= {"eleven": 11, "twelve": 12, "sixteen": 16}


def _base(text: str) -> Answer | None:
    """Reads 312_4, 1011_{two}, '2A base 16' and 0x2A."""
    if "_" not in text and "base" not in text and not text.startswith("0"):
        return None
    if not (found := _BASE.fullmatch(re.sub(r"[{}](?=[^{}]*base)", " ", plain_text(text)).strip())):
        return None
    if found["hex"] or found["binary"]:
        return Answer("base", text, mark=((found["hex"] or found["binary"]).upper(), 16 if found["hex"] else 2))
    name = found["base"] or found["name"]
    base = int(name) if name.isdecimal() else _BASE_NAMES.get(name, 0)
    digits = re.sub("[ ,]", "", found["digits"]).upper()
    fits = all(c == "." or int(c, 36) < base for c in digits)
    if not 2 <= base <= 36 or not fits or not (base == 16 or re.search(r"\d|[A-Z]{2}", found["digits"])):
        return None
    return Answer("base", text, mark=(digits, base))


_CONGRUENCE = re.compile(
    r"(?:.*?\\equiv)?(?P<residues>[^=]+?)[\s,]*\(?\s*\\?(?:pmod|bmod|mod(?:ulo)?)\s*\{?\s*(?P<modulus>\d{1,300})\s*\}?\)?"
)


def _congruence(text: str) -> Answer | None:
    """Reads x \\equiv 3 \\pmod{7}, and '3 mod 7'."""
    if "mod" not in text or not (found := _CONGRUENCE.fullmatch(plain_text(text))) or not int(found["modulus"]):
        return None
    residues = [read_number(part) for part in split_top(found["residues"].replace(r"\pm", r"\pm "), LIST_SEPARATOR)]
    if any(residue is None for residue in residues):
        return None
    return Answer("congruence", text, mark=(int(found["modulus"]), residues))


def _ratio_parts(text: str) -> tuple[Answer, ...]:
    parts = [part.strip() for part in split_top(plain_text(text), ":")]
    return tuple(Answer("leaf", part) for part in parts) if 2 <= len(parts) <= 6 and all(parts) else ()


def read_ratio(text: str) -> Answer | None:
    """Reads 3:4, '3 to 4' and 1:2:3."""
    if to := re.fullmatch(r"(\d[\d.]*|\\sqrt\{\d+\})\s*(?:\\text\{ ?to ?\}|to)\s*(\d[\d.]*|\\sqrt\{\d+\})", text):
        text = f"{to[1]}:{to[2]}"
    parts = _ratio_parts(text) if ":" in text else ()
    of_words = any(re.search(r"(?<![\\A-Za-z])[A-Za-z]{3}", part.text) for part in parts)
    return Answer("ratio", text, parts) if parts and not of_words else None


def read_figures(text: str) -> Answer | None:
    """Reads a time, a date, a numeral of another base or a congruence; None for other texts."""
    return next((answer for reader in (_time, _date, _base, _congruence) if (answer := reader(text))), None)


def same_figures(pred: Answer, gold: Answer) -> Any:
    """Compares two answers where one is written in figures that are no number; None where algebra has to tell."""
    for rule in (_bases, _congruences, _dates, _ratios):
        if (verdict := rule(pred, gold)) is not NotImplemented:
            return verdict
    return NotImplemented


def _bases(pred: Answer, gold: Answer) -> Any:
    """The digits and the base have to be the same; a base that is not said is the other's."""
    if "base" not in (pred.kind, gold.kind):
        return NotImplemented
    (mine, base), (theirs, other) = (
        one.mark if one.kind == "base" else (re.sub(r"[\s,{}]", "", plain_text(one.text)).upper(), None)
        for one in (pred, gold)
    )
    return mine == theirs and (base == other or None in (base, other))


def _congruences(pred: Answer, gold: Answer) -> Any:
    """Residues compare modulo the modulus; one without a modulus has to be the same number."""
    if "congruence" not in (pred.kind, gold.kind):
        return NotImplemented
    if pred.kind == gold.kind:
        (modulus, mine), (other, theirs) = pred.mark, gold.mark
        return modulus == other and {r % modulus for r in mine} == {r % modulus for r in theirs}
    one, other = (pred, gold) if pred.kind == "congruence" else (gold, pred)
    modulus, residues = one.mark
    if other.kind == "equation":
        other = other.parts[-1]
    if (step := _PROGRESSION.fullmatch(other.text)) and len(residues) == 1:
        first = int((step["first"] or step["last"]).replace(" ", ""))
        return int(step["step"] or step["size"]) == modulus and (first - residues[0]) % modulus == 0
    values = _values(other.parts or (other,))
    return values is not None and sorted(values) == sorted(residues)


def _values(parts: Sequence[Answer]) -> list[Fraction] | None:
    """Returns the parts' numbers, or None where one of them is none."""
    values = [value for part in parts if (value := read_number(part.text)) is not None]
    return values if len(values) == len(parts) else None


_PROGRESSION = re.compile(
    r"(?P<step>\d{1,300})\s*[a-z]\s*(?P<last>[-+]\s*\d{1,300})|(?P<first>-?\d{1,300})\s*\+\s*(?P<size>\d{1,300})\s*[a-z]"
)


def _dates(pred: Answer, gold: Answer) -> Any:
    if pred.kind == gold.kind == "date":
        return same_date(pred.mark, gold.mark)
    return NotImplemented


def _ratios(pred: Answer, gold: Answer) -> Any:
    """3:4 is 6:8 and 3/4; what may be a time of day (4:15) is only the same figures."""
    if not {pred.kind, gold.kind} & {"ratio", "time"}:
        return NotImplemented
    if pred.kind == gold.kind == "time":
        return same_time(pred.mark, gold.mark)
    if "leaf" in (pred.kind, gold.kind):
        return _ratio_and_fraction(*((pred, gold) if gold.kind == "leaf" else (gold, pred)))
    if len(pred.parts) != len(gold.parts) or not pred.parts:
        return False
    mine, theirs = _values(pred.parts), _values(gold.parts)
    if mine is None or theirs is None:
        return None
    pairs = list(zip(mine, theirs, strict=True))
    return any(mine) == any(theirs) and all(m * u == t * n for (m, t), (n, u) in combinations(pairs, 2))


def _ratio_and_fraction(ratio: Answer, leaf: Answer) -> bool:
    """3:4 is 3/4, and 6/8; 4:15, which may be a time, is 4/15 only; nine o'clock is 9."""
    found = re.fullmatch(r"\\frac\{([^{}]*)\}\{([^{}]*)\}|([^/]*)/([^/]*)", leaf.text)
    if not found:
        return ratio.kind == "time" and not ratio.mark.minute and leaf.text == str(ratio.mark.hour)
    over, under = (read_number(part) for part in found.groups() if part is not None)
    parts = _values(ratio.parts)
    if over is None or under is None or parts is None or len(parts) != 2:
        return False
    return [over, under] == parts or (ratio.kind != "time" and over * parts[1] == under * parts[0] and any(parts))
