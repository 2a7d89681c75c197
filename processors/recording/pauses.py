"""When the recording was paused, in samples of its time line.

A pause has a name, its reason: two parts of a program that pause at the same time do not undo each other.
Recording goes on when every reason is gone; the same reason twice is one.
"""

from __future__ import annotations

from collections import deque

KEPT = 10_000
"""Pauses that are remembered: one each third of a second, for an hour."""


class Pauses:
    """`paused` now; `carve` what of some audio may be kept."""

    def __init__(self) -> None:
        self.over: deque[tuple[int, int]] = deque(maxlen=KEPT)
        """From and to, in order."""
        self.since: int | None = None
        self._reasons: set[str] = set()  # as many as the program has names for

    def pause(self, why: str, at: int) -> bool:
        """Pauses at sample `at`; False when it was paused already."""
        self._reasons.add(why)
        if self.since is not None:
            return False
        self.since = max(at, self.over[-1][1] if self.over else 0)
        return True

    def resume(self, why: str, at: int) -> bool:
        """Takes a reason back; True when recording goes on with sample `at`."""
        self._reasons.discard(why)
        if self.since is None or self._reasons:
            return False
        self.over.append((self.since, max(at, self.since)))
        self.since = None
        return True

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """The pauses that overlap samples `start` to `end`, in order."""
        found = []
        if self.since is not None and self.since < end:
            found.append((self.since, end))
        for first, last in reversed(self.over):
            if last <= start:
                break
            if first < end and first < last:
                found.append((first, last))
        return found[::-1]

    def carve(self, start: int, end: int) -> list[tuple[int, int]]:
        """What is left of `start` to `end` without the pauses."""
        left = []
        for first, last in self.within(start, end):
            if first > start:
                left.append((start, first))
            start = max(start, last)
        if start < end:
            left.append((start, end))
        return left
