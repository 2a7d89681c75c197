"""CPU time of the server's process for each second of a call, with 1, 10 and 30 calls at once, in real time.

The agent is `benchmarks.agent`; the callers are those of `benchmarks.load`, in a process of their own: each
talks and is quiet in turn and interrupts every answer, so a call is VAD on all of its audio, an answer of
0.3 s and a barge-in every 1.1 s. Nothing of that is lighter than a real call, except that nobody listens.

CPU time is that of the server's whole process, user and system, all threads (`/proc/PID/schedstat` of each,
in nanoseconds), from 1.5 s after the last call was put through until 1.5 s before the first one hangs up:
neither the start of a call nor its end is in it. `cpu_ms_per_call_s` = CPU milliseconds / (seconds x
calls). `cores` is what share of one core the process used. Linux only.

The peer's bot is measured in the same way by `benchmarks.peers.pipecat_calls`, with `measure_calls` of this
file.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from benchmarks.clear_driver import FRAME_SECONDS, ROUND_FRAMES
from benchmarks.load import Place, others
from benchmarks.measure import default_loop

CALLS = (1, 10, 30)
MARGIN = 1.5
CONNECT = 1.5
"""Seconds that the callers' process takes to start."""


async def measure_calls(pid: int, places: list[Place], rounds: int) -> dict[str, Any]:
    """Calls all `places` at once for `rounds` rounds of 1.1 s; what process `pid` used meanwhile."""
    seconds = rounds * ROUND_FRAMES * FRAME_SECONDS
    loop = asyncio.get_running_loop()
    async with others(places, rounds) as load:
        await asyncio.sleep(CONNECT + ROUND_FRAMES * FRAME_SECONDS + MARGIN)
        cpu, at = cpu_seconds(pid), loop.time()
        await asyncio.sleep(seconds - CONNECT - ROUND_FRAMES * FRAME_SECONDS - 2 * MARGIN)
        used, took = cpu_seconds(pid) - cpu, loop.time() - at
    return {
        "cpu_ms_per_call_s": round(used / took / len(places) * 1e3, 3),
        "cores": round(used / took, 4),
        "seconds": round(took, 1),
        "load": load.report,
    }


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, its live threads together."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def run(calls: tuple[int, ...] = CALLS, rounds: int = 15, loop: str | None = None) -> dict[str, Any]:
    """For each number of calls `rounds` rounds of 1.1 s, as a dict for JSON. About a minute.

    `rounds` at least 8. `loop` is the agent's event loop.
    """
    loop = loop or default_loop()
    return {
        "benchmark": "calls",
        "event_loop": loop,
        "setups": {f"{count} calls": asyncio.run(_measure(count, rounds, loop)) for count in calls},
        "targets": [],
    }


async def _measure(count: int, rounds: int, loop: str) -> dict[str, Any]:
    from benchmarks.agent import running  # the peer's interpreter imports this file without voiceflow

    async with running(loop=loop) as agent:
        places = [await agent.dial(f"CA{number:032x}") for number in range(1, count + 1)]
        return await measure_calls(agent.pid, places, rounds)


def main() -> None:
    from benchmarks.chain import finish, ours

    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--calls", type=int, nargs="*", default=list(CALLS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    finish({**run(tuple(options.calls), options.rounds, options.loop), "ours": ours()}, options.loop)


if __name__ == "__main__":
    main()
