"""A voice that people understand, to try an agent by hand: the program espeak-ng, where it is installed.

    vendor.synthesize = Espeak(program)      the vendor speaks with it, and not in spelled audio

Debian, Ubuntu: apt install espeak-ng. macOS: brew install espeak-ng.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from voiceflow.audio import AudioFileError, encode, read_wav

PROGRAM = "espeak-ng"
TIMEOUT = 5.0
"""Seconds that it may take; a sentence takes 0.04."""
LONGEST = 2000
"""Characters that are spoken: two minutes of speech."""
PROCESSES = 2
"""At the same time."""


def find() -> str | None:
    """Where espeak-ng is, or None."""
    return shutil.which(PROGRAM)


class Espeak:
    """`await espeak(text)` is the speech, mu-law at 8 kHz; empty when the program cannot speak it."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._free = asyncio.Semaphore(PROCESSES)

    async def __call__(self, text: str) -> bytes:
        async with self._free:
            return await asyncio.to_thread(self._speak, text[:LONGEST])

    def _speak(self, text: str) -> bytes:
        # Through a file: the header that it writes to a pipe does not know how long the audio is.
        with TemporaryDirectory() as folder:
            path = Path(folder) / "speech.wav"
            command = [self._program, "-b", "1", "--stdin", "-w", str(path)]  # -b 1: the text is UTF-8
            try:
                subprocess.run(command, input=text.encode(), capture_output=True, timeout=TIMEOUT, check=True)
                return encode(read_wav(path))
            except (OSError, subprocess.SubprocessError, AudioFileError):
                return b""
