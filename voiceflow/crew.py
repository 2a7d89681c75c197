"""The processors of a call as a crew: started together, stopped together, and nobody waited for too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from voiceflow.engine.processor import Processor
from voiceflow.engine.tasks import Overdue, Tasks

if TYPE_CHECKING:
    from loguru import Logger

Fail = Callable[[Processor | None, str, Exception], None]

CLOSING_LIMIT = 5.0
"""Seconds each step of closing may take: end hooks, cancelled tasks, handlers of CallEnd."""


class Crew:
    """`fail(processor, stage, error)` is told who could not be started; it must not raise."""

    def __init__(self, chain: tuple[Processor, ...], tasks: Tasks, fail: Fail, log: Logger) -> None:
        self._chain = chain
        self._tasks = tasks
        self._fail = fail
        self._log = log

    async def start(self) -> None:
        """All at the same time, each within its `start_timeout`."""
        await asyncio.gather(*(self._start(processor) for processor in self._chain))

    async def stop(self) -> None:
        """All at the same time, each within its `stop_timeout`. Never raises."""
        await asyncio.gather(*(self._stop(processor) for processor in self._chain))

    def reap(self, processor: Processor, task: asyncio.Task[None]) -> None:
        """A cancelled runner cleans up in its own time; after `stop_timeout` it is named."""
        self._tasks.adopt(task, f"{type(processor).__name__} cancelled handler")
        loop = task.get_loop()
        loop.call_later(processor.stop_timeout, self._name_straggler, processor, task)

    async def bounded(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """A step of closing: it may take CLOSING_LIMIT, and may fail."""
        try:
            await self._tasks.within(CLOSING_LIMIT, work, what)
        except Overdue:
            self._log.warning(f"{what} took more than {CLOSING_LIMIT:g} s")
        except Exception as error:
            self._log.opt(exception=error).warning(f"{what} failed: {error}")

    async def _start(self, processor: Processor) -> None:
        try:
            await self._tasks.within(processor.start_timeout, processor.start(), f"{processor.name} start")
        except Overdue:
            hint = f"it was not ready after {processor.start_timeout:g} s"
            self._fail(processor, "start", TimeoutError(hint))
        except Exception as error:
            self._fail(processor, "start", error)

    async def _stop(self, processor: Processor) -> None:
        try:
            await self._tasks.within(processor.stop_timeout, processor.stop(), f"{processor.name} stop")
        except Overdue:
            self._log.warning(f"{processor.name}: stop() took more than {processor.stop_timeout:g} s")
        except Exception as error:
            self._log.opt(exception=error).warning(f"{processor.name}: stop() failed: {error}")

    def _name_straggler(self, processor: Processor, task: asyncio.Task[None]) -> None:
        if not task.done():
            limit = f"{processor.stop_timeout:g} s"
            self._log.warning(f"{processor.name}: a cancelled handler still runs after {limit}")
