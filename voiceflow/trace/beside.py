"""What happened beside the turns: tools that ran, replies that were held, words that were no turn.

All of it is read from a record's events, which a file has in any version.
"""

from __future__ import annotations

from dataclasses import dataclass

from voiceflow.trace.file import CallRecord, TurnRecord

RUNNING = "running"


@dataclass(slots=True, frozen=True)
class ToolRun:
    """One use of a tool. `state` is how it ended, or "running" if the record ends before it."""

    at: float
    """When it began; when it was refused or cancelled, if it never did."""
    name: str
    reply: int | None
    state: str
    arguments: str = ""
    result: str = ""
    seconds: float | None = None


@dataclass(slots=True, frozen=True)
class Held:
    """A reply was silent for somebody's voice, from `begin` to `end`."""

    reply: int
    begin: float
    end: float
    resumed: bool
    """It went on; else it was over."""


@dataclass(slots=True, frozen=True)
class Aside:
    """Words of the caller's that were no turn of their own: a backchannel, or said over what may not be
    interrupted (`kept`: they are answered with the next)."""

    at: float
    words: str
    kept: bool


def tool_runs(record: CallRecord) -> list[ToolRun]:
    """In the order in which they began. Of two that run for one reply under one name, the first to begin is
    taken for the first to end."""
    found: list[ToolRun] = []
    open_: dict[tuple[str, int | None], list[int]] = {}
    for event in record.events:
        if event.kind != "tool":
            continue
        key = (event.owner, event.reply)
        if event.detail == RUNNING:
            open_.setdefault(key, []).append(len(found))
            found.append(ToolRun(event.at, event.owner, event.reply, RUNNING, event.words))
        elif "took" in event.figures and open_.get(key):
            place = open_[key].pop(0)
            began = found[place]
            took = event.figures["took"]
            found[place] = ToolRun(
                began.at, event.owner, event.reply, event.detail, began.arguments, event.words, took
            )
        else:
            found.append(ToolRun(event.at, event.owner, event.reply, event.detail, result=event.words))
    return found


def holds(record: CallRecord) -> list[Held]:
    """In order."""
    over = {turn.reply: turn.over for turn in record.turns}
    found: list[Held] = []
    begun: dict[int, float] = {}
    for event in record.events:
        if event.reply is None:
            continue
        if event.kind == "held":
            begun[event.reply] = event.at
        elif event.kind == "goes on" and event.reply in begun:
            found.append(Held(event.reply, begun.pop(event.reply), event.at, True))
    for reply, begin in begun.items():
        end = over.get(reply)
        found.append(Held(reply, begin, max(begin, end if end is not None else record.seconds), False))
    return sorted(found, key=lambda held: held.begin)


def asides(record: CallRecord) -> list[Aside]:
    """In order. Voices without a word are none."""
    return [
        Aside(event.at, event.words, event.kind == "kept")
        for event in record.events
        if event.kind in ("backchannel", "kept") and event.words
    ]


def spoken_over(record: CallRecord, at: float) -> TurnRecord | None:
    """The reply that was being heard then."""
    for turn in record.turns:
        begin, end = turn.heard_at, turn.over
        if begin is not None and begin <= at <= (end if end is not None else record.seconds):
            return turn
    return None
