"""One connection of Deepgram Aura, without IO.

Its audio is binary and says nothing about what it is of: only the order tells. So one key at a time is
spoken on a connection, every piece gets a Flush of its own, and all audio until its Flushed is that piece's.
After a Clear everything is old until Cleared comes. At most about twenty Flushes a minute are taken: a reply
that needs more has its later pieces gathered into one.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from voiceflow.line.codec import Wire
from voiceflow.speech import Audio, Finished, Ignored, Item, Send, Trouble

FLUSHES, WINDOW = 18, 60.0
"""Flushes in a window of seconds. The service warns at about 20 and ignores the rest."""
REFLUSH = 3.0
"""Seconds after such a warning when the Flush is sent again."""
CLEAR_TIMEOUT = 2.0
"""Seconds that Cleared may take."""


@dataclass(slots=True)
class _Group:
    """Pieces that share a Flush."""

    first: int
    last: int


class AuraProtocol:
    """Mu-law or linear16, as the connection was asked for: the audio is passed on as it comes."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._pieces = self._spoken = 0
        """Pieces of the key: given to us, and given to the service."""
        self._held: list[str] = []
        """Pieces that wait for a Flush to be allowed."""
        self._groups: deque[_Group] = deque()
        """Flushed by us, not yet by the service."""
        self._flushes: deque[float] = deque()
        self._ended = False
        self._clears = 0
        self._cleared_at = 0.0
        self._reflush_at: float | None = None

    def room(self) -> bool:
        return self._key is None

    def clean(self) -> bool:
        return self._key is None and not self._clears

    def owes(self, key: str) -> bool:
        return key == self._key and bool(self._groups)

    def speak(self, key: str, text: str, now: float) -> Iterator[Item]:
        if self._key is None:
            self._key, self._pieces, self._spoken, self._ended = key, 0, 0, False
        self._pieces += 1
        self._held.append(text.strip())
        yield from self._flush(now)

    def end(self, key: str, now: float) -> Iterator[Item]:
        self._ended = True
        yield from self._flush(now)
        yield from self._finish()

    def cancel(self, key: str, now: float, *, reached: bool) -> Iterator[Item]:
        if key != self._key:
            return
        self._key = None
        self._held.clear()
        self._groups.clear()
        self._reflush_at = None
        if reached:
            self._clears += 1
            self._cleared_at = now
            yield Send('{"type":"Clear"}')

    def parse(self, message: Wire, now: float) -> Iterator[Item]:
        if isinstance(message, bytes):
            if self._clears == 0 and self._key is not None and self._groups:
                group = self._groups[0]
                yield Audio(self._key, message, group.first, group.last)
            return
        try:
            data = json.loads(message)
        except ValueError:
            data = None
        kind = data.get("type") if isinstance(data, dict) else None
        match kind:
            case "Flushed":
                if self._clears == 0 and self._groups:
                    self._groups.popleft()
                    yield from self._finish()
            case "Cleared":
                self._clears = max(0, self._clears - 1)
            case "Metadata":
                pass
            case "Warning":
                yield from self._warned(data, now)
            case "Error":
                yield Trouble(_said(data))
            case _:
                yield Ignored(f"a message of type {kind!r:.40}")

    def due(self, now: float) -> Iterator[Item]:
        if self._clears and now - self._cleared_at > CLEAR_TIMEOUT:
            yield Trouble(f"it did not clear within {CLEAR_TIMEOUT:g} s")
            return
        if self._reflush_at is not None and now >= self._reflush_at and self._key is not None:
            self._reflush_at = None
            self._flushes.append(now)
            yield Send('{"type":"Flush"}', self._key)
        if self._held:
            yield from self._flush(now)

    # -- inside

    def _flush(self, now: float) -> Iterator[Item]:
        """Speaks what is held, with one Flush, if one is allowed now."""
        while self._flushes and now - self._flushes[0] > WINDOW:
            self._flushes.popleft()
        if not self._held or self._key is None or len(self._flushes) >= FLUSHES:
            return
        text, self._held = " ".join(self._held), []
        self._groups.append(_Group(self._spoken, self._pieces - 1))
        self._spoken = self._pieces
        self._flushes.append(now)
        yield Send(json.dumps({"type": "Speak", "text": text}, ensure_ascii=False), self._key)
        yield Send('{"type":"Flush"}', self._key)

    def _finish(self) -> Iterator[Item]:
        if self._ended and self._key is not None and not self._groups and not self._held:
            key, self._key = self._key, None
            yield Finished(key)

    def _warned(self, data: dict[str, Any], now: float) -> Iterator[Item]:
        if "flush" in _said(data).lower() and self._groups:
            self._reflush_at = now + REFLUSH
        yield Ignored(f"a warning: {_said(data)}")


def _said(data: dict[str, Any]) -> str:
    parts = (data.get("code"), data.get("description") or data.get("err_msg") or data.get("message"))
    return " ".join(str(part) for part in parts if part)[:160]
