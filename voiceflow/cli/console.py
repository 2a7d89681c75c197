"""What happens in the calls, line by line while it happens, and a table at the end of each.

The calls hand over their events and go on; lines are made and written in a thread. A terminal that is slow
or paused loses lines, which are counted; one that is gone loses all of them.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.text import Text

from voiceflow.trace.background import Background
from voiceflow.trace.file import CallRecord, record_of, redaction_of
from voiceflow.trace.path import Step
from voiceflow.trace.recorder import Event
from voiceflow.trace.redaction import Redaction
from voiceflow.trace.summary import BARGE_IN
from voiceflow.trace.table import figure_line, owner_line, turn_table
from voiceflow.trace.text import plain, shorten, tail

if TYPE_CHECKING:
    from voiceflow.call import Call

WAITING_BOUND = 2000
"""Lines that wait for the terminal."""
PAUSE = 0.03
"""Seconds until lines are written: the end of a turn is no moment to take the interpreter from the call."""
CLOSING = 1.0
"""Seconds the last lines may take."""
LOG_WIDTH = 100
"""Columns of tables, and LINE_LENGTH characters of lines, where there is no terminal."""
LINE_LENGTH = 240
WIDEST = 1000
"""Columns of a terminal that are used, at most."""
WORDS_SHOWN = 40
"""Characters of what was heard when it was cut off."""
NAMES = 20
"""Characters of a processor's name."""

Render = Callable[[], str]


class Screen:
    """Writes to the terminal from one thread, in order: lines of calls to stdout, logs to stderr."""

    def __init__(self) -> None:
        self._background = Background("voiceflow terminal", bound=WAITING_BOUND, pause=PAUSE)
        self._told = 0
        self._gone: set[int] = set()

    def write(self, stream: TextIO, render: Render) -> None:
        """Writes what `render` makes, in the thread. Never waits; drops it when too much waits already."""
        self._background.do(partial(self._write, stream, render))

    def close(self) -> None:
        """Waits a moment for what is not written yet."""
        self._background.close(CLOSING)

    @property
    def dropped(self) -> int:
        """How much was not written because too much waited."""
        return self._background.dropped

    def _write(self, stream: TextIO, render: Render) -> None:
        if id(stream) in self._gone:
            return
        text = render()
        if missing := self.dropped - self._told:
            self._told += missing
            text = f"... {missing} lines were dropped: the terminal did not take them\n{text}"
        try:
            _write_all(stream, text)
        except (OSError, ValueError):  # nobody reads it any more
            self._gone.add(id(stream))


def _write_all(stream: TextIO, text: str) -> None:
    """Past the stream's own buffer: that one would be written out at exit, and hang there if need be."""
    try:
        file = stream.fileno()
    except (OSError, ValueError):  # a stream in memory
        stream.write(text)
        stream.flush()
        return
    data = text.encode(stream.encoding or "utf-8", "replace")
    while data:
        data = data[os.write(file, data) :]


