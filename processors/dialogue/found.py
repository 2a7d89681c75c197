"""What was found in a caller's words, and which of several things was meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from processors.dialogue.words import list_of

T = TypeVar("T")

CORRECTS = frozenset(list_of("no actually sorry mean meant wait rather instead make correction better"))
"""Between two values: the later one is meant."""
REJECTS = (("not",), ("not", "on"), ("not", "at"), ("instead", "of"), ("rather", "than"), ("from",))
"""Before a value: another one is meant."""


class Found(NamedTuple, Generic[T]):
    """`value`, named by the words from `start` to before `end`."""

    start: int
    end: int
    value: T


def meant(found: Sequence[Found[Any]], words: Sequence[str]) -> Found[Any] | None:
    """The one that the caller means: "Monday, no, Tuesday", "not Monday but Tuesday", "from Monday to
    Tuesday". None when there is none, or when that is left open: "Monday or Tuesday"."""
    kept = [each for each in found if not _rejected(words, each.start)]
    if not kept:
        return None
    first, last = kept[0], kept[-1]
    if all(each.value == last.value for each in kept):
        return last
    between = words[first.end : last.start]
    return last if CORRECTS.intersection(between) else None


def _rejected(words: Sequence[str], start: int) -> bool:
    return any(tuple(words[max(0, start - len(before)) : start]) == before for before in REJECTS)
