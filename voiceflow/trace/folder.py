"""Keeps a JSON file of every call in a folder. Written off the event loop, when the call is over, however it
ended; a disk that is full or slow costs the file and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from voiceflow.errors import VoiceflowError
from voiceflow.trace.background import Background
from voiceflow.trace.file import record_of, to_json, write_private

if TYPE_CHECKING:
    from voiceflow.call import Call

WAITING_BOUND = 1000
"""Calls whose files wait for the disk; of more than that the traces are lost."""
CLOSING = 5.0
"""Seconds the last files may take."""


def _now() -> datetime:
    """The clock on the wall: a label for people. Nothing is ever measured with it."""
    return datetime.now(UTC)


class TraceFolder:
    """`opened(call)` for each call; `close()` when no call is left.

    Files can be read by their owner only: they hold telephone numbers and, unless `redact`, what was said.
    VoiceflowError when the folder cannot be made or written to: better told before the first call.
    """

    def __init__(self, path: Path, *, redact: bool, now: Callable[[], datetime] = _now) -> None:
        self.path = path
        self.redact = redact
        self._now = now
        self._disk = Background("voiceflow traces", bound=WAITING_BOUND)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = path / ".voiceflow"
            write_private(probe, "")
            probe.unlink()
        except OSError as error:
            raise VoiceflowError(f"traces cannot be kept in {path}: {error.strerror}") from None

    def opened(self, call: Call) -> None:
        """A call has been prepared: its file is written when it is over."""
        started = self._now()

        def over(call: Call) -> None:
            if not self._disk.do(partial(self._keep, call, started, call.services.figures())):
                call.log.error("its trace is lost: too many wait for the disk")

        call.on_end(over)

    def close(self) -> None:
        """Waits for the files that are not written yet, a bounded time."""
        if not self._disk.close(CLOSING):
            logger.error(f"not all traces could be written to {self.path} within {CLOSING:g} s")

    def _keep(self, call: Call, started: datetime, pools: Mapping[str, Mapping[str, float]]) -> None:
        try:
            record = record_of(call, started.isoformat("T", "milliseconds"), redact=self.redact, pools=pools)
            write_private(self.path / file_name(call.id, started), to_json(record))
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            call.log.error(f"its trace could not be written to {self.path}: {reason}")


def file_name(call: str, started: datetime, ending: str = ".json") -> str:
    """By its start, so that they sort; times in UTC: `20261122T101530.123Z-w0-1.json`."""
    at = started.astimezone(UTC)
    label = re.sub(r"[^A-Za-z0-9_.-]", "_", call)[:60]
    return f"{at:%Y%m%dT%H%M%S}.{at.microsecond // 1000:03d}Z-{label}{ending}"
