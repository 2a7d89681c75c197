"""The audio of one reply on its way to the line."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from voiceflow.frames import AudioOut

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class Outlet:
    """Hands frames on as fast as the line takes them. Replies do not wait for each other here, and the vendor
    waits for none of them: its connection is always read.

    put     gives the line a frame, and waits while it has too many
    moved   called after each
    over    called after the last
    """

    def __init__(
        self,
        spawn: Spawn,
        put: Callable[[AudioOut], Awaitable[None]],
        moved: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        self.samples = 0
        """How many wait."""
        self._spawn, self._put, self._moved, self._over = spawn, put, moved, over
        self._frames: deque[tuple[AudioOut, int]] = deque()  # whoever adds bounds `samples`
        self._news = asyncio.Event()
        self._finished = False
        self._task: asyncio.Task[None] | None = None

    def add(self, frame: AudioOut, samples: int) -> None:
        """The next frame. Who gives them looks at `samples`, which is bounded there."""
        self._frames.append((frame, samples))
        self.samples += samples
        self._wake()

    def finish(self) -> None:
        """There will be no more."""
        self._finished = True
        self._wake()

    def stop(self) -> None:
        """Nothing more comes out."""
        self._frames.clear()
        self.samples = 0
        if self._task is not None:
            self._task.cancel()

    def _wake(self) -> None:
        self._news.set()
        if self._task is None:
            self._task = self._spawn(self._run(), "outlet")

    async def _run(self) -> None:
        while self._frames or not self._finished:
            if not self._frames:
                self._news.clear()
                await self._news.wait()
                continue
            frame, samples = self._frames.popleft()
            self.samples -= samples
            await self._put(frame)
            self._moved()
        self._over()
