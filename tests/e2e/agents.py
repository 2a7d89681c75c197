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

GREETING = "Good day, this is the bakery."
ANSWERS = [
    "We open at nine. Would you like to order something nice today?",
    "Sure, one loaf of rye. Anything else that we can get for you, perhaps a cake?",
    "No problem at all. We also have a few pies left, still warm from the oven.",
    "That is noted. Shall I read it all back to you, so that nothing is wrong?",
    "Well, then. It will be ready for you at four. Is there a name for the order?",
]


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
