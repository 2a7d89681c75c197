"""What a call was like in a few figures, and who spoke when."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from voiceflow.trace.file import CallRecord, TurnRecord
from voiceflow.trace.path import ORDER, Step

BARGE_IN = "barge-in"
"""Why a reply was cut off, when the caller began to speak."""


@dataclass(slots=True, frozen=True)
class Summary:
    """Milliseconds. Medians are taken of each part by itself: they need not sum to the median gap."""

    turns: int
    """Turns of the caller's."""
    heard: int
    """How many of them were answered, and the answer heard."""
    barge_ins: int
    drafts_kept: int
    """Drafts that were right, and heard."""
    drafts_dropped: int
    saved: float | None
    """By how much sooner those were heard."""
    gap: float | None
    p90: float | None
    """Nine of ten gaps are no longer, between the two nearest in proportion."""
    parts: dict[Step, float]
    since: Step | None
    """What the gaps are measured from. Turns that are measured from something else are not in the figures."""


def summary(record: CallRecord) -> Summary:
    """Of one call."""
    heard = [turn for turn in record.turns if turn.answers and turn.gap_ms is not None]
    since = min((turn.since for turn in heard if turn.since is not None), key=ORDER.index, default=None)
    heard = [turn for turn in heard if turn.since is since]
    numbers = [turn.turn for turn in record.turns] + [event.turn for event in record.events]
    parts = {
        step: statistics.median(found)
        for step in ORDER
        if (found := [part.ms for turn in heard for part in turn.parts if part.step is step])
    }
    gaps = [turn.gap_ms for turn in heard if turn.gap_ms is not None]
    saved = [turn.saved_ms for turn in record.turns if turn.saved_ms is not None]
    return Summary(
        max((number for number in numbers if number is not None), default=0),
        len(heard),
        sum(turn.cut == BARGE_IN for turn in record.turns),
        len(saved),
        sum(turn.dropped for turn in record.turns),
        statistics.median(saved) if saved else None,
        *middle(gaps),
        parts,
        since,
    )


def drafts(found: Summary) -> str:
    """What became of the drafts: `drafts 2 kept (240 ms sooner), 1 dropped`. Empty when there were none."""
    if not (found.drafts_kept or found.drafts_dropped):
        return ""
    sooner = f" ({found.saved:.0f} ms sooner)" if found.saved is not None else ""
    return f"drafts {found.drafts_kept} kept{sooner}, {found.drafts_dropped} dropped"


def middle(gaps: list[float]) -> tuple[float | None, float | None]:
    """Median and 90th percentile."""
    if len(gaps) < 2:
        return (gaps[0], gaps[0]) if gaps else (None, None)
    return statistics.median(gaps), statistics.quantiles(gaps, n=10, method="inclusive")[-1]


def steps(turns: Iterable[TurnRecord]) -> list[Step]:
    """The steps that these have parts for, in order: the columns of a table."""
    found = {part.step for turn in turns for part in turn.parts}
    return [step for step in ORDER if step in found]


def owners(record: CallRecord) -> dict[Step, str]:
    """Who ends each part; several if it was not always the same one."""
    found: dict[Step, dict[str, None]] = {}
    for turn in record.turns:
        for part in turn.parts:
            found.setdefault(part.step, {})[part.owner] = None
    return {step: ", ".join(found[step]) for step in ORDER if step in found}


def cut(turn: TurnRecord) -> str:
    """How a reply was cut off: `cut by the caller after 1.2 s`. Empty when it was not."""
    if not turn.cut:
        return ""
    who, why = (" by the caller", "") if turn.cut == BARGE_IN else ("", f": {turn.cut}")
    if turn.over is None or turn.heard_at is None:
        return f"cut{who}{why}"
    return f"cut{who} after {turn.over - turn.heard_at:.1f} s{why}"


@dataclass(slots=True, frozen=True)
class Span:
    """Somebody spoke, from `begin` to `end`, in seconds since the call began."""

    who: str
    begin: float
    end: float
    turn: int | None = None
    reply: int | None = None
    cut: bool = False


def spans(record: CallRecord) -> list[Span]:
    """Who spoke when. The caller as the turn's authority took it; the agent as the caller heard it."""
    stopped = {
        e.turn: e.at - e.figures.get("since_speech", 0.0) for e in record.events if e.kind == "caller done"
    }
    found = [
        Span("caller", e.at, max(e.at, min(stopped.get(e.turn, record.seconds), record.seconds)), e.turn)
        for e in record.events
        if e.kind == "caller speaks"
    ]
    for turn in record.turns:
        if (begin := turn.heard_at) is not None:
            end = max(begin, turn.over if turn.over is not None else record.seconds)
            found.append(Span("agent", begin, end, turn.turn, turn.reply, bool(turn.cut)))
    return sorted(found, key=lambda span: span.begin)


FIGURES = {
    "underruns": "underruns",
    "interrupts": "interrupts",
    "reconnects": "reconnects",
    "pool_hits": "pool hits",
    "pool_misses": "pool misses",
    "saved_ms": "ms of handshakes saved",
    "wasted_requests": "wasted requests",
    "wasted_tokens": "wasted tokens",
    "wasted_characters": "wasted characters",
}
"""The figures that are shown first, and how they are called. Several processors may count the same thing."""
WASTE = ("wasted_requests", "wasted_tokens", "wasted_characters")
"""What dropped drafts cost. Shown when there is some."""


def leading_figures(record: CallRecord) -> dict[str, float]:
    """The figures that say whether all is well: of the call, and summed over its processors."""
    found: dict[str, float] = {}
    for name, value in record.figures.items():
        last = name.rpartition(".")[2]
        if last in FIGURES and (value or last not in WASTE):
            found[FIGURES[last]] = found.get(FIGURES[last], 0) + value
    return {name: found[name] for name in FIGURES.values() if name in found}
