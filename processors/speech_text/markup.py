"""Markdown, HTML and emoji: what is seen, and must not be heard. The text between the marks stays.

Pieces come sentence by sentence, so a mark may have lost its partner ("**Note: it is late." "Call back.**"):
marks are taken away one by one, never in pairs.
"""

from __future__ import annotations

import html
import re

_PICTURES = (
    "\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2300-\u23ff\u25a0-\u25ff\u203c\u2049\u3030\u303d\u3297\u3299"
    "\u00a9\u00ae\u2122\u2022\u2023\u2043"
)
_EMOJI = re.compile(
    f"(?:[{_PICTURES}][\ufe0e\ufe0f\u200d\u20e3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]*)+"
)
_BULLET_SIGNS = re.compile(r"(?m)^([ \t]*)[•◦▪‣⁃●○■□]")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad\ufe0e\ufe0f\u20e3]")
_ARROW = re.compile(r"\s*(?:[\u2190-\u21ff\u27f5-\u27ff]+|(?<!\S)[-=]+>(?!\S))\s*")

_FENCE = re.compile(r"(?m)^[ \t]*(?:```|~~~)[^\n`]*$")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_AUTOLINK = re.compile(r"<((?:https?://|mailto:)[^<>\s]+)>")
_INLINE_TAG = re.compile(
    r"(?i)</?(?:a|abbr|b|code|del|em|font|i|ins|mark|s|small|span|strong|sub|sup|u)(?:\s[^<>]*)?>"
)
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+[\"'][^\"'\n]*[\"'])?\)")
_REFERENCE = re.compile(r"!?\[([^\[\]]+)\]\[[^\[\]]*\]|\[\^[^\[\]]+\]:?")

_LINE = re.compile(r"[ \t]*(?:>[ \t]?|#{1,6}[ \t]+|(?:[-*+•–—][ \t]+)(?:\[[ xX]\][ \t]+)?)+")
_RULE = re.compile(r"[ \t]*([-=*_~])(?:[ \t]*\1){2,}[ \t]*|(?=[^-]*-)[|:\- \t]+|#+")
_CELLS = re.compile(r"[ \t]*\|[ \t]*")
_TICKS = re.compile(r"`+|~~+")
_STARS = re.compile(r"(?<!\S)\*+(?=\S)|(?<=\S)\*+(?!\S)|\*{2,}|(?<=[^0-9\s])\*|\*(?=[^0-9\s])")
"""All but those of "2 * 3" and "2*3"."""
_NUMBERED = re.compile(r"[ \t]*([0-9]{1,3})[.)][ \t]+(?=\S)")
_WORD = re.compile(r"\S+")
_UNDERLINES = re.compile(r"(?<![^\W_])_+|_+(?![^\W_])")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")


def strip_emoji(text: str) -> str:
    """Without emoji, variation selectors and what else has no width."""
    text = _BULLET_SIGNS.sub(r"\1-", text)
    return _INVISIBLE.sub("", _EMOJI.sub(" ", text))


def strip(text: str) -> str:
    """Without Markdown and HTML. Lines stay lines."""
    return _inline("\n".join(map(_line, _blocks(text).split("\n"))))


def _blocks(text: str) -> str:
    text = _FENCE.sub("", text)
    if "\\" in text:
        text = _ESCAPE.sub(r"\1", text)
    if "<" in text:
        if "-->" in text:
            text = _COMMENT.sub(" ", text)
        text = _AUTOLINK.sub(r"\1", text)
        text = _TAG.sub(" ", _INLINE_TAG.sub("", text))
    if "&" in text:
        text = html.unescape(text)
    if "[" in text:
        text = _REFERENCE.sub(r"\1", _LINK.sub(r"\1", text))
    return text


def _line(line: str) -> str:
    """One line: headings, quotes, list items and table rows become sentences, rules nothing."""
    if _RULE.fullmatch(line):
        return ""
    if line.lstrip().startswith("|"):
        return _ended(", ".join(cell for cell in _CELLS.split(line.strip()) if cell))
    if (found := _NUMBERED.match(line)) is not None:
        return _ended(f"{found[1]}. {line[found.end() :]}")
    found = _LINE.match(line)
    return _ended(line[found.end() :]) if found is not None else line


def _ended(line: str) -> str:
    """With a stop, so that the voice pauses where the eye would."""
    line = line.rstrip()
    return f"{line}." if line[-1:].isalnum() else line


def _inline(text: str) -> str:
    text = _TICKS.sub("", text)
    if "*" in text:
        text = _STARS.sub("", text)
    if "_" in text:
        text = _WORD.sub(_words_of, _UNDERLINES.sub("", text))
    return _ARROW.sub(", ", text)


def _words_of(found: re.Match[str]) -> str:
    """snake_case is two words; an address is left as it is."""
    word = found[0]
    return word if "@" in word or "/" in word else word.replace("_", " ")
