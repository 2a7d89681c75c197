"""What the tests of ChatLLM's tools share: tools, a model that calls them, a caller, and whether the
conversations are such as servers take."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self
from unittest import mock

import httpx2

from processors.openai import ChatLLM
from tests.chat_calls import MEMORY, Script
from tests.vendors.completions import Answer
from tests.vendors.openai import FakeOpenAI, ToolCall
from voiceflow import Processor, Reply, Token, on
from voiceflow.engine.mouth import HeardText
from voiceflow.frames import CallStart
from voiceflow.services import Services
from voiceflow.testing import Rig
from voiceflow.tools import tool

LOOK, SURE = "Let me see.", "Monday it is."


@tool(effect="read", limit=5.0)
async def look_up(day: str) -> str:
    """Looks a day up."""
    await asyncio.sleep(0.5)
    return f"{day}: nine to five"


@tool(effect="read")
async def weather(place: str) -> str:
    """The weather."""
    await asyncio.sleep(0.3)
    return f"Sun in {place}"


@tool(effect="read")
async def broken() -> str:
    """Does not work."""
    raise ValueError("the books are closed")


@tool(effect="commit", limit=8.0)
async def book(day: str) -> str:
    """Books a day."""
    await asyncio.sleep(2.0)
    return f"booked {day}"


TOOLS = (look_up, weather, broken, book)


def talks(*answers: Answer) -> Callable[[list[dict[str, Any]]], Answer]:
    """The answers one after another, the last for ever."""
    left = list(answers)
    return lambda messages: left.pop(0) if len(left) > 1 else left[0]


def asking(*calls: ToolCall, say: str = "") -> Answer:
    return [*([say] if say else []), *calls]


class Turns(Processor):
    """The turn's authority, in the hands of the test, and the line: what was said counts as heard."""

    takes_turns = True
    needs = ()

    @on(CallStart)
    def ready(self, start: CallStart) -> None: ...

    def heard(self, text: str) -> None:
        """The live reply was played to its end."""
        live = self.call.turns.live
        assert live is not None
        self.call.history.agent_was_heard(text, cut=False)
        self.call.turns.played(live, HeardText(text, complete=True))


class Line:
    """`async with Line(fake, tools=...)`: a ChatLLM under a TurnKeeper."""

    def __init__(self, fake: FakeOpenAI, **options: Any) -> None:
        self.fake, self.turns = fake, Turns()
        self.llm = ChatLLM(**{**MEMORY, **options})
        self.rig = Rig(self.turns, self.llm, services=Services(transport=fake.transport))

    async def __aenter__(self) -> Self:
        await self.rig.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.rig.__aexit__(*error)

    def says(self, text: str) -> None:
        self.turns.turns.started()
        self.turns.turns.ended(text)

    @property
    def live(self) -> Reply:
        live = self.turns.call.turns.live
        assert live is not None
        return live

    def text(self, reply: Reply) -> str:
        return "".join(token.text for token in self.rig.got(Token) if token.reply is reply)


def results(messages: list[dict[str, Any]]) -> list[str]:
    """The results of tools in a request."""
    return [message["content"] for message in messages if message["role"] == "tool"]


@contextmanager
def all_valid() -> Iterator[None]:
    """Every request that any fake receives meanwhile is a conversation that a strict server takes."""
    found: list[str] = []
    stream, handle = FakeOpenAI._stream, Script.handle_async_request

    async def streamed(self: FakeOpenAI, asked: Any, *rest: Any) -> None:
        found.append(trouble(asked.messages))
        return await stream(self, asked, *rest)

    async def handled(self: Script, request: httpx2.Request) -> httpx2.Response:
        response = await handle(self, request)
        found.extend(trouble(asked["messages"]) for asked in self.asked[-1:])
        return response

    with (
        mock.patch.object(FakeOpenAI, "_stream", streamed),
        mock.patch.object(Script, "handle_async_request", handled),
    ):
        yield
    assert [each for each in found if each] == []


def trouble(messages: list[dict[str, Any]], *, alternate: bool = False) -> str:
    """What a strict server would refuse about it; empty when nothing.

    After OpenAI's own checks, and those of the servers that put the conversation into a template: every call
    is answered exactly once, directly after the message that asks for it, and nothing else is; names and
    arguments are well formed.
    """
    open_calls: list[str] = []
    if not messages:
        return "it is empty"
    for place, message in enumerate(messages):
        role, content, calls = message["role"], message.get("content"), message.get("tool_calls")
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                return f"{place}: a result that nobody asked for"
            open_calls.remove(message["tool_call_id"])
            if not isinstance(content, str):
                return f"{place}: a result that is no text"
            continue
        if open_calls:
            return f"{place}: {open_calls} were not answered"
        if role not in ("system", "user", "assistant"):
            return f"{place}: no such role: {role}"
        if not isinstance(content, str) and not (content is None and calls):
            return f"{place}: no content"
        if calls is None:
            continue
        if role != "assistant" or not calls:
            return f"{place}: calls that are none, or not the assistant's"
        for call in calls:
            if wrong := _wrong(call):
                return f"{place}: {wrong}"
            open_calls.append(call["id"])
        if len(set(open_calls)) < len(open_calls):
            return f"{place}: one id for two calls"
    if open_calls:
        return f"{open_calls} were not answered"
    json.dumps(messages, ensure_ascii=False).encode()
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if alternate and any(role != ("user", "assistant")[number % 2] for number, role in enumerate(roles)):
        return f"not in turn: {roles}"
    return ""


def _wrong(call: dict[str, Any]) -> str:
    function = call["function"]
    if call["type"] != "function" or not call["id"]:
        return "a call without a type or an id"
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", function["name"]):
        return f"the name {function['name']!r}"
    if not isinstance(json.loads(function["arguments"], parse_constant=lambda constant: 1 / 0), dict):
        return f"the arguments {function['arguments']!r}"
    return ""
