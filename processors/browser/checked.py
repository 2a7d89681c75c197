"""The chain of a pipeline file as the page shows it, and as it runs when a browser calls.

What the file declares is shown. What runs has two more processors in front of its sink, which only look:

    call.source() ─▶ ... ─▶ Recording ─▶ Screen ─▶ call.sink()
                            unless the file has one, or --redact
"""

from __future__ import annotations

import asyncio
from typing import Any

from processors.browser.codec import BrowserCodec
from processors.browser.screen import BrowserCall, Screen
from processors.browser.shelf import Shelf
from processors.recording import Recording
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.errors import VoiceflowError
from voiceflow.server.listener import warm
from voiceflow.server.server import Agent, Server

WARMING = 15.0
"""Seconds that loading models and dialling vendors for this line may take before the page is told anyway."""


class BrowserAgent:
    """Makes pipelines as `agent` does; for calls from a browser with a recorder and a screen."""

    def __init__(self, agent: Agent, shelf: Shelf) -> None:
        self.agent = agent
        self._shelf = shelf

    def make(self, call: Call) -> Pipeline:
        pipeline = self.agent.make(call)
        to, sink = call.carrier, pipeline.sink
        if not isinstance(to, BrowserCall) or sink is None:
            return pipeline
        *chain, last = pipeline.chain
        if not self._shelf.redact and not any(isinstance(each, Recording) for each in chain):
            chain.append(self._shelf.recording(to.id))
        return Pipeline(*chain, Screen(to, sink), last)


class Checked:
    """Whether the file's chain can run on a browser's line. Looked at when somebody opens the page, so that
    nobody pays for it who does not; once at a time."""

    def __init__(self, server: Server, agent: Agent) -> None:
        self._server = server
        self._agent = agent
        self._warming: asyncio.Task[str] | None = None

    async def look(self, called: str = "") -> dict[str, Any]:
        """The chain's names, its warnings, and in `error` why it cannot run; empty when it can."""
        call = Call(BrowserCodec(), id="warm-up", called=called, services=self._server.services)
        try:
            pipeline = self._agent.make(call)
        except VoiceflowError as error:
            return {"chain": [], "authority": -1, "warnings": [], "error": str(error)}
        return {
            "chain": [processor.name for processor in pipeline.chain],
            "authority": pipeline.authority,
            "warnings": pipeline.warnings,
            "error": await self._warm(),
        }

    async def close(self) -> None:
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait([self._warming], timeout=1.0)

    async def _warm(self) -> str:
        """Loads what a call over 16 kHz needs; says what is wrong with that."""
        if self._warming is None or self._warming.done():
            self._warming = asyncio.create_task(self._try(), name="warm for the browser")
        done, _ = await asyncio.wait([self._warming], timeout=WARMING)
        return self._warming.result() if done and not self._warming.cancelled() else ""

    async def _try(self) -> str:
        try:
            await warm(self._agent, BrowserCodec(), self._server)
        except VoiceflowError as error:
            return str(error)
        return ""
