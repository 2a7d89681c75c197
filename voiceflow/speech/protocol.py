"""The seam between voiceflow and a vendor of voices: one connection's protocol, without IO.

What it is told (`speak`, `end`, `cancel`, a message, the time) it answers with items: messages to send,
audio that came, what is finished, what went wrong. It never waits, owns no socket, and does not raise,
whatever comes.

Text is spoken in *pieces* (sentences). Within one key they are numbered from 0 as they are given to `speak`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from voiceflow.frames import Word
from voiceflow.line.codec import Wire


@dataclass(slots=True, frozen=True)
class Send:
    """Send this message. `key` is what it is about: when that is cancelled, it is dropped unsent. Not so one
    that `closes` the key, if the vendor has heard of the key: then it has to hear of its end."""

    message: Wire
    key: str = ""
    closes: bool = False


@dataclass(slots=True, frozen=True)
class Audio:
    """Audio of pieces `piece` to `until`, in the line's format. `words` in seconds from its first sample."""

    key: str
    audio: bytes
    piece: int
    until: int
    words: tuple[Word, ...] = ()


@dataclass(slots=True, frozen=True)
class Finished:
    """Nothing more of this key will come. `spoken` of its pieces were spoken to their end; None: all."""

    key: str
    spoken: int | None = None


@dataclass(slots=True, frozen=True)
class Trouble:
    """The connection is of no use any more. `permanent`: another one would be of none either."""

    reason: str
    permanent: bool = False


@dataclass(slots=True, frozen=True)
class Ignored:
    """A message that means nothing to us, by kind: counted."""

    kind: str


Item = Send | Audio | Finished | Trouble | Ignored


class SpeechProtocol(Protocol):
    """One connection of one vendor. `now` is `loop.time()`."""

    def room(self) -> bool:
        """Whether another key can be spoken on this connection now."""
        ...

    def speak(self, key: str, text: str, now: float) -> Iterable[Item]:
        """The next piece of a key. The first piece opens it."""
        ...

    def end(self, key: str, now: float) -> Iterable[Item]:
        """No more pieces of this key will come. It was opened before."""
        ...

    def cancel(self, key: str, now: float, *, reached: bool) -> Iterable[Item]:
        """Silence this key. `reached`: the vendor was sent something of it, else it never heard of it."""
        ...

    def parse(self, message: Wire, now: float) -> Iterable[Item]:
        """A message came."""
        ...

    def due(self, now: float) -> Iterable[Item]:
        """What is to be done because time has passed; asked a few times a second while something is open."""
        ...

    def owes(self, key: str) -> bool:
        """Whether audio of this key should be on its way."""
        ...

    def done(self, key: str) -> int:
        """How many pieces of this key are known to have been spoken to their end: asked when the connection
        is lost, for the others are spoken again."""
        ...

    def clean(self) -> bool:
        """Whether nothing of the past can come any more: then the connection may serve another call."""
        ...
