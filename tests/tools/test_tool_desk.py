"""The desk, rule by rule: what is refused, limits, failures, threads, results that are told late, the end."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.engine.engine_calls import Phone, phone, settled
from tests.tools.tool_worlds import spoken
from voiceflow import (
    AudioOut,
    Call,
    CallEnded,
    DeclarationError,
    Effect,
    Processor,
    Prompt,
    ReplyEnd,
    Sentence,
    Tool,
    ToolWithdrawn,
    end_call,
    on,
    tap,
    tool,
)
from voiceflow.frames import ToolEnd, ToolStart
from voiceflow.services import Services
from voiceflow.testing import run
from voiceflow.tools import Requested, ToolDesk, ToolUse, UseState
from voiceflow.tools.desk import BATCH_BOUND, HEARING_LIMIT, NOT_ALONE, PENDING, RUNNING
from voiceflow.tools.result import LONGEST, words_of
from voiceflow.tools.threads import THREADS, ToolThreads
from voiceflow.vendor import Key


class Asker(Processor):
    """Asks for each of `batches` in turn, then says a word. A prompt of the program is only noted."""

    needs = (Prompt,)
    emits = (AudioOut, ReplyEnd, Sentence, ToolStart, ToolEnd)

    def __init__(self, tools: list[Tool], *batches: list[tuple[str, str]]) -> None:
        self.desk = ToolDesk(self, tools)
        self.stop_timeout = self.desk.closing_limit  # type: ignore[misc]
        self.batches = list(batches)
        self.answered = asyncio.Event()
        self.uses: list[ToolUse] = []
        self.ends: list[bool] = []
        self.cues: list[str] = []

    async def stop(self) -> None:
        await self.desk.close()

    def figures(self) -> dict[str, float]:
        return self.desk.figures()

    @on(Prompt)
    async def answer(self, prompt: Prompt) -> AsyncIterator[AudioOut | ReplyEnd]:
        assert prompt.reply is not None
        self.desk.answering(prompt.reply, prompt.history)
        if prompt.cue:
            self.cues.append(prompt.cue)
        elif self.batches:
            requested = [Requested(f"c{i}", *each) for i, each in enumerate(self.batches.pop(0))]
            ran = await self.desk.run(prompt.reply, requested, self.desk.offered(prompt))
            self.uses += ran.uses
            self.ends.append(ran.ends)
            self.answered.set()
        yield spoken("Well then.")
        yield ReplyEnd()


class Frames(Processor):
    """What went by of tools."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @tap(ToolStart, ToolEnd)
    def look(self, frame: ToolStart | ToolEnd) -> None:
        self.seen.append(f"{type(frame).__name__} {frame.use.state.value}")


def named(name: str, effect: str, function: Callable[..., Any], **options: Any) -> Tool:
    return tool(effect=effect, name=name, **options)(function)


async def asked(*tools: Tool, given: str = "") -> ToolUse:
    """One use of the first of the tools, in a live reply, to its end."""
    asker = Asker(list(tools), [(tools[0].name, given)])
    async with phone(asker) as it:
        it.answer()
        await asyncio.sleep(100)
    return asker.uses[0]


async def nap(seconds: float = 1.0) -> str:
    await asyncio.sleep(seconds)
    return "rested"


# -- what is refused


def test_refusals_are_words_and_begin_nothing() -> None:
    async def main() -> None:
        frames = Frames()
        batch = [("nap", '{"seconds": "long"}'), ("sleep", ""), ("nap", '{"seconds": 1}'), ("bye", "")]
        asker = Asker([named("nap", "read", nap), named("bye", "terminal", nap)], batch)
        async with phone(asker, frames) as it:
            it.answer()
            await asyncio.sleep(10)
            wrong, unknown, fine, bye = asker.uses
            assert wrong.state is unknown.state is bye.state is UseState.REFUSED
            assert wrong.result.startswith("The arguments are wrong:\nseconds: it should be a valid number")
            assert unknown.result == "There is no tool sleep. There are: nap, bye."
            assert (fine.state, fine.result) == (UseState.DONE, "rested")
            assert bye.result == NOT_ALONE
            assert asker.ends == [False]
            assert list(it.call.history.messages[:4]) == asker.uses
            assert {use.batch for use in asker.uses} == {fine.batch}
        assert frames.seen == ["ToolStart running", "ToolEnd done"]
        assert it.result is not None
        assert it.result.figures["Asker.tools"] == 4
        assert it.result.figures["Asker.tools_refused"] == 3

    run(main())


