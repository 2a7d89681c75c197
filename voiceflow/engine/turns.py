"""Turn taking as a pure function: state and evidence in, state and actions out.

The rules, which hold after every step:

1. At most one reply is live or held, and at most one is a draft.
2. While the caller has the floor (SPEAKING or MAYBE_DONE) no reply is live: the agent is silent.
3. There is a draft exactly while the turn may be over (MAYBE_DONE).
4. Only a live reply can be held, and only while the floor is free: a hold ends when the caller's words
   commit it (the reply dies), or when none come (it goes on).
5. TurnBegan and TurnFinished alternate, and every turn that began is finished once.
6. Numbers are labels: they count up and are never compared.

                     SpeechStarted                    EagerEnd
        ┌────────┐ ─────────────────▶ ┌──────────┐ ─────────────▶ ┌────────────┐
        │  FREE  │                    │ SPEAKING │                │ MAYBE_DONE │
        └────────┘ ◀───────────────── └──────────┘ ◀───────────── └────────────┘
             ▲        SpeechEnded                    Resumed             │
             └───────────────────────────────────────────────────────────┘
                                    SpeechEnded
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import NamedTuple


class Floor(enum.Enum):
    """Who may speak."""

    FREE = "free"
    SPEAKING = "the caller speaks"
    MAYBE_DONE = "the caller may have finished"


class Turns(NamedTuple):
    """The whole state. `turn` and `last_reply` are the numbers given out last. A tuple, because a new one is
    made at every step and a barge-in waits for it."""

    floor: Floor = Floor.FREE
    turn: int = 0
    live: int | None = None
    held: bool = False
    draft: int | None = None
    draft_text: str = ""
    last_reply: int = 0


# -- evidence: what the authority, the program and the line report


@dataclass(slots=True, frozen=True)
class SpeechStarted:
    """The caller took the floor: a barge-in when a reply is live."""


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
    TurnBegan | TurnDrafted | TurnResumed | TurnFinished | Open | Promote | Kill | Hold | Release | Retire
)
Step = tuple[Turns, tuple[Action, ...]]


def reduce(state: Turns, evidence: Evidence) -> Step:
    """One step. Evidence that makes no sense in this state changes nothing."""
    match evidence, state.floor:
        case SpeechStarted(), Floor.FREE:
            quiet, kill = _kill_live(state, "barge-in")
            began = quiet._replace(floor=Floor.SPEAKING, turn=state.turn + 1)
            return began, (*kill, TurnBegan(began.turn))
        case ((SpeechStarted() | Resumed()), Floor.MAYBE_DONE):
            resumed, kill = _kill_draft(state, "the caller went on")
            return resumed._replace(floor=Floor.SPEAKING), (*kill, TurnResumed(state.turn))
        case EagerEnd(text), Floor.SPEAKING:
            drafted, opened = _open(state, text, draft=True)
            return drafted._replace(floor=Floor.MAYBE_DONE), (TurnDrafted(state.turn, text), opened)
        case EagerEnd(text), Floor.MAYBE_DONE if text != state.draft_text:
            dropped, kill = _kill_draft(state, "the caller's words changed")
            drafted, opened = _open(dropped, text, draft=True)
            return drafted, (*kill, TurnDrafted(state.turn, text), opened)
        case SpeechEnded(text), Floor.SPEAKING:
            answered, opened = _open(state._replace(floor=Floor.FREE), text, draft=False)
            return answered, (TurnFinished(state.turn, text), opened)
        case SpeechEnded(text), Floor.MAYBE_DONE if text == state.draft_text and state.draft is not None:
            confirmed = state._replace(floor=Floor.FREE, live=state.draft, draft=None, draft_text="")
            return confirmed, (TurnFinished(state.turn, text), Promote(state.draft))
        case SpeechEnded(text), Floor.MAYBE_DONE:
            dropped, kill = _kill_draft(state, "the caller's words changed")
            answered, opened = _open(dropped._replace(floor=Floor.FREE), text, draft=False)
            return answered, (*kill, TurnFinished(state.turn, text), opened)
        case ((EagerEnd() | SpeechEnded()), Floor.FREE):  # an end without a start: the start went unnoticed
            began, first = reduce(state, SpeechStarted())
            ended, then = reduce(began, evidence)
            return ended, (*first, *then)
        case SayAsked(), Floor.FREE if state.live is None:
            said, opened = _open(state, "", draft=False)
            return said, (replace(opened, prompted=False),)
        case HoldAsked(), Floor.FREE if state.live is not None and not state.held:
            return state._replace(held=True), (Hold(state.live),)
        case HoldReleased(), _ if state.held and state.live is not None:
            return state._replace(held=False), (Release(state.live),)
        case ReplyOver(reply), _ if reply == state.live:
            return state._replace(live=None, held=False), (Retire(reply),)
        case ReplyStopped(reason), _:
            return _kill_live(state, reason)
        case _:
            return state, ()


def _open(state: Turns, text: str, *, draft: bool) -> tuple[Turns, Open]:
    number = state.last_reply + 1
    opened = Open(number, draft, text)
    if draft:
        return state._replace(last_reply=number, draft=number, draft_text=text), opened
    return state._replace(last_reply=number, live=number), opened


def _kill_live(state: Turns, reason: str) -> Step:
    if state.live is None:
        return state, ()
    return state._replace(live=None, held=False), (Kill(state.live, reason),)


def _kill_draft(state: Turns, reason: str) -> Step:
    if state.draft is None:
        return state, ()
    return state._replace(draft=None, draft_text=""), (Kill(state.draft, reason),)
