"""What Flux says about a turn, as evidence for the engine; also when a turn is heard twice.

When a connection is replaced in the middle of a turn, the new one is given the audio from where the turn
began. It knows nothing of before, so it tells about the same words again. The rules:

1. The engine hears of each turn once: a second StartOfTurn for an open turn is not told.
2. What was heard before stands until the new connection has come as far: no transcript gets shorter, and an
   end before the last known words is none, since the caller is known to have gone on.
3. A turn that the new connection does not hear at all is ended with the words that are known.
4. Nothing before the end of the last turn is ever sent again.
5. Of a turn that began before the oldest audio there is, the lost words are carried over as text.
"""

from __future__ import annotations

from typing import NamedTuple

from processors.flux.messages import TurnInfo
from processors.flux.timeline import Timeline

LOOKBACK = 3.0
"""Seconds before what was heard that are sent again while nobody speaks: StartOfTurn comes with the first
whole word, so this is the longest first word."""
LEAD = 0.5
"""Seconds before the first word of a turn from which it is sent again: word times are not exact."""
TAIL = 0.2
"""Seconds after its last word that belong to a turn, for the same reason. Not when it was forced to end: the
next word may follow at once."""
UNHEARD = 2.0
"""Seconds of audio in which a new connection has to hear of the turn that is open, once it has heard all
that is known of it."""


class Started(NamedTuple):
    """The caller began to speak."""

    text: str


class Grew(NamedTuple):
    """The caller has said this so far; it may be what was told before."""

    text: str


class MayBeOver(NamedTuple):
    """The caller may have finished. `last_voice` is the sample at which the voice ended, as far as known."""

    text: str
    last_voice: int


class WentOn(NamedTuple):
    """The caller had not finished after all."""

    text: str


class Over(NamedTuple):
    """The caller has finished. `last_voice` as in MayBeOver."""

    text: str
    last_voice: int


Evidence = Started | Grew | MayBeOver | WentOn | Over


class Word(NamedTuple):
    """A word with its samples in the caller's stream."""

    text: str
    start: int
    end: int


class Known(NamedTuple):
    """Words of a turn that no connection will be sent again. Without times: text only."""

    text: str = ""
    words: tuple[Word, ...] = ()


NOTHING = Known()


