"""The splitter: text comes in tokens of any size, pieces that can be spoken go out. No I/O; time is given.

    feed(token, now) ──▶ pieces that are complete        deadline ──▶ when to call expire
    expire(now)      ──▶ what has waited long enough     flush()  ──▶ the rest

The pieces are the text: joined, they differ from the tokens only in the whitespace between pieces. Where the
text is cut does not depend on how it was cut into tokens, with these exceptions:

- a token that ends with a stop, while the next begins without a space ("example." "com"): the sentence was
  over as far as anybody could know. Digits ("3." "50"), addresses and open quotes are not affected: they
  wait.
- the first clause, which is cut off only if its sentence did not come with it
- whatever time did, through `expire` or a late token
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Set

from processors.sentences.stops import (
    CLAUSES,
    CLOSERS,
    HARD,
    NEVER,
    NEWLINES,
    OPENERS,
    SOFT,
    Verdict,
    judge,
)

FASTEST_VOICE = 20.0
"""Characters a second of a voice that hurries; 15 is usual. So what was given lasts at least this long."""
WORDS_WORTH_SAYING = 3
"""A piece that is cut short by time has at least so many words: about a second of speech."""
CHARACTERS_WORTH_SAYING = 6
"""The same in a script that has no spaces between words."""

_STOPS = re.escape(SOFT + HARD + NEWLINES)
_MARKS = re.compile("[" + _STOPS + re.escape('"' + OPENERS + CLOSERS) + "]")
_MARKS_AND_CLAUSES = re.compile("[" + _STOPS + re.escape('"' + OPENERS + CLOSERS + CLAUSES) + "]")
_SAYABLE = re.compile(r"[^\W_]")
_NOT_SPACE = re.compile(r"\S")
_CLAUSE_END = re.compile(r"[,;:—–][\"'”’)\]]*(?=\s)|[，、；：]")
_UNSPACED = "\u2e80"
"""Chinese and Japanese begin here."""
_SPACED = ",;:"
"""Clause marks that a space follows; without one they stand inside a number or a word."""
_JOINERS = "\u200d\ufe0e\ufe0f"
"""Zero-width joiner and variation selectors: what they join is one emoji."""
_FLOOD = 4
"""So many times the longest piece, and it is taken as it is: a word, then nothing but spaces or stops."""


class Splitter:
    """One reply's text. The parameters are those of SentenceAggregator, in seconds and characters."""

    def __init__(
        self,
        *,
        patience: float = 0.06,
        first_clause: int = 20,
        longest_wait: float | None = 1.5,
        max_chars: int = 200,
        never: Set[str] = NEVER,
    ) -> None:
        self._patience = patience
        self._clause_chars = first_clause
        self._longest_wait = longest_wait
        self._max = max_chars
        self._never = never
        self._marks = _MARKS_AND_CLAUSES if first_clause else _MARKS
        # What has come and was not given yet: a piece and a token at most. All positions are in it.
        self._text = ""
        self._begin = 0  # where the piece begins
        self._at = 0  # the marks before this were seen
        self._line = 0  # where the piece's line begins; -1 when another piece stood before it in the line
        self._quoted = False
        self._brackets = 0
        # An undecided stop stands at `_at`: when to decide it all the same, and where its piece would end.
        self._open_until: float | None = None
        self._open_end = 0
        self._due: float | None = None  # when the piece will have waited long enough
        self._late = False  # that time has come, and there were too few words
        self._spoken_until = 0.0  # when the caller has heard all that was given, by estimate

    @property
    def deadline(self) -> float | None:
        """When to call `expire`; None while nothing waits for time."""
        if self._open_until is not None:
            return self._open_until
        return None if self._late else self._due

    def feed(self, token: str, now: float) -> list[str]:
        """Takes a token; returns the pieces that are complete with it."""
        self._text += token
        pieces: list[str] = []
        self._scan(pieces, now)
        if not pieces and self._open_until is None and self._due is not None and now >= self._due:
            self._cut_short(pieces)
        self._settle(pieces, now)
        return pieces

    def expire(self, now: float) -> list[str]:
        """Time has passed; returns what should not wait any longer."""
        pieces: list[str] = []
        if self._open_until is not None:
            if now >= self._open_until:
                self._open_until = None
                self._take(self._open_end, pieces)
        elif self._due is not None and now >= self._due:
            self._cut_short(pieces)
            self._late = not pieces
        self._settle(pieces, now)
        return pieces

    def flush(self) -> list[str]:
        """The text is over; returns the rest."""
        pieces: list[str] = []
        self._open_until = None
        self._take(len(self._text), pieces)
        self._settle(pieces, 0.0)
        return pieces

    # -- marks

    def _scan(self, pieces: list[str], now: float) -> None:
        """Looks at every mark that has come since the last time."""
        text = self._text
        before = self._at if self._open_until is not None else -1
        clause = 0
        still_open = False
        self._skip_space()
        while (found := self._marks.search(text, self._at)) is not None:
            at = found.start()
            mark = found.group()
            if mark in CLAUSES:
                if self._ends_clause(mark, at):
                    clause = at + 1
                self._at = at + 1
            elif mark in NEWLINES:
                self._cut_long(self._begin + len(text[self._begin : at].rstrip()), pieces)
                if self._sayable(at):
                    self._take(at, pieces)
                self._at = self._line = at + 1
                self._quoted, self._brackets = False, 0
            elif mark in SOFT or mark in HARD:
                self._cut_long(at + 1, pieces)
                if not self._stop(at, pieces):
                    still_open = True
                    break
            else:
                self._quote(mark)
                self._at = at + 1
        else:
            self._at = len(text)
        if not still_open:
            self._open_until = None
        elif self._open_until is None or self._at != before:
            self._open_until = now + self._patience
        if len(text) - self._begin > self._max:
            if not still_open:  # an undecided stop stands within the piece's length
                self._cut_long(len(text.rstrip()), pieces)
            if len(text) - self._begin > _FLOOD * self._max:
                self._open_until = None
                self._take(len(text), pieces)
        if clause > self._begin and not pieces:
            self._take(clause, pieces)

    def _stop(self, at: int, pieces: list[str]) -> bool:
        """Takes the piece that the stop at `at` ends, if it does. False when that cannot be told yet."""
        if not self._sayable(at):
            self._at = at + 1
            return True
        quoted = self._quoted or self._brackets > 0
        verdict, end = judge(self._text, at, self._begin, self._line, quoted=quoted, never=self._never)
        if verdict is Verdict.OPEN:
            self._at, self._open_end = at, end
            return False
        if verdict is Verdict.END:
            self._at = at + 1
            self._take(end, pieces)
        else:
            self._at = end
        return True

    def _quote(self, mark: str) -> None:
        if mark == '"':
            self._quoted = not self._quoted
        elif mark in OPENERS:
            self._brackets += 1
        elif self._brackets:
            self._brackets -= 1

    def _ends_clause(self, mark: str, at: int) -> bool:
        """Whether the first piece may end after the clause mark at `at`."""
        if self._quoted or self._brackets or at + 1 - self._begin < self._clause_chars:
            return False
        text = self._text
        if text[at - 1].isdigit() or text.endswith(("http", "https"), self._begin, at):
            return False
        return mark not in _SPACED or at + 1 == len(text) or text[at + 1].isspace()

    # -- pieces

    def _sayable(self, end: int) -> bool:
        """Whether the piece up to `end` has anything to say: a stop or a rule ("---") alone is no piece."""
        return _SAYABLE.search(self._text, self._begin, end) is not None

    def _take(self, end: int, pieces: list[str]) -> None:
        """The piece ends at `end`."""
        piece = self._text[self._begin : end].strip()
        if piece:
            pieces.append(piece)
        for mark in self._text[self._at : end]:  # closing quotes after its stop
            if mark == '"' or mark in CLOSERS:
                self._quote(mark)
        if self._line < end:
            self._line = -1
        self._begin = end
        self._at = max(self._at, end)
        self._skip_space()

    def _cut_long(self, end: int, pieces: list[str]) -> None:
        """The text up to `end` has no stop before `end`: cuts it while it is longer than a piece may be."""
        while end - self._begin > self._max:
            last = self._begin + self._max
            cut = self._boundary(last)
            if not cut:  # one word, or a script without spaces
                cut = last
                while cut > self._begin + 1 and self._inside_character(cut):
                    cut -= 1
            self._take(cut, pieces)

    def _cut_short(self, pieces: list[str]) -> None:
        """The piece has waited long enough: takes what there is of it, but no half word."""
        text = self._text
        whole = text[-1].isspace() or (text[-1] in CLAUSES and not text[-2:-1].isdigit())
        last = len(text) if whole else len(text) - 1
        cut = self._boundary(last)
        if cut and len(text[self._begin : cut].split()) >= WORDS_WORTH_SAYING:
            self._take(cut, pieces)
        elif not cut and len(text) - self._begin >= CHARACTERS_WORTH_SAYING and text[-1] >= _UNSPACED:
            self._take(len(text), pieces)

    def _boundary(self, last: int) -> int:
        """Where to cut the piece at `last` or before: after the last clause of its second half, else
        between two words; 0 when it is all one word."""
        text, begin = self._text, self._begin
        middle = begin + (last - begin) // 2
        clauses = [found.end() for found in _CLAUSE_END.finditer(text, middle, last + 1)]
        if clauses and clauses[-1] <= last:
            return clauses[-1]
        for cut in range(last, begin, -1):
            if cut == len(text) or text[cut].isspace():
                return cut
        return 0

    def _inside_character(self, at: int) -> bool:
        """Whether a cut at `at` would part what is seen as one character."""
        after, before = self._text[at], self._text[at - 1]
        return after in _JOINERS or before == _JOINERS[0] or unicodedata.combining(after) != 0

    def _skip_space(self) -> None:
        found = _NOT_SPACE.search(self._text, self._begin)
        self._begin = found.start() if found else len(self._text)

    def _settle(self, pieces: list[str], now: float) -> None:
        """After every call: sets the time by which the rest is due, and forgets what was given."""
        begin = self._begin
        if pieces:
            self._marks = _MARKS  # the first piece is over
            self._due, self._late = None, False
            said = sum(map(len, pieces)) / FASTEST_VOICE
            self._spoken_until = max(self._spoken_until, now) + said
        if begin == len(self._text):
            self._due = None
        elif self._due is None and self._longest_wait is not None:
            self._due = max(now + self._longest_wait, self._spoken_until)
        if begin:
            if self._line >= begin:
                self._line -= begin
            elif self._line >= 0:
                self._line = -1 if self._text[self._line : begin].strip() else 0
            self._text = self._text[begin:]
            self._at = max(0, self._at - begin)
            self._open_end -= begin
            self._begin = 0
