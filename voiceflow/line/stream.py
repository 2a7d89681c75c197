"""The line: one carrier stream. A codec for the protocol, a link for the socket, and an outbox between
the call, which never waits, and the socket, which may."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from voiceflow.engine.buffers import Depth, Policy
from voiceflow.engine.reply import Reply
from voiceflow.errors import BufferOverflowError, LinkError
from voiceflow.frames import AudioFormat
from voiceflow.line.codec import Codec, LineStarted, Wire
from voiceflow.line.link import Link

OUTBOX_BOUND = 512
"""Messages not yet taken by the socket: a carrier that has not read for about 50 s of audio."""
SEND_TIMEOUT = 5.0
"""Seconds one message may take to be accepted by the socket."""


class Line:
    """The carrier's end of a call. Made before the stream is open; `open` gives it its socket."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.format: AudioFormat = codec.format
        self.link: Link | None = None
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

    def open(self, link: Link, started: LineStarted) -> None:
        """The stream has started: from now on messages may be sent."""
        self.link = link
        self.stream = started.stream

    def send(self, message: Wire, reply: Reply | None = None, samples: int = 0) -> None:
        """Sends a message at once if the socket takes it, else queues it; never waits. `reply` marks it as
        part of that reply, for `discard`, and `samples` says how much audio of it is in there.

        A carrier that reads nothing for so long that the outbox is full ends the call.
        """
        if not (self._outbox or self._writing) and self.link is not None and self.link.send_at_once(message):
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
            while self._outbox:
                _, message, _ = self._outbox.popleft()
                self._writing = True
                try:
                    async with asyncio.timeout(SEND_TIMEOUT):
                        await self.link.send(message)
                except TimeoutError:
                    return self._fail(LinkError(f"the carrier took no message for {SEND_TIMEOUT:g} s"))
                except LinkError as error:
                    return self._fail(error)
                finally:
                    self._writing = False
                self.messages_out += 1
            self._wake = loop.create_future()
            await self._wake
            self._wake = None

    def _fail(self, error: Exception) -> None:
        if self._failed is not None:
            self._failed(error)
