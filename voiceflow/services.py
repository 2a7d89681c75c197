"""What all calls of a process share: a bounded pool for model work, models, and warm connections."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, runtime_checkable

from voiceflow.clock import is_virtual
from voiceflow.line.link import Link

if TYPE_CHECKING:
    import httpx2

P = ParamSpec("P")
T = TypeVar("T")

WORKERS = max(1, min(4, (os.cpu_count() or 2) - 1))
"""Threads for model work. One core stays for the event loop; models release the lock while they compute."""
PENDING_BOUND = 256
"""Pieces of model work that may wait for a thread; beyond that `compute` waits before it hands one over."""


class Dial(Protocol):
    """Makes a Link. The live one opens a WebSocket; a test gives a scripted one."""

    async def __call__(self, url: str, *, headers: Mapping[str, str], timeout: float) -> Link: ...


@runtime_checkable
class Counting(Protocol):
    """Something shared that counts what it does."""

    name: str

    def figures(self) -> dict[str, float]: ...


class Services:
    """One per process and event loop. Close it after the last call.

    `dial` replaces how links are made; `transport` makes what an SDK that speaks HTTP sends its requests
    through, instead of a real connection. Both are for tests.
    """

    def __init__(
        self,
        *,
        dial: Dial | None = None,
        transport: Callable[[], httpx2.AsyncBaseTransport] | None = None,
        workers: int = WORKERS,
    ) -> None:
        self._workers = workers
        self._pool: ThreadPoolExecutor | None = None
        self._room: asyncio.Semaphore | None = None
        self._shared: dict[Hashable, Any] = {}
        self.dial: Dial = dial or _dial_websocket
        self.transport = transport

    def shared(self, key: Hashable, make: Callable[[], T]) -> T:
        """What all calls share under `key`, made on first use: a model's batcher, a pool of sockets."""
        if key not in self._shared:
            self._shared[key] = make()
        found: T = self._shared[key]
        return found

    async def compute(self, work: Callable[P, T], cost: float, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` off the event loop; in virtual time in line, taking `cost` seconds of it."""
        loop = asyncio.get_running_loop()
        if is_virtual(loop):
            result = work(*args, **kwargs)
            await asyncio.sleep(cost)
            return result
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="voiceflow-compute")
            self._room = asyncio.Semaphore(PENDING_BOUND)
        assert self._room is not None
        async with self._room:
            return await loop.run_in_executor(self._pool, lambda: work(*args, **kwargs))

    def figures(self) -> dict[str, dict[str, float]]:
        """What the shared things that count have counted: pools of connections, by name."""
        counting = [each for each in self._shared.values() if isinstance(each, Counting)]
        return {each.name: each.figures() for each in counting}

    async def close(self) -> None:
        """Ends the pool, and what is shared and has a `close` of its own. Idempotent."""
        shared, self._shared = list(self._shared.values()), {}
        for each in shared:
            if callable(close := getattr(each, "close", None)) and inspect.isawaitable(ending := close()):
                await ending
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


async def _dial_websocket(url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
    from voiceflow.line.dialled import connect

    return await connect(url, headers=headers, timeout=timeout)
