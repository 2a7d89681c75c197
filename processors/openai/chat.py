"""Chat completions without IO: what is asked, and what the chunks of the answer say.

Shapes: platform.openai.com/docs/api-reference/chat-streaming. Servers differ in what they leave out, so that
a chunk may lack anything: the usage comes with empty `choices`, Azure begins with a chunk that has none
either, `content` is null or absent beside tool calls and thoughts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from processors.openai.calls import Calls
from voiceflow.engine.history import Entry
from voiceflow.frames import Prompt
from voiceflow.tools.tool import Tool
from voiceflow.tools.use import Requested, ToolUse

CALL_BEGINS = "(The call begins.)"
"""What the user has said before the agent speaks first, for templates where somebody has to."""
NAMELESS = "unknown"
"""The name under which a call without one is shown to the model again."""

Message = dict[str, Any]


@dataclass(slots=True, frozen=True)
class Earlier:
    """An earlier answer of the same reply: what was said in it, and the tools it asked for."""

    said: str
    uses: tuple[ToolUse, ...]


def messages(
    instructions: str, prompt: Prompt, earlier: Sequence[Earlier] = (), *, alternate: bool = False
) -> list[Message]:
    """The conversation as the model reads it at this moment: a tool that runs has no result yet.

    `alternate` is for chat templates that insist on user and assistant in turn: neighbours of one role are
    joined. They know no tools either, so the uses are told in words.
    """
    system = "\n\n".join(part for part in (instructions, prompt.instructions) if part)
    first: list[Message] = [{"role": "system", "content": system}] if system else []
    if alternate:
        return first + _in_turn(_in_words(prompt, earlier))
    said = _entries(prompt.history)
    if prompt.cue.strip():
        said.append({"role": "system", "content": prompt.cue})
    else:
        said.append({"role": "user", "content": prompt.text})
    for answer in earlier:
        said += _used(answer.uses, answer.said.strip())
    return first + said


def _entries(history: Iterable[Entry]) -> list[Message]:
    """A message each, but calls that were asked for at once are one of the assistant's, and their results
    follow it."""

    def batch(entry: Entry) -> object:
        return entry.batch if isinstance(entry, ToolUse) else entry.role

    found: list[Message] = []
    for _, group in groupby(history, batch):
        entries = list(group)
        if uses := [entry for entry in entries if isinstance(entry, ToolUse)]:
            found += _used(uses)
        else:
            found += [{"role": entry.role, "content": entry.content} for entry in entries]
    return found


def _used(uses: Sequence[ToolUse], said: str = "") -> list[Message]:
    calls = [{"id": u.requested.id, "type": "function", "function": _function(u.requested)} for u in uses]
    results = [{"role": "tool", "tool_call_id": u.requested.id, "content": u.content} for u in uses]
    return [{"role": "assistant", "content": said or None, "tool_calls": calls}, *results]


def _function(requested: Requested) -> dict[str, str]:
    """As it may be sent again: OpenAI refuses other characters in a name, and vLLM and Ollama a request
    with arguments in it that are no JSON object, so that one bad call would be the end of all answers."""
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", requested.name)[:64]
    return {"name": name or NAMELESS, "arguments": _object(requested.arguments)}


def _object(arguments: str) -> str:
    def refuse(constant: str) -> None:  # Python reads NaN and Infinity, others do not
        raise ValueError(constant)

    try:
        found = json.loads(arguments, parse_constant=refuse)
    except (ValueError, RecursionError):
        found = None
    return arguments if isinstance(found, dict) else json.dumps({"unreadable": arguments})


def _in_words(prompt: Prompt, earlier: Sequence[Earlier]) -> list[tuple[str, str]]:
    """Who said what. A tool's use is told to the model, as if by the user: what it finds among its own words
    it would soon say aloud."""

    def told(entry: Entry) -> tuple[str, str]:
        if not isinstance(entry, ToolUse):
            return entry.role, entry.content
        function = _function(entry.requested)
        return "user", f"(The result of {function['name']}({function['arguments']}): {entry.content})"

    said = [told(entry) for entry in prompt.history]
    said.append(("user", f"({prompt.cue})" if prompt.cue.strip() else prompt.text))
    for answer in earlier:
        if words := answer.said.strip():
            said.append(("assistant", words))
        said += [told(use) for use in answer.uses]
    return said


def _in_turn(said: Sequence[tuple[str, str]]) -> list[Message]:
    joined = [("user", CALL_BEGINS)] if said[0][0] != "user" else []
    for role, content in said:
        if joined and joined[-1][0] == role:
            joined[-1] = (role, f"{joined[-1][1]} {content}")
        else:
            joined.append((role, content))
    return [{"role": role, "content": content} for role, content in joined]


def body(
    model: str,
    messages: Sequence[Message],
    options: Mapping[str, Any],
    *,
    official: bool,
    temperature: float | None,
    max_tokens: int | None,
    stream_options: bool,
    tools: Sequence[Tool] = (),
    withheld: bool = False,
) -> dict[str, Any]:
    """The request. `options` are further fields, and win. `withheld`: the model may not ask for the tools any
    more, which are named all the same because the conversation speaks of them.

    OpenAI's newer models refuse `max_tokens`; the other servers know no other name for it.
    """
    asked: dict[str, Any] = {"model": model, "messages": messages}
    if temperature is not None:
        asked["temperature"] = temperature
    if max_tokens is not None:
        asked["max_completion_tokens" if official else "max_tokens"] = max_tokens
    if stream_options:
        asked["stream_options"] = {"include_usage": True}
    if tools:
        asked["tools"] = [_offered(tool) for tool in tools]
    last = {"tool_choice": "none"} if tools and withheld else {}
    return {**asked, **options, **last, "stream": True}


def _offered(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


class Reading:
    """What the chunks of one answer have said so far."""

    __slots__ = ("calls", "completion_tokens", "error", "finish", "prompt_tokens")

    def __init__(self) -> None:
        self.finish = ""
        """stop, length, content_filter, tool_calls; empty while the answer goes on. With calls, some say stop
        where others say tool_calls."""
        self.error = ""
        """What went wrong at the server, in its own words (vLLM sends an object "error" as a chunk)."""
        self.calls = Calls()
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def feed(self, chunk: object) -> str:
        """The text of the next chunk; empty when it has none. Thoughts are passed over, and `function_call`,
        which was replaced by tool calls in 2023."""
        if not isinstance(chunk, dict):
            return ""
        if usage := chunk.get("usage"):
            self.prompt_tokens = _count(usage, "prompt_tokens")
            self.completion_tokens = _count(usage, "completion_tokens")
        if not (choices := chunk.get("choices")):
            if chunk.get("object") == "error":
                self.error = str(chunk.get("message") or "no reason given")
            return ""
        choice = choices[0] if isinstance(choices, list) else None
        if not isinstance(choice, dict):
            return ""
        if finish := choice.get("finish_reason"):
            self.finish = str(finish)
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return ""
        if fragments := delta.get("tool_calls"):
            self.calls.feed(fragments)
        text = delta.get("content")
        return text if isinstance(text, str) else ""


def _count(usage: object, name: str) -> int:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0
