"""A call in memory and in virtual time: a real source and sink over a scripted carrier, for the tests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.reply import Reply
from voiceflow.frames import PHONE, AudioOut, Dtmf, Interrupt, Prompt, ReplyEnd, Sentence
from voiceflow.line.codec import LineStarted, Wire
from voiceflow.line.sink import LineSink
from voiceflow.record import CallResult
from voiceflow.testing.line import MemoryCodec
from voiceflow.testing.links import ScriptedLink

RATE = 8000
PACKET = 160


class Turner(Processor):
    """The turn's authority, moved by the test; makes Prompts go by for whoever wants them."""

    takes_turns = True
    emits = (AudioOut, ReplyEnd, Sentence)


class Speaker(Processor):
    """Says a Sentence as audio: 100 ms a character, in pieces of `piece` bytes, each byte its position."""

    needs = ()
    emits = (AudioOut,)
    piece = 800

    def __init__(self, seconds_a_character: float = 0.1) -> None:
        self.seconds = seconds_a_character

    @on(Sentence)
    def speak(self, sentence: Sentence) -> Any:
        audio = b"\x55" * int(len(sentence.text) * self.seconds * RATE)
        text = sentence.text
        for begin in range(0, len(audio), self.piece):
            yield AudioOut(audio[begin : begin + self.piece], text, protected=sentence.protected)
            text = ""


class Carrier:
    """What is on the other side of the socket: a buffer, a play clock of its own, marks that come back.

    `delay` seconds each way is the link's. `played` are all bytes that the caller heard, with gaps left
    out; `wire` everything that came, with its time.
    """

    def __init__(self, link: ScriptedLink, *, marks: bool = True) -> None:
        self.link = link
        self.marks = marks
        self.wire: list[tuple[float, Wire]] = []
        self.heard = bytearray()
        self._buffer: deque[Wire] = deque()
        self._free_at = 0.0
        self._playing: asyncio.TimerHandle | None = None
        link.on(self._take)
        self._ring = asyncio.get_running_loop().call_later(10, self._keep_alive)

    def _keep_alive(self) -> None:
        """A carrier sends all the time; here a packet every 10 s is enough to count as alive."""
        if self.link.closed is None:
            self.link.peer.send(b"\xff" * PACKET)
            self._ring = asyncio.get_running_loop().call_later(10, self._keep_alive)

    def hang(self) -> None:
        self._ring.cancel()

    def _take(self, message: Wire) -> list[Any]:
        now = asyncio.get_running_loop().time()
        self.wire.append((now, message))
        if message == "clear":
            marks = [m for m in self._buffer if isinstance(m, str)]
            self._buffer.clear()
            if self._playing is not None:
                self._playing.cancel()
                self._playing = None
            for mark in marks:
                self._return(mark)
            return []
        if isinstance(message, bytes):
            self._buffer.extend(message[i : i + PACKET] for i in range(0, len(message), PACKET))
        else:
            self._buffer.append(message)
        if self._playing is None:
            self._play()
        return []

    def _play(self) -> None:
        """Plays the next packet; it counts as heard when it has been played to its end."""
        self._playing = None
        while self._buffer and isinstance(self._buffer[0], str):
            self._return(str(self._buffer.popleft()))
        if self._buffer:
            packet = self._buffer[0]
            assert isinstance(packet, bytes)
            loop = asyncio.get_running_loop()
            begin = (
                max(self._free_at, loop.time()) if abs(self._free_at - loop.time()) < 1e-6 else loop.time()
            )
            self._free_at = begin + len(packet) / RATE
            self._playing = loop.call_at(self._free_at, self._played)

    def _played(self) -> None:
        packet = self._buffer.popleft()
        assert isinstance(packet, bytes)
        self.heard += packet
        self._play()

    def _return(self, mark: str) -> None:
        if self.marks and self.link.is_open:
            self.link.peer.send(mark)

    @property
    def audio(self) -> bytes:
        """All audio that came over the wire."""
        return b"".join(m for _, m in self.wire if isinstance(m, bytes))

    def after(self, message: Wire) -> list[Wire]:
        """What came after the first such message."""
        messages = [m for _, m in self.wire]
        return messages[messages.index(message) + 1 :]

    def times(self, message: Wire) -> list[float]:
        return [at for at, m in self.wire if m == message]


class Phone:
    """A call that runs, and its two ends."""

    def __init__(self, call: Call, carrier: Carrier, link: ScriptedLink, turner: Turner) -> None:
        self.call, self.carrier, self.link, self.turner = call, carrier, link, turner
        self.result: CallResult | None = None
        assert call._pipeline is not None
        assert call._pipeline.sink is not None
        self.sink: LineSink = call._pipeline.sink

    @property
    def turns(self) -> Any:
        return self.call.turns

    def answer(self) -> Reply:
        """The caller has finished a turn: the reply that answers it."""
        self.turner.turns.ended()
        reply = self.turns.live
        assert reply is not None
        return reply

    def speak(
        self, reply: Reply, audio: bytes, text: str = "", words: tuple = (), *, end: bool = False
    ) -> None:
        """Gives audio of a reply to the chain."""
        self.turner.push(AudioOut(audio, text, words, reply=reply))
        if end:
            self.turner.push(ReplyEnd(reply=reply))


async def settled(turns: int = 30) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


@asynccontextmanager
async def phone(
    *processors: Processor,
    has_marks: bool = True,
    returns_marks: bool = True,
    delay: float = 0.0,
    lead: float = 0.2,
    chunk: float = 0.1,
    prepare: Callable[[Call], None] | None = None,
    **options: Any,
) -> AsyncIterator[Phone]:
    """`source, Turner, *processors, sink` in a running call."""
    call = Call(MemoryCodec(has_marks=has_marks), **{"seed": 1, **options})
    link = ScriptedLink(delay=delay)
    carrier = Carrier(link, marks=returns_marks)
    turner = Turner()
    if prepare is not None:
        prepare(call)
    call.prepare(Pipeline(call.source(), turner, *processors, call.sink(lead=lead, chunk=chunk)))
    task = asyncio.create_task(call.run(link, LineStarted("s", "c", PHONE)))
    await settled()
    it = Phone(call, carrier, link, turner)
    try:
        yield it
    finally:
        call.end("the test is done")
        it.result = await task
        carrier.hang()
        await call.services.close()


class Watcher(Processor):
    """Looks at everything that an Interrupt makes, in the order it comes."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @on(Interrupt)
    def interrupted(self, frame: Interrupt) -> None:
        self.seen.append(frame)

    @tap(AudioOut, ReplyEnd, Prompt, Dtmf)
    def other(self, frame: Any) -> None:
        self.seen.append(frame)
