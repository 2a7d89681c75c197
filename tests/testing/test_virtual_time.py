"""The virtual-time loop: exact times, stable order, and failures instead of hanging or hiding."""

from __future__ import annotations

import asyncio
import math
import os
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceflow.errors import VoiceflowError
from voiceflow.testing import Deadlock, Leak, Livelock, VirtualTimeLoop, clock, run

HERE = os.path.basename(__file__)


def now() -> float:
    return asyncio.get_running_loop().time()


async def forever() -> None:
    await asyncio.Event().wait()


# -- the clock -----------------------------------------------------------------------------------


def test_an_hour_of_sleep_takes_no_real_time():
    async def main() -> tuple[float, float]:
        start = now()
        await asyncio.sleep(3600)
        return start, now()

    began = time.monotonic()
    assert run(main()) == (0.0, 3600.0)
    assert time.monotonic() - began < 5


def test_timeout_wait_for_call_later_and_call_at_share_the_clock():
    async def main() -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []
        loop = asyncio.get_running_loop()
        loop.call_later(10, lambda: seen.append(("later", now())))
        loop.call_at(20, lambda: seen.append(("at", now())))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await forever()
        seen.append(("timeout", now()))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(forever(), 10)
        seen.append(("wait_for", now()))
        return seen

    assert run(main()) == [("later", 10.0), ("at", 20.0), ("timeout", 30.0), ("wait_for", 40.0)]


def test_the_clock_stands_still_while_something_is_ready():
    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return now()

    assert run(main()) == 0.0


def test_a_timer_days_away_is_reached_exactly():
    async def main() -> float:
        await asyncio.sleep(10 * 86400 + 0.02)
        return now()

    assert run(main()) == 10 * 86400 + 0.02


deadlines = st.one_of(
    st.sampled_from([0.0, 0.02, 0.1 + 0.2, 0.3, 1.0, 1.0 + 2**-52, 1e9]),
    st.floats(min_value=0.0, max_value=1e6, allow_nan=False),
)


