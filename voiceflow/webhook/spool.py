"""Events on disk until they are delivered: they survive a receiver that is down for long, and our own end.

A file is written before the first try and removed after the one that succeeds. Its content is the body, as it
was and will be sent; address, secret and signature are not in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from voiceflow.errors import VoiceflowError
from voiceflow.trace.file import write_private
from voiceflow.webhook.event import LARGEST, read_event

SUFFIX = ".webhook"
"""Not .json: the folder may be that of the traces."""


@dataclass(slots=True, frozen=True)
class Kept:
    """An event that waits in a file."""

    path: Path
    id: str
    call: str
    body: bytes


class Spool:
    """A folder. VoiceflowError when it cannot be made or written to: better told before the first call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = path / ".voiceflow"
            write_private(probe, "")
            probe.unlink()
        except OSError as error:
            raise VoiceflowError(f"webhooks cannot be kept in {path}: {error.strerror}") from None

    def keep(self, id: str, call: str, ended: datetime, body: bytes) -> Path:
        """Writes one file, readable by its owner only. Raises OSError."""
        label = re.sub(r"[^A-Za-z0-9_.-]", "_", call)[:60]
        at = f"{ended.astimezone(UTC):%Y%m%dT%H%M%S}Z"
        path = self.path / f"{at}-{label}-{id[-8:]}{SUFFIX}"
        write_private(path, body.decode())
        return path


def kept(folder: Path) -> Iterator[Kept | VoiceflowError]:
    """What waits in a folder, oldest first; for a file that is no event, what is wrong with it."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            if path.stat().st_size > LARGEST:
                raise VoiceflowError(f"it is larger than {LARGEST >> 20} MiB")
            body = path.read_bytes()
            event = read_event(body)
        except OSError as error:
            yield VoiceflowError(f"{path} cannot be read: {error.strerror}")
        except VoiceflowError as error:
            yield VoiceflowError(f"{path}: {error}")
        else:
            yield Kept(path, event.id, event.data.call, body)
