"""What the fake text-to-speech servers share: settings, faults on request, a log, and how a connection ends.

    SpeakingVendor    the settings that all have, the `faults` to come, the `log` of what was said
    Utterance         one line of that log
    Session           one connection: what goes out, its tasks, how it ends

How text becomes audio, and when, is beside this in voice.py. All times are `loop.time()`, so a script runs
the same over a socket and in memory in virtual time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from tests.vendors.wire import Asked, SocketVendor, VendorLink
from voiceflow.errors import LinkError

KEPT = 10_000
"""Utterances, mistakes of clients, and messages of one connection that are kept at most."""
SEND_TIMEOUT = 10.0
"""Seconds a client may leave its socket unread before it is dropped."""
LARGE = 2**20 + 1
"""Bytes: one more than most WebSocket clients take unless told otherwise."""


@dataclass(slots=True)
class Fault:
    """Something that goes wrong once, on the first connection that comes to it.

    drop      the connection dies without a close frame        error     one utterance fails
    stall     it stays open and says nothing any more          refuse    quota or key: error, then close 1008
    close     it is closed with `code` and `message`           garbage   a text message that is no JSON
    large     the audio message is larger than 1 MiB; for ElevenLabs, whose audio is JSON
    """

    kind: Literal["drop", "stall", "close", "error", "refuse", "garbage", "large"]
    after: int | None = 0
    """It comes before an audio message, once so many of that connection went out. None: at the next message
    of a client, which is then not answered."""
    code: int = 1011
    error: str = ""
    """The vendor's name of the error; "" for a usual one."""
    message: str = ""


@dataclass(slots=True)
class Utterance:
    """What became of one context of ElevenLabs, or of the text between two Flush of Aura."""

    connection: int
    """Its index in the vendor's `connections`."""
    name: str
    opened: float
    text: str = ""
    """Everything that was received for it."""
    settings: dict[str, Any] | None = None
    phantom: bool = False
    """Made by a flush or keepalive that named no open context."""
    flushes: list[float] = field(default_factory=list)
    closed: float | None = None
    """When the client closed or cleared it."""
    finished: float | None = None
    """When isFinal, Flushed or Cleared went out."""
    said: str = ""
    """The text whose audio was sent, in whole characters."""
    cancelled: str = ""
    """The text that was received and will never be spoken."""
    failed: str = ""
    """The error it ended with."""
    first_audio: float | None = None
    last_audio: float | None = None
    audio: float = 0.0
    """Seconds of audio sent."""
    late: float = 0.0
    """Seconds of it sent after the client had closed or cleared it."""

    @property
    def characters(self) -> int:
        """Characters received."""
        return len(self.text)


class SpeakingVendor(SocketVendor):
    """Base of the fake text-to-speech servers. Every setting may be changed while it runs.

    key     what a client must show; "" lets everybody in
    delay   seconds from the text that starts a generation to its first audio message
    chunk   seconds of audio in a message
    pace    how many times faster than real time the further messages come; math.inf: all at once
    """

    def __init__(
        self,
        *,
        key: str = "",
        delay: float = 0.1,
        chunk: float = 0.25,
        pace: float = 5.0,
        handshake: float = 0.0,
    ) -> None:
        super().__init__(handshake=handshake)
        self.key = key
        self.delay = delay
        self.chunk = chunk
        self.pace = pace
        self.synthesize: Callable[[str], Awaitable[bytes]] | None = None
        """Text to mu-law at 8 kHz, for people who listen; None, and text it gives nothing for: spelled."""
        self.faults: list[Fault] = []
        """Still to happen; each is taken away when it does."""
        self.log: deque[Utterance] = deque(maxlen=KEPT)
        self.wrongs: deque[tuple[float, str]] = deque(maxlen=KEPT)
        """What clients did that they should not, whether or not the service puts up with it."""
        self.generating = 0
        """Generations going on now, on all connections: what a vendor's plan limits."""
        self.peak = 0
        """The most there were at once."""

    def wrong(self, what: str) -> None:
        self.wrongs.append((asyncio.get_running_loop().time(), what))
        self.tell("wrong", what)


