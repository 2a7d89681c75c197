"""One call as an HTML page that needs nothing but itself: it can be opened from a disk, mailed, shared.

All of it is there without the script, which only adds what hovering and arrow keys show. What people said may
be anything: it is escaped, isolated in its own direction of writing, and the page's policy lets no script run
but the one whose hash it names, and nothing be loaded from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from voiceflow.trace.beside import Aside, Held, ToolRun, asides, holds, spoken_over, tool_runs
from voiceflow.trace.file import CallRecord, Part, TurnRecord
from voiceflow.trace.path import Step
from voiceflow.trace.recorder import Event
from voiceflow.trace.summary import Summary, cut, leading_figures, owners, spans, steps, summary
from voiceflow.trace.text import plain, whole
from voiceflow.trace.ticks import ticks

HERE = Path(__file__).parent
TICKS = 6
"""On an axis, at most."""


def page(record: CallRecord) -> str:
    """The page of a call."""
    found = summary(record)
    style = (HERE / "page.css").read_text("utf-8")
    script = (HERE / "page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    body = "".join(
        (
            _header(record),
            _cards(record, found),
            _timeline(record),
            _turns(record, found),
            _chain(record),
            _figures(record),
            _events(record.events),
        )
    )
    said = " What was said is replaced by its count." if record.redacted else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_e(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>Call {_e(record.call)}, {_e(_date(record.started))}</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n{body}"
        f"<footer>Drawn by voiceflow {_e(record.voiceflow)}. This page holds all it shows and loads nothing."
        f"{said}</footer>\n"
        f'<div id="tip" role="status" hidden></div>\n<script>{script}</script>\n</body>\n</html>\n'
    )


def _e(text: object) -> str:
    """Any text as HTML: plain, and escaped."""
    return html.escape(plain(str(text)), quote=True)


def _date(started: str) -> str:
    try:
        at = datetime.fromisoformat(started)
    except ValueError:
        return started
    return f"{at.day} {at:%B %Y, %H:%M:%S} {at.tzname() or ''}".rstrip()


def _percent(part: float, of: float) -> str:
    return f"{max(0.0, min(100.0, part / of * 100 if of > 0 else 0.0)):.3f}%"


def _place(begin: float, length: float, of: float) -> str:
    """The style of something between two points of an axis."""
    return f"left:{_percent(begin, of)};width:{_percent(length, of)}"


def _ms(ms: float | None) -> str:
    return f"{ms:.0f} ms" if ms is not None else "–"


def _class(step: Step) -> str:
    return step.value.replace(" ", "-")


# -- the call ---------------------------------------------------------------------------------------------


def _header(record: CallRecord) -> str:
    parties = (
        f" · {_e(record.caller or '?')} → {_e(record.called or '?')}"
        if record.caller or record.called
        else ""
    )
    ended = ' class="fault"' if record.outcome.fault else ' class="soft"'
    return (
        f"<header>\n<h1>Call {_e(record.call)}</h1>\n"
        f'<p class="soft">{_e(_date(record.started))} · {record.seconds:.1f} s{parties}</p>\n'
        f"<p{ended}>Ended: <bdi>{_e(record.outcome.reason or 'not known')}</bdi></p>\n</header>\n"
    )


def _cards(record: CallRecord, found: Summary) -> str:
    since = f"from {found.since.value} to heard" if found.since is not None else "nothing was heard"
    cards = [
        ("Median gap", _ms(found.gap), since),
        ("90th percentile", _ms(found.p90), f"of {found.heard}"),
        ("Turns", str(found.turns), "of the caller"),
        ("Barge-ins", str(found.barge_ins), "replies cut by the caller"),
    ]
    leading = leading_figures(record)
    if "underruns" in leading:
        cards.append(("Underruns", f"{leading['underruns']:g}", "gaps in the agent's audio"))
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><small>{note}</small></div>\n" for name, value, note in cards
    )
    return f'<dl class="cards" aria-label="Summary">\n{rows}</dl>\n'


def _timeline(record: CallRecord) -> str:
    lanes = {"caller": "", "agent": ""}
    for span in spans(record):
        place = _place(span.begin, span.end - span.begin, record.seconds)
        name = f"{span.who}, {span.begin:.1f} to {span.end:.1f} s"
        name += f", turn {span.turn}" if span.turn is not None else ", by itself"
        name += ", cut off" if span.cut else ""
        target = f"r{span.reply}" if span.reply is not None else _answer(record, span.turn)
        kind = f"{span.who} cut" if span.cut else span.who
        lanes[span.who] += (
            f'<a class="{kind}" style="{place}" href="#{target}" data-at="{span.begin:.3f}" '
            f'title="{_e(name)}" aria-label="{_e(name)}"></a>\n'
        )
    for held in holds(record):
        place = _place(held.begin, held.end - held.begin, record.seconds)
        name = f"held for a voice, {held.begin:.1f} to {held.end:.1f} s"
        kind = "held" if held.resumed else "held cut"
        lanes["agent"] += (
            f'<a class="{kind}" style="{place}" href="#r{held.reply}" data-at="{held.begin:.3f}" '
            f'title="{name}" aria-label="{name}"></a>\n'
        )
    return (
        '<section aria-labelledby="h-call">\n<h2 id="h-call">Who spoke when</h2>\n<div class="lanes">\n'
        f'<span>caller</span><div class="lane">{lanes["caller"]}</div>\n'
        f'<span>agent</span><div class="lane">{lanes["agent"]}</div>\n'
        f"<span></span>{_axis(record.seconds, 's')}\n</div>\n</section>\n"
    )


def _answer(record: CallRecord, turn: int | None) -> str:
    """The row of a caller's turn: that of its answer."""
    return next((f"r{each.reply}" for each in record.turns if each.answers and each.turn == turn), "turns")


