"""Virtual time: an event loop whose clock jumps to the next timer as soon as nothing is ready.

An hour of `asyncio.sleep` takes milliseconds, and the same test runs the same way every time:

    from voiceflow.testing import run

    async def main() -> None:
        async with asyncio.timeout(3600):
            await asyncio.sleep(3599)

    run(main())

Everything that asks the loop for the time follows: sleep, timeout, wait_for, call_later, call_at. The
clock starts at 0.0 and moves only between callbacks. Work done by other threads and answers from real
sockets take no virtual time, so a timer that is set overtakes them: put a `ScriptedLink` in their place.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import selectors
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

from voiceflow.errors import VoiceflowError
from voiceflow.testing.places import list_handles, list_tasks

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SETTLE_TURNS = 100
"""Turns of the loop that tasks get, at the last instant, to end on their own after main has returned."""
STRAGGLER_SECONDS = 1.0
"""Real seconds that an idle loop gives a live thread or a real socket before it calls a deadlock."""
KEPT_ERRORS = 100


class Deadlock(VoiceflowError, RuntimeError):
    """Nothing is ready and no timer is set: every task waits for something that cannot come any more."""


class Livelock(VoiceflowError, RuntimeError):
    """The loop is busy and gets nowhere: endless callbacks at one instant, or out of real time."""


class Leak(VoiceflowError, AssertionError):
    """Tasks still pending after main returned, or an exception that nobody saw."""


class _When(float):
    """A deadline that remembers how many were set before it.

    asyncio keeps timers in a heap that compares deadlines only, and a heap is not stable: equal deadlines
    come out in any order. With the count as the tie-break they come out in the order in which they were set,
    at exactly their own time."""

    __slots__ = ("order",)
    order: int

    def __lt__(self, other: float) -> bool:
        if isinstance(other, _When) and float.__eq__(self, other):
            return self.order < other.order
        return float.__lt__(self, other)


class _Selector(selectors.DefaultSelector):
    """Polls but never waits: where asyncio would sleep until the next timer, the clock moves there."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop._check_progress()
        events = super().select(0)
        if events or timeout == 0 or self._loop._jump():
            return events
        # The self-pipe is one of the registered files; more than that is a real socket or pipe.
        if threading.active_count() > 1 or len(self.get_map()) > 1:
            events = super().select(STRAGGLER_SECONDS)
        if not events:
            self._loop._fail_deadlocked()
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time; seconds, from 0.0. Timers of equal deadline run in the order set.

    `run_in_executor` (and so `asyncio.to_thread`) calls the function in line and is done at the same
    virtual instant; a function that blocks on something this loop has to do blocks for ever.

    `wall_limit` is the real time that one run may take (None: no limit), `callback_limit` the number of
    callbacks that may run at one virtual instant. Raises Deadlock and Livelock out of `run_until_complete`.
    """

    # asyncio's own queues. Private, but the same in 3.11 to 3.13, and all a custom loop can go by.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _clock_resolution: float
    virtual = True
    """What `voiceflow.clock` asks a loop: model work then runs in line, and traces use this clock."""

    def __init__(self, *, wall_limit: float | None = 30.0, callback_limit: int = 1_000_000) -> None:
        self._now = 0.0
        self._order = itertools.count()
        self._numbers = itertools.count()
        self._all_tasks: weakref.WeakValueDictionary[int, asyncio.Task[Any]] = weakref.WeakValueDictionary()
        self._unseen: list[tuple[str, BaseException | None]] = []
        self._wall_limit = wall_limit
        self._wall_end = math.inf
        self._callback_limit = callback_limit
        self._callbacks_now = 0
        super().__init__(_Selector(self))
        self._set_time(0.0)
        self.set_exception_handler(_keep_error)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Any = None
    ) -> asyncio.TimerHandle:
        deadline = _When(when)
        deadline.order = next(self._order)
        return super().call_at(deadline, callback, *args, context=context)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **options)
        self._all_tasks[next(self._numbers)] = task
        return task

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            future.set_exception(error)
        return future

    def run_forever(self) -> None:
        # A test that hangs must end for the person who waits for it: hence a real clock, for this limit only.
        if self._wall_limit is not None:
            self._wall_end = time.monotonic() + self._wall_limit
        self._callbacks_now = 0
        super().run_forever()

    def pending_tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks that are not done, oldest first."""
        return [task for task in self._all_tasks.values() if not task.done()]

    def settle(self) -> None:
        """Lets whatever is ready run, without moving the clock: cancelled tasks end, callbacks are called."""
        for _ in range(SETTLE_TURNS):
            if not self._ready:
                return
            self.stop()
            self.run_forever()

    def unseen_errors(self) -> list[tuple[str, BaseException | None]]:
        """What went wrong where nobody looked, each once: failed tasks that nobody awaited, and whatever
        came to the loop's exception handler. From here on such errors are logged, as asyncio does."""
        self.set_exception_handler(None)
        for task in self._all_tasks.values():
            if task.done() and not task.cancelled() and task._log_traceback:
                self._unseen.append((f"{task.get_name()} failed and nobody awaited it", task.exception()))
        errors, self._unseen = self._unseen, []
        return errors

    def _set_time(self, now: float) -> None:
        self._now = now
        # asyncio runs all timers below time() + resolution. One ulp makes that exact: those <= now.
        self._clock_resolution = math.ulp(now)
        self._callbacks_now = 0

    def _jump(self) -> bool:
        """Moves the clock to the next timer. False when there is none, or only at infinity."""
        if not self._scheduled or self._scheduled[0].when() == math.inf:
            return False
        self._set_time(float(self._scheduled[0].when()))
        return True

    def _check_progress(self) -> None:
        __tracebackhide__ = True
        # Once a turn. The one stands for timers that are due now: they are not in the ready queue yet.
        self._callbacks_now += len(self._ready) + 1
        if self._callbacks_now > self._callback_limit:
            raise Livelock(
                f"{self._callback_limit} callbacks ran at {self._now:.6f} s of virtual time and it does not"
                " move on. Something polls without sleeping, or two callbacks wake each other for ever."
                f" About to run:\n{list_handles(self._ready)}"
            )
        if time.monotonic() > self._wall_end:
            raise Livelock(
                f"{self._wall_limit} s of real time are over, at {self._now:.6f} s of virtual time. If the"
                " virtual time is large, a periodic task keeps it moving while others wait for ever: bound"
                " that wait with asyncio.timeout(). If it is small, the work itself is slow. Tasks:\n"
                f"{list_tasks(self.pending_tasks())}"
            )

    def _fail_deadlocked(self) -> None:
        __tracebackhide__ = True
        raise Deadlock(
            f"nothing is ready and no timer is set at {self._now:.6f} s of virtual time, so these tasks wait"
            " for ever. What they wait for was never sent, set or closed: do so, or bound the wait with"
            f" asyncio.timeout().\n{list_tasks(self.pending_tasks())}"
        )


