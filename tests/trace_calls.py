"""Calls for the tests of traces: real engine, source and sink in virtual time; a caller, a model and a voice
that are made of delays."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from processors.turns import VADTurns
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.frames import (
    PHONE,
    AudioIn,
    AudioOut,
    CallStart,
    Prompt,
    ReplyEnd,
    Sentence,
    Token,
    VoiceStart,
    VoiceStop,
)
from voiceflow.line.codec import LineStarted, Wire
from voiceflow.record import CallResult
from voiceflow.testing.line import MemoryCodec
from voiceflow.testing.links import ScriptedLink
from voiceflow.vendor import Key

PACKET = 160
RATE = 8000
SECRET = "sk-0123456789abcdef0123456789abcdef"
HANGOVER = 0.2
"""Seconds of silence until the detector says that a voice has stopped."""


class Detector(Processor):
    """A voice is whatever is not silence."""

    needs = (AudioIn,)
    emits = (VoiceStart, VoiceStop)

    def __init__(self) -> None:
        self.last = -1
        self.voice = False

    @tap(AudioIn)
    def listen(self, frame: AudioIn) -> None:
        end = frame.at + frame.samples
        if frame.audio[0] != 0xFF:
            self.last = end
            if not self.voice:
                self.voice = True
                self.push(VoiceStart(frame.at, end))
        elif self.voice and end - self.last >= HANGOVER * RATE:
            self.voice = False
            self.push(VoiceStop(self.last, end))


class Turner(Processor):
    """The turn's authority, moved by the test."""

    takes_turns = True
    emits = (AudioOut, ReplyEnd)


class Model(Processor):
    """Answers each Prompt with the next of its answers, in tokens."""

    needs = (Prompt,)
    emits = (Token, ReplyEnd)

    def __init__(self, *answers: str, first: float = 0.3, between: float = 0.01) -> None:
        self.answers = itertools.cycle(answers or ("Good morning. How can I help you?",))
        self.first, self.between = first, between
        self.keys = (Key("MODEL_API_KEY", "https://example.com", SECRET),)

    @on(Prompt)
    async def answer(self, prompt: Prompt) -> AsyncIterator[Token | ReplyEnd]:
        await asyncio.sleep(self.first)
        for word in next(self.answers).split(" "):
            yield Token(word + " ")
            await asyncio.sleep(self.between)
        yield ReplyEnd()


class Aggregator(Processor):
    """Whole sentences."""

    emits = (Sentence,)

    def __init__(self) -> None:
        self.texts: dict[Any, str] = {}

    @on(Token)
    def collect(self, token: Token) -> Iterator[Sentence]:
        text = self.texts.get(token.reply, "") + token.text
        if text.rstrip().endswith((".", "!", "?")):
            yield Sentence(text.strip())
            text = ""
        self.texts[token.reply] = text

    @on(ReplyEnd)
    def flush(self, end: ReplyEnd) -> Iterator[Sentence | ReplyEnd]:
        if text := self.texts.pop(end.reply, "").strip():
            yield Sentence(text)
        yield end