def _axis(longest: float, unit: str) -> str:
    marks = ticks(longest, TICKS)
    spans = []
    for number, tick in enumerate(marks):
        last = ' class="last"' if number and tick > 0.93 * longest else ""
        name = f"{tick:g}" + (f" {unit}" if number == 0 else "")
        spans.append(f'<span{last} style="left:{_percent(tick, longest)}">{name}</span>')
    return f'<div class="axis" aria-hidden="true">{"".join(spans)}</div>'


# -- its turns --------------------------------------------------------------------------------------------


def _turns(record: CallRecord, found: Summary) -> str:
    shown = [turn for turn in record.turns if not turn.dropped]
    longest = max((sum(part.ms for part in turn.parts) for turn in shown), default=0.0)
    marks = ticks(longest, TICKS)
    tick = _percent(marks[1], longest) if len(marks) > 1 else "100%"
    beside = _Beside(record)
    rows = "".join(_turn(turn, longest, beside) for turn in record.turns)
    if found.heard > 1:
        medians = [
            Part(step, owner, found.parts[step])
            for step, owner in owners(record).items()
            if step in found.parts
        ]
        note = "each part's own median: they need not sum to that of the gap"
        rows += _row(
            "median", "", _meter(medians, longest, found.gap, "medians"), f'<span class="soft">{note}</span>'
        )
    axis = '<li class="turn scale" aria-hidden="true"><span></span>'
    axis += f'<div class="meter">{_axis(longest, "ms")}</div></li>\n'
    return (
        '<section aria-labelledby="turns">\n<h2 id="turns">From the caller\'s last word to the answer</h2>\n'
        f'{_legend(record, steps(shown))}<ol class="turns" style="--tick:{tick}">\n'
        f"{axis if longest else ''}{rows or _nothing()}</ol>\n</section>\n"
    )


def _nothing() -> str:
    return '<li class="none">The agent never had a turn.</li>\n'


def _legend(record: CallRecord, shown: Sequence[Step]) -> str:
    entries = "".join(
        f'<li><i class="swatch {_class(step)}"></i><b>{step.value}</b> '
        f'<span class="soft">{_e(owner)}</span></li>\n'
        for step, owner in owners(record).items()
        if step in shown
    )
    return f'<ul class="legend" aria-label="Parts, and who takes their time">\n{entries}</ul>\n'


class _Beside:
    """What else there is to show of each reply, by its number."""

    def __init__(self, record: CallRecord) -> None:
        self.tools: dict[int | None, list[ToolRun]] = {}
        self.holds: dict[int | None, list[Held]] = {}
        self.asides: dict[int | None, list[Aside]] = {}
        for run in tool_runs(record):
            self.tools.setdefault(run.reply, []).append(run)
        for held in holds(record):
            self.holds.setdefault(held.reply, []).append(held)
        for aside in asides(record):
            over = spoken_over(record, aside.at)
            self.asides.setdefault(over.reply if over is not None else None, []).append(aside)


def _turn(turn: TurnRecord, longest: float, beside: _Beside) -> str:
    name = "by itself" if turn.turn is None else f"turn {turn.turn}"
    if turn.dropped:
        name = "draft"
    spoken = "".join(_words(turn, beside))
    meter = _meter(turn.parts, longest, turn.gap_ms, name) if turn.parts and not turn.dropped else ""
    return _row(name, f"r{turn.reply}", meter, spoken)


def _row(name: str, anchor: str, meter: str, words: str) -> str:
    ident = f' id="{anchor}"' if anchor else ""
    return (
        f'<li class="turn"{ident}><h3>{_e(name)}</h3><div class="meter-cell">{meter}</div>'
        f'<div class="words">{words}</div></li>\n'
    )


