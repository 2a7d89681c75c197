"""Web and e-mail addresses as they are said: "example dot com", "ann at example dot com"."""

from __future__ import annotations

import re

_ENDING = r"[^\s.,;:!?)\]}>\"'”’*_]"
_URL = re.compile(
    rf"(?i)\b(?:https?|ftp)://(?:[^\s/?#@]*@)?([^\s/?#:,;!\"'()\[\]<>*]+)(?::[0-9]+)?(?:[/?#](?:\S*{_ENDING})?/?)?"
)
_EMAIL = re.compile(r"(?:mailto:)?([A-Za-z0-9][\w.+-]*)@((?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,})")
_DOMAINS = (
    "com|org|net|edu|gov|mil|info|biz|io|co|ai|app|dev|tv|us|uk|ca|de|fr|es|nl|eu|au|nz|jp|cn|br|mx|ch|se|dk|fi|ie|pl"
    "|pt|online|shop|store|site|tech|cloud|health|bank"
)
"""Endings that are not also words, or the missing space of "call.me" would be read as an address."""
_BARE = re.compile(
    rf"(?<![\w@./-])((?:[A-Za-z0-9-]+\.)+(?:{_DOMAINS}))(?![\w@-]|\.\w)(?::[0-9]+)?(?:/(?:\S*{_ENDING})?/?)?"
)
_WWW = re.compile(rf"(?i)\bwww\.((?:[a-z0-9-]+\.)*[a-z0-9-]+)(?:[/?#](?:\S*{_ENDING})?/?)?")
_HANDLE = re.compile(r"(?<!\w)@(?=\w)")
_AT = re.compile(r"\s@\s")
_LOCAL = {".": " dot ", "_": " underscore ", "-": " dash ", "+": " plus "}


def say(text: str) -> str:
    """The text with URLs as their domain, and all addresses in words."""
    if "@" in text:
        text = _EMAIL.sub(lambda found: f"{_spelled(found[1])} at {_spelled(found[2])}", text)
    text = _URL.sub(lambda found: _host(found[1]), text)
    text = _WWW.sub(lambda found: _host(found[1]), text)
    text = _BARE.sub(lambda found: _host(found[1]), text)
    return _HANDLE.sub("at ", _AT.sub(" at ", text)) if "@" in text else text


def _host(name: str) -> str:
    name = name.rstrip(".")
    if name.lower().startswith("www."):
        name = name[4:]
    # The dots of an IP address are left to the numbers.
    return name if name.replace(".", "").isdigit() else _spelled(name)


def _spelled(name: str) -> str:
    return "".join(_LOCAL.get(character, character) for character in name)
