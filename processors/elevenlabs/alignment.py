"""Which sentence, and which words, a chunk of ElevenLabs audio is.

The service returns the characters it spoke with each chunk of audio, timed from the chunk's own beginning.
`Alignment` walks along the text that was sent, at the times of those characters: it cuts the audio where a
sentence begins, and tells each word once, as it stands in the text, when it has been spoken.

    exact       as long as the characters are those of the text; blanks and case do not count
    astray      they are others ("five dollars" for "$5"), or a chunk has none: looked for further on in the
                text, and what lies between was spoken at an even pace
    estimated   when they are not found again for long: PACE characters a second, so that sentences pass by
                (right to a fifth of the time that went by)
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from voiceflow.frames import Word

PACE = 12.5
"""Characters a second, without blanks, that people and voices speak, about."""
FASTEST = 30.0
"""Characters a second that no voice speaks: where less audio came, something is missing."""
PROBE = 8
"""Characters that are compared at most to find the place again: more may hold one that was changed."""
REACH = (0, 0, 8, 24, 64, 160, 400)
"""How far from where they are expected so many characters are looked for: few are found by chance."""
SURE = {2: 3, 3: 12}
"""After how many unknown characters so few are enough at all: two after a quote that is another one, four
after a number that was read out."""
BLIND = 1.0
"""Seconds of unknown audio after which the pace counts. Less may be a pause between two sentences."""
SPILL = 0.5
"""Seconds that the last character of a chunk may reach into the next."""
LOST = 100
"""Characters in a row that are not in the text after which the pace counts: a card number read out has 80."""


Said = tuple[Sequence[str], Sequence[float], Sequence[float]]
"""Characters, when each begins and how long it lasts, in milliseconds from the chunk's beginning."""


@dataclass(slots=True)
class Cut:
    """A part of a chunk, from `start` to the next part's, in seconds from the chunk's beginning."""

    piece: int
    start: float
    words: list[Word] = field(default_factory=list)
    """In seconds from `start`. A word that began in an earlier chunk has a negative start."""


