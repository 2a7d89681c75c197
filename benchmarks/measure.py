"""What every benchmark here shares: a summary of times, the machine, and the machine's noise.

No dependency on what is measured: it runs in any interpreter from Python 3.11 on. Times are seconds of
`time.perf_counter` until `summary` gives them a unit.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6}


def summary(seconds: Sequence[float], unit: str = "ms") -> dict[str, Any]:
    """Median, p99, min and max in `unit` ("s", "ms" or "us"), with n. An empty list gives n = 0 alone.

    p99 is by nearest rank, so below 100 samples it is the maximum.
    """
    if not seconds:
        return {"n": 0, "unit": unit}
    scale = UNITS[unit]
    ordered = sorted(seconds)
    rank = math.ceil(0.99 * len(ordered)) - 1
    return {
        "median": round(statistics.median(ordered) * scale, 4),
        "p99": round(ordered[rank] * scale, 4),
        "min": round(ordered[0] * scale, 4),
        "max": round(ordered[-1] * scale, 4),
        "n": len(ordered),
        "unit": unit,
    }


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """A fresh event loop: "asyncio" for the standard library's, "uvloop" for uvloop's."""
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    if name == "asyncio":
        return asyncio.new_event_loop()
    raise ValueError(f"no event loop named {name!r}: asyncio or uvloop")


def default_loop() -> str:
    """uvloop where it is installed, as both sides of a comparison should get it; else asyncio."""
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return "asyncio"
    return "uvloop"


def environment(loop: str | None = None) -> dict[str, Any]:
    """The machine and the interpreter: a figure means nothing without them.

    `load_average` is the 1, 5 and 15 minute load at the time of the call; above the number of cores,
    do not trust the run. `loop` names the event loop that the benchmark used.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cores": os.cpu_count(),
        "cores_usable": len(affinity(0)) if affinity else os.cpu_count(),
        "cpu": _cpu_model(),
        "event_loop": loop or default_loop(),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def noise(loop: str = "asyncio", repetitions: int = 200) -> dict[str, Any]:
    """How far this machine, now, is from quiet: the floor under every p99 measured here. About a second.

    `busy`: one fixed pure-Python loop of about 1 ms, `repetitions` times. p99/median is near 1 on a quiet
    machine; at 2, every second figure may be another process's doing.
    `timer_lag`: how late `asyncio.sleep(0.002)` comes back, 100 times. uvloop's clock has steps of 1 ms.
    """
    steps = _steps_per_millisecond()
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        _spin(steps)
        times.append(time.perf_counter() - began)
    busy = summary(times)
    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        lags = runner.run(_timer_lags(0.002, 100))
    return {
        "busy": busy,
        "busy_p99_over_median": round(busy["p99"] / busy["median"], 3),
        "timer_lag": summary(lags),
        "timer_loop": loop,
    }


def emit(result: dict[str, Any]) -> None:
    """Print one JSON document on stdout, keys sorted so that two runs can be compared line by line."""
    json.dump(result, sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")


def _spin(steps: int) -> int:
    total = 0
    for step in range(steps):
        total += step & 7
    return total


def _steps_per_millisecond() -> int:
    # The quickest of five: a slow one would make every later repetition look fast.
    steps = 10_000
    best = math.inf
    for _ in range(5):
        began = time.perf_counter()
        _spin(steps)
        best = min(best, time.perf_counter() - began)
    return max(1, round(steps * 0.001 / best))


async def _timer_lags(delay: float, times: int) -> list[float]:
    lags = []
    for _ in range(times):
        began = time.perf_counter()
        await asyncio.sleep(delay)
        lags.append(time.perf_counter() - began - delay)
    return lags


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


if __name__ == "__main__":
    emit({"environment": environment(), "noise": {name: noise(name) for name in {"asyncio", default_loop()}}})
