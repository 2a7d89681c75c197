"""What stands around a number, in words: "50%", "3-5", "-5", "10km", "3x", "1/2", "#1".

The number itself stays in digits, for the rules that follow."""

from __future__ import annotations

import re

from processors.speech_text.dates import date, month_and_day
from processors.speech_text.rules import DASH, NUMBER, Rule, rule
from processors.speech_text.words import cardinal, ordinal

_UNITS = {
    "km/h": "kilometers per hour", "kph": "kilometers per hour", "mph": "miles per hour",
    "Mbps": "megabits per second", "Gbps": "gigabits per second",
    "km": "kilometers", "cm": "centimeters", "mm": "millimeters", "mi": "miles", "yd": "yards", "ft": "feet",
    "sq ft": "square feet", "kg": "kilograms", "mg": "milligrams", "ml": "milliliters", "mL": "milliliters",
    "lb": "pounds", "lbs": "pounds", "oz": "ounces", "TB": "terabytes", "GB": "gigabytes", "MB": "megabytes",
    "KB": "kilobytes", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz",
    "kW": "kilowatts", "kWh": "kilowatt hours", "hr": "hours", "hrs": "hours", "min": "minutes",
    "mins": "minutes", "sec": "seconds", "secs": "seconds", "ms": "milliseconds",
}  # fmt: skip
_LETTERS = {
    "m": "meters", "g": "grams", "h": "hours", "l": "liters", "L": "liters", "W": "watts", "V": "volts",
    "k": "thousand",
}  # fmt: skip
"""Units of one letter, only right behind the number: with a space they are words or names."""
_SINGULAR = {"square feet": "square foot", "feet": "foot", "kilowatt hours": "kilowatt hour"}
_PER = {
    "mo": "month", "yr": "year", "wk": "week", "hr": "hour", "min": "minute", "sec": "second", "lb": "pound",
    "kg": "kilogram", "gal": "gallon",
}  # fmt: skip
_PER_WORDS = "|".join(_PER) + "|day|week|month|year|hour|minute|second|night|person|user|item|unit|mile"
_FRACTIONS = {2: ("half", "halves"), 4: ("quarter", "quarters")}
_MEASURED = re.compile(
    r"(?:\s|-)?(?:of an?|inch(?:es)?|cups?|teaspoons?|tablespoons?|tsp|tbsp|miles?|pounds?|hours?|[\"”″])"
)
_FIXED = {("24", "7"), ("9", "11"), ("50", "50"), ("20", "20")}


def marks() -> tuple[Rule, ...]:
    """Before everything else."""
    return (rule(r"(?:\b[Nn]os?\.|#)\s?(?=[0-9])", "number ", ".#"),)


