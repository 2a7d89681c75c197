"""Slots: what a Form has to know, how it is asked for, found in a caller's words, and said again."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from typing import Any, ClassVar

from processors.dialogue.days import find_days, spoken_day
from processors.dialogue.found import Found, meant
from processors.dialogue.times import find_times, spoken_time
from processors.dialogue.words import cardinal, list_of, texts_of, words_of
from voiceflow.errors import DeclarationError

Check = Callable[[Any], str]
"""What is wrong with a value, in words for the caller; "" when nothing is. Must be quick."""


class Slot(ABC):
    """One thing to know.

    name      of the tool's parameter that it fills, and of the `{field}` in texts
    ask       the question for it; may use the fields of slots before it
    called    words with which a caller names it: "the time is wrong"
    check     says what is wrong with a value: "We are closed on Sundays."
    """

    turn: ClassVar[int]
    """In which order slots look: what one has taken, the next does not see ("the third" is no hour)."""

    def __init__(self, name: str, ask: str, called: Sequence[str], check: Check | None) -> None:
        if not name.isidentifier():
            raise DeclarationError(f"{type(self).__name__}({name!r}): a name like a parameter's")
        if not ask.strip():
            raise DeclarationError(f"{type(self).__name__}({name!r}, ask=...): the question for it")
        self.name, self.ask, self.check = name, ask, check
        self.called = tuple(called)

    @abstractmethod
    def find(self, text: str, *, today: date, asked: bool) -> Found[Any] | None:
        """The value that `text` gives, with the words that give it. `asked`: the caller has just been asked
        for it, so that a word alone may be it. Words that are taken already are "…" in `text`."""

    def show(self, value: Any) -> str:
        """The value as the agent says it."""
        return str(value)

    def given(self, value: Any) -> Any:
        """The value as a tool is given it: something that JSON can write."""
        return str(value)


class Day(Slot):
    """A day, see `days.py`. A `date` for the tool."""

    turn = 0

    def __init__(
        self,
        name: str = "day",
        ask: str = "What day would suit you?",
        *,
        called: Sequence[str] = ("day", "date"),
        check: Check | None = None,
    ) -> None:
        super().__init__(name, ask, called, check)

    def find(self, text: str, *, today: date, asked: bool) -> Found[Any] | None:
        words = texts_of(text)
        return meant(find_days(words, today), words)

    def show(self, value: Any) -> str:
        return spoken_day(value)


class Time(Slot):
    """A time of day, see `times.py`. A `time` for the tool. `earliest` and `latest` decide what "four" is."""

    turn = 1

    def __init__(
        self,
        name: str = "at",
        ask: str = "At what time?",
        *,
        earliest: time = time(0),
        latest: time = time(23, 59),
        called: Sequence[str] = ("time", "hour"),
        check: Check | None = None,
    ) -> None:
        super().__init__(name, ask, called, check)
        self.earliest, self.latest = earliest, latest

    def find(self, text: str, *, today: date, asked: bool) -> Found[Any] | None:
        words = texts_of(text)
        found = find_times(words, earliest=self.earliest, latest=self.latest, bare=asked)
        return meant(found, words)

    def show(self, value: Any) -> str:
        return spoken_time(value)

    def given(self, value: Any) -> Any:
        return f"{value:%H:%M}"


class Number(Slot):
    """A whole number, an `int` for the tool. `of` are words that it counts ("people"): without them, and not
    asked for, a number is not it."""

    turn = 2

    def __init__(
        self,
        name: str = "number",
        ask: str = "How many?",
        *,
        least: int = 0,
        most: int = 999,
        of: Sequence[str] = (),
        called: Sequence[str] = ("number",),
        check: Check | None = None,
    ) -> None:
        super().__init__(name, ask, called, check)
        self.least, self.most, self.of = least, most, frozenset(of)

    def find(self, text: str, *, today: date, asked: bool) -> Found[Any] | None:
        words = texts_of(text)
        found: list[Found[Any]] = []
        at = 0
        while at < len(words):
            read = cardinal(words, at)
            if read is not None and self.least <= read.value <= self.most:
                counted = (
                    bool(self.of) and words[read.end : read.end + 1] != [] and words[read.end] in self.of
                )
                if asked or counted:
                    found.append(Found(at, read.end + counted, read.value))
            at = read.end if read is not None else at + 1
        return meant(found, words)

    def given(self, value: Any) -> Any:
        return value


class Choice(Slot):
    """One of a few things: `Choice("kind", "A check-up or a cleaning?", {"check-up": ["check up", "look"]})`.
    A `str` for the tool: the name of the one that was chosen."""

    turn = 3

    def __init__(
        self,
        name: str,
        ask: str,
        options: Mapping[str, Sequence[str]],
        *,
        called: Sequence[str] = (),
        check: Check | None = None,
    ) -> None:
        super().__init__(name, ask, called or (name,), check)
        if not options:
            raise DeclarationError(f"Choice({name!r}): what can be chosen, and in which words")
        self.options = {
            option: [texts_of(phrase) for phrase in (option, *phrases)] for option, phrases in options.items()
        }

    def find(self, text: str, *, today: date, asked: bool) -> Found[Any] | None:
        words = texts_of(text)
        found = [
            Found(at, at + len(phrase), option)
            for option, phrases in self.options.items()
            for phrase in phrases
            for at in range(len(words) - len(phrase) + 1)
            if words[at : at + len(phrase)] == phrase
        ]
        return meant(sorted(found), words)


class Name(Slot):
    """A person's name: after "my name is" and the like, or, asked for it, whatever short thing was said."""

    turn = 4
    INTRODUCED = re.compile(
        r"\b(?:my name is|my name's|the name is|name is|this is|i am called|call me|it is for|it's for|under)"
        r"\s+(.+)",
        re.IGNORECASE,
    )
    ANSWERED = re.compile(
        r"^\W*(?:(?:yes|yeah|well|um|uh|er|sure|okay|ok|oh|so|hi|hello)\b\W*)*"
        r"(?:(?:it's|it is|i'm|i am|that's|that is|for|the name)\b\W*)?(.+)$",
        re.IGNORECASE,
    )
    NAME_WORD = re.compile(r"[^\W\d_]+(?:['’.-][^\W\d_]+)*", re.UNICODE)
    STOPS = frozenset(
        list_of(
            "and for on at in please speaking here thanks thank i i'd would want need my to with the a an "
            "if is no yes not what when how where why who can could do does did are you your we it that "
            "there have has monday tuesday wednesday thursday friday saturday sunday tomorrow today sorry "
            "wait"
        )
    )
    MOST = 4
    """Words of a name."""

    def __init__(
        self,
        name: str = "name",
        ask: str = "May I have your name, please?",
        *,
        called: Sequence[str] = ("name",),
        check: Check | None = None,
    ) -> None:
        super().__init__(name, ask, called, check)

    def find(self, text: str, *, today: date, asked: bool) -> Found[Any] | None:
        introduced = list(self.INTRODUCED.finditer(text))
        said = introduced[-1] if introduced else self.ANSWERED.match(text) if asked else None
        if said is None:
            return None
        parts: list[str] = []
        end = said.start(1)
        for word in self.NAME_WORD.finditer(text, said.start(1)):
            between = text[end : word.start()]
            if word[0].lower() in self.STOPS or (parts and between.strip()):
                break
            parts.append(word[0])
            end = word.end()
        rest = [
            word for word in words_of(text[end:]) if word.text not in ("please", "speaking", "here", "thanks")
        ]
        if not 0 < len(parts) <= self.MOST or (not introduced and rest):
            return None
        words = words_of(text)
        places = [n for n, word in enumerate(words) if said.start(1) <= word.start < end]
        shown = " ".join(part if any(c.isupper() for c in part[1:]) else _titled(part) for part in parts)
        return Found(places[0], places[-1] + 1, shown) if places else None


def _titled(part: str) -> str:
    return re.sub(r"[^\W\d_]+", lambda found: found[0][:1].upper() + found[0][1:], part)


def find_all(slots: Sequence[Slot], text: str, *, today: date, asked: str = "") -> dict[str, Any]:
    """What `text` says of the slots. `asked` is the name of the one that the caller was asked for."""
    found: dict[str, Any] = {}
    for slot in sorted(slots, key=lambda slot: slot.turn):
        value = slot.find(text, today=today, asked=slot.name == asked)
        if value is not None:
            found[slot.name] = value.value
            words = words_of(text)
            start, end = words[value.start].start, words[value.end - 1].end
            text = f"{text[:start]}{'…' * (end - start)}{text[end:]}"
    return found
