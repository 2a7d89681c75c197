"""SentenceAggregator: tokens of a language model in, sentences for a voice out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from processors.sentences.splitter import Splitter
from processors.sentences.stops import NEVER
from voiceflow.engine.processor import Processor, on
from voiceflow.engine.reply import Reply
from voiceflow.errors import DeclarationError
from voiceflow.frames import AudioOut, Interrupt, ReplyEnd, Sentence, Token


@dataclass(slots=True)
class _Growing:
    """The text of one reply, and the timer that ends its waiting. `due` is when the timer will ring."""

    splitter: Splitter
    timer: asyncio.TimerHandle | None = None
    due: float = 0.0

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class SentenceAggregator(Processor):
    """Gives a Sentence on the very token that completes it, and the rest before ReplyEnd.

    The parameters bound how long the caller waits for a voice:

    `patience` - seconds that an undecidable stop may wait for the next token. The stop of "$3." may be the
    middle of "$3.50"; that of "Hello there." is the end, and nothing waits. A model slower than 16 tokens a
    second wants more than these 60 ms, or its "3.50" may be read as two numbers.

    `first_clause` - the first piece of a reply may end at a comma, semicolon, colon or dash after this many
    characters, if its sentence is not there yet. While 20 characters are spoken (1.3 s), a model of 20 tokens
    a second gives the next 100 and the voice makes its first sound of them: no gap. A shorter "Well," would
    be followed by one. 0 or None: whole sentences only.

    `longest_wait` - seconds that the beginning of a sentence may wait for its end while the caller hears
    nothing; then what there is of it is said (3 words or more, never half a word). After 1.5 s of silence
    people ask whether somebody is there. While earlier pieces are still being spoken, by an estimate that
    errs on the early side, nothing is cut. None: no bound.

    `max_chars` - a run without a stop is cut before this many characters, after a clause if there is one. 200
    are 13 s of speech, more than nearly every sentence that is meant to be heard.

    `abbreviations` - words of your own whose stop never ends a sentence: ("Sra.", "Abt").

    Several replies at a time are kept apart. A token costs 2 us; of a reply a piece and a token are held at
    most. Raises DeclarationError for parameters that make no sense.
    """

    needs = (Token,)
    emits = (Sentence,)

    def __init__(
        self,
        *,
        patience: float = 0.06,
        first_clause: int | None = 20,
        longest_wait: float | None = 1.5,
        max_chars: int = 200,
        abbreviations: Iterable[str] = (),
    ) -> None:
        if patience < 0 or (first_clause or 0) < 0 or max_chars < 20:
            raise DeclarationError(
                f"SentenceAggregator(patience={patience}, first_clause={first_clause}, "
                f"max_chars={max_chars}): seconds and characters, 0 or more, and pieces of 20 at least"
            )
        if longest_wait is not None and longest_wait <= 0:
            raise DeclarationError(
                f"SentenceAggregator(longest_wait={longest_wait}): seconds above 0, or None for no bound"
            )
        if isinstance(abbreviations, str):
            raise DeclarationError(
                f"SentenceAggregator(abbreviations=({abbreviations!r},)): a tuple of words"
            )
        self._patience = patience
        self._first_clause = first_clause or 0
        self._longest_wait = longest_wait
        self._max_chars = max_chars
        self._never = NEVER | {word.rstrip(".") for word in abbreviations}
        # One live or held reply and one draft; what has died without an Interrupt is dropped by the next.
        self._replies: dict[Reply, _Growing] = {}

    @on(Token)
    def token(self, token: Token) -> Iterator[Sentence]:
        reply = token.reply
        assert reply is not None
        growing = self._replies.get(reply) or self._begin(reply)
        for piece in growing.splitter.feed(token.text, self.call.loop.time()):
            yield Sentence(piece)
        due = growing.splitter.deadline
        if due is not None and (growing.timer is None or due < growing.due):
            self._wait(reply, growing, due)

    @on(ReplyEnd)
    def end(self, end: ReplyEnd) -> Iterator[Sentence | ReplyEnd]:
        assert end.reply is not None
        yield from self._rest(end.reply)
        yield end

    @on(Sentence, AudioOut)
    def spoken(self, frame: Sentence | AudioOut) -> Iterator[Sentence | AudioOut]:
        """Somebody upstream speaks in this reply without tokens: what came before is said before."""
        assert frame.reply is not None
        yield from self._rest(frame.reply)
        yield frame

    @on(Interrupt)
    def forget(self, interrupt: Interrupt) -> None:
        self._drop(interrupt.dead)

    async def stop(self) -> None:
        for reply in list(self._replies):
            self._drop(reply)

    def _begin(self, reply: Reply) -> _Growing:
        for dead in [known for known in self._replies if known.dead]:
            self._drop(dead)
        splitter = Splitter(
            patience=self._patience,
            first_clause=self._first_clause,
            longest_wait=self._longest_wait,
            max_chars=self._max_chars,
            never=self._never,
        )
        growing = self._replies[reply] = _Growing(splitter)
        return growing

    def _drop(self, reply: Reply) -> _Growing | None:
        growing = self._replies.pop(reply, None)
        if growing is not None:
            growing.stop()
        return growing

    def _rest(self, reply: Reply) -> Iterator[Sentence]:
        growing = self._drop(reply)
        for piece in growing.splitter.flush() if growing is not None else ():
            yield Sentence(piece)

    # -- waiting

    def _wait(self, reply: Reply, growing: _Growing, due: float) -> None:
        """Sets the timer. One that rings too early, because its piece is gone, is set again when it rings:
        cheaper than to move it at every sentence."""
        growing.stop()
        growing.due = due
        growing.timer = self.call.loop.call_at(due, self._ring, reply, growing)

    def _ring(self, reply: Reply, growing: _Growing) -> None:
        growing.timer = None
        if reply.dead:
            self._drop(reply)
            return
        # A timer may ring a clock's step before its time.
        for piece in growing.splitter.expire(max(growing.due, self.call.loop.time())):
            self.push(Sentence(piece, reply=reply))
        due = growing.splitter.deadline
        if due is not None:
            self._wait(reply, growing, due)
