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
    protected: bool = False
    """It may not be interrupted."""

    @property
    def end(self) -> int:
        return self.start + self.length


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
    heard: int = 0
    """Samples that are known to have been heard: by a mark, or before a hold went back to say them again."""
    plays: list[_Play] = field(default_factory=list)  # one more for each gap and each hold
    protected: bool = False
    """Some stretch of it is."""


class Ledger:
    """What was spoken, reply by reply. `rate` is the line's, in samples a second."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._tracks: dict[Reply, _Track] = {}

    def add(
        self,
        reply: Reply,
        samples: int,
        text: str = "",
        words: tuple[Word, ...] = (),
        protected: bool = False,
    ) -> None:
        """Audio of `reply` was queued: a new stretch when it has a text or begins to be protected, else more
        of the last one. A blank text begins a stretch in which nothing is said."""
        track = self._tracks.setdefault(reply, _Track())
        if text or not track.stretches or (protected and not track.stretches[-1].protected):
            if track.stretches:
                track.stretches[-1].closed = True
            track.stretches.append(
                Stretch(text if not text.isspace() else "", track.total, protected=protected)
            )
            track.protected |= protected
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
            track.heard = max(track.heard, min(samples, track.sent))

    def rewind(self, reply: Reply, samples: int, heard: int = 0) -> None:
        """What was sent after the first `samples` was cleared from the line and will be sent again. `heard`
        samples were heard before: more than `samples` when some of them are said once more."""
        track = self._tracks.get(reply)
        if track is None:
            return
        track.heard = max(track.heard, heard)
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
                return max(track.heard, played)
        return track.heard

    def goes_on(self, reply: Reply, heard: int) -> int | None:
        """From which sample a reply goes on that was silenced when the first `heard` were heard: from the
        beginning of the word that was being said, from there if none was. None without alignments.

        The voice may have told the words only as far as they were spoken. What comes after the last of
        them may be the beginning of another, and is said again.
        """
        stretch = self._stretch(reply, heard)
        if stretch is None or heard >= stretch.end:
            return heard
        if not stretch.words:
            return None
        into = heard - stretch.start
        following = next((word for word in stretch.words if word.end * self.rate > into), None)
        if following is None:
            told = heard if stretch.closed else stretch.start + round(stretch.words[-1].end * self.rate)
            return min(heard, told)
        return min(heard, stretch.start + max(0, round(following.start * self.rate)))

    def begins(self, reply: Reply, samples: int) -> int:
        """Where the stretch begins that holds the sample after the first `samples`."""
        stretch = self._stretch(reply, samples)
        return stretch.start if stretch is not None else 0

    def protected(self, reply: Reply, samples: int, soon: int) -> tuple[int, bool] | None:
        """Where what may not be interrupted ends, and whether that is certain, when it holds the sample after
        the first `samples` or one of the `soon` after that; None when it does not."""
        track = self._tracks.get(reply)
        if track is None or not track.protected:
            return None
        found: Stretch | None = None
        for stretch in track.stretches:
            if found is None:
                if stretch.protected and stretch.start <= samples + soon:
                    ahead = stretch.end > samples or not stretch.closed
                    found = stretch if ahead else None
            elif stretch.protected:
                found = stretch
            else:
                break
        return (found.end, found.closed) if found is not None else None

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

    def ended(self, reply: Reply) -> bool:
        """Whether all of `reply` has been queued."""
        track = self._tracks.get(reply)
        return track is not None and track.ended

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

    def _stretch(self, reply: Reply, samples: int) -> Stretch | None:
        """The stretch that holds the sample after the first `samples`, else the last one."""
        track = self._tracks.get(reply)
        if track is None or not track.stretches:
            return None
        return next((s for s in track.stretches if s.end > samples), track.stretches[-1])

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