def rules(*, day_first: bool) -> tuple[Rule, ...]:
    """`day_first`: 11/12 is the eleventh of December."""
    units = "|".join(sorted(_UNITS, key=len, reverse=True))
    return (
        rule(
            r"(?<![0-9/.])(?:([0-9]+)\s+)?([0-9]+)/([0-9]+)(?![0-9/]|\.[0-9])",
            lambda found: _slashed(found, day_first=day_first),
            "/",
        ),
        rule(
            r"(?<![\w.,])([0-9])\s?(?:ft\.?\s|feet\s|foot\s|['’′])\s?([0-9]{1,2})(?:\s?(?:in\b\.?|inches\b|[\"”″]))",
            lambda found: f"{found[1]} foot {found[2]}",
        ),
        rule(rf"([%°])\s?{DASH}\s?(?=[0-9])", lambda found: f"{found[1]} to ", "%°"),
        rule(rf"(?<![\w.,/-])({NUMBER})(\s?){DASH}(\s?)({NUMBER})(?!{DASH}[0-9]|/[0-9])", _range, "-–—‒"),
        rule(r"(?<![0-9:])([0-9]+):([0-9]+)(?![0-9:])", lambda found: f"{found[1]} to {found[2]}", ":"),
        rule(r"(?<=[0-9])\s?[x×]\s?(?=[0-9])", " by ", "x×"),
        rule(r"(?<=[0-9])[x×](?!\w)", " times", "x×"),
        rule(rf"(?<![0-9.,])({NUMBER})\s?°\s?(?:([CF])\b)?", _degrees, "°"),
        rule(r"(?<=[0-9])\s?%", " percent", "%"),
        rule(
            rf"(?<![\w.,])({NUMBER})h\s?({NUMBER})m(?:in)?\b",
            lambda found: f"{_unit(found[1], 'hours')} {_unit(found[2], 'minutes')}",
            "h",
        ),
        rule(
            rf"(?<![\w.,])({NUMBER})(?:\s?({units})|({'|'.join(_LETTERS)}))(?![\w/])(?:\.(?=\s[a-z]))?",
            lambda found: _unit(found[1], _UNITS[found[2]] if found[2] else _LETTERS[found[3]]),
        ),
        rule(r"(?<![^\s(\[<=>~≈$])-\s?(?=\.?[0-9])", "minus ", "-"),
        rule(r"(?<![^\s(])\+(?=\.?[0-9])", "plus ", "+"),
        rule(r"(?<=[0-9])\s?\+\s?(?=[0-9])", " plus ", "+"),
        rule(r"(?<=[0-9])\+(?!\w)", " plus", "+"),
        rule(r"(?<=[0-9])\s*=\s*(?=-?[0-9])", " equals ", "="),
        rule(r"(?<=[0-9])\s*[*×]\s*(?=[0-9])", " times ", "*×"),
        rule(r"(?<=[0-9])\s*÷\s*(?=[0-9])", " divided by ", "÷"),
        rule(r"(?<!\w)<\s?(?=[0-9])", "less than ", "<"),
        rule(r"(?<!\w)>\s?(?=[0-9])", "more than ", ">"),
        rule(r"≤\s?(?=[0-9])", "at most ", "≤"),
        rule(r"≥\s?(?=[0-9])", "at least ", "≥"),
        rule(r"[~≈]\s?(?=[0-9])", "about ", "~≈"),
        rule(r"±\s?(?=[0-9])", "plus or minus ", "±"),
    )


def per() -> Rule:
    """ "$3/month", "3x/day": before the amount is put into words."""
    return rule(
        rf"(?<=[0-9x])\s?/\s?({_PER_WORDS})\b", lambda found: f" per {_PER.get(found[1], found[1])}", "/"
    )


def _unit(number: str, name: str) -> str:
    if number == "1":
        head, per, tail = name.partition(" per ")
        name = _SINGULAR.get(head, head.removesuffix("s")) + per + tail
    return f"{number} {name}"


def _degrees(found: re.Match[str]) -> str:
    scale = {"C": " Celsius", "F": " Fahrenheit", None: " "}[found[2]]
    return f"{_unit(found[1], 'degrees')}{scale}"


def _range(found: re.Match[str]) -> str:
    """ "3-5" and "2019-2020" are ranges, "9-5" hours, "3-2" a score; what falls is two numbers."""
    low, space, other_space, high = found.groups()
    a, b = (float(number.replace(",", "")) for number in (low, high))
    if a < b or max(a, b) <= 12 or (len(low) == 4 and len(high) == 2 and low[2:] < high):
        return f"{low} to {high}"
    return f"{low} minus {high}" if space and other_space else f"{low} {high}"


def _slashed(found: re.Match[str], *, day_first: bool) -> str:
    """A fraction, a date, a rating, a ratio."""
    whole, over, under = found.groups()
    before = f"{whole} " if whole else ""
    if len(over) > 4 or len(under) > 4:
        return f"{before}{over} {under}"
    if (over, under) in _FIXED:
        return f"{before}{over} {under}"
    a, b = int(over), int(under)
    measured = _MEASURED.match(found.string, found.end()) is not None
    if 0 < a < b and (b in (2, 3, 4, 8) or (measured and b <= 64)):
        if whole:
            return f"{whole} and a half" if (a, b) == (1, 2) else f"{whole} and {_fraction(a, b)}"
        return _fraction(a, b)
    month, day = month_and_day(over, under, day_first=day_first)
    if month <= 12 < day and (words := date(month, day)):
        return before + words
    return f"{before}{over} {'out of' if a <= b else 'over'} {under}"


def _fraction(a: int, b: int) -> str:
    one, many = _FRACTIONS.get(b) or (ordinal(str(b)), ordinal(str(b)) + "s")
    return f"{cardinal(str(a))} {one if a == 1 else many}"