def test_too_many_at_once_and_too_many_pending() -> None:
    async def main() -> None:
        asker = Asker([named("nap", "read", nap)], [("nap", "")] * (BATCH_BOUND + 3))
        async with phone(asker) as it:
            it.answer()
            await asyncio.sleep(10)
        states = [use.state for use in asker.uses]
        assert states == [UseState.DONE] * BATCH_BOUND + [UseState.REFUSED] * 3

    run(main())


def test_a_second_ending_is_refused_while_one_is_pending() -> None:
    async def main() -> None:
        asker = Asker([end_call()], [("end_call", "")])
        async with phone(asker) as it:
            reply = it.answer()
            await settled()
            assert asker.ends == [True]
            again = await asker.desk.run(reply, [Requested("2", "end_call", "")], asker.desk.tools)
            assert again.ends is False
            assert again.uses[0].result == PENDING
            await asyncio.sleep(5)
        assert it.result is not None
        assert it.result.reason == "the agent hung up"
        assert asker.uses[0].state is UseState.DONE

    run(main())


def test_a_commit_that_still_runs_for_nobody_is_not_begun_again() -> None:
    async def main() -> None:
        batches = [[("book", '{"seconds": 5}')], [("book", '{"seconds": 5}'), ("book", '{"seconds": 1}')]]
        asker = Asker([named("book", "commit", nap)], *batches)
        async with phone(asker) as it:
            it.answer()
            await settled()
            it.turns.started()
            it.answer()
            await asyncio.sleep(20)
            first = it.call.history.messages[0]
            assert isinstance(first, ToolUse)
            assert first.state is UseState.DONE
            assert [use.state for use in asker.uses] == [UseState.REFUSED, UseState.DONE]
            assert asker.uses[0].result == RUNNING

    run(main())


def test_a_dead_reply_and_a_call_that_is_over_get_nothing_done() -> None:
    async def main() -> None:
        asker = Asker([named("book", "commit", nap)])
        async with phone(asker) as it:
            reply = it.answer()
            it.turns.started()
            ran = await asker.desk.run(reply, [Requested("1", "book", "")], asker.desk.tools)
            assert ran.uses[0].state is UseState.CANCELLED
            assert it.call.history.messages == ()
            await asker.desk.close()
            reply = it.answer()
            ran = await asker.desk.run(reply, [Requested("1", "book", "")], asker.desk.tools)
            assert ran.uses[0].state is UseState.CANCELLED

    run(main())


# -- the declaration


def test_what_a_desk_does_not_take() -> None:
    class Mute(Processor):
        """Has no ToolStart in its `emits`."""

    class Object:
        @tool(effect="read")
        def look(self) -> None: ...

    look = named("look", "read", nap)
    for tools, says in (
        ([nap], r"nap is no tool: write @tool\(effect=...\) above the function"),
        ([end_call], r"end_call makes a tool: call it, as in tools=\[end_call\(\)\]"),
        (look, "takes several tools"),
        ([look, named("look", "read", nap)], "two tools look"),
        ([Object.look], "is a method"),
    ):
        with pytest.raises(DeclarationError, match=says):
            Asker(tools)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="emits"):
        ToolDesk(Mute(), [look])


def test_keys_and_limits_are_those_of_the_tools() -> None:
    key = Key("A_KEY", "https://a.example", "x")
    tools = [named("a", "read", nap, limit=99, keys=[key]), named("b", "commit", nap, limit=20, keys=[key])]
    asker = Asker(tools)
    assert asker.desk.keys == (key,)
    assert asker.desk.closing_limit == 21.0
    assert Asker([]).desk.closing_limit == 1.0


def test_a_prompt_brings_tools_of_its_own() -> None:
    own, other, more = named("look", "read", nap), named("look", "read", nap), named("more", "read", nap)
    asker = Asker([own])
    assert asker.desk.offered(Prompt("x")) == (own,)
    assert asker.desk.offered(Prompt("x", tools=(other, more))) == (other, more)
    with pytest.raises(DeclarationError):
        asker.desk.offered(Prompt("x", tools=(nap,)))  # type: ignore[arg-type]


