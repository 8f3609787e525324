r"""Numbers are read exactly, however they are written: 1,234; 3 1/2; 1.2 \times 10^5; 0.\overline{3}; twelve.

A number of more than a few hundred digits is no number here, so that reading stays cheap for any text.
"""
# ruff: noqa: SIM905

import re
from fractions import Fraction

_DIGITS = 300  # longest numeral that is read
_D = rf"\d{{1,{_DIGITS}}}"
_DECIMAL = rf"(?:{_D}(?:\.\d{{0,{_DIGITS}}})?|\.{_D})"
_SIDE = rf"[-+]?\s*{_DECIMAL}"
_FORMS = tuple(
    re.compile(rf"(?P<sign>[-+]?)\s*{body}", re.ASCII)
    for body in (
        rf"(?P<plain>{_DECIMAL})",
        r"(?P<grouped>[1-9]\d{0,2}(?:(?:,\d{3}){1,90}|(?: \d{3}){1,90})(?:\.\d{1,300})?)",
        rf"(?:(?P<whole>{_D})\s*)?\\frac\s*\{{\s*(?P<over>{_SIDE})\s*\}}\s*\{{\s*(?P<under>{_SIDE})\s*\}}",
        rf"(?:(?P<whole>{_D})(?:\s+and)?\s+)?\(?(?P<over>{_DECIMAL})\s*/\s*(?P<under>{_SIDE})\)?",
        rf"(?:(?P<plain>{_DECIMAL})\s*(?:(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*|[eE])|(?P<power>10)\s*\^\s*)"
        r"\{?\s*(?P<exponent>[-+]?\d{1,3})\s*\}?",
        r"(?P<head>\d{1,300}\.\d{0,300})(?:\\(?:overline|bar|dot)\s*\{?(?P<period>\d{1,300})\}?|\((?P<loop>\d{1,300})\))",
        r"(?P<head>\d{0,300}\.\d{0,20}?)(?P<period>\d{1,6}?)(?P=period){1,300}\s*\\ldots",
        rf"(?P<left>\()\s*(?P<plain>{_SIDE})\s*\)",
    )
)

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORDS = {word: i for i, word in enumerate(_ONES)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_SHARES = {
    "half": 2,
    "halve": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "tenth": 10,
}
SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def read_number(text: str) -> Fraction | None:
    """Returns the exact number that the text is, or None."""
    text = text.strip()
    if not text:
        return None
    if text[0].isalpha():
        return _in_words(text.lower())
    for form in _FORMS:
        if found := form.fullmatch(text):
            break
    else:
        return None
    part = {name: value for name, value in found.groupdict().items() if value}
    if "head" in part:
        places, period = len(part["head"].partition(".")[2]), part.get("period") or part["loop"]
        value = Fraction("0" + part["head"]) + Fraction(int(period), (10 ** len(period) - 1) * 10**places)
    elif "grouped" in part:
        value = Fraction(re.sub("[ ,]", "", part["grouped"]))
    elif "over" in part:
        over, under = (Fraction(part[side].replace(" ", "")) for side in ("over", "under"))
        if under == 0:
            return None
        value = int(part.get("whole", 0)) + over / under
    else:
        value = Fraction(part.get("plain", "1").replace(" ", "")) * Fraction(10) ** int(part.get("exponent", 0))
    return -value if part.get("sign") == "-" else value


def _in_words(text: str) -> Fraction | None:
    """Returns the number that English words name ('forty-two', 'two thirds', 'half'), or None."""
    words = re.split(r"[\s-]+", text)
    if len(words) > 12:
        return None
    if (share := _SHARES.get(words[-1].removesuffix("s"))) and (len(words) > 1 or share == 2):
        whole, _, count = " ".join(words[:-1]).rpartition("and ")  # one and a half
        over = Fraction(1) if count in ("", "a", "one") else _in_words(count)
        more = Fraction(0) if not whole else _in_words(whole.strip())
        return None if over is None or more is None else more + over / share
    negative = words[0] in ("minus", "negative")
    total = current = 0
    if words[negative:] in ([], ["and"]):
        return None
    for word in words[negative:]:
        if word in _WORDS:
            current += _WORDS[word]
        elif word in ("hundred", "dozen") and 0 < current < 100:
            current *= SCALES[word]
        elif word in SCALES and word not in ("dozen", "hundred") and current:
            total, current = total + current * SCALES[word], 0
        elif word != "and":
            return None
    value = Fraction(total + current)
    return -value if negative else value


def rounds_to(exact: Fraction, decimal: Fraction, places: int) -> bool:
    """Returns whether a decimal with so many places is the exact number, rounded to six significant digits or more.

    The last digit may be cut off instead of rounded, as in 0.666666.
    """
    last = Fraction(1, 10**places)
    cut_off = abs(exact) - abs(decimal)
    return places > 0 and abs(decimal) >= 10**5 * last and exact * decimal > 0 and -last / 2 <= cut_off < last
