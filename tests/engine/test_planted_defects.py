"""Defects planted on purpose: the laws that the engine keeps are laws that a broken engine breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from engine_calls import Carrier, Turner, settled
from engine_laws import (
    ASYNC_GENERATOR,
    COROUTINE,
    GENERATOR,
    A,
    B,
    Behaviour,
    Block,
    C,
    Life,
    check_life,
    explore_turns,
    live,
)

from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine import inbox, pump, routes, turns
from voiceflow.frames import PHONE, AudioOut, ReplyEnd
from voiceflow.line.codec import LineStarted
from voiceflow.line.sink import LineSink
from voiceflow.testing import run
from voiceflow.testing.line import MemoryCodec
from voiceflow.testing.links import ScriptedLink

# -- the reducer

WRONG_REDUCERS: dict[str, Callable[[turns.Turns, turns.Evidence, turns.Step], turns.Step]] = {
    "the live reply survives a barge-in": lambda state, evidence, step: (
        (step[0]._replace(live=state.live), step[1][1:])
        if isinstance(evidence, turns.SpeechStarted) and state.live is not None
        else step
    ),
    "opens before it kills": lambda state, evidence, step: (step[0], step[1][::-1]),
    "keeps the draft of a resumed turn": lambda state, evidence, step: (
        (step[0]._replace(draft=state.draft, draft_text=state.draft_text), step[1][1:])
        if isinstance(evidence, turns.Resumed) and state.draft is not None
        else step
    ),
    "finishes a turn twice": lambda state, evidence, step: (
        (step[0], tuple(a for a in step[1] for _ in range(1 + isinstance(a, turns.TurnFinished))))
    ),
    "promotes a draft of other words": lambda state, evidence, step: (
        turns.reduce(state, turns.SpeechEnded(state.draft_text))
        if isinstance(evidence, turns.SpeechEnded) and state.draft is not None
        else step
    ),
    "believes a stale mark": lambda state, evidence, step: (
        turns.reduce(state, turns.ReplyOver(state.live))
        if isinstance(evidence, turns.ReplyOver) and state.live is not None
        else step
    ),
    "says something while the caller speaks": lambda state, evidence, step: (
        turns.reduce(state._replace(floor=turns.Floor.FREE), evidence)
        if isinstance(evidence, turns.SayAsked)
        else step
    ),
}


@pytest.mark.parametrize("defect", WRONG_REDUCERS)
def test_a_wrong_reducer_is_found(defect: str) -> None:
    def wrong(state: turns.Turns, evidence: turns.Evidence) -> turns.Step:
        return WRONG_REDUCERS[defect](state, evidence, turns.reduce(state, evidence))

    with pytest.raises((AssertionError, KeyError)):
        explore_turns(wrong)
    explore_turns()  # and the right one passes the same walk


# -- the pump

WAITS = Behaviour(ASYNC_GENERATOR, "copy", before=0.02, cleanup=0.3)
SPEAK = ((0.0, "ended", 0), (0.0, "speak", 9), (0.05, "caller", 3), (0.0, "finish", 0))
NEXT = ((0.01, "ended", 1), (0.0, "speak", 5), (0.03, "started", 0), (0.1, "ended", 0), (0.0, "speak", 2))
CUT = (*SPEAK, *NEXT)
FANS = Behaviour(GENERATOR, "fan", 3)
LIVES = {
    "a reply cut off": Life((Block(((A, FANS), (C, Behaviour()))), Block(((A, WAITS),))), CUT),
    "a reply heard whole": Life((Block(((A, WAITS),)), Block(((B, WAITS),))), SPEAK),
    "in line and waiting in one processor": Life((Block(((A, WAITS), (B, Behaviour()))),), SPEAK),
    "more than a tick": Life((Block(((A, FANS),)), Block(((B, Behaviour(COROUTINE)),))), SPEAK, tick=2),
    "two generators": Life((Block(((A, Behaviour(GENERATOR, "push")),)), Block(((B, FANS),))), SPEAK),
    "through a socket": Life((Block(socket=0.01), Block(((B, WAITS),))), CUT),
}


@pytest.mark.parametrize("life", LIVES)
def test_the_engine_as_it_is_passes(life: str) -> None:
    check_life(run(live(LIVES[life])))


def _fails(life: str) -> None:
    with pytest.raises(AssertionError):
        check_life(run(live(LIVES[life])))


def test_a_pump_that_does_not_ask_whether_the_reply_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    travel = pump.Pump._travel

    def careless(self: pump.Pump, frame: Any, stop: Any, lane: int) -> None:
        reply = getattr(frame, "reply", None)
        if reply is None:
            return travel(self, frame, stop, lane)
        dead, reply.dead = reply.dead, False
        try:
            travel(self, frame, stop, lane)
        finally:
            reply.dead = dead or reply.dead

    monkeypatch.setattr(pump.Pump, "_travel", careless)
    _fails("through a socket")


def test_an_interrupt_that_leaves_the_runners_in_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump.Pump, "detach", lambda self, reply, *, cancel: [])
    _fails("a reply cut off")


def test_an_interrupt_that_does_not_throw_away_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    retire = inbox.Inbox.retire

    def keeps(self: inbox.Inbox, *, cancel: bool) -> Any:
        return retire(self, cancel=False)

    monkeypatch.setattr(inbox.Inbox, "retire", keeps)
    _fails("a reply cut off")


def test_a_gate_that_does_not_hold_the_end_of_a_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_works_in_lane", lambda cls, lane: False)
    _fails("a reply heard whole")
    _fails("in line and waiting in one processor")


def test_a_runner_that_forgets_what_is_still_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump.Pump, "behind", False)
    life = Life((Block(((A, Behaviour(COROUTINE)),)),), SPEAK, tick=1)
    fan = Life((Block(((A, Behaviour(GENERATOR, "fan", 3)),)), *life.blocks), SPEAK, tick=1)
    lives = [
        replace(each, tick=tick, turn=turn) for each in (life, fan) for tick in (1, 2, 3) for turn in (1, 64)
    ]
    broken = 0
    for each in [*lives, LIVES["more than a tick"]]:
        try:
            check_life(run(live(each)))
        except AssertionError:
            broken += 1
    assert broken


def test_handlers_output_put_at_the_end_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    def settle(self: pump.Pump, handled: int) -> None:
        made, self._made = self._made, []
        for lane, frame, stop in made:
            self._ready[lane].append((frame, stop))

    monkeypatch.setattr(pump.Pump, "_settle", settle)
    _fails("two generators")


def test_an_engine_that_loses_one_caller_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    push = pump.Pump.push

    def lossy(self: pump.Pump, frame: Any, index: int) -> None:
        if getattr(frame, "seq", None) != (1,) or not isinstance(frame, C):
            push(self, frame, index)

    monkeypatch.setattr(pump.Pump, "push", lossy)
    _fails("a reply cut off")


def test_a_reader_that_stamps_the_reply_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's reader that takes the live reply for the one its audio belongs to: the classic."""
    put = pump.Pump.put

    async def stamps(self: pump.Pump, frame: Any, index: int) -> None:
        now_live = self.chain[index].call.turns.live
        if now_live is not None:
            frame.reply = now_live
        await put(self, frame, index)

    monkeypatch.setattr(pump.Pump, "put", stamps)
    _fails("through a socket")