@given(st.lists(st.tuples(deadlines, st.booleans()), max_size=60))
def test_timers_run_at_their_time_and_equal_ones_in_the_order_set(timers: list[tuple[float, bool]]):
    ran: list[tuple[float, int]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        handles = [
            loop.call_at(when, lambda number=number: ran.append((now(), number)))
            for number, (when, _) in enumerate(timers)
        ]
        for handle, (_, cancelled) in zip(handles, timers, strict=True):
            if cancelled:
                handle.cancel()
        await asyncio.sleep(2e9)

    run(main())
    expected = [(when, number) for number, (when, cancelled) in enumerate(timers) if not cancelled]
    assert ran == sorted(expected)


def test_equal_timers_stay_in_order_when_asyncio_throws_out_cancelled_ones():
    # Above 100 timers, half of them cancelled, asyncio rebuilds its heap.
    ran: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        handles = [loop.call_at(5, ran.append, number) for number in range(400)]
        for handle in handles[::2] + handles[1::4]:
            handle.cancel()
        await asyncio.sleep(6)

    run(main())
    assert ran == list(range(3, 400, 4))


def test_a_stock_loop_does_not_keep_equal_timers_in_order():
    # The reason for the tie-break. Should asyncio ever keep the order itself, it can go.
    async def main() -> list[int]:
        ran: list[int] = []
        loop = asyncio.get_running_loop()
        when = loop.time()
        for number in range(20):
            loop.call_at(when, ran.append, number)
        await asyncio.sleep(0.001)
        return ran

    ran = asyncio.run(main())
    assert sorted(ran) == list(range(20)) != ran


def test_the_same_program_runs_the_same_way_twice():
    async def main() -> list[tuple[float, int]]:
        dice = random.Random(7)
        seen: list[tuple[float, int]] = []
        queue: asyncio.Queue[int] = asyncio.Queue(3)

        async def produce(number: int) -> None:
            for _ in range(20):
                await asyncio.sleep(dice.choice([0, 0.02, 0.02, 0.1]))
                await queue.put(number)

        async def consume() -> None:
            for _ in range(100):
                number = await queue.get()
                seen.append((now(), number))

        async with asyncio.TaskGroup() as group:
            group.create_task(consume())
            for number in range(5):
                group.create_task(produce(number))
        return seen

    assert run(main()) == run(main())


# -- other threads, sockets, executors -----------------------------------------------------------


def test_work_for_an_executor_is_done_in_line_and_takes_no_time():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        here = threading.get_ident()
        await asyncio.sleep(1)
        assert await loop.run_in_executor(None, threading.get_ident) == here
        assert await asyncio.to_thread(lambda *numbers: sum(numbers), 1, 2) == 3
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        assert now() == 1.0

    run(main())


def test_another_thread_wakes_an_idle_loop():
    async def main() -> str:
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        thread = threading.Thread(
            target=lambda: loop.call_soon_threadsafe(answer.set_result, "from a thread")
        )
        thread.start()
        try:
            return await answer
        finally:
            thread.join()

    assert run(main()) == "from a thread"


def test_a_socket_that_is_ready_is_read_before_the_clock_moves():
    async def main() -> tuple[bytes, float]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.send(b"hello")
            async with asyncio.timeout(5):
                return await asyncio.get_running_loop().sock_recv(ours, 10), now()

    assert run(main()) == (b"hello", 0.0)


# -- it never hangs ------------------------------------------------------------------------------


def test_a_deadlock_names_the_tasks_and_where_they_wait():
    async def reader(queue: asyncio.Queue[str]) -> None:
        await queue.get()

    async def main() -> None:
        await asyncio.sleep(1.5)
        async with asyncio.TaskGroup() as group:
            group.create_task(reader(asyncio.Queue()), name="the reader")

    with pytest.raises(Deadlock) as caught:
        run(main())
    message = str(caught.value)
    line = reader.__code__.co_firstlineno + 1
    assert "at 1.500000 s of virtual time" in message
    assert f"{HERE}:{line} in " in message
    assert "the reader (" in message
    assert "(Queue.get)" in message
    assert "main" in message
    assert isinstance(caught.value, VoiceflowError)
    assert isinstance(caught.value, RuntimeError)


def test_a_deadlock_tells_of_the_task_that_died_before():
    async def dies() -> None:
        raise ValueError("the real reason")

    async def main() -> None:
        task = asyncio.create_task(dies(), name="the sender")
        await forever()
        task.cancel()

    with pytest.raises(Deadlock) as caught:
        run(main())
    (note,) = caught.value.__notes__
    assert "the sender failed and nobody awaited it: ValueError: the real reason" in note
    assert "in dies" in note


def test_a_timer_at_infinity_is_no_timer():
    with pytest.raises(Deadlock):
        run(asyncio.sleep(math.inf))


def test_a_live_thread_is_given_a_moment_and_no_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clock, "STRAGGLER_SECONDS", 0.01)
    release = threading.Event()
    thread = threading.Thread(target=release.wait, args=(10,))
    thread.start()
    try:
        with pytest.raises(Deadlock):
            run(forever())
    finally:
        release.set()
        thread.join()


def test_a_deadlock_still_runs_the_clean_up():
    cleaned: list[float] = []

    async def main() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(2)
            cleaned.append(now())

    with pytest.raises(Deadlock):
        run(main())
    assert cleaned == [2.0]


async def polls(pause: float = 0.0) -> None:
    while True:  # noqa: ASYNC110
        await asyncio.sleep(pause)


async def rearms() -> None:
    loop = asyncio.get_running_loop()

    def again() -> None:
        loop.call_later(0, again)

    again()
    await forever()


@pytest.mark.parametrize("busy", [polls, rearms])
def test_endless_callbacks_at_one_instant_are_a_livelock(busy: Callable[[], Any]):
    async def main() -> None:
        await asyncio.sleep(3)
        await busy()

    with pytest.raises(Livelock, match=r"5000 callbacks ran at 3\.000000 s") as caught:
        run(main(), loop=VirtualTimeLoop(callback_limit=5000))
    if busy is polls:
        assert f"{HERE}:{polls.__code__.co_firstlineno + 2} in polls (sleep)" in str(caught.value)


