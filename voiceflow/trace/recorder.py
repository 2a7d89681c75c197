"""The recorder: what happened in one call. The engine tells it, console and files read it.

It costs little per sentence and next to nothing per frame: of all tokens and chunks of a reply only the first
is looked at, and of audio whether it begins a text. Bounded: the newest events and paths are kept. Nothing is
added once the call is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from voiceflow.engine import turns
from voiceflow.engine.mouth import HeardText
from voiceflow.engine.reply import Reply
from voiceflow.frames import AgentFrame, AudioOut, Sentence, Token
from voiceflow.trace.path import ORDER, Path, Step

if TYPE_CHECKING:
    from voiceflow.tools.use import ToolUse

EVENTS_BOUND = 10_000
PATHS_BOUND = 2_000
LINE = "line"
BY_OUR_CLOCK = "line, by our clock"
"""Who ends the last part when the line has not told that it plays: a carrier without marks, or one that had
no time to answer before the reply was cut."""

FIRSTS: dict[type[AgentFrame], Step] = {
    Token: Step.FIRST_TOKEN,
    Sentence: Step.FIRST_SENTENCE,
    AudioOut: Step.FIRST_AUDIO,
}
"""Whose first frame of a reply is a step of its path."""

SINCE: dict[Step | None, str] = {Step.LAST_SPEECH: "since_speech", Step.END_OF_TURN: "since_turn"}
"""The figure that says how long the caller has been waiting, by the first step of the path."""


@dataclass(slots=True, frozen=True)
class Event:
    """Something that happened, or became known, `at` seconds after the call began.

    `kind`                      `figures`, in seconds
    line open
    caller speaks, resumed
    caller done                 since_speech: from the caller's last sound until the turn was over
    draft, draft kept, draft dropped
    first token ... heard       took: since the step before it; since_speech, or since_turn when it is not
                                known when the caller's last sound was
    more                        the next sentence of a reply
    held, goes on               a reply that is paused
    backchannel                 the caller said something meanwhile, or nothing, that was no turn
    kept                        the caller said something that is answered when the agent may be interrupted
    said, cut                   a reply is over
    tool                        took: how long it ran, once it is over. `owner` is its name, `detail` how far
                                it is, `words` are its arguments and then its result
    note                        a processor reconnected, fell back
    end                         the call is over; `detail` says why

    `words` is what somebody said, and nothing else is: it is what redaction leaves out.
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


@dataclass(slots=True, frozen=True)
class Outcome:
    """How a call ended. `fault` names what failed. `normal`: no fallback is owed to the caller."""

    reason: str
    fault: str | None = None
    normal: bool = True


