"""What a docstring says of a function and of each parameter, in any of the usual styles.

day: the day              plain          Args:                      Google
                                             day (date): the day
:param day: the day       Sphinx         Parameters                 numpy
                                         ----------
                                         day : date
                                             the day
"""

from __future__ import annotations

import re
from collections.abc import Sequence

GIVEN = ("args", "arguments", "parameters", "params", "keyword args", "keyword arguments")
"""Headings under which parameters stand."""
LEFT_OUT = ("returns", "return", "yields", "raises", "example", "examples", "see also", "references")
"""Headings under which nothing is said to a model."""
_HEADING = re.compile(r"(?P<name>[A-Za-z ]+):?\s*")
_UNDERLINE = re.compile(r"-{3,}\s*")
_SPHINX = re.compile(r":(?P<what>\w+)(?:\s+(?P<rest>[^:]*))?:\s*(?P<text>.*)")
_ENTRY = re.compile(r"\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)")
_NUMPY = re.compile(r"(?P<name>\w+)\s*(?::.*)?")


def read(docstring: str, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """What is said of the function itself, and of those parameters of which something is said. `docstring`
    is cleaned, as `inspect.getdoc` gives it."""
    lines = docstring.expandtabs().splitlines()
    told: dict[str, list[str]] = {}
    said: list[str] = []
    entry: list[str] | None = None
    """Where a line that goes on with a parameter goes to."""
    depth = 0
    section = style = ""
    index = 0
    while index < len(lines):
        line = lines[index]
        text, indent = line.strip(), len(line) - len(line.lstrip())
        index += 1
        found = _heading(lines, index - 1)
        if found is not None:
            section, style = found
            entry = None
            index += style == "numpy"
            continue
        if not text:
            if not section and entry is None:
                said.append("")
            entry = entry if section else None
            continue
        if section and indent == 0 and style == "google":
            section = ""
        if entry is not None and indent > depth:
            entry.append(text)
            continue
        entry = None
        if sphinx := _SPHINX.fullmatch(text) if not section else None:
            name = (sphinx["rest"] or "").split()[-1:]
            entry = [sphinx["text"]]
            depth = indent
            if sphinx["what"] in ("param", "parameter", "arg", "argument") and name and name[0] in names:
                told[name[0]] = entry
            continue
        if section in LEFT_OUT:
            continue
        pattern = _NUMPY if style == "numpy" and section else _ENTRY
        parameter = pattern.fullmatch(text)
        if parameter is not None and parameter["name"] in names:
            entry = told.setdefault(parameter["name"], [])
            depth = indent
            if pattern is _ENTRY:
                entry.append(parameter["text"])
        elif not section:
            said.append(text)
    description = re.sub(r"\n{3,}", "\n\n", "\n".join(said)).strip()
    return description, {name: " ".join(filter(None, words)) for name, words in told.items()}


def _heading(lines: Sequence[str], index: int) -> tuple[str, str] | None:
    """The section that begins on this line, and in which style."""
    line = lines[index]
    if line[:1].isspace() or (heading := _HEADING.fullmatch(line)) is None:
        return None
    name = heading["name"].strip().lower()
    if name not in (*GIVEN, *LEFT_OUT):
        return None
    if index + 1 < len(lines) and _UNDERLINE.fullmatch(lines[index + 1]):
        return name, "numpy"
    return (name, "google") if line.rstrip().endswith(":") else None
