"""How the fake recogniser hears: speech that spells itself, or any speech by its loudness.

An ear is given the caller's audio in steps of 10 ms. Positions are samples since the connection began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

import numpy as np

from tests.vendors import spelled
from voiceflow.audio import Samples

WORD = 0.3
"""Seconds that a word of a line takes to say."""
LOUD = 200.0
"""Root mean square from which a step is speech: -44 dBFS. A voice on the phone is at -20 to -30."""
CLICK = 0.1
"""Seconds of sound that are no speech yet."""


@dataclass(slots=True, frozen=True)
class Word:
    text: str
    start: int
    end: int


class Ear(Protocol):
    position: int
    """Samples heard."""
    spoken_until: int
    """Where the last speech ended."""
    words: list[Word]
    """The words of this turn that are complete."""

    def hear(self, step: bytes) -> None: ...

    def pause(self) -> None:
        """The caller has paused: what was said is complete. May be called more than once."""
        ...

    def next_turn(self) -> None:
        """Forgets the complete words. A word that is being said belongs to the next turn."""
        ...


class NoEar:
    """Hears nothing, and counts the samples."""

    def __init__(self, sample_bytes: int) -> None:
        self.position = self.spoken_until = 0
        self.words: list[Word] = []
        self._sample_bytes = sample_bytes

    def hear(self, step: bytes) -> None:
        self.position += len(step) // self._sample_bytes

    def pause(self) -> None:
        pass

    def next_turn(self) -> None:
        pass


class SpelledEar:
    """Reads `spelled` audio back. A word is complete with the space after it, or with a gap of one character.

    What is not spelled (noise, a voice) is not heard: a character counts from half its length on.
    """

    def __init__(self, character: int, to_mulaw: Callable[[bytes], bytes] = bytes) -> None:
        self.position = self.spoken_until = 0
        self.words: list[Word] = []
        self._character = character
        self._to_mulaw = to_mulaw
        self._value = self._run = self._counted = 0
        """The code that is heard, how many samples of it, how many characters they were."""
        self._letters = ""
        self._start = self._end = 0

    def hear(self, step: bytes) -> None:
        for value, same in groupby(self._to_mulaw(step).translate(spelled.UNSIGNED)):
            count = sum(1 for _ in same)
            self.position += count
            if value > spelled.LAST:  # silence; in the middle of a character it makes no second one of it
                continue
            if value != self._value:
                self._value, self._run, self._counted = value, 0, 0
            self._run += count
            if value >= spelled.FIRST:
                self._speech(chr(value))
        if self.position - self.spoken_until >= self._character:
            self.pause()

    def pause(self) -> None:
        if self._letters:
            self.words.append(Word(self._letters, self._start, self._end))
            self._letters = ""

    def next_turn(self) -> None:
        self.words = []

    def _speech(self, character: str) -> None:
        while self._counted < spelled.characters(self._run, self._character):
            if character == " ":
                self.pause()
            elif not self._letters:
                self._start = self.position - (self._run - self._counted * self._character)
            self._letters += character.strip()
            self._counted += 1
        if self._counted:
            self.spoken_until = self.position
            self._end = self._end if character == " " else self.position


class Lines:
    """What callers say, one line after another, from the beginning again after the last."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = list(lines)
        self.said = 0

    def next(self) -> str:
        return self.lines[self.said % len(self.lines)]


class EnergyEar:
    """Takes each stretch of sound for the next of `lines`: a word for each 0.3 s, the rest when it ends. The
    last word lasts until then, however long the line takes to say.

    A line is used up when its stretch ends, so that speech which is played again after a reconnect is the
    same line again.
    """

    def __init__(self, decode: Callable[[bytes], Samples], rate: int, lines: Lines) -> None:
        self.position = self.spoken_until = 0
        self.words: list[Word] = []
        self._decode, self._rate, self._lines = decode, rate, lines
        self._start = 0
        self._loud = 0
        """Samples of sound in this stretch."""
        self._revealed = 0
        """Words of the line that are known."""

    def hear(self, step: bytes) -> None:
        samples = self._decode(step)
        self.position += len(samples)
        if np.sqrt(np.mean(samples.astype(np.float64) ** 2)) < LOUD:
            return
        if not self._loud:
            self._start = self.position - len(samples)
        self._loud += len(samples)
        self.spoken_until = self.position
        self._reveal(int(self._loud / (WORD * self._rate)))

    def pause(self) -> None:
        if self._loud >= CLICK * self._rate:
            self._reveal(len(self._lines.next().split()))
            if self.words:
                self.words[-1] = replace(self.words[-1], end=self.spoken_until)
            self._lines.said += 1
        self._loud = self._revealed = 0

    def next_turn(self) -> None:
        self.words = []

    def _reveal(self, count: int) -> None:
        line = self._lines.next().split()
        step = round(WORD * self._rate)
        for n in range(self._revealed, min(count, len(line))):
            start = min(self._start + n * step, self.spoken_until)
            self.words.append(Word(line[n], start, min(start + step, self.spoken_until)))
            self._revealed += 1
