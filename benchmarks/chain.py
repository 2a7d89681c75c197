"""A live call in memory for the benchmarks beside this file: the engine as it is, without a socket.

The log has no sink here, as in the peer's session: nothing is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from loguru import logger

from benchmarks.measure import default_loop, emit, environment, noise
from voiceflow import __version__
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor
from voiceflow.engine.pump import Pump
from voiceflow.frames import PHONE, Frame
from voiceflow.line.codec import LineStarted
from voiceflow.testing.line import MemoryCodec

CLEAR = MemoryCodec().clear()
START_DEADLINE = 10.0


class Wire:
    """The carrier's end: what was sent, and when. Nothing ever comes from it."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, str | bytes]] = []
        self._over = asyncio.Event()

    async def send(self, message: str | bytes) -> None:
        self.sent.append((time.perf_counter(), message))

    async def receive(self) -> str | bytes | None:
        await self._over.wait()
        return None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._over.set()


class Live:
    """A call whose frames flow. `send` gives a frame to the processor at position `to`."""

    def __init__(self, call: Call, pump: Pump, wire: Wire) -> None:
        self.call = call
        self.wire = wire
        self._pump = pump

    def send(self, frame: Frame, to: int = 0) -> None:
        self._pump.inject(frame, to - 1)


@contextlib.asynccontextmanager
async def live(*processors: Processor, with_sink: bool = False) -> AsyncIterator[Live]:
    """A started call of `processors`, with the real sink behind them if asked; closed afterwards.

    Raises RuntimeError when the call failed meanwhile: its figures would mean nothing.
    """
    call, wire = Call(MemoryCodec(), seed=0), Wire()
    sink = (call.sink(),) if with_sink else ()
    call.prepare(Pipeline(*processors, *sink, parts=True))
    started = asyncio.Event()
    call.on_start(lambda _: started.set())
    running = asyncio.create_task(call.run(wire, LineStarted("bench", call.id, PHONE)))
    try:
        async with asyncio.timeout(START_DEADLINE):
            await started.wait()
        assert call._pump is not None
        yield Live(call, call._pump, wire)
    finally:
        call.end("benchmark over")
        result = await running
        await call.services.close()
    if result.fault is not None:
        raise RuntimeError(f"the call failed: {result.fault}")


def ours() -> dict[str, str]:
    """Name and version of what is measured."""
    return {"name": "voiceflow", "version": __version__}


def target(name: str, value: float | None, at_most: float, unit: str) -> dict[str, Any]:
    """One of the project's targets, and whether this run met it. A value of None counts as missed."""
    met = value is not None and value <= at_most
    return {"name": name, "value": value, "at_most": at_most, "unit": unit, "met": met}


def finish(result: dict[str, Any], loop: str | None = None) -> None:
    """Prints a benchmark's result with the machine and its noise beside it."""
    loop = loop or default_loop()
    emit({**result, "environment": environment(loop), "noise": noise(loop)})


logger.remove()
