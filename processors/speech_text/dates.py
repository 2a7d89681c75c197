"""Dates and times: "11/22/2026", "2026-11-22T14:30", "Nov 22", "2:30 pm", "9-5pm"."""

from __future__ import annotations

import re

from processors.speech_text.rules import DASH, Rule, rule
from processors.speech_text.words import cardinal, ordinal, year

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_BY_START = {name[:3]: name for name in MONTHS}
_MONTH = (
    r"(Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?"
    r"|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
_DAY = r"([0-9]{1,2})(?:st|nd|rd|th)?"
_YEAR = r"([0-9]{4})(?![0-9]|[.,:/-][0-9])"
_AMPM = r"([AaPp])\.?\s?[Mm]\b\.?"
_LEAD = (
    r"\b((?:[Oo]n|[Bb]y|[Uu]ntil|[Bb]efore|[Aa]fter|[Ss]ince|[Dd]ue|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day)"
    r",?\s+)"
)
"""What makes a date of "11/22", which may also be eleven out of twenty-two."""


def rules(*, day_first: bool) -> tuple[Rule, ...]:
    """`day_first`: 11/12/2026 is the eleventh of December."""
    return (
        rule(
            r"(?<![0-9-])([0-9]{4})-([0-9]{2})-([0-9]{2})(?![0-9-])"
            r"(?:[T ]([0-9]{2}:[0-5][0-9])(?::[0-9]{2}(?:\.[0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?",
            _iso,
            "-",
        ),
        rule(
            r"(?<![0-9/.-])([0-9]{1,2})([/.-])([0-9]{1,2})\2([0-9]{4}|[0-9]{2})(?![0-9]|[/.-][0-9])",
            lambda found: _numeric(found, day_first=day_first),
            "/.-",
        ),
        rule(
            _LEAD + r"([0-9]{1,2})/([0-9]{1,2})(?![0-9]|[/.][0-9])",
            lambda found: _short(found, day_first=day_first),
            "/",
        ),
        rule(
            rf"\b{_MONTH}\.?\s+{_DAY}(?![0-9]|[:.,/][0-9]|\s?(?:%|[AaPp]\.?[Mm]\b))"
            rf"(?:\s?{DASH}\s?{_DAY}(?![0-9:]))?(?:,?\s+{_YEAR})?",
            _month_day,
        ),
        rule(
            rf"(?:\b([Tt]he)\s+)?(?<![0-9.,:/$€£-]){_DAY}\s+(?:of\s+)?{_MONTH}(?![\w-])"
            rf"(?:\.?,?\s+{_YEAR}|\.(?=\s[a-z]))?",
            _day_month,
        ),
        rule(rf"\b{_MONTH}\.?,?\s+{_YEAR}", lambda found: f"{_BY_START[found[1][:3]]} {_year(found[2])}"),
        rule(
            rf"(?<![0-9:.,$€£/-])([0-9]{{1,2}})(?::([0-5][0-9]))?(?:\s?{_AMPM})?\s?{DASH}\s?"
            rf"([0-9]{{1,2}})(?::([0-5][0-9]))?(?![0-9:]|[.,/-][0-9])(?:\s?{_AMPM})?",
            _hours,
        ),
        rule(
            r"(?<![0-9:.])([0-9]{1,2}):([0-5][0-9])(?::([0-5][0-9]))?(?![0-9:])"
            rf"(?:\s?{_AMPM}|\s*o['’]clock\b)?",
            _clock,
            ":",
        ),
        rule(
            rf"(?<![0-9:.])([0-9]{{1,2}})\.([0-5][0-9])\s?{_AMPM}",
            lambda found: clock(found[1], found[2], found[3]),
            ".",
        ),
        rule(rf"(?<![0-9:.,$€£-])([0-9]{{1,2}})\s?{_AMPM}", _hour, "aApP"),
    )


def date(month: int, day: int, in_year: str = "") -> str | None:
    """A date in words; None when there is no such day."""
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    words = f"{MONTHS[month - 1]} {ordinal(str(day))}"
    return f"{words}, {_year(in_year)}" if in_year else words


def clock(hour: str, minute: str = "00", half: str = "", *, alone: bool = False) -> str:
    """A time of day in words. `half` is a or p; `alone` when no other word says that it is a time."""
    words = cardinal(hour)
    if minute != "00":
        words += f" oh {cardinal(minute)}" if minute[0] == "0" else f" {cardinal(minute)}"
    elif alone and not half:
        if int(hour) in (0, 24):
            return "midnight"
        words += " hundred" if int(hour) > 12 else " o'clock"
    return f"{words} {half.lower()}.m." if half else words


def month_and_day(first: str, second: str, *, day_first: bool) -> tuple[int, int]:
    """Which is which; one above 12 is the day whatever the custom."""
    month, day = (int(second), int(first)) if day_first else (int(first), int(second))
    return (day, month) if month > 12 >= day else (month, day)


def _year(number: str) -> str:
    if len(number) == 2:
        number = ("20" if number < "70" else "19") + number
    return year(number) if "1100" <= number < "2100" else cardinal(number)


def _iso(found: re.Match[str]) -> str:
    words = date(int(found[2]), int(found[3]), found[1])
    if words is None:
        return found[0]
    return f"{words} at {clock(*found[4].split(':'), alone=True)}" if found[4] else words


def _numeric(found: re.Match[str], *, day_first: bool) -> str:
    first, mark, second, in_year = found.groups()
    if mark != "/" and len(in_year) == 2:  # 1.2.10 is a version
        return found[0]
    return date(*month_and_day(first, second, day_first=day_first or mark == "."), in_year) or found[0]


def _short(found: re.Match[str], *, day_first: bool) -> str:
    words = date(*month_and_day(found[2], found[3], day_first=day_first))
    return found[1] + words if words else found[0]


def _month_day(found: re.Match[str]) -> str:
    name, first, last, in_year = found.groups()
    if not 1 <= int(first) <= 31 or (last and not 1 <= int(last) <= 31):
        return found[0]
    words = f"{_BY_START[name[:3]]} {ordinal(first)}"
    words += f" to {ordinal(last)}" if last else ""
    return f"{words}, {_year(in_year)}" if in_year else words


def _day_month(found: re.Match[str]) -> str:
    the, day, name, in_year = found.groups()
    if not 1 <= int(day) <= 31:
        return found[0]
    words = f"{the or 'the'} {ordinal(day)} of {_BY_START[name[:3]]}"
    return f"{words}, {_year(in_year)}" if in_year else words


def _hours(found: re.Match[str]) -> str:
    """From one time to another, when anything says that these are times."""
    hour, minute, half, to_hour, to_minute, to_half = found.groups()
    if not (minute or half or to_minute or to_half) or int(hour) > 24 or int(to_hour) > 24:
        return found[0]
    return f"{clock(hour, minute or '00', half or '')} to {clock(to_hour, to_minute or '00', to_half or '')}"


def _clock(found: re.Match[str]) -> str:
    hour, minute, second, half = found.groups()
    if int(hour) > 24:
        return found[0]
    if second:
        return f"{clock(hour, minute, half or '')} and {cardinal(second)} seconds"
    return clock(hour, minute, half or "", alone=True)


def _hour(found: re.Match[str]) -> str:
    return clock(found[1], half=found[2]) if 1 <= int(found[1]) <= 12 else found[0]
