"""What Twilio does with the audio it is sent: it queues it and plays it in real time.

A pure model: no clock, no tasks. Time is a sample index on the stream's clock (8000 is one second) and
comes in as an argument; each call first catches up with it and returns what has happened by then, in order.
Because playing never pauses while there is audio, every sample has its place as soon as it arrives, and
all that is still to be played is one unbroken stretch.

Source: twilio.com/docs/voice/media-streams/websocket-messages (media, mark, clear) and error 31931.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

MOST_SAMPLES = 10 * 60 * 8000
"""Twilio buffers about ten minutes and discards what is beyond (error 31931)."""
MOST_MARKS = 10_000
"""Outstanding marks that are kept; a bound of ours, no known limit of Twilio's."""

PlayKind = Literal["heard", "silent", "mark", "cleared", "discarded"]


@dataclass(slots=True, frozen=True)
class Played:
    """Something that happened at sample `at`.

    heard      audio starts to play after silence; `samples` is how long the silence was
    silent     the buffer ran dry, or was cleared while it played
    mark       the mark `name` goes back
    cleared    the buffer was cleared; `samples` is how much was thrown away
    discarded  `samples` did not fit (for a mark that did not fit: 0)
    """

    kind: PlayKind
    at: int
    samples: int = 0
    name: str = ""


class Playout:
    """The play-out buffer of one stream. Time that goes backwards is taken as the latest time seen."""

    def __init__(self, most_samples: int = MOST_SAMPLES) -> None:
        self._most = most_samples
        self._now = 0
        self._end = 0  # where the last stretch ends; samples before `_now` have been played
        self._playing = False
        self._stretches: list[tuple[int, bytearray]] = []
        self._marks: deque[tuple[int, str]] = deque()  # bounded by MOST_MARKS in `mark`

    def audio(self, at: int, audio: bytes) -> list[Played]:
        """Queues `audio` (mu-law)."""
        events = self.advance(at)
        room = self._most - self.buffered
        if audio[:room] and not self._playing:
            gap = self._now - self._end
            self._stretches.append((self._now, bytearray()))
            self._end = self._now
            self._playing = True
            events.append(Played("heard", self._now, gap))
        if audio[:room]:
            self._stretches[-1][1].extend(audio[:room])
            self._end += len(audio[:room])
        if len(audio) > room:
            events.append(Played("discarded", self._now, len(audio) - room))
        return events

    def mark(self, at: int, name: str) -> list[Played]:
        """Queues a mark behind the audio that is there; with nothing to play it goes straight back."""
        events = self.advance(at)
        if not self.buffered:
            events.append(Played("mark", self._now, name=name))
        elif len(self._marks) < MOST_MARKS:
            self._marks.append((self._end, name))
        else:
            events.append(Played("discarded", self._now))
        return events

    def clear(self, at: int) -> list[Played]:
        """Throws away what has not been played; all outstanding marks go back at once."""
        events = self.advance(at)
        thrown = self.buffered
        if self._playing:
            start, audio = self._stretches[-1]
            del audio[self._now - start :]
            self._end = self._now
            self._playing = False
            events.append(Played("silent", self._now))
        events.append(Played("cleared", self._now, thrown))
        events.extend(Played("mark", self._now, name=name) for _, name in self._marks)
        self._marks.clear()
        return events

    def advance(self, at: int) -> list[Played]:
        """Plays on until `at`."""
        self._now = max(self._now, at)
        events = []
        while self._marks and self._marks[0][0] <= self._now:
            due, name = self._marks.popleft()
            events.append(Played("mark", due, name=name))
        # Audio that comes at the very sample at which the last ends follows it without a gap.
        if self._playing and self._now > self._end:
            self._playing = False
            events.append(Played("silent", self._end))
        return events

    @property
    def buffered(self) -> int:
        """How many samples are still to be played."""
        return max(0, self._end - self._now)

    @property
    def end(self) -> int:
        """The sample at which the buffer runs dry, or ran dry."""
        return self._end

    def due(self) -> int | None:
        """When `advance` has something to tell next, if nothing else arrives."""
        if self._marks:
            return self._marks[0][0]
        return self._end + 1 if self._playing else None

    def recording(self) -> bytes:
        """What was played so far as mu-law, silence included, from sample 0 to now."""
        track = bytearray(b"\xff" * self._now)
        for start, audio in self._stretches:
            heard = audio[: self._now - start]
            track[start : start + len(heard)] = heard
        return bytes(track)
