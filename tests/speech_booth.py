"""A voice, its fake vendor and a rig around them, in virtual time: what the tests of text to speech share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from processors.aura import AuraTTS
from processors.elevenlabs import ElevenLabsTTS
from tests.vendors import spelled
from tests.vendors.aura import FakeAura
from tests.vendors.elevenlabs import FakeElevenLabs
from tests.vendors.speaking import SpeakingVendor
from tests.vendors.voice import from_format
from voiceflow import AudioOut, Interrupt, Reply, ReplyEnd, Sentence
from voiceflow.frames import PHONE, AudioFormat
from voiceflow.services import Services
from voiceflow.speech import TextToSpeech
from voiceflow.testing import Rig

KEY = "sk-very-secret"
VOICES = ["elevenlabs", "aura"]
LOOK = 0.01
"""Seconds between two looks at what came; in virtual time they cost nothing."""


class Booth:
    """One voice, its fake vendor, and a rig around it."""

    def __init__(self, name: str, **settings: Any) -> None:
        fakes: dict[str, type[SpeakingVendor]] = {"elevenlabs": FakeElevenLabs, "aura": FakeAura}
        self.name = name
        self.vendor = fakes[name](key=KEY, **settings)
        self.services = Services(dial=self.vendor.dial)
        self.r: Rig
        self.voice: TextToSpeech

    def make(self) -> TextToSpeech:
        return ElevenLabsTTS(api_key=KEY) if self.name == "elevenlabs" else AuraTTS(api_key=KEY)

    @asynccontextmanager
    async def rig(self, settle: float = 1.0, format: AudioFormat = PHONE) -> AsyncIterator[Rig]:
        self.voice = self.make()
        self.format = format
        async with Rig(self.voice, services=self.services, format=format) as self.r:
            await asyncio.sleep(settle)
            yield self.r

    def speak(self, *texts: str, end: bool = True) -> Reply:
        reply = self.r.reply()
        self.more(reply, *texts, end=end)
        return reply

    def more(self, reply: Reply, *texts: str, end: bool = True) -> None:
        for text in texts:
            self.r.push(Sentence(text, reply=reply))
        if end:
            self.r.push(ReplyEnd(reply=reply))

    def cut(self, reply: Reply) -> None:
        self.r.kill(reply)
        self.r.push(Interrupt(reply))

    def heard(self, reply: Reply) -> list[AudioOut]:
        return [frame for frame in self.r.got(AudioOut) if frame.reply is reply]

    def stretches(self, reply: Reply) -> list[tuple[str, str]]:
        """The texts for the ledger, and what the audio of each spells."""
        found: list[tuple[str, bytes]] = []
        for frame in self.heard(reply):
            if frame.text:
                found.append((frame.text, b""))
            found[-1] = (found[-1][0], found[-1][1] + frame.audio)
        return [(text, spelled.read(audio)) for text, audio in found]

    def text(self, reply: Reply) -> str:
        """What the audio spells."""
        audio = b"".join(f.audio for f in self.heard(reply))
        return squeezed(spelled.read(from_format(audio, self.format)))

    def ended(self, reply: Reply) -> bool:
        """Whether ReplyEnd came, once, and behind all of it."""
        frames = [f for f in self.r.out if getattr(f, "reply", None) is reply]
        ends = [f for f in frames if isinstance(f, ReplyEnd)]
        assert len(ends) < 2
        assert not ends or frames[-1] is ends[0]
        return bool(ends)


def squeezed(*texts: str) -> str:
    return "".join("".join(texts).split())


async def until(true: Callable[[], object], limit: float = 30.0) -> None:
    async with asyncio.timeout(limit):
        while not true():  # noqa: ASYNC110 - see LOOK
            await asyncio.sleep(LOOK)


def now() -> float:
    return asyncio.get_running_loop().time()
