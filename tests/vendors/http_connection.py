"""One HTTP connection as a fake server sees it, and what carries a response on it."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

if TYPE_CHECKING:
    from tests.vendors.completions import Completion

MOST_KEPT = 1000
"""Requests of a connection that are remembered; the oldest go first."""
SEND_TIMEOUT = 10.0
"""Seconds a client may take to read what was sent."""


class Connection:
    """One TCP connection, or in memory what would have been one. Times are `loop.time()`."""

    def __init__(self, number: int, opened: float) -> None:
        self.number = number
        """From 1, in the order of their first requests."""
        self.opened = opened
        self.closed: float | None = None
        self.requests: deque[str] = deque(maxlen=MOST_KEPT)
        """What was asked on it, such as "GET /v1/models"."""
        self.work: asyncio.Task[None] | None = None
        """The conversation that is on."""
        self.asked: Completion | None = None
        self.cut: Callable[[], None] = lambda: None

    def drop(self) -> None:
        """The server closes it, idle or in the middle of an answer."""
        if self.asked is not None:
            self.asked.end("dropped")
        self.cut()

    def lost(self) -> None:
        """It is gone: whoever generates for it stops."""
        if self.asked is not None:
            self.asked.end("left")
        if self.closed is None:
            self.closed = asyncio.get_running_loop().time()
        if self.work is not None:
            self.work.cancel()

    def __repr__(self) -> str:
        state = "open" if self.closed is None else "closed"
        return f"<Connection {self.number}, {state}: {', '.join(self.requests)}>"


class Wire(Protocol):
    """What carries one response."""

    async def start(self, status: int, headers: Mapping[str, str]) -> None: ...
    async def write(self, data: bytes) -> None: ...
    async def end(self) -> None: ...


class SocketWire:
    """A response of aiohttp's server."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response: web.StreamResponse = web.Response()

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.response = web.StreamResponse(status=status, headers=headers)
        await self.response.prepare(self._request)

    async def write(self, data: bytes) -> None:
        await self.response.write(data)

    async def end(self) -> None:
        await self.response.write_eof()


async def send_json(wire: Wire, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
    """A whole response. TimeoutError when the client does not read it."""
    async with asyncio.timeout(SEND_TIMEOUT):
        await wire.start(status, {"content-type": "application/json", **(headers or {})})
        await wire.write(json.dumps(body).encode())
        await wire.end()
