"""Warm connections: dialled ahead, checked, aged out, refilled, shared by all calls of the process.

    take ──▶ one that waits here (a hit: its handshake is saved), or the next that is dialled (a miss)
    give ──▶ it waits here again          drop ──▶ it is closed, and another is dialled

A handshake costs two or three round trips, about 300 ms to a vendor far away: dialled before it is needed,
it costs nobody anything. The pool keeps `spare` connections idle, and one more for every caller that has
said it will need one (`expect`), so that a cancelled turn, which costs an HTTP/1.1 connection, finds another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from loguru import logger

from voiceflow.errors import LinkError

C = TypeVar("C")

BACKOFF = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between attempts to refill when dialling ahead fails."""
SWEEP = 1.0
"""Seconds between looks at the idle connections: dead and old ones are replaced before anybody takes them."""


@dataclass(slots=True)
class _Idle(Generic[C]):
    connection: C
    since: float
    handshake: float


@dataclass(slots=True)
class Taken(Generic[C]):
    """A connection that was taken. `hit`: it was there already. `saved`: seconds of handshake nobody waited
    for; `waited`: seconds somebody did."""

    connection: C
    hit: bool
    saved: float
    waited: float


class WarmPool(Generic[C]):
    """Connections of one kind. `open` dials one and raises LinkError; `close` ends one and never raises.

    usable    asked before an idle connection is handed out, and once a second
    spare     idle connections kept beyond those that are expected
    bound     idle connections at most; more are closed when they are given back
    max_idle  seconds after which an idle connection is replaced: less than the vendor's own limit
    """

    def __init__(
        self,
        name: str,
        open: Callable[[], Awaitable[C]],
        close: Callable[[C], Awaitable[None]],
        *,
        usable: Callable[[C], bool] = lambda connection: True,
        spare: int = 1,
        bound: int = 64,
        max_idle: float = 60.0,
    ) -> None:
        self.name = name
        self._open, self._close, self._usable = open, close, usable
        self.spare, self.bound, self.max_idle = spare, bound, max_idle
        self.expected = 0
        self.hits = self.misses = self.dialled = self.failed = self.died = self.aged_out = 0
        self.saved = 0.0
        self._handshake = 0.0
        """Seconds the latest one took: what reusing a connection saves."""
        self._idle: deque[_Idle[C]] = deque()
        self._waiting: deque[asyncio.Future[_Idle[C]]] = deque()
        self._dials: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._not_before = 0.0
        self._closed = False

    # -- for those who need connections

    def expect(self, more: int = 1) -> None:
        """One more caller will need a connection soon; -1 when it no longer does. Dials ahead at once."""
        self.expected = max(0, self.expected + more)
        self.refill()

    async def take(self) -> Taken[C]:
        """A connection: an idle one, or the first that gets dialled. Raises what dialling raises."""
        if self._closed:
            raise LinkError(f"{self.name}: the pool is closed")
        loop = asyncio.get_running_loop()
        if (idle := self._pick(loop.time())) is not None:
            self.hits += 1
            self.saved += idle.handshake
            self.refill()
            return Taken(idle.connection, True, idle.handshake, 0.0)
        self.misses += 1
        began = loop.time()
        waiting: asyncio.Future[_Idle[C]] = loop.create_future()
        self._waiting.append(waiting)
        if len(self._dials) < len(self._waiting):
            self._dial(loop)
        try:
            found = await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self._keep(waiting.result())
            raise
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
        waited = loop.time() - began
        saved = max(0.0, found.handshake - waited)
        self.saved += saved
        self.refill()
        return Taken(found.connection, False, saved, waited)

    def give(self, connection: C) -> None:
        """Gives back a connection that is as good as new; a dead one is dropped."""
        if not self._usable(connection):
            self.died += 1
            return self.drop(connection)
        return self._keep(_Idle(connection, asyncio.get_running_loop().time(), self._handshake))

    def drop(self, connection: C) -> None:
        """Closes a connection in the background and dials another if that leaves too few."""
        task = asyncio.get_running_loop().create_task(self._end(connection), name=f"{self.name} close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        self.refill()

    async def fill(self, timeout: float = 10.0) -> None:
        """Waits until as many are idle as should be: for warming up. LinkError when dialling fails."""
        self.refill()
        async with asyncio.timeout(timeout):
            while self._dials:
                await asyncio.wait(self._dials)
        if self._failures and not self._idle:
            raise LinkError(f"{self.name}: could not be reached")

    # -- for whoever looks on

    @property
    def idle(self) -> int:
        return len(self._idle)

    def figures(self) -> dict[str, float]:
        """hits, misses, milliseconds of handshake saved, and what became of the connections."""
        return {
            "hits": self.hits,
            "misses": self.misses,
            "saved_ms": round(self.saved * 1000, 1),
            "idle": len(self._idle),
            "dialled": self.dialled,
            "failed": self.failed,
            "died": self.died,
            "aged_out": self.aged_out,
        }

    async def close(self) -> None:
        """Ends everything. Whoever still waits gets a LinkError."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._dials:
            task.cancel()
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(LinkError(f"{self.name}: the pool was closed"))
        idle, self._idle = list(self._idle), deque()
        await asyncio.gather(
            *(self._end(one.connection) for one in idle), *self._closing, *self._dials, return_exceptions=True
        )

    # -- inside

    def refill(self) -> None:
        """Dials what is missing, in the background. Never waits; after a failure, not before the backoff."""
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        wanted = min(self.spare + self.expected, self.bound)
        missing = wanted + len(self._waiting) - len(self._idle) - len(self._dials)
        if loop.time() >= self._not_before:
            for _ in range(missing):
                self._dial(loop)
        if self._timer is None and wanted:
            self._timer = loop.call_later(SWEEP, self._sweep)

    def _dial(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._connect(loop), name=f"{self.name} dial")
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        began = loop.time()
        try:
            connection = await self._open()
        except Exception as error:
            self.failed += 1
            self._not_before = loop.time() + BACKOFF[min(self._failures, len(BACKOFF) - 1)]
            self._failures += 1
            if self._waiting and len(self._dials) <= len(self._waiting):
                self._answer(error)
            elif self._failures == 1:
                logger.warning(f"{self.name}: dialling ahead failed, it is tried again: {error}")
            return
        self.dialled += 1
        self._failures, self._not_before = 0, 0.0
        self._handshake = loop.time() - began
        self._keep(_Idle(connection, loop.time(), self._handshake))

    def _keep(self, idle: _Idle[C]) -> None:
        """Hands a connection to whoever waits longest, or keeps it."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(idle)
                return
        if self._closed or len(self._idle) >= self.bound:
            self.drop(idle.connection)
        else:
            self._idle.append(idle)

    def _answer(self, error: Exception) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(error)
                return

    def _pick(self, now: float) -> _Idle[C] | None:
        """The idle connection used last: it is the least likely to be dead."""
        while self._idle:
            idle = self._idle.pop()
            if self._fresh(idle, now):
                return idle
        return None

    def _fresh(self, idle: _Idle[C], now: float) -> bool:
        """Whether an idle connection may be used; if not, it is counted and closed."""
        if not self._usable(idle.connection):
            self.died += 1
        elif now - idle.since > self.max_idle:
            self.aged_out += 1
        else:
            return True
        self.drop(idle.connection)
        return False

    def _sweep(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for idle in list(self._idle):
            self._idle.remove(idle)
            if self._fresh(idle, now):
                self._idle.append(idle)
        self.refill()

    async def _end(self, connection: C) -> None:
        try:
            await self._close(connection)
        except Exception as error:
            logger.warning(f"{self.name}: closing a connection failed: {type(error).__name__}")
