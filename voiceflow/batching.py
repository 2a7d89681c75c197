"""A batcher: pieces of model work from many calls, done in one go.

It never waits for a batch to fill. What arrives in one tick of the event loop is a batch; while one is being
computed in the pool, what arrives forms the next. Alone, a piece goes through at once; under load batches
grow by themselves. (Silero on one thread: 115 us for one stream, 36 us a stream for 64.)

A small batch of small work may be computed on the event loop itself: to a thread and back takes 0.2 ms, more
than the work, and up to the interpreter's switch interval of 5 ms when the loop is busy.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from voiceflow.clock import is_virtual
from voiceflow.services import Services

A = TypeVar("A")
B = TypeVar("B")
Done = Callable[[B | None, Exception | None], None]
Outcome = tuple[B | None, Exception | None]

WAITING_BOUND = 4096
"""Pieces that may wait. With one piece per call at a time, more calls than a process can hold."""


class Batcher(Generic[A, B]):
    """Batches `work(items) -> results`, at most `most` at a time, in the services' pool.

    Up to `small` items are computed in line: only for work that takes well under a millisecond. `cost` is
    what one batch takes in virtual time, in seconds. When a batch fails, its items are tried one by one, so
    that an error reaches only the item that caused it.
    """

    def __init__(
        self,
        services: Services,
        work: Callable[[Sequence[A]], Sequence[B]],
        *,
        cost: float,
        most: int = 64,
        small: int = 0,
    ) -> None:
        self._services = services
        self._work = work
        self._cost = cost
        self._most = most
        self._small = small
        self._waiting: deque[tuple[A, Done[B]]] = deque()  # bounded by WAITING_BOUND in `submit`
        self._busy = False
        """A batch is being computed, or will be in the next tick."""
        self._task: asyncio.Task[None] | None = None

    def submit(self, item: A, done: Done[B]) -> None:
        """Computes one item, then calls `done(result, None)` or `done(None, error)`; never before it returns.

        `done` must not raise. OverflowError when WAITING_BOUND items wait already.
        """
        if len(self._waiting) >= WAITING_BOUND:
            raise OverflowError(f"{WAITING_BOUND} pieces of model work wait already: too many calls")
        self._waiting.append((item, done))
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._next)

    async def result(self, item: A) -> B:
        """The same for whoever would rather wait. Raises what the work raised for this item."""
        future: asyncio.Future[B] = asyncio.get_running_loop().create_future()

        def done(result: B | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        self.submit(item, done)
        return await future

    def close(self) -> None:
        """Gives up what waits and what is being computed: nobody hears of it any more."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    def _next(self) -> None:
        """Computes the next batch, here if it is small."""
        batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        loop = asyncio.get_running_loop()
        if not batch:
            self._busy = False
        elif len(batch) <= self._small and not is_virtual(loop):
            self._deliver(batch, self._attempt([item for item, _ in batch]))
        else:
            self._task = loop.create_task(self._in_pool(batch), name="batcher")

    async def _in_pool(self, batch: list[tuple[A, Done[B]]]) -> None:
        items = [item for item, _ in batch]
        self._deliver(batch, await self._services.compute(self._attempt, self._cost, items))

    def _deliver(self, batch: list[tuple[A, Done[B]]], outcomes: Sequence[Outcome[B]]) -> None:
        for (_, done), (result, error) in zip(batch, outcomes, strict=True):
            done(result, error)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._busy = False

    def _attempt(self, items: Sequence[A]) -> list[Outcome[B]]:
        """Results, or the errors of those that failed. May run in a thread."""
        try:
            results = self._work(items)
            if len(results) != len(items):
                raise RuntimeError(f"the work gave {len(results)} results for {len(items)} pieces")
        except Exception as error:
            if len(items) == 1:
                return [(None, error)]
            return [outcome for item in items for outcome in self._attempt([item])]
        return [(result, None) for result in results]
