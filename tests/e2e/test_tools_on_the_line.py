"""Tools over real sockets, when something goes wrong: the caller hangs up or interrupts, the model errs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tests.e2e.agents import GREETING, environment, spoken, vendors
from tests.e2e.conversation import Phone, real
from tests.tool_talks import all_valid
from tests.vendors.completions import Answer
from tests.vendors.openai import FakeOpenAI, ToolCall
from tests.vendors.server import OPENAI_KEY
from voiceflow.tools import UseState, end_call, tool

DAY = json.dumps({"day": "Monday"})


def played(
    model: Callable[[list[dict[str, Any]]], Answer],
    tools: list[Any],
    script: Callable[[Phone, FakeOpenAI], Awaitable[None]],
) -> tuple[Phone, FakeOpenAI]:
    """The whole call; every request has to be one that a server takes."""

    async def call() -> tuple[Phone, FakeOpenAI]:
        llm = FakeOpenAI(key=OPENAI_KEY, reply=model, ttft=0.1, gap=0.01)
        async with vendors(llm=llm) as of:
            with environment(of), all_valid():
                async with real(of, spoken(tools=tools)) as phone:
                    await phone.hears(GREETING)
                    await script(phone, llm)
            return phone, llm

    return asyncio.run(asyncio.wait_for(call(), 60))


def test_who_hangs_up_while_it_is_booked_has_a_booking() -> None:
    booked: list[str] = []
    began, heard_of_it = asyncio.Event(), asyncio.Event()

    @tool(effect="commit")
    async def book(day: str) -> str:
        """Books a day."""
        began.set()
        await heard_of_it.wait()
        booked.append(day)
        return "It is booked."

    def clerk(messages: list[dict[str, Any]]) -> Answer:
        return "I am writing it down. ", ToolCall("book", DAY)

    async def script(phone: Phone, llm: FakeOpenAI) -> None:
        await phone.said("On Monday, please.")
        await began.wait()
        phone.stream.hang_up()
        await phone.until(lambda: phone.call.line.stopped, "the line is gone")
        assert booked == []
        heard_of_it.set()

    phone, llm = played(clerk, [book], script)
    assert booked == ["Monday"]
    assert phone.result is not None
    assert phone.result.fault is None
    (use,) = [entry for entry in phone.call.history.messages if entry.role == "tool"]
    assert use.content == "It is booked."
    assert len(llm.requests) == 1  # nobody is left to be told


def test_a_model_that_errs_is_told_and_mends_it() -> None:
    @tool(effect="commit")
    async def book(day: str) -> str:
        """Books a day."""
        return f"{day} is booked."

    def clerk(messages: list[dict[str, Any]]) -> Answer:
        last = messages[-1]
        if last["role"] != "tool":
            return (ToolCall("reserve", DAY),)
        if "There is no tool reserve" in last["content"]:
            return (ToolCall("book", '{"day": "Mon'),)
        if "booked" not in last["content"]:
            return (ToolCall("book", DAY),)
        return last["content"]

    async def script(phone: Phone, llm: FakeOpenAI) -> None:
        await phone.said("On Monday, please.")
        await phone.hears_since("Monday is booked.")

    phone, llm = played(clerk, [book], script)
    uses = [entry for entry in phone.call.history.messages if entry.role == "tool"]
    assert [use.state for use in uses] == [UseState.REFUSED, UseState.REFUSED, UseState.DONE]  # type: ignore[attr-defined]
    assert len(llm.requests) == 4
    assert phone.result is not None
    assert phone.result.fault is None


def test_a_goodbye_that_is_interrupted_ends_nothing() -> None:
    def clerk(messages: list[dict[str, Any]]) -> Answer:
        if "Wait" in str(messages[-1]["content"]):
            return "I am still here."
        return "Then I wish you a very good day. Goodbye, and thank you for calling!", ToolCall("end_call")

    async def script(phone: Phone, llm: FakeOpenAI) -> None:
        await phone.said("That is all.")
        await phone.hears_since("Then I wish")
        await phone.said("Wait!")
        await phone.hears_since("I am still here.")
        await phone.quiet(1.0)
        assert phone.call._over is not None
        assert not phone.call._over.done()

    phone, llm = played(clerk, [end_call()], script)
    assert phone.result is not None
    assert phone.result.reason != "the agent hung up"
    (use,) = [entry for entry in phone.call.history.messages if entry.role == "tool"]
    assert use.state is UseState.CANCELLED  # type: ignore[attr-defined]
    assert "thank you for calling" not in " ".join(phone.said_by_agent())
    assert len(llm.requests) == 2
