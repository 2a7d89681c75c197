"""One call drawn in a terminal: a bar for each turn, its parts to scale; both sides on one axis of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from voiceflow.trace.beside import Aside, ToolRun, asides, tool_runs
from voiceflow.trace.file import CallRecord, Part, TurnRecord
from voiceflow.trace.path import ORDER, Step
from voiceflow.trace.summary import drafts, owners, spans, steps, summary
from voiceflow.trace.table import SHORT, cell_numbers, label, milliseconds
from voiceflow.trace.text import plain, shorten
from voiceflow.trace.ticks import ticks

COLOURS = {
    Step.END_OF_TURN: "blue",
    Step.FIRST_TOKEN: "yellow",
    Step.FIRST_SENTENCE: "green",
    Step.FIRST_AUDIO: "magenta",
    Step.ON_THE_WIRE: "bright_black",
    Step.HEARD: "cyan",
}
FILLINGS = dict(zip(ORDER[1:], "░█▒▓╎▞", strict=True))
"""Where there are no colours, the parts are told apart by these."""
ASCII = dict(zip(ORDER[1:], ".#=%|o", strict=True))
LEAST, MOST = 10, 120
"""Columns of a bar."""


@dataclass(slots=True, frozen=True)
class Look:
    """What a terminal can show."""

    width: int = 80
    colours: bool = True
    ascii: bool = False

    def cell(self, step: Step) -> str:
        if self.ascii:
            return ASCII[step]
        return "█" if self.colours else FILLINGS[step]

    def character(self, nice: str, simple: str) -> str:
        return simple if self.ascii else nice


def waterfall(record: CallRecord, look: Look) -> Iterator[Text]:
    """The lines of the drawing."""
    yield from heading(record, look)
    turns = [turn for turn in record.turns if turn.parts and not turn.dropped]
    if turns:
        yield Text()
        yield from _bars(record, turns, look)
    else:
        yield Text("no turn was answered", style="dim")
    if lanes := _lanes(record, look):
        yield Text()
        yield from lanes


def transcript(record: CallRecord, look: Look) -> Iterator[Text]:
    """What was said and heard, in order, and what tools did."""
    lines = [
        *zip((said.at for said in record.transcript), _said(record, look), strict=True),
        *((run.at, _tool(run, look)) for run in tool_runs(record)),
        *((aside.at, _aside(aside)) for aside in asides(record)),
    ]
    for _, line in sorted(lines, key=lambda each: each[0]):
        yield line


def _tool(run: ToolRun, look: Look) -> Text:
    line = Text(f"{run.at:7.2f} s  ", style="dim")
    line.append("tool   ", style="not dim magenta")
    line.append(f"{plain(run.name)} {shorten(run.arguments, MOST)}".rstrip(), style="not dim")
    took = f" {run.seconds * 1000:.0f} ms" if run.seconds is not None else ""
    line.append(f"  {plain(run.state)}{took}", style="not dim magenta")
    if run.result:
        arrow = look.character("→", "->")
        line.append(f"  {arrow} {shorten(run.result, MOST)}", style="not dim")
    return line


def _aside(aside: Aside) -> Text:
    line = Text(f"{aside.at:7.2f} s  ", style="dim")
    line.append("caller ", style="not dim cyan")
    line.append(plain(aside.words), style="not dim")
    line.append("  (is answered later)" if aside.kept else "  (only listens)")
    return line


def _said(record: CallRecord, look: Look) -> Iterator[Text]:
    lost = {turn.reply: turn.lost for turn in record.turns}
    replies = {(turn.turn, turn.heard): turn.reply for turn in record.turns}
    for said in record.transcript:
        caller = said.who == "caller"
        line = Text(f"{said.at:7.2f} s  ", style="dim")
        line.append(f"{'caller' if caller else 'agent':<7}", style=f"not dim {'cyan' if caller else 'green'}")
        line.append(plain(said.text) or "(no words)", style="not dim")
        if said.cut:
            line.append(look.character(" ✂ ", " x "), style="not dim red")
            rest = lost.get(replies.get((said.turn, said.text), -1), "")
            line.append(plain(rest), style="strike")
        yield line


def heading(record: CallRecord, look: Look) -> Iterator[Text]:
    """Which call it was, and how it was in a few figures."""
    first = Text(f"call {plain(record.call)}", style="bold")
    first.append(
        f"  {record.started[:19].replace('T', ' ')} UTC  {record.seconds:.1f} s", style="not bold dim"
    )
    if record.caller or record.called:
        arrow = look.character("→", "->")
        first.append(f"  {plain(record.caller)} {arrow} {plain(record.called)}", style="not bold dim")
    yield first
    yield Text(look.character(" → ", " > ").join(map(plain, record.chain)), style="dim")
    ended = Text(shorten(record.outcome.reason, 300), style="red" if record.outcome.fault else "dim")
    yield ended
    found = summary(record)
    line = Text(f"{found.turns} turn{'' if found.turns == 1 else 's'}")
    if found.gap is not None:
        line.append("   median ")
        line.append(f"{found.gap:.0f} ms", style="bold")
        line.append(f"   p90 {found.p90:.0f} ms   from {found.since.value if found.since else '?'} to heard")
    line.append(f"   {found.barge_ins} cut in")
    yield line
    if begun := drafts(found):
        yield Text(begun)


def _bars(record: CallRecord, turns: Sequence[TurnRecord], look: Look) -> Iterator[Text]:
    shown = steps(turns)
    found = summary(record)
    rows = [
        (label(turn), turn.parts, cell_numbers(turn, shown), turn.gap_ms, bool(turn.cut)) for turn in turns
    ]
    medians = [Part(step, "", found.parts[step]) for step in shown if step in found.parts]
    if found.heard > 1:
        cells = [milliseconds(found.parts[step]) if step in found.parts else "" for step in shown]
        rows.append(("median", medians, cells, found.gap, False))
    widths = [
        max(len(SHORT[step]), *(len(cells[i]) for _, _, cells, _, _ in rows)) for i, step in enumerate(shown)
    ]
    name_width = max(len("turn"), *(len(name) for name, *_ in rows))
    gap_width = max(5, *(len(milliseconds(gap)) for *_, gap, _ in rows))
    room = look.width - name_width - 2 - gap_width - 3
    bar = room - sum(width + 1 for width in widths)
    if bar < LEAST:  # a narrow terminal: the bars alone
        shown, widths, bar = [], [], room
    bar = max(LEAST, min(MOST, bar))
    longest = max(sum(part.ms for part in turn.parts) for turn in turns) or 1.0

    head = Text("turn".rjust(name_width) + " " * (bar + 2), style="dim")
    for step, width in zip(shown, widths, strict=True):
        head.append(" " + SHORT[step].rjust(width), style=f"not dim {COLOURS[step]}")
    head.append(" " + "gap".rjust(gap_width), style="not dim bold")
    yield head
    for name, parts, cells, gap, cut in rows:
        style = "bold" if name == "median" else ""
        line = Text(name.rjust(name_width) + " ", style=style)
        line.append_text(_bar(parts, longest, bar, look))
        line.append(" ")
        for number, width in zip(cells, widths, strict=False):
            line.append(" " + number.rjust(width), style="dim" if number == "0" else style)
        line.append(" " + milliseconds(gap).rjust(gap_width), style="bold")
        if cut:
            line.append(" " + look.character("✂", "x"), style="red")
        yield line
    yield Text(" " * (name_width + 1) + _axis(longest, bar, "ms"), style="dim")
    yield Text()
    yield from _legend(record, steps(turns), look)


def _bar(parts: Sequence[Part], longest: float, width: int, look: Look) -> Text:
    """The parts of a turn, each as long as it took. Edges are rounded, not parts, so that nothing adds up."""
    bar = Text()
    at, cells = 0.0, 0
    for part in parts:
        at += part.ms
        edge = max(cells, min(width, round(at / longest * width)))
        bar.append(look.cell(part.step) * (edge - cells), style=COLOURS[part.step])
        cells = edge
    bar.append(" " * (width - cells))
    return bar


def _legend(record: CallRecord, shown: Sequence[Step], look: Look) -> Iterator[Text]:
    """What each part is, and who ends it; in as many lines as it takes."""
    line = Text()
    for step, owner in owners(record).items():
        if step not in shown:
            continue
        entry = Text(look.cell(step) * 2, style=COLOURS[step])
        entry.append(f" {step.value} ", style="default")
        entry.append(shorten(owner, 40), style="dim")
        if line and len(line) + len(entry) + 3 > look.width:
            yield line
            line = Text()
        if line:
            line.append("   ")
        line.append_text(entry)
    yield line


def _lanes(record: CallRecord, look: Look) -> list[Text]:
    """Who spoke when, over the whole call."""
    found = spans(record)
    seconds = record.seconds
    if not found or seconds <= 0:
        return []
    width = max(LEAST, min(MOST, look.width - 8))
    lines = []
    for who, colour in (("caller", "cyan"), ("agent", "green")):
        cells: list[tuple[str, str]] = [(look.character("·", "."), "dim")] * width
        for span in found:
            if span.who != who:
                continue
            first = min(width - 1, int(span.begin / seconds * width))
            last = min(width, max(first + 1, round(span.end / seconds * width)))
            for place in range(max(0, first), last):
                cells[place] = (look.character("▆", "#"), colour)
            if span.cut and span.reply is not None:
                cells[last - 1] = (look.character("✂", "x"), "red")
        line = Text(f"{who:<7}", style=colour)
        for cell, style in cells:
            line.append(cell, style=f"not dim {style}")
        lines.append(line)
    lines.append(Text(" " * 7 + _axis(seconds, width, "s"), style="dim"))
    return lines


def _axis(longest: float, width: int, unit: str) -> str:
    """Ticks at round numbers, as many as there is room for, in `width` columns."""
    axis = [" "] * width
    for number, tick in enumerate(ticks(longest, max(1, width // 9))):
        place = min(width - 1, round(tick / longest * width)) if longest > 0 else 0
        name = f"{tick:g}" + (f" {unit}" if number == 0 else "")
        if place + len(name) <= width and all(c == " " for c in axis[max(0, place - 1) : place + len(name)]):
            axis[place : place + len(name)] = name
    return "".join(axis).rstrip()
