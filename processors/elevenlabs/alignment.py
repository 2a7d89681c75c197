"""Which sentence, and which words, a chunk of ElevenLabs audio is.

The service returns the characters it spoke with each chunk of audio, timed from the chunk's own beginning.
They follow the text that was sent; `Alignment` walks along it, cuts the audio where a sentence begins, and
puts characters together to words, also across chunks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from voiceflow.frames import Word

SEARCH = 400
"""How many characters ahead the spoken ones are looked for when they do not follow the text."""
PROBE = 12
"""How many of them are compared: fewer are found by chance, more may hold a character that was changed."""


@dataclass(slots=True)
class Cut:
    """A part of a chunk, from `start` to the next part's, in seconds from the chunk's beginning."""

    piece: int
    start: float
    words: list[Word] = field(default_factory=list)
    """In seconds from `start`. A word that began in an earlier chunk has a negative start."""


class Alignment:
    """The text of one context, and how far it has been spoken."""

    def __init__(self) -> None:
        self._text = ""
        self._starts: list[int] = []
        """Where each piece begins in the text."""
        self._position = 0
        """The next character to be spoken."""
        self._clock = 0.0
        """Seconds of audio before this chunk."""
        self._word = ""
        self._word_start = self._word_end = 0.0
        """On that clock."""

    def add(self, piece: str) -> None:
        """The next piece, exactly as it was sent."""
        self._starts.append(len(self._text))
        self._text += piece

    @property
    def characters(self) -> int:
        """How many characters there are to speak."""
        return len(self._text.rstrip())

    @property
    def piece(self) -> int:
        """The piece that was spoken last; 0 before anything was."""
        return max(0, bisect_right(self._starts, max(0, self._position - 1)) - 1)

    @property
    def complete(self) -> bool:
        """Whether everything was spoken."""
        return self._position >= len(self._text.rstrip())

    @property
    def last_begun(self) -> bool:
        """Whether the last piece has begun to be spoken."""
        return bool(self._starts) and self._position > self._starts[-1]

    def chunk(
        self, chars: Sequence[str], starts_ms: Sequence[float], lengths_ms: Sequence[float], seconds: float
    ) -> list[Cut]:
        """The parts of a chunk of `seconds`. Without (usable) characters it goes on with the same piece."""
        cuts = [Cut(self.piece, 0.0)]
        if len(chars) == len(starts_ms) == len(lengths_ms):
            self._find("".join(chars).strip())
            for char, start, length in zip(chars, starts_ms, lengths_ms, strict=True):
                self._step(char, start / 1000, (start + length) / 1000, cuts)
        self._clock += seconds
        return cuts

    def _step(self, char: str, start: float, end: float, cuts: list[Cut]) -> None:
        if char.isspace():
            self._end_word(cuts[-1])
            if self._at_space():
                self._position += 1
            return
        while self._at_space():
            self._position += 1
        self._position = min(self._position + 1, len(self._text))
        if self.piece != cuts[-1].piece:
            self._end_word(cuts[-1])
            if start <= 0 and not cuts[-1].words:  # the chunk begins with it
                cuts[-1].piece = self.piece
            else:
                cuts.append(Cut(self.piece, start))
        if not self._word:
            self._word_start = self._clock + start
        self._word += char
        self._word_end = self._clock + end
        if self._at_space() or self._position == len(self._text):
            self._end_word(cuts[-1])

    def _end_word(self, cut: Cut) -> None:
        if self._word:
            begin = self._clock + cut.start
            cut.words.append(Word(self._word, self._word_start - begin, self._word_end - begin))
            self._word = ""

    def _at_space(self) -> bool:
        return self._text[self._position : self._position + 1].isspace()

    def _find(self, spoken: str) -> None:
        """Moves to where the spoken characters are, if they are not where they should be."""
        probe = spoken[:PROBE]
        rest = self._text[self._position : self._position + SEARCH]
        if probe and not rest.lstrip().startswith(probe) and (found := rest.find(probe)) > 0:
            self._position += found
