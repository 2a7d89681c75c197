"""What `voiceflow chat` prints: what the agent says, letter by letter, and what happens, line by line."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from voiceflow.cli.console import describe
from voiceflow.trace.redaction import Redaction
from voiceflow.trace.text import JOINERS, shorten
from voiceflow.vendor import secrets

if TYPE_CHECKING:
    from voiceflow.trace.recorder import Event

NAME = 7
"""Columns of who speaks."""
SHOWN = {"tool", "note", "kept"}
"""Kinds of events that are lines of their own."""
LINE_LENGTH = 240
ERASE = "\r\x1b[K"


class Paper:
    """`as_json`: only events, an object a line. `typed`: the caller's lines are on the screen already."""

    def __init__(self, *, as_json: bool, typed: bool) -> None:
        self._json, self._typed = as_json, typed
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._redaction = Redaction(words=False, secrets=secrets())
        self._speaking = self._asked = False

    def left_out(self, names: tuple[str, ...]) -> None:
        """Says what of the pipeline is not there."""
        typer.secho(f"without audio, so without {', '.join(names)}", dim=True, err=True)

    def ask(self) -> None:
        """The caller may type."""
        if self._typed and not self._json and not (self._speaking or self._asked):
            self._write(self._name("you", typer.colors.CYAN))
            self._asked = True

    def says(self, text: str) -> None:
        """A piece of what the agent says."""
        if self._json:
            return
        if not self._speaking:
            self._begin_line()
            self._write(self._name("agent", typer.colors.GREEN))
            self._speaking = True
        self._write("".join(c if c.isprintable() or c in JOINERS else " " for c in text))

    def tell(self, event: Event) -> None:
        """Something happened in the call."""
        if self._json:
            self._write(
                json.dumps({name: value for name, value in asdict(event).items() if value or name == "at"})
            )
            self._write("\n")
            return
        match event.kind:
            case "caller done":
                if not self._typed:
                    self._line("caller", event.words, typer.colors.CYAN)
                self._asked = False  # the return key has ended that line
            case "said":
                self._begin_line()
                self.ask()
            case "cut":
                if self._speaking:
                    self._write(" -")
                self._begin_line()
                self.ask()
            case kind if kind in SHOWN:
                who, what = describe(event, self._redaction)
                asked = self._asked
                self._line(who.plain, what.plain, typer.colors.MAGENTA)
                if asked:
                    self.ask()

    def hint(self, text: str) -> None:
        self._asked = False
        if not self._json:
            self._line("", text, typer.colors.YELLOW)

    def over(self, reason: str) -> None:
        """The call is over."""
        if not self._json:
            self._line("over", reason, typer.colors.BRIGHT_BLACK)

    # -- inside

    def _line(self, who: str, text: str, colour: str) -> None:
        self._begin_line()
        self._write(f"{self._name(who, colour)}{shorten(text, LINE_LENGTH)}\n")

    def _begin_line(self) -> None:
        if self._speaking:
            self._write("\n")
        elif self._asked:
            self._write(ERASE)
        self._speaking = self._asked = False

    def _name(self, who: str, colour: str) -> str:
        padded = f"{who: <{NAME}} "
        return typer.style(padded, fg=colour) if self._colour else padded

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads it any more
            sys.stdout.write(text)
            sys.stdout.flush()