class LiveConsole:
    """`opened(call)` for each call. Everything below that runs in the screen's thread."""

    def __init__(self, screen: Screen, *, redact: bool = False) -> None:
        """`redact` hides what is said, and the numbers."""
        self._screen = screen
        self._redact = redact
        self._stream = sys.stdout
        self._terminal = real = Console(file=self._stream, highlight=False)
        self._paper = Console(
            file=io.StringIO(),
            width=WIDEST,
            highlight=False,
            force_terminal=real.is_terminal,
            color_system=real.color_system,  # type: ignore[arg-type]
            no_color=real.no_color,
        )
        self._live: dict[str, int] = {}
        """The calls that are live, and how wide their processors' names are."""

    def opened(self, call: Call) -> None:
        """A call has been prepared."""
        redaction = redaction_of(call, words=self._redact)
        width = min(NAMES, max(map(len, (*call.chain, "caller"))))
        parties = f"from {redaction.number(call.caller) or '?'} to {redaction.number(call.called) or '?'}"
        self._show(partial(self._announce, call.id, width, parties))

        def listen(event: Event) -> None:
            if event.kind == "more":
                redaction.remember(event.words)
            elif event.kind != "end":  # `over` tells it, with the table
                self._show(partial(self._event, call.id, redaction, event))

        def over(call: Call) -> None:
            self._show(partial(self._over, call))

        call.trace.listeners.append(listen)
        call.on_end(over)

    def _show(self, render: Render) -> None:
        self._screen.write(self._stream, render)

    # -- in the thread

    def _announce(self, call: str, width: int, parties: str) -> str:
        self._live[call] = width
        return self._line(call, 0.0, Text("call"), Text(parties, style="dim"))

    def _event(self, call: str, redaction: Redaction, event: Event) -> str:
        return self._line(call, event.at, *describe(event, redaction))

    def _line(self, call: str, at: float, who: Text, what: Text) -> str:
        line = Text(f"{at:7.2f} s  ", style="dim")
        if len(self._live) > 1:
            line.append(f"{plain(call)[:8]:<8} ")
        who.truncate(NAMES, overflow="ellipsis")
        who.pad_right(max(0, self._live.get(call, 0) - len(who)))
        line.append_text(Text(style="not dim") + who)
        line.append_text(Text("  ", style="not dim") + what)
        return self._printed(line)

    def _over(self, call: Call) -> str:
        record = record_of(call, "", redact=self._redact)
        style = "red" if record.outcome.fault else "dim"
        reason = Text(f"over: {shorten(record.outcome.reason, LINE_LENGTH)}", style=style)
        last = self._line(call.id, record.seconds, Text("call"), reason)
        self._live.pop(call.id, None)
        return last + self._printed(_closing(record, self._width))

    @property
    def _width(self) -> int:
        return min(120, self._terminal.width) if self._is_terminal else LOG_WIDTH

    @property
    def _is_terminal(self) -> bool:
        return self._terminal.is_terminal

    def _printed(self, what: RenderableType) -> str:
        """As text, with colours on a terminal. A line is one line: what does not fit is left out."""
        width = self._terminal.width if self._is_terminal else LOG_WIDTH
        if isinstance(what, Text):
            width = width if self._is_terminal else LINE_LENGTH
            what.truncate(width, overflow="ellipsis")
        with self._paper.capture() as captured:
            self._paper.print(what, width=min(width, WIDEST))
        return captured.get()


def describe(event: Event, redaction: Redaction) -> tuple[Text, Text]:
    """Who and what, for one event."""
    words = redaction.said(event.words)
    detail = redaction.other(event.detail)
    quoted = f'  "{plain(words)}"' if words else ""
    took = event.figures.get("took", 0.0)
    agent, caller = Text("agent", style="green"), Text("caller", style="cyan")
    owner = Text(plain(event.owner))
    match event.kind:
        case "caller speaks":
            return caller, Text("speaks", style="cyan")
        case "resumed":
            return caller, Text("goes on", style="cyan")
        case "caller done":
            since = event.figures.get("since_speech")
            after = f"  {since:.2f} s after the last word" if since is not None else ""
            return caller, _said("done", "cyan", f"{after}{quoted}")
        case "draft":
            return caller, _said("may be done: a draft is begun", "cyan", quoted)
        case "draft kept":
            return agent, Text("answers with the draft", style="green")
        case "draft dropped":
            return agent, _said("drops the draft", "green", f"  {detail}")
        case Step.HEARD.value:
            since = event.figures.get("since_speech")
            turn = event.figures.get("since_turn")
            if since is not None:
                return agent, _said("heard", "bold green", f" {_ms(since)} after the caller stopped")
            if turn is not None:
                return agent, _said("heard", "bold green", f" {_ms(turn)} after the end of the turn")
            return agent, Text("heard", style="bold green")
        case "held" | "goes on":
            return agent, Text("held: a voice" if event.kind == "held" else "goes on", style="green")
        case "backchannel":
            return caller, _said("only listens" if words else "was not heard to speak", "cyan", quoted)
        case "kept":
            return caller, _said("is answered later", "cyan", quoted)
        case "said":
            return agent, _said("said" if words else "had nothing to say", "green", quoted)
        case "cut":
            why = "" if event.detail == BARGE_IN else f"  {detail}"
            heard = f" after '{tail(words, WORDS_SHOWN)}'" if words else " before a word was heard"
            return agent, _said("cut", "bold red", heard + why)
        case "line open":
            return Text("line"), Text("open", style="dim")
        case "tool":
            time = f"  {_ms(took)}" if event.figures else ""
            return owner, _said(detail, "magenta", f"{time}  {plain(words)}".rstrip())
        case "note":
            return owner, Text(plain(detail), style="yellow")
        case kind:
            return owner, _said(kind, "", f"  +{_ms(took)}{quoted}")


def _said(what: str, style: str, rest: str) -> Text:
    return Text(what, style=style) + Text(rest, style="default")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _closing(record: CallRecord, width: int) -> RenderableType:
    """What is printed when a call is over."""
    parts: list[RenderableType] = [turn_table(record, width), owner_line(record)] if record.turns else []
    return Group(Text(), *parts, figure_line(record), Text())
