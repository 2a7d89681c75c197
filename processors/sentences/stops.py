"""Whether a stop ends a sentence: pure functions of the text around it.

A language model gives text piece by piece, so there are three answers. Most stops end their sentence, and are
known to when they come: "Hello there." Some never do: "Dr.". And some cannot be told without the character
after them, which may not have come yet: the stop of "$3." may be that of "$3.50".

That character has nearly always come when it matters: in the vocabularies of today's models a stop and the
quote, bracket or letters that follow it are one token (`."`, `.)`, `.com`). So an ordinary word and a stop at
the end of what has come are a sentence, and nobody waits.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Set

HARD = "。！？｡؟۔।॥։።။។‼⁉⁇⁈"
"""Stops that end a sentence whatever follows (Chinese, Japanese, Arabic, Urdu, Hindi, Armenian, Ethiopic,
Burmese, Khmer): no abbreviation or decimal is written with them."""
SOFT = ".!?…"
"""Stops that need a look at what is around them."""
NEWLINES = "\n\r\u2028\u2029"
OPENERS = "([{“„«「『（【《"
CLOSERS = ")]}”»」』）】》"
CLAUSES = ",;:—–，、；："
"""Where the first piece of a reply may end, and where a run without a stop is best cut."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEVER = _words(
    "mr mrs ms mx dr prof messrs msgr mme mlle Rev Hon Gen Col Lt Sgt Capt Cmdr Gov Sen Rep Pres Supt Fr St "
    "Ste Mt vs approx ext e.g i.e cf viz Fig Vol pp"
)
"""Abbreviations that something always follows: titles, "for example" and the like. In lower case when they
are no words otherwise ("mr", "Mr" and "MR" are found), else as they are written ("Gen", not "gen"). "St." is
Saint far more often than the end of a sentence; when it does end one, two sentences become one piece."""
MAYBE = _words(
    "etc a.m p.m inc ltd corp llc bros jr sr ph.d m.d b.a m.a d.c blvd rd ave hwy pkwy dept hr hrs min mins "
    "sec lbs oz Co No Nos Esq Apt Jan Feb Mar Apr Jun Jul Aug Sept Sep Oct Nov Dec "
    "Mon Tue Tues Wed Thu Thur Thurs Fri Sat Sun"
)
"""Abbreviations that may end a sentence. They do when a capital follows, and do not before a digit or a small
letter: "No. 5", "etc. and so on"."""

LOOK_BACK = 64
"""Characters before a stop that are looked at, so that a stop costs the same in any text."""

_RUN = re.compile(f"[{re.escape(SOFT + HARD)}]+")
_CLOSING = re.compile(r"[\"'’*_`" + re.escape(CLOSERS) + "]*")
_NOT_SPACE = re.compile(r"\S")
_JOINED = frozenset(",;:-–—/\\@=&+#~|%^<")
"""After a stop these go on with the sentence: "etc., and", "a.m.-5 p.m."."""
_OPENING = "([{\"'“‘«*_`¿¡"
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_CERTAIN = re.compile(r"(?:[$€£]\d[\d,]*\.\d\d|:\d\d|-\d{4}|-\d\d-\d\d)$")
"""Numbers that are complete: cents, a clock time, the end of a phone number, a date."""


class Verdict(enum.Enum):
    """What a stop is."""

    END = "the sentence is over"
    GOES_ON = "the sentence goes on"
    OPEN = "the next character will tell"


class _Kind(enum.Enum):
    """A stop by what stands before it."""

    PLAIN = enum.auto()
    HARD = enum.auto()
    ELLIPSIS = enum.auto()
    NEVER = enum.auto()
    MAYBE = enum.auto()
    DOTTED = enum.auto()
    """Letters with stops, as "U.S": what follows with a capital is mostly its noun."""
    DIGIT = enum.auto()
    ADDRESS = enum.auto()
    """The word looks like a host, a URL or an e-mail address."""
    ALONE = enum.auto()
    """A space stands before it: French "Oui !", the beginning of a Markdown image, ".NET"."""


