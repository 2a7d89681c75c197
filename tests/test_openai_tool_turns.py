"""ChatLLM with tools and drafts under a TurnKeeper: interruptions, what outlives them, what was wasted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.chat_calls import Desk
from tests.tool_talks import LOOK, SURE, TOOLS, Line, all_valid, asking, results, talks
from tests.vendors.openai import FakeOpenAI, ToolCall
from voiceflow import Interrupt, Prompt, Reply, ReplyEnd
from voiceflow.engine.reply import ReplyState
from voiceflow.frames import ToolEnd, ToolStart
from voiceflow.testing.pytest_plugin import VirtualTime
from voiceflow.tools import UseState, end_call, tool

MONDAY = '{"day": "Monday"}'
WASTED = ("wasted_requests", "wasted_tokens", "wasted_prompt_tokens", "wasted_completion_tokens")


@pytest.fixture(autouse=True)
def checked() -> Iterator[None]:
    with all_valid():
        yield


# -- interrupts, drafts and the end of the call


async def test_an_interrupt_while_a_read_runs(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(talks([LOOK, ToolCall("look_up", MONDAY)], SURE))
    async with Line(fake, tools=TOOLS) as line:
        line.says("When?")
        reply = line.live
        await fake.until(lambda: fake.requests and fake.requests[0].how)
        await asyncio.sleep(0.2)
        assert len(line.rig.got(ToolStart)) == 1
        line.says("Never mind.")
        assert reply.dead
        (use,) = [entry for entry in line.rig.call.history.messages if entry.role == "tool"]
        await asyncio.sleep(5)
        assert use.state is UseState.CANCELLED
        assert len(fake.requests) == 2
        assert [m["role"] for m in fake.requests[1].messages] == ["user", "assistant", "tool", "user"]
        assert results(fake.requests[1].messages) == ["The caller interrupted: this was not finished."]
        assert line.llm.figures()["cancelled"] == 1
        assert line.text(reply) == f"{LOOK}\n"
        assert line.llm._pool().figures()["misses"] == 0


async def test_a_commit_outlives_its_reply(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(talks([LOOK, ToolCall("book", MONDAY)], "Wait.", "It is done."))
    async with Line(fake, tools=TOOLS) as line:
        line.says("Book it.")
        await fake.until(lambda: fake.requests and fake.requests[0].how)
        await asyncio.sleep(0.2)
        line.says("Is it done?")
        await asyncio.sleep(0.5)
        assert results(fake.requests[1].messages) == ["Still running: there is no result yet."]
        line.turns.heard("Wait.")
        line.says("And now?")
        await asyncio.sleep(0.1)
        assert results(fake.requests[2].messages) == ["Still running: there is no result yet."]
        line.turns.turns.started()
        await asyncio.sleep(3)
        line.turns.turns.ended("Now?")
        await asyncio.sleep(1)
        assert results(fake.requests[3].messages) == ["booked Monday"]
        assert [each.use.state for each in line.rig.got(ToolEnd)] == [UseState.DONE]
        assert len(line.rig.got(Interrupt)) == 2


async def test_a_result_that_comes_during_a_round_is_read_in_the_next(virtual_time: VirtualTime) -> None:
    """The history is rendered anew for every request, retries included."""
    fake = FakeOpenAI(talks([LOOK, ToolCall("book", MONDAY)], asking(ToolCall("look_up", MONDAY)), SURE))
    async with Line(fake, tools=TOOLS) as line:
        line.says("Book it.")
        await fake.until(lambda: fake.requests and fake.requests[0].how)
        await asyncio.sleep(1.5)
        line.says("Is it done?")
        await asyncio.sleep(3)
        assert [results(fake.requests[request].messages) for request in (1, 2)] == [
            ["Still running: there is no result yet."],
            ["booked Monday", "Monday: nine to five"],
        ]


async def test_the_call_ends_while_a_commit_runs(virtual_time: VirtualTime) -> None:
    """It is finished, though it takes longer than other processors have for their `stop`."""
    done: list[str] = []

    @tool(effect="commit", limit=20.0)
    async def slow() -> str:
        """Slow."""
        await asyncio.sleep(15.0)
        done.append("done")
        return "done"

    fake = FakeOpenAI(talks(asking(ToolCall("slow")), SURE))
    async with Line(fake, tools=[slow]) as line:
        line.says("Do it.")
        await asyncio.sleep(1)
        assert line.llm.stop_timeout > 20.0
    assert done == ["done"]
    assert len(fake.requests) == 1
    (use,) = line.rig.call.history.messages[1:]
    assert use.state is UseState.DONE


async def test_so_it_is_with_a_tool_that_a_prompt_brought(virtual_time: VirtualTime) -> None:
    @tool(effect="commit", limit=20.0)
    async def slow() -> str:
        """Slow."""
        await asyncio.sleep(15.0)
        return "done"

    fake = FakeOpenAI(talks(asking(ToolCall("slow")), SURE))
    async with Desk(fake) as desk:
        desk.ask(tools=(slow,))
        await asyncio.sleep(1)
    (use,) = desk.rig.call.history.messages
    assert use.state is UseState.DONE


async def test_a_dropped_draft_leaves_nothing(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(talks(asking(ToolCall("look_up", MONDAY), ToolCall("book", MONDAY), say=LOOK), SURE))
    async with Line(fake, tools=TOOLS) as line:
        keeper = line.turns.turns
        keeper.started()
        keeper.may_be_over("Book Monday")
        await asyncio.sleep(2)
        assert [frame.use.requested.name for frame in line.rig.got(ToolStart)] == ["look_up"]
        keeper.resumed()
        keeper.ended("Book Monday, no, rather not.")
        await asyncio.sleep(5)
        assert len(fake.requests) == 2
        assert fake.requests[1].messages == [{"role": "user", "content": "Book Monday, no, rather not."}]
        assert [entry.role for entry in line.rig.call.history.messages] == ["user"]
        assert [frame.use.requested.name for frame in line.rig.got(ToolStart)] == ["look_up"]


async def test_a_confirmed_draft_goes_on(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(talks(asking(ToolCall("look_up", MONDAY), ToolCall("book", MONDAY)), SURE))
    async with Line(fake, tools=TOOLS) as line:
        keeper = line.turns.turns
        keeper.started()
        keeper.may_be_over("Book Monday")
        await asyncio.sleep(2)
        keeper.ended("Book Monday")
        reply = line.live
        await asyncio.sleep(5)
        assert line.text(reply) == SURE
        assert results(fake.requests[1].messages) == ["Monday: nine to five", "booked Monday"]
        assert [entry.role for entry in line.rig.call.history.messages] == ["user", "tool", "tool"]
        counted = line.llm.figures()
        assert [counted[name] for name in WASTED] == [0, 0, 0, 0]


async def test_end_call_while_being_interrupted(virtual_time: VirtualTime) -> None:
    """The caller speaks into the goodbye: nobody hangs up, and the model learns that it was not done."""
    fake = FakeOpenAI(talks(["Goodbye!", ToolCall("end_call")], "Oh, yes?", ["Bye.", ToolCall("end_call")]))
    async with Line(fake, tools=[end_call()]) as line:
        line.says("That is all.")
        await fake.until(lambda: fake.requests and fake.requests[0].how)
        await asyncio.sleep(0.2)
        assert len(line.rig.got(ReplyEnd)) == 1
        assert len(fake.requests) == 1  # nothing is asked after it
        line.says("Wait!")
        await asyncio.sleep(1)
        assert results(fake.requests[1].messages)[0].startswith("Not done: the caller spoke")
        assert line.rig.call._over is not None
        assert not line.rig.call._over.done()
        line.turns.heard("Oh, yes?")
        line.says("No, nothing.")
        await asyncio.sleep(1)
        line.turns.heard("Bye.")
        await asyncio.sleep(15)
        assert line.rig.call._over.done()
        assert line.rig.call._over.result() == "the agent hung up"


async def test_end_call_in_the_middle_of_its_own_interrupt(virtual_time: VirtualTime) -> None:
    """Cut off while the call of end_call still comes: it was never asked for."""
    fake = FakeOpenAI(talks(["Goodbye!", ToolCall("end_call", '{  "a" : 1 }')], SURE), gap=0.2)
    async with Line(fake, tools=[end_call()]) as line:
        line.says("That is all.")
        await asyncio.sleep(0.7)
        assert fake.requests[0].how == ""
        line.says("Wait!")
        await asyncio.sleep(30)
        assert fake.requests[0].how == "left"
        assert [m["role"] for m in fake.requests[1].messages] == ["user", "user"]
        assert line.rig.call._over is not None
        assert not line.rig.call._over.done()


async def test_a_held_back_reply_is_left_clean(virtual_time: VirtualTime) -> None:
    """Closed while the chain holds back a token of the second answer."""
    fake = FakeOpenAI(talks(asking(ToolCall("look_up", MONDAY)), "One two three."), gap=1.0)
    async with Desk(fake, tools=TOOLS) as desk:
        frames: AsyncIterator[Any] = desk.llm.answer(Prompt("Hi", reply=desk.rig.reply()))
        assert (await anext(frames)).text == "One"
        await frames.aclose()  # type: ignore[attr-defined]
        await fake.until(lambda: fake.requests[1].how)
        assert fake.requests[1].how == "left"


# -- what drafts cost


async def draft(desk: Desk, **asked: Any) -> Reply:
    reply = Reply(0, ReplyState.DRAFT)
    desk.rig.push(Prompt("Are you open?", (), reply=reply, **asked))
    await desk.rig.settled()
    return reply


async def test_a_draft_that_was_dropped_is_waste(virtual_time: VirtualTime) -> None:
    async with Desk() as desk:
        reply = await draft(desk)
        await asyncio.sleep(0.25)
        desk.rig.kill(reply)
        counted = desk.llm.figures()
        assert [counted[name] for name in WASTED] == [1, 3, 0, 0]
        assert desk.llm.figures() == counted


async def test_also_when_its_answer_was_complete(virtual_time: VirtualTime) -> None:
    async with Desk() as desk:
        reply = await draft(desk)
        await asyncio.sleep(3)
        assert desk.llm.figures()["wasted_requests"] == 0
        desk.rig.kill(reply)
        await desk.answered()
        counted = desk.llm.figures()
        pieces = len(desk.fake.requests[0].sent)
        assert [counted[name] for name in WASTED] == [1, pieces, 4, pieces]
        assert (counted["requests"], counted["completion_tokens"]) == (2, 2 * pieces)


async def test_a_draft_that_was_right_is_none(virtual_time: VirtualTime) -> None:
    async with Desk() as desk:
        reply = await draft(desk)
        await asyncio.sleep(0.25)
        reply.become(ReplyState.LIVE)
        desk.rig.kill(reply)
        await desk.rig.settled()
        counted = desk.llm.figures()
        assert (counted["wasted_requests"], counted["cancelled"]) == (0, 1)


async def test_a_draft_at_the_end_of_the_call_counts(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    async with Line(fake) as line:
        line.turns.turns.started()
        line.turns.turns.may_be_over("Hello")
        await asyncio.sleep(0.25)
    assert line.rig.result is not None
    assert line.rig.result.figures["ChatLLM.wasted_requests"] == 1
