"""Whole calls with an agent that uses tools: what is heard, in what order, and what the model reads of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.e2e.agents import GREETING, environment, spoken, vendors
from tests.e2e.conversation import Phone, real, virtual
from tests.tool_talks import all_valid
from tests.vendors.completions import Answer
from tests.vendors.openai import FakeOpenAI, ToolCall
from tests.vendors.server import OPENAI_KEY
from voiceflow.tools import end_call, tool

DAY = json.dumps({"day": "Monday"})


@tool(effect="commit")
async def book(day: str) -> str:
    """Books a day."""
    await asyncio.sleep(2.0)
    return f"{day} is booked."


def clerk(messages: list[dict[str, Any]]) -> Answer:
    last = messages[-1]
    if last["role"] == "tool":
        return f"Well then: {last['content']}"
    if last["role"] == "system":
        return "By the way, it is done."
    if "Monday" in last["content"]:
        return "I am writing it down", ToolCall("book", DAY)  # no stop: the sentence is not over
    if "Wait" in last["content"]:
        return "I am listening."
    return "Goodbye!", ToolCall("end_call")


def make() -> Any:
    return spoken(tools=[book, end_call()])


def fakes() -> Any:
    return vendors(llm=FakeOpenAI(key=OPENAI_KEY, reply=clerk, ttft=0.1, gap=0.01))


async def a_booking(phone: Phone) -> None:
    await phone.hears(GREETING)
    await phone.said("On Monday, please.")
    await phone.hears_since("I am writing it down")
    tools = [entry for entry in phone.call.history.messages if entry.role == "tool"]
    assert [entry.content for entry in tools] == ["Still running: there is no result yet."]
    await phone.hears_since("Well then: Monday is booked.")
    await phone.said("That is all.")
    await phone.hears_since("Goodbye!")
    await phone.until(lambda: phone.call._over is not None and phone.call._over.done(), "the agent hangs up")


def check(phone: Phone, llm: FakeOpenAI) -> None:
    assert phone.result is not None
    assert (phone.result.fault, phone.result.reason) == (None, "the agent hung up")
    assert len(llm.requests) == 3
    roles = [message["role"] for message in llm.requests[2].messages[1:]]
    assert roles == ["assistant", "user", "assistant", "tool", "assistant", "user"]
    assert llm.requests[2].messages[-2]["content"] == "I am writing it down Well then: Monday is booked."
    assert phone.result.figures["ChatLLM.pool_misses"] == 0


async def test_a_booking_in_virtual_time(virtual_time: None) -> None:
    of = fakes()
    with environment(of), all_valid():
        async with virtual(of, make()) as phone:
            await a_booking(phone)
        check(phone, of.llm)


def test_a_booking_over_real_sockets() -> None:
    async def call() -> None:
        async with fakes() as of:
            with environment(of), all_valid():
                async with real(of, make()) as phone:
                    await a_booking(phone)
                check(phone, of.llm)

    asyncio.run(asyncio.wait_for(call(), 60))


async def test_the_caller_talks_while_it_is_booked(virtual_time: None) -> None:
    """The booking goes on. Its result is told at the next silence, since nobody has asked."""
    of = fakes()
    with environment(of), all_valid():
        async with virtual(of, make()) as phone:
            await phone.hears(GREETING)
            await phone.said("On Monday, please.")
            await phone.hears_since("I am writing")
            await phone.said("Wait!")
            await phone.hears_since("I am listening.")
            await phone.until(lambda: len(of.llm.requests) == 3, "the result is told")
            await phone.hears_since("By the way, it is done.")
        interrupted, told = of.llm.requests[1].messages, of.llm.requests[2].messages
        assert [m["content"] for m in interrupted if m["role"] == "tool"] == [
            "Still running: there is no result yet."
        ]
        assert [m["content"] for m in told if m["role"] == "tool"] == ["Monday is booked."]
        assert told[-1]["role"] == "system"
        assert "Monday is booked." in told[-1]["content"]


async def test_who_speaks_over_what_comes_after_the_farewell_is_not_hung_up_on(virtual_time: None) -> None:
    """The farewell is heard; then the agent tells what came of the booking, and the caller has a question."""

    def terse(messages: list[dict[str, Any]]) -> Answer:
        asked = str(messages[-1]["content"])
        return (ToolCall("end_call"),) if "That is all" in asked else clerk(messages)

    of = vendors(llm=FakeOpenAI(key=OPENAI_KEY, reply=terse, ttft=0.1, gap=0.01))
    with environment(of), all_valid():
        async with virtual(of, spoken(tools=[book, end_call(farewell="Have a nice day, goodbye!")])) as phone:
            await phone.hears(GREETING)
            await phone.said("On Monday, please.")
            await phone.hears_since("I am writing")
            await phone.said("That is all.")
            await phone.hears_since("goodbye!")
            await phone.hears_since("By the way")
            await phone.said("Wait!")
            await phone.hears_since("I am listening.")
        uses = {
            use.requested.name: use.state.value for use in phone.call.history.messages if use.role == "tool"
        }  # type: ignore[attr-defined]
        assert uses == {"book": "done", "end_call": "cancelled"}
