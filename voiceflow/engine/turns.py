"""Turn taking as a pure function: state and evidence in, state and actions out.

The rules, which hold after every step:

1. At most one reply is live or held, and at most one is a draft.
2. While the caller has the floor (SPEAKING or MAYBE_DONE) no reply is live: the agent is silent.
3. There is a draft exactly while the turn may be over (MAYBE_DONE).
4. Only a live reply can be held, and only while the floor is free: a hold ends when the caller's words
   commit it (the reply dies), or when none come (it goes on).
5. TurnBegan and TurnFinished alternate, and every turn that began is finished once.
6. Numbers are labels: they count up and are never compared.
7. A voice is in doubt only over a live reply, with the floor free. It has no turn: it gets one when it is
   confirmed, when it ends with words, or when the reply is over; or it vanishes.
8. What is kept is never held up longer than the reply lives, and comes first in the next turn's words.

                     SpeechStarted                    EagerEnd
        ┌────────┐ ─────────────────▶ ┌──────────┐ ─────────────▶ ┌────────────┐
        │  FREE  │                    │ SPEAKING │                │ MAYBE_DONE │
        └────────┘ ◀───────────────── └──────────┘ ◀───────────── └────────────┘
         │  ▲  ▲     SpeechEnded           ▲          Resumed            │
         │  │  └───────────────────────────┼─────────────────────────────┘
         │  │                SpeechEnded   │
         │  │ DoubtDropped                 │ DoubtConfirmed, or the reply is over
         ▼  │                              │
        ┌──────────────────────────────────┴────────────────────────────────┐
        │ FREE, and in doubt over a live reply:                             │
        │ OPEN ──DoubtDismissed──▶ ASIDE      KEPT ──SpeechEnded──▶ `kept`  │
        └───────────────────────────────────────────────────────────────────┘
          SpeechDoubted               SpeechKept

A SpeechEnded in doubt is a whole turn, unless it is KEPT: then its words are answered when the reply may be
interrupted again (ProtectionOver), or is over.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import NamedTuple

from voiceflow.engine.evidence import Action as Action
from voiceflow.engine.evidence import Doubt as Doubt
from voiceflow.engine.evidence import DoubtConfirmed as DoubtConfirmed
from voiceflow.engine.evidence import DoubtDismissed as DoubtDismissed
from voiceflow.engine.evidence import DoubtDropped as DoubtDropped
from voiceflow.engine.evidence import EagerEnd as EagerEnd
from voiceflow.engine.evidence import Evidence as Evidence
from voiceflow.engine.evidence import Hold as Hold
from voiceflow.engine.evidence import HoldAsked as HoldAsked
from voiceflow.engine.evidence import HoldReleased as HoldReleased
from voiceflow.engine.evidence import Judged as Judged
from voiceflow.engine.evidence import Kill as Kill
from voiceflow.engine.evidence import Open as Open
from voiceflow.engine.evidence import Promote as Promote
from voiceflow.engine.evidence import ProtectionOver as ProtectionOver
from voiceflow.engine.evidence import Release as Release
from voiceflow.engine.evidence import ReplyOver as ReplyOver
from voiceflow.engine.evidence import ReplyStopped as ReplyStopped
from voiceflow.engine.evidence import Resumed as Resumed
from voiceflow.engine.evidence import Retire as Retire
from voiceflow.engine.evidence import SayAsked as SayAsked
from voiceflow.engine.evidence import SpeechDoubted as SpeechDoubted
from voiceflow.engine.evidence import SpeechEnded as SpeechEnded
from voiceflow.engine.evidence import SpeechKept as SpeechKept
from voiceflow.engine.evidence import SpeechStarted as SpeechStarted
from voiceflow.engine.evidence import TurnBegan as TurnBegan
from voiceflow.engine.evidence import TurnDrafted as TurnDrafted
from voiceflow.engine.evidence import TurnFinished as TurnFinished
from voiceflow.engine.evidence import TurnResumed as TurnResumed
from voiceflow.engine.evidence import WordsKept as WordsKept


class Floor(enum.Enum):
    """Who may speak."""

    FREE = "free"
    SPEAKING = "the caller speaks"
    MAYBE_DONE = "the caller may have finished"


class Turns(NamedTuple):
    """The whole state. `turn` and `last_reply` are the numbers given out last. `kept` are the words of turns
    that ended while the agent could not be interrupted, None when there was none. A tuple, because a new
    one is made at every step and a barge-in waits for it."""

    floor: Floor = Floor.FREE
    turn: int = 0
    live: int | None = None
    held: bool = False
    draft: int | None = None
    draft_text: str = ""
    last_reply: int = 0
    doubt: Doubt = Doubt.NONE
    kept: str | None = None


Step = tuple[Turns, tuple[Action, ...]]


def reduce(state: Turns, evidence: Evidence) -> Step:
    """One step. Evidence that makes no sense in this state changes nothing."""
    if state.doubt is not Doubt.NONE:
        return _in_doubt(state, evidence)
    if state.kept is not None:
        if state.floor is Floor.FREE:
            return _with_kept_words(state, evidence)
        if isinstance(evidence, EagerEnd | SpeechEnded):
            evidence = replace(evidence, text=joined(state.kept, evidence.text))
    return _plain(state, evidence)


def joined(kept: str | None, text: str) -> str:
    """The words of a turn: first those that were kept."""
    return " ".join(filter(None, (kept, text)))


def _plain(state: Turns, evidence: Evidence) -> Step:
    match evidence, state.floor:
        case SpeechStarted(), Floor.FREE:
            return _begin(*_kill_live(state, "barge-in"))
        case ((SpeechStarted() | SpeechDoubted() | SpeechKept() | Resumed()), Floor.MAYBE_DONE):
            resumed, kill = _kill_draft(state, "the caller went on")
            return resumed._replace(floor=Floor.SPEAKING), (*kill, TurnResumed(state.turn))
        case ((SpeechDoubted() | SpeechKept()), Floor.FREE) if state.live is None:
            return _begin(state, ())
        case SpeechDoubted(), Floor.FREE:
            return state._replace(doubt=Doubt.OPEN), (Judged(Doubt.OPEN),)
        case SpeechKept(), Floor.FREE:
            return _keep(state)
        case EagerEnd(text), Floor.SPEAKING:
            drafted, opened = _open(state, text, draft=True)
            return drafted._replace(floor=Floor.MAYBE_DONE), (TurnDrafted(state.turn, text), opened)
        case EagerEnd(text), Floor.MAYBE_DONE if text != state.draft_text:
            dropped, kill = _kill_draft(state, "the caller's words changed")
            drafted, opened = _open(dropped, text, draft=True)
            return drafted, (*kill, TurnDrafted(state.turn, text), opened)
        case SpeechEnded(text), Floor.SPEAKING:
            answered, opened = _open(_finished(state), text, draft=False)
            return answered, (TurnFinished(state.turn, text), opened)
        case SpeechEnded(text), Floor.MAYBE_DONE if text == state.draft_text and state.draft is not None:
            confirmed = _finished(state)._replace(live=state.draft, draft=None, draft_text="")
            return confirmed, (TurnFinished(state.turn, text), Promote(state.draft))
        case SpeechEnded(text), Floor.MAYBE_DONE:
            dropped, kill = _kill_draft(state, "the caller's words changed")
            answered, opened = _open(_finished(dropped), text, draft=False)
            return answered, (*kill, TurnFinished(state.turn, text), opened)
        case ((EagerEnd() | SpeechEnded()), Floor.FREE):  # an end without a start: the start went unnoticed
            return _then(_begin(*_kill_live(state, "barge-in")), evidence)
        case SayAsked(), Floor.FREE if state.live is None:
            said, opened = _open(state, "", draft=False)
            return said, (replace(opened, prompted=False),)
        case HoldAsked(), Floor.FREE if state.live is not None and not state.held:
            return state._replace(held=True), (Hold(state.live),)
        case HoldReleased(), _:
            return _release(state)
        case ReplyOver(reply), _ if reply == state.live:
            return _retire(state, reply)
        case ReplyStopped(reason), _:
            return _kill_live(state, reason)
        case _:
            return state, ()


def _in_doubt(state: Turns, evidence: Evidence) -> Step:
    """Somebody speaks over a live reply. An eager end answers nothing: the voice has no turn yet."""
    match evidence:
        case SpeechStarted() | DoubtConfirmed():
            return _begin(*_kill_live(state, "barge-in"))
        case SpeechDoubted() if state.doubt is Doubt.KEPT and state.kept is None:
            return state._replace(doubt=Doubt.OPEN), (Judged(Doubt.OPEN),)
        case SpeechKept() if state.doubt is not Doubt.KEPT:
            return _keep(state)
        case DoubtDismissed() if state.doubt is Doubt.OPEN:
            released, release = _release(state)
            return released._replace(doubt=Doubt.ASIDE), (Judged(Doubt.ASIDE), *release)
        case DoubtDropped(text):
            released, release = _release(state)
            return released._replace(doubt=Doubt.NONE), (Judged(Doubt.NONE, text), *release)
        case SpeechEnded(text) if state.doubt is Doubt.KEPT:
            kept = state._replace(doubt=Doubt.NONE, kept=joined(state.kept, text))
            return kept, (WordsKept(text),)
        case SpeechEnded():
            return _then(_begin(*_kill_live(state, "barge-in")), evidence)
        case ProtectionOver() if state.kept is not None:
            return _begin(*_kill_live(state, "the caller spoke meanwhile"))
        case ReplyOver(reply) if reply == state.live:
            return _begin(*_retire(state, reply))
        case ReplyStopped(reason):
            return _begin(*_kill_live(state, reason))
        case HoldAsked() if state.doubt is not Doubt.KEPT:
            return _plain(state, evidence)
        case HoldReleased():
            return _release(state)
        case _:
            return state, ()


def _with_kept_words(state: Turns, evidence: Evidence) -> Step:
    """Words wait for their answer, and the caller is silent."""
    match evidence:
        case ProtectionOver():
            return _answer(*_kill_live(state, "the caller spoke meanwhile"))
        case ReplyOver(reply) if reply == state.live:
            return _answer(*_retire(state, reply))
        case ReplyStopped(reason):
            return _answer(*_kill_live(state, reason))
        case SpeechStarted() | SpeechDoubted():  # words were said: this voice is believed
            return _begin(*_kill_live(state, "barge-in"))
        case EagerEnd() | SpeechEnded():
            return _then(_begin(*_kill_live(state, "barge-in")), evidence)
        case SpeechKept():
            return _keep(state)
        case _:
            return state, ()


# -- parts of steps


def _begin(state: Turns, before: tuple[Action, ...]) -> Step:
    """The caller has the floor, after what was done `before`."""
    began = state._replace(floor=Floor.SPEAKING, turn=state.turn + 1, doubt=Doubt.NONE)
    return began, (*before, TurnBegan(began.turn))


def _then(step: Step, evidence: Evidence) -> Step:
    ended, actions = reduce(step[0], evidence)
    return ended, (*step[1], *actions)


def _answer(state: Turns, before: tuple[Action, ...]) -> Step:
    """The turn of words that were kept: it begins and ends at once."""
    return _then(_begin(state, before), SpeechEnded())


def _finished(state: Turns) -> Turns:
    return state._replace(floor=Floor.FREE, kept=None)


def _keep(state: Turns) -> Step:
    released, release = _release(state)
    return released._replace(doubt=Doubt.KEPT), (Judged(Doubt.KEPT), *release)


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


def _retire(state: Turns, reply: int) -> Step:
    return state._replace(live=None, held=False), (Retire(reply),)


def _release(state: Turns) -> Step:
    if not state.held or state.live is None:
        return state, ()
    return state._replace(held=False), (Release(state.live),)


def _kill_draft(state: Turns, reason: str) -> Step:
    if state.draft is None:
        return state, ()
    return state._replace(draft=None, draft_text=""), (Kill(state.draft, reason),)
