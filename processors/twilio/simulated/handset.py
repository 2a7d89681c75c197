"""The caller's end of the simulated phone: what is spoken into it and pressed on it, and when.

Pure: positions are sample indices at 8 kHz on the call's clock, and the stream reads it frame by frame.
What is said while no stream is open is lost, as on a phone.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass
from typing import Literal

from voiceflow.frames import PHONE


@dataclass(slots=True, frozen=True)
class Act:
    """Something the caller did at sample `at`; `digit` for a key."""

    at: int
    kind: Literal["caller speaks", "caller stops", "key pressed"]
    digit: str = ""


class Handset:
    """Speech is queued end to end and never overlaps; between speeches there is silence."""

    def __init__(self) -> None:
        self.position = 0
        """The first sample that has not been read."""
        self._speech: deque[tuple[int, bytes]] = deque()  # as long as the test's own script
        self._free = 0
        self._acts: list[Act] = []

    def speak(self, audio: bytes, at: int = 0) -> tuple[int, int]:
        """Queues mu-law to be spoken at `at`, or as soon after as it can. Its first and last sample + 1."""
        start = max(at, self.position, self._free)
        self._free = start + len(audio)
        self._speech.append((start, audio))
        self._plan(Act(start, "caller speaks"))
        self._plan(Act(self._free, "caller stops"))
        return start, self._free

    def press(self, digit: str, at: int = 0) -> None:
        """Presses a key at `at`, or with the next frame."""
        self._plan(Act(max(at, self.position), "key pressed", digit))

    def read(self, at: int, count: int) -> tuple[bytes, list[Act]]:
        """The `count` samples from `at` on, and what the caller did up to their end."""
        end = self.position = max(self.position, at + count)
        frame = bytearray(PHONE.silence * count)
        for start, audio in self._speech:
            if start >= end:
                break
            first, last = max(start, at), min(start + len(audio), end)
            if first < last:
                frame[first - at : last - at] = audio[first - start : last - start]
        while self._speech and self._speech[0][0] + len(self._speech[0][1]) <= end:
            self._speech.popleft()
        done = [act for act in self._acts if act.at <= end]
        del self._acts[: len(done)]
        return bytes(frame), done

    def _plan(self, act: Act) -> None:
        insort(self._acts, act, key=lambda act: act.at)
