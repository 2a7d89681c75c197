"""Texts that strangers said, made fit to be shown on one line."""

from __future__ import annotations

JOINERS = "\u200c\u200d"
"""Invisible, but part of how Persian, Hindi and many emoji are written."""


def plain(text: str) -> str:
    """On one line and printable: control characters, escape sequences and marks that turn the direction of
    writing are spaces. What a caller says may be anything."""
    return " ".join("".join(c if c.isprintable() or c in JOINERS else " " for c in text).split())


def shorten(text: str, width: int) -> str:
    """The beginning of a text, plain, at most `width` characters."""
    text = plain(text)
    return text if len(text) <= width else text[: max(0, width - 1)].rstrip() + "…"


def tail(text: str, width: int) -> str:
    """The end of a text, plain, at most `width` characters."""
    text = plain(text)
    return text if len(text) <= width else "…" + text[len(text) - max(0, width - 1) :].lstrip()


def whole(parts: list[float]) -> list[int]:
    """Numbers as whole ones that still sum to what the sum rounds to: a table whose columns add up."""
    found: list[int] = []
    total, given = 0.0, 0
    for part in parts:
        total += part
        found.append(round(total) - given)
        given += found[-1]
    return found
