"""Takes out of texts what must not be in them: always the secrets, and on request what people said.

What is known to be said is replaced by its count. Other texts - why a call ended, what a processor noted -
are ours and stay, but they may quote: every word in them that somebody has said in the call is masked, unless
it is one of our own, and what an exception says is left out as a whole.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable

WORDS_BOUND = 50_000
"""Different words that are remembered; beyond that the oldest are forgotten. People use about 20,000."""
MASK = "•••"
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_EXCEPTION = re.compile(r"(?P<kind>\b\w*(?:Error|Exception)): (?P<says>.*)", re.DOTALL)
"""How a fault quotes an exception that is not ours."""
_OUR_WORDS = """
a account after agent an and answer any are as at barge be because before broke by call caller carrier changed
closed closing connection could did does done draft ended error failed for from goes has hung http in is it
its key late limit line lost message model never new no nobody not nothing of off on once or out over pool
processor protocol reached refused reply says second seconds see server shutting silent socket speech stopped
stream than that the they this timed to took too tried turn turns up voice was went with words
"""
"""Of our own reasons and notes; they tell nothing about what was said."""
_OURS = frozenset(_OUR_WORDS.split())


class Redaction:
    """What of one call, or of all calls of a process, may be shown.

    `secrets` are replaced wherever they are found; with `words`, so is what people said.
    """

    def __init__(self, *, words: bool, secrets: Iterable[str] = ()) -> None:
        self.hides_words = words
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._said: dict[str, None] = {}
        self._lock = threading.Lock()  # the call remembers, the console's thread does too

    def remember(self, text: str) -> None:
        """Somebody said this."""
        if self.hides_words and text:
            with self._lock:
                self._said.update((word.casefold(), None) for word in _WORD.findall(text))
                for _ in range(len(self._said) - WORDS_BOUND):
                    del self._said[next(iter(self._said))]

    def said(self, text: str) -> str:
        """What somebody said: the words themselves, or how many they were."""
        if not (self.hides_words and text):
            return text
        self.remember(text)
        return count(text)

    def other(self, text: str) -> str:
        """A text of ours, or of a program, that might quote what was said, or a secret."""
        text = self.secretless(text)
        if not self.hides_words or not text:
            return text
        ours, says = text, ""
        if (exception := _EXCEPTION.search(text)) is not None:
            ours, says = text[: exception.start("says")], count(exception["says"])
        return self._mask(ours) + says

    def secretless(self, text: str) -> str:
        """Any text, without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def number(self, number: str) -> str:
        """A telephone number, or its last two digits."""
        if not self.hides_words or not number:
            return number
        return "…" + "".join(c for c in number if c.isdigit())[-2:]

    def _mask(self, text: str) -> str:
        def mask(found: re.Match[str]) -> str:
            word = found[0].casefold()
            return MASK if word in self._said and word not in _OURS else found[0]

        return _WORD.sub(mask, text)


def count(text: str) -> str:
    """How many words a text has: `[12 words]`."""
    words = len(text.split())
    return f"[{words} word{'' if words == 1 else 's'}]"
