"""Tasks that are owned: each has a name, none outlives its call, and one that refuses to end is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Failed = Callable[[str, Exception], None]


class Overdue(TimeoutError):
    """Work took longer than it may. Another TimeoutError is the work's own."""


class Tasks:
    """The tasks of one call. `failed(name, error)` is called when one raises."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], str] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None], name: str, failed: Failed) -> asyncio.Task[None]:
        """Starts a task of our own."""
        task = asyncio.get_running_loop().create_task(work, name=name)

        def done(ended: asyncio.Task[None]) -> None:
            self._tasks.pop(ended, None)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                failed(name, error if isinstance(error, Exception) else RuntimeError(repr(error)))

        self._tasks[task] = name
        task.add_done_callback(done)
        return task

    def adopt(self, task: asyncio.Task[Any], name: str) -> None:
        """Owns a task that is ending already (a cancelled runner). What it raises is not news any more."""
        self._tasks[task] = name
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            task.exception()

    async def within(self, limit: float, work: Coroutine[Any, Any, None], name: str) -> None:
        """Awaits `work` for up to `limit` seconds, then cancels it and raises Overdue at once.

        Unlike asyncio.timeout it does not depend on the work to obey: work that swallows its cancellation
        is left to `end`.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.adopt(task, name)
        try:
            done, _ = await asyncio.wait({task}, timeout=limit)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task}, timeout=limit)
            raise
        if not done:
            task.cancel()
            raise Overdue
        if task.cancelled():  # not by us: something it awaited was, and that is its failure, not ours
            raise RuntimeError("it awaited something that was cancelled")
        task.result()

    async def end(self, limit: float) -> list[str]:
        """Cancels all and waits up to `limit` seconds; returns the names of those that went on."""
        mine = asyncio.current_task()
        waiting = [task for task in self._tasks if task is not mine]
        for task in waiting:
            if not task.cancelling():  # a second time would cut short the clean-up that the first began
                task.cancel()
        if waiting:
            await asyncio.wait(waiting, timeout=limit)
        return [self._tasks[task] for task in waiting if not task.done() and task in self._tasks]
