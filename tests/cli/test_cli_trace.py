"""What people see of a call: lines while it lives, a table at its end, its file, and what draws that."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from loguru import logger
from trace_calls import SECRET, Aggregator, Breaks, Model, Phone, Turner, Voice, phone, talker
from typer.testing import CliRunner

from voiceflow.audio import write_wav
from voiceflow.call import Call
from voiceflow.cli import app, console, logs, trace
from voiceflow.cli.console import LiveConsole, Screen
from voiceflow.cli.watching import watching
from voiceflow.errors import VoiceflowError
from voiceflow.testing import run
from voiceflow.trace.file import CallRecord, read, record_of, to_json
from voiceflow.trace.redaction import Redaction
from voiceflow.trace.waterfall import Look, waterfall

ROOT = Path(__file__).parents[2]
STARTED = "2026-11-22T10:15:30.123+00:00"
WORDS = ("rumpelstiltskin", "sunday", "bakery", "seven", "park", "bridge", "million", "wonderful", "555")
"""What is said in `scene`, by the caller and by the agent, and a piece of their numbers."""


@pytest.fixture(autouse=True)
def _quiet_log():
    """Nothing of the engine's log on the terminal, and no handler is left behind."""
    logger.remove()
    yield
    logger.remove()


async def scene(**options) -> Phone:
    """A greeting, an answer, one that is cut, two drafts, a pause, a hang-up."""
    answers = ("It is open until seven.", "You can park behind the harbour, under the bridge.", "Wonderful.")
    async with phone(*talker(*answers), delay=0.02, **options) as p:
        await p.call.say("Harbour bakery.")
        p.turn("Will you be there Sunday", spoke=0.3)
        await asyncio.sleep(3)
        p.turn("Where can Rumpelstiltskin park")
        await asyncio.sleep(2)
        p.turns.started()
        p.turns.may_be_over("Thank")
        await asyncio.sleep(0.2)
        p.turns.resumed()
        p.turns.may_be_over("Thanks a million")
        await asyncio.sleep(0.2)
        p.turns.ended("Thanks a million")
        p.call.trace.note("Voice", "connection lost: the peer closed it (1011)")
        await asyncio.sleep(0.7)
        p.turns.hold()
        await asyncio.sleep(0.1)
        p.turns.unhold()
        await asyncio.sleep(1)
    return p


def watched(monkeypatch: pytest.MonkeyPatch, *, redact: bool = False, **options) -> str:
    """What the console shows of the scene."""
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    screen = Screen()
    live = LiveConsole(screen, redact=redact)
    run(scene(prepare=live.opened, **options))
    screen.close()
    monkeypatch.undo()
    assert screen._background.failed == 0
    return "\n".join(line.rstrip() for line in shown.getvalue().splitlines())


# -- the console ------------------------------------------------------------------------------------------


SCENE = """\
   0.00 s  call        from +12025550143 to +12025550199
   0.00 s  line        open
   0.10 s  program     first sentence  +0 ms  "Harbour bakery."
   0.25 s  Voice       first audio  +150 ms
   0.25 s  LineSink    on the wire  +0 ms
   0.39 s  agent       heard
   1.19 s  agent       said  "Harbour bakery."
   1.19 s  caller      speaks
   1.19 s  caller      done  0.31 s after the last word  "Will you be there Sunday"
   1.49 s  Model       first token  +300 ms
   1.53 s  Aggregator  first sentence  +40 ms  "It is open until seven."
   1.68 s  Voice       first audio  +150 ms
   1.68 s  LineSink    on the wire  +0 ms
   1.82 s  agent       heard 840 ms after the caller stopped
   3.10 s  agent       said  "It is open until seven."
   4.19 s  caller      speaks
   4.19 s  caller      done  0.11 s after the last word  "Where can Rumpelstiltskin park"
   4.49 s  Model       first token  +300 ms
   4.57 s  Aggregator  first sentence  +80 ms  "You can park behind the harbour, under the bridge."
   4.72 s  Voice       first audio  +150 ms
   4.72 s  LineSink    on the wire  +0 ms
   4.86 s  agent       heard 680 ms after the caller stopped
   6.19 s  agent       cut after 'You can park behind the'
   6.19 s  caller      speaks
   6.19 s  caller      may be done: a draft is begun  "Thank"
   6.39 s  agent       drops the draft  the caller went on
   6.39 s  caller      goes on
   6.39 s  caller      may be done: a draft is begun  "Thanks a million"
   6.59 s  caller      done  "Thanks a million"
   6.59 s  agent       answers with the draft
   6.59 s  Voice       connection lost: the peer closed it (1011)
   6.69 s  Model       first token  +100 ms
   6.69 s  Aggregator  first sentence  +0 ms  "Wonderful."
   6.84 s  Voice       first audio  +150 ms
   6.84 s  LineSink    on the wire  +0 ms
   6.98 s  agent       heard 290 ms after the end of the turn
   7.29 s  agent       held: a voice
   7.39 s  agent       goes on
   8.03 s  agent       said  "Wonderful."
   8.39 s  call        over: the caller hung up

  turn  turn end  token  sentence  audio  wire  heard  gap
   say                               150     0     40  190  heard
     1       310    300        40    150     0     40  840  heard
     2       110    300        80    150     0     40  680  cut by the caller after 1.4 s
     3              100         0    150     0     40  290  heard, a draft, 200 ms sooner
median       210    300        60    150     0     40  760  of 2
turn end Turner  token Model  sentence Aggregator  audio Voice  wire LineSink  heard line
underruns 0   interrupts 1   drafts 1 kept (200 ms sooner), 1 dropped
"""


