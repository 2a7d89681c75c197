"""What is kept of calls that are over: their traces in memory, their recordings in a folder of this process.

The newest are kept, until the server ends. Nobody finds them without the call's random name.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from processors.recording import Recording
from voiceflow.call import Call
from voiceflow.trace.file import CallRecord, record_of

CALLS_KEPT = 16
BYTES_KEPT = 256 * 1024 * 1024
"""Of recordings, the newest always included: an hour of 16 kHz stereo takes 230 MB."""


@dataclass(slots=True)
class Kept:
    """A call that is over. `audio` is its recording, None when there is none; `ours` when it is on
    this shelf only."""

    record: CallRecord
    audio: Path | None
    size: int = 0
    ours: bool = False


class Shelf:
    """`redact`: traces hold nobody's words, and nothing is recorded that the chain does not record itself."""

    def __init__(self, *, redact: bool = False) -> None:
        self.redact = redact
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._folder: Path | None = None

    def recording(self, name: str) -> Recording:
        """A recorder for a call whose chain has none."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="voiceflow-browser-"))
        return Recording(self._folder / name / "call.wav")

    async def keep(self, name: str, call: Call, started: str) -> Kept:
        """Puts a call that is over on the shelf."""
        record = await asyncio.to_thread(
            record_of, call, started, redact=self.redact, pools=call.services.figures()
        )
        found, ours = await asyncio.to_thread(self._find, name, call)
        kept = self._kept[name] = Kept(record, found, found.stat().st_size if found else 0, ours)
        for old in self._make_room():
            await asyncio.to_thread(self._remove, old)
        return kept

    def get(self, name: str) -> Kept | None:
        return self._kept.get(name)

    async def close(self) -> None:
        """Removes the recordings that nobody else keeps."""
        self._kept.clear()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
            self._folder = None

    def _make_room(self) -> list[str]:
        """Takes the oldest off the shelf, as far as there are too many; returns their names."""
        newest = list(reversed(self._kept.items()))
        total, gone = 0, []
        for number, (name, kept) in enumerate(newest):
            total += kept.size if kept.ours else 0
            if number and (number >= CALLS_KEPT or total > BYTES_KEPT):
                gone.append(name)
                del self._kept[name]
        return gone

    def _remove(self, name: str) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def _find(self, name: str, call: Call) -> tuple[Path | None, bool]:
        """The recording of a call, and whether it is in our folder."""
        if self._folder is not None and (own := self._folder / name / "call.wav").is_file():
            return own, True
        chain = call._pipeline.chain if call._pipeline is not None else ()
        for processor in chain:
            if isinstance(processor, Recording) and (file := _file_of(processor)) is not None:
                return file, False
        return None, False


def _file_of(recording: Recording) -> Path | None:
    """The file that a recorder has written: the name it was to have, or that with a number."""
    writer = getattr(recording, "_writer", None)  # there is none before the line is open
    file = writer._file.path if writer is not None and writer._file is not None else None
    return file if file is not None and file.is_file() else None
