"""The words of what a caller said, as a recogniser writes them: "10:30 a.m." and "ten thirty am" alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

SPOKEN = re.compile(
    r"\d{4}-\d{2}-\d{2}"  # a date as in 2026-05-03
    r"|\d{1,2}[:.]\d{2}(?!\d)"  # a time as in 10:30
    r"|\d+(?:st|nd|rd|th)?"
    r"|[^\W\d_]+(?:['’][^\W\d_]+)?"
)
DOTTED = re.compile(r"\b([ap])\.\s?m\b\.?", re.IGNORECASE)


def list_of(words: str) -> list[str]:
    """For lists that would not fit on the page, one in quotes each."""
    return words.split()


SMALL = list_of(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = {
    word: 10 * n for n, word in enumerate(list_of("twenty thirty forty fifty sixty seventy eighty ninety"), 2)
}
UNITS = {word: n for n, word in enumerate(SMALL)}
ORDINALS = {
    word: n
    for n, word in enumerate(
        list_of(
            "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
            "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
        ),
        1,
    )
} | {"thirtieth": 30}


class Word(NamedTuple):
    """In lower case, and where it stands in the text."""

    text: str
    start: int
    end: int


class Read(NamedTuple):
    """A number that was read, and the place after it."""

    value: int
    end: int


def words_of(text: str) -> list[Word]:
    """The words in order. Hyphens separate: "twenty-three" is two of them."""
    # As long as before, so that places in the text stay what they are.
    text = DOTTED.sub(lambda found: f"{found[1]}m".ljust(len(found[0])), text)
    return [
        Word(found[0].lower().replace("’", "'"), found.start(), found.end())
        for found in SPOKEN.finditer(text)
    ]


def texts_of(text: str) -> list[str]:
    return [word.text for word in words_of(text)]


def cardinal(words: Sequence[str], at: int) -> Read | None:
    """A number from 0 to 999 that begins at this place: "23", "twenty three", "a hundred and five"."""
    first = _at(words, at)
    if first.isdecimal():
        return Read(int(first), at + 1) if len(first) <= 9 else None
    if _at(words, at + 1) == "hundred" and (first == "a" or 0 < UNITS.get(first, 0) < 10):
        hundreds = 100 * UNITS.get(first, 1)
        rest = _below_hundred(words, at + 2 + (_at(words, at + 2) == "and"))
        return Read(hundreds + rest.value, rest.end) if rest is not None else Read(hundreds, at + 2)
    return _below_hundred(words, at)


def ordinal(words: Sequence[str], at: int) -> Read | None:
    """A place in an order, 1 to 99: "3rd", "third", "twenty first"."""
    first = _at(words, at)
    if first[:1].isdecimal() and first[-2:] in ("st", "nd", "rd", "th"):
        return Read(int(first[:-2]), at + 1) if len(first) <= 4 else None
    if first in ORDINALS:
        return Read(ORDINALS[first], at + 1)
    if first in TENS and 0 < ORDINALS.get(_at(words, at + 1), 0) < 10:
        return Read(TENS[first] + ORDINALS[words[at + 1]], at + 2)
    return None


def _below_hundred(words: Sequence[str], at: int) -> Read | None:
    first = _at(words, at)
    if first in UNITS:
        return Read(UNITS[first], at + 1)
    if first not in TENS:
        return None
    if 0 < UNITS.get(_at(words, at + 1), 0) < 10:
        return Read(TENS[first] + UNITS[words[at + 1]], at + 2)
    return Read(TENS[first], at + 1)


def _at(words: Sequence[str], at: int) -> str:
    return words[at] if 0 <= at < len(words) else ""
