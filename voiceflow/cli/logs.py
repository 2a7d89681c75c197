"""Log lines: one per event, on stderr, each with the call it belongs to.

No line shows a secret, whoever wrote it; tracebacks never show the values of variables.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from loguru import logger
from rich.console import Console

from voiceflow.errors import VoiceflowError
from voiceflow.trace.redaction import Redaction
from voiceflow.vendor import secrets

if TYPE_CHECKING:
    from loguru import Message, Record, RecordException

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

Write = Callable[[TextIO, Callable[[], str]], None]


def configure(
    level: str = "INFO", *, redaction: Redaction | None = None, write: Write | None = None, calls: bool = True
) -> None:
    """Sends logs to stderr, readable.

    `redaction`: what it hides is hidden here too. `write(stream, render)` writes instead of us, so that a
    terminal which is paused does not hold up the calls. `calls=False` leaves out what a console tells too:
    the line at the end of each call, and lines bound with `noted=True`, which are notes in the trace as well.
    VoiceflowError for a level that does not exist.
    """
    if level.upper() not in LEVELS:
        raise VoiceflowError(f"there is no log level {level!r}: use {', '.join(LEVELS)}")
    hide = redaction or Redaction(words=False, secrets=secrets())
    stream = sys.stderr

    def put(message: Message) -> None:
        text = hide.secretless(str(message))
        if write is not None:
            write(stream, lambda: text)
            return
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.write(text)
            stream.flush()

    def wanted(record: Record) -> bool:
        told = record["extra"].get("noted") or record["message"].startswith("call over: ")
        return calls or not told

    terminal = Console(file=stream)
    logger.remove()
    logger.add(
        put,
        level=level.upper(),
        format=lambda record: _format(record, hide),
        filter=wanted,
        colorize=terminal.is_terminal and not terminal.no_color,
        backtrace=False,
        diagnose=False,
    )


def _format(record: Record, hide: Redaction) -> str:
    call = record["extra"].get("call")
    where = "<cyan>{extra[call]: <6}</cyan> " if call else ""
    message, exception = record["message"], "{exception}"
    if hide.hides_words:
        message = hide.other(message)
    if hide.hides_words and (error := record["exception"]) is not None:  # its text may quote anybody
        message, exception = f"{message} ({_kind(error)})", ""
    record["extra"]["shown"] = message
    return (
        f"<dim>{{time:HH:mm:ss.SSS}}</dim> <level>{{level: <7}}</level> {where}{{extra[shown]}}\n{exception}"
    )


def _kind(error: RecordException) -> str:
    """What was raised, and where."""
    kind = error.type.__name__ if error.type is not None else "an error"
    *_, last = [None, *traceback.extract_tb(error.traceback)]
    return kind if last is None else f"{kind} at {last.filename}:{last.lineno}"
