"""The connections that one call's voice has: from the pool they come, back to it or to nowhere they go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from voiceflow.line.link import Link
from voiceflow.pool import WarmPool
from voiceflow.services import Services
from voiceflow.speech.connection import Connection, Took
from voiceflow.speech.outlet import Spawn
from voiceflow.speech.protocol import SpeechProtocol

DIAL_TIMEOUT = 5.0
"""Seconds to open a connection; a handshake takes about 0.3."""


class Connections:
    """One is current: what is new is spoken on it. The others may finish what they speak."""

    pool: WarmPool[Link]
    """Set before the first is adopted."""

    def __init__(self, took: Took, spawn: Spawn, now: Callable[[], float]) -> None:
        self.current: Connection | None = None
        self._took, self._spawn, self._now = took, spawn, now
        self._tasks: dict[Connection, tuple[asyncio.Task[None], ...]] = {}

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._tasks))

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._tasks

    def adopt(self, link: Link, protocol: SpeechProtocol) -> None:
        """A new current connection."""
        if self.current is not None:
            self.retire(self.current)
        self.current = connection = Connection(link, protocol, self._took, self._now)
        self._tasks[connection] = (
            self._spawn(connection.write(), "writer"),
            self._spawn(connection.read(), "reader"),
        )

    def with_room(self) -> Connection | None:
        """The current one. None when it has no room: then it is current no more."""
        connection = self.current
        if connection is None or (connection.link.is_open and connection.protocol.room()):
            return connection
        self.retire(connection)
        return None

    def retire(self, connection: Connection) -> None:
        """Nothing new is spoken on it."""
        if self.current is connection:
            self.current = None
        self.release_unused(connection)

    def release_unused(self, connection: Connection) -> None:
        """Lets it go if it is not current and speaks nothing."""
        if connection is not self.current and not connection.keys:
            self.release(connection)

    def release(self, connection: Connection, *, keep: bool = True) -> None:
        """Ends its tasks. The link goes back to the pool if it is as good as new, else it is closed."""
        if (tasks := self._tasks.pop(connection, None)) is None:
            return
        connection.released = True
        if self.current is connection:
            self.current = None
        running = asyncio.current_task()
        for task in tasks:
            if task is not running:
                task.cancel()
        good = keep and connection.link.is_open and connection.protocol.clean()
        (self.pool.give if good else self.pool.drop)(connection.link)

    def close(self) -> None:
        """Lets all of them go."""
        for connection in self:
            self.release(connection)


def pool(
    services: Services, vendor: str, url: str, headers: Mapping[str, str], spare: int, max_idle: float
) -> WarmPool[Link]:
    """What all calls of a process share that speak with one vendor, voice and key."""

    async def close(link: Link) -> None:
        await link.close()

    def make() -> WarmPool[Link]:
        dial = partial(services.dial, url, headers=headers, timeout=DIAL_TIMEOUT)
        name = f"{vendor} voice"
        return WarmPool(name, dial, close, usable=lambda link: link.is_open, spare=spare, max_idle=max_idle)

    return services.shared((vendor, url, *sorted(headers.items())), make)
