"""Which sample of the caller's stream an instant of a connection's audio is.

Flux counts seconds of the audio it was sent on one connection. That is not the time of the call: a new
connection begins at 0 with audio of before, and silence is sent that never came from the line.
"""

from __future__ import annotations

from bisect import bisect_right

KEPT = 1024
"""Stretches that are remembered: a turn with an interruption of its audio every second, for minutes."""


class Timeline:
    """One connection's audio, as stretches that each come from the stream or from nowhere."""

    def __init__(self, rate: int, position: int) -> None:
        self.sent = 0
        """Samples sent on this connection."""
        self._rate = rate
        self._began: list[int] = [0]
        """Where each stretch begins, in samples sent; the next two say which sample that was and whether the
        stretch goes on from it (1) or stays at it (0)."""
        self._position: list[int] = [position]
        self._slope: list[int] = [1]

    def audio(self, position: int, samples: int) -> None:
        """The samples of the stream from `position` on were sent."""
        if not self._slope[-1] or self._at(self.sent) != position:
            self._stretch(position, 1)
        self.sent += samples

    def silence(self, samples: int) -> None:
        """Silence was sent that is not in the stream."""
        if self._slope[-1]:
            self._stretch(self._at(self.sent), 0)
        self.sent += samples

    def seconds(self, heard_to: float) -> float:
        """An instant of the connection's audio; the latest one when it lies beyond."""
        return min(heard_to, self.sent / self._rate)

    def position(self, seconds: float) -> int:
        """The sample that was sent `seconds` into the connection's audio; never one that was not sent yet."""
        if not seconds > 0:  # nor is NaN
            return self._at(0)
        return self._at(int(min(seconds * self._rate + 0.5, self.sent)))

    def _at(self, sent: int) -> int:
        n = max(0, bisect_right(self._began, sent) - 1)
        return self._position[n] + self._slope[n] * max(0, sent - self._began[n])

    def _stretch(self, position: int, slope: int) -> None:
        if self._began[-1] == self.sent:  # the stretch before it was empty
            self._position[-1], self._slope[-1] = position, slope
            return
        self._began.append(self.sent)
        self._position.append(position)
        self._slope.append(slope)
        if len(self._began) > KEPT:
            for column in (self._began, self._position, self._slope):
                del column[: KEPT // 2]
