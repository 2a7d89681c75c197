"""Where the agent's audio goes: at the samples during which it played.

The sink tells each piece with the time at which it begins to play, up to its lead (0.2 s) ahead of it, and
what it cleared. So a piece waits here until it has played, and is then placed by the sample clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from voiceflow.engine.reply import Reply
from voiceflow.line.sampleclock import SampleClock

SETTLE = 0.25
"""Seconds after its end until a piece is placed. At the call's beginning the clock knows little: a few
packets more tell it how late the first ones were."""
JUMP = 0.01
"""Seconds by which the clock may disagree before a piece that follows another without a gap is moved. 100 ppm
take 100 s for that; smaller steps would be audible, and nobody hears 10 ms of delay."""
GAPLESS = 1e-4
"""Seconds between two pieces that count as none: less than one sample at 8 kHz."""


@dataclass(slots=True)
class Piece:
    """Audio of one reply, in the line's format, that plays from `at` (`loop.time()`) on."""

    audio: bytes
    at: float
    of: Reply | None


class Placing:
    """`width` is the bytes of a sample."""

    def __init__(self, clock: SampleClock, width: int) -> None:
        self.first = 0
        """The first sample of the file. What begins just before it is moved there, not cut."""
        self._clock = clock
        self._width = width
        self._waiting: deque[Piece] = deque()  # as long as the sink's lead, and SETTLE
        self._end_at = 0.0
        self._end = 0
        """Where the audio that was placed last ends, as a time and as a sample."""

    def sent(self, piece: Piece) -> None:
        """The line was given a piece."""
        self._waiting.append(piece)

    def cleared(self, at: float) -> int:
        """What would have played after `at` was thrown away. How many samples of it were placed already: they
        are the last before `end` was moved back."""
        while self._waiting and self._waiting[-1].at >= at:
            self._waiting.pop()
        if self._waiting:
            last = self._waiting[-1]
            samples = max(0, round((at - last.at) * self._clock.rate))
            last.audio = last.audio[: samples * self._width]
            return 0
        over = max(0, round((self._end_at - at) * self._clock.rate))
        if over:
            self._end_at, self._end = at, self._end - over
        return over

    @property
    def end(self) -> int:
        """The sample at which the audio that was placed last ends."""
        return self._end

    def settled(self, now: float) -> Iterator[tuple[int, Piece]]:
        """The pieces that have played by `now`, each with its first sample."""
        while self._waiting:
            piece = self._waiting[0]
            samples = len(piece.audio) // self._width
            if piece.at + samples / self._clock.rate + SETTLE > now:
                return
            self._waiting.popleft()
            start = self._start(piece.at)
            self._end_at = piece.at + samples / self._clock.rate
            self._end = start + samples
            yield start, piece

    def _start(self, at: float) -> int:
        """The first sample of what begins to play at `at`."""
        start = self._clock.sample(at)
        if 0 < self.first - start <= JUMP * self._clock.rate:
            start = self.first
        if abs(start - self._end) > JUMP * self._clock.rate:
            return start
        return self._end if abs(at - self._end_at) < GAPLESS else max(start, self._end)