class Recorder:
    """One per call. `began` is on the clock `now`."""

    def __init__(self, now: Callable[[], float], name: Callable[[int], str]) -> None:
        self.now = now
        self.began = now()
        self.events: deque[Event] = deque(maxlen=EVENTS_BOUND)
        self.paths: deque[Path] = deque(maxlen=PATHS_BOUND)
        """One for each reply that was opened, in order."""
        self.listeners: list[Listener] = []
        """Called with each event as it happens; must be quick. One that raises is not called again."""
        self.outcome: Outcome | None = None
        """Set when the call begins to close."""
        self.closed = False
        self.seconds = 0.0
        """How long the call was, once it is closed."""
        self._name = name
        self._live: dict[int, Path] = {}
        self._voiced: dict[int, list[str]] = {}
        """The texts of the audio that each live reply has."""
        self._plays: dict[int, float] = {}
        """When each live reply begins to be heard, by our clock."""
        self._last_speech: float | None = None
        self._authority = ""
        self._turn = 0
        self._ended: tuple[float, str, float | None] | None = None
        """When the latest turn was over, its text, and when the caller's last sound came."""

    def elapsed(self) -> float:
        """Seconds since the call began."""
        return self.now() - self.began

    def tell(self, kind: str, **what: Any) -> None:
        """Records an event and tells the listeners."""
        if self.closed:
            return
        event = Event(self.elapsed(), kind, **what)
        self.events.append(event)
        failed: list[str] = []
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except Exception as error:  # whoever looks on must not disturb the call
                self.listeners.remove(listener)
                failed.append(type(error).__name__)
        for name in failed:
            self.note("trace", f"a listener failed and is left out: {name}")

    def note(self, owner: str, detail: str) -> None:
        """A processor did something worth knowing: it reconnected, fell back. Never what somebody said."""
        self.tell("note", owner=owner, detail=detail)

    # -- told by the engine

    def evidence(self, owner: str, last_speech: float | None) -> None:
        """The authority is about to end a turn; the caller's last sound came `last_speech` on the clock."""
        self._authority = owner
        if last_speech is not None:  # else what the eager end of this turn told still holds
            self._last_speech = last_speech - self.began

    def action(self, action: turns.Action) -> None:
        """What the reducer decided."""
        match action:
            case turns.TurnBegan(turn):
                self._turn = turn
                self.tell("caller speaks", turn=turn)
            case turns.TurnResumed(turn):
                self._last_speech = None
                self.tell("resumed", turn=turn)
            case turns.TurnDrafted(turn, text):
                self.tell("draft", turn=turn, owner=self._authority, words=text)
            case turns.TurnFinished(turn, text):
                at = self.elapsed()
                last, self._last_speech = self._last_speech, None
                self._ended = (at, text, last)
                since = {} if last is None else {"since_speech": max(0.0, at - last)}
                self.tell("caller done", turn=turn, owner=self._authority, words=text, figures=since)
            case turns.Open(number, draft, text, prompted):
                path = Path(number, self._turn if prompted else None, draft, self.elapsed(), asked=text)
                self._live[number] = path
                self.paths.append(path)
                if prompted and not draft:
                    self._turn_over(path)
            case turns.Promote(number) if number in self._live:
                path = self._live[number]
                self._turn_over(path)
                self.tell("draft kept", turn=path.turn, reply=number)
            case turns.Kill(number, reason) if number in self._live:
                self._live[number].cut = reason
            case turns.Hold(number) if number in self._live:
                self.tell("held", turn=self._live[number].turn, reply=number)
            case turns.Judged(turns.Doubt.NONE, text):
                self.tell("backchannel", owner=self._authority, words=text)
            case turns.WordsKept(text):
                self.tell("kept", owner=self._authority, words=text)
            case turns.Release(number) if number in self._live:
                self.tell("goes on", turn=self._live[number].turn, reply=number)

    def made(self, frame: AgentFrame, index: int) -> None:
        """A frame of one of the types in FIRSTS was made by the processor at `index` of the chain."""
        path = self._live.get(frame.reply.number) if frame.reply is not None else None
        if path is None:
            return
        step = FIRSTS.get(frame.__class__) or _step(frame)
        text: str = frame.text if step is not Step.FIRST_TOKEN else ""  # type: ignore[attr-defined]
        if step is Step.FIRST_AUDIO and text:
            self._voiced.setdefault(path.reply, []).append(text)
            text = "" if Step.FIRST_SENTENCE in path.at else text
        if step not in path.at:
            self._step(path, step, self.elapsed(), self._name(index), text)
        elif text:  # told because somebody may quote it before it was heard: redaction has to know it
            self.tell("more", owner=self._name(index), turn=path.turn, reply=path.reply, words=text)

    def sent(self, reply: Reply, owner: str, ahead: float = 0.0) -> None:
        """The first audio of a reply was given to the line; by our clock it plays in `ahead` seconds."""
        path = self._live.get(reply.number)
        if path is not None and Step.ON_THE_WIRE not in path.at:
            self._plays[reply.number] = self.elapsed() + ahead
            self._step(path, Step.ON_THE_WIRE, self.elapsed(), owner)

    def played(self, reply: Reply, ago: float) -> None:
        """The line has told that it began to play a reply, `ago` seconds ago."""
        path = self._live.get(reply.number)
        if path is not None and Step.HEARD not in path.at:
            began = max(self.elapsed() - ago, path.at.get(Step.ON_THE_WIRE, 0.0))
            self._step(path, Step.HEARD, began, LINE)

    def over(self, reply: Reply, heard: HeardText) -> None:
        """Nothing more of a reply will be heard."""
        path = self._live.pop(reply.number, None)
        voiced = self._voiced.pop(reply.number, [])
        plays = self._plays.pop(reply.number, None)
        if path is None:
            return
        if heard.samples and plays is not None and Step.HEARD not in path.at:
            self._step(path, Step.HEARD, plays, BY_OUR_CLOCK)
        if self.outcome is not None and not heard.complete:
            path.cut = path.cut or self.outcome.reason
        path.heard, path.estimated, path.over = heard.text, heard.estimated, self.elapsed()
        path.lost = _rest(" ".join(voiced), heard.text) if path.cut else ""
        kind = "draft dropped" if path.dropped else "cut" if path.cut else "said"
        self.tell(kind, turn=path.turn, reply=path.reply, words=heard.text, detail=path.cut)

    def tool(self, name: str, reply: Reply, use: ToolUse) -> None:
        """A tool that `reply` asked for begins, or is over."""
        path = self._live.get(reply.number)
        took = {} if use.began is None or use.ended is None else {"took": use.ended - use.began}
        self.tell(
            "tool",
            owner=name,
            turn=path.turn if path is not None else None,
            reply=reply.number,
            words=use.result if use.state.over else use.requested.arguments,
            detail=use.state.value,
            figures=took,
        )

    def ending(self, outcome: Outcome) -> None:
        """The call is about to close: replies that are not over now are cut by that."""
        self.outcome = outcome

    def close(self) -> None:
        """The call is over: nothing is recorded any more."""
        if not self.closed:
            self.seconds = self.elapsed()
            self.tell("end", detail=self.outcome.reason if self.outcome is not None else "")
            self.closed = True
            self._live.clear()

    # -- inside

    def _turn_over(self, path: Path) -> None:
        """The turn that a reply answers has ended: its path begins with the caller's last sound."""
        ended, text, last_speech = self._ended or (self.elapsed(), path.asked, None)
        if last_speech is not None:
            path.mark(Step.LAST_SPEECH, min(last_speech, ended), "caller")
        path.mark(Step.END_OF_TURN, ended, self._authority)
        path.asked = text

    def _step(self, path: Path, step: Step, at: float, owner: str, words: str = "") -> None:
        path.mark(step, at, owner)
        past = [path.at[each] for each in ORDER[: ORDER.index(step)] if each in path.at]
        figures = {"took": max(0.0, at - max(past, default=path.opened))}
        if path.since in SINCE:
            figures[SINCE[path.since]] = max(0.0, at - past[0])
        self.tell(step.value, owner=owner, turn=path.turn, reply=path.reply, words=words, figures=figures)


def _step(frame: AgentFrame) -> Step:
    """The step of a subclass of one of the types in FIRSTS."""
    return next(step for known, step in FIRSTS.items() if isinstance(frame, known))


def _rest(voiced: str, heard: str) -> str:
    """What of `voiced` comes after `heard`; empty when the one does not begin with the other."""
    all_words, heard_words = voiced.split(), heard.split()
    begins = all_words[: len(heard_words)] == heard_words
    return " ".join(all_words[len(heard_words) :]) if begins else ""
