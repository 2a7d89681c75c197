"""Chat completions without IO: what is asked, and what the chunks of the answer say.

Shapes: platform.openai.com/docs/api-reference/chat-streaming. Servers differ in what they leave out, so that
a chunk may lack anything: the usage comes with empty `choices`, Azure begins with a chunk that has none
either, `content` is null or absent beside tool calls and thoughts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voiceflow.frames import Prompt

CALL_BEGINS = "(The call begins.)"
"""What the user has said before the agent speaks first, for templates where somebody has to."""


def messages(instructions: str, prompt: Prompt, *, alternate: bool = False) -> list[dict[str, str]]:
    """The conversation as the model reads it. `alternate` is for chat templates that insist on user and
    assistant in turn: neighbours of one role are joined."""
    system = "\n\n".join(part for part in (instructions, prompt.instructions) if part)
    said = [(message.role, message.content) for message in prompt.history]
    said.append(("user", prompt.text))
    if alternate:
        said = _in_turn(said)
    if system:
        said.insert(0, ("system", system))
    return [{"role": role, "content": content} for role, content in said]


def _in_turn(said: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    joined = [("user", CALL_BEGINS)] if said[0][0] != "user" else []
    for role, content in said:
        if joined and joined[-1][0] == role:
            joined[-1] = (role, f"{joined[-1][1]} {content}")
        else:
            joined.append((role, content))
    return joined


def body(
    model: str,
    messages: Sequence[Mapping[str, str]],
    options: Mapping[str, Any],
    *,
    official: bool,
    temperature: float | None,
    max_tokens: int | None,
    stream_options: bool,
) -> dict[str, Any]:
    """The request. `options` are further fields, and win.

    OpenAI's newer models refuse `max_tokens`; the other servers know no other name for it.
    """
    asked: dict[str, Any] = {"model": model, "messages": messages}
    if temperature is not None:
        asked["temperature"] = temperature
    if max_tokens is not None:
        asked["max_completion_tokens" if official else "max_tokens"] = max_tokens
    if stream_options:
        asked["stream_options"] = {"include_usage": True}
    return {**asked, **options, "stream": True}


class Reading:
    """What the chunks of one answer have said so far."""

    __slots__ = ("completion_tokens", "error", "finish", "prompt_tokens")

    def __init__(self) -> None:
        self.finish = ""
        """stop, length, content_filter, tool_calls; empty while the answer goes on."""
        self.error = ""
        """What went wrong at the server, in its own words (vLLM sends an object "error" as a chunk)."""
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def feed(self, chunk: object) -> str:
        """The text of the next chunk; empty when it has none. Thoughts and tool calls are passed over."""
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
        text = delta.get("content") if isinstance(delta, dict) else None
        return text if isinstance(text, str) else ""


def _count(usage: object, name: str) -> int:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0
