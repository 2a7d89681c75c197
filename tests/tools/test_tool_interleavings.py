"""Every interleaving of {draft, resumed, confirmed, interrupt, tool starts, tool ends, call ends} for a turn
with one tool of each effect, and of what the caller has heard meanwhile: in a real call, in virtual time,
against a small model of the rules (tool_worlds.py). Two steps may also fall into one tick, before anything
has come of the first.

The paths are found by walking the model: at each state all steps that may happen there.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.engine_calls import phone, settled
from tests.tools.tool_worlds import Rules, spoken, world
from voiceflow import AudioOut, Call, CallEnded, Processor, Prompt, Reply, ReplyEnd, ToolWithdrawn, on, tool
from voiceflow.engine.history import Entry
from voiceflow.engine.mouth import HeardText
from voiceflow.engine.reply import ReplyState
from voiceflow.engine.turns import Floor
from voiceflow.frames import ToolEnd, ToolStart
from voiceflow.testing import run
from voiceflow.tools import Requested, ToolDesk, ToolUse, UseState

Path = tuple[tuple[str, ...], ...]
"""Steps; those of one tuple happen in one tick."""

ONCE = {
    "draft": 1,
    "resumed": 1,
    "confirmed": 2,
    "interrupt": 1,
    "stopped": 0,
    "played": 1,
    "interrupt as it is heard": 1,
    "interrupt once it is heard": 1,
}
EVIDENCE = ("draft", "resumed", "confirmed", "interrupt", "stopped")
HEARING = ("played", "interrupt as it is heard", "interrupt once it is heard")
"""Steps that take time: no other falls into their tick."""


def grown(rules: Rules, *steps: str) -> Rules:
    """What the rules say after these steps, all in one tick."""
    after = copy.deepcopy(rules)
    for step in steps:
        after.step(step)
    after.settle()
    return after


def paths(bounds: dict[str, int], *, at_once: int = 0, whole: bool = False) -> Iterator[Path]:
    """Every path; and every beginning of one, but for `whole`. In up to `at_once` places two steps in one
    tick."""

    def walk(rules: Rules, path: Path, left: int) -> Iterator[Path]:
        steps = rules.enabled(bounds)
        if not whole or not steps:
            yield path
        for step in steps:
            yield from walk(grown(rules, step), (*path, (step,)), left)
            if not left or step in HEARING:
                continue
            half = copy.deepcopy(rules)
            half.step(step)
            for other in half.enabled(bounds):
                if other not in HEARING and (step in EVIDENCE or other in EVIDENCE):
                    yield from walk(grown(rules, step, other), (*path, (step, other)), left - 1)

    first = Rules()
    first.settle()
    yield from walk(first, (), at_once)


async def follow(path: Path, *, wait: bool = False, all_steps: bool = False) -> bool:
    """Takes the steps, then ends the call. The model is compared after the last step, or after all. Whether
    something was still running when the call was ended."""
    rules = Rules()
    running = False
    async with world() as it:
        await it.settle()
        rules.settle()
        for place, steps in enumerate(path):
            for step in steps:
                rules.step(step)
                await it.step(step)
            await it.settle()
            rules.settle()
            if not rules.over and (all_steps or place == len(path) - 1):
                it.check(rules, path[: place + 1])
        if not rules.over:
            running = await it.end(rules, path, wait=wait)
    it.check_over(rules, path)
    return running


def test_every_interleaving_and_the_end_of_the_call_anywhere() -> None:
    """What runs then ends by itself, or else at its limit."""
    count = 0
    for path in paths(ONCE):
        count += 1
        if run(follow(path)):
            run(follow(path, wait=True))
    assert count > 1000


def test_every_interleaving_with_two_steps_in_one_tick() -> None:
    bounds = {**ONCE, **dict.fromkeys(HEARING[1:], 0)}
    count = 0
    for path in paths(bounds, at_once=1, whole=True):
        count += 1
        run(follow(path, all_steps=True))
    assert count > 500


def test_every_interleaving_when_the_program_stops_the_agent() -> None:
    """The floor stays free: nobody asks, and what nobody has told is told at once."""
    bounds = {**ONCE, "resumed": 0, "interrupt": 0, "interrupt as it is heard": 0, "stopped": 2}
    count = 0
    for path in paths(bounds, at_once=1, whole=True):
        count += 1
        run(follow(path, all_steps=True))
    assert count > 100


# -- beyond that: any tools in any order, for any time, and a caller who does anything


LIMIT = 3.0
HOWS = ("returns", "fails", "withdraws", "ignores cancellation")


class Improviser(Processor):
    """Asks for what it is told to, and looks at the rules whenever a function begins."""

    needs = (Prompt,)
    emits = (AudioOut, ReplyEnd, ToolStart, ToolEnd)

    def __init__(self, plan: list[list[tuple[str, str, float]]]) -> None:
        self.plan = plan
        self.batches: list[tuple[Reply, list[str]]] = []
        """Ids of the calls of each batch, with the reply that asked for them."""
        self.began: list[str] = []
        self.told: dict[str, list[asyncio.Future[HeardText]]] = {}
        """What was heard of the replies that were given with the result of a use in view."""
        self.cues = ""
        self.wrong: list[str] = []
        """What began when it may not. A failed `assert` would be the tool's own failure."""
        tools = [self.read, self.commit, self.terminal]
        self.desk = ToolDesk(self, tools)
        self.stop_timeout = self.desk.closing_limit  # type: ignore[misc]

    async def stop(self) -> None:
        await self.desk.close()

    @on(Prompt)
    async def answer(self, prompt: Prompt) -> AsyncIterator[AudioOut | ReplyEnd]:
        reply = prompt.reply
        assert reply is not None
        self.cues += prompt.cue
        self.know(reply, prompt.history)
        for _ in range(2):
            if not self.plan or prompt.cue:
                break
            asked = self.plan.pop(0)
            ids = [f"{len(self.batches)}.{place}" for place in range(len(asked))]
            self.batches.append((reply, ids))
            requested = [
                Requested(id, effect, json.dumps({"id": id, "how": how, "seconds": seconds}))
                for id, (effect, how, seconds) in zip(ids, asked, strict=True)
            ]
            ran = await self.desk.run(reply, requested, self.desk.offered(prompt))
            assert [use.requested.id for use in ran.uses] == ids
            assert ran.ends or all(use.state.over for use in ran.uses)
            if ran.ends:
                break
            self.know(reply, ran.uses)
        yield spoken("So be it.")
        yield ReplyEnd()

    def know(self, reply: Reply, entries: Iterable[Entry]) -> None:
        entries = tuple(entries)
        self.desk.answering(reply, entries)
        for entry in entries:
            if isinstance(entry, ToolUse) and entry.state.over:
                self.told.setdefault(entry.requested.id, []).append(self.call.turns.outcome(reply))

    @tool(effect="read", limit=LIMIT)
    async def read(self, id: str, how: str, seconds: float) -> str:
        return await self.function(id, how, seconds, not self.asking(id).dead)

    @tool(effect="commit", limit=LIMIT)
    async def commit(self, id: str, how: str, seconds: float) -> str:
        reply = self.asking(id)
        fits = reply is self.call.turns.live and reply.state is ReplyState.LIVE
        return await self.function(id, how, seconds, fits)

    @tool(effect="terminal", limit=LIMIT)
    async def terminal(self, id: str, how: str, seconds: float) -> str:
        turns = self.call.turns
        return await self.function(id, how, seconds, turns.live is None and turns.state.floor is Floor.FREE)

    def asking(self, id: str) -> Reply:
        return next(reply for reply, ids in self.batches if id in ids)

    async def function(self, id: str, how: str, seconds: float, fits: bool) -> str:
        if id in self.began or not fits:
            self.wrong.append(id)
        self.began.append(id)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if how != "ignores cancellation":
                raise
        match how:
            case "fails":
                raise KeyError(id)
            case "withdraws":
                raise ToolWithdrawn("not wanted")
        return id


