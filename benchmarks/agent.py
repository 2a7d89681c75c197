"""The agent that the socket benchmarks call, in a process of its own: `python -m benchmarks.agent`.

It is what `voiceflow run` runs - Server, Listener, TwilioRoutes, the chain of `pipelines/vad_only.py` - with
two differences: the turn ends after 0.2 s of silence instead of 0.6, because the benchmarks' caller is quiet
for 0.6 s only and is to be answered within them; and it writes no log. The answer is the bundled recording of
6.2 s, longer than any of the caller's pauses, so every time the caller speaks it is a barge-in.

A call to FAULTY gets a chain with a processor that raises when the caller's second turn begins.

`GET /bench` tells what is worth watching: memory, tasks, objects. stdout has one line: the URL.
`Agent` starts and stops it from another process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from loguru import logger

from benchmarks.measure import default_loop, new_loop
from processors.play import Play
from processors.silero import SileroVAD
from processors.turns import VADTurns
from processors.twilio.codec import TwilioCodec
from processors.twilio.routes import VOICE, TwilioRoutes
from voiceflow.assets import speech
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, tap
from voiceflow.frames import TurnStart
from voiceflow.server.listener import Listener, until_stopped, warm
from voiceflow.server.server import Server, Settings

ROOT = Path(__file__).resolve().parents[1]
FAULTY = "+12025550666"
START_DEADLINE = 30.0
STOP_DEADLINE = 15.0


class Fails(Processor):
    """Raises when the caller's second turn begins."""

    @tap(TurnStart)
    def turn(self, turn: TurnStart) -> None:
        if turn.turn == 2:
            raise RuntimeError("this processor fails on purpose")


class VadOnly:
    """What the server runs. See the module."""

    def make(self, call: Call) -> Pipeline:
        faulty = [Fails()] if call.called == FAULTY else []
        return Pipeline(
            call.source(),
            SileroVAD(),
            VADTurns(silence=0.2),
            *faulty,
            Play(speech("answer"), text="Thanks for calling."),
            call.sink(),
        )


async def serve(max_calls: int) -> None:
    """Serves on a free port of 127.0.0.1 until SIGTERM."""
    agent = VadOnly()
    server = Server(agent, Settings(max_calls=max_calls, drain=2.0, seed=0))
    await warm(agent, TwilioCodec(), server)
    routes = [*TwilioRoutes(server, auth_token=None).routes(), web.get("/bench", state)]
    async with Listener(server, routes, host="127.0.0.1", port=0) as listener:
        print(listener.url, flush=True)
        await until_stopped(server)


async def state(request: web.Request) -> web.Response:
    """This process, now, after a full collection. `rss_kib` is resident memory, `anonymous_kib` what of it
    is no file's, swapped or not: the kernel may take back the files' part when other processes need memory.
    `tasks` are asyncio's without the one that answers. Linux only. `?types=1` adds how many objects there
    are of each type, the top 60."""
    gc.collect()
    objects = gc.get_objects()
    body: dict[str, Any] = {
        "rss_kib": _memory_kib("VmRSS"),
        "anonymous_kib": _memory_kib("RssAnon", "VmSwap"),
        "tasks": len(asyncio.all_tasks()) - 1,
        "objects": len(objects),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
    }
    if request.query.get("types"):
        counts: dict[str, int] = {}
        for each in objects:
            name = f"{type(each).__module__}.{type(each).__qualname__}"
            counts[name] = counts.get(name, 0) + 1
        body["types"] = dict(sorted(counts.items(), key=lambda item: -item[1])[:60])
    return web.json_response(body)


def _memory_kib(*fields: str) -> int:
    """The sum of these fields of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.partition(":")[0] in fields)


class Agent:
    """A running agent process, seen from outside."""

    def __init__(self, url: str, pid: int, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.pid = pid
        self._http = http

    @property
    def voice(self) -> str:
        """The webhook's URL."""
        return self.url + VOICE

    async def dial(self, call: str) -> tuple[str, dict[str, Any]]:
        """Announces a call with the id `call`: the stream's URL, and what `start` must say of it."""
        form = {"CallSid": call, "From": "+12025550143", "To": "+12025550199"}
        async with self._http.post(self.voice, data=form) as answer:
            twiml = await answer.text()
        found = re.search(r'url="([^"]+)"', twiml)
        if found is None:
            raise RuntimeError(f"the agent did not take the call: {twiml}")
        return found[1], {"callSid": call, "streamSid": f"MZ{call[2:]}"}

    async def state(self, *, types: bool = False) -> dict[str, Any]:
        async with self._http.get(self.url + "/bench", params={"types": "1"} if types else {}) as answer:
            found: dict[str, Any] = await answer.json()
        return found


@contextlib.asynccontextmanager
async def running(max_calls: int = 100, loop: str | None = None) -> AsyncIterator[Agent]:
    """An agent in a process of its own, stopped at the end. RuntimeError when it does not start in 30 s."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.agent", "--max-calls", str(max_calls), "--loop", loop or default_loop()),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_DEADLINE):
            url = (await process.stdout.readline()).decode().strip()
        if not url:
            raise RuntimeError("the agent did not start")
        async with aiohttp.ClientSession() as http:
            yield Agent(url, process.pid, http)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_DEADLINE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-calls", type=int, default=100)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    logger.remove()
    with asyncio.Runner(loop_factory=lambda: new_loop(options.loop)) as runner:
        runner.run(serve(options.max_calls))


if __name__ == "__main__":
    main()