# -- what comes of it


def test_failures_tell_the_model_no_more_than_was_meant_for_it(logged: list[str]) -> None:
    async def fails(what: str) -> None:
        match what:
            case "value":
                raise ValueError("there is no table at seven")
            case "key":
                raise KeyError("secret")
            case "exit":
                raise SystemExit(3)
            case "cancelled":
                raise asyncio.CancelledError
            case "withdrawn":
                raise ToolWithdrawn("The caller changed their mind.")

    async def main() -> None:
        for what, state, words in (
            ("value", UseState.FAILED, "It failed: there is no table at seven"),
            ("key", UseState.FAILED, "It failed (KeyError)."),
            ("exit", UseState.FAILED, "It failed (SystemExit)."),
            ("cancelled", UseState.FAILED, "It failed (CancelledError)."),
            ("withdrawn", UseState.CANCELLED, "The caller changed their mind."),
        ):
            use = await asked(named("f", "read", fails), given=f'{{"what": "{what}"}}')
            assert (use.state, use.result) == (state, words)
        assert sum("the tool f failed (KeyError)" in line for line in logged) == 1
        assert not any("secret" in line for line in logged if "call over" in line)

    run(main())


def test_a_tool_that_takes_too_long_or_will_not_stop() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(50)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return "late"

    async def main() -> None:
        for effect in ("read", "commit"):
            use = await asked(named("f", effect, stubborn, limit=3))
            assert use.state is UseState.TIMED_OUT
            assert use.began is not None
            assert use.ended == use.began + 3
            assert use.result.startswith("It did not finish within 3 s.")
            assert ("not known" in use.result) == (effect == "commit")

    run(main())


def test_results_in_words() -> None:
    assert words_of(None) == "Done."
    assert words_of("as it is") == "as it is"
    assert words_of({"free": [1, 2]}) == '{"free":[1,2]}'
    assert words_of([UseState.DONE, 1.5]) == '["done",1.5]'
    assert words_of("x\ud800y") == "x?y"
    assert words_of("x" * (LONGEST + 1)).endswith(f"(Cut here: it has {LONGEST + 1} characters.)")
    endless: list[Any] = []
    endless.append(endless)
    for odd in (endless, b"\xff\xfe", object()):
        assert words_of(odd)


# -- threads


