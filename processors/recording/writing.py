"""What is done in the thread: batches of one call's recording go into its files.

    call ──Batch──▶ Disk, one thread for all calls ──▶ Writer, one for each call: .wav .transcript.json .vtt

A call has at most one batch with the disk; meanwhile the next one is filled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from processors.recording.formats import About, to_json, to_vtt
from processors.recording.transcript import Entry
from processors.recording.wav import StereoFile
from voiceflow.audio import Samples, decode
from voiceflow.frames import AudioFormat
from voiceflow.trace.background import Background
from voiceflow.trace.file import write_private

BOUND = 60.0
"""Seconds of audio, of both channels together, that may wait for the disk. More is lost."""
CALLS = 2_000
"""Batches that may wait: of as many calls, and far more than one process can have."""
CLOSING = 3.0
"""Seconds the last batches may take when the process ends."""


@dataclass(slots=True)
class Run:
    """Audio of one channel without a gap, in the line's format; silence where `audio` is None."""

    channel: int
    at: int
    samples: int
    audio: bytearray | None


@dataclass(slots=True)
class Batch:
    """What has come since the one before. `length` is the time line's, in samples."""

    runs: list[Run] = field(default_factory=list)  # bounded by BOUND in `Recording`
    waiting: int = 0
    """Samples in the runs that have audio."""
    length: int = 0
    entries: list[Entry] | None = None
    """The whole transcript, when it has changed."""
    pauses: list[tuple[float, float]] = field(default_factory=list)
    last: bool = False

    def add(self, channel: int, at: int, audio: memoryview | bytes, width: int) -> None:
        """Audio that belongs at sample `at`."""
        run = next((r for r in reversed(self.runs) if r.channel == channel), None)
        if run is None or run.audio is None or run.at + run.samples != at:
            run = Run(channel, at, 0, bytearray())
            self.runs.append(run)
        assert run.audio is not None
        run.audio += audio
        run.samples += len(audio) // width
        self.waiting += len(audio) // width

    def silence(self, channel: int, at: int, samples: int) -> None:
        """Takes back audio that was not heard after all."""
        self.runs.append(Run(channel, at, samples, None))


@dataclass(slots=True, frozen=True)
class Outcome:
    """What came of a batch. `lost` in samples, of both channels; `error` when something was not written."""

    frames: int = 0
    """How long the file is, in samples of a channel."""
    lost: int = 0
    error: Exception | None = None


class Writer:
    """The files of one call. `write` never raises OSError: what cannot be written is counted, and the next
    batch is tried all the same, because a full disk may have room again."""

    def __init__(self, path: Path, format: AudioFormat, about: About) -> None:
        self._path = path
        self._format = format
        self._about = about
        self._file: StereoFile | None = None
        self._entries: list[Entry] = []
        self._behind = True
        """The transcript on the disk is not the latest."""

    def write(self, batch: Batch) -> Outcome:
        lost = 0
        error: OSError | None = None
        if batch.entries is not None:
            self._entries, self._behind = batch.entries, True
        try:
            self._file = file = self._file or StereoFile(self._path, self._format.rate)
        except OSError as why:
            return Outcome(lost=batch.waiting, error=why)
        for run in batch.runs:
            try:
                file.write(run.channel, run.at, self._samples(run))
            except OSError as why:
                lost, error = lost + (run.samples if run.audio is not None else 0), why
        try:
            file.extend(batch.length)
            file.flush()
            if self._behind or batch.last:
                self._tell(file, batch)
            if batch.last:
                file.sync()
        except OSError as why:
            error = why
        if batch.last:
            file.close()
        return Outcome(file.frames, lost, error)

    def _samples(self, run: Run) -> Samples:
        audio = self._format.silence * run.samples if run.audio is None else bytes(run.audio)
        return decode(audio, self._format)

    def _tell(self, file: StereoFile, batch: Batch) -> None:
        """Each file is replaced in one go: who reads it never sees half of it."""
        text = to_json(
            self._about,
            file.path.name,
            file.frames / self._format.rate,
            self._entries,
            batch.pauses,
            complete=batch.last,
        )
        write_private(file.path.with_suffix(".transcript.json"), text, sync=batch.last)
        write_private(file.path.with_suffix(".vtt"), to_vtt(self._entries), sync=batch.last)
        self._behind = False


class Disk:
    """The one thread that writes all recordings of a process; `in_line`, in virtual time, none at all."""

    def __init__(self, *, in_line: bool) -> None:
        self._thread = None if in_line else Background("voiceflow recordings", bound=CALLS)

    def do(self, job: Callable[[], None]) -> bool:
        """False when the job cannot be done any more."""
        if self._thread is None:
            job()
            return True
        return self._thread.do(job)

    async def close(self) -> None:
        """Waits for what is left, a bounded time."""
        if self._thread is not None:
            await asyncio.to_thread(self._thread.close, CLOSING)
