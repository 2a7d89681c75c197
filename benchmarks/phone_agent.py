"""voiceflow's phone agent in a process of its own: `python -m benchmarks.phone_agent`.

The chain of `pipelines/phone_agent.py` as `voiceflow run` serves it - Server, Listener, TwilioRoutes - with
the greeting that the other bots have. It writes no log and no trace file. Vendors' addresses and keys come
from the environment; stdout has one line, the URL. `GET /bench/paths` gives the parts of each reply's path
as the call's own trace has them, in milliseconds, of the calls since the last time, `GET /bench/calls` the
histories and figures of those. `--eager` is Flux's threshold for drafts.

With `--tools` the model is offered three, each of which takes 50 ms; `GET /bench/uses` says when each use
began and ended by the function's own clock, since the last time.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

from aiohttp import web
from loguru import logger

from benchmarks.measure import default_loop, new_loop
from processors.elevenlabs import ElevenLabsTTS
from processors.flux import FluxSTT
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from processors.speech_text import SpeechText
from processors.twilio.codec import TwilioCodec
from processors.twilio.routes import TwilioRoutes
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.server.listener import Listener, settle, until_stopped, warm
from voiceflow.server.server import Server, Settings
from voiceflow.tools import Tool, tool
from voiceflow.trace.path import Path

GREETING = "Hi."
INSTRUCTIONS = "You answer the phone. Be brief."


TAKES = 0.05
"""Seconds that a tool takes."""


class Tools:
    """Tools that note when they run: `time.perf_counter`, which is the vendors' clock too."""

    def __init__(self) -> None:
        self.uses: list[tuple[float, float]] = []

    def all(self) -> list[Tool]:
        return [self.look_up, self.book, self.find]

    @tool(effect="read")
    async def look_up(self, day: str) -> str:
        """Says when we are open."""
        return await self._wait(day)

    @tool(effect="commit")
    async def book(self, day: str) -> str:
        """Books a table."""
        return await self._wait(day)

    @tool(effect="read")
    def find(self, day: str) -> str:
        """Looks something up, in a thread."""
        began = time.perf_counter()
        time.sleep(TAKES)
        self.uses.append((began, time.perf_counter()))
        return day

    async def _wait(self, day: str) -> str:
        began = time.perf_counter()
        await asyncio.sleep(TAKES)
        self.uses.append((began, time.perf_counter()))
        return day

    async def told(self, request: web.Request) -> web.Response:
        uses, self.uses = self.uses, []
        return web.json_response(uses)


class PhoneAgent:
    """What the server runs."""

    def __init__(self, tools: list[Tool], eager: float | None = None) -> None:
        self.tools, self.eager = tools, eager
        self.paths: list[Path] = []  # until somebody asks, as are the next
        self.calls: list[dict[str, Any]] = []

    def make(self, call: Call) -> Pipeline:
        call.on_end(self.over)
        return Pipeline(
            call.source(),
            FluxSTT(eager_eot_threshold=self.eager),
            ChatLLM(instructions=INSTRUCTIONS, greeting=GREETING, tools=self.tools),
            SentenceAggregator(),
            SpeechText(),
            ElevenLabsTTS(),
            call.sink(),
        )

    def over(self, call: Call) -> None:
        self.paths.extend(call.trace.paths)
        history = [entry.content for entry in call.history.messages]
        self.calls.append({"history": history, "figures": call.figures()})

    async def told_calls(self, request: web.Request) -> web.Response:
        calls, self.calls = self.calls, []
        return web.json_response(calls)

    async def told(self, request: web.Request) -> web.Response:
        paths: list[dict[str, Any]] = [
            {
                "turn": path.turn,
                "parts": [
                    {"step": part.step.value, "owner": part.owner, "ms": part.microseconds / 1000}
                    for part in path.parts()
                ],
            }
            for path in self.paths
        ]
        self.paths.clear()
        return web.json_response(paths)


async def serve(with_tools: bool, eager: float | None) -> None:
    """Serves on a free port of 127.0.0.1 until SIGTERM."""
    tools = Tools()
    agent = PhoneAgent(tools.all() if with_tools else [], eager)
    server = Server(agent, Settings(drain=0.5, seed=0))
    await warm(agent, TwilioCodec(), server)
    settle()  # as `voiceflow run` does
    told = [
        web.get("/bench/paths", agent.told),
        web.get("/bench/calls", agent.told_calls),
        web.get("/bench/uses", tools.told),
    ]
    routes = [*TwilioRoutes(server, auth_token=None).routes(), *told]
    async with Listener(server, routes, host="127.0.0.1", port=0) as listener:
        print(listener.url, flush=True)
        await until_stopped(server)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    parser.add_argument("--tools", action="store_true", help="offer tools to the model")
    parser.add_argument("--eager", type=float, help="Flux's eager_eot_threshold; by default no drafts")
    options = parser.parse_args()
    logger.remove()
    with asyncio.Runner(loop_factory=lambda: new_loop(options.loop)) as runner:
        runner.run(serve(options.tools, options.eager))


if __name__ == "__main__":
    main()
