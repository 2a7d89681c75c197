"""SpeechText: sentences as they are written in, sentences as they are said out."""

from __future__ import annotations

import re
from dataclasses import replace

from processors.speech_text import addresses, markup, numbers, words
from voiceflow.engine.processor import Processor, on
from voiceflow.frames import Sentence

# What only looks is cheap, so that ordinary sentences cost next to nothing: they begin with a letter, have no
# stop inside a word, and none of these.
_SPECIAL = re.compile(
    r"[0-9*_`#<>\[\]|~\\&@^%$+=\n\r\t\x00-\x1f\u00a0\u00a2-\u00be\u00d7\u00f7\u2000-\u200f\u2020-\u2025"
    r"\u2027-\u2bff\u3030\u303d\u3297\u3299\ufe00-\uffff\U0001f000-\U0010ffff]|\.\w|  | [,.;:!?]|-> "
)
_BEGINNING = re.compile(r"[\"“‘'(¿¡]?[^\W\d_]")
_SAYABLE = re.compile(r"[^\W_]")

ROUNDS = 8
"""Marks within marks: what one round lays bare is for the next. The second finds nothing, as a rule."""

_SPACES = re.compile(r"[^\S\n]{2,}")
_EMPTY_LINES = re.compile(r"\n\s+")
_AND = re.compile(r"(?<=\s)&(?=\s)")
_COMMAS = re.compile(r",(?:\s*,)+")
_LONELY = re.compile(r"\s+([,.;:!?…]+)(?=\s|$|[\"')\]])")
_ORPHANS = re.compile(r"(?:[)\]}.,;:!?…*_~|/\\”’\"'\s]+(?=\s|$)|[)\]},;:!?…\s])+")
"""What is left at the beginning of a piece of the sentence before, or of a mark."""


class SpeechText(Processor):
    """Makes a Sentence fit to be read aloud. Put it behind the SentenceAggregator; English.

    `markup` - Markdown and HTML go, their text stays: emphasis, headings, lists, tables, code, links, images.
    `emoji` - go. `links` - web addresses are read as their domain, e-mail addresses in words.
    `numbers` - are spelled, so that every voice reads them alike: amounts, dates, times, phone numbers,
    percentages, ordinals, years, ranges, units; no digit is left. Switch it off for other languages.
    `day_first` - 11/12/2026 is the eleventh of December.

    Each may be switched off. A Sentence with nothing left to say is dropped. What is said is also what goes
    into the history. A sentence without marks and digits costs 4 us, one with marks 20 to 40, one with
    numbers 40 to 250. For numbers inflect is loaded while the process starts (see `words`).
    """

    def __init__(
        self,
        *,
        markup: bool = True,
        emoji: bool = True,
        links: bool = True,
        numbers: bool = True,
        day_first: bool = False,
    ) -> None:
        self.markup = markup
        self.emoji = emoji
        self.links = links
        self.numbers = numbers
        self.day_first = day_first

    async def warm(self) -> None:
        if self.numbers and not words.loaded():
            await self.call.compute(words.load, 0.0)

    async def start(self) -> None:
        await self.warm()  # for whoever runs it without a server

    @on(Sentence)
    def sentence(self, sentence: Sentence) -> Sentence | None:
        text = self.spoken(sentence.text)
        if not text:
            return None
        return sentence if text == sentence.text else replace(sentence, text=text)

    def spoken(self, text: str) -> str:
        """The text as it is said; empty when there is nothing to say."""
        for _ in range(ROUNDS):
            if _SPECIAL.search(text) is None and _BEGINNING.match(text) is not None:
                return text.strip()
            before, text = text, self._without_marks(text)
            if text == before:
                break
        return text

    def _without_marks(self, text: str) -> str:
        text = _EMPTY_LINES.sub("\n", _SPACES.sub(" ", text))
        if self.emoji:
            text = markup.strip_emoji(text)
        if self.markup:
            text = _AND.sub("and", markup.strip(text))
        if self.links:
            text = addresses.say(text)
        if self.numbers:
            text = numbers.spell(text, day_first=self.day_first)
        return _tidy(text) if _SAYABLE.search(text) is not None else ""


def _tidy(text: str) -> str:
    text = _COMMAS.sub(",", _LONELY.sub(r"\1", " ".join(text.split())))
    found = _ORPHANS.match(text)
    return text[found.end() :] if found is not None else text
