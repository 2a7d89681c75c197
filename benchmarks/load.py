"""Other callers, from a process of their own, so that they disturb the machine and not the one measured.

`python -m benchmarks.load --rounds N URL CALL STREAM [URL CALL STREAM ...]`: each URL is a media WebSocket
with the callSid and streamSid to give in `start`. Every caller is `clear_driver.drive`: real time, talking
and quiet in turn, barging in; they begin spread over one round, so that they do not all speak at once. One
line of JSON at the end: what they did together, and how late this process was with its messages.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.clear_driver import FRAME_SECONDS, ROUND_FRAMES, Wire, caller_audio, drive, pacing_lags
from benchmarks.measure import default_loop, new_loop, summary

ROOT = Path(__file__).resolve().parents[1]
DEADLINE = 30.0

Place = tuple[str, dict[str, Any]]
"""A media WebSocket's URL and what `start` must say there."""


async def drive_all(places: Sequence[Place], rounds: int) -> list[Wire]:
    """One caller for each place, all at once."""
    payloads = caller_audio(rounds)
    spread = ROUND_FRAMES * FRAME_SECONDS / len(places)

    async def one(number: int, place: Place) -> Wire:
        await asyncio.sleep(number * spread)
        return await drive(place[0], payloads, start=place[1])

    return await asyncio.gather(*(one(number, place) for number, place in enumerate(places)))


class Load:
    """The other process. `report` is there once the block has ended."""

    def __init__(self, calls: int) -> None:
        self.report: dict[str, Any] = {"calls": calls}


@contextlib.asynccontextmanager
async def others(places: Sequence[Place], rounds: int) -> AsyncIterator[Load]:
    """`places` called for `rounds` rounds of 1.1 s, from now on. The block ends when the last has hung up."""
    load = Load(len(places))
    if not places:
        yield load
        return
    flat = [word for url, start in places for word in (url, start["callSid"], start["streamSid"])]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.load", "--rounds", str(rounds), *flat),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield load
        async with asyncio.timeout(rounds * ROUND_FRAMES * FRAME_SECONDS + DEADLINE):
            out, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"the other callers failed with exit code {process.returncode}")
        load.report |= json.loads(out)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("places", nargs="+", metavar="URL CALL STREAM")
    options = parser.parse_args()
    words = iter(options.places)
    places = [
        (url, {"callSid": call, "streamSid": sid}) for url, call, sid in zip(words, words, words, strict=True)
    ]
    with asyncio.Runner(loop_factory=lambda: new_loop(default_loop())) as runner:
        wires = runner.run(drive_all(places, options.rounds))
    lags = [lag for wire in wires for lag in pacing_lags(wire.sent_at)]
    report = {
        "clears": sum(len(wire.cleared_at) for wire in wires),
        "agent_audio_s": round(sum(wire.media_seconds for wire in wires), 1),
        "pacing_lag_ms": summary(lags),
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
