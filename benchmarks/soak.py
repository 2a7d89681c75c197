"""A thousand calls one after another in one process, over real sockets: memory and tasks must stay flat.

The agent is `benchmarks.agent` in a process of its own; the caller is the simulated Twilio caller that
comes with voiceflow, in this one, on a clock ten times as fast, so that a call of 1.4 s takes a tenth of
that. Every call: the webhook, its TwiML, the stream, the caller talks, is answered after 0.2 s of
quiet, and talks into the answer (a barge-in). Then, of every ten calls,

    seven hang up · one cuts the TCP connection in the middle of the answer · one cuts it while it talks
    · one has a processor that raises, is ended by the server, and asks what comes next

Before the first call and after every hundred the agent tells its memory (resident, and anonymous), asyncio
tasks, threads, open files and live objects, after a full garbage collection. `slope` is a straight line
through the series from the first hundred on, in KiB of memory and in objects per call. The agent keeps the
outcome of its last 10,000 calls by design (the carrier asks for it after the stream): that is in the slope,
and it is bounded.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from typing import Any

from benchmarks.agent import FAULTY, Agent, running
from benchmarks.chain import finish, ours, target
from benchmarks.clear_driver import QUIET_FRAMES, TALK_FRAMES, caller_audio
from benchmarks.measure import default_loop
from processors.twilio.simulated.caller import SimulatedCaller
from voiceflow.audio import decode
from voiceflow.errors import LinkError
from voiceflow.frames import PHONE

SPEED = 10.0
EVERY = 100
SETTLE_DEADLINE = 20.0
GROWTH_AT_MOST = 2.0
"""Percent that resident memory may grow from the hundredth call to the last."""
TALK = decode(b"".join(caller_audio(1)[QUIET_FRAMES : QUIET_FRAMES + TALK_FRAMES]), PHONE)


async def call(agent: Agent, number: int) -> str:
    """One call; returns how it went."""
    way = ("hangs up", "dies in the answer", "dies while talking", "a processor raises")[
        max(0, number % 10 - 6)
    ]
    called = {"called": FAULTY} if way == "a processor raises" else {}
    async with SimulatedCaller(agent.voice, speed=SPEED, timeout=5.0, **called) as caller:
        await caller.say(TALK)
        await caller.wait_for("agent heard", timeout=5.0)
        if way == "dies in the answer":
            await caller.die()
            return way
        try:
            await caller.say(TALK)
        except LinkError:
            if way != "a processor raises":
                raise
        if way == "dies while talking":
            await caller.die()
        elif way == "a processor raises":
            await caller.wait_for("stream closed by server", timeout=5.0)
        else:
            await caller.wait_for("clear received", timeout=5.0)
            await caller.hang_up()
    return way


async def soak(calls: int, loop: str) -> dict[str, Any]:
    ways: dict[str, int] = {}
    failures: list[str] = []
    async with running(loop=loop) as agent:
        began = asyncio.get_running_loop().time()
        first_types: dict[str, int] = {}
        series = [{"calls": 0, **await settled(agent)}]
        for number in range(1, calls + 1):
            try:
                way = await call(agent, number)
                ways[way] = ways.get(way, 0) + 1
            except (LinkError, TimeoutError) as error:
                failures.append(f"call {number}: {type(error).__name__}: {error}"[:300])
            if number % EVERY == 0:
                series.append({"calls": number, **await settled(agent)})
                print(series[-1], file=sys.stderr, flush=True)
            if number == EVERY:
                first_types = (await agent.state(types=True))["types"]
        seconds = asyncio.get_running_loop().time() - began
        last_types = (await agent.state(types=True))["types"]
    grown = {name: count - first_types.get(name, 0) for name, count in last_types.items()}
    return {
        "series": series,
        "seconds": round(seconds, 1),
        "ways": ways,
        "failures": failures,
        "objects_grown": dict(sorted(grown.items(), key=lambda item: -item[1])[:12]),
    }


async def settled(agent: Agent) -> dict[str, Any]:
    """The agent's state once the last call's clean-up is over (the line's death is noticed late)."""
    async with asyncio.timeout(SETTLE_DEADLINE):
        while True:
            async with agent._http.get(agent.url + "/healthz") as answer:
                if not (await answer.json())["calls"]:
                    return await agent.state()
            await asyncio.sleep(0.05)


def run(calls: int = 1000, loop: str | None = None) -> dict[str, Any]:
    """`calls` calls, at least 300, as a dict for JSON. About 3 minutes for a thousand."""
    loop = loop or default_loop()
    result = asyncio.run(soak(calls, loop))
    after = [row for row in result["series"] if row["calls"] >= EVERY]
    growth = max(_growth(after, "rss_kib"), _growth(after, "anonymous_kib"))
    tasks = max(row["tasks"] for row in after) - min(row["tasks"] for row in after)
    return {
        "benchmark": "soak",
        "ours": ours(),
        "event_loop": loop,
        "calls": calls,
        **result,
        "slope": {
            f"{what}_per_call": _slope(after, what) for what in ("rss_kib", "anonymous_kib", "objects")
        },
        "rss_growth_percent": round(growth, 2),
        "targets": [
            target(
                "resident memory grown after the first hundred calls", round(growth, 2), GROWTH_AT_MOST, "%"
            ),
            target("tasks more or fewer after the first hundred calls", tasks, 0, "tasks"),
            target("calls that did not go as they should", len(result["failures"]), 0, "calls"),
        ],
    }


def _growth(rows: list[dict[str, Any]], what: str) -> float:
    """Percent from the first row to the last."""
    return float((rows[-1][what] - rows[0][what]) / rows[0][what] * 100)


def _slope(rows: list[dict[str, Any]], what: str) -> float:
    if len(rows) < 2:
        return 0.0
    line = statistics.linear_regression([row["calls"] for row in rows], [row[what] for row in rows])
    return round(line.slope, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    finish(run(options.calls, options.loop), options.loop)


if __name__ == "__main__":
    main()
