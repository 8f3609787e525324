"""Times of day and dates, which would be divisions and differences if their signs were read as mathematics."""
# ruff: noqa: SIM905

import re
from typing import NamedTuple


class Time(NamedTuple):
    """A time of day, or a duration in hours and minutes."""

    hour: int
    minute: int
    second: int
    half: str
    """'a' for a.m., 'p' for p.m.; '' where it is not said."""


class Date(NamedTuple):
    """A day of the year; None for what is not said."""

    year: int | None
    month: int
    day: int | None


_TIME = re.compile(
    r"(?P<hour>\d{1,2})(?:\s*:\s*(?P<minute>[0-5]\d)(?:\s*:\s*(?P<second>[0-5]\d))?)?"
    r"(?:\s*(?:(?P<half>[ap])\.?\s?m\.?|(?P<clock>o'clock)))?"
    r"(?:\s+in the (?P<part>morning|afternoon|evening))?",
    re.IGNORECASE,
)
_NAMED = {"noon": Time(12, 0, 0, "p"), "midday": Time(12, 0, 0, "p"), "midnight": Time(12, 0, 0, "a")}


def read_time(text: str) -> Time | None:
    """Returns the time that the text is: '4:15', '4:15 p.m.', '9 am', '16:15', 'noon'; or None."""
    if named := _NAMED.get(text.lower().removeprefix("12 ")):
        return named
    if not (found := _TIME.fullmatch(text)) or not (
        found["minute"] or found["half"] or found["clock"] or found["part"]
    ):
        return None
    half = (found["half"] or {"morning": "a", "afternoon": "p", "evening": "p"}.get(found["part"] or "", "")).lower()
    hour = int(found["hour"])
    return Time(hour, int(found["minute"] or 0), int(found["second"] or 0), half) if hour <= 24 else None


def same_time(a: Time, b: Time) -> bool:
    """Returns whether two times are one; where only one says a.m. or p.m., the other may mean either."""
    if (a.minute, a.second) != (b.minute, b.second):
        return False
    hours_a, hours_b = _hours(a), _hours(b)
    return bool(hours_a & hours_b) if a.half or b.half else a.hour == b.hour


def _hours(time: Time) -> set[int]:
    if time.half:
        return {time.hour % 12 + 12 * (time.half == "p")} if time.hour <= 12 else {time.hour}
    return {time.hour % 24} | ({time.hour % 12 + 12} if 1 <= time.hour <= 12 else set())


_NAMES = "january february march april may june july august september october november december".split()
_MONTHS = {name: i for i, full in enumerate(_NAMES, 1) for name in (full, full[:3])} | {"sept": 9}
_MONTH = r"(?P<month>[A-Za-z]{3,9})\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_WEEKDAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,?\s+(?:the\s+)?)?"
_DATES = tuple(
    re.compile(_WEEKDAY + form, re.IGNORECASE)
    for form in (
        rf"{_MONTH}\s+(?:the\s+)?{_DAY}(?:\s*,?\s*(?P<year>\d{{4}}))?",
        rf"(?:the\s+)?{_DAY}\s+(?:of\s+)?{_MONTH}(?:\s*,?\s*(?P<year>\d{{4}}))?",
        rf"{_MONTH},?\s+(?P<year>\d{{4}})",
        r"(?P<year>\d{4})-(?P<number>\d{1,2})-(?P<day>\d{1,2})",
        r"(?P<number>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})",
        r"(?P<day>\d{1,2})\.(?P<number>\d{1,2})\.(?P<year>\d{4})",
    )
)


def read_date(text: str) -> Date | None:
    """Returns the date that the text is: 'May 5th, 2020', '5 May', '2020-05-05', '5/17/2020' (month first); or None."""
    if not (found := next((m for form in _DATES if (m := form.fullmatch(text))), None)):
        return None
    part = found.groupdict()
    day = int(part["day"]) if part.get("day") else None
    if part.get("month"):
        month = _MONTHS.get(part["month"].lower(), 0)
    else:
        month = int(part["number"])
        if month > 12 and day is not None and day <= 12:
            month, day = day, month
    if not 1 <= month <= 12 or not (day is None or 1 <= day <= 31):
        return None
    return Date(int(part["year"]) if part.get("year") else None, month, day)


def same_date(a: Date, b: Date) -> bool:
    """Returns whether two dates are one; a year that one of them leaves out is the other's."""
    return a.month == b.month and a.day == b.day and (a.year == b.year or None in (a.year, b.year))
