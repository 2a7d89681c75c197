"""One completion: asked, read piece by piece under our own deadlines, and closed whatever happens."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import openai

from processors.openai.chat import Reading
from processors.openai.endpoint import Endpoint, explain
from processors.openai.failure import PAUSE, ModelFailed, Silent
from processors.openai.model import Target
from voiceflow.http import TAKEN

if TYPE_CHECKING:
    from voiceflow.http import Lane
    from voiceflow.pool import Taken

REST = 1.0
"""Seconds for what comes after the last word: usage and the end of the stream, so that the connection is as
good as new."""
CUT = {
    "": "",
    "length": ": it needs a larger max_tokens",
    "content_filter": ": its content filter held the rest back",
}
"""Ends of an answer after which its calls of functions may be half of what was meant, and what to do."""


class Completion:
    """The pieces of an answer, as an async iterator. It is over with the model's word that it has finished,
    not with the end of the stream: read that with `rest`.

    With `tools`, the answer may be calls of functions too, or nothing else. A piece without text says that
    they begin. They are in `reading.calls`, and whole when the iteration ends without an error.

    The first text or call has to come at `first_by` (`loop.time()`), each further piece within `gap` seconds
    of being asked for. What carries neither, as thoughts and comments, does not count. Raises ModelFailed.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        target: Target,
        body: dict[str, Any],
        *,
        first_by: float,
        gap: float,
        tools: bool = False,
    ) -> None:
        self.reading = Reading()
        self.target = target
        self.tools = tools
        self.connection: Taken[Lane] | None = None
        """What its connection saved; None when it had to be dialled."""
        self.answered = False
        """Whether a stream began at all."""
        self._endpoint, self._body = endpoint, body
        self._first_by, self._gap = first_by, gap
        self._began = asyncio.get_running_loop().time()
        self._spoke = self._calling = False
        self._stream: openai.AsyncStream[object] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._gap if self._begun else self._first_by
        reading = self.reading
        while not reading.finish:
            fragments = reading.calls.fragments
            try:
                async with asyncio.timeout_at(due):
                    if self._stream is None:
                        self._stream = await self._open()
                    text = reading.feed(await self._stream.__anext__())
                if wrong := reading.error or (reading.calls.excess if self.tools else ""):
                    raise openai.APIError(wrong, self._stream.response.request, body=None)
            except StopAsyncIteration:
                break
            except TimeoutError:
                raise self._overdue(due) from None
            except Exception as error:  # from here on it is told without its traceback, which knows the key
                raise explain(error, self.target, self._body["messages"]) from None
            if text and (self._spoke or text.strip()):  # a caller does not hear leading line breaks
                self._spoke = True
                return text
            if self.tools and reading.calls.fragments > fragments:
                due = loop.time() + self._gap
                if not self._calling:
                    self._calling = True
                    return ""
        if self.tools and reading.calls:
            if reading.finish in CUT:
                raise self._half()
        elif not self._spoke:
            raise self._silent()
        raise StopAsyncIteration

    async def rest(self) -> None:
        """Reads what comes after the last word. Never raises, and takes no longer than REST."""
        with suppress(Exception):
            async with asyncio.timeout(REST):
                while self._stream is not None:
                    self.reading.feed(await self._stream.__anext__())

    async def close(self) -> None:
        """Has the server stop, by closing the connection if the stream is not over. Waits for nothing."""
        if self._stream is not None:
            await self._stream.close()

    async def _open(self) -> openai.AsyncStream[object]:
        stream = await self._endpoint.stream(self._body)
        self.answered = True
        self.connection = stream.response.extensions.get(TAKEN)
        return stream

    @property
    def _begun(self) -> bool:
        return self._spoke or self._calling

    def _overdue(self, due: float) -> ModelFailed:
        vendor = self.target.vendor
        if self._begun:
            return ModelFailed(f"{vendor} fell silent in the middle of its answer for {self._gap:g} s")
        return ModelFailed(f"{vendor} gave no word in {due - self._began:.3g} s")

    def _half(self) -> ModelFailed:
        finish = self.reading.finish
        message = f"{self.target.vendor} broke off while it called a function{CUT[finish]}"
        return ModelFailed(message, retry_after=None if finish else PAUSE)

    def _silent(self) -> Silent:
        finish = self.reading.finish or "the stream ended"
        hint = {
            "length": ": a model that thinks first needs a larger max_tokens, or less reasoning effort",
            "content_filter": ": its content filter held the answer back",
        }.get(finish, "")
        if self.reading.calls:
            hint = ": it wants to call a function, and may not"
        return Silent(f"{self.target.vendor} answered with no words ({finish}){hint}")