# -- the sink


async def barge_in(make_sink: Callable[[Call], LineSink]) -> list[Any]:
    """A reply is cut off; stragglers of it come to the sink itself. Returns what went over the wire."""
    call = Call(MemoryCodec())
    link = ScriptedLink()
    carrier, turner, sink = Carrier(link), Turner(), make_sink(call)
    call.prepare(Pipeline(call.source(), turner, sink))
    task = asyncio.create_task(call.run(link, LineStarted("s", "c", PHONE)))
    await settled()
    turner.turns.ended()
    reply = call.turns.live
    for _ in range(10):
        turner.push(AudioOut(b"\x01" * 800, "one", reply=reply))
    await asyncio.sleep(0.25)
    turner.turns.started()
    turner.push(AudioOut(b"\x01" * 800, "stale", reply=reply))
    turner.turns.ended()
    turner.push(AudioOut(b"\x02" * 800, "two", reply=call.turns.live))
    turner.push(ReplyEnd(reply=call.turns.live))
    await asyncio.sleep(2)
    call.end("done")
    await task
    return [message for _, message in carrier.wire]


def assert_nothing_stale(wire: list[Any]) -> None:
    assert wire.count("clear") == 1
    after = wire[wire.index("clear") + 1 :]
    assert not any(isinstance(m, bytes) and 1 in m for m in after), "ghost audio after the clear"
    assert any(isinstance(m, bytes) and 2 in m for m in after), "the next reply is not heard"


class KeepsItsQueue(LineSink):
    """Does not drop its queue when a reply dies, and does not look who is dead."""

    def drop(self, reply: Any) -> None:
        pass

    def _play(self) -> None:
        for reply in self._queued:
            if reply.dead:
                out = self._queued[reply]
                while self._send_chunk(reply, out, self._now()):
                    pass
        super()._play()


class ForgetsToClear(LineSink):
    def clear(self, reply: Any) -> None:
        self.ledger.forget(reply)


class ClearsFirst(LineSink):
    """Clears, and then sends a last piece: the order that leaves a ghost syllable."""

    def clear(self, reply: Any) -> None:
        super().clear(reply)
        self.line.send(self.line.codec.audio(b"\x01" * 160))


@pytest.mark.parametrize("wrong", [KeepsItsQueue, ForgetsToClear, ClearsFirst])
def test_a_wrong_sink_is_found(wrong: type[LineSink]) -> None:
    assert_nothing_stale(run(barge_in(lambda call: call.sink())))
    wire = run(barge_in(lambda call: wrong(call.line)))
    with pytest.raises((AssertionError, ValueError)):
        assert_nothing_stale(wire)
