"""voiceflow's phone agent in a process of its own: `python -m benchmarks.phone_agent`.

The chain of `pipelines/phone_agent.py` as `voiceflow run` serves it - Server, Listener, TwilioRoutes - with
the greeting that the other bots have. It writes no log and no trace file. Vendors' addresses and keys come
from the environment; stdout has one line, the URL. `GET /bench/paths` gives the parts of each reply's path
as the call's own trace has them, in milliseconds, of the calls since the last time.
"""

from __future__ import annotations

import argparse
import asyncio
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
from voiceflow.trace.path import Path

GREETING = "Hi."
INSTRUCTIONS = "You answer the phone. Be brief."


class PhoneAgent:
    """What the server runs."""

    def __init__(self) -> None:
        self.paths: list[Path] = []

    def make(self, call: Call) -> Pipeline:
        call.on_end(lambda call: self.paths.extend(call.trace.paths))
        return Pipeline(
            call.source(),
            FluxSTT(),
            ChatLLM(instructions=INSTRUCTIONS, greeting=GREETING),
            SentenceAggregator(),
            SpeechText(),
            ElevenLabsTTS(),
            call.sink(),
        )

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


async def serve() -> None:
    """Serves on a free port of 127.0.0.1 until SIGTERM."""
    agent = PhoneAgent()
    server = Server(agent, Settings(drain=0.5, seed=0))
    await warm(agent, TwilioCodec(), server)
    settle()  # as `voiceflow run` does
    routes = [*TwilioRoutes(server, auth_token=None).routes(), web.get("/bench/paths", agent.told)]
    async with Listener(server, routes, host="127.0.0.1", port=0) as listener:
        print(listener.url, flush=True)
        await until_stopped(server)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    logger.remove()
    with asyncio.Runner(loop_factory=lambda: new_loop(options.loop)) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
