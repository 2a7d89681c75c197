"""Tables for a terminal: the turns of one call, and many calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from voiceflow.trace.file import CallRecord, TurnRecord
from voiceflow.trace.path import Step
from voiceflow.trace.summary import cut, drafts, leading_figures, middle, owners, steps, summary
from voiceflow.trace.text import plain, shorten, tail, whole

SHORT = {
    Step.LAST_SPEECH: "speech",
    Step.END_OF_TURN: "turn end",
    Step.FIRST_TOKEN: "token",
    Step.FIRST_SENTENCE: "sentence",
    Step.FIRST_AUDIO: "audio",
    Step.ON_THE_WIRE: "wire",
    Step.HEARD: "heard",
}
"""The parts as headings of columns."""
NUMBERS = ("length", "turns", "median", " p90", "cut in")
"""Headings of the columns of figures in a table of calls."""
ENDED = 8
"""Columns of how a call ended, at least."""
TURNS_SHOWN = 40
"""Rows of a table at the end of a call: the newest."""


def turn_table(record: CallRecord, width: int) -> Table:
    """A row for each reply, its parts and its gap in milliseconds; the medians below."""
    turns = [turn for turn in record.turns if not turn.dropped]
    shown = steps(turns)
    found = summary(record)
    pad = 1 if width < 90 else 2
    table = Table(box=None, pad_edge=False, padding=(0, pad, 0, 0), header_style="dim")
    heads = ["turn", *(SHORT[step] for step in shown), "gap"]
    rows = [
        [label(turn), *cell_numbers(turn, shown), milliseconds(turn.gap_ms)] for turn in turns[-TURNS_SHOWN:]
    ]
    ran = tool_times(record)
    tools = [Text(ran.get(turn.reply, "")) for turn in turns[-TURNS_SHOWN:]]
    endings = [ending(turn) for turn in turns[-TURNS_SHOWN:]]
    if found.heard > 1:
        rows.append(
            ["median", *(milliseconds(found.parts.get(step)) for step in shown), milliseconds(found.gap)]
        )
        older = f", {len(turns) - TURNS_SHOWN} rows are not shown" if len(turns) > TURNS_SHOWN else ""
        endings.append(Text(f"of {found.heard}{older}", style="dim"))
        tools.append(Text())
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for head, column in zip(heads, widths, strict=True):
        table.add_column(
            head, justify="right", no_wrap=True, min_width=column, style="bold" if head == "gap" else ""
        )
    table.add_column("", no_wrap=True)
    room = max(8, width - sum(widths) - len(widths) * pad)
    for row, end, used in zip(rows, endings, tools, strict=True):
        beside = used and len(end) + len(used) + 2 <= room  # else on a line of their own
        note = Text("  ").join([end, used]) if beside else end
        note.truncate(room, overflow="ellipsis")
        table.add_row(*row, note, style="bold" if row[0] == "median" else "")
        if used and not beside:
            used.truncate(room, overflow="ellipsis")
            table.add_row(*[""] * len(row), used)
    return table


def label(turn: TurnRecord) -> str:
    return str(turn.turn) if turn.turn is not None else "say"


def cell_numbers(turn: TurnRecord, shown: Sequence[Step]) -> list[str]:
    """The milliseconds of each part, so rounded that they sum to the gap."""
    numbers = dict(
        zip((part.step for part in turn.parts), whole([part.ms for part in turn.parts]), strict=True)
    )
    return [str(numbers[step]) if step in numbers else "" for step in shown]


def milliseconds(ms: float | None) -> str:
    return f"{ms:.0f}" if ms is not None else "–"


def ending(turn: TurnRecord) -> Text:
    """How a reply ended."""
    if turn.cut:
        return Text(plain(cut(turn)) + (", unheard" if turn.gap_ms is None else ""), style="red")
    note = "nothing to hear" if turn.gap_ms is None else "heard"
    if turn.saved_ms is not None:
        note = f"heard, a draft, {turn.saved_ms:.0f} ms sooner"
    return Text(note, style="dim")


def tool_times(record: CallRecord) -> dict[int, str]:
    """For each reply the tools that it asked for, and how long they ran: `opening_hours 120 ms`."""
    found: dict[int, str] = {}
    for event in record.events:
        if event.kind == "tool" and event.reply is not None and "took" in event.figures:
            ran = f"{plain(event.owner)} {milliseconds(event.figures['took'] * 1000)} ms"
            found[event.reply] = f"{found[event.reply]}  {ran}" if event.reply in found else ran
    return found


def owner_line(record: CallRecord) -> Text:
    """Who ends each part."""
    line = Text(style="dim")
    for step, owner in owners(record).items():
        line.append(f"{'  ' if line else ''}{SHORT[step]} ")
        line.append(plain(owner), style="not dim")
    return line


def figure_line(record: CallRecord) -> Text:
    """What was counted, in one line."""
    found = summary(record)
    words = [f"{name} {value:g}" for name, value in leading_figures(record).items()]
    words += filter(None, [drafts(found)])
    return Text("   ".join(words), style="dim")


def call_table(records: Sequence[tuple[Path, CallRecord]], width: int) -> Table:
    """A row for each call, with the medians of its gaps; the last one over all gaps."""
    names = [plain(path.name) for path, _ in records]
    room = width - sum(len(name) + 2 for name in NUMBERS)
    longest = max(12, min(max(map(len, names)), room - ENDED))
    ended = room - longest - 2
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("call", *NUMBERS):
        table.add_column(name, justify="left" if name == "call" else "right", no_wrap=True)
    if ended >= ENDED:
        table.add_column("how it ended", no_wrap=True, overflow="ellipsis", max_width=ended)
    gaps: list[float] = []
    for name, (_, record) in zip(names, records, strict=True):
        found = summary(record)
        gaps += [turn.gap_ms for turn in record.turns if turn.answers and turn.gap_ms is not None]
        style = "red" if record.outcome.fault else "dim"
        cells = [
            tail(name, longest),
            f"{record.seconds:.0f} s",
            str(found.turns),
            milliseconds(found.gap),
            milliseconds(found.p90),
            str(found.barge_ins),
        ]
        table.add_row(*cells, *[Text(shorten(record.outcome.reason, ended), style)][: ended >= ENDED])
    if len(records) > 1:
        median, p90 = middle(gaps)
        table.add_row(f"gaps: {len(gaps)}", "", "", milliseconds(median), milliseconds(p90), style="bold")
    return table
