"""The ledger: which text each stretch of audio came from, what was sent, when it plays, what was heard.

It is the only source of what the agent said. Pure bookkeeping: times are given, nothing waits.

    text      │ "Good morning."   │ "We open at nine."     │    stretches, one per AudioOut with text
    samples   0                 9600                   22400
    sent      ━━━━━━━━━━━━━━━━━━━━━━━━━━━━┥                     what the line was given
    heard     ━━━━━━━━━━━━━━━━━━━━━┥                            by our clock, and at least to the last mark

When `clear` is written, the audio that is still buffered at the carrier will not be heard, and both the
audio and the `clear` take the same way there: so the position by our own clock at that instant is the
position where the caller's ear is cut off. Marks come back one round trip later; they only confirm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from voiceflow.engine.mouth import HeardText
from voiceflow.engine.reply import Reply
from voiceflow.frames import Word

CHARACTERS_A_SECOND = 15.0
"""How fast people and voices speak, about. Used for a stretch whose audio has not all arrived."""


@dataclass(slots=True)
class Stretch:
    """Audio of one text. `start` and `length` in samples from the reply's beginning."""

    text: str
    start: int
    length: int = 0
    words: list[Word] = field(default_factory=list)
    """Alignments, in seconds from the stretch's own first sample."""
    closed: bool = False
    """No more audio of this text will come."""


@dataclass(slots=True)
class _Play:
    """`samples` from `first` on play from `at` (loop time) without a gap."""

    first: int
    samples: int
    at: float


@dataclass(slots=True)
class _Track:
    stretches: list[Stretch] = field(default_factory=list)
    total: int = 0
    ended: bool = False
    sent: int = 0
    confirmed: int = 0
    plays: list[_Play] = field(default_factory=list)


class Ledger:
    """What was spoken, reply by reply. `rate` is the line's, in samples a second."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._tracks: dict[Reply, _Track] = {}

    def add(self, reply: Reply, samples: int, text: str = "", words: tuple[Word, ...] = ()) -> None:
        """Audio of `reply` was queued: a new stretch when it has a text, else more of the last one."""
        track = self._tracks.setdefault(reply, _Track())
        if text or not track.stretches:
            if track.stretches:
                track.stretches[-1].closed = True
            track.stretches.append(Stretch(text, track.total))
        stretch = track.stretches[-1]
        offset = (track.total - stretch.start) / self.rate
        stretch.words.extend(Word(w.text, w.start + offset, w.end + offset) for w in words)
        stretch.length += samples
        track.total += samples

    def end(self, reply: Reply) -> None:
        """All audio of `reply` has been queued."""
        track = self._tracks.get(reply)
        if track is not None and track.stretches:
            track.stretches[-1].closed = True
            track.ended = True

    def sent(self, reply: Reply, samples: int, plays_at: float) -> None:
        """The next `samples` were given to the line and begin to play at `plays_at` (loop time)."""
        track = self._tracks.setdefault(reply, _Track())
        last = track.plays[-1] if track.plays else None
        if last is not None and abs(last.at + last.samples / self.rate - plays_at) < 1e-6:
            last.samples += samples
        else:
            track.plays.append(_Play(track.sent, samples, plays_at))
        track.sent += samples

    def confirm(self, reply: Reply, samples: int) -> None:
        """A mark proved that the first `samples` were heard."""
        track = self._tracks.get(reply)
        if track is not None:
            track.confirmed = max(track.confirmed, min(samples, track.sent))

    def rewind(self, reply: Reply, samples: int) -> None:
        """What was sent after the first `samples` was cleared from the line and will be sent again."""
        track = self._tracks.get(reply)
        if track is None:
            return
        track.sent = samples
        track.plays = [p for p in track.plays if p.first < samples]
        if track.plays:
            track.plays[-1].samples = min(track.plays[-1].samples, samples - track.plays[-1].first)

    def position(self, reply: Reply, now: float) -> int:
        """How many samples of `reply` have been heard at `now` (loop time)."""
        track = self._tracks.get(reply)
        if track is None:
            return 0
        for play in reversed(track.plays):
            if play.at <= now:
                played = play.first + min(play.samples, int((now - play.at) * self.rate))
                return max(track.confirmed, played)
        return track.confirmed

    def when(self, reply: Reply, samples: int) -> float | None:
        """When the first `samples` have played, by our clock; None when they were not all sent."""
        track = self._tracks.get(reply)
        for play in track.plays if track is not None else ():
            if play.first < samples <= play.first + play.samples:
                return play.at + (samples - play.first) / self.rate
        return None

    def heard(self, reply: Reply, now: float) -> HeardText:
        """What the caller has heard of `reply` at `now`."""
        return self.text(reply, self.position(reply, now))

    def text(self, reply: Reply, samples: int) -> HeardText:
        """The text of the first `samples`: whole stretches, and of the last one the words that fit.

        With alignments a word counts when it was heard to its end. Without, the position is taken in
        proportion to the characters, rounded down to a word, and marked estimated.
        """
        track = self._tracks.get(reply)
        said: list[str] = []
        estimated = False
        for stretch in track.stretches if track is not None else ():
            into = samples - stretch.start
            if into <= 0:
                break
            if not stretch.text and not stretch.words:
                continue
            if stretch.closed and into >= stretch.length:
                said.append(stretch.text)
            elif stretch.words:
                said.append(" ".join(w.text for w in stretch.words if w.end * self.rate <= into))
            else:
                estimated = True
                said.append(_proportion(stretch.text, into / self._expected(stretch)))
        complete = track is not None and track.ended and samples >= track.total
        return HeardText(" ".join(part for part in said if part), samples, estimated, complete)

    def began(self, reply: Reply) -> bool:
        """Whether the line was given any audio of `reply`."""
        track = self._tracks.get(reply)
        return track is not None and track.sent > 0

    def edges(self, reply: Reply, after: int) -> list[int]:
        """The samples after `after` at which a new stretch of text begins."""
        track = self._tracks.get(reply)
        return [s.start for s in track.stretches if s.start > after] if track is not None else []

    def given(self, reply: Reply) -> int:
        """Samples of `reply` that were given to the line so far."""
        track = self._tracks.get(reply)
        return track.sent if track is not None else 0

    def total(self, reply: Reply) -> int:
        """Samples of `reply` that were queued so far."""
        track = self._tracks.get(reply)
        return track.total if track is not None else 0

    def forget(self, reply: Reply) -> None:
        """Drops a reply that is over."""
        self._tracks.pop(reply, None)

    def _expected(self, stretch: Stretch) -> int:
        """The stretch's length in samples; a guess from its text while audio is still to come."""
        if stretch.closed:
            return max(1, stretch.length)
        return max(1, stretch.length, int(len(stretch.text) / CHARACTERS_A_SECOND * self.rate))


def _proportion(text: str, part: float) -> str:
    """The first `part` (0 to 1) of a text, in whole words."""
    end = math.floor(len(text) * min(part, 1.0))
    if end >= len(text) or text[end : end + 1].isspace():
        return text[:end].strip()
    return text[:end].rpartition(" ")[0].strip()
