"""A caller for tests of FluxSTT: speaks audio that spells itself, 20 ms at a time, into a rig."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from loguru import logger

from processors.flux import FluxSTT
from tests.vendors import spelled
from tests.vendors.flux import FakeFlux
from voiceflow.engine.processor import Processor
from voiceflow.frames import AudioIn, Transcript, TurnEnd, TurnStart
from voiceflow.services import Services
from voiceflow.testing import Rig

PACKET = 160
SILENCE = b"\xff" * PACKET
KEY = "dg-5ecret-key"


class Caller:
    """`at` is the sample that the next packet begins with."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.at = 0

    def packet(self, audio: bytes = SILENCE) -> None:
        self.rig.push(AudioIn(audio, self.at))
        self.at += len(audio)

    async def hear(self, audio: bytes) -> None:
        """The line brings this audio, packet by packet, in real time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for n, first in enumerate(range(0, len(audio), PACKET), start=1):
            self.packet(audio[first : first + PACKET])
            await asyncio.sleep(began + n * 0.02 - loop.time())

    async def say(self, text: str, pause: float = 0.0) -> None:
        await self.hear(spelled.spell(text))
        if pause:
            await self.quiet(pause)

    async def quiet(self, seconds: float) -> None:
        await self.hear(b"\xff" * round(seconds * 8000))


def flux_rig(flux: FakeFlux, *before: Processor, **options: Any) -> Rig:
    """FluxSTT on a fake in memory."""
    options = {"api_key": KEY, "base_url": "ws://flux.test", **options}
    return Rig(*before, FluxSTT(**options), services=Services(dial=flux.dial))


def stt(rig: Rig) -> FluxSTT:
    found = rig.processors[-1]
    assert isinstance(found, FluxSTT)
    return found


def turns(rig: Rig) -> list[str]:
    """The words of every turn that ended. No turn began twice, or ended without a beginning."""
    marks = [frame for frame in rig.out if isinstance(frame, TurnStart | TurnEnd)]
    kinds = [type(frame) for frame in marks]
    assert kinds[::2] == [TurnStart] * len(kinds[::2])
    assert kinds[1::2] == [TurnEnd] * len(kinds[1::2])
    return [frame.text for frame in marks if isinstance(frame, TurnEnd)]


def transcripts(rig: Rig, *, final: bool) -> list[str]:
    return [frame.text for frame in rig.got(Transcript) if frame.final is final]


async def until(happened: Callable[[], bool]) -> None:
    """Waits, as long as the test may take, looking every 10 ms."""
    while True:
        if happened():
            return
        await asyncio.sleep(0.01)


@contextmanager
def logged() -> Iterator[list[str]]:
    """Every line that is logged, with all that belongs to it."""
    lines: list[str] = []
    sink = logger.add(
        lambda line: lines.append(str(line)), level=0, format="{level} {message} {extra} {exception}"
    )
    try:
        yield lines
    finally:
        logger.remove(sink)
