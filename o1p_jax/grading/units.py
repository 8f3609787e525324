r"""Units of measure: which words behind a number are one, and how two of them compare (500 cm and 5 m).

A unit is a product of powers of base dimensions with a factor. A word that is no measure (apples) is a unit that
compares with any other: the problem has asked for it.
"""
# ruff: noqa: SIM905

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from o1p_jax.grading.numbers import SCALES, read_number


class Unit(NamedTuple):
    """A unit of measure; `dimensions` is empty for none, and for words that are no measure."""

    name: str
    dimensions: tuple[tuple[str, int], ...] = ()
    factor: Fraction = Fraction(1)
    """How many base units of its dimensions the unit is."""
    offset: Fraction = Fraction(0)
    """What is added before the factor: 459.67 for degrees Fahrenheit, whose base unit is the kelvin."""
    scale: Fraction = Fraction(1)
    """What the words before the unit multiply the number by: 10^6 for 'million dollars'."""
    side: frozenset[str] = frozenset()
    """Which way the words behind the unit point: 'north' of '3 miles north'."""
    parts: tuple[Fraction, ...] = ()
    """For a compound quantity (2 hours 30 minutes) the factors of the units that it names."""


NONE = Unit("")
PERCENT = Unit("%")

_TABLE = """
length    mm 1/1000 millimeter millimetre | cm 1/100 centimeter centimetre | dm 1/10 decimeter
length    m 1 meter metre | km 1000 kilometer kilometre
length    in 254/10000 inch inche " | ft 3048/10000 foot feet | yd 9144/10000 yard | mi 1609344/1000 mile
mass      mg 1/1000000 milligram | g 1/1000 gram | kg 1 kilogram | ton 1000 tonne
mass      lb 45359237/100000000 pound | oz 45359237/1600000000 ounce
time      ms 1/1000 millisecond | s 1 sec second | min 60 minute | h 3600 hr hour | day 86400 | week 604800
months    month 1 | year 12 yr | decade 120 | century 1200 centurie
money     cent 1/100 ¢ | dollar 1 us$ usd $ buck | nickel 5/100 | dime 10/100
euro      euro 1 € eur
pound     £ 1 gbp
yen       yen 1 ¥ jpy
rupee     rupee 1 ₹ rs inr
angle     degree 1 deg ^\\circ | turn 360 revolution
kelvin    kelvin 1 k
volume    ml 1/1000 milliliter millilitre | cl 1/100 | l 1 liter litre
cups      cup 1 | pint 2 | quart 4 | gallon 16 gal
bytes     byte 1 | kb 1000 kilobyte | mb 1000000 megabyte | gb 1000000000 gigabyte
energy    j 1 joule | kj 1000 kilojoule
force     newton 1
power     w 1 watt | kw 1000 kilowatt
volt      v 1 volt
hertz     hz 1 hertz
"""
_MEASURES = {
    name.replace("\\\\", "\\"): Unit(unit.split()[0], ((line.split()[0], 1),), Fraction(unit.split()[1]))
    for line in _TABLE.strip().splitlines()
    for unit in line.split(None, 1)[1].split(" | ")
    for name in (unit.split()[0], *unit.split()[2:])
}
_LITRE = Fraction(1, 1000)
for _name, _unit in list(_MEASURES.items()):
    if _unit.dimensions == (("volume", 1),):
        _MEASURES[_name] = Unit(_unit.name, (("length", 3),), _unit.factor * _LITRE)