def run(main: Coroutine[Any, Any, T], *, debug: bool = False, loop: VirtualTimeLoop | None = None) -> T:
    """Runs `main` in virtual time and returns its result, as `asyncio.run` does, but leaves nothing behind.

    Give `loop` for other limits than the usual; it is closed at the end. Raises what `main` raises, with
    what failed unseen meanwhile as notes. Raises Deadlock and Livelock, and Leak when main returned and
    tasks are pending (unless they end at once), when a task failed and nobody awaited
    it, or when something was reported to the loop's exception handler.
    """
    __tracebackhide__ = True  # for pytest: a failure is shown where main failed
    if asyncio._get_running_loop() is not None:
        main.close()
        raise RuntimeError("run() was called inside a running event loop: await the coroutine instead")
    own = loop or VirtualTimeLoop()
    runner = asyncio.Runner(debug=debug, loop_factory=lambda: own)
    runner.get_loop()
    try:
        result = runner.run(main)
        own.settle()
        if left := own.pending_tasks():
            raise Leak(
                f"main returned at {own.time():.6f} s and left tasks behind ({len(left)}). Whoever starts one"
                f" cancels and awaits it before returning:\n{list_tasks(left)}"
            )
    except BaseException as failure:
        _close(runner, failure)
        _note_unseen(own, failure)
        raise
    _close(runner, None)
    if errors := own.unseen_errors():
        raise Leak("\n".join(_line(*error) for error in errors)) from errors[0][1]
    return result


def _close(runner: asyncio.Runner, failure: BaseException | None) -> None:
    try:
        runner.close()
    except (Deadlock, Livelock) as stuck:
        if failure is None:
            raise
        failure.add_note(f"And when the rest was cancelled: {stuck}")


def _note_unseen(loop: VirtualTimeLoop, failure: BaseException) -> None:
    for what, error in loop.unseen_errors():
        if error is not failure:
            trace = "".join(traceback.format_exception(error)) if error is not None else ""
            failure.add_note(f"Meanwhile: {_line(what, error)}\n{trace}")


def _line(what: str, error: BaseException | None) -> str:
    return what if error is None else f"{what}: {type(error).__name__}: {error}"


def _keep_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualTimeLoop)
    if len(loop._unseen) < KEPT_ERRORS:
        loop._unseen.append((str(context["message"]), context.get("exception")))
