"""The recorder: what happened in one call. The engine tells it, console and files read it.

It costs a few lookups per reply, not per frame of audio: of all tokens, sentences and chunks of a reply only
the first of each is looked at. Bounded: the newest events and paths are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from voiceflow.engine import turns
from voiceflow.engine.mouth import HeardText
from voiceflow.engine.reply import Reply
from voiceflow.frames import AgentFrame, AudioOut, Sentence, Token
from voiceflow.trace.path import Path, Step

EVENTS_BOUND = 10_000
PATHS_BOUND = 2_000

FIRSTS: dict[type[AgentFrame], Step] = {
    Token: Step.FIRST_TOKEN,
    Sentence: Step.FIRST_SENTENCE,
    AudioOut: Step.FIRST_AUDIO,
}
"""Whose first frame of a reply is a step of its path."""


@dataclass(slots=True, frozen=True)
class Event:
    """Something that happened, `at` seconds after the call began.

    `kind` is one of: call, caller speaks, caller done, draft, resumed, prompt, the values of `Step`, said,
    cut, note, end. `words` is what somebody said, and nothing else is: it is what redaction leaves out.
    """

    at: float
    kind: str
    owner: str = ""
    turn: int | None = None
    reply: int | None = None
    words: str = ""
    detail: str = ""
    figures: dict[str, float] = field(default_factory=dict)


Listener = Callable[[Event], None]


class Recorder:
    """One per call. `began` is on the clock `now`."""

    def __init__(self, now: Callable[[], float], name: Callable[[int], str]) -> None:
        self.now = now
        self.began = now()
        self.events: deque[Event] = deque(maxlen=EVENTS_BOUND)
        self.paths: deque[Path] = deque(maxlen=PATHS_BOUND)
        """One for each reply that was opened, in order."""
        self.listeners: list[Listener] = []
        """Called with each event as it happens; must be quick and must not raise."""
        self._name = name
        self._live: dict[int, Path] = {}
        self._last_speech: float | None = None
        self._authority = ""
        self._turn = 0
        self._ended: tuple[float, str] | None = None

    def elapsed(self) -> float:
        """Seconds since the call began."""
        return self.now() - self.began

    def tell(self, kind: str, **what: Any) -> None:
        """Records an event and tells the listeners."""
        event = Event(self.elapsed(), kind, **what)
        self.events.append(event)
        for listener in self.listeners:
            listener(event)

    def note(self, owner: str, detail: str) -> None:
        """A processor did something worth knowing: it reconnected, fell back. Never what somebody said."""
        self.tell("note", owner=owner, detail=detail)

    # -- told by the engine

    def evidence(self, owner: str, last_speech: float | None) -> None:
        """The authority is about to end a turn; the caller's last sound came `last_speech` on the clock."""
        self._authority = owner
        self._last_speech = last_speech - self.began if last_speech is not None else None

    def action(self, action: turns.Action) -> None:
        """What the reducer decided."""
        match action:
            case turns.TurnBegan(turn):
                self._turn = turn
                self.tell("caller speaks", turn=turn, owner=self._authority)
            case turns.TurnDrafted(turn):
                self.tell("draft", turn=turn, owner=self._authority)
            case turns.TurnResumed(turn):
                self.tell("resumed", turn=turn, owner=self._authority)
            case turns.TurnFinished(turn, text):
                at = self.elapsed()
                self._ended = (at, text)
                since = {"since_speech": at - self._last_speech} if self._last_speech is not None else {}
                self.tell("caller done", turn=turn, owner=self._authority, words=text, figures=since)
            case turns.Open(number, draft, text, prompted):
                path = Path(number, self._turn if prompted else None, draft, asked=text)
                self._live[number] = path
                self.paths.append(path)
                if prompted and not draft:
                    self._turn_over(path)
            case turns.Promote(number):
                if (found := self._live.get(number)) is not None:
                    self._turn_over(found)
            case turns.Kill(number, reason):
                if (found := self._live.get(number)) is not None:
                    found.cut = reason

    def made(self, frame: AgentFrame, index: int) -> None:
        """A frame of one of the types in FIRSTS was made by the processor at `index` of the chain."""
        path = self._live.get(frame.reply.number) if frame.reply is not None else None
        if path is None:
            return
        step = FIRSTS.get(frame.__class__) or _step(frame)
        if step not in path.at:
            owner = self._name(index)
            path.mark(step, self.elapsed(), owner)
            words = getattr(frame, "text", "") if step is Step.FIRST_SENTENCE else ""
            self.tell(step.value, owner=owner, turn=path.turn, reply=path.reply, words=words)

    def sent(self, reply: Reply, owner: str) -> None:
        """The first audio of a reply was given to the line."""
        self._step(reply, Step.ON_THE_WIRE, self.elapsed(), owner)

    def played(self, reply: Reply, ago: float) -> None:
        """The line has told that it began to play a reply, `ago` seconds ago."""
        self._step(reply, Step.HEARD, self.elapsed() - ago, "line")

    def over(self, reply: Reply, heard: HeardText) -> None:
        """Nothing more of a reply will be heard."""
        path = self._live.pop(reply.number, None)
        if path is None:
            return
        path.heard, path.estimated, path.over = heard.text, heard.estimated, self.elapsed()
        kind = "cut" if path.cut else "said"
        self.tell(kind, turn=path.turn, reply=path.reply, words=heard.text, detail=path.cut)

    # -- inside

    def _turn_over(self, path: Path) -> None:
        """The turn that a reply answers has ended: its path begins with the caller's last sound."""
        ended, text = self._ended or (self.elapsed(), path.asked)
        if self._last_speech is not None:
            path.mark(Step.LAST_SPEECH, min(self._last_speech, ended), "caller")
        path.mark(Step.END_OF_TURN, ended, self._authority)
        path.asked = text

    def _step(self, reply: Reply, step: Step, at: float, owner: str) -> None:
        path = self._live.get(reply.number)
        if path is not None and step not in path.at:
            path.mark(step, at, owner)
            self.tell(step.value, owner=owner, turn=path.turn, reply=path.reply)


def _step(frame: AgentFrame) -> Step:
    """The step of a subclass of one of the types in FIRSTS."""
    return next(step for known, step in FIRSTS.items() if isinstance(frame, known))
