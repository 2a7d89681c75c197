"""The caller's audio of the last half minute, by sample index: what can be sent again."""

from __future__ import annotations

from voiceflow.frames import AudioFormat


class Ring:
    """Holds samples `begin` to `end`, `capacity` of them at most; beyond that the oldest go.

    Positions are sample indices of the caller's stream, as in `AudioIn.at`. They only go forward.
    """

    def __init__(self, capacity: int, audio: AudioFormat) -> None:
        self.capacity = capacity
        self.begin = 0
        self._width = audio.sample_bytes
        self._silence = audio.silence
        self._bytes = bytearray()

    @property
    def end(self) -> int:
        """The index after the newest sample."""
        return self.begin + len(self._bytes) // self._width

    def append(self, audio: bytes, at: int) -> int:
        """Adds samples from index `at` on. Returns how many were missing before them (lost packets).

        Silence stands for those that are missing, so that positions in the ring stay positions in time; what
        is there already is not added again.
        """
        end = self.end
        missing = max(0, at - end)
        if missing >= self.capacity:  # nothing of before would be left
            self._bytes.clear()
            self.begin = at
        elif missing:
            self._bytes += self._silence * missing
        self._bytes += audio[max(0, end - at) * self._width :]
        self.forget(self.end - self.capacity)
        return missing

    def read(self, position: int, samples: int) -> bytes:
        """Up to `samples` samples from `position` on, which must not lie before `begin`."""
        first = (position - self.begin) * self._width
        return bytes(self._bytes[first : first + samples * self._width])

    def forget(self, position: int) -> None:
        """Drops what lies before `position`."""
        gone = min(position, self.end) - self.begin
        if gone > 0:
            del self._bytes[: gone * self._width]
            self.begin += gone
