"""A server, and the SDK's client for it on warm connections: one for all calls of the process.

Importing this module imports the SDK, which takes about half a second: it is done in `warm()`, or at the
latest in `start()`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import openai

from processors.openai.failure import PAUSE, ModelFailed
from processors.openai.model import Address, Target
from voiceflow.errors import LinkError, LinkRefused
from voiceflow.http import QUOTED, Make, WarmTransport
from voiceflow.vendor import TEMPORARY, advice, explained, quote

NO_KEY = "none"
"""The SDK insists on a key. A server without keys does not look at it."""
PLAIN = {"Accept-Encoding": "identity"}
"""A proxy that compresses the stream would hold tokens back."""
REHEARSAL = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\ndata: [DONE]\n\n'
FILL_TIMEOUT = 6.0
"""Seconds that warming up waits for the first connections."""


class Endpoint:
    """`make` makes the transport of one connection, for tests in memory; real ones when it is None."""

    def __init__(self, address: Address, make: Make | None) -> None:
        self.name = f"chat completions at {address.host}"
        self.address = address
        key = address.key.value or NO_KEY
        headers = {"Authorization": f"Bearer {key}", **PLAIN}
        self.transport = WarmTransport(address.host, f"{address.url}/models", headers=headers, make=make)
        self.transport.pool.name = self.name  # its log lines stand alone: a host says nothing there
        # No timeouts and no retries of the SDK's: both are ours, and shorter than a caller's patience.
        self._client = openai.AsyncOpenAI(
            api_key=key,
            base_url=address.url,
            timeout=None,
            max_retries=0,
            default_headers=PLAIN,
            http_client=httpx2.AsyncClient(transport=self.transport, timeout=None),
        )

    async def stream(self, body: dict[str, Any]) -> openai.AsyncStream[object]:
        """The chunks of one completion, as plain dicts.

        The same request as `client.chat.completions.create(stream=True)`, without building a pydantic model
        of every chunk: 25 us each instead of 105, and nothing that a server leaves out can matter.
        """
        return await self._client.post(
            "/chat/completions",
            cast_to=object,
            body=body,
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )

    async def warm(self) -> None:
        """Dials ahead. LinkRefused when the key is wrong, LinkError when the server cannot be reached."""
        await self._rehearse()
        await self.transport.pool.fill(FILL_TIMEOUT)
        status, said = self.transport.greeting or (0, "")
        # A restricted key may be good for completions and not for the list of models: then scopes are named.
        if status == 401 and "scope" not in said.lower():
            raise explained(LinkRefused(self.address.host, 401, said), self.address.vendor, self.address.key)

    async def _rehearse(self) -> None:
        """One completion that never leaves the process: what the SDK does only once, and takes 6 ms for, is
        then behind it when the first caller asks."""

        def answer(request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=REHEARSAL)

        client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
        stream = await self._client.copy(http_client=client).post(
            "/chat/completions",
            cast_to=object,
            body={"model": "none", "messages": [], "stream": True},
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        async for _ in stream:
            pass
        await client.aclose()

    def figures(self) -> dict[str, float]:
        return self.transport.pool.figures()

    async def close(self) -> None:
        await self._client.close()


def explain(error: Exception, target: Target, conversation: Sequence[Mapping[str, Any]]) -> ModelFailed:
    """What went wrong and what to do about it, without secrets. The server is quoted, unless what it says
    repeats a piece of the conversation, which does not belong into a log."""
    key, vendor = target.address.key, target.vendor
    said = ""
    if isinstance(error, openai.APIError) and not _repeats(_said(error), conversation):
        said = quote(_said(error), key)
    if isinstance(error, openai.APIStatusError):
        status = 402 if error.code == "insufficient_quota" else error.status_code
        message = f"{vendor} refused (HTTP {error.status_code}): {advice(status, vendor, key)}{said}"
        return ModelFailed(message, retry_after=_retry_after(error) if status in TEMPORARY else None)
    if isinstance(error, openai.APIConnectionError):
        cause = type(error.__cause__ or error).__name__
        return ModelFailed(f"{vendor} cannot be reached, or broke off ({cause})", retry_after=0.0)
    if isinstance(error, openai.APIError):  # an error object in the middle of the stream
        return ModelFailed(f"{vendor} broke off{said}", retry_after=PAUSE)
    if isinstance(error, LinkError):
        return ModelFailed(f"{vendor}: {error}")
    return ModelFailed(f"{vendor} sent what cannot be understood ({type(error).__name__})", retry_after=PAUSE)


def _said(error: openai.APIError) -> str:
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return str(said or error.message)[:QUOTED]


def _repeats(said: str, conversation: Sequence[Mapping[str, Any]]) -> bool:
    """Whether three words in a row of the conversation, or a longer number of it, are in there."""
    heard = _words(said)
    runs, numbers = _runs(heard), {word for word in heard if len(word) > 3 and word.isdigit()}
    spoken = [words for message in conversation if message["role"] != "system" for words in _told(message)]
    return any(not runs.isdisjoint(_runs(words)) or not numbers.isdisjoint(words) for words in spoken)


def _told(message: Mapping[str, Any]) -> list[list[str]]:
    """The words of a message, and of what tools were called with."""
    calls = [call["function"]["arguments"] for call in message.get("tool_calls", ())]
    return [_words(text) for text in (message["content"] or "", *calls)]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _runs(words: list[str]) -> set[tuple[str, ...]]:
    return set(zip(words, words[1:], words[2:], strict=False))


def _retry_after(error: openai.APIStatusError) -> float:
    """The server's own wish, when it is given in seconds, but at least a moment."""
    try:
        return max(PAUSE, float(error.response.headers.get("retry-after", "")))
    except ValueError:
        return PAUSE
