"""Numbers in English words, by inflect.

Why inflect: MIT, and well kept. num2words is LGPL-2.1, had its last release in 2024 and takes 10 to 90 us a
number; that it knows other languages does not help, for what stands around the numbers here ("percent",
"o'clock") is English.

What it costs: 1.7 s to import, cached bytecode or not, because typeguard reads and compiles the whole source
anew for each of 18 checked methods (0.2 s under `python -O`, which switches that off), and 50 us a number,
mostly in those checks. No call pays for the first, as `load` runs while the process starts; the second is
paid once for every number, as the answers are kept.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import inflect

LONGEST = 15
"""Digits of the longest number that is read as one (hundreds of trillions); longer ones digit by digit."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@cache
def load() -> inflect.engine:
    """Imports inflect, once: 1.7 s."""
    import inflect

    return inflect.engine()


def loaded() -> bool:
    """Whether `load` has been called."""
    return load.cache_info().currsize > 0


@lru_cache(maxsize=4096)
def cardinal(number: str) -> str:
    """ "1,234" is one thousand two hundred thirty-four."""
    plain = number.replace(",", "").lstrip("0") or "0"
    if len(plain) > LONGEST:
        return digits(plain)
    return str(load().number_to_words(plain, andword="", comma=""))


@lru_cache(maxsize=4096)
def ordinal(number: str) -> str:
    """ "22" is twenty-second."""
    return load().ordinal(cardinal(number))


def digits(number: str) -> str:
    """ "0100" is zero one zero zero."""
    return " ".join(DIGITS[int(digit)] for digit in number)


def groups(number: str) -> str:
    """A long number as people dictate it: in threes, the last group up to four. The commas are pauses."""
    first = len(number) % 3 if len(number) % 3 != 1 else 0
    parts = [number[:first]] if first else []
    while len(number) - first > 4:
        parts.append(number[first : first + 3])
        first += 3
    parts.append(number[first:])
    return ", ".join(digits(part) for part in parts if part)


def quantity(number: str) -> str:
    """A number that counts or measures: "1,250.50" is one thousand two hundred fifty point five zero."""
    whole, point, fraction = number.partition(".")
    words = cardinal(whole) if whole else ""
    return f"{words} point {digits(fraction)}".strip() if point else words


def year(number: str) -> str:
    """Four digits as a year is read: nineteen ninety, nineteen oh five, two thousand five."""
    century, rest = number[:2], number[2:]
    if century[1] == "0" and rest[0] == "0":
        return cardinal(number)
    if rest == "00":
        return f"{cardinal(century)} hundred"
    return (
        f"{cardinal(century)} oh {cardinal(rest)}"
        if rest[0] == "0"
        else f"{cardinal(century)} {cardinal(rest)}"
    )


def plain(number: str) -> str:
    """A number that nothing is known about: a year, a code, or how many."""
    if "," in number or "." in number:
        return quantity(number)
    if len(number) > 1 and number[0] == "0":
        return digits(number) if len(number) < 5 else groups(number)
    if len(number) == 4 and "1100" <= number < "2100":
        return year(number)
    if len(number) >= 7:
        return cardinal(number) if len(number.rstrip("0")) <= 3 else groups(number)
    if len(number) >= 5 and not number.endswith("00"):
        return digits(number)  # a ZIP code, an order: amounts are written with a comma, or are round
    return cardinal(number)
