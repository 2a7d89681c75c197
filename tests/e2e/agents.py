"""The chains that end-to-end tests phone, and what the model says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from processors.aura import AuraTTS
from processors.elevenlabs import ElevenLabsTTS
from processors.flux import FluxSTT
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from tests.vendors.openai import FakeOpenAI
from tests.vendors.server import OPENAI_KEY, Vendors
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, tap
from voiceflow.frames import AudioIn, VoiceStart, VoiceStop

GREETING = "Good day, this is the bakery."
ANSWERS = [
    "We open at nine. Would you like to order something nice today?",
    "Sure, one loaf of rye. Anything else that we can get for you, perhaps a cake?",
    "No problem at all. We also have a few pies left, still warm from the oven.",
    "That is noted. Shall I read it all back to you, so that nothing is wrong?",
    "Well, then. It will be ready for you at four. Is there a name for the order?",
]
COUGH = b"\x10" * 20 + b"\x90" * 20
"""Sound that is no character: the fake recogniser hears nothing in it."""


class Loudness(Processor):
    """A detector of voice for callers who spell: any sound of 40 ms is one, until 200 ms of silence."""

    emits = (VoiceStart, VoiceStop)

    def __init__(self) -> None:
        self.loud = self.quiet = 0
        self.voice = False

    @tap(AudioIn)
    def listen(self, frame: AudioIn) -> None:
        sound = bool(frame.audio.strip(b"\xff\x7f"))
        self.loud, self.quiet = (self.loud + 1, 0) if sound else (0, self.quiet + 1)
        end = frame.at + frame.samples
        if self.loud == 2 and not self.voice:
            self.voice = True
            self.push(VoiceStart(end - 320, decided_at=end))
        elif self.quiet == 10 and self.voice:
            self.voice = False
            self.push(VoiceStop(end - 1600, decided_at=end))


def spoken(voice: str = "elevenlabs", **llm: Any) -> Any:
    """`make(call)` of an agent whose voice is that vendor's."""

    def make(call: Call) -> Pipeline:
        return Pipeline(
            call.source(),
            FluxSTT(),
            ChatLLM(instructions="You sell bread.", greeting=GREETING, **llm),
            SentenceAggregator(),
            ElevenLabsTTS() if voice == "elevenlabs" else AuraTTS(),
            call.sink(),
        )

    return make


def answer(messages: list[Any]) -> str:
    """The same turn gets the same answer, however often it is asked."""
    return ANSWERS[(sum(m["role"] == "user" for m in messages) - 1) % len(ANSWERS)]


def vendors(**settings: Any) -> Vendors:
    """Fakes whose model gives ANSWERS in turn, at about a phone agent's pace."""
    llm = settings.pop("llm", None) or FakeOpenAI(key=OPENAI_KEY, reply=answer, ttft=0.1, gap=0.01)
    return Vendors(llm=llm, **settings)


@contextmanager
def environment(of: Vendors) -> Iterator[None]:
    """The keys and addresses of the fakes, as if they stood in .env."""
    before = dict(os.environ)
    os.environ.update(of.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
