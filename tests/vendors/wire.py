"""What all fake WebSocket vendors share: one connection is one link, whatever carries it.

    over a real socket    vendor.routes() on an aiohttp server    (tests/vendors/server.py)
    in memory             await vendor.dial(url, ...)             (Services(dial=...), virtual time)

Either way `handshake` seconds pass first, `refusals` are given out one after another, `admit` looks at the
key and the query, and then the vendor's own `converse(link, asked)` plays the other side. So one script, and
one set of faults, serves both.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from voiceflow.errors import LinkError, LinkRefused
from voiceflow.line.link import Link
from voiceflow.line.websocket import WebSocketLink
from voiceflow.testing import pair

T = TypeVar("T")

MAX_MESSAGE = 16 * 2**20
"""Bytes of one message from a client."""

NO_CODE = 1005
"""As the code of `close`: a close frame without one. RFC 6455, 7.1.5, keeps this number for it."""
_EMPTY_CLOSE = b"\x88\x00"
BOUND = 100_000
"""Messages on their way or unread in memory: 30 minutes of 20 ms audio."""


class VendorLink(Link, Protocol):
    """The vendor's end of a connection: a Link that can also die."""

    def break_(self, reason: str = ...) -> None:
        """Sudden death, without a closing handshake."""
        ...


@dataclass(slots=True)
class Refusal:
    """An upgrade that is answered with an HTTP error."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Asked:
    """What a client asked for when it connected. Times are `loop.time()`."""

    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Names in lower case."""
    at: float
    opened: float = 0.0
    closed: float | None = None
    received: list[tuple[float, str | bytes]] = field(default_factory=list)
    """Everything the client sent, for the vendors that keep it."""
    notes: dict[str, Any] = field(default_factory=dict)

    def one(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]