class Alignment:
    """The text of one context, and how far it has been spoken. Never raises, whatever the service says."""

    def __init__(self) -> None:
        self._text = ""
        self._starts: list[int] = []
        """Where in the text each piece begins."""
        self._words: list[tuple[int, int]] = []
        """Where each word begins and ends."""
        self._solid = ""
        """The text without blanks and in lower case: what is compared."""
        self._where: list[int] = []
        """Where in the text each character of that is."""
        self._ends: list[int] = []
        """Where in that each piece ends."""
        self._letters = 0
        """Where in that the last letter or digit ends: a full stop may get no sound, and no time."""

        self._next = 0
        """The next solid character; all before it were recognised, or passed over."""
        self._at = 0.0
        """When the one before it ended."""
        self._astray: deque[tuple[str, float, float]] = deque(maxlen=PROBE)
        """Characters since then that were not recognised, and when they were spoken."""
        self._unknown = 0.0
        """How many there were: those of chunks that have none by the pace."""
        self._blind = 0.0
        """Seconds of such chunks in a row."""

        self._clock = self._began = 0.0
        """Seconds of audio, this chunk's included, and before it."""
        self._position = 0
        """How far in the text the walk is, at `_time`; it may be ahead of what was recognised."""
        self._time = 0.0
        self._word = 0
        """The first word that was not told yet."""
        self._word_start = 0.0
        self._piece = 0
        self._cuts: list[Cut] = []

    def add(self, piece: str) -> None:
        """The next piece, as it was sent. It ends with a blank."""
        begin = len(self._text)
        self._starts.append(begin)
        self._text += piece
        self._words += [(begin + m.start(), begin + m.end()) for m in re.finditer(r"\S+", piece)]
        for index, character in enumerate(piece, begin):
            if not character.isspace():
                self._solid += _plain(character)
                self._where.append(index)
                if character.isalnum():
                    self._letters = len(self._solid)
        self._ends.append(len(self._solid))

    @property
    def pieces(self) -> int:
        return len(self._starts)

    @property
    def spoken(self) -> int:
        """How many pieces are known to have been spoken, and to have come, whole."""
        return bisect_right(self._ends, self._next - self._cut_off)

    @property
    def complete(self) -> bool:
        """Whether everything was spoken; where the characters are not known, as far as the time tells."""
        if self._unknown:
            return (self._clock - self._at) * FASTEST >= len(self._solid) - self._next
        return self._next - self._cut_off >= self._letters

    @property
    def _cut_off(self) -> bool:
        """Whether the last character recognised reaches beyond the audio that came."""
        return self._at > self._clock + 1e-3

    @property
    def last_begun(self) -> bool:
        """Whether the last piece has begun to be spoken."""
        return bool(self._starts) and self._position > self._starts[-1]

    def chunk(self, seconds: float, said: Said | None = None) -> list[Cut]:
        """The parts of a chunk of `seconds`. None: it is not known what it says; no characters: nothing."""
        self._cuts = [Cut(self._piece, 0.0)]
        self._began, self._clock = self._clock, self._clock + seconds
        for entry, start, length in zip(*(said or ((), (), ())), strict=False):
            begin = self._began + min(max(0.0, start / 1000), seconds)
            end = min(begin + max(0.0, length / 1000), self._clock + SPILL)
            for character in entry:
                if not character.isspace():
                    self._hear(_plain(character), begin, end)
        if said is not None:
            self._blind = 0.0
        else:
            self._blind += seconds
            self._unknown += seconds * PACE
            self._astray.clear()
        if self._blind > BLIND or self._unknown > LOST:
            expected = self._next + int(max(0.0, self._clock - self._at) * PACE)
            self._walk(self._index(expected), self._clock)
        return self._cuts

    # -- following what is said

    def _hear(self, character: str, start: float, end: float) -> None:
        if not self._unknown and self._solid[self._next : self._next + 1] == character:
            self._recognise(self._next, start, end)
            return
        self._astray.append((character, start, end))
        self._unknown += 1
        heard = "".join(c for c, _, _ in self._astray)
        for count in range(len(heard), 1, -1):
            if self._unknown > SURE.get(count, math.inf):
                break
            if (found := self._find(heard[-count:])) is not None:
                known = list(self._astray)[-count:]
                self._astray.clear()
                self._unknown = 0.0
                for index, (_, begun, ended) in enumerate(known, found):
                    self._recognise(index, begun, ended)
                return

    def _find(self, heard: str) -> int | None:
        """Where in the solid text it is: where it would go on, or nearest to where it should be."""
        if self._solid.startswith(heard, self._next):
            return self._next
        reach = REACH[min(len(heard), len(REACH) - 1)]
        expected = self._next + round(self._unknown) - len(heard)
        nearest = None
        found = self._solid.find(heard, max(self._next, expected - reach), expected + reach + len(heard))
        while found >= 0 and (nearest is None or abs(found - expected) < abs(nearest - expected)):
            nearest = found
            found = self._solid.find(heard, found + 1, expected + reach + len(heard))
        return nearest

    def _recognise(self, index: int, start: float, end: float) -> None:
        self._next, self._at = index + 1, end
        at = self._where[index]
        begin, last = self._words[min(self._word, len(self._words) - 1)]
        if begin < at == self._position and at + 1 < last and end >= self._time:  # inside a word: most are
            self._position, self._time = at + 1, end
            return
        self._walk(at, start)
        self._walk(at + 1, end)

    def _index(self, solid: int) -> int:
        """Where in the text a solid character is; its end behind the last."""
        return self._where[solid] if solid < len(self._where) else len(self._text.rstrip())

    # -- walking along the text

    def _walk(self, to: int, at: float) -> None:
        """The text up to `to` has been spoken by `at`, what is new of it at an even pace."""
        origin, since = self._position, self._time
        if to < origin:
            return
        at = max(at, since)

        def when(index: int) -> float:
            return at if index >= to else since + (at - since) * (index - origin) / (to - origin)

        while self._word < len(self._words):
            begin, end = self._words[self._word]
            if origin <= begin <= to:
                self._word_start = when(begin)
                self._enter(begin)
            if end > to:
                break
            cut = self._cuts[-1]
            base = self._began + cut.start
            cut.words.append(Word(self._text[begin:end], self._word_start - base, when(end) - base))
            self._word += 1
        self._position, self._time = to, at

    def _enter(self, begin: int) -> None:
        """A word begins at `_word_start`: with it, perhaps, a piece."""
        piece = bisect_right(self._starts, begin) - 1
        if piece > self._piece:
            self._piece = piece
            start = min(self._word_start, self._clock) - self._began
            self._cuts.append(Cut(piece, max(self._cuts[-1].start, start)))


def _plain(character: str) -> str:
    """In lower case, if that is one character too."""
    low = character.lower()
    return low if len(low) == 1 else character
