"""Numbers as they are spoken. The rules go from what is most particular (a date) to any number at all."""

from __future__ import annotations

import re
from functools import lru_cache

from processors.speech_text import dates, money, phones, quantities
from processors.speech_text.rules import NUMBER, Rule, apply, rule
from processors.speech_text.words import cardinal, digits, ordinal, plain, quantity, year

_FRACTIONS = dict(
    zip("½¼¾⅓⅔⅛⅜⅝⅞", ("1/2", "1/4", "3/4", "1/3", "2/3", "1/8", "3/8", "5/8", "7/8"), strict=True)
)
_USUAL = str.maketrans(
    {
        **{chr(first + n): str(n) for first in (0xFF10, 0x2080) for n in range(10)},  # full width, subscript
        **{chr(0x2460 + n): f"{n + 1} " for n in range(20)},  # circled
        **{sign: f" {value}" for sign, value in _FRACTIONS.items()},
        "²": " squared",
        "³": " cubed",
        "⁄": "/",
        "−": "-",
    }
)
_DIGIT = re.compile(r"[0-9]")


def spell(text: str, *, day_first: bool = False) -> str:
    """The text with its numbers in words: no digit of 0 to 9 is left."""
    if not text.isascii():
        text = text.translate(_USUAL)
    return apply(_rules(day_first=day_first), text) if _DIGIT.search(text) else text


@lru_cache(maxsize=2)
def _rules(*, day_first: bool) -> tuple[Rule, ...]:
    return (
        rule(r"(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))", "", "\u00a0\u2009\u202f"),
        *quantities.marks(),
        *dates.rules(day_first=day_first),
        *phones.rules(),
        quantities.per(),
        *money.rules(),
        rule(r"(?<![\w.])(?<!ersion )[vV]\.?\s?(?=[0-9]+\.[0-9])", "version ", "vV"),
        rule(r"(?<![\w.])([0-9]+(?:\.[0-9]+){2,})(?::([0-9]{1,5})(?![0-9:]))?", _dotted, "."),
        rule(r"(?i)(?<![0-9.,])([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:st|nd|rd|th)\b", _ordinal),
        rule(r"(?<![\w.,])['’]?([0-9]{2}|[0-9]{4})['’]?s\b", _decade, "s"),
        *quantities.rules(day_first=day_first),
        rule(rf"{NUMBER}|(?<![\w.])\.[0-9]+", _number),
    )


def _dotted(found: re.Match[str]) -> str:
    """An IP address or a version."""
    parts, port = found[1].split("."), found[2]
    if len(parts) == 4 and all(len(part) <= 3 and int(part) < 256 for part in parts):
        words = " dot ".join(map(digits, parts))
    else:
        words = " point ".join(map(cardinal, parts))
    return _apart(found, f"{words} port {cardinal(port)}" if port else words)


def _ordinal(found: re.Match[str]) -> str:
    return _apart(found, ordinal(found[1]))


def _decade(found: re.Match[str]) -> str:
    number = found[1]
    if number[-1] != "0" or (len(number) == 2 and number < "20"):
        return found[0]
    words = year(number) if len(number) == 4 and "1100" <= number < "2100" else cardinal(number)
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"


def _number(found: re.Match[str]) -> str:
    number, text = found[0], found.string
    before, after = text[: found.start()][-1:], text[found.end() :][:1]
    if len(number) > 2 and number.isdigit() and (before.isalpha() or after.isalpha()):
        return _apart(found, digits(number))  # part of a name: UA482
    return _apart(found, quantity(number) if number[0] == "." else plain(number))


def _apart(found: re.Match[str], words: str) -> str:
    """Words in the place of digits, with spaces where these touched letters or each other: "5G", "1,2"."""
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    left = " " if before.isalnum() or before == "," else ""
    return f"{left}{words} " if after.isalnum() else f"{left}{words}"
