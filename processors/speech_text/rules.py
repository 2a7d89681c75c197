"""A rule: a pattern, and how what it finds is said. Rules are applied one after the other, so that what one
has put into words is out of the way of the next."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?)"
"""A number, with or without thousands separators and decimals."""
DASH = r"[-–—‒−]"


@dataclass(slots=True, frozen=True)
class Rule:
    """`say` returns the words for a match, or the match itself when the rule does not apply after all. It is
    tried only on texts that have one of the characters `marks`; without any on all."""

    pattern: re.Pattern[str]
    say: Callable[[re.Match[str]], str]
    marks: frozenset[str] = frozenset()


def rule(pattern: str, say: Callable[[re.Match[str]], str] | str, marks: str = "") -> Rule:
    """A rule from a pattern's text. `say` may be a fixed text."""
    compiled = re.compile(pattern)
    if isinstance(say, str):
        fixed = say
        return Rule(compiled, lambda match: fixed, frozenset(marks))
    return Rule(compiled, say, frozenset(marks))


def apply(rules: Iterable[Rule], text: str) -> str:
    """The text with all rules applied, in order."""
    present = set(text)
    for each in rules:
        if not each.marks or each.marks & present:
            text = each.pattern.sub(each.say, text)
    return text
