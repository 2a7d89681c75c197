"""The two clocks, in one place.

Scheduling uses `loop.time()` and nothing else. A trace needs finer steps than that: uvloop's clock moves
in whole milliseconds, so a live call reads the system's monotonic clock in nanoseconds for its figures.
In virtual time both are the same clock, so a replayed call gives the same figures every time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def is_virtual(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether time on this loop is simulated (see `voiceflow.testing`)."""
    return bool(getattr(loop, "virtual", False))


def trace_clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Seconds on a clock that never goes back, fine enough to time one hop."""
    return loop.time if is_virtual(loop) else _monotonic


def _monotonic() -> float:
    return time.monotonic_ns() / 1e9