def _meter(parts: Sequence[Part], longest: float, gap: float | None, name: str) -> str:
    """The bar, and a table of its parts for who cannot see or hover."""
    total = sum(part.ms for part in parts)
    numbers = whole([part.ms for part in parts])
    at, bar, rows, spoken = 0.0, "", "", []
    for part, number in zip(parts, numbers, strict=True):
        share = f"{part.ms / total * 100:.0f} %" if total > 0 else "0 %"
        bar += (
            f'<i class="part {_class(part.step)}" style="{_place(at, part.ms, longest)}" '
            f'data-step="{part.step.value}" data-ms="{number}" data-owner="{_e(part.owner)}" '
            f'data-share="{share}"><span>{number}</span></i>'
        )
        at += part.ms
        rows += (
            f'<tr><td>{part.step.value}</td><td>{_e(part.owner)}</td><td class="number">{number} ms</td>'
            f'<td class="number">{share}</td></tr>\n'
        )
        spoken.append(f"{part.step.value} {number} ms")
    label = f"{name}: {_ms(gap) if gap is not None else 'not heard'}. {', '.join(spoken)}"
    return (
        f'<div class="meter"><div class="bar" tabindex="0" role="img" aria-label="{_e(label)}">{bar}</div>'
        f"<output>{_ms(gap)}</output></div>\n"
        f"<details><summary>parts</summary><table>\n{rows}</table></details>\n"
    )


def _words(turn: TurnRecord, beside: _Beside) -> Iterator[str]:
    """What was said: by the caller, and by the agent as far as it was heard; and what tools did for it."""
    if turn.turn is not None:
        yield _said("caller", _text(turn.asked))
    for run in beside.tools.get(turn.reply, ()):
        took = f" {run.seconds * 1000:.0f} ms" if run.seconds is not None else ""
        result = f" → {_text(run.result)}" if run.result else ""
        yield _said(
            "tool",
            f"<b>{_e(run.name)}</b> <bdi>{_e(run.arguments)}</bdi> "
            f'<span class="soft">{_e(run.state)}{took}</span>{result}',
        )
    heard = _text(turn.heard) if turn.heard else '<span class="none">nothing was heard</span>'
    if turn.dropped:
        heard = f'<span class="none">dropped: {_e(turn.cut)}</span>'
    elif turn.cut:
        heard += f' <span class="mark">✂ {_e(cut(turn))}</span>'
    if turn.lost:
        heard += f" <s><bdi>{_e(turn.lost)}</bdi></s>"
    if turn.estimated:
        heard += ' <span class="soft">(to about a word)</span>'
    if turn.draft and not turn.dropped:
        sooner = f", {turn.saved_ms:.0f} ms sooner" if turn.saved_ms is not None else ""
        heard += f' <span class="soft">(a draft that was right{sooner})</span>'
    if held := beside.holds.get(turn.reply):
        times = "once" if len(held) == 1 else f"{len(held)} times"
        silent = sum(each.end - each.begin for each in held)
        heard += f' <span class="soft">(held {times} for a voice, {silent:.1f} s)</span>'
    yield _said("agent", heard)
    for aside in beside.asides.get(turn.reply, ()):
        note = "is answered later" if aside.kept else "only listens"
        yield _said("caller", f'{_text(aside.words)} <span class="soft">({note})</span>')


def _text(text: str) -> str:
    return f'<bdi dir="auto">{_e(text)}</bdi>' if text else '<span class="none">no words</span>'


def _said(who: str, what: str) -> str:
    return f'<p class="{who}"><span>{who}</span><span>{what}</span></p>\n'


# -- the rest ---------------------------------------------------------------------------------------------


def _chain(record: CallRecord) -> str:
    names = "".join(f"<li><span>{_e(name)}</span></li>\n" for name in record.chain)
    return (
        '<section aria-labelledby="h-chain">\n<h2 id="h-chain">The chain</h2>\n'
        f'<ol class="chain">\n{names}</ol>\n</section>\n'
    )


def _figures(record: CallRecord) -> str:
    rows = [(name, value) for name, value in record.figures.items()]
    for pool, figures in record.pools.items():
        rows += [(f"{pool}: {name}", value) for name, value in figures.items()]
    if not rows:
        return ""
    lines = "".join(
        f"<div><dt>{_e(name.replace('_', ' '))}</dt><dd>{value:,.10g}</dd></div>\n" for name, value in rows
    )
    return (
        '<section aria-labelledby="h-figures">\n<h2 id="h-figures">Figures</h2>\n'
        f'<dl class="figures">\n{lines}</dl>\n</section>\n'
    )


def _events(events: Iterable[Event]) -> str:
    rows = "".join(
        f'<tr><td class="number">{event.at:.3f}</td><td>{_e(event.kind)}</td><td>{_e(event.owner)}</td>'
        f"<td>{_detail(event)}</td></tr>\n"
        for event in events
    )
    head = '<tr><th class="number">s</th><th>what</th><th>who</th><th></th></tr>\n'
    return (
        f"<section>\n<details><summary>Everything that happened</summary>\n"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Events">'
        f"<table>\n{head}{rows}</table></div></details>\n</section>\n"
    )


def _detail(event: Event) -> str:
    parts = []
    if event.words:
        parts.append(_text(event.words))
    if event.detail:
        parts.append(f"<bdi>{_e(event.detail)}</bdi>")
    parts += [f"{_e(name.replace('_', ' '))} {value * 1000:.0f} ms" for name, value in event.figures.items()]
    return " · ".join(parts)
