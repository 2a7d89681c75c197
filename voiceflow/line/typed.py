"""A line that is typed: text takes the place of audio, from the end of the turn to the sink.

    TypedTurns ──▶ the processors that need no audio ──▶ Typewriter ──▶ LineSink ──▶ TypedLink
    TurnEnd                                              AudioOut                    shows it
    Prompt                                               a letter is a sample

A sample of this line is a letter, written in UTF-16, and its rate is how many are shown in a second. So
pacing, the ledger, interruptions and the history are those of a phone call: what was shown was heard.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections.abc import Callable

from voiceflow.engine.processor import Processor, on
from voiceflow.engine.reply import Reply
from voiceflow.frames import (
    AudioFormat,
    AudioOut,
    CallStart,
    Dtmf,
    Interrupt,
    ReplyEnd,
    Sentence,
    Transcript,
    Word,
)
from voiceflow.line.codec import LineEvent, LineIgnored, Wire
from voiceflow.line.link import Link

AT_ONCE = 1_000_000
"""Letters a second when nobody should wait: a page is heard in 2 ms."""
LETTERS = "utf-16-le"
INTERRUPTED = "the caller interrupted"


class TypedCodec:
    """Sends text as it is. `rate` in letters a second."""

    name = "typed"
    has_marks = False
    frame_bytes = 2

    def __init__(self, rate: int = AT_ONCE) -> None:
        self.format = AudioFormat("pcm16", rate)

    def parse(self, message: Wire) -> list[LineEvent]:
        return [LineIgnored("a message: what is typed does not come over the link")]

    def audio(self, audio: bytes) -> Wire:
        return audio

    def mark(self, name: str) -> Wire:
        return ""

    def clear(self) -> Wire:
        return ""


class TypedLink(Link):
    """`show(text)` is called with what the agent says, piece by piece."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._open = True
        self._show = show
        self._decoder = getincrementaldecoder(LETTERS)("replace")  # a piece may end inside a letter

    @property
    def is_open(self) -> bool:
        return self._open

    async def send(self, message: Wire) -> None:
        self.send_at_once(message)

    def send_at_once(self, message: Wire) -> bool:
        if isinstance(message, bytes) and (text := self._decoder.decode(message)):
            self._show(text)
        return True

    async def receive(self) -> Wire | None:
        return None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._open = False


class TypedTurns(Processor):
    """The turn's authority: a line that was typed is a turn."""

    takes_turns = True
    emits = (Transcript, Dtmf)

    @on(CallStart)
    def open(self, start: CallStart) -> None:
        """Needs the line, and nothing from it."""

    def say(self, text: str) -> None:
        """The caller says it; what the agent is saying is interrupted, unless that is protected."""
        self.turns.started()
        self.push(Transcript(text, final=True))
        self.turns.ended(text)

    def press(self, keys: str) -> None:
        for key in keys:
            self.push(Dtmf(key))

    def interrupt(self) -> bool:
        """Stops what the agent is saying or preparing; False when there is nothing, or it is protected."""
        if self.turns.live is None or self.turns.protected:
            return False
        self.turns.stop(INTERRUPTED)
        return True


class Typewriter(Processor):
    """The voice of a typed line: each letter of a Sentence is a sample. Sounds are left out."""

    emits = (AudioOut,)

    def __init__(self) -> None:
        self._begun: set[Reply] = set()  # replies that are not over: two at most

    @on(Sentence)
    def write(self, sentence: Sentence) -> AudioOut:
        reply = sentence.reply
        assert reply is not None
        gap = " " if reply in self._begun else ""
        self._begun.add(reply)
        rate = self.call.line.format.rate
        words = []
        for found in re.finditer(r"\S+", sentence.text):
            end = _letters(gap + sentence.text[: found.end()])
            words.append(Word(found[0], (end - _letters(found[0])) / rate, end / rate))
        audio = f"{gap}{sentence.text}".encode(LETTERS, "replace")
        return AudioOut(audio, sentence.text, tuple(words), protected=sentence.protected)

    @on(AudioOut, stops=True)
    def sound(self, audio: AudioOut) -> None: ...

    @on(ReplyEnd)
    def end(self, end: ReplyEnd) -> ReplyEnd:
        if end.reply is not None:
            self._begun.discard(end.reply)
        return end

    @on(Interrupt)
    def cut(self, interrupt: Interrupt) -> None:
        self._begun.discard(interrupt.dead)


def _letters(text: str) -> int:
    """Samples that it takes: two for what is not in the first 65,536 letters of Unicode."""
    return len(text.encode(LETTERS, "replace")) // 2
