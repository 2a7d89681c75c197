"""The line: a codec for the carrier's protocol, a link for the socket, and an outbox between the call, which
never waits, and the socket, which may.

A call has one stream at a time, and usually one in all. A carrier that is asked to do something else with a
live call (press keys, say) takes the stream away and opens another afterwards; the call goes on meanwhile:

    expect(seconds)    the carrier is about to be asked: the stream's end will not be the call's
    leave()            the stream is over: what is sent now is dropped, nobody is there to hear it
    next()             waits for the one that follows
    replace(...)       ... which whoever took its socket hands over
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from voiceflow.engine.buffers import Depth, Policy
from voiceflow.engine.reply import Reply
from voiceflow.errors import BufferOverflowError, LineError, LinkError
from voiceflow.frames import AudioFormat
from voiceflow.line.codec import Codec, LineStarted, Wire
from voiceflow.line.link import Link

OUTBOX_BOUND = 512
"""Messages not yet taken by the socket: a carrier that has not read for about 50 s of audio."""
SEND_TIMEOUT = 5.0
"""Seconds one message may take to be accepted by the socket."""


@dataclass(slots=True, frozen=True, eq=False)
class Stream:
    """A stream that follows another. `over` is done when nothing more is read from it or sent to it."""

    codec: Codec
    link: Link
    started: LineStarted
    over: asyncio.Future[None]


class Line:
    """The carrier's end of a call. Made before the stream is open; `open` gives it its socket."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.format: AudioFormat = codec.format
        self.link: Link | None = None
        """None before the first stream, and between two."""
        self.stream = ""
        self.stopped = False
        """The carrier said that the stream is over; it asks nothing of us any more."""
        self.messages_out = 0
        self.arrived = (0, 0.0)
        """How many samples of caller audio have come, and the `loop.time()` of the last of them."""
        self._outbox: deque[tuple[Reply | None, Wire, int]] = deque()  # bounded by OUTBOX_BOUND in `send`
        self._peak = 0
        self._writing = False
        """The writer waits for the socket to take a message."""
        self._wake: asyncio.Future[None] | None = None
        self._failed: Callable[[Exception], None] | None = None
        self._next: asyncio.Future[Stream | None] | None = None
        """The stream that will follow this one; None when none is expected, or none will come after all."""
        self._patience = (0.0, 0.0)
        """For how many seconds it is expected, and until when (`loop.time()`)."""
        self._changed: asyncio.Event | None = None
        """Somebody waits for the next stream to be left or opened."""
        self._over: asyncio.Future[None] | None = None
        """`Stream.over` of the stream that is open, unless it is the first."""

    def open(self, link: Link, started: LineStarted) -> None:
        """The stream has started: from now on messages may be sent."""
        self.link = link
        self.stream = started.stream
        self.stopped = False
        self._tell()

    # -- one stream after another

    def expect(self, seconds: float) -> None:
        """The carrier is asked to take the stream away: for so long its end will not end the call, and
        another may follow. Said once more, the time counts anew."""
        loop = asyncio.get_running_loop()
        if self._next is None:
            self._next = loop.create_future()
        self._patience = seconds, loop.time() + seconds

    def unexpect(self) -> None:
        """The carrier did not do it: the stream's end is the call's again, also if it has ended meanwhile."""
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
        self._next = None

    @property
    def expecting(self) -> bool:
        """Whether the end of this stream is not the call's."""
        if self._next is None:
            return False
        return self._next.done() or asyncio.get_running_loop().time() < self._patience[1]

    def replace(self, codec: Codec, link: Link, started: LineStarted) -> asyncio.Future[None]:
        """Another stream of the same call is open, and takes the place of this one as soon as that is over.
        Returns what is done once the new one is over too. LineError when none is expected."""
        if self._next is None or not self.expecting:
            raise LineError("the call expects no other stream")
        if self._next.done():
            raise LineError("another stream came before it")
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next.set_result(Stream(codec, link, started, over))
        return over

    def leave(self) -> None:
        """The stream is over. What has not been taken by its socket is dropped."""
        self.link = None
        self._outbox.clear()
        self._release()
        self._tell()

    async def next(self) -> bool:
        """Waits for the stream that follows the one that was left, and opens it. False when none will come
        after all; LineError when it does not come in time."""
        seconds, until = self._patience
        expected = self._next
        if expected is None:
            return False
        try:
            async with asyncio.timeout_at(until):
                stream = await asyncio.shield(expected)  # cancelled, `close` still finds what came
        except TimeoutError:
            self._next = None
            raise LineError(f"its next stream did not come within {seconds:g} s") from None
        self._next = None
        if stream is None:
            return False
        self.codec, self._over = stream.codec, stream.over
        self.open(stream.link, stream.started)
        return True

    async def changed(self) -> None:
        """Waits until a stream is left or opened, or all are closed. Bounded by who waits."""
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def close(self) -> None:
        """Closes the stream, and one that was to follow it. LinkError never, see Link."""
        expected, self._next = self._next, None
        following = expected.result() if expected is not None and expected.done() else None
        self._tell()
        if self.link is not None:
            await self.link.close()
        self._release()
        if following is not None:
            await following.link.close()
            self._over = following.over
            self._release()

    def _release(self) -> None:
        """Whoever took the stream's socket may leave it."""
        over, self._over = self._over, None
        if over is not None and not over.done():
            over.set_result(None)

    # -- sending

    def send(self, message: Wire, reply: Reply | None = None, samples: int = 0) -> None:
        """Sends a message at once if the socket takes it, else queues it; never waits. `reply` marks it as
        part of that reply, for `discard`, and `samples` says how much audio of it is in there.

        A carrier that reads nothing for so long that the outbox is full ends the call. Between two streams
        nothing is sent and nothing kept: there is nobody to play it.
        """
        if self.link is None:
            return
        if not (self._outbox or self._writing) and self.link.send_at_once(message):
            self.messages_out += 1
            return
        self._outbox.append((reply, message, samples))
        self._peak = max(self._peak, len(self._outbox))
        if len(self._outbox) > OUTBOX_BOUND:
            self._outbox.clear()
            self._fail(BufferOverflowError("the line's outbox", OUTBOX_BOUND, "the carrier does not read"))
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def discard(self, reply: Reply) -> int:
        """Drops what is queued of `reply`; returns how many samples of it the socket never took."""
        if not self._outbox:
            return 0
        lost = sum(samples for owner, _, samples in self._outbox if owner is reply)
        kept = [entry for entry in self._outbox if entry[0] is not reply]
        if len(kept) != len(self._outbox):
            self._outbox.clear()
            self._outbox.extend(kept)
        return lost

    def depth(self) -> Depth:
        return Depth(
            "line outbox", len(self._outbox), self._peak, OUTBOX_BOUND, Policy.END_CALL, unit="messages"
        )

    async def write(self, failed: Callable[[Exception], None]) -> None:
        """Sends the outbox, for as long as the call lasts. `failed(error)` when the line is lost."""
        assert self.link is not None, "write() runs after open()"
        self._failed = failed
        loop = asyncio.get_running_loop()
        while True:
            while self._outbox and (link := self.link) is not None:
                _, message, _ = self._outbox.popleft()
                self._writing = True
                try:
                    async with asyncio.timeout(SEND_TIMEOUT):
                        await link.send(message)
                    self.messages_out += 1
                except TimeoutError:
                    self._lost(link, LinkError(f"the carrier took no message for {SEND_TIMEOUT:g} s"))
                except LinkError as error:
                    self._lost(link, error)
                finally:
                    self._writing = False
            self._wake = loop.create_future()
            await self._wake
            self._wake = None

    def _lost(self, link: Link, error: LinkError) -> None:
        """A stream that is to be replaced, or was meanwhile, may break: its reader sees that too."""
        if link is self.link:
            self._outbox.clear()
            if not self.expecting:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._failed is not None:
            self._failed(error)
