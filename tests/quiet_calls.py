"""What the tests of silence, keys and endings share: a model, a hand to push frames, the line's sounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from tests.engine.engine_calls import Phone, Speaker, settled
from voiceflow.engine.processor import Processor, on
from voiceflow.frames import AudioOut, Frame, Prompt, ReplyEnd, Sentence, Token, Transcript


class Hand(Processor):
    """Pushes what the test gives it."""

    needs = ()
    emits = (Frame, Token, Transcript)


class Voice(Speaker):
    """Speaker, for text that may be protected."""

    @on(Sentence)
    def speak(self, sentence: Sentence) -> Iterator[AudioOut]:
        first, *rest = super().speak(sentence)
        yield replace(first, protected=sentence.protected)
        yield from rest


class Model(Processor):
    """Answers every Prompt with its words, after a while."""

    needs = (Prompt,)
    emits = (Sentence, ReplyEnd)

    def __init__(self, seconds: float = 1.0, text: str = "an answer.") -> None:
        self.seconds, self.text = seconds, text
        self.prompts: list[Prompt] = []

    @on(Prompt)
    async def answer(self, prompt: Prompt) -> AsyncIterator[Sentence | ReplyEnd]:
        self.prompts.append(prompt)
        await asyncio.sleep(self.seconds)
        if self.text:
            yield Sentence(self.text)
        yield ReplyEnd()


def now() -> float:
    return asyncio.get_running_loop().time()


async def until(at: float) -> None:
    """Waits for that time of the loop."""
    await asyncio.sleep(at - now())


def said(p: Phone) -> list[str]:
    """What the agent was heard to say."""
    return [m.content for m in p.call.history.messages if m.role == "assistant"]


def words(p: Phone) -> list[str]:
    """What the caller said."""
    return [m.content for m in p.call.history.messages if m.role == "user"]


def sounds(p: Phone) -> list[float]:
    """When the agent began to be heard after a silence."""
    begins, free = [], -1.0
    for at, message in p.carrier.wire:
        if message == "clear":
            free = at
        if isinstance(message, bytes):
            if at > free + 1e-6:
                begins.append(round(at, 6))
                free = at
            free += len(message) / 8000
    return begins


def is_over(p: Phone) -> bool:
    assert p.call._over is not None
    return p.call._over.done()


async def over(p: Phone) -> float:
    """Waits for the call's end; when that was."""
    assert p.call._over is not None
    await asyncio.shield(p.call._over)
    return now()


async def press(p: Phone, keys: str) -> None:
    """The caller presses them, all at once."""
    for key in keys:
        p.link.peer.send(f"digit {key}")
    await settled()
