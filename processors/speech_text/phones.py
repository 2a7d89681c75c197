"""What is dictated rather than counted: phone numbers, card numbers, codes."""

from __future__ import annotations

import re

from processors.speech_text.rules import Rule, rule
from processors.speech_text.words import digits, groups

_EXTENSION = r"(?:,?\s*(?:ext\.?|x|extension)\s*([0-9]{1,6})\b)?"
_ANNOUNCED = (
    r"\b((?:[Cc]ode|PIN|[Pp]in|[Pp]asscode|[Pp]assword|[Ee]nding(?: in| with)?|[Ee]nds (?:in|with)"
    r"|[Ee]xtension|[Ee]xt\.|ZIP|[Zz]ip|[Ff]light|[Rr]oom|[Nn]umber|ID)(?:\s+(?:is|was))?\s*:?\s*)"
)
"""Words after which a number is a name."""


def rules() -> tuple[Rule, ...]:
    """Numbers that are read digit by digit, in their own groups."""
    return (
        rule(
            r"(?<![\w.,$€£])(?:(\+?)([0-9]{1,3})[\s.-]?)?(?:\(([0-9]{3})\)\s?|(?<![0-9])([0-9]{3})[\s.-])"
            rf"([0-9]{{3}})[\s.-]([0-9]{{4}})(?![0-9]|[.,-][0-9]){_EXTENSION}",
            _national,
            "-.( ",
        ),
        rule(r"\+([0-9](?:[\s().-]{0,2}[0-9]){6,16})", lambda found: f"plus {_runs(found[1])}", "+"),
        rule(
            rf"(?<![\w.,$€£/-])([0-9]{{3}})-([0-9]{{4}})(?![\w/%-]|[.,][0-9]){_EXTENSION}",
            _local,
            "-",
        ),
        rule(r"(?<![\w-])1-([0-9]{3})-(?=[A-Z])", lambda found: f"one, {digits(found[1])}, ", "-"),
        rule(r"\b401\s?(?:\(k\)|k\b)", "four oh one k"),
        rule(
            r"\b([Cc]all|[Dd]ial|[Tt]ext)\s([2-9]11|988|999|112)\b(?![.,:/-][0-9])",
            lambda found: f"{found[1]} {digits(found[2])}",
        ),
        rule(r"(?<![\w.,$€£/-])[0-9]+(?:-[0-9]+){2,}(?![\w/-]|\.[0-9])", lambda found: _runs(found[0]), "-"),
        rule(
            r"(?<![\w.,$€£/-])[0-9]{4}(?: [0-9]{4}){2,3}(?![\w/-]|[.,][0-9])", lambda found: _runs(found[0])
        ),
        rule(
            _ANNOUNCED + r"([0-9]{3,}(?:[ -][0-9]{3,})*)(?![\w%]|[.,:/-][0-9])",
            lambda found: found[1] + _runs(found[2]),
        ),
    )


def _runs(text: str) -> str:
    """Each run of digits by itself, with pauses between them."""
    found = re.findall(r"[0-9]+", text)
    return ", ".join(digits(run) if len(run) <= 5 else groups(run) for run in found)


def _national(found: re.Match[str]) -> str:
    plus, country, area, area_plain, exchange, line, extension = found.groups()
    words = f"{'plus ' if plus else ''}{digits(country)}, " if country else ""
    words += ", ".join(map(digits, (area or area_plain, exchange, line)))
    return _extended(words, extension)


def _local(found: re.Match[str]) -> str:
    """Seven digits; "500-1500 people" is a range: both its numbers are round."""
    first, second, extension = found.groups()
    if second[0] != "0" and first.endswith("0") and second.endswith("00"):
        return found[0]
    return _extended(f"{digits(first)}, {digits(second)}", extension)


def _extended(words: str, extension: str | None) -> str:
    return f"{words}, extension {digits(extension)}" if extension else words
