"""Who said what and when, on the recording's own time line.

The caller's words are those of the turns, the agent's those that the ledger knows to have been heard. Times
are samples here. What was said while the recording was paused is left out, and so is all of an utterance of
which a part was: there is no telling which words those were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

NOT_RECORDED = "[not recorded]"
KEPT = 10_000
"""Utterances that are remembered; the first ones are then forgotten. Ten hours of talk have about as many."""
OPEN = 64
"""Replies of which more may become known. One is spoken at a time, and all of it is known seconds after."""


class Speaker(Enum):
    CALLER = "caller"
    AGENT = "agent"


@dataclass(slots=True)
class Utterance:
    """One turn of the caller's, or one reply of the agent's as far as it was heard.

    `cut`: it was interrupted, or the call ended. `estimated`: the voice gave no word times, so where the
    text ends is a guess.
    """

    speaker: Speaker
    start: int
    end: int
    text: str = ""
    cut: bool = False
    estimated: bool = False
    hidden: bool = False
    """Part of it was said during a pause."""


@dataclass(slots=True, frozen=True)
class Entry:
    """An utterance as it is written; `start` and `end` in seconds of the WAV file."""

    speaker: str
    start: float
    end: float
    text: str
    cut: bool = False
    estimated: bool = False


class Transcript:
    """Built as the call goes. `changed` is set by whatever changes it, and cleared by `entries`.

    `paused(start, end)` says whether the recording was paused anywhere between these samples.
    """

    def __init__(self, rate: int, paused: Callable[[int, int], bool]) -> None:
        self.changed = True
        self._rate = rate
        self._paused = paused
        self._utterances: deque[Utterance] = deque(maxlen=KEPT)
        self._replies: dict[int, Utterance] = {}  # OPEN, checked in `_reply`
        self._turn: Utterance | None = None

    def entries(self) -> list[Entry]:
        """What can be told now, in the order in which it began."""
        self.changed = False
        told = [u for u in self._utterances if u.text and u.end > u.start]
        return [self._entry(u) for u in sorted(told, key=lambda u: u.start)]

    # -- the caller

    def turn_began(self, at: int) -> None:
        """The caller has the floor, and was first heard at sample `at`."""
        self._turn = Utterance(Speaker.CALLER, at, at)

    @property
    def turn_start(self) -> int | None:
        """Where the turn that is not over began."""
        return self._turn.start if self._turn is not None else None

    def turn_starts(self, at: int) -> None:
        """A detector knows better where the turn began that is not over."""
        if self._turn is not None:
            self._turn.start = at

    def turn_words(self, text: str) -> None:
        """What the recogniser has of this turn so far: for a call that ends before the turn does."""
        if self._turn is not None:
            self._turn.text = text

    def turn_over(self, at: int, text: str, *, cut: bool = False) -> None:
        """The caller has finished; the last sound came at sample `at`."""
        turn, self._turn = self._turn or Utterance(Speaker.CALLER, at, at), None
        if not text:
            return
        turn.text, turn.cut, turn.end = text, cut, max(at, turn.start + 1)
        turn.hidden = self._paused(turn.start, turn.end)
        self._utterances.append(turn)
        self.changed = True

    # -- the agent

    def played(self, reply: int, start: int, end: int) -> None:
        """Audio of this reply was heard from sample `start` to `end`."""
        said = self._reply(reply)
        if said.end == said.start:
            said.start = said.end = start
        said.end = max(said.end, end)
        said.hidden = said.hidden or self._paused(start, end)
        self.changed = self.changed or bool(said.text)

    def unplayed(self, at: int) -> None:
        """Of the agent's audio, nothing after sample `at` was heard after all."""
        for said in self._replies.values():
            said.end = max(said.start, min(said.end, at))
        self.changed = True

    def heard(self, reply: int, text: str, *, estimated: bool = False, cut: bool = False) -> None:
        """The text that was heard of this reply so far."""
        if not text and reply not in self._replies:  # a draft that was dropped
            return
        said = self._reply(reply)
        if (text, estimated, cut) != (said.text, said.estimated, said.cut):
            said.text, said.estimated, said.cut = text, estimated, cut
            self.changed = True

    def close(self, at: int) -> None:
        """The call is over at sample `at`, in the middle of whatever was being said."""
        if self._turn is not None:
            self.turn_over(at, self._turn.text, cut=True)

    def _reply(self, reply: int) -> Utterance:
        said = self._replies.get(reply)
        if said is None:
            said = self._replies[reply] = Utterance(Speaker.AGENT, 0, 0)
            self._utterances.append(said)
            if len(self._replies) > OPEN:
                del self._replies[next(iter(self._replies))]
        return said

    def _entry(self, u: Utterance) -> Entry:
        text = NOT_RECORDED if u.hidden else " ".join(u.text.split())
        start, end = round(u.start / self._rate, 3), round(u.end / self._rate, 3)
        return Entry(u.speaker.value, start, max(end, start + 0.001), text, u.cut, u.estimated)
