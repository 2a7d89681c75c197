"""A stereo WAV file that grows while it is written, and is right at every moment.

    0       44                                                  44 + 4 * frames
    ┌────────┬──────────────────────────────────────────────────┐
    │ header │ left right  left right  left right ...            │   16 bits each, little-endian
    └────────┴──────────────────────────────────────────────────┘

Audio is written where it belongs, one channel at a time, whatever was written before; what nobody wrote is
silence. The header's sizes follow each `flush`. Everything goes to the system at once, so that a process
that is killed leaves a file that can be played; only a power cut can lose what the system has not saved yet.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from voiceflow.audio import Samples

LEFT, RIGHT = 0, 1
FRAME = 4
"""Bytes of one sample of both channels."""
HEADER = 44
LONGEST = (2**32 - 1 - HEADER) // FRAME
"""Frames that the header's 32 bits can count: 37 hours at 8 kHz."""
NAMES = 1000
"""Numbers that are tried behind a name that is taken."""


class StereoFile:
    """A new file that only its owner can read, with no frames. Raises OSError, as does everything here."""

    def __init__(self, path: Path, rate: int) -> None:
        self.path, self._file = _create(path)
        self.frames = 0
        """How long it is."""
        self._rate = rate
        self._told = -1
        try:
            self.flush()
        except OSError:
            self.close()
            os.unlink(self.path)
            raise

    def write(self, channel: int, at: int, samples: Samples) -> None:
        """Puts samples into one channel from frame `at` on, over what is there."""
        if at < 0 or at + len(samples) > LONGEST:
            raise OSError("a WAV file cannot be longer than 4 GB")
        there = os.pread(self._file, len(samples) * FRAME, HEADER + at * FRAME)
        frames = np.zeros((len(samples), 2), "<i2")
        frames.reshape(-1).view(np.uint8)[: len(there)] = np.frombuffer(there, np.uint8)
        frames[:, channel] = samples
        self._put(frames.tobytes(), HEADER + at * FRAME)
        self.frames = max(self.frames, at + len(samples))

    def extend(self, frames: int) -> None:
        """Makes it at least so long, with silence."""
        if frames > self.frames:
            os.ftruncate(self._file, HEADER + min(frames, LONGEST) * FRAME)
            self.frames = min(frames, LONGEST)

    def flush(self) -> None:
        """Brings the header up to date."""
        if self._told != self.frames:
            size = self.frames * FRAME
            if os.fstat(self._file).st_size > HEADER + size:  # a write that failed half way
                os.ftruncate(self._file, HEADER + size)
            self._put(_header(self._rate, size), 0)
            self._told = self.frames

    def sync(self) -> None:
        """Waits until it is on the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def _put(self, data: bytes, at: int) -> None:
        """All of it: the system may take less, as when the disk is nearly full."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._file, rest, at)
            rest, at = rest[written:], at + written


def _header(rate: int, size: int) -> bytes:
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", HEADER - 8 + size, b"WAVE"),
        *(b"fmt ", 16, 1, 2, rate, rate * FRAME, FRAME, 16),  # 1 is plain PCM, 2 the channels
        *(b"data", size),
    )


def _create(path: Path) -> tuple[Path, int]:
    """A file that was not there: call.wav, or call-2.wav if that is taken. Its folder is made."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(1, NAMES):
        name = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        try:
            return name, os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
    raise FileExistsError(f"{path} and {NAMES - 2} names like it are taken")
