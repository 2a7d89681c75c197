"""CPU seconds per call-second of the VAD-only bot in pipecat 1.14, with 1, 10 and 30 calls at once.

The bot is that of `pipecat_vad_bot`, lean set-up. pipecat's WebSocket server takes one client, so a process
has one server, on a port of its own, for each call: all in one event loop, as many calls would be in one
worker. (In pipecat's own examples each call often gets a whole process; that would cost more memory, and no
less CPU.) The callers, the window and the arithmetic are those of `benchmarks.calls`.

`agent_audio_s` and `clears` of `load` say whether the bots still did their work; `pacing_lag_ms` whether the
callers got to theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.calls import CALLS, measure_calls
from benchmarks.clear_driver import CALL_SID, STREAM_SID
from benchmarks.load import Place
from benchmarks.measure import default_loop, emit, environment, new_loop, noise
from benchmarks.peers.pipecat_session import SETUPS, peer
from benchmarks.peers.pipecat_vad_bot import ROOT, serve

READY = b"ready\n"
START_DEADLINE = 120.0
STOP_DEADLINE = 15.0


async def serve_all(ports: list[int], setup: str) -> None:
    """A bot on each port of 127.0.0.1, until every caller has hung up."""
    await asyncio.gather(*(serve(port, setup) for port in ports))


@contextlib.asynccontextmanager
async def bots(count: int, setup: str, loop: str) -> AsyncIterator[tuple[int, list[Place]]]:
    """A process with `count` bots that listen: its id and where to call."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(
            "-m",
            "benchmarks.peers.pipecat_calls",
            "--setup",
            setup,
            "--loop",
            loop,
            "--serve",
            *map(str, ports),
        ),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_DEADLINE):
            for _ in range(count):
                if await process.stdout.readline() != READY:
                    raise RuntimeError("the bots did not start")
        start = {"callSid": CALL_SID, "streamSid": STREAM_SID}
        yield process.pid, [(f"ws://127.0.0.1:{port}/", start) for port in ports]
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_DEADLINE):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


def run(
    calls: tuple[int, ...] = CALLS, rounds: int = 15, setup: str = "lean", loop: str | None = None
) -> dict[str, Any]:
    """For each number of calls `rounds` rounds of 1.1 s, as a dict for JSON. About 90 s."""
    loop = loop or default_loop()
    return {
        "benchmark": "calls",
        "peer": peer(),
        "event_loop": loop,
        "setup": setup,
        "setups": {f"{count} calls": asyncio.run(_measure(count, rounds, setup, loop)) for count in calls},
    }


async def _measure(count: int, rounds: int, setup: str, loop: str) -> dict[str, Any]:
    async with bots(count, setup, loop) as (pid, places):
        return await measure_calls(pid, places, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--calls", type=int, nargs="*", default=list(CALLS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--setup", choices=list(SETUPS), default="lean")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    parser.add_argument("--serve", type=int, nargs="+", metavar="PORT", help="run the bots alone")
    options = parser.parse_args()
    if options.serve is not None:
        with asyncio.Runner(loop_factory=lambda: new_loop(options.loop)) as runner:
            runner.run(serve_all(options.serve, options.setup))
        return
    result = run(tuple(options.calls), options.rounds, options.setup, options.loop)
    emit({**result, "environment": environment(options.loop), "noise": noise(options.loop)})


if __name__ == "__main__":
    main()
