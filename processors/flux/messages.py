"""What Flux says, as plain values: the rest of this folder needs no SDK to be read or tested."""

from __future__ import annotations

from typing import NamedTuple


class TimedWord(NamedTuple):
    """A word with its times, in seconds of the connection's audio."""

    text: str
    start: float
    end: float


class Connected(NamedTuple):
    """The first message."""


class TurnInfo(NamedTuple):
    """The state of the turn.

    `event` is StartOfTurn, Update (about every 0.25 s of audio, outside of turns too), EagerEndOfTurn,
    TurnResumed or EndOfTurn. `heard_to` is how far the audio was heard, in seconds; infinite when that is not
    said. `words` is empty unless all words have times, which Flux has given since July 2026 only.
    """

    event: str
    transcript: str = ""
    words: tuple[TimedWord, ...] = ()
    heard_to: float = 0.0
    forced: bool = False
    """The turn was ended by ForceEndTurn, in the middle of speech perhaps."""


class Configured(NamedTuple):
    """The answer to a Configure: `refusal` is why nothing was changed, None when it was."""

    refusal: str | None = None


class Warned(NamedTuple):
    code: str
    description: str


class Failed(NamedTuple):
    """`Error`: fatal, the connection is closed after it."""

    code: str
    description: str


class Strange(NamedTuple):
    """Something that is no message, or a newer one."""

    kind: str
    detail: str = ""


Message = Connected | TurnInfo | Configured | Warned | Failed | Strange
