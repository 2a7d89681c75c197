"""What the reducer of `voiceflow.engine.turns` is told, and what it answers: evidence in, actions out."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Doubt(enum.Enum):
    """How it is judged that somebody speaks while the agent does, and the agent goes on."""

    NONE = "nobody does"
    OPEN = "it may be a barge-in"
    ASIDE = "it is none, by what was said so far"
    KEPT = "the agent may not be interrupted: the words wait"


# -- evidence: what the authority, the referee, the program and the line report


@dataclass(slots=True, frozen=True)
class SpeechStarted:
    """The caller took the floor: a barge-in when a reply is live."""


@dataclass(slots=True, frozen=True)
class SpeechDoubted:
    """The authority says that the caller took the floor, but it is not believed yet."""


@dataclass(slots=True, frozen=True)
class SpeechKept:
    """The caller speaks, or is believed, while the agent may not be interrupted."""


@dataclass(slots=True, frozen=True)
class DoubtConfirmed:
    """It is a barge-in."""


@dataclass(slots=True, frozen=True)
class DoubtDismissed:
    """It is none, so far: the agent goes on. More words may still make it one."""


@dataclass(slots=True, frozen=True)
class DoubtDropped:
    """It was none, and the voice is over; `text` is what was said."""

    text: str = ""


@dataclass(slots=True, frozen=True)
class ProtectionOver:
    """The agent may be interrupted again."""


@dataclass(slots=True, frozen=True)
class EagerEnd:
    """The caller may have finished, with this text."""

    text: str = ""


@dataclass(slots=True, frozen=True)
class Resumed:
    """The caller had not finished after all."""


@dataclass(slots=True, frozen=True)
class SpeechEnded:
    """The caller has finished, with this text."""

    text: str = ""


@dataclass(slots=True, frozen=True)
class SayAsked:
    """The program wants to say something by itself. Granted only when nobody speaks."""


@dataclass(slots=True, frozen=True)
class HoldAsked:
    """There is noise that may become a barge-in: pause the live reply."""


@dataclass(slots=True, frozen=True)
class HoldReleased:
    """It was nothing: the held reply goes on."""


@dataclass(slots=True, frozen=True)
class ReplyOver:
    """The line has played all of this reply."""

    reply: int


@dataclass(slots=True, frozen=True)
class ReplyStopped:
    """The program wants the live reply to stop."""

    reason: str


Evidence = (
    SpeechStarted
    | SpeechDoubted
    | SpeechKept
    | DoubtConfirmed
    | DoubtDismissed
    | DoubtDropped
    | ProtectionOver
    | EagerEnd
    | Resumed
    | SpeechEnded
    | SayAsked
    | HoldAsked
    | HoldReleased
    | ReplyOver
    | ReplyStopped
)

# -- actions: what the TurnKeeper does about it


@dataclass(slots=True, frozen=True)
class TurnBegan:
    turn: int


@dataclass(slots=True, frozen=True)
class TurnDrafted:
    turn: int
    text: str


@dataclass(slots=True, frozen=True)
class TurnResumed:
    turn: int


@dataclass(slots=True, frozen=True)
class TurnFinished:
    turn: int
    text: str


@dataclass(slots=True, frozen=True)
class Judged:
    """Somebody speaks, and the agent goes on: it is judged like this now. NONE: it was no turn, and is over;
    `text` is what was said."""

    doubt: Doubt
    text: str = ""


@dataclass(slots=True, frozen=True)
class WordsKept:
    """The caller has said this, and it is answered when the agent may be interrupted again."""

    text: str


@dataclass(slots=True, frozen=True)
class Open:
    """Make a reply. It is prompted with the caller's words, unless the program itself speaks."""

    reply: int
    draft: bool
    text: str
    prompted: bool = True


@dataclass(slots=True, frozen=True)
class Promote:
    """The draft was right: it is live now."""

    reply: int


@dataclass(slots=True, frozen=True)
class Kill:
    reply: int
    reason: str


@dataclass(slots=True, frozen=True)
class Hold:
    reply: int


@dataclass(slots=True, frozen=True)
class Release:
    reply: int


@dataclass(slots=True, frozen=True)
class Retire:
    """The reply was played to its end."""

    reply: int


Action = (
    TurnBegan
    | TurnDrafted
    | TurnResumed
    | TurnFinished
    | Judged
    | WordsKept
    | Open
    | Promote
    | Kill
    | Hold
    | Release
    | Retire
)
