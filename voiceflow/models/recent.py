"""The caller's audio of late, by sample: for models that look back."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from voiceflow.frames import AudioIn

if TYPE_CHECKING:
    from voiceflow.audio import Samples


class Recent:
    """Keeps AudioIn until whoever owns it forgets it. Positions are sample indices, as in the frames."""

    def __init__(self) -> None:
        self.heard = 0
        """How far the caller's audio has come."""
        self._frames: deque[AudioIn] = deque()  # its owner forgets

    def add(self, frame: AudioIn) -> None:
        self._frames.append(frame)
        self.heard = frame.at + frame.samples

    def forget(self, before: int) -> None:
        """What ended before this sample is not needed any more."""
        while self._frames and self._frames[0].at + self._frames[0].samples <= before:
            self._frames.popleft()

    def since(self, begin: int) -> Samples:
        """What there is from this sample on; packets that were lost are left out."""
        import numpy as np

        parts = [
            frame.pcm[max(0, begin - frame.at) :]
            for frame in self._frames
            if frame.at + frame.samples > begin
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)
