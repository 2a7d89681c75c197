"""Pacing: when the next piece of audio is due, by absolute deadlines.

The carrier plays what it gets at real time and buffers the rest. Too little in its buffer and the caller
hears gaps; too much and a barge-in has much to throw away (and the ledger more to guess). So the buffer
there is kept between `lead - chunk` and `lead`: 100 to 200 ms by default, a margin for a late timer or a
slow network. Deadlines follow from the audio itself, not from when the last timer fired, so lateness
never adds up.
"""

from __future__ import annotations


class Pacer:
    """Keeps `free_at`, the time when the carrier's buffer runs dry. Times are loop times, in seconds."""

    __slots__ = ("chunk", "free_at", "gap_seconds", "lead", "rate", "underruns")

    def __init__(self, rate: int, *, lead: float = 0.2, chunk: float = 0.1) -> None:
        if not 0 < chunk <= lead:
            raise ValueError(f"chunk ({chunk} s) must be positive and no longer than lead ({lead} s)")
        self.rate = rate
        self.lead = lead
        self.chunk = chunk
        self.free_at = 0.0
        self.underruns = 0
        """How often the buffer ran dry in the middle of a reply."""
        self.gap_seconds = 0.0
        """How much silence that put into the replies, in all."""

    def due(self) -> float:
        """When the next chunk has to be sent."""
        return self.free_at - self.lead + self.chunk

    def sent(self, samples: int, now: float, *, goes_on: bool) -> float:
        """`samples` were sent; returns when they begin to play. `goes_on` when the reply had begun before."""
        if self.free_at < now:
            if goes_on:
                self.underruns += 1
                self.gap_seconds += now - self.free_at
            self.free_at = now
        begins = self.free_at
        self.free_at = begins + samples / self.rate
        return begins

    def cleared(self, now: float) -> None:
        """The carrier's buffer is empty."""
        self.free_at = min(self.free_at, now)
