"""A chat completion on the wire: its chunks, as server-sent events, and the bodies of errors.

Shapes: platform.openai.com/docs/api-reference/chat-streaming, and what openai 3.54 was seen to parse.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from tests.vendors.completions import Answer, Completion, Fault, ToolCall, tokens
from tests.vendors.http_connection import SEND_TIMEOUT, Wire
from tests.vendors.timing import sleep_until

COMMENT_EVERY = 1.0
"""Seconds between comments while nothing else is sent."""


class Script:
    """The chunks of one answer: `head` before the first token, `body` with a token each, `tail`."""

    def __init__(self, number: str, asked: Completion, answer: Answer, fault: Fault) -> None:
        self._known = {"id": number, "object": "chat.completion.chunk", "created": 1}
        self._known["model"] = asked.parameters.get("model", "")
        self._fault = fault
        self._usage = bool((asked.parameters.get("stream_options") or {}).get("include_usage"))
        pieces = tokens(answer) if isinstance(answer, str) else answer
        deltas: list[tuple[str, dict[str, Any]]] = []
        calls = 0
        for piece in pieces:
            if isinstance(piece, ToolCall):
                deltas += self._fragments(calls, piece, f"call_{number}_{calls}")
                calls += 1
            else:
                deltas.append((piece, {"content": piece}))
        most = asked.parameters.get("max_completion_tokens", asked.parameters.get("max_tokens"))
        finish = "length" if most and most < len(deltas) else "tool_calls" if calls else "stop"

        role: dict[str, Any] = {"role": "assistant"}
        if fault.blank != "absent":
            role["content"] = None if fault.blank else ""
        self.head = [self._chunk(role)]
        if fault.no_choices:
            empty = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
            self.head.insert(0, {**empty, "prompt_filter_results": [{"prompt_index": 0}]})
        self.body = [(token, self._chunk(delta)) for token, delta in deltas[:most]]
        self.tail = [self._chunk(self._blank(), fault.finish or finish)]
        if self._usage:
            prompt = sum(len(tokens(str(message.get("content") or ""))) for message in asked.messages)
            counts = {"prompt_tokens": prompt, "completion_tokens": len(self.body)}
            usage = {**counts, "total_tokens": sum(counts.values())}
            self.tail.append({**self._known, "choices": [], "usage": usage})

    def _fragments(self, place: int, call: ToolCall, number: str) -> list[tuple[str, dict[str, Any]]]:
        index = {"index": place} if self._fault.index else {}
        opening = {"id": call.id or number, "type": "function"}
        pieces = [(call.name, {**index, **opening, "function": {"name": call.name, "arguments": ""}})]
        pieces += [(part, {**index, "function": {"arguments": part}}) for part in tokens(call.arguments)]
        return [(token, {**self._blank(), "tool_calls": [piece]}) for token, piece in pieces]

    def _blank(self) -> dict[str, Any]:
        return {"content": None} if self._fault.blank == "null" else {}

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {**self._known, "choices": [choice], **({"usage": None} if self._usage else {})}
        if self._fault.extras:
            choice["delta"] = {**delta, "reasoning_content": None, "refusal": None}
            chunk |= {"service_tier": "default", "obfuscation": "bY3x", "x_vendor": {"queue_time": 0.01}}
        return chunk


class Events:
    """Server-sent events on a wire, in the manner that the fault asks for."""

    def __init__(self, wire: Wire, fault: Fault) -> None:
        self._wire = wire
        self._comments = fault.comments
        self._early = fault.early or fault.comments
        self._end = "\r\n" if fault.crlf else "\n"
        self._started = False

    async def wait(self, when: float | None) -> None:
        """Until that time, or for ever."""
        loop = asyncio.get_running_loop()
        if self._early:
            await self._write("")
        while self._comments and (when is None or loop.time() + COMMENT_EVERY < when):
            await self._write(f": processing{self._end * 2}")
            await sleep_until(loop.time() + COMMENT_EVERY)
        await sleep_until(when)

    async def send(self, events: Sequence[dict[str, Any]]) -> None:
        """In one packet."""
        between = f": processing{self._end * 2}" if self._comments else ""
        await self._write("".join(f"{between}data: {json.dumps(event)}{self._end * 2}" for event in events))

    async def end(self, *, done: bool) -> None:
        if done:
            await self._write(f"data: [DONE]{self._end * 2}")
        async with asyncio.timeout(SEND_TIMEOUT):
            await self._wire.end()

    async def _write(self, text: str) -> None:
        async with asyncio.timeout(SEND_TIMEOUT):
            if not self._started:
                self._started = True
                await self._wire.start(200, {"content-type": "text/event-stream; charset=utf-8"})
            if text:
                await self._wire.write(text.encode())


_ERRORS: dict[int, tuple[str, str, str | None]] = {
    400: ("This request cannot be understood, or does not stream.", "invalid_request_error", None),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    404: ("The model does not exist, or not for you.", "invalid_request_error", "model_not_found"),
    429: ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request. Sorry about that!", "server_error", None),
    503: ("The engine is currently overloaded, please try again later.", "server_error", None),
}


def error_body(status: int) -> dict[str, Any]:
    """What OpenAI says with an HTTP status, or in the middle of a stream."""
    message, kind, code = _ERRORS.get(status, (f"HTTP {status}", "server_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
