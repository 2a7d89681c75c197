"""Play: answers every turn with a recording."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path

from voiceflow.engine.processor import Processor, on
from voiceflow.errors import DeclarationError
from voiceflow.frames import AudioFormat, AudioOut, Prompt, ReplyEnd

PIECE_SECONDS = 0.5
"""Audio per frame: small enough that the sink's back-pressure works, large enough to cost nothing."""


class Play(Processor):
    """Answers a Prompt by playing a WAV file of any rate (mixed to mono, resampled to the line's).

    `text` is what the recording says; it goes into the history as far as it was heard. The file is read
    once per process. Raises DeclarationError when it cannot be read, before a call is answered.
    """

    needs = (Prompt,)
    emits = (AudioOut, ReplyEnd)

    def __init__(self, path: str | Path, text: str = "") -> None:
        self.path = Path(path)
        self.text = text
        if not self.path.is_file():
            raise DeclarationError(f"Play cannot find {self.path}: give the path of a WAV file")

    async def warm(self) -> None:
        await self.call.compute(recording, 0.0, self.path, self.call.line.format)

    async def start(self) -> None:
        self._audio = recording(self.path, self.call.line.format)

    @on(Prompt)
    async def play(self, prompt: Prompt) -> AsyncIterator[AudioOut | ReplyEnd]:
        format = self.call.line.format
        step = int(PIECE_SECONDS * format.rate) * format.sample_bytes
        text = self.text
        for begin in range(0, len(self._audio), step):
            yield AudioOut(self._audio[begin : begin + step], text)
            text = ""
        yield ReplyEnd()


@lru_cache(maxsize=32)
def recording(path: Path, format: AudioFormat) -> bytes:
    """A WAV file in the line's format. Raises VoiceflowError when it is not one."""
    from voiceflow.audio import encode, read_wav

    return encode(read_wav(path, format.rate), format)
