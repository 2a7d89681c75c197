"""One socket to a vendor of voices: a queue in front of it, a reader behind it, a protocol that knows it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from voiceflow.errors import LinkError
from voiceflow.line.codec import Wire
from voiceflow.line.link import Link
from voiceflow.speech.protocol import Item, Send, SpeechProtocol, Trouble

SEND_TIMEOUT = 2.0
"""Seconds the vendor may take to accept one message: text is small, so a full socket is a dead one."""
QUEUE_BOUND = 1000
"""Messages that wait for the socket; a reply has about twenty."""


class Connection:
    """Sends what the protocol says and hands what comes to `took`. Two tasks, both ended by `release`."""

    def __init__(
        self,
        link: Link,
        protocol: SpeechProtocol,
        took: Callable[[Connection, Item], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self.link = link
        self.protocol = protocol
        self.retired = False
        """Nothing new is spoken on it."""
        self.since = clock()
        self._took = took
        self._clock = clock
        self._queue: deque[Send] = deque()
        self._reached: set[str] = set()
        self._wake: asyncio.Future[None] | None = None

    @property
    def usable(self) -> bool:
        return not self.retired and self.link.is_open

    def queue(self, items: Iterable[Item]) -> list[Item]:
        """Queues what is to be sent; returns the other items."""
        others: list[Item] = []
        for item in items:
            if isinstance(item, Send):
                self._queue.append(item)
            else:
                others.append(item)
        if len(self._queue) > QUEUE_BOUND:
            self._queue.clear()
            others.append(Trouble(f"it took none of {QUEUE_BOUND} messages"))
        if self._queue and self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        return others

    def drop(self, key: str) -> bool:
        """Drops what waits of a key; returns whether the vendor has been sent anything of it."""
        self._queue = deque(send for send in self._queue if send.key != key)
        reached = key in self._reached
        self._reached.discard(key)
        return reached

    async def write(self) -> None:
        """Sends the queue, as long as the connection lasts."""
        loop = asyncio.get_running_loop()
        while True:
            while self._queue:
                send = self._queue.popleft()
                if send.key:
                    self._reached.add(send.key)
                try:
                    async with asyncio.timeout(SEND_TIMEOUT):
                        await self.link.send(send.message)
                except TimeoutError:
                    return await self._took(self, Trouble(f"it took no message for {SEND_TIMEOUT:g} s"))
                except LinkError as error:
                    return await self._took(self, Trouble(str(error)))
            self._wake = loop.create_future()
            await self._wake
            self._wake = None

    async def read(self) -> None:
        """Hands on what comes, as long as the connection lasts."""
        while True:
            try:
                message = await self.link.receive()
            except LinkError as error:
                return await self._took(self, Trouble(str(error)))
            if message is None:
                return await self._took(self, Trouble(_closed(self.link)))
            for item in self.queue(self.parse(message)):
                await self._took(self, item)

    def parse(self, message: Wire) -> Iterable[Item]:
        return self.protocol.parse(message, self._clock())

    def forget(self, key: str) -> None:
        """A key is finished."""
        self._reached.discard(key)


def _closed(link: Link) -> str:
    """Why the other side closed the connection, as far as it said."""
    code, reason = getattr(link, "close_code", None), getattr(link, "close_reason", "")
    said = " ".join(str(part) for part in (code, reason) if part)
    return "it closed the connection" + (f" ({said[:120]})" if said else "")