class Hearing:
    """One call's turns. Positions are sample indices of the caller's stream; `take` is given the timeline of
    the connection that a message came from."""

    def __init__(self, rate: int) -> None:
        self.open = False
        """A turn has begun, as the engine was told."""
        self.confirmed = False
        """The present connection knows of it."""
        self.replay_from = 0
        """Where a new connection has to begin."""
        self.voice: int | None = None
        """Where a voice began that has not stopped, by a detector in the chain, if there is one."""
        self.voice_stopped = 0
        """Where the last one stopped."""
        self._rate = rate
        self._text = ""
        self._words: tuple[Word, ...] = ()
        self._heard_to = 0
        """How far any connection has heard."""
        self._grew_at = 0
        """How far it had heard when the words of this turn last changed."""
        self._known_to = 0
        """The same when the connection was replaced: what it says of before is known already."""
        self._before = NOTHING
        """Words of this turn before `replay_from`."""
        self._carried = NOTHING
        """Words of this turn that the present connection does not count to it."""
        self._give_up: float | None = None
        """Seconds of the connection's audio at which it should have heard of the turn."""

    def take(self, info: TurnInfo, timeline: Timeline) -> Evidence | None:
        """What a message means for the engine, if it means anything."""
        at = timeline.position(info.heard_to)
        known = self.open and at < self._known_to
        self._heard_to = max(self._heard_to, at)
        match info.event:
            case "StartOfTurn":
                was_open, self.open, self.confirmed = self.open, True, True
                if not was_open:
                    if info.words:
                        first = timeline.position(info.words[0].start - LEAD)
                        self.replay_from = max(self.replay_from, min(first, at))
                    return Started(self._learn(info, timeline, at, known))
                text = self._learn(info, timeline, at, known)
                return None if known else Grew(text)
            case "Update" if self.confirmed:
                text = self._learn(info, timeline, at, known)
                return None if known else Grew(text)
            case "Update":
                return self._quiet(timeline.seconds(info.heard_to), at)
            case "EagerEndOfTurn" | "EndOfTurn" if not self.open and not info.transcript:
                return None
            case "EagerEndOfTurn":
                self.open = self.confirmed = True
                text = self._learn(info, timeline, at, known)
                return None if known else MayBeOver(text, self._last_voice())
            case "TurnResumed":
                text = self._learn(info, timeline, at, known)
                return None if known else WentOn(text)
            case "EndOfTurn":
                text = self._learn(info, timeline, at, known)
                if known:
                    self._carried = Known(text, self._placed(info, timeline))
                    self.confirmed = False
                    return None
                return self._over(at, forced=info.forced)
        return None

    def replaced(self, oldest: int) -> int:
        """A new connection begins. Returns the sample to send from; `oldest` is the first there still is."""
        self.confirmed = False
        self._give_up = None
        self._known_to = self._grew_at if self.open else 0
        if self.replay_from < oldest:
            if self.open:
                self._before, self.replay_from = self._carry(oldest)
            else:
                self.replay_from = oldest
        self._carried = self._before
        return self.replay_from

    # -- inside

    def _learn(self, info: TurnInfo, timeline: Timeline, at: int, known: bool) -> str:
        """The text of the turn as this message has it, remembered unless more is known."""
        text = " ".join(filter(None, (self._carried.text, info.transcript)))
        if not known:
            if text and text != self._text:
                self._text, self._grew_at = text, at
            self._words = self._placed(info, timeline)
        return text

    def _quiet(self, seconds: float, at: int) -> Over | None:
        """The connection hears no turn in its audio up to `seconds`."""
        if not self.open:
            start = at - round(LOOKBACK * self._rate)
            if self.voice is not None:
                start = min(start, self.voice - round(LEAD * self._rate))
            self.replay_from = max(self.replay_from, start)
            return None
        if at < self._heard_to:
            return None
        if self._give_up is None:
            self._give_up = seconds + UNHEARD
        return self._over(at) if seconds >= self._give_up else None

    def _over(self, at: int, *, forced: bool = False) -> Over:
        over = Over(self._text, self._last_voice())
        tail = 0 if forced else round(TAIL * self._rate)
        end = min(at, self._words[-1].end + tail) if self._words else at
        self.replay_from = max(self.replay_from, end)
        self.open = self.confirmed = False
        self._text, self._words = "", ()
        self._before = self._carried = NOTHING
        self._grew_at = self._known_to = 0
        self._give_up = None
        return over

    def _last_voice(self) -> int:
        """The end of the last word; or where a detector heard the voice stop; or where the text last grew."""
        if self._words:
            return self._words[-1].end
        return self.voice_stopped if self.voice_stopped > self.replay_from else self._grew_at

    def _placed(self, info: TurnInfo, timeline: Timeline) -> tuple[Word, ...]:
        """The words of the turn in the caller's stream; none when those before are known as text only."""
        if bool(self._carried.text) != bool(self._carried.words):
            return ()
        placed = (
            Word(word.text, timeline.position(word.start), timeline.position(word.end)) for word in info.words
        )
        return (*self._carried.words, *placed)

    def _carry(self, oldest: int) -> tuple[Known, int]:
        """What is kept as text of a turn whose audio before `oldest` is gone, and where to begin."""
        if not self._words:
            return Known(self._text), max(oldest, self._grew_at)
        gone = tuple(word for word in self._words if word.start < oldest)
        if not gone:
            return NOTHING, oldest
        return Known(" ".join(word.text for word in gone), gone), max(oldest, gone[-1].end)