PLANS = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["read", "commit", "terminal"]),
            st.sampled_from(HOWS),
            st.sampled_from([0.0, 0.1, 0.5, 2.0, 3.0, 50.0]),
        ),
        min_size=1,
        max_size=3,
    ),
    max_size=5,
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["started", "draft", "resumed", "ended", "hold", "unhold", "stop", "say"]),
        st.sampled_from([None, 0.0, 0.0, 0.05, 0.3, 1.0, 4.0]),
    ),
    max_size=14,
)
"""What happens, and how many seconds pass then: None for none at all, 0 until nothing moves any more."""


@settings(max_examples=300, deadline=None, derandomize=True)
@given(PLANS, STEPS, st.booleans())
def test_any_tools_and_any_caller(
    plan: list[list[tuple[str, str, float]]], steps: list[tuple[str, float | None]], until_quiet: bool
) -> None:
    run(improvised(plan, steps, until_quiet=until_quiet))


async def improvised(
    plan: list[list[tuple[str, str, float]]], steps: list[tuple[str, float | None]], *, until_quiet: bool
) -> None:
    how = {f"{b}.{p}": each for b, asked in enumerate(plan) for p, each in enumerate(asked)}
    model = Improviser([list(asked) for asked in plan])
    async with phone(model) as it:
        turns = it.turner.turns
        for step, pause in steps:
            match step:
                case "started":
                    turns.started()
                case "draft":
                    turns.may_be_over("well")
                case "resumed":
                    turns.resumed()
                case "ended":
                    turns.ended("well")
                case "hold":
                    turns.hold()
                case "unhold":
                    turns.unhold()
                case "stop":
                    turns.stop("enough")
                case "say":
                    it.call.spawn(_ask(it.call), name="say")
            if pause is not None:
                await settled()
                await asyncio.sleep(pause)
        if until_quiet:
            turns.unhold()
            turns.ended("well")
            await asyncio.sleep(200)
            assert turns.live is None
            entries = [use for use in it.call.history.messages if isinstance(use, ToolUse)]
            assert all(use.state.over for use in entries)
            for use in entries:
                if owed(use):
                    heard = [each.result() for each in model.told.get(use.requested.id, ())]
                    told = any(each.text or each.complete for each in heard)
                    assert told or model.cues.count(use.result) >= 3, use
    assert model.wrong == []
    uses = [use for use in it.call.history.messages if isinstance(use, ToolUse)]
    assert all(use.state.over for use in uses)
    kept = [ids for reply, ids in model.batches if reply.confirmed]
    written = [use.requested.id for use in uses]
    assert sorted(written) == sorted(id for ids in kept for id in ids)
    for ids in kept:
        first = written.index(ids[0])
        assert written[first : first + len(ids)] == ids
    for use in uses:
        check_use(use, model, *how[use.requested.id])
    assert it.result is not None
    assert it.result.fault is None


async def _ask(call: Call) -> None:
    with suppress(CallEnded):
        await call.prompt("say something")


def owed(use: ToolUse) -> bool:
    """Somebody has to tell the caller what came of it."""
    failed = use.state in (UseState.FAILED, UseState.TIMED_OUT)
    commit = use.requested.name == "commit"
    return (failed and use.requested.name != "read") or (commit and use.state is UseState.DONE)


def check_use(use: ToolUse, model: Improviser, effect: str, how: str, seconds: float) -> None:
    begun = use.requested.id in model.began
    if use.began is None or use.ended is None:
        assert use.state in (UseState.REFUSED, UseState.CANCELLED)
        assert not begun
        return
    took = use.ended - use.began
    assert took <= LIMIT + 1e-9
    if effect == "read" and use.state is UseState.CANCELLED:
        return
    assert begun
    match how:
        case _ if seconds > LIMIT:
            assert use.state is UseState.TIMED_OUT
        case _ if seconds == LIMIT and use.state is UseState.TIMED_OUT:
            pass
        case "fails":
            assert use.state is UseState.FAILED
        case "withdraws":
            assert use.state is UseState.CANCELLED
        case _:
            assert use.state is UseState.DONE
