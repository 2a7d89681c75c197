"""The warm pool, on a virtual clock: every dial, wait and replacement comes exactly when it should."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger

from voiceflow.errors import LinkError
from voiceflow.pool import BACKOFF, CLOSE_LIMIT, DIALS, SWEEP, Taken, WarmPool
from voiceflow.testing import run
from voiceflow.testing.pytest_plugin import VirtualTime

HANDSHAKE = 0.3


@dataclass(eq=False)
class Wire:
    """What the pool's connections are here."""

    number: int
    alive: bool = True
    closed: bool = False


@dataclass
class Vendor:
    """Answers dials. `plan(number)` says what becomes of each: seconds, or the error after as many."""

    plan: Callable[[int], float | tuple[float, Exception]] = lambda number: HANDSHAKE
    dialled: list[float] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    busy: int = 0
    peak: int = 0
    close_takes: float = 0.0

    async def open(self) -> Wire:
        self.dialled.append(asyncio.get_running_loop().time())
        planned = self.plan(len(self.dialled))
        delay, error = planned if isinstance(planned, tuple) else (planned, None)
        self.busy += 1
        self.peak = max(self.peak, self.busy)
        try:
            await asyncio.sleep(delay)
        finally:
            self.busy -= 1
        if error is not None:
            raise error
        self.wires.append(Wire(len(self.wires) + 1))
        return self.wires[-1]

    async def close(self, wire: Wire) -> None:
        assert not wire.closed, f"{wire} is closed twice"
        wire.closed = True
        await asyncio.sleep(self.close_takes)

    def pool(self, **options: Any) -> WarmPool[Wire]:
        return WarmPool("vendor", self.open, self.close, usable=lambda wire: wire.alive, **options)

    @property
    def open_wires(self) -> int:
        return sum(not wire.closed for wire in self.wires)


def refused(after: float = 0.0) -> tuple[float, Exception]:
    return after, LinkError("nobody is there")


# -- hits and misses