class Voice(Processor):
    """Speaks a Sentence: 60 ms a character, in pieces of 0.1 s, the first after `first` seconds."""

    needs = (Sentence,)
    emits = (AudioOut,)

    def __init__(self, first: float = 0.15) -> None:
        self.first = first

    @on(Sentence)
    async def speak(self, sentence: Sentence) -> AsyncIterator[AudioOut]:
        await asyncio.sleep(self.first)
        audio = b"\x55" * int(len(sentence.text) * 0.06 * RATE)
        text = sentence.text
        for at in range(0, len(audio), RATE // 10):
            yield AudioOut(audio[at : at + RATE // 10], text)
            text = ""


class Breaks(Processor):
    """Raises, quoting the caller, when the call's second turn is answered."""

    def __init__(self, on_prompt: int = 2) -> None:
        self.prompts = on_prompt

    @tap(CallStart)
    def begin(self, frame: CallStart) -> None:
        pass

    @on(Prompt)
    def fail(self, prompt: Prompt) -> Prompt:
        self.prompts -= 1
        if not self.prompts:
            raise ValueError(f"cannot bear {prompt.text!r}")
        return prompt


class Carrier:
    """The other end of the line: a packet every 20 ms, a play clock, marks that come back.

    `delay` seconds each way is the link's.
    """

    def __init__(self, link: ScriptedLink, *, marks: bool = True) -> None:
        self.link = link
        self.marks = marks
        self.loop = asyncio.get_running_loop()
        self.free_at = 0.0
        self.speaks_until = -1.0
        self.out: dict[str, asyncio.TimerHandle] = {}
        link.on(self.take)
        self.task = asyncio.create_task(self.ring())

    async def ring(self) -> None:
        began = self.loop.time()
        for number in itertools.count(1):
            await asyncio.sleep(max(0.0, began + number * 0.02 - self.loop.time()))
            loud = self.loop.time() <= self.speaks_until + 1e-9
            if not self.link.is_open:
                return
            self.link.peer.send((b"\x20" if loud else b"\xff") * PACKET)

    async def speak(self, seconds: float) -> None:
        """The caller speaks, in whole packets."""
        self.speaks_until = self.loop.time() + seconds
        await asyncio.sleep(seconds)

    def take(self, message: Wire) -> list[Any]:
        now = self.loop.time()
        if isinstance(message, bytes):
            self.free_at = max(self.free_at, now) + len(message) / RATE
        elif message == "clear":
            self.free_at = now
            for name, timer in list(self.out.items()):
                timer.cancel()
                self.give(name)
        elif self.marks:
            self.out[message] = self.loop.call_at(max(self.free_at, now), self.give, message)
        return []

    def give(self, name: str) -> None:
        del self.out[name]
        if self.link.is_open:
            self.link.peer.send(name)


class Phone:
    """A call that runs."""

    def __init__(self, call: Call, carrier: Carrier) -> None:
        self.call, self.carrier = call, carrier
        self.result: CallResult | None = None

    @property
    def turns(self) -> Any:
        return self.call.turns

    @property
    def paths(self) -> list[Any]:
        return list(self.call.trace.paths)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.call.trace.events]

    def turn(self, text: str = "hello", *, spoke: float = 0.1) -> None:
        """The caller's turn is over; the voice ended `spoke` seconds ago."""
        samples, _ = self.call.line.arrived
        self.turns.started()
        self.turns.ended(text, last_voice=samples - int(spoke * RATE))


@asynccontextmanager
async def phone(
    *processors: Processor,
    marks: bool = True,
    has_marks: bool = True,
    delay: float = 0.0,
    ends: str = "the caller hung up",
    prepare: Callable[[Call], None] = lambda call: None,
    hang_up: bool = True,
) -> AsyncIterator[Phone]:
    """`source, *processors, sink` in a running call; `prepare(call)` when it has been prepared."""
    call = Call(
        MemoryCodec(has_marks=has_marks), id="w0-7", caller="+12025550143", called="+12025550199", seed=1
    )
    call.prepare(Pipeline(call.source(), *processors, call.sink()))
    prepare(call)
    link = ScriptedLink(delay=delay)
    task = asyncio.create_task(call.run(link, LineStarted("s", "c", PHONE)))
    it = Phone(call, Carrier(link, marks=marks))
    await asyncio.sleep(0.1)
    try:
        yield it
    finally:
        if hang_up:
            call.end(ends)
        it.result = await asyncio.wait_for(task, 30)
        it.carrier.task.cancel()
        await asyncio.gather(it.carrier.task, return_exceptions=True)
        await call.services.close()


def agent(*answers: str, **delays: float) -> Sequence[Processor]:
    """A chain with everything: turns by voice, a model, sentences, a voice."""
    return [Detector(), VADTurns(0.4), Model(*answers, **delays), Aggregator(), Voice()]


def talker(*answers: str, **delays: float) -> Sequence[Processor]:
    """The same with turns that the test takes."""
    return [Turner(), Model(*answers, **delays), Aggregator(), Voice()]
