"""One socket to a vendor of voices: a queue in front of it, a reader behind it, a protocol that knows it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from voiceflow.errors import LinkError
from voiceflow.line.link import Link
from voiceflow.speech.protocol import Item, Send, SpeechProtocol, Trouble

SEND_TIMEOUT = 2.0
"""Seconds the vendor may take to accept one message: text is small, so a full socket is a dead one."""
QUEUE_BOUND = 1000
"""Messages that wait for a socket that is full; a reply has about twenty."""


Took = Callable[["Connection", Item], None]
"""Told what is not for the vendor."""


class Connection:
    """Sends what the protocol says and hands what comes to `took`. Two tasks, both ended by `release`.

    The reader never waits for anything but the socket. A socket that is not read gives no answer to our own
    pings: after 40 s of it, as while a long reply is being heard, it would count as dead.
    """

    def __init__(
        self,
        link: Link,
        protocol: SpeechProtocol,
        took: Took,
        clock: Callable[[], float],
    ) -> None:
        self.link = link
        self.protocol = protocol
        self.released = False
        """It is somebody else's now, or closed."""
        self.keys: set[str] = set()
        """What is spoken on it."""
        self.since = clock()
        self._took = took
        self._clock = clock
        self._queue: deque[Send] = deque()
        self._writing = False
        self._reached: set[str] = set()
        self._wake: asyncio.Future[None] | None = None

    def queue(self, items: Iterable[Item]) -> list[Item]:
        """Sends what is to be sent, in this tick if the socket takes it; returns the other items."""
        others: list[Item] = []
        for item in items:
            if not isinstance(item, Send):
                others.append(item)
            elif self._queue or self._writing or not self.link.send_at_once(item.message):
                self._queue.append(item)
            else:
                self._reach(item)
        if len(self._queue) > QUEUE_BOUND:
            self._queue.clear()
            others.append(Trouble(f"it took none of {QUEUE_BOUND} messages"))
        if self._queue and self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        return others

    def drop(self, key: str) -> bool:
        """Drops what waits of a key; returns whether the vendor has been sent anything of it."""
        reached = key in self._reached
        self._queue = deque(send for send in self._queue if send.key != key or (send.closes and reached))
        self.forget(key)
        return reached

    async def write(self) -> None:
        """Sends what had to wait, as long as the connection lasts."""
        loop = asyncio.get_running_loop()
        while True:
            while self._queue:
                send = self._queue.popleft()
                self._reach(send)
                self._writing = True
                try:
                    async with asyncio.timeout(SEND_TIMEOUT):
                        await self.link.send(send.message)
                except TimeoutError:
                    self._took(self, Trouble(f"it took no message for {SEND_TIMEOUT:g} s"))
                    return
                except LinkError as error:
                    self._took(self, Trouble(str(error)))
                    return
                self._writing = False
            self._wake = loop.create_future()
            await self._wake
            self._wake = None

    async def read(self) -> None:
        """Hands on what comes, as long as the connection lasts."""
        while not self.released:
            try:
                message = await self.link.receive()
            except LinkError as error:
                self._took(self, Trouble(str(error)))
                return
            if message is None:
                self._took(self, Trouble(_closed(self.link)))
                return
            for item in self.queue(self.protocol.parse(message, self._clock())):
                self._took(self, item)

    def _reach(self, send: Send) -> None:
        if send.key:
            self._reached.add(send.key)

    def forget(self, key: str) -> None:
        """Nothing of this key is spoken any more."""
        self.keys.discard(key)
        self._reached.discard(key)


def _closed(link: Link) -> str:
    """Why the other side closed the connection, as far as it said."""
    code, reason = getattr(link, "close_code", None), getattr(link, "close_reason", "")
    said = " ".join(str(part) for part in (code, reason) if part)
    return "it closed the connection" + (f" ({said[:120]})" if said else "")
