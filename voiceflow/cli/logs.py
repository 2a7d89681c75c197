"""Log lines: one per event, on stderr, each with the call it belongs to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from loguru import logger

from voiceflow.errors import VoiceflowError

if TYPE_CHECKING:
    from loguru import Record

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def configure(level: str = "INFO") -> None:
    """Sends logs to stderr, readable. Tracebacks never show the values of variables: they may be secrets.

    VoiceflowError for a level that does not exist.
    """
    if level.upper() not in LEVELS:
        raise VoiceflowError(f"there is no log level {level!r}: use {', '.join(LEVELS)}")
    logger.remove()
    logger.add(sys.stderr, level=level.upper(), format=_format, backtrace=False, diagnose=False)


def _format(record: Record) -> str:
    call = record["extra"].get("call")
    where = "<cyan>{extra[call]: <6}</cyan> " if call else ""
    return "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> " + where + "{message}\n{exception}"
