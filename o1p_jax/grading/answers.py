r"""Short answers are compared without algebra, which suffices for most pairs and takes a tenth of a millisecond.

An answer is read as a value with a unit, or as words; what is neither is left to the grader's workers. The module
evaluates no text.
"""

import re
from fractions import Fraction
from typing import NamedTuple

_CHARACTERS = str.maketrans(
    {
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
        "\N{MULTIPLICATION SIGN}": r"\times ",
        "\N{MIDDLE DOT}": r"\cdot ",
        "\N{INFINITY}": r"\infty ",
        "\N{GREEK SMALL LETTER PI}": r"\pi ",
        "\N{SQUARE ROOT}": r"\sqrt ",
        "\N{LESS-THAN OR EQUAL TO}": r"\le ",
        "\N{GREATER-THAN OR EQUAL TO}": r"\ge ",
        "\N{NOT EQUAL TO}": r"\ne ",
        "\N{ALMOST EQUAL TO}": r"\approx ",
        "\N{DEGREE SIGN}": "",
        "\N{EURO SIGN}": "",
        "\N{POUND SIGN}": "",
        "$": "",
        "~": " ",
        "\N{NO-BREAK SPACE}": " ",
        "\N{THIN SPACE}": " ",
        "\N{NARROW NO-BREAK SPACE}": " ",
    }
)
_DECORATION = re.compile(
    r"\\(?:left|right|big|Big|bigg|Bigg|displaystyle|quad|qquad|degree|pounds|euro)(?![A-Za-z])"
    r"|(?<!\\)\\[!,;:>() \[\]$]|\^\s*\{?\s*\\circ\s*\}?"
)
_WRAPPER = re.compile(r"\\(?:boxed|fbox|mathbf|boldsymbol|bm|mathit)\s*\{([^{}]*)\}")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mbox|operatorname)\s*\{([^{}]*)\}")
_ASSIGNMENT = re.compile(r"\s*[A-Za-z](?:_\{?\w+\}?)?(?:\([a-z]\))?\s*(?:=|\\approx|\\in(?![A-Za-z]))\s*")

_DECIMAL = r"(?:\d+(?:\.\d*)?|\.\d+)"
_NUMBERS = tuple(
    re.compile(rf"(?P<sign>[-+]?)\s*{body}")
    for body in (
        rf"(?P<plain>{_DECIMAL})",
        r"(?P<grouped>[1-9]\d{0,2}(?:[ ,]\s?\d{3})+(?:\.\d+)?)",
        rf"(?P<whole>\d+)?\s*\\frac\s*(?:\{{\s*(?P<over>[-+]?{_DECIMAL})\s*\}}|(?P<over_digit>\d))"
        rf"\s*(?:\{{\s*(?P<under>[-+]?{_DECIMAL})\s*\}}|(?P<under_digit>\d))",
        rf"(?:(?P<whole>\d+)\s+)?(?P<over>{_DECIMAL})\s*/\s*(?P<under>{_DECIMAL})",
        rf"(?P<plain>{_DECIMAL})\s*(?:(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*|[eE])\{{?\s*(?P<exponent>[-+]?\d{{1,3}})\s*\}}?",
        r"(?P<head>\d+\.\d*)\\(?:overline|bar|dot)\s*\{?(?P<period>\d+)\}?",
    )
)
_NEAR = Fraction(1, 1000)

_UNIT = re.compile(r"(?P<number>.*[\d})])(?P<gap>\s*)(?P<unit>\\?%|[A-Za-z][A-Za-z ./]*(?:\^\s*\{?\d\}?)?)", re.DOTALL)
_PERCENT = {"%", "percent", "percentage", "pct", "per cent"}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MEASURES = {
    alias: name
    for name, aliases in {
        "mm": "millimeter millimetre",
        "cm": "centimeter centimetre",
        "m": "meter metre",
        "km": "kilometer kilometre",
        "in": "inch inche",
        "ft": "foot feet",
        "yd": "yard",
        "mi": "mile",
        "mg": "milligram",
        "g": "gram",
        "kg": "kilogram",
        "lb": "pound",
        "oz": "ounce",
        "s": "sec second",
        "min": "minute",
        "h": "hr hour",
        "day": "",
        "week": "",
        "month": "",
        "year": "yr",
        "ml": "milliliter millilitre",
        "l": "liter litre",
        "cent": "",
        "dollar": "",
        "rad": "radian",
        "degree": "deg",
        "mi/h": "mph",
        "am": "",
        "pm": "",
    }.items()
    for alias in (name, *aliases.split())
}

_WORDS = re.compile(r"[A-Za-z][A-Za-z ,.'-]*")


class _Answer(NamedTuple):
    text: str
    """The answer without spaces and unit."""
    unit: str
    """The answer's unit: 'cm', 'cm^2', 'km/h', 'apple', '%', or ''."""
    value: Fraction | None
    words: str
    """The answer in lower case when it is words; else ''."""


def quick_equal(pred: str, gold: str) -> bool | None:
    r"""Returns whether two answers are equal; None when telling needs algebra.

    Numbers compare by value, however written (1,234; 3 1/2; 1.2e5; 0.\overline{3}); a missing unit is no fault, two
    measures that differ (cm, m) are; 50% equals 50 and 0.5; words compare as words, whatever their case.
    """
    pred, gold = clean(pred), clean(gold)
    if bool(_ASSIGNMENT.match(pred)) != bool(_ASSIGNMENT.match(gold)):  # x=5 and 5
        pred, gold = _ASSIGNMENT.sub("", pred, count=1), _ASSIGNMENT.sub("", gold, count=1)
    a, b = _read(pred), _read(gold)
    if not a.text or not b.text:
        return False
    if a.unit != b.unit and _is_measure(a.unit) and _is_measure(b.unit):
        return False
    if a.value is not None and b.value is not None:
        return _same_value(a, b)
    if (a.text, a.unit) == (b.text, b.unit):
        return True
    if a.words or b.words:  # algebra would multiply their letters: least = slate
        return a.words == b.words
    return None


