"""A chat completion: what was asked for, what is answered, and what goes wrong with it."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.vendors.http_connection import Connection

_TOKEN = re.compile(
    r"'(?:[sdmt]|ll|ve|re)\b| ?[^\W\d_]{1,9}|\d{1,3}| ?(?:[^\s\w]|_)+\n*|\s*\n|\s+(?=\s)|\s", re.IGNORECASE
)


def tokens(text: str) -> list[str]:
    """`text` in pieces like those of a real tokenizer: "Hello", " there", ",", "3", ".", "50".

    After OpenAI's cl100k pattern, with words over nine letters cut, as rare ones are. The pieces joined are
    the text again."""
    return _TOKEN.findall(text)


@dataclass(slots=True, frozen=True)
class ToolCall:
    """A call of a function that the model wants. `arguments` is JSON, sent in fragments."""

    name: str
    arguments: str = "{}"
    id: str = ""


Answer = str | Sequence[str | ToolCall]
"""A text, or its pieces and tool calls: a token each, and one for each fragment of a call's arguments."""
Reply = Sequence[str] | Callable[[list[dict[str, Any]]], Answer]


_CALL = re.compile(r"\b([A-Za-z_]\w*)\((\{.*\}|)\)\s*$", re.DOTALL)


class Scripted:
    """Answers in turn, over and over, as somebody types them: `Let me see. opening_hours({"day": "Monday"})`
    says something and then calls a tool. Who asks again at the same place of a conversation (a draft that was
    dropped, another call) is given the same."""

    def __init__(self, replies: Sequence[str]) -> None:
        self._answers = itertools.cycle([_typed(reply) for reply in replies])
        self._given: dict[tuple[str, ...], Answer] = {}  # as many as a conversation is long

    def __call__(self, messages: list[dict[str, Any]]) -> Answer:
        place = tuple(message["role"] for message in messages if message["role"] in ("user", "tool"))
        if messages[-1]["role"] not in ("user", "tool"):
            place += (str(messages[-1]["content"]),)  # something that the program wants to be said
        if place not in self._given:
            self._given[place] = next(self._answers)
        return self._given[place]


def _typed(reply: str) -> Answer:
    called = _CALL.search(reply)
    if called is None:
        return reply
    return *tokens(reply[: called.start()]), ToolCall(called[1], called[2] or "{}")


@dataclass(slots=True, frozen=True, kw_only=True)
class Fault:
    """How one request is answered otherwise than well. The fields combine.

    status        an HTTP error, with OpenAI's body, instead of a stream; `retry_after` seconds in its header
    ttft, gap     other times than the server's, in seconds
    then, after   `after` so many tokens, or all when there are fewer, it falls silent, sends an error object
                  and ends, or drops the connection. Until the first token not even a header is sent
    early         the HTTP header comes at once, not with the first token
    finish        a finish_reason: "length", "content_filter"
    done          False: the stream ends without [DONE]
    index         False: tool calls come without `index`, as some Ollama versions send them
    blank         "null": deltas without text have `"content": null`; "absent": the first one has none either
    no_choices    a first chunk with empty choices, as Azure sends for its content filter
    extras        fields that no client knows
    crlf          lines end in CR LF
    comments      SSE comments between the chunks, and each second while nothing else is sent; implies `early`
    """

    status: int = 200
    retry_after: float | None = None
    ttft: float | None = None
    gap: float | None = None
    then: Literal["", "stall", "error", "drop"] = ""
    after: int = 0
    early: bool = False
    finish: str = ""
    done: bool = True
    index: bool = True
    blank: Literal["", "null", "absent"] = ""
    no_choices: bool = False
    extras: bool = False
    crlf: bool = False
    comments: bool = False


@dataclass(slots=True, eq=False)
class Completion:
    """One completion that was asked for. Times are `loop.time()`."""

    arrived: float
    """When the server had the request, the connection's `handshake` included."""
    connection: Connection
    messages: list[dict[str, Any]]
    parameters: dict[str, Any]
    """The rest of the body."""
    authorized: bool = True
    status: int = 0
    sent: list[tuple[float, str]] = field(default_factory=list)
    """The tokens and when they were handed to the connection."""
    how: Literal["", "finished", "left", "dropped"] = ""
    """How it ended: all was sent, the client left before that, or the server dropped the connection."""
    ended: float | None = None
    """When it did; for "left", when the server noticed."""

    @property
    def text(self) -> str:
        return "".join(token for _, token in self.sent)

    def end(self, how: Literal["finished", "left", "dropped"]) -> None:
        if not self.how:
            self.how, self.ended = how, asyncio.get_running_loop().time()


def read_request(body: bytes, authorized: bool, connection: Connection) -> Completion | None:
    """The request, or None when it is none that can be answered: this server only streams."""
    try:
        parameters = json.loads(body)
        messages = parameters.pop("messages")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    if not isinstance(messages, list) or not messages or parameters.get("stream") is not True:
        return None
    return Completion(asyncio.get_running_loop().time(), connection, messages, parameters, authorized)