def test_a_clock_that_moves_for_ever_runs_into_the_wall():
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(polls(0.02), name="heartbeat")
            group.create_task(forever())

    with pytest.raises(Livelock, match="of real time are over") as caught:
        run(main(), loop=VirtualTimeLoop(wall_limit=0.05))
    assert f"in {forever.__qualname__} (Event.wait)" in str(caught.value)
    assert "heartbeat" in str(caught.value)


def test_long_lists_of_tasks_are_cut():
    async def main() -> None:
        await asyncio.gather(*(forever() for _ in range(100)))

    with pytest.raises(Deadlock, match="and 81 more"):
        run(main())


# -- it leaves nothing behind --------------------------------------------------------------------


def test_a_pending_task_is_a_leak_and_is_named():
    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        tasks.append(asyncio.create_task(forever(), name="keepalive"))
        await asyncio.sleep(1)

    with pytest.raises(Leak, match=r"main returned at 1\.000000 s and left tasks behind \(1\)") as caught:
        run(main())
    assert f"keepalive (forever) at {forever.__code__.co_filename}:" in str(caught.value)
    assert isinstance(caught.value, AssertionError)
    assert tasks[0].cancelled()


def test_a_task_that_was_cancelled_or_ends_at_once_is_no_leak():
    async def three_turns() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def main() -> str:
        cancelled, ending = asyncio.create_task(forever()), asyncio.create_task(three_turns())
        await asyncio.sleep(0)
        cancelled.cancel()
        return f"{cancelled.done()} {ending.done()}"

    assert run(main()) == "False False"


def test_a_task_that_refuses_to_be_cancelled_cannot_hang_the_end():
    async def stubborn() -> None:
        while True:
            try:
                await forever()
            except asyncio.CancelledError:
                pass

    async def main() -> None:
        tasks.append(asyncio.create_task(stubborn()))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    with pytest.raises(Leak, match="stubborn") as caught:
        run(main())
    assert any("when the rest was cancelled" in note for note in caught.value.__notes__)
    tasks[0]._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("kept", [True, False])
def test_a_failed_task_that_nobody_awaits_fails_the_run(kept: bool):
    tasks: list[asyncio.Task[None]] = []

    async def dies() -> None:
        raise ValueError("unseen")

    async def main() -> None:
        task = asyncio.create_task(dies())
        if kept:
            tasks.append(task)
        del task
        await asyncio.sleep(1)

    with pytest.raises(Leak, match="ValueError: unseen") as caught:
        run(main())
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_failed_task_that_somebody_awaits_is_fine():
    async def dies() -> None:
        raise ValueError("seen")

    async def main() -> None:
        results = await asyncio.gather(dies(), dies(), return_exceptions=True)
        assert [str(result) for result in results] == ["seen", "seen"]

    run(main())


def test_what_comes_to_the_exception_handler_fails_the_run():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: 1 / 0)
        loop.call_exception_handler({"message": "a transport is unhappy"})
        await asyncio.sleep(1)

    with pytest.raises(Leak) as caught:
        run(main())
    assert "a transport is unhappy" in str(caught.value)
    assert "ZeroDivisionError" in str(caught.value)


def test_an_exception_of_main_comes_first_and_carries_the_others():
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)
        raise KeyError("of main")

    with pytest.raises(KeyError, match="of main") as caught:
        run(main())
    (note,) = caught.value.__notes__
    assert "ZeroDivisionError: division by zero" in note


def test_async_generators_are_closed():
    closed: list[str] = []

    async def words() -> AsyncIterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            await asyncio.sleep(1)
            closed.append("closed")

    async def main() -> str:
        generators.append(words())
        return await anext(generators[0])

    generators: list[AsyncIterator[str]] = []
    assert run(main()) == "one"
    assert closed == ["closed"]


def test_run_inside_a_loop_says_what_to_do():
    async def inner() -> None: ...

    async def main() -> None:
        with pytest.raises(RuntimeError, match="await the coroutine instead"):
            run(inner())

    run(main())


def test_debug_reaches_the_loop():
    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert run(main(), debug=True) is True
    assert run(main()) is False
