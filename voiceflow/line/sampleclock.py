"""The sample clock: which sample of the caller's audio belongs to which instant of `loop.time()`.

Two clocks run side by side. The caller's audio is counted in samples by the carrier's clock; what we send is
timed by ours. They drift apart (crystals differ by some 10 ppm, 100 at worst: 0.36 s in an hour), and packets
come late, in bursts or not at all, but never early:

    arrival - samples / rate   ▁▁▂▁▁▁▅▃▁▁▁▁▁▁██▇▅▃▁▁▁▁▁   the packet's lateness, and below it the line itself
                               ─────────────────────────  its least value: the origin

So the origin is the least lateness of the last WINDOW seconds in which packets came. A late packet moves
nothing; a carrier whose clock is faster is followed at once, one that is slower, or lost packets that it does
not tell of, after WINDOW seconds: at 100 ppm that is 1 ms behind.

The point of view is the server's. Sample n belongs to the instant in which it came in by the fastest packets,
so the network's least delay is in it: for the caller, the agent's audio is later by the round trip.
"""

from __future__ import annotations

from collections import deque

WINDOW = 10
"""Seconds with packets over which the least lateness is taken. Longer than a line hangs and goes on; seconds
without a packet do not count, so a line that hung for a minute is no reason to believe the late ones."""


class SampleClock:
    """Times are `loop.time()`, in seconds; samples count from the start of the stream, at `rate` a second.

    Until the first packet, sample 0 is at 0.0, or where `begin` puts it.
    """

    __slots__ = ("_least", "_origin", "_second", "rate")

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._origin = 0.0
        self._least: deque[float] = deque(maxlen=WINDOW)
        """The least lateness in each of the last seconds in which packets came."""
        self._second = 0.0

    def begin(self, now: float) -> None:
        """The stream is open, and its audio will come: a guess for the time until then."""
        if not self._least:
            self._origin = now

    def arrived(self, samples: int, now: float) -> None:
        """By `now`, `samples` of the caller's audio have come in."""
        late = now - samples / self.rate
        second = now // 1.0
        if not self._least or second != self._second:
            self._second = second
            self._least.append(late)
            self._origin = min(self._least)
        elif late < self._least[-1]:
            self._least[-1] = late
            self._origin = min(self._origin, late)

    @property
    def running(self) -> bool:
        """Whether any packet has come yet."""
        return bool(self._least)

    def sample(self, at: float) -> int:
        """The sample that belongs to an instant; below 0 before the stream began."""
        return round((at - self._origin) * self.rate)

    def time(self, sample: int) -> float:
        """When a sample came in, or will."""
        return self._origin + sample / self.rate
