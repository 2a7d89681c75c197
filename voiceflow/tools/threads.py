"""Threads for tools that are plain functions, so that one that waits for a database does not stop the calls.

Each piece of work has a thread of its own. It is a daemon: a function that never returns is left alone when
its time is over, keeps its place here, and does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

from voiceflow.errors import CallEnded
from voiceflow.services import Services
from voiceflow.tools.result import NOT_BEGUN
from voiceflow.tools.tool import ToolWithdrawn

THREADS = 16
"""At a time, for all calls of the process. They wait for others most of the time: cores do not matter."""


class ToolThreads:
    """Shared by all calls: `ToolThreads.of(services)`."""

    def __init__(self, size: int = THREADS) -> None:
        self._room = asyncio.Semaphore(size)  # its waiters are uses, of which a desk bounds the number
        self._closed = False

    @classmethod
    def of(cls, services: Services) -> ToolThreads:
        return services.shared("tool threads", cls)

    async def run(self, work: Callable[[], Any], wanted: Callable[[], bool]) -> Any:
        """What `work` returns or raises. It has to be `wanted` still when a thread is free: else
        ToolWithdrawn. Cancelled, it leaves a thread that runs already to itself."""
        await self._room.acquire()
        if self._closed or not wanted():
            self._room.release()
            raise CallEnded("the process is about to end") if self._closed else ToolWithdrawn(NOT_BEGUN)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

        def finished(value: Any, error: BaseException | None) -> None:
            self._room.release()
            if not done.done():
                done.set_result((value, error))

        def serve() -> None:
            value, error = None, None
            try:
                value = work()
            except BaseException as raised:  # SystemExit too: it is only this tool's
                error = raised
            try:
                loop.call_soon_threadsafe(finished, value, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(serve,), name="voiceflow-tool", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._room.release()
            raise
        value, error = await done
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Nothing is begun any more. What runs is not waited for."""
        self._closed = True