def test_a_line_for_each_event_and_a_table_at_the_end(monkeypatch):
    assert watched(monkeypatch) == SCENE


def test_no_line_is_longer_than_a_terminal_is_wide(monkeypatch):
    monkeypatch.setattr(LiveConsole, "_is_terminal", True)
    for columns in (60, 80, 100, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown = io.StringIO()
        monkeypatch.setattr(sys, "stdout", shown)
        screen = Screen()
        live = LiveConsole(screen)
        run(scene(prepare=live.opened))
        screen.close()
        text = shown.getvalue()
        assert max(map(len, text.splitlines())) <= max(columns, 62)
        assert re.search(r"^ +1 .* 840 +heard", text, re.MULTILINE)
        assert ("median" in text, "Wonderful" in text) == (True, True)


def test_the_console_redacted(monkeypatch):
    text = watched(monkeypatch, redact=True)
    assert [word for word in WORDS if word in text.lower()] == []
    assert "from …43 to …99" in text
    assert 'caller      done  0.31 s after the last word  "[5 words]"' in text
    assert "cut after '[5 words]'" in text
    assert text.splitlines()[-9:] == SCENE.splitlines()[-9:]


def test_a_vendor_that_repeats_what_was_not_heard_yet(monkeypatch, tmp_path):
    """Console, log and file: the second sentence is known as soon as it is made."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    async def main(opened: Callable[[Call], None]) -> None:
        async with phone(*talker("One moment. Rumpelstiltskin knows.", between=0.001), prepare=opened) as p:
            p.turn("hello")
            await asyncio.sleep(0.32)
            p.call.trace.note("Voice", "refused: 'Rumpelstiltskin knows.'")
            p.call.log.warning("Voice: refused: 'Rumpelstiltskin knows.'")
            p.turns.started()
            await asyncio.sleep(0.5)

    with watching("INFO", trace_dir=tmp_path, redact=True) as opened:
        run(main(opened))
    (file,) = tmp_path.glob("*.json")
    for text in (out.getvalue(), err.getvalue(), file.read_text()):
        assert "refused: '••• •••.'" in text
        assert "Rumpelstiltskin" not in text


def test_a_call_that_dies_is_told_too(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    for redact in (False, True):
        screen = Screen()
        live = LiveConsole(screen, redact=redact)

        async def main(live: LiveConsole) -> None:
            chain = [Turner(), Breaks(), Model("Good."), Aggregator(), Voice()]
            async with phone(*chain, prepare=live.opened, hang_up=False) as p:
                p.turn("one Rumpelstiltskin")
                await asyncio.sleep(2)
                p.turn("another Rumpelstiltskin")
                await asyncio.sleep(1)

        run(main(live))
        screen.close()
    first, second = shown.getvalue().split("call        from")[1:]
    assert "over: Breaks failed in fail: ValueError: cannot bear 'another Rumpelstiltskin'" in first
    assert "over: Breaks failed in fail: ValueError: [4 words]" in second
    assert "Rumpelstiltskin" not in second
    assert "nothing to hear" not in first
    assert re.search(r"\n +2 +\d+ +–  cut: Breaks failed in", first)


def test_calls_are_named_when_there_are_several(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    screen = Screen()
    live = LiveConsole(screen)

    async def main() -> None:
        def rename(call: Call) -> None:
            call.id = "w0-8"
            live.opened(call)

        async with phone(*talker("Good."), prepare=live.opened) as one:
            one.turn()
            await asyncio.sleep(2)
            async with phone(*talker("Good."), prepare=rename) as two:
                two.turn()
                await asyncio.sleep(2)
                one.turn()
                await asyncio.sleep(2)
            one.turn()
            await asyncio.sleep(2)

    run(main())
    screen.close()
    names = re.findall(r"^ +\d+\.\d\d s  (?:(w0-\d) +)?caller +speaks", shown.getvalue(), re.MULTILINE)
    assert names == ["", "w0-8", "w0-7", ""]


def test_what_a_stranger_says_cannot_draw_on_the_terminal(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    screen = Screen()
    live = LiveConsole(screen)

    async def main() -> None:
        async with phone(*talker("\x1b[2J\u202e[red]evil[/red]\r\nsecond line."), prepare=live.opened) as p:
            p.turn("\x1b]0;title\x07\x9b31m[bold]x[/bold]\n\nnew line")
            await asyncio.sleep(3)

    run(main())
    screen.close()
    text = shown.getvalue()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "[bold]x[/bold] new line" in text
    assert "[red]evil[/red] second line." in text


# -- a terminal that is slow, or gone ---------------------------------------------------------------------


class Stuck(io.StringIO):
    """A terminal that is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.waits = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.waits.set()
        self.go.wait(20)
        return super().write(text)


def test_a_terminal_that_is_paused_holds_up_no_call(monkeypatch):
    """The call goes its way in virtual time while the writer hangs; what was lost is told later."""
    stuck = Stuck()
    monkeypatch.setattr(sys, "stdout", stuck)
    monkeypatch.setattr(console, "WAITING_BOUND", 10)
    monkeypatch.setattr(console, "PAUSE", 0.0)
    screen = Screen()
    live = LiveConsole(screen)
    screen.write(stuck, lambda: "first\n")
    assert stuck.waits.wait(5)
    done = run(scene(prepare=live.opened))
    assert done.result is not None
    assert done.result.fault is None
    assert [path.gap is not None for path in done.paths] == [True, True, True, False, True]
    dropped = screen.dropped
    assert dropped > 20
    stuck.go.set()
    screen.close()
    text = stuck.getvalue()
    assert text.startswith(f"first\n... {dropped} lines were dropped: the terminal did not take them\n")
    assert text.count("\n") == 2 + 10


def test_leaving_does_not_wait_for_a_paused_terminal(monkeypatch):
    stuck = Stuck()
    monkeypatch.setattr(console, "CLOSING", 0.05)
    screen = Screen()
    screen.write(stuck, lambda: "never\n")
    screen.close()
    assert stuck.getvalue() == ""
    stuck.go.set()


def test_a_terminal_that_is_gone_holds_up_no_call(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    gone = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", gone)
    screen = Screen()
    live = LiveConsole(screen)
    done = run(scene(prepare=live.opened))
    kept = io.StringIO()
    screen.write(kept, lambda: "logs go on\n")
    screen.close()
    assert done.result is not None
    assert done.result.fault is None
    assert screen._background.failed == 0
    assert kept.getvalue() == "logs go on\n"
    with contextlib.suppress(BrokenPipeError):
        gone.close()


def test_a_pipe_that_takes_little_at_once_gets_everything():
    reader, writer = os.pipe()
    text = "שלום\n" * 40_000  # more than a pipe holds
    screen = Screen()
    with os.fdopen(writer, "w", encoding="utf-8") as stream, os.fdopen(reader, encoding="utf-8") as source:
        screen.write(stream, lambda: text)
        got = ""
        while len(got) < len(text):
            got += source.readline()
        screen.close()
    assert got == text


# -- logs -------------------------------------------------------------------------------------------------


def test_logs_show_no_secret_and_when_redacted_no_word(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("SHORT_KEY", "x")
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    logs.configure("INFO")
    logger.bind(call="w0-1").warning(f"refused with {SECRET}: {{not a field}} <red>x</red> box")
    with contextlib.suppress(ValueError):
        try:
            raise ValueError(f"a key: {SECRET}")
        except ValueError as error:
            logger.opt(exception=error).error("it failed")
    text = shown.getvalue()
    assert SECRET not in text
    assert "w0-1   refused with ***: {not a field} <red>x</red> box" in text
    assert "ValueError: a key: ***" in text
    redaction = Redaction(words=True, secrets=logs.secrets())
    redaction.remember("Rumpelstiltskin was here")
    logs.configure("INFO", redaction=redaction)
    logger.bind(call="w0-1").info("connection lost: RUMPELSTILTSKIN, was 3")
    logger.bind(call="w0-1").error("call ended: Model failed in x: KeyError: 'something else'")
    try:
        raise ValueError("Rumpelstiltskin")
    except ValueError as error:
        logger.bind(call="w0-1").opt(exception=error).error("it failed")
    logger.info("no call: listening")
    text = shown.getvalue()[len(text) :]
    assert "Rumpelstiltskin" not in text
    assert "something" not in text
    assert "connection lost: •••, was 3" in text
    assert re.search(r"it failed \(ValueError at .*test_cli_trace\.py:\d+\)", text)
    assert "no call: listening" in text


def test_what_the_console_notes_is_not_logged_beside_it(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    for calls in (False, True):
        logs.configure("INFO", calls=calls)
        logger.bind(call="w0-1", noted=True).warning("connecting again")
        logger.bind(call="w0-1").warning("something else")
        assert shown.getvalue().count("connecting again") == calls
    assert shown.getvalue().count("something else") == 2


def test_the_engine_s_log_of_a_redacted_call(monkeypatch, tmp_path):
    """Everything together, as `voiceflow run --redact` has it: a call that dies quoting its caller."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    async def main(opened: Callable[[Call], None]) -> None:
        chain = [Turner(), Breaks(), Model("Wonderful bakery."), Aggregator(), Voice()]
        async with phone(*chain, prepare=opened, hang_up=False) as p:
            p.turn("one Rumpelstiltskin")
            await asyncio.sleep(2)
            p.turn("another Rumpelstiltskin")
            await asyncio.sleep(1)

    with watching("DEBUG", trace_dir=tmp_path / "calls", redact=True) as opened:
        run(main(opened))
    (file,) = (tmp_path / "calls").glob("*.json")
    everything = out.getvalue() + err.getvalue() + file.read_text()
    assert "call ended: Breaks failed in fail: ValueError: [4 words]" in err.getvalue()
    assert "call over: " not in err.getvalue(), "the console tells it"
    assert "cannot bear" not in everything
    for word in ("rumpelstiltskin", "another", "wonderful", "bakery", "555", SECRET):
        assert word not in everything.lower()
    with watching("DEBUG", quiet=True) as opened:
        run(main(opened))
    assert "call over: Breaks failed" in err.getvalue()
    assert "cannot bear 'another Rumpelstiltskin'" in err.getvalue()


# -- voiceflow trace --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record() -> CallRecord:
    return record_of(run(scene()).call, STARTED)


@pytest.fixture
def calls(record, tmp_path: Path) -> Path:
    """A folder with three calls."""
    folder = tmp_path / "calls"
    folder.mkdir()
    for minute in (1, 2, 3):
        text = to_json(record).replace("10:15:30", f"10:1{minute}:30").replace('"w0-7"', f'"w0-{minute}"')
        (folder / f"20261122T101{minute}30.123Z-w0-{minute}.json").write_text(text)
    return folder


def draw(*words: str | Path, columns: int = 80, **environment: str) -> str:
    environment = {"COLUMNS": str(columns), "NO_COLOR": "1", **environment}
    result = CliRunner().invoke(app, ["trace", *map(str, words)], env=environment)
    assert result.exception is None, result.exception
    return result.output


WATERFALL = """\
call w0-3  2026-11-22 10:13:30 UTC  8.4 s  +12025550143 → +12025550199
LineSource → Turner → Model → Aggregator → Voice → LineSink
the caller hung up
3 turns   median 760 ms   p90 824 ms   from last speech to heard   1 cut in
drafts 1 kept (200 ms sooner), 1 dropped

  turn                           turn end token sentence audio wire heard   gap
   say ▓▓▓▓▞                                               150    0    40   190
     1 ░░░░░░░░█████████▒▓▓▓▓▞          310   300       40   150    0    40   840
     2 ░░░█████████▒▒▓▓▓▓▓▞             110   300       80   150    0    40   680 ✂
     3 ███▓▓▓▓▞                               100        0   150    0    40   290
median ░░░░░░█████████▒▓▓▓▓▓▞           210   300       60   150    0    40   760
       0 ms         500

░░ end of turn Turner   ██ first token Model   ▒▒ first sentence Aggregator
▓▓ first audio Voice   ╎╎ on the wire LineSink   ▞▞ heard line
"""


def test_the_waterfall(calls):
    shown = draw(calls / "20261122T101330.123Z-w0-3.json")
    lines, expected = shown.splitlines(), WATERFALL.splitlines()
    assert lines[:5] == expected[:5]
    # The bars are as long as there is room for; the numbers beside them are what they are.
    for line, wanted in zip(lines[5:13], expected[5:13], strict=True):
        assert line.split() == wanted.split() or re.sub("[░█▒▓╎▞]+", "", line).split() == (
            re.sub("[░█▒▓╎▞]+", "", wanted).split()
        )
    assert lines[13:15] == expected[13:15]


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120, 250])
def test_it_fits_the_terminal(record, columns):
    for line in waterfall(record, Look(columns)):
        wraps = not line.plain or line.plain.startswith(("call", "Line", "the ", "3 turns"))
        assert wraps or len(line.plain) <= columns, line.plain
    bars = [line.plain for line in waterfall(record, Look(columns, colours=False)) if "840" in line.plain]
    assert len(bars) == 1


def test_bars_are_to_scale(record):
    (bar,) = (line.plain for line in waterfall(record, Look(250, colours=False)) if "  840" in line.plain)
    count = {filling: bar.count(filling) for filling in "░█▒▓╎▞"}
    cells = sum(count.values())
    assert cells == 120  # the longest takes all of it
    for filling, ms in {"░": 310, "█": 300, "▒": 40, "▓": 150, "▞": 40}.items():
        assert count[filling] == pytest.approx(ms / 840 * 120, abs=1)


def test_terminals_that_can_do_less(record):
    text = "\n".join(line.plain for line in waterfall(record, Look(80, colours=False, ascii=True)))
    assert text.isascii()
    coloured = list(waterfall(record, Look(80)))
    (bar,) = (line for line in coloured if " 840" in line.plain)
    assert {str(span.style) for span in bar.spans} >= {"blue", "yellow", "green", "magenta", "cyan"}


def test_the_words(calls):
    shown = draw(calls, "--words")
    assert "   1.19 s  caller Will you be there Sunday" in shown
    assert re.search(r"agent  You can park behind the ✂ harbour, under the bridge\.", shown)
    assert "Rumpelstiltskin" not in draw(calls)


def test_several_calls(calls, tmp_path):
    shown = draw(calls)
    table, _, rest = shown.partition("\n\n")
    rows = [line.split() for line in table.splitlines()]
    assert [row[0] for row in rows] == ["call", *sorted(path.name for path in calls.iterdir()), "gaps:"]
    assert rows[1][1:] == ["8", "s", "3", "760", "824", "1", "the", "caller…"]
    assert rows[4] == ["gaps:", "9", "680", "840"]
    assert rest.startswith("call w0-3")
    assert max(map(len, table.splitlines())) <= 80
    one, two, _ = sorted(calls.iterdir())
    assert draw(two, one).partition("\n\n")[2].startswith("call w0-2"), "the last by its start"
    wide = draw(calls, columns=120)
    assert "the caller hung up" in wide.partition("\n\n")[0]
    narrow = draw(calls, columns=50).partition("\n\n")[0]
    assert "…" in narrow
    assert "824" in narrow
    assert max(len(line.rstrip()) for line in narrow.splitlines()) <= 50


def test_a_folder_with_other_things_in_it(calls):
    (calls / "package.json").write_text('{"name": "x"}')
    (calls / ".20261122T101130.123Z-w0-9.json.tmp123").write_text("{")
    (calls / "20261122T101630.123Z-w0-6.json").write_text('{"version": 1, "call"')
    shown = draw(calls)
    assert shown.count("note: passed over: ") == 2
    assert "package.json is no trace of a call: its version is None" in shown
    assert "call w0-3" in shown


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.json", None, "missing.json cannot be read: No such file or directory"),
        ("broken.json", "{", "broken.json is no trace of a call: it is not JSON"),
        ("other.json", "[]", "other.json is no trace of a call: its version is None"),
        ("empty", "", "there is no trace of a call in"),
    ],
)
def test_files_that_cannot_be_drawn(tmp_path, name, content, words):
    path = tmp_path / name
    if name == "empty":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    result = CliRunner().invoke(app, ["trace", str(path)])
    assert isinstance(result.exception, VoiceflowError)
    assert words in str(result.exception)


def test_the_page(calls, tmp_path, monkeypatch):
    page = tmp_path / "call.html"
    shown = draw(calls, "--html", page)
    assert f"page: {page}" in shown
    text = page.read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert "Rumpelstiltskin" in text
    assert page.stat().st_mode & 0o077 == 0
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: not opened.append(url))
    draw(calls, "--open")
    (url,) = opened
    assert url.startswith("file://")
    assert url.endswith("/call.html")
    Path(url.removeprefix("file://")).unlink()


def test_pages_that_cannot_be_written(calls, tmp_path, monkeypatch):
    for target, words in ((tmp_path, "is a folder"), (tmp_path / "no" / "call.html", "cannot be written")):
        result = CliRunner().invoke(app, ["trace", str(calls), "--html", str(target)])
        assert words in str(result.exception)
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    result = CliRunner().invoke(app, ["trace", str(calls), "--html", str(tmp_path / "a.html"), "--open"])
    assert "no browser could be opened" in str(result.exception)


def test_many_files(calls, monkeypatch):
    monkeypatch.setattr(trace, "CALLS_BOUND", 2)
    shown = draw(calls)
    assert "only the last 2 of 3 files are read" in shown
    assert "w0-1.json" not in shown


def test_help_has_examples():
    shown = CliRunner().invoke(app, ["trace", "--help"]).output
    assert "voiceflow trace calls" in shown
    assert "--html" in shown


# -- voiceflow run ----------------------------------------------------------------------------------------


AGENT = """
    from voiceflow import AudioOut, Pipeline, Processor, Sentence, on
    from voiceflow.frames import AudioIn

    class Voice(Processor):
        needs = (AudioIn,)
        emits = (AudioOut,)

        @on(Sentence)
        def speak(self, sentence):
            if "break" in sentence.text:
                raise ValueError(sentence.text)
            return AudioOut(b"\\x20" * 1600, sentence.text)

    async def begin(call):
        await call.say("Rumpelstiltskin speaking.")
        await call.say("I break, says Rumpelstiltskin.")

    def pipeline(call):
        call.on_start(begin)
        return Pipeline(call.source(), Voice(), call.sink())
"""


@pytest.mark.parametrize("redact", [False, True])
def test_run_over_real_sockets(tmp_path, redact):
    """The agent says something and dies quoting it; its console, log and file tell, as far as they may."""
    (tmp_path / "agent.py").write_text(textwrap.dedent(AGENT))
    write_wav(tmp_path / "hello.wav", [(9000 * np.sin(np.arange(1600))).astype(np.int16)])
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TWILIO", "VOICEFLOW"))}
    environment = {
        **clean,
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
        "VOICEFLOW_TRACES": str(tmp_path / "calls"),
    }
    main = [sys.executable, "-c", "from voiceflow.cli import main; main()"]
    words = ["run", str(tmp_path / "agent.py"), "--port", "0", *["--redact"][: int(redact)]]
    server = subprocess.Popen(
        [*main, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        line = ""
        while "answering calls" not in line:
            line = server.stderr.readline()
            assert line, "it ended"
        found = re.search(r"listening on (http://\S+)\)", line)
        assert found is not None
        dialled = subprocess.run(
            [*main, "dial", found[1], "--speech", str(tmp_path / "hello.wav"), "--linger", "0.2"],
            env=environment, capture_output=True, text=True, timeout=40, check=False,
        )  # fmt: skip
        assert dialled.returncode == 0, dialled.stdout + dialled.stderr
    finally:
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=20)
    err = line + err
    (file,) = (tmp_path / "calls").glob("*.json")
    kept = read(file)
    assert "Voice failed in speak: ValueError: " in kept.outcome.fault
    assert kept.turns[0].parts[0].owner == "Voice"
    assert kept.chain == ["LineSource", "Voice", "LineSink"]
    assert re.search(r"agent +heard", out)
    assert "call ended: Voice failed in speak: ValueError: " in err
    assert ("over: Voice failed in speak" in out, "call over:" in err) == (True, False)
    hidden = "Rumpelstiltskin" not in out + err + file.read_text()
    assert hidden is redact
    assert ("+12025550143" not in out + err + file.read_text()) is redact
    if not redact:
        assert "Rumpelstiltskin speaking." in out
        assert json.loads(file.read_text())["transcript"][0]["text"] == "Rumpelstiltskin speaking."


def test_a_folder_for_traces_that_cannot_be_used(tmp_path):
    (tmp_path / "agent.py").write_text(textwrap.dedent(AGENT))
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(
        app, ["run", str(tmp_path / "agent.py"), "--port", "0", "--trace-dir", str(tmp_path / "file" / "x")]
    )
    assert isinstance(result.exception, VoiceflowError)
    assert "traces cannot be kept in" in str(result.exception)
