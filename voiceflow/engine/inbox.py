"""An inbox and the runner that serves it: where async handlers get their frames, one at a time, in order.

A processor has one for the caller's lane, one for control frames, and one for each reply. So the caller
never waits for the agent, and an Interrupt is a matter of throwing away the inboxes of one reply: the old
runner is detached and cancelled, its generator closed, while the next reply already has a fresh one.
(Waiting for a handler's slow `finally` cost 300 ms in a prototype; the swap costs 0.1 ms.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from voiceflow.engine.buffers import Depth, Policy, Relief
from voiceflow.engine.processor import Kind, Processor
from voiceflow.engine.routes import AGENT, CALLER, Action, Stop
from voiceflow.errors import BufferOverflowError
from voiceflow.frames import AudioIn, Frame

if TYPE_CHECKING:
    from voiceflow.engine.pump import Pump

FRAMES_A_TURN = 64
"""Frames a runner handles before it lets other tasks run, when no handler of its own ever waits."""

LITTER, LITTER_SECONDS = 32, 0.01
"""More dead frames than this are kept a moment longer: freeing a thousand takes 0.1 ms, which the handlers of
Interrupt would have to wait for."""


class Inbox:
    """A bounded queue of (frame, stop) and the task that serves it. `key` is a reply or a lane."""

    __slots__ = (
        "_bound", "_items", "_mark", "_relief", "_wake", "cancelled", "detached", "dropped", "index",
        "key", "lane", "peak", "processor", "pump", "task", "work",
    )  # fmt: skip

    def __init__(self, pump: Pump, processor: Processor, key: Any) -> None:
        self.pump = pump
        self.processor = processor
        self.index = processor._index
        self.key = key
        self.lane = key if isinstance(key, int) else AGENT
        self.work = 0
        """Frames that have come and are not done with, taps not counted. What a gate waits for."""
        self.peak = 0
        self.dropped = 0
        self.detached = False
        self.cancelled = False
        self._mark = processor.inbox_mark
        self._bound = processor.inbox_bound
        # The hard bound is ours, not deque's maxlen, which would drop agent frames without a word.
        self._items: deque[tuple[Frame, Stop]] = deque()
        self._relief = Relief()
        self._wake: asyncio.Future[None] | None = None
        self.task = pump.loop.create_task(self._serve(), name=f"{type(processor).__name__} {key!r}")

    def __len__(self) -> int:
        return len(self._items)

    @property
    def policy(self) -> Policy:
        return Policy.DROP_OLDEST if self.key == CALLER else Policy.END_CALL

    def depth(self) -> Depth:
        name = f"{self.processor.name} inbox {self.key!r}"
        return Depth(name, len(self._items), self.peak, self._bound, self.policy, self.dropped)

    def put(self, frame: Frame, stop: Stop) -> None:
        """Takes a frame; wakes the runner. Above the mark it tells the pump, above the bound it acts."""
        items = self._items
        items.append((frame, stop))
        if stop.action != Action.SHOW:
            self.work += 1
        depth = len(items)
        if depth > self.peak:
            self.peak = depth
            if depth > self._bound:
                self._overflow()
        if depth > self._mark:
            self.pump.pressed[self] = None
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _overflow(self) -> None:
        self.peak = self._bound  # so that the next frame too many comes here again
        if self.policy is Policy.DROP_OLDEST:
            for place, (frame, stop) in enumerate(self._items):
                if isinstance(frame, AudioIn):
                    del self._items[place]
                    self.work -= stop.action != Action.SHOW
                    self.dropped += 1
                    return
        name, newest = self.processor.name, type(self._items[-1][0]).__name__
        hint = f"it handles frames slower than they come (the last was {newest})"
        self.pump.fault(
            self.processor, "its inbox", BufferOverflowError(f"{name}'s inbox", self._bound, hint)
        )

    async def relieved(self) -> None:
        while len(self._items) > self._mark and not self.detached:
            await self._relief.wait()

    def retire(self, *, cancel: bool) -> asyncio.Task[None] | None:
        """Takes the inbox out of service: the reply is over.

        With `cancel` what waits is thrown away and the handler is cancelled, unless it is the very one
        that asked; the task is returned for reaping when it may take a while to end. Without, it ends
        by itself after its last frame.
        """
        self.detached = True
        self._relief.wake()
        if cancel:
            self.cancelled = True
            self.work = 0
            if len(self._items) > LITTER:
                self.pump.loop.call_later(LITTER_SECONDS, self._items.clear)
        if self._wake is not None and not self._wake.done():  # idle: it sees `detached` and returns
            self._wake.set_result(None)
            return None
        if cancel and not self.task.done() and self.task is not asyncio.current_task(self.pump.loop):
            self.task.cancel()
            return self.task
        return None

    async def _serve(self) -> None:
        items = self._items
        handled = 0
        while True:
            while items:
                frame, stop = items.popleft()
                if self._relief._waiters and len(items) <= self._mark:
                    self._relief.wake()
                await self._handle(frame, stop)
                if self.cancelled:
                    return
                if stop.action != Action.SHOW:
                    if self.pump.behind:  # what came of it is still on its way: a gate has to know
                        await self.pump.moved(stop.lane)
                    self.work -= 1
                handled += 1
                if handled >= FRAMES_A_TURN:
                    handled = 0
                    await asyncio.sleep(0)
            if self.detached:
                return
            self._wake = self.pump.loop.create_future()
            await self._wake
            self._wake = None

    async def _handle(self, frame: Frame, stop: Stop) -> None:
        """Runs one handler and sends on what it gives. Its errors end the call, not this task."""
        pump = self.pump
        try:
            if stop.action == Action.GATE:
                await self._emit(frame, frame, stop)
            elif stop.kind == Kind.COROUTINE:
                out = await stop.handler(frame)
                if stop.action == Action.JOIN and out is not None and not self.cancelled:
                    await self._emit(out, frame, stop)
            else:
                await self._iterate(frame, stop)
        except asyncio.CancelledError:
            if self.detached or pump.closed:
                raise
            pump.fault(self.processor, stop.stage, RuntimeError("it was cancelled from outside"))
        except Exception as error:
            if self.cancelled:  # its clean-up failed; nobody waits for this reply any more
                log = self.processor.call.log
                log.warning(f"{self.processor.name}: {stop.stage} failed after its reply was dead: {error!r}")
            else:
                pump.fault(self.processor, stop.stage, error)

    async def _iterate(self, frame: Frame, stop: Stop) -> None:
        frames = stop.handler(frame)
        try:
            async for out in frames:
                if self.cancelled:
                    break
                if stop.action == Action.JOIN:
                    await self._emit(out, frame, stop)
        finally:
            await frames.aclose()

    async def _emit(self, out: Frame, source: Frame, stop: Stop) -> None:
        """Sends a frame on, then holds the handler until the inboxes it overfilled are below their mark."""
        pump = self.pump
        pump.pressed.clear()
        pump.emit(out, source, stop)
        if pump.behind:
            await pump.moved(stop.lane)
        if pump.pressed:
            await pump.relief(self.index, stop.lane)