_KMH, _MPH = Fraction(1000, 3600), Fraction(1609344, 3600 * 1000)
_SPEED = (("length", 1), ("time", -1))
_MEASURES |= {name: Unit("km/h", _SPEED, _KMH) for name in ("kph", "kmph", "kmh")} | {"mph": Unit("mi/h", _SPEED, _MPH)}
_CELSIUS = Unit("C", (("kelvin", 1),), Fraction(1), Fraction(27315, 100))
_FAHRENHEIT = Unit("F", (("kelvin", 1),), Fraction(5, 9), Fraction(45967, 100))
_MEASURES |= {"celsius": _CELSIUS, "fahrenheit": _FAHRENHEIT, "centigrade": _CELSIUS}
_PERCENT = {"%", "percent", "percentage", "pct", "per cent", "percents"}
_SIDES = set(
    "north south east west left right up down above below profit loss gain increase decrease more less fewer before "
    "after clockwise counterclockwise ad bc deep high".split()
)
_ONE_LETTER = set("mgshlJWVNLKCF")
"""Letters that are a unit behind a number and a space, and otherwise a variable."""
_WITHOUT_VOWEL = {"st", "nd", "rd", "th", "of", "in", "on", "to", "a", "at", "by", "an", "is", "o'clock"}

_CHANGING = set(
    "squared cubed factorial tens halves thirds fourths fifths sixths sevenths eighths ninths tenths hundredths "
    "thousandths millionths".split()
)
"""Words behind a number that make it another number."""

_HEAD = re.compile(r"(?P<sign>-?)\s*(?P<unit>US\$|USD|Rs\.?|[€£¥₹])\s*(?P<rest>-?.+)", re.DOTALL)
_TAIL = re.compile(
    r"(?P<number>.*(?:[\d})!.]|\\pi(?![A-Za-z])))(?P<gap>\s*)"
    r"(?P<unit>(?:%|\^\\circ|[A-Za-z¢€£¥₹\"'])(?:[A-Za-z ./%$\"'(),*-]|\^\s*\{?\s*-?\d\s*\}?|\\cdot)*)",
    re.DOTALL,
)
_RATE = re.compile(r"\\frac\{\s*([A-Za-z ]+?)\s*\}\{\s*([A-Za-z ]+(?:\^\{?\d\}?)?)\s*\}")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")


def split_unit(text: str) -> tuple[str, Unit]:
    r"""Returns the text without its unit, and the unit; NONE where letters may be variables, or there are none.

    `text` is clean (`notation.clean`); letters in \text{...} are a unit whatever they are.
    """
    if head := _HEAD.fullmatch(text):
        rest, behind = split_unit(head["sign"] + head["rest"].strip())
        return rest, _MEASURES[head["unit"].lower().rstrip(".")]._replace(scale=behind.scale)
    marked = r"\text{" in text
    plain = _RATE.sub(r" \1/\2", _TEXT.sub(r" \1 ", text)).strip().rstrip(".,;: ") if marked else text
    if not (tail := _TAIL.fullmatch(plain)):
        number, _, word = plain.rpartition(" ")  # five dollars, twenty-five percent
        value = read_number(number) if number[:1].isalpha() and word.isalpha() else None
        unit = None if value is None or word in ("minus", "plus") else read_unit(word)
        return (text, NONE) if unit is None else (str(value), unit)
    letters = tail["unit"].strip()
    if len(letters) == 1 and letters.isalpha() and not marked and not (tail["gap"] and letters in _ONE_LETTER):
        return text, NONE
    unit = read_unit(letters)
    return (text, NONE) if unit is None else (tail["number"], unit)


_COMPOUND = re.compile(r"(?:\d[\d,]{0,30}(?:\.\d{1,30})?\s?[A-Za-z'\"]{1,12}\.?(?:,?\s(?:and\s)?|\Z|(?=\d))){2,4}")
_MEMBER = re.compile(r"(?P<number>\d[\d,]*(?:\.\d+)?)\s?(?P<unit>[A-Za-z'\"]+)")


def split_compound(text: str) -> tuple[Fraction, Unit] | None:
    """Returns the size in base units, and the unit, of a quantity in several units: '2 hours 30 minutes'; or None."""
    if not _COMPOUND.fullmatch(text):
        return None
    size, factors, dimensions = Fraction(0), [], set()
    for member in _MEMBER.finditer(text):
        number, unit = read_number(member["number"]), read_unit(member["unit"].replace("'", "ft"))
        if number is None or unit is None or not unit.dimensions:
            return None
        size += number * unit.factor
        factors.append(unit.factor)
        dimensions.add(unit.dimensions)
    if len(factors) < 2 or len(dimensions) > 1 or sorted(set(factors), reverse=True) != factors:  # 3 cm, 4 cm is a list
        return None
    return size, Unit(text, dimensions.pop(), parts=tuple(factors))


