"""`voiceflow trace`: draws what was kept of a call."""

from __future__ import annotations

import sys
import tempfile
import webbrowser
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from voiceflow.errors import VoiceflowError
from voiceflow.trace.file import CallRecord, read, write_private
from voiceflow.trace.table import call_table
from voiceflow.trace.text import plain
from voiceflow.trace.waterfall import Look, transcript, waterfall

CALLS_BOUND = 1000
"""Files of a folder that are read: the newest."""


def trace(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="JSON files of calls, or the folder they are in.", show_default=False
        ),
    ],
    words: Annotated[bool, typer.Option("--words", "-w", help="Prints what was said, too.")] = False,
    html: Annotated[
        Path | None, typer.Option(help="Writes a page there that can be opened anywhere and shared.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Opens the page in a browser.")] = False,
) -> None:
    """Draw where the time of a call went: a bar for each turn, from the caller's last word to the answer.

    Files of calls are written by [b]voiceflow run --trace-dir[/b]. Of several it draws the last.

      voiceflow run pipelines/vad_only.py --trace-dir calls

      voiceflow trace calls

      voiceflow trace calls/20261122T101530.123Z-w0-1.json --words --html call.html
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False, soft_wrap=True)
    calls = _read(files)
    if len(calls) > 1:
        console.print(call_table(calls, console.width), soft_wrap=False)
        console.print()
    _, record = calls[-1]
    look = look_of(console)
    for line in waterfall(record, look):
        console.print(line)
    if words:
        console.print()
        for line in transcript(record, look):
            console.print(line)
    if html is not None or open_page:
        page = write_page(record, html)
        console.print()
        console.print(Text(f"page: {page}", style="dim"))
        if open_page and not webbrowser.open(page.resolve().as_uri()):
            raise VoiceflowError(f"no browser could be opened: open {page} yourself")


def _read(files: list[Path]) -> list[tuple[Path, CallRecord]]:
    """The calls, by when they began. In a folder, what is no trace is passed over, with a word about it."""
    calls: list[tuple[Path, CallRecord]] = []
    for path in files:
        if not path.is_dir():
            calls.append((path, read(path)))
            continue
        found = sorted(path.glob("*.json"))
        if len(found) > CALLS_BOUND:
            typer.secho(f"note: only the last {CALLS_BOUND} of {len(found)} files are read", err=True)
        before = len(calls)
        for each in found[-CALLS_BOUND:]:
            try:
                calls.append((each, read(each)))
            except VoiceflowError as error:
                typer.secho(f"note: passed over: {plain(str(error))}", fg=typer.colors.YELLOW, err=True)
        if len(calls) == before:
            raise VoiceflowError(
                f"there is no trace of a call in {path}: voiceflow run FILE --trace-dir {path} keeps them"
            )
    return sorted(calls, key=lambda call: call[1].started)


def write_page(record: CallRecord, html: Path | None) -> Path:
    """Writes the page; only its owner can read it until it is shared."""
    from voiceflow.trace.page import page

    if html is None:
        html = Path(tempfile.mkdtemp(prefix="voiceflow-")) / "call.html"
    if html.is_dir():
        raise VoiceflowError(f"--html {html} is a folder: give the name of a file in it")
    try:
        write_private(html, page(record))
    except OSError as error:
        raise VoiceflowError(f"--html {html} cannot be written: {error.strerror}") from None
    return html


def look_of(console: Console) -> Look:
    """What a console's terminal can show."""
    colours = console.color_system is not None and not console.no_color
    return Look(console.width, colours, ascii=not (console.encoding or "").lower().startswith("utf"))