def real(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_plain_function_does_not_stop_the_calls() -> None:
    where = contextvars.ContextVar("where", default="")
    began, go = threading.Event(), threading.Event()

    def blocks() -> str:
        began.set()
        go.wait(10)
        return f"{where.get()} {threading.current_thread().name}"

    async def main() -> None:
        where.set("here")
        asker = Asker([named("f", "read", blocks)], [("f", "")])
        async with phone(asker) as it:
            it.answer()
            await asyncio.to_thread(began.wait, 10)
            assert not asker.uses
            go.set()
            await asker.answered.wait()
        assert asker.uses[0].result == "here voiceflow-tool"

    real(main)


def test_a_thread_that_hangs_is_left_alone(logged: list[str]) -> None:
    go = threading.Event()

    def hangs() -> str:
        go.wait(10)
        raise SystemExit

    async def main() -> None:
        asker = Asker([named("f", "commit", hangs, limit=0.05)], [("f", "")])
        async with phone(asker) as it:
            it.answer()
            await asker.answered.wait()
            assert asker.uses[0].state is UseState.TIMED_OUT
            go.set()
        assert any("its thread is left to itself" in line for line in logged)

    real(main)


def test_threads_are_few_and_a_function_that_waited_too_long_for_one_is_not_begun() -> None:
    async def main() -> None:
        services = Services()
        threads = ToolThreads.of(services)
        assert ToolThreads.of(services) is threads
        go = threading.Event()
        busy = [asyncio.create_task(threads.run(go.wait, lambda: True)) for _ in range(THREADS)]
        begun: list[int] = []
        late = asyncio.create_task(threads.run(lambda: begun.append(1), lambda: False))
        given_up = asyncio.create_task(threads.run(lambda: begun.append(2), lambda: True))
        await asyncio.sleep(0)
        given_up.cancel()
        go.set()
        await asyncio.gather(*busy)
        with pytest.raises(ToolWithdrawn):
            await late
        assert begun == []
        await services.close()
        with pytest.raises(CallEnded):
            await threads.run(time.monotonic, lambda: True)

    real(main)


def test_in_virtual_time_a_plain_function_runs_in_line() -> None:
    def where() -> str:
        return threading.current_thread().name

    async def main() -> None:
        assert (await asked(named("f", "read", where))).result == threading.main_thread().name

    run(main())


# -- results that nobody asked about


async def left_alone(it: Phone) -> None:
    """The caller cuts in and says nothing that is answered; the floor is free again."""
    it.answer()
    await settled()
    it.turns.stop("enough")
    await settled()


def test_several_results_are_told_at_once_and_again_if_nobody_heard(logged: list[str]) -> None:
    async def main() -> None:
        tools = [
            named("a", "commit", nap),
            named("b", "commit", nap),
            named("c", "commit", nap, announce=False),
        ]
        asker = Asker(tools, [("a", '{"seconds": 2}'), ("b", '{"seconds": 2}'), ("c", '{"seconds": 2}')])
        async with phone(asker) as it:
            await left_alone(it)
            await asyncio.sleep(2)
            await settled()
            for tries in (1, 2, 3):
                assert len(asker.cues) == tries
                it.turns.stop("not now")
                await settled()
            await asyncio.sleep(10)
            assert len(asker.cues) == 3
            assert all("a: rested\nb: rested" in cue and "c:" not in cue for cue in asker.cues)
        assert sum("has not heard what came of" in line for line in logged) == 2
        assert asker.desk.figures()["tools_announced"] == 3

    run(main())


def test_a_result_that_an_answer_told_is_not_told_again() -> None:
    async def main() -> None:
        asker = Asker([named("a", "commit", nap)], [("a", '{"seconds": 2}')])
        async with phone(asker) as it:
            await left_alone(it)
            it.turns.started()
            await asyncio.sleep(3)  # it ends while the caller speaks
            assert asker.cues == []
            it.answer()
            await asyncio.sleep(10)
            assert asker.cues == []

    run(main())


def test_of_a_call_that_ended_nobody_is_told() -> None:
    async def gone() -> None:
        await asyncio.sleep(1)
        raise CallEnded("the call is over")

    async def withdrawn() -> None:
        await asyncio.sleep(1)
        raise ToolWithdrawn("no")

    async def main() -> None:
        asker = Asker([named("a", "commit", gone), named("b", "commit", withdrawn)], [("a", ""), ("b", "")])
        async with phone(asker) as it:
            await left_alone(it)
            await asyncio.sleep(10)
            assert asker.cues == []

    run(main())


def test_a_failed_ending_is_told_and_the_call_goes_on() -> None:
    async def fails(call: Call) -> None:
        raise ValueError("the other line is busy")

    async def main() -> None:
        asker = Asker([named("transfer", "terminal", fails)], [("transfer", "")])
        async with phone(asker) as it:
            it.answer()
            await asyncio.sleep(10)
            assert len(asker.cues) == 1
            assert "transfer: It failed: the other line is busy" in asker.cues[0]

    run(main())


# -- holds, and what is heard


def test_a_held_reply_begins_no_commit_until_it_goes_on() -> None:
    async def main() -> None:
        asker = Asker([named("a", "commit", nap)], [("a", "")])
        async with phone(asker) as it:
            it.turner.turns.ended()
            it.turns.hold()
            await asyncio.sleep(5)
            (use,) = it.call.history.messages
            assert isinstance(use, ToolUse)
            assert use.state is UseState.WAITING
            assert use.content.startswith("Still running")
            it.turns.unhold()
            it.turns.hold()  # in the same tick
            await asyncio.sleep(5)
            assert use.began is None
            it.turns.unhold()
            await asyncio.sleep(5)
            assert use.state is UseState.DONE

    run(main())


def test_an_ending_waits_for_what_the_program_says_after_the_goodbye() -> None:
    async def main() -> None:
        asker = Asker([end_call()], [("end_call", "")])
        async with phone(asker) as it:
            it.answer()
            await settled()
            saying = it.call.spawn(_say(it.call), name="say")
            await asyncio.sleep(10)
            assert saying.done()
        assert it.result is not None
        assert it.result.reason == "the agent hung up"
        assert len(asker.cues) == 1

    run(main())


async def _say(call: Call) -> None:
    await call.prompt("one minute is left")


def test_an_ending_is_not_done_if_the_caller_speaks_as_soon_as_the_goodbye_was_heard() -> None:
    async def main() -> None:
        asker = Asker([end_call()], [("end_call", "")])
        async with phone(asker) as it:
            heard = it.turns.outcome(it.answer())
            heard.add_done_callback(lambda _: it.turner.turns.ended("One more thing."))
            await asyncio.sleep(30)
            assert asker.uses[0].state is UseState.CANCELLED
        assert it.result is not None
        assert it.result.reason == "the test is done"

    run(main())


def test_an_ending_does_not_wait_for_ever(logged: list[str]) -> None:
    class Endless(Asker):
        @on(Prompt)
        async def answer(self, prompt: Prompt) -> AsyncIterator[AudioOut | ReplyEnd]:
            assert prompt.reply is not None
            ran = await self.desk.run(prompt.reply, [Requested("1", "end_call", "")], self.desk.tools)
            self.uses += ran.uses
            for _ in range(200):
                yield spoken("And another thing.")
                await asyncio.sleep(1)

    async def main() -> None:
        asker = Endless([end_call(wait=5)])
        async with phone(asker) as it:
            it.answer()
            await asyncio.sleep(HEARING_LIMIT + 20)
        assert it.result is not None
        assert it.result.reason == "the agent hung up"
        assert it.result.seconds == pytest.approx(HEARING_LIMIT + 5, abs=1)
        assert any("before the caller has heard everything" in line for line in logged)

    run(main())


# -- end_call


def test_the_tool_itself() -> None:
    made = end_call()
    assert made.effect is Effect.TERMINAL
    assert made.name == "end_call"
    assert made.parameters["properties"] == {}
    assert "goodbye" in made.description


@pytest.mark.parametrize("silent", [True, False])
def test_a_farewell_is_said_if_the_model_said_none(silent: bool) -> None:
    class Terse(Asker):
        @on(Prompt)
        async def answer(self, prompt: Prompt) -> AsyncIterator[AudioOut | ReplyEnd]:
            assert prompt.reply is not None
            if not silent:
                yield spoken("Bye.")
            await self.desk.run(prompt.reply, [Requested("1", "end_call", "")], self.desk.tools)
            yield ReplyEnd()

        @on(Sentence)
        def speak(self, sentence: Sentence) -> AudioOut:
            return spoken(sentence.text)

    async def main() -> None:
        asker = Terse([end_call(farewell="Goodbye.")])
        async with phone(asker) as it:
            it.turner.turns.ended("that is all")
            await asyncio.sleep(10)
        said = [each.content for each in it.call.history.messages if each.role == "assistant"]
        assert said == (["Goodbye."] if silent else ["Bye."])
        assert it.result is not None
        assert it.result.reason == "the agent hung up"

    run(main())


# -- the trace


def test_the_trace_shows_tools_and_hides_words() -> None:
    from voiceflow.trace.file import record_of, to_json
    from voiceflow.trace.table import tool_times

    async def main() -> None:
        asker = Asker([named("nap", "read", nap)], [("nap", '{"seconds": 2}'), ("Rosebud", "")])
        async with phone(asker) as it:
            it.answer()
            await asyncio.sleep(10)
        record = record_of(it.call, "")
        tools = [event for event in record.events if event.kind == "tool"]
        assert [(e.owner, e.detail) for e in tools] == [
            ("Asker", "refused"), ("nap", "running"), ("nap", "done"),
        ]  # fmt: skip
        assert tools[1].words == '{"seconds": 2}'
        assert tools[2].words == "rested"
        assert tools[2].figures == {"took": 2.0}
        assert tool_times(record) == {1: "nap 2000 ms"}
        redacted = to_json(record_of(it.call, "", redact=True))
        assert "rested" not in redacted
        assert "Rosebud" not in redacted

    run(main())