@lru_cache(maxsize=4096)
def read_unit(text: str) -> Unit | None:
    """Returns the unit that the words are: a measure, a scale (million dollars), a noun; None for other letters."""
    words = re.sub(r"[{}(),\\]|(?<=[A-Za-z])\.", " ", text.replace(r"^\circ", " degree ")).replace("cdot", " ").split()
    side = frozenset(word.lower() for word in words if word.lower() in _SIDES)
    if words and (words[0].lower() in _PERCENT or " ".join(words).lower() in _PERCENT):
        return PERCENT._replace(side=side) if all(map(is_word, words[1:])) else None
    if words and words[0].lower() in _CHANGING:
        return None
    scale = Fraction(1)
    while words and words[0].lower().removesuffix("s") in SCALES:
        scale *= SCALES[words.pop(0).lower().removesuffix("s")]
    if words and words[0].lower() == "of":
        words.pop(0)
    for end in range(min(len(words), 6), 0, -1):
        measure = _measure(" ".join(words[:end]))
        if measure and all(is_word(word) for word in words[end:]):
            return measure._replace(scale=scale, side=side)
    if all(is_word(part) for word in words for part in re.findall("[A-Za-z]+", word)):
        return Unit(" ".join(words).lower(), scale=scale, side=side)
    return None


def _measure(text: str) -> Unit | None:
    """Returns the unit of measure: 'square feet', 'ft^2', 'miles per hour', 'kg m/s^2', 'degrees Celsius'."""
    if found := re.fullmatch(r"(?:degrees? )?(?:(?P<fahrenheit>F|(?i:fahrenheit))|C|(?i:celsius|centigrade))", text):
        return _FAHRENHEIT if found["fahrenheit"] else _CELSIUS
    over, *under = re.split(r"\s*/\s*| per ", text)
    dimensions: dict[str, int] = {}
    factor = Fraction(1)
    for sign, part in [(1, over), *((-1, part) for part in under)]:
        if (product := _product(part)) is None:
            return None
        factor *= product.factor**sign
        for name, power in product.dimensions:
            dimensions[name] = dimensions.get(name, 0) + sign * power
    return Unit(text, tuple(sorted((name, power) for name, power in dimensions.items() if power)), factor)


def _product(text: str) -> Unit | None:
    """Returns the product of the measures, which may have powers: 'kg m^2', 'cubic cm', 'sq ft'."""
    dimensions: dict[str, int] = {}
    factor = Fraction(1)
    before = 1
    text = re.sub(r"(\w) (squared|cubed)\b", lambda m: f"{m[1]}^{2 if m[2] == 'squared' else 3}", text)
    for word in re.sub(r"\s*\^\s*", "^", text).split():
        if power := {"square": 2, "sq": 2, "cubic": 3, "cu": 3}.get(word.lower()):
            before = power
            continue
        name, _, exponent = word.partition("^")
        unit = _MEASURES.get(name.lower()) or _MEASURES.get(name.lower().removesuffix("s"))
        if unit is None:
            return None
        power, before = before * int(exponent or 1), 1
        factor *= unit.factor**power
        for dimension, k in unit.dimensions:
            dimensions[dimension] = dimensions.get(dimension, 0) + k * power
    return Unit(text, tuple(sorted(dimensions.items())), factor) if dimensions and before == 1 else None


def is_word(letters: str) -> bool:
    """Returns whether the letters are a word: three or more with a vowel, other than a product of a, b and c."""
    low = letters.lower()
    if low in _WITHOUT_VOWEL:
        return True
    return len(low) >= 3 and bool(set(low) & set("aeiouy")) and not set(low) <= set("abc")