def judge(
    text: str, at: int, begin: int, line: int, *, quoted: bool, never: Set[str] = NEVER
) -> tuple[Verdict, int]:
    """The stop at `text[at]`, and where to go on: after its closing quotes when it is or may be the end.

    `begin` is where the piece begins, `line` where its line does (-1: in an earlier piece); `quoted` says
    that a quote or bracket is open.
    """
    run = _RUN.match(text, at)
    assert run is not None
    end = run.end()
    closing = _CLOSING.match(text, end)
    past = closing.end() if closing is not None else end
    kind = _kind(text, at, end, begin, line, never)
    if past == len(text):
        verdict = _at_the_end(kind, waiting=quoted and past == end)
    else:
        verdict = _before(kind, text, at, end, past)
    return verdict, end if verdict is Verdict.GOES_ON else past


def _at_the_end(kind: _Kind, *, waiting: bool) -> Verdict:
    """Nothing after the stop has come yet."""
    if kind is _Kind.NEVER:
        return Verdict.GOES_ON
    return Verdict.END if kind in (_Kind.PLAIN, _Kind.HARD) and not waiting else Verdict.OPEN


def _before(kind: _Kind, text: str, at: int, end: int, past: int) -> Verdict:
    """`text[past]` follows the stop and its closing quotes."""
    after = text[past]
    if kind is _Kind.HARD:
        return Verdict.END
    if kind is _Kind.NEVER:
        return Verdict.GOES_ON
    if after.isspace():
        return _before_word(kind, text, past)
    if after in _JOINED or (after == "(" and text[past - 1] == "]") or (after == "[" and text[at] == "!"):
        return Verdict.GOES_ON  # "[Open.](https://...)", "![image](...)"
    if past > end or not after.isalnum():
        return Verdict.END
    if kind is _Kind.PLAIN and text[at] == ".":  # "there.How" lacks a space, "Node.js" does not
        word = text[max(0, at - 3) : at]
        return Verdict.END if after.isupper() and len(word) == 3 and word[1:].islower() else Verdict.GOES_ON
    if kind is _Kind.PLAIN or kind is _Kind.ELLIPSIS:
        return Verdict.GOES_ON if after.islower() else Verdict.END
    return Verdict.GOES_ON


def _before_word(kind: _Kind, text: str, past: int) -> Verdict:
    """A space follows. For abbreviations and an ellipsis the next word decides by its first character."""
    if kind not in (_Kind.MAYBE, _Kind.DOTTED, _Kind.ELLIPSIS):
        return Verdict.END
    found = _NOT_SPACE.search(text, past)
    if any(newline in text[past : found.start() if found else len(text)] for newline in NEWLINES):
        return Verdict.END
    if found is None:
        return Verdict.OPEN
    first = found.group()
    if first.islower() or (first.isdigit() and kind is not _Kind.ELLIPSIS):
        return Verdict.GOES_ON
    return Verdict.GOES_ON if kind is _Kind.DOTTED and first.isupper() else Verdict.END


def _kind(text: str, at: int, end: int, begin: int, line: int, never: Set[str]) -> _Kind:
    run = text[at:end]
    if not run.isascii() and any(stop in HARD for stop in run):
        return _Kind.HARD
    only_dots = not run.strip(".…")
    if only_dots and (len(run) > 1 or run == "…"):
        return _Kind.ELLIPSIS
    if text[at - 1].isspace():
        return _Kind.PLAIN if run[0] == "?" else _Kind.ALONE
    word = text[max(begin, at - LOOK_BACK) : at].split()[-1].lstrip(_OPENING)
    if not only_dots:
        return _Kind.ADDRESS if run[0] == "?" and _is_address(word) else _Kind.PLAIN
    if not word:
        return _Kind.PLAIN
    if word[-1].isdigit():
        return _number(word, text, at, line)
    if len(word) == 1 and word.isalpha():
        if word == "I":
            return _Kind.PLAIN
        return _Kind.NEVER if word.isupper() else _Kind.MAYBE  # an initial; an item, a page
    lower = word.lower()
    if word in never or lower in never:
        return _Kind.NEVER
    if word in MAYBE or lower in MAYBE:
        return _Kind.MAYBE
    if _DOTTED.fullmatch(word):
        return _Kind.DOTTED
    return _Kind.ADDRESS if _is_address(word) else _Kind.PLAIN


def _number(word: str, text: str, at: int, line: int) -> _Kind:
    if line >= 0 and len(word) <= 2 and word.isdigit() and not text[line : at - len(word)].strip(" \t>*_"):
        return _Kind.NEVER  # "1. Open the app": an item of a list
    return _Kind.PLAIN if _CERTAIN.search(word) else _Kind.DIGIT


def _is_address(word: str) -> bool:
    return "." in word or "@" in word or "://" in word