def clean(answer: str) -> str:
    r"""Returns the answer without what only decorates it: $, \left, \boxed, spacing, degrees, a closing dot."""
    answer = _DECORATION.sub(" ", answer.replace("{,}", ",")).translate(_CHARACTERS)
    answer = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", answer)
    answer = re.sub(r"(?<=\d)  ?(?=\d{3}(?!\d))", ",", answer)  # 12\,345
    while answer != (unwrapped := _WRAPPER.sub(r"\1", answer)):
        answer = unwrapped
    return answer.strip().rstrip(".,;: ")


def _read(answer: str) -> _Answer:
    number = plain = _TEXT.sub(r" \1 ", answer).strip().rstrip(".,;: ")
    unit, scale = "", 1
    if (tail := _UNIT.fullmatch(plain)) and _is_unit(tail["unit"], bool(tail["gap"]), answer != plain):
        first, _, rest = tail["unit"].partition(" ")
        scale = _SCALES.get(first.lower(), 1)
        name = _canonical(tail["unit"] if scale == 1 else rest)
        # Behind an expression other words than measures may belong to it: 'x and y'.
        if _value(tail["number"]) is not None or _is_measure(name) or name == "%":
            number, unit = tail["number"], name
    value = _value(number)
    words = ""
    if value is None and _WORDS.fullmatch(plain) and any(map(_is_word, re.findall("[A-Za-z]+", plain))):
        words = re.sub(r"[\s,.'-]+", " ", plain).strip().lower()
    text = re.sub(r"\s+", "", number)
    if choice := re.fullmatch(r"\(([A-Z])\)", text):
        text = choice[1]
    return _Answer(text, unit, None if value is None else value * scale, words)


def _is_unit(unit: str, gap: bool, marked: bool) -> bool:
    r"""Returns whether letters behind a number are a unit, not variables. `marked`: the letters stood in a \text."""
    words = re.findall("[A-Za-z]+", unit)
    if marked or not words:
        return True
    if len(words) == 1 and len(words[0]) == 1:
        return gap and words[0] in _MEASURES
    return all(_is_measure(_canonical(w)) or _is_word(w) or w in ("of", "sq", "cu") for w in words)


def _canonical(unit: str) -> str:
    """Returns a unit's short form: 'cm^2' for 'square centimeters', 'mi/h' for 'miles per hour'."""
    unit = " ".join(re.sub(r"[{}\\.]", "", unit).lower().split())
    if unit in _PERCENT:
        return "%"
    power = re.fullmatch(r"(.*?)\s*\^\s*(\d)", unit) or re.fullmatch(r"(?:square|sq|(cubic|cu)) (.*)", unit)
    if power:
        base, exponent = (power[1], power[2]) if "^" in unit else (power[2], "3" if power[1] else "2")
        return f"{_canonical(base)}^{exponent}"
    parts = re.split(r"\s*/\s*| per ", unit)
    names = [_MEASURES.get(p) or _MEASURES.get(p.removesuffix("s")) or p.removesuffix("s") for p in parts]
    return "/".join(names)


def _is_measure(unit: str) -> bool:
    return all(part in _MEASURES for part in unit.partition("^")[0].split("/"))


def _value(text: str) -> Fraction | None:
    """Returns the exact number that `text` is, or None."""
    for pattern in _NUMBERS:
        if found := pattern.fullmatch(text.strip()):
            part = {name: value for name, value in found.groupdict().items() if value}
            break
    else:
        return None
    if "period" in part:
        places = len(part["head"].partition(".")[2])
        nines = 10 ** len(part["period"]) - 1
        value = Fraction(part["head"]) + Fraction(int(part["period"]), nines * 10**places)
    elif "grouped" in part:
        value = Fraction(re.sub("[ ,]", "", part["grouped"]))
    elif "plain" in part:
        value = Fraction(part["plain"]) * Fraction(10) ** int(part.get("exponent", 0))
    else:
        over, under = (Fraction(part.get(f"{side}_digit") or part[side]) for side in ("over", "under"))
        if under == 0:
            return None
        value = int(part.get("whole", 0)) + over / under
    return -value if part.get("sign") == "-" else value


def _same_value(a: _Answer, b: _Answer) -> bool | None:
    assert a.value is not None and b.value is not None
    percents = (b.unit == "%") - (a.unit == "%")
    readings = (a.value, a.value * 100 if percents > 0 else a.value / 100 if percents < 0 else a.value)
    if b.value in readings:
        return True
    # A decimal may be the other number rounded: math-verify decides how many digits are enough.
    near = any(abs(v - b.value) <= _NEAR * max(abs(b.value), _NEAR) for v in readings)
    return None if near and ("." in a.text) != ("." in b.text) else False


def _is_word(letters: str) -> bool:
    """Returns whether the letters are a word: three or more with a vowel, other than a product of a, b and c."""
    return len(letters) >= 3 and bool(set(letters.lower()) & set("aeiou")) and not set(letters) <= set("abc")
