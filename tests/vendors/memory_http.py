"""HTTP in memory: what an httpx2 client is given in place of its sockets, to run in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

import httpx2

from tests.vendors.http_connection import Connection

if TYPE_CHECKING:
    from tests.vendors.openai import FakeOpenAI

MOST_UNREAD = 10_000
"""Packets that the client has not read yet; then the server waits, as it does for a full socket."""


class MemoryTransport(httpx2.AsyncBaseTransport):
    """A pool of connections that never were: a request takes an idle one, or opens another. One whose
    response was not read to its end is closed, as HTTP/1.1 has to."""

    def __init__(self, fake: FakeOpenAI) -> None:
        self._fake = fake
        self._idle: list[Connection] = []
        self._busy: list[Connection] = []
        self._works: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        fake = self._fake
        connection = self._idle.pop() if self._idle else fake.connect(asyncio.get_running_loop().time())
        self._busy.append(connection)
        wire = MemoryWire(self, connection)
        connection.cut = wire.drop
        work = fake.work(request.method, request.url.path, request.headers, body, connection, wire)
        self._works.add(work)
        work.add_done_callback(self._works.discard)
        work.add_done_callback(wire.over)
        try:
            status, headers = await wire.head
        except BaseException:
            self.close(connection)
            raise
        return httpx2.Response(status, headers=dict(headers), stream=wire)

    async def aclose(self) -> None:
        for connection in [*self._busy, *self._idle]:
            self.close(connection)
        if works := list(self._works):
            await asyncio.wait(works)

    def close(self, connection: Connection) -> None:
        for each in (self._busy, self._idle):
            if connection in each:
                each.remove(connection)
                connection.lost()
                self._fake.tell()

    def keep(self, connection: Connection) -> None:
        if connection in self._busy:
            self._busy.remove(connection)
            self._idle.append(connection)


class MemoryWire(httpx2.AsyncByteStream):
    """One response on its way, and the stream that the client reads it from."""

    def __init__(self, transport: MemoryTransport, connection: Connection) -> None:
        self.head: asyncio.Future[tuple[int, Mapping[str, str]]] = asyncio.get_running_loop().create_future()
        self._transport = transport
        self._connection = connection
        self._packets: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_UNREAD)
        self._broken: BaseException | None = None
        self._read = False

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.head.set_result((status, headers))

    async def write(self, data: bytes) -> None:
        await self._packets.put(data)

    async def end(self) -> None:
        await self._packets.put(None)

    def drop(self) -> None:
        self._break(httpx2.RemoteProtocolError("the server closed the connection"))
        self._transport.close(self._connection)

    def over(self, work: asyncio.Task[None]) -> None:
        """A reply function that raises is a fault of the test: it is what the client gets to see."""
        if not work.cancelled() and (error := work.exception()) is not None:
            self._break(error)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (packet := await self._packets.get()) is not None:
            yield packet
        if self._broken is not None:
            raise self._broken
        self._read = True

    async def aclose(self) -> None:
        (self._transport.keep if self._read else self._transport.close)(self._connection)

    def _break(self, error: BaseException) -> None:
        if not self.head.done():
            self.head.set_exception(error)
            return
        self._broken = error
        if self._packets.full():
            self._packets.get_nowait()  # a reset loses what is on its way, too
        self._packets.put_nowait(None)