V = TypeVar("V", bound=SpeakingVendor)


class Session(Generic[V]):
    """One connection. A subclass gives `hear`, `fail` and `refuse`, and `opened` when it speaks first."""

    def __init__(self, vendor: V, link: VendorLink, asked: Asked) -> None:
        self.vendor = vendor
        self.link = link
        self.asked = asked
        self.loop = asyncio.get_running_loop()
        self._number = len(vendor.connections) - 1
        self._over: asyncio.Future[tuple[int, str] | None] = self.loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent = 0
        self._stalled = False

    async def opened(self) -> None:
        """Says what the server says first."""

    async def hear(self, message: str | bytes) -> None:
        """One message of the client."""
        raise NotImplementedError

    async def fail(self, utterance: Utterance, fault: Fault) -> None:
        """Tells the client that one utterance failed, and sets its `failed`."""
        raise NotImplementedError

    async def refuse(self, error: str, message: str) -> None:
        """The client may not do that: says so and ends the connection."""
        raise NotImplementedError

    async def run(self) -> None:
        self.spawn(self._read())
        try:
            ending = await self._over
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if ending is not None:
            await self.link.close(*ending)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """A task that ends with the connection, and the connection with it when it fails."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def begin(self, name: str) -> Utterance:
        utterance = Utterance(self._number, name, self.loop.time())
        self.vendor.log.append(utterance)
        return utterance

    def end(self, code: int, reason: str = "") -> None:
        """Closes the connection. What follows is not sent any more."""
        if not self._over.done() and not self._stalled:
            self._over.set_result((code, reason[:120]))

    async def send(self, message: str | bytes) -> None:
        if self._stalled or self._over.done():
            return
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self.link.send(message)
        except TimeoutError:
            self.link.break_()
            raise LinkError("the client does not read") from None

    async def send_audio(self, message: str | bytes, utterance: Utterance, seconds: float) -> bool:
        """Sends an audio message, after the faults that are due. False when its utterance has failed."""
        for fault in self._take(lambda fault: fault.after is not None and fault.after <= self._sent):
            if fault.kind == "error":
                if not utterance.failed:  # it fails once
                    await self.fail(utterance, fault)
            elif fault.kind == "large":
                assert isinstance(message, str)
                message += " " * LARGE  # blanks behind a JSON text mean nothing
            else:
                await self._strike(fault)
        if self._stalled or self._over.done():
            await self.loop.create_future()  # until the connection is over
        if utterance.failed:
            return False
        await self.send(message)
        self._sent += 1
        utterance.last_audio = self.loop.time()
        if utterance.first_audio is None:
            utterance.first_audio = utterance.last_audio
        utterance.audio += seconds
        if utterance.closed is not None:
            utterance.late += seconds
        return True

    async def _read(self) -> None:
        await self.opened()
        while (message := await self.link.receive()) is not None:
            if len(self.asked.received) < KEPT:
                self.asked.received.append((self.loop.time(), message))
            if due := self._take(lambda fault: fault.after is None):
                for fault in due:
                    await self._strike(fault)
            elif not self._over.done():
                await self.hear(message)
        self._leave()

    def _take(self, due: Callable[[Fault], bool]) -> list[Fault]:
        taken = [fault for fault in self.vendor.faults if due(fault)]
        for fault in taken:
            self.vendor.faults.remove(fault)
        return taken

    async def _strike(self, fault: Fault) -> None:
        match fault.kind:
            case "drop":
                self.link.break_()
                raise LinkError("dropped on purpose")
            case "stall":
                self._stalled = True
            case "close":
                self.end(fault.code, fault.message)
            case "refuse":
                await self.refuse(fault.error, fault.message)
            case "garbage":
                await self.send('{"audio": "AAAA')
            case kind:
                raise ValueError(f"{kind} needs an audio message: give it an `after`")

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, LinkError):
            self._leave()
        elif error is not None and not self._over.done():
            self._over.set_exception(error)

    def _leave(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
