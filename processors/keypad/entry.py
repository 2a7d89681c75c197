"""What an entry on the keypad is, and when it is complete. Pure: keys in, at most one entry out.

wanted         least 4, most 4, terminator "#"
1 2 3 4        FULL at the 4; a "#" that follows out of habit belongs to it
1 2 #          TERMINATOR, two keys short
1 2            TIMEOUT, after the gap
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from voiceflow.errors import DeclarationError

KEYS = frozenset("0123456789*#ABCD")
"""What a phone can send (ITU-T Q.23)."""
MOST = 64
"""Keys of one entry, and keys that are kept while nobody asks for them."""


class End(enum.Enum):
    """Why an entry is over."""

    FULL = "all keys were pressed"
    TERMINATOR = "the caller ended it"
    TIMEOUT = "nothing more was pressed"
    WORDS = "the caller spoke instead"


@dataclass(slots=True, frozen=True)
class Entry:
    """What was pressed, without the terminator. Its repr does not show the keys, which may be a secret."""

    keys: str = field(repr=False)
    ended: End
    complete: bool
    """As many keys as were asked for."""

    @property
    def spoken(self) -> str:
        """The keys one by one: "1 2 3 4", as a model and a voice read them best."""
        return " ".join(self.keys)


@dataclass(slots=True, frozen=True)
class Wanted:
    """An entry that somebody waits for: `least` to `most` keys, and one that ends it ("" for none).

    Raises DeclarationError for what no caller could enter.
    """

    least: int = 1
    most: int = MOST
    terminator: str = "#"

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most <= MOST:
            raise DeclarationError(
                f"an entry of {self.least} to {self.most} keys: from 1 to {MOST}, the smaller number first"
            )
        if self.terminator and self.terminator not in KEYS:
            raise DeclarationError(
                f"terminator={self.terminator!r} is no key: one of {''.join(sorted(KEYS))}, or ''"
            )

    @classmethod
    def of(cls, digits: int | tuple[int, int] | None, terminator: str) -> Wanted:
        """`digits`: exactly so many, from so many to so many, or None for any number."""
        if digits is None:
            return cls(terminator=terminator)
        least, most = (digits, digits) if isinstance(digits, int) else digits
        return cls(least, most, terminator)

    def entry(self, keys: str, ended: End) -> Entry:
        return Entry(keys, ended, len(keys) >= self.least)

    def take(self, keys: str, key: str) -> str | Entry:
        """`key` was pressed after `keys`: the keys so far, or the entry."""
        if key == self.terminator:
            return self.entry(keys, End.TERMINATOR)
        keys += key
        return self.entry(keys, End.FULL) if len(keys) == self.most else keys
