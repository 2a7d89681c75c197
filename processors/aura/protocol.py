"""One connection of Deepgram Aura, without IO.

Its audio is binary and says nothing about what it is of: only the order tells. So one key at a time is
spoken on a connection, pieces go out with a Flush, and all audio until its Flushed is theirs. After a Clear
everything is old until Cleared comes.

At most about twenty Flushes a minute are taken. The first piece goes out at once, and while it is made the
next one; pieces that would have to wait behind those are gathered into one. A reply that needs more Flushes
all the same goes on, from a whole piece, on another connection.
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
UNSEEN = 2
"""Flushes that an earlier call may have left in the window: nobody counts them any more."""
IN_FLIGHT = 2
"""Flushes that wait for their Flushed: one is made, and the next has not to wait for us."""
GATHERED = 150
"""Characters of gathered pieces. The ledger knows no anchor inside of them."""
CLEAR_TIMEOUT = 2.0
"""Seconds that Cleared may take."""


@dataclass(slots=True)
class _Group:
    """Pieces that share a Flush."""

    first: int
    last: int
    sounds: bool = False
    """Audio of it has come."""


class AuraProtocol:
    """Mu-law or linear16, as the connection was asked for: the audio is passed on as it comes."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._held: deque[str] = deque()  # bounded by whoever speaks: seconds of text, `AHEAD`
        """Pieces that were not sent yet."""
        self._sent = 0
        """Pieces that were."""
        self._groups: deque[_Group] = deque()  # bounded by IN_FLIGHT in `_flush`
        """Flushed by us, not yet by the service."""
        self._flushes: deque[float] = deque()  # bounded by FLUSHES in `_flush`
        """When, in the last minute."""
        self._ended = False
        self._clears: deque[float] = deque()  # one for a key that was flushed at most, so by FLUSHES too
        """When those were sent that are not answered."""
        self._unanswered = 0
        """Flushes that were cleared: whether a Flushed still comes for them, nobody says."""

    def room(self) -> bool:
        return self._key is None and len(self._flushes) < FLUSHES

    def clean(self) -> bool:
        return self._key is None and not self._clears and len(self._flushes) <= UNSEEN

    def owes(self, key: str) -> bool:
        return key == self._key and bool(self._groups)

    def done(self, key: str) -> int:
        if key != self._key:
            return 0
        return self._groups[0].first if self._groups else self._sent

    def speak(self, key: str, text: str, now: float) -> Iterator[Item]:
        if self._key is None:
            self._key, self._sent, self._ended = key, 0, False
        self._held.append(text.strip())
        yield from self._flush(now)
        yield from self._finish()

    def end(self, key: str, now: float) -> Iterator[Item]:
        self._ended = True
        yield from self._finish()

    def cancel(self, key: str, now: float, *, reached: bool) -> Iterator[Item]:
        if key != self._key:
            return
        if reached:
            self._unanswered += len(self._groups)
            self._clears.append(now)
            yield Send('{"type":"Clear"}')
        self._key = None
        self._held.clear()
        self._groups.clear()

    def parse(self, message: Wire, now: float) -> Iterator[Item]:
        if isinstance(message, bytes):
            if not self._clears and self._key is not None and self._groups:
                group = self._groups[0]
                group.sounds = True
                self._unanswered = 0
                yield Audio(self._key, message, group.first, group.last)
            return
        try:
            data = json.loads(message)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            yield Ignored("a message that is no JSON object")
            return
        match data.get("type"):
            case "Flushed":
                yield from self._flushed(now)
            case "Cleared":
                if self._clears:
                    self._clears.popleft()
            case "Metadata":
                pass
            case "Warning" if "flush" in _said(data).lower():  # it was ignored: its audio would never come
                yield Trouble(f"it takes no Flush now: {_said(data)}")
            case "Warning":
                yield Ignored(f"a warning: {_said(data)}")
            case "Error":
                yield Trouble(_said(data) or "it failed")
            case kind:
                yield Ignored(f"a message of type {kind!r:.40}")

    def due(self, now: float) -> Iterator[Item]:
        self._recent(now)
        if self._clears and now - self._clears[0] > CLEAR_TIMEOUT:
            yield Trouble(f"it did not clear within {CLEAR_TIMEOUT:g} s")

    # -- inside

    def _recent(self, now: float) -> int:
        """How many Flushes the service counts now."""
        while self._flushes and now - self._flushes[0] > WINDOW:
            self._flushes.popleft()
        return len(self._flushes)

    def _flush(self, now: float) -> Iterator[Item]:
        """Sends what is held, as far as that is of use now, and allowed."""
        while self._held and self._key and len(self._groups) < IN_FLIGHT and self._recent(now) < FLUSHES:
            text = self._held.popleft()
            first = self._sent
            self._sent += 1
            while self._held and len(text) + len(self._held[0]) < GATHERED:
                text += " " + self._held.popleft()
                self._sent += 1
            self._groups.append(_Group(first, self._sent - 1))
            self._flushes.append(now)
            yield Send(json.dumps({"type": "Speak", "text": text}, ensure_ascii=False), self._key)
            yield Send('{"type":"Flush"}', self._key)

    def _flushed(self, now: float) -> Iterator[Item]:
        """Flushed comes in the order of the Flushes. One without any audio before it may be for a Flush that
        was cleared."""
        if self._unanswered and (self._clears or not self._groups or not self._groups[0].sounds):
            self._unanswered -= 1
        elif not self._clears and self._groups:
            self._groups.popleft()
            yield from self._flush(now)
            yield from self._finish()

    def _finish(self) -> Iterator[Item]:
        """The key is over when all is said, or when no more can be said here."""
        if self._key is not None and not self._groups and (self._ended or self._held):
            key, self._key = self._key, None
            self._held.clear()
            yield Finished(key, self._sent)


def _said(data: dict[str, Any]) -> str:
    parts = (data.get("code"), data.get("description") or data.get("err_msg") or data.get("message"))
    return " ".join(str(part) for part in parts if part)[:160]