class SocketVendor:
    """Base of the fakes. A subclass gives `paths` and `converse`.

    handshake   seconds an upgrade takes
    refusals    used up one after another by the next connections; None lets that one through
    hang        the upgrade is never answered
    """

    paths: tuple[str, ...] = ()
    """aiohttp route paths, such as "/v2/listen" or "/v1/text-to-speech/{voice}/multi-stream-input"."""

    def __init__(self, *, handshake: float = 0.0) -> None:
        self.handshake = handshake
        self.hang = False
        self.refusals: deque[Refusal | None] = deque()
        self.connections: list[Asked] = []
        """Every connection that was accepted, in order."""
        self.links: list[VendorLink] = []
        """Their links: a test may `await link.close(code)` or `link.break_()` them."""
        self.refused = 0
        self.errors: list[Exception] = []
        """Mistakes of the fake itself, over real sockets, where nobody else would see them."""
        self.listener: Callable[[str, str], None] | None = None
        """Is told what happens, as (what, detail): for people who watch."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def admit(self, asked: Asked) -> Refusal | None:
        """Looks at the key and the query. None: come in."""
        return None

    async def converse(self, link: VendorLink, asked: Asked) -> None:
        """Plays the vendor until the connection is over. `link.receive()` gives None then; a LinkError that
        comes out of here means that the client is gone, and is no fault."""
        raise NotImplementedError

    def tell(self, what: str, detail: str = "") -> None:
        if self.listener is not None:
            self.listener(what, detail)

    @property
    def live(self) -> int:
        """Connections that are open."""
        return sum(asked.closed is None for asked in self.connections)

    def serves(self, path: str) -> bool:
        """Whether a URL's path is one of `paths`."""
        return any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", known), path) for known in self.paths)

    async def close(self) -> None:
        """Ends every connection, bounded in time. A test in virtual time that leaves some open calls it."""
        for link, asked in zip(self.links, self.connections, strict=True):
            if asked.closed is None:
                await link.close(1001, "the vendor is shut down")
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    # -- over a real socket

    def routes(self) -> list[web.RouteDef]:
        return [web.get(path, self._upgrade) for path in self.paths]

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await self._answer(request)
        except (web.HTTPException, ConnectionError):  # no WebSocket was asked for, or the client is gone
            raise
        except Exception as error:
            self.errors.append(error)
            raise
        finally:
            self._tasks.discard(task)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = _asked(str(request.rel_url), dict(request.headers))
        if (refusal := await self._greet(asked)) is not None:
            return web.Response(status=refusal.status, text=refusal.body, headers=dict(refusal.headers))
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, compress=False)
        if (transport := request.transport) is None:  # the client did not wait
            return web.Response()
        await socket.prepare(request)
        await self._run(_SocketLink(socket, transport), asked)
        return socket

    # -- in memory

    async def dial(self, url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
        """A stand-in for `Services.dial`: the same conversation without a socket, and the same errors."""
        asked = _asked(url, headers)
        host = urlsplit(url).netloc.rpartition("@")[2]
        try:
            async with asyncio.timeout(timeout):
                refusal = await self._greet(asked)
        except TimeoutError as error:
            raise LinkError(f"{host} did not answer within {timeout:g} s") from error
        if refusal is not None:
            raise LinkRefused(host, refusal.status, refusal.body, dict(refusal.headers))
        ours, theirs = pair(name=type(self).__name__, bound=BOUND)
        task = asyncio.get_running_loop().create_task(self._run(theirs, asked), name=type(self).__name__)
        asked.notes["task"] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.sleep(0)  # the vendor's end exists before the client's does, as over a socket
        except asyncio.CancelledError:
            ours.close_now()
            raise
        return ours

    # -- inside

    async def _greet(self, asked: Asked) -> Refusal | None:
        if self.handshake:
            await asyncio.sleep(self.handshake)
        if self.hang:
            await asyncio.Event().wait()
        refusal = self.refusals.popleft() if self.refusals else None
        refusal = refusal or self.admit(asked)
        if refusal is not None:
            self.refused += 1
            self.tell("refused", f"HTTP {refusal.status} {refusal.body}".strip())
        return refusal

    async def _run(self, link: VendorLink, asked: Asked) -> None:
        loop = asyncio.get_running_loop()
        asked.opened = loop.time()
        self.connections.append(asked)
        self.links.append(link)
        self.tell("connected", asked.path)
        try:
            await self.converse(link, asked)
        except LinkError:
            pass
        finally:
            asked.closed = loop.time()
            self.tell("closed", f"after {asked.closed - asked.opened:.1f} s")
            await link.close()


class Due(Generic[T]):
    """A queue whose items come out at their times: what a vendor is going to say.

    Times are absolute, so that delays do not add up. Items of the same time keep their order.
    """

    def __init__(self, bound: int = BOUND) -> None:
        self._loop = asyncio.get_running_loop()
        self._bound = bound
        self._waiting: list[tuple[float, int, T]] = []
        self._count = count()
        self._timer: asyncio.TimerHandle | None = None
        self._ready: deque[T] = deque()
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._ready)

    def put(self, item: T, at: float = 0.0) -> None:
        """Lets `item` come out at `loop.time()` = `at`; now, when that is over."""
        if len(self) >= self._bound:
            raise OverflowError(f"{self._bound} messages wait for a client that does not read")
        heappush(self._waiting, (at, next(self._count), item))
        if self._waiting[0][2] is item:
            self._release(self._loop.time())

    async def get(self) -> T:
        while not self._ready:
            self._news.clear()
            await self._news.wait()
        return self._ready.popleft()

    def clear(self) -> None:
        """Forgets what has not come out yet."""
        self._waiting.clear()
        self._ready.clear()
        self._release(self._loop.time())

    def _release(self, until: float) -> None:
        while self._waiting and self._waiting[0][0] <= until:
            self._ready.append(heappop(self._waiting)[2])
            self._news.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            # The loop may run a timer a little early, by its clock's resolution: hence its own time.
            due = self._waiting[0][0]
            self._timer = self._loop.call_at(due, self._release, due)


class _SocketLink(WebSocketLink):
    """The vendor's end of a real socket."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        super().__init__(socket, transport)
        self._below = transport
        self._ended = False

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if code == NO_CODE and not self._ended:
            self._below.write(_EMPTY_CLOSE)  # aiohttp always sends a code; this one comes first, and counts
            code = 1000
        self._ended = True
        await super().close(code, reason)

    def break_(self, reason: str = "") -> None:
        self._ended = True
        self._below.abort()


def _asked(url: str, headers: Mapping[str, str]) -> Asked:
    parts = urlsplit(url)
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        query.setdefault(name, []).append(value)
    known = {name.lower(): value for name, value in headers.items()}
    return Asked(parts.path, query, known, asyncio.get_running_loop().time())
