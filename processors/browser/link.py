"""One socket for two: the call, which sends audio and marks, and whoever tells the page what happens.

    call ──▶ send, send_at_once ─┐
                                 ├──▶ the page
    tell ──▶ what is shown ──────┘    bounded; drops its oldest when the page does not read

When the call closes its line the socket stays open, for the last words: how it ended, where its recording is.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from voiceflow.errors import LinkError
from voiceflow.line.link import Link

SHOWN_BOUND = 512
"""Messages about the call that wait for the page: some minutes of a lively talk."""
SHOWN_TIMEOUT = 5.0
"""Seconds after which a page that takes none is told nothing more. Its audio has a limit of its own."""
LAST_WORDS = 2.0
"""Seconds that the last of them may take."""


class PageLink:
    """A `voiceflow.line.link.Link` to a page. `write` runs beside the call; `finish` is the end of both."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._left: tuple[int, str] | None = None
        """The close code and reason, once the call has left."""
        self._shown: deque[str] = deque(maxlen=SHOWN_BOUND)
        self._news = asyncio.Event()
        self._finishing = False
        self.dropped = 0
        """Messages about the call that the page never read."""

    # -- the call's

    @property
    def is_open(self) -> bool:
        return self._left is None and self._link.is_open

    async def send(self, message: str | bytes) -> None:
        if self._left is not None:
            raise LinkError("the call has left the line")
        await self._link.send(message)

    def send_at_once(self, message: str | bytes) -> bool:
        return self._left is None and self._link.send_at_once(message)

    async def receive(self) -> str | bytes | None:
        return None if self._left is not None else await self._link.receive()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """The call leaves; `finish` closes the socket."""
        if self._left is None:
            self._left = code, reason
            self.tell({"type": "closing"})

    # -- the page's

    def tell(self, message: Mapping[str, Any]) -> None:
        """Shows the page something. Never waits."""
        self.dropped += len(self._shown) == SHOWN_BOUND
        self._shown.append(json.dumps(message, ensure_ascii=False, separators=(",", ":")))
        self._news.set()

    async def write(self) -> None:
        """Sends what is told, until `finish` or until the page takes nothing any more."""
        try:
            while self._shown or not self._finishing:
                if not self._shown:
                    self._news.clear()
                    await self._news.wait()
                    continue
                async with asyncio.timeout(SHOWN_TIMEOUT):
                    await self._link.send(self._shown.popleft())
        except (TimeoutError, LinkError):
            return

    async def finish(self, writer: asyncio.Task[None]) -> None:
        """Sends what is left, for LAST_WORDS at most, and closes the socket."""
        self._finishing = True
        self._news.set()
        await asyncio.wait([writer], timeout=LAST_WORDS)
        writer.cancel()
        code, reason = self._left or (1011, "")
        await self._link.close(code, reason)
