"""Round numbers for an axis."""

from __future__ import annotations

import math


def ticks(longest: float, most: int) -> list[float]:
    """From 0 to `longest` in steps of 1, 2 or 5 times a power of ten, at most `most` of them after 0."""
    if longest <= 0:
        return [0.0]
    power = math.floor(math.log10(longest / most))
    steps = (round(times * 10.0**power, 12) for power in (power, power + 1) for times in (1, 2, 5))
    every = next((step for step in steps if step > 0 and longest / step <= most), longest)
    return [number * every for number in range(int(longest / every + 1e-9) + 1)]