async def test_what_was_dialled_ahead_costs_nothing(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool()
    await pool.fill()
    assert virtual_time.now == HANDSHAKE
    taken = await pool.take()
    assert virtual_time.now == HANDSHAKE
    assert taken == Taken(vendor.wires[0], True, HANDSHAKE, 0.0)
    await pool.fill()
    assert (pool.idle, virtual_time.now) == (1, 2 * HANDSHAKE)  # another stands by
    assert pool.figures() == {
        "hits": 1, "misses": 0, "saved_ms": 300.0, "idle": 1, "dialled": 2, "failed": 0, "died": 0,
        "aged_out": 0,
    }  # fmt: skip
    await pool.close()


async def test_who_finds_none_waits_for_a_dial(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool()
    taken = await pool.take()
    assert (taken.hit, taken.waited, taken.saved, virtual_time.now) == (False, HANDSHAKE, 0.0, HANDSHAKE)
    assert (pool.misses, pool.idle) == (1, 1)
    await pool.close()


async def test_a_dial_under_way_saves_a_part(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool()
    pool.expect(0)
    await asyncio.sleep(0.25)
    taken = await pool.take()
    assert taken.waited == pytest.approx(0.05)
    assert taken.saved == pytest.approx(0.25)
    await pool.close()


async def test_a_stuck_dial_holds_nobody_up(virtual_time: VirtualTime) -> None:
    """The one that was under way never comes; who waits has one of his own."""
    vendor = Vendor(lambda number: 1000.0 if number == 1 else HANDSHAKE)
    pool = vendor.pool()
    pool.expect(0)
    await asyncio.sleep(5)
    taken = await pool.take()
    assert taken.waited == pytest.approx(HANDSHAKE)
    await pool.close()


async def test_take_idle_never_waits(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool()
    assert pool.take_idle() is None
    assert (pool.misses, virtual_time.now) == (1, 0.0)
    await pool.fill()  # it has dialled all the same
    taken = pool.take_idle()
    assert taken is not None
    assert taken.hit
    own = Wire(99)
    pool.give(own)  # one that the pool did not dial is as welcome
    assert (await pool.take()).connection is own
    await pool.close()


async def test_the_handshake_can_be_told(virtual_time: VirtualTime) -> None:
    """When `open` does more than the handshake, only that is what a hit saves."""
    vendor = Vendor()
    pool = WarmPool("vendor", vendor.open, vendor.close, handshake=lambda wire: 0.1)
    await pool.fill()
    assert (await pool.take()).saved == 0.1
    await pool.close()


# -- given back, dropped, expected


async def test_given_back_is_taken_again(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool()
    first = (await pool.take()).connection
    pool.give(first)
    assert (await pool.take()).connection is first  # the one used last: the least likely to be dead
    await pool.close()


async def test_a_dead_one_is_not_taken_back(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool(spare=0)
    wire = (await pool.take()).connection
    wire.alive = False
    pool.give(wire)
    await asyncio.sleep(0)
    assert (wire.closed, pool.died, pool.idle) == (True, 1, 0)
    await pool.close()


async def test_what_is_dropped_is_replaced_before_it_is_needed(virtual_time: VirtualTime) -> None:
    """A cancelled turn costs the connection; the next turn does not wait for one."""
    vendor = Vendor()
    pool = vendor.pool()
    pool.expect()
    await pool.fill()
    for turn in range(20):
        taken = await pool.take()
        assert taken.hit, f"turn {turn}"
        pool.drop(taken.connection)
        await asyncio.sleep(HANDSHAKE)
    assert pool.misses == 0
    await pool.close()


async def test_one_for_every_caller_that_is_expected(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool(spare=2)
    for _ in range(5):
        pool.expect()
    await pool.fill()
    assert pool.idle == 7
    taken = [await pool.take() for _ in range(7)]
    assert [each.hit for each in taken] == [True] * 7
    pool.expect(-5)
    pool.expect(-5)
    assert pool.expected == 0
    await pool.close()


async def test_there_are_never_more_than_the_bound(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool(bound=3)
    pool.expect(100)
    await pool.fill()
    await asyncio.sleep(5)
    assert (pool.idle, len(vendor.wires)) == (3, 3)
    taken = [(await pool.take()).connection for _ in range(3)]
    await asyncio.sleep(5)
    for wire in taken:
        pool.give(wire)
    await asyncio.sleep(0)
    assert (pool.idle, vendor.open_wires) == (3, 3)
    await pool.close()


async def test_a_vendor_is_not_met_by_all_dials_at_once(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool()
    pool.expect(40)
    await pool.fill()
    assert (vendor.peak, pool.idle) == (DIALS, 41)
    await pool.close()


# -- when dialling fails


async def test_everybody_who_waits_is_told(virtual_time: VirtualTime) -> None:
    """All dials fail in one tick: nobody is left waiting for the next round."""
    vendor = Vendor(lambda number: refused(HANDSHAKE))
    pool = vendor.pool(spare=3)

    async def take() -> str:
        with pytest.raises(LinkError) as caught:
            await pool.take()
        return f"{caught.value} at {virtual_time.now}"

    told = await asyncio.gather(*(take() for _ in range(5)))
    assert told == [f"nobody is there at {HANDSHAKE}"] * 5
    await pool.close()


async def test_the_first_dial_that_succeeds_serves_who_waits_longest(virtual_time: VirtualTime) -> None:
    plans = {1: refused(0.1), 2: refused(0.2), 3: 0.3, 4: 0.4}
    vendor = Vendor(lambda number: plans.get(number, 10.0))
    pool = vendor.pool(spare=1)  # dial 1 is its spare one, dials 2, 3 and 4 are those of who waits
    served: list[tuple[int, float]] = []

    async def take(who: int) -> None:
        try:
            await pool.take()
            served.append((who, virtual_time.now))
        except LinkError:
            served.append((-who, virtual_time.now))

    await asyncio.gather(*(take(who) for who in (1, 2, 3)))
    assert served == [(-1, 0.2), (2, 0.3), (3, 0.4)]
    await pool.close()


async def test_refilling_is_patient_and_asks_one_at_a_time(virtual_time: VirtualTime) -> None:
    vendor = Vendor(lambda number: refused())
    pool = vendor.pool()
    pool.expect(4)
    await asyncio.sleep(200)
    first, then = vendor.dialled[:5], vendor.dialled[5:]
    assert first == [0.0] * 5  # one round, and one step of the backoff
    gaps = [b - a for a, b in zip([0.0, *then], then, strict=False)]
    wanted = [1.0, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 30.0]  # looked at once a second: 0.5 becomes 1
    assert gaps[: len(wanted)] == wanted
    assert BACKOFF[0] == 0.5
    await pool.close()


async def test_after_an_outage_all_is_dialled_at_once(virtual_time: VirtualTime) -> None:
    vendor = Vendor(lambda number: refused() if virtual_time.now < 100 else HANDSHAKE)
    pool = vendor.pool()
    pool.expect(4)
    await asyncio.sleep(100 + BACKOFF[-1] + SWEEP + 2 * HANDSHAKE)
    back = [at for at in vendor.dialled if at >= 100]
    assert back[0] <= 100 + BACKOFF[-1] + SWEEP
    assert back[1:] == [pytest.approx(back[0] + HANDSHAKE)] * 4  # the first is there: now all the others
    assert pool.idle == 5
    await pool.close()


async def test_who_needs_one_does_not_wait_for_the_backoff(virtual_time: VirtualTime) -> None:
    vendor = Vendor(lambda number: refused() if number < 4 else HANDSHAKE)
    pool = vendor.pool()
    pool.expect(0)
    await asyncio.sleep(3.1)  # in the middle of a pause
    before = len(vendor.dialled)
    taken = await pool.take()
    assert (taken.waited, len(vendor.dialled) - before) == (pytest.approx(HANDSHAKE), 1)
    await pool.close()


async def test_a_failure_is_logged_once_until_it_is_over(virtual_time: VirtualTime) -> None:
    said: list[str] = []
    sink = logger.add(said.append, format="{message}")
    try:
        vendor = Vendor(lambda number: refused() if virtual_time.now < 50 else HANDSHAKE)
        pool = vendor.pool(spare=3)
        pool.expect(0)
        await asyncio.sleep(100)
        assert [line for line in said if "tried again" in line] == [
            "vendor: dialling failed, it is tried again: nobody is there\n"
        ]
        assert pool.error is None
        await pool.close()
    finally:
        logger.remove(sink)


async def test_a_dial_cancelled_from_outside_is_a_failure(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool(spare=0)
    waiting = asyncio.create_task(pool.take())
    await asyncio.sleep(0.1)
    for task in list(pool._dials):
        task.cancel()
    with pytest.raises(LinkError, match="dialling was cancelled"):
        await waiting
    await pool.close()


# -- giving up waiting


async def test_what_comes_for_who_gave_up_is_kept(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool(spare=0)
    waiting = asyncio.create_task(pool.take())
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.sleep(1)
    assert (pool.idle, vendor.open_wires) == (1, 1)
    await pool.close()


async def test_what_was_given_in_the_tick_of_giving_up_is_kept(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool(spare=0)
    held = (await pool.take()).connection
    waiting = asyncio.create_task(pool.take())
    await asyncio.sleep(0.1)
    pool.give(held)  # decided: it has a connection
    waiting.cancel()  # and never learns of it
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert held in [idle.connection for idle in pool._idle]
    await pool.close()


# -- the idle ones


async def test_a_dead_idle_one_is_replaced_before_anybody_takes_it(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool()
    await pool.fill()
    vendor.wires[0].alive = False
    await asyncio.sleep(SWEEP + HANDSHAKE)
    assert (pool.died, vendor.wires[0].closed) == (1, True)
    assert (await pool.take()).connection is vendor.wires[1]
    await pool.close()


async def test_a_dead_one_is_never_handed_out(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool()
    await pool.fill()
    vendor.wires[0].alive = False
    taken = await pool.take()
    assert (taken.hit, taken.connection.alive) == (False, True)
    await pool.close()


async def test_an_old_one_is_used_until_another_is_there(virtual_time: VirtualTime) -> None:
    """Every 60 s a new one; there is no moment without any."""
    vendor = Vendor(lambda number: 0.9)
    pool = vendor.pool(spare=2, max_idle=60.0)
    await pool.fill()
    least = 2
    while virtual_time.now < 600:
        await asyncio.sleep(0.05)
        least = min(least, pool.idle)
    assert least == 2
    assert 9 * 2 <= pool.aged_out <= 10 * 2
    assert vendor.open_wires == pool.idle + vendor.busy
    await pool.close()


async def test_old_ones_stay_in_use_while_none_can_be_dialled(virtual_time: VirtualTime) -> None:
    vendor = Vendor(lambda number: HANDSHAKE if number == 1 else refused())
    pool = vendor.pool(max_idle=60.0)
    await pool.fill()
    await asyncio.sleep(600)
    assert (pool.aged_out, (await pool.take()).hit) == (0, True)
    await pool.close()


async def test_what_is_not_needed_any_more_ages_out(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool(spare=0, max_idle=60.0)
    pool.expect(3)
    await pool.fill()
    pool.expect(-3)
    await asyncio.sleep(62)
    assert (pool.idle, pool.aged_out, vendor.open_wires, len(vendor.dialled)) == (0, 3, 0, 3)
    await pool.close()


async def test_given_back_without_a_spare_it_ages_too(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool(spare=0, max_idle=60.0)
    pool.give(Wire(1))
    await asyncio.sleep(62)
    assert (pool.idle, pool.aged_out) == (0, 1)
    await pool.close()


# -- fill


async def test_fill_tells_why_it_could_not(virtual_time: VirtualTime) -> None:
    pool = Vendor(lambda number: refused(HANDSHAKE)).pool()
    with pytest.raises(LinkError, match="nobody is there"):
        await pool.fill()
    assert virtual_time.now == HANDSHAKE
    await pool.close()


async def test_fill_is_bounded(virtual_time: VirtualTime) -> None:
    pool = Vendor(lambda number: 1000.0).pool()
    with pytest.raises(LinkError, match="nothing was dialled in 3 s"):
        await pool.fill(3.0)
    assert virtual_time.now == 3.0
    await pool.close()


async def test_one_of_many_is_enough_to_begin(virtual_time: VirtualTime) -> None:
    pool = Vendor(lambda number: HANDSHAKE if number == 2 else refused()).pool(spare=3)
    await pool.fill()
    assert pool.idle == 1
    await pool.close()


# -- the end


async def test_who_waits_is_told_that_it_is_over(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool()
    waiting = asyncio.create_task(pool.take())
    await asyncio.sleep(0.1)
    await pool.close()
    with pytest.raises(LinkError, match="the pool was closed"):
        await waiting
    with pytest.raises(LinkError, match="the pool is closed"):
        await pool.take()
    with pytest.raises(LinkError, match="the pool is closed"):
        pool.take_idle()
    assert vendor.wires == []
    await pool.close()


async def test_a_dial_that_is_done_in_the_last_tick_is_closed(virtual_time: VirtualTime) -> None:
    class Stubborn(Vendor):
        async def open(self) -> Wire:
            try:
                return await super().open()
            except asyncio.CancelledError:
                self.wires.append(Wire(7))
                return self.wires[-1]

    vendor = Stubborn()
    pool = vendor.pool()
    pool.expect(0)
    await asyncio.sleep(0.1)
    await pool.close()
    assert [wire.closed for wire in vendor.wires] == [True]


async def test_what_is_given_back_afterwards_is_closed(virtual_time: VirtualTime) -> None:
    vendor = Vendor()
    pool = vendor.pool()
    wire = (await pool.take()).connection
    await pool.close()
    pool.give(wire)
    pool.expect(1)
    await asyncio.sleep(10)
    assert (wire.closed, vendor.open_wires) == (True, 0)


async def test_closing_is_bounded(virtual_time: VirtualTime) -> None:
    vendor = Vendor(close_takes=1000.0)
    pool = vendor.pool(spare=3)
    await pool.fill()
    began = virtual_time.now
    await pool.close()
    assert virtual_time.now - began == CLOSE_LIMIT


# -- all of it at random

OPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["take", "take_idle", "give", "drop", "expect", "unexpect", "die", "cancel", "sleep", "sleep"]
        ),
        st.integers(0, 7),
        st.sampled_from([0.0, 0.01, 0.3, 1.0, 7.0, 31.0]),
    ),
    max_size=60,
)
PLANS = st.lists(st.one_of(st.sampled_from([0.0, 0.01, 0.3, 4.0]), st.just(None)), max_size=40)


@settings(max_examples=200, deadline=None)
@given(OPS, PLANS, st.integers(0, 3), st.integers(1, 4), st.booleans())
def test_the_rules_hold_whatever_happens(
    ops: list[tuple[str, int, float]], plans: list[float | None], spare: int, bound: int, hurry: bool
) -> None:
    async def main() -> None:
        def plan(number: int) -> float | tuple[float, Exception]:
            planned = plans[number - 1] if number <= len(plans) else HANDSHAKE
            return refused(0.2) if planned is None else planned

        vendor = Vendor(plan)
        pool = vendor.pool(spare=spare, bound=bound, max_idle=20.0)
        pool.expect(0)
        held: list[Wire] = []
        waiting: list[asyncio.Task[None]] = []

        async def take() -> None:
            try:
                held.append((await pool.take()).connection)
            except LinkError:
                pass

        def check() -> None:
            assert pool.idle <= bound
            assert len(pool._dials) >= len(pool._waiting), "somebody waits for what cannot come"
            assert not (pool._waiting and pool._idle)
            idle = [each.connection for each in pool._idle]
            assert len({*idle, *held}) == len(idle) + len(held), "one connection in two hands"
            assert not any(wire.closed for wire in (*idle, *held))

        for op, number, seconds in ops:
            match op:
                case "take":
                    waiting.append(asyncio.create_task(take()))
                case "take_idle" if (taken := pool.take_idle()) is not None:
                    assert taken.connection.alive
                    held.append(taken.connection)
                case "give" if held:
                    pool.give(held.pop(number % len(held)))
                case "drop" if held:
                    pool.drop(held.pop(number % len(held)))
                case "expect":
                    pool.expect()
                case "unexpect":
                    pool.expect(-1)
                case "die" if vendor.wires:
                    vendor.wires[number % len(vendor.wires)].alive = False
                case "cancel" if waiting:
                    waiting.pop(number % len(waiting)).cancel()
                case "sleep":
                    await asyncio.sleep(seconds)
            check()
        if not hurry:
            await asyncio.sleep(120)  # every dial, backoff and sweep is over
            check()
            assert all(task.done() for task in waiting)
            assert pool.idle >= pool.wanted or pool.error is not None
            assert all(each.connection.alive for each in pool._idle)
            used = {wire.number for wire in held} | {each.connection.number for each in pool._idle}
            assert {wire.number for wire in vendor.wires if not wire.closed} == used, "a connection was lost"
        await pool.close()
        for wire in held:
            pool.drop(wire)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert all(task.done() for task in waiting)
        assert [wire for wire in vendor.wires if not wire.closed] == []

    run(main())
