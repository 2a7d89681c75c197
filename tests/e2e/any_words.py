"""The words of random calls: each is unique, so that it can be told whose it is wherever it turns up.

"Kabcd"   the agent's: of the answer with the code "Kab", its word "cd". Codes of the program's own
          words begin with Y, those of processors' lines with Z
"vabc"    the caller's
"""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple

import numpy as np

from tests.vendors import spelled

RATE = spelled.RATE
WORD = re.compile(r"[A-Z][a-z]{4}")
CALLERS = re.compile(r"v[a-p]{3}")


def letters(number: int, width: int, base: int = 26) -> str:
    text = ""
    for _ in range(width):
        number, rest = divmod(number, base)
        text = chr(97 + rest) + text
    return text


def words(code: str, number: int) -> list[str]:
    return [f"{code}{letters(place, 2)}" for place in range(number)]


def line(code: str, number: int = 4, end: str = ".") -> str:
    return " ".join(words(code, number)) + end


NOTICE, HELLO, FAREWELL = line("Znt", 7), line("Zhe", 5, "?"), line("Zfw")
FILLERS = tuple(line(f"Zf{letters(number, 1)}", 3) for number in range(26))
IDLE, IDLE_GOODBYE = line("Zia", end="?"), line("Zig")
LIMIT, LIMIT_GOODBYE = line("Ztn"), line("Ztg")
SORRY, UNHEARD = line("Zso"), line("Zun")
PROTECTED = ("Znt", "Ztn", "Ztg")
"""Codes of the lines that may not be interrupted."""


def is_notice(text: str) -> bool:
    """Whether an answer's sentence may not be interrupted: by a letter of its code."""
    return text[0] not in "YZ" and text[2] in "cfil"


class Heard(NamedTuple):
    """A word at the ear, or a part of one, from and to which second of the call."""

    text: str
    begins: float
    ends: float

    @property
    def whole(self) -> bool:
        return len(self.text) == 5


def heard_in(track: bytes, offset: float = 0.0) -> list[Heard]:
    """The words in a track of the agent's, in order."""
    codes = np.frombuffer(track.translate(spelled.UNSIGNED), np.uint8)
    edges = np.concatenate(([0], np.flatnonzero(np.diff(codes)) + 1, [len(codes)]))
    found: list[Heard] = []
    grown, begins, ends = "", 0.0, -1.0
    for first, last in itertools.pairwise(edges):
        value = int(codes[first])
        if not spelled.FIRST < value <= spelled.LAST:
            continue
        text = chr(value) * spelled.characters(int(last - first))
        at = first / RATE + offset
        anew = text[:1].isupper() or (at - ends > 0.009 and len(grown) + len(text) > 5)
        if grown and text and anew:
            found.append(Heard(grown.strip(".?"), float(begins), float(ends)))
            grown = ""
        if text and not grown:
            begins = at
        grown += text
        ends = last / RATE + offset
    found += [Heard(grown.strip(".?"), float(begins), float(ends))] if grown else []
    return [word for word in found if word.text]
