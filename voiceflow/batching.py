"""A batcher: pieces of model work from many calls, done in one go.

It never waits for a batch to fill. While one batch is being computed, what arrives forms the next: alone,
a piece goes through at once; under load batches grow by themselves. (Silero on one thread: 115 us for one
stream, 36 us a stream for 64.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from voiceflow.services import Services

A = TypeVar("A")
B = TypeVar("B")

WAITING_BOUND = 4096
"""Pieces that may wait. With one piece per call at a time, more calls than a process can hold."""


class Batcher(Generic[A, B]):
    """Batches `work(items) -> results`, at most `most` at a time, in the services' pool.

    `cost` is what one batch takes in virtual time, in seconds. An error of `work` reaches every item of its
    batch, so `work` should check what it is given first.
    """

    def __init__(
        self, services: Services, work: Callable[[Sequence[A]], Sequence[B]], *, cost: float, most: int = 64
    ) -> None:
        self._services = services
        self._work = work
        self._cost = cost
        self._most = most
        self._waiting: deque[tuple[A, asyncio.Future[B]]] = deque()  # bounded by WAITING_BOUND in `submit`
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: A) -> B:
        """The result for one item. OverflowError when WAITING_BOUND items wait already."""
        if len(self._waiting) >= WAITING_BOUND:
            raise OverflowError(f"{WAITING_BOUND} pieces of model work wait already: too many calls")
        result: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="batcher")
        return await result

    async def _run(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            batch = [(item, result) for item, result in batch if not result.done()]
            try:
                results = await self._services.compute(self._work, self._cost, [item for item, _ in batch])
            except Exception as error:
                for _, result in batch:
                    if not result.done():
                        result.set_exception(error)
                continue
            for (_, result), value in zip(batch, results, strict=True):
                if not result.done():
                    result.set_result(value)
