"""Warm connections: dialled ahead, checked, replaced when old, refilled, shared by all calls of the process.

    take ──▶ one that waits here (a hit: its handshake is saved), or the next that is dialled (a miss)
    give ──▶ it waits here again          drop ──▶ it is closed, and another is dialled

A handshake costs two or three round trips, about 300 ms to a vendor far away: dialled before it is needed,
it costs nobody anything. The pool keeps `spare` connections idle, and one more for every caller that has
said it will need one (`expect`), so that a cancelled turn, which costs an HTTP/1.1 connection, finds another.

The rules, which hold between any two steps:

1. There are at most `bound` idle connections.
2. For everybody who waits in `take` a dial is under way: nobody waits for something that cannot come.
3. Nobody waits while a connection is idle.
4. An old connection is closed when another stands ready in its place, and is used until then.
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
DIALS = 8
"""Dials ahead at once: a vendor that has just restarted is not met by one for every call."""
CLOSE_LIMIT = 5.0
"""Seconds that closing a connection may take."""


@dataclass(slots=True, eq=False)
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
    """Connections of one kind. `open` dials one, in bounded time, and raises LinkError; `close` ends one.

    usable     asked before an idle connection is handed out, and once a second
    handshake  seconds that opening one took, for the figures; all that `open` took when not given
    spare      idle connections kept beyond those that are expected
    bound      idle connections at most; more are closed when they are given back
    max_idle   seconds after which an idle connection is replaced: well below the vendor's own limit, for
               the replacement has to be dialled first
    """

    def __init__(
        self,
        name: str,
        open: Callable[[], Awaitable[C]],
        close: Callable[[C], Awaitable[None]],
        *,
        usable: Callable[[C], bool] = lambda connection: True,
        handshake: Callable[[C], float] | None = None,
        spare: int = 1,
        bound: int = 64,
        max_idle: float = 60.0,
    ) -> None:
        self.name = name
        self._open, self._close, self._usable, self._took = open, close, usable, handshake
        self.spare, self.bound, self.max_idle = spare, bound, max_idle
        self.expected = 0
        self.hits = self.misses = self.dialled = self.failed = self.died = self.aged_out = 0
        self.saved = 0.0
        self._handshake = 0.0
        """Seconds the latest one took: what reusing a connection saves."""
        self._idle: deque[_Idle[C]] = deque()
        """The one that has waited longest comes first."""
        self._waiting: deque[asyncio.Future[_Idle[C]]] = deque()
        self._dials: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.error: Exception | None = None
        """Why the latest dial failed; None when it did not."""
        self._failures = 0
        """Rounds of dials that failed one after another."""
        self._not_before = 0.0
        self._closed = False

    # -- for those who need connections

    def expect(self, more: int = 1) -> None:
        """One more caller will need a connection soon; -1 when it no longer does. Dials ahead at once."""
        self.expected = max(0, self.expected + more)
        self.refill()

    def take_idle(self) -> Taken[C] | None:
        """An idle connection, or None: then whoever asks makes one of his own, and may `give` it later.
        LinkError when the pool is closed."""
        if self._closed:
            raise LinkError(f"{self.name}: the pool is closed")
        idle = self._pick()
        if idle is None:
            self.misses += 1
        else:
            self.hits += 1
            self.saved += idle.handshake
        self.refill()
        return None if idle is None else Taken(idle.connection, True, idle.handshake, 0.0)

    async def take(self) -> Taken[C]:
        """A connection: an idle one, or the first that is dialled or given back. Raises what dialling raises,
        LinkError when the pool is closed."""
        if (taken := self.take_idle()) is not None:
            return taken
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting: asyncio.Future[_Idle[C]] = loop.create_future()
        self._waiting.append(waiting)
        self._dial(loop)  # one of its own: a dial that is under way may be stuck
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
        self._keep(_Idle(connection, asyncio.get_running_loop().time(), self._handshake))
        return self.refill()

    def drop(self, connection: C) -> None:
        """Closes a connection in the background and dials another if that leaves too few."""
        self._shut(connection)
        self.refill()

    async def fill(self, timeout: float = 10.0) -> None:
        """Waits until as many are idle as should be: for warming up. Raises what dialling raised when not one
        is idle, LinkError when it takes longer than `timeout` seconds."""
        self.refill()
        try:
            async with asyncio.timeout(timeout):
                while self._dials and len(self._idle) < self.wanted:
                    await asyncio.wait(self._dials, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise LinkError(f"{self.name}: nothing was dialled in {timeout:g} s") from None
        if not self._idle and self.error is not None:
            raise self.error

    # -- for whoever looks on

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def wanted(self) -> int:
        """How many should be idle."""
        return min(self.spare + self.expected, self.bound)

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
        while self._waiting:
            self._answer(LinkError(f"{self.name}: the pool was closed"))
        while self._idle:
            self._shut(self._idle.pop().connection)
        for task in self._dials:
            task.cancel()
        while tasks := self._dials | self._closing:  # what a dial has just made is closed after it
            done, _ = await asyncio.wait(tasks, timeout=CLOSE_LIMIT + 1.0)
            if not done:
                logger.warning(f"{self.name}: {len(tasks)} connections would not close")
                return

    # -- inside

    def refill(self) -> None:
        """Dials what is missing, in the background. Never waits; after a failure one at a time, and not
        before the backoff is over."""
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= self._not_before:
            ahead = len(self._dials) - len(self._waiting)
            good = sum(not self._old(idle, now) for idle in self._idle)
            room = (1 if self._failures else DIALS) - ahead
            for _ in range(min(self.wanted - good - ahead, room)):
                self._dial(loop)
        if self._timer is None and (self.wanted or self._idle):
            self._timer = loop.call_later(SWEEP, self._sweep)

    def _dial(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._connect(loop), name=f"{self.name} dial")
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        began = loop.time()
        error: Exception | None = None
        try:
            connection = await self._open()
        except asyncio.CancelledError:
            error = LinkError(f"{self.name}: dialling was cancelled")
            raise
        except Exception as failure:
            error = failure
        finally:
            if (task := asyncio.current_task()) is not None:
                self._dials.discard(task)
            if error is not None and not self._closed:
                self._fail(error, loop.time())
        if error is not None:
            return
        now = loop.time()
        self.dialled += 1
        self.error, self._failures, self._not_before = None, 0, 0.0
        self._handshake = self._took(connection) if self._took is not None else now - began
        self._keep(_Idle(connection, now, self._handshake))
        self._retire(now)
        self.refill()

    def _fail(self, error: Exception, now: float) -> None:
        self.failed += 1
        self.error = error
        if now >= self._not_before:  # the others of the same round are no news
            self._not_before = now + BACKOFF[min(self._failures, len(BACKOFF) - 1)]
            self._failures += 1
            if self._failures == 1:
                logger.warning(f"{self.name}: dialling failed, it is tried again: {error}")
        if len(self._waiting) > len(self._dials):
            self._answer(error)

    def _answer(self, error: Exception) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(error)
                return

    def _keep(self, idle: _Idle[C]) -> None:
        """Hands a connection to whoever waits longest, or keeps it."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(idle)
                return
        if self._closed or len(self._idle) >= self.bound:
            self._shut(idle.connection)
        else:
            self._idle.append(idle)

    def _pick(self) -> _Idle[C] | None:
        """The idle connection used last: it is the least likely to be dead."""
        while self._idle:
            idle = self._idle.pop()
            if self._usable(idle.connection):
                return idle
            self.died += 1
            self._shut(idle.connection)
        return None

    def _old(self, idle: _Idle[C], now: float) -> bool:
        return now - idle.since >= self.max_idle

    def _retire(self, now: float) -> None:
        """Closes the old connections that are not needed any more."""
        while len(self._idle) > self.wanted and self._old(self._idle[0], now):
            self.aged_out += 1
            self._shut(self._idle.popleft().connection)

    def _sweep(self) -> None:
        self._timer = None
        dead = [idle for idle in self._idle if not self._usable(idle.connection)]
        for idle in dead:
            self._idle.remove(idle)
            self.died += 1
            self._shut(idle.connection)
        self._retire(asyncio.get_running_loop().time())
        self.refill()

    def _shut(self, connection: C) -> None:
        task = asyncio.get_running_loop().create_task(self._end(connection), name=f"{self.name} close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _end(self, connection: C) -> None:
        try:
            async with asyncio.timeout(CLOSE_LIMIT):
                await self._close(connection)
        except Exception as error:
            logger.warning(f"{self.name}: closing a connection failed: {type(error).__name__}")
