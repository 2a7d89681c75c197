"""How a fake text-to-speech speaks: audio, spelled unless the vendor has another voice, cut into messages
that keep their absolute times."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from tests.vendors.speaking import SpeakingVendor, Utterance
from tests.vendors.spelled import CHARACTER, FIRST, LAST, RATE, spell
from tests.vendors.timing import sleep_until
from voiceflow.audio import decode, encode
from voiceflow.frames import AudioFormat


@dataclass(slots=True, frozen=True)
class Part:
    """The audio of one message."""

    utterance: Utterance
    audio: bytes
    """Mu-law at 8 kHz."""
    characters: list[tuple[str, int]]
    """Those that begin in it, with their milliseconds from its first sample. The last may reach beyond."""
    length: float
    """Milliseconds of a character."""

    @property
    def seconds(self) -> float:
        return len(self.audio) / RATE


@dataclass(slots=True, frozen=True)
class _Piece:
    text: str
    at: float
    utterance: Utterance


@dataclass(slots=True, frozen=True)
class _Then:
    do: Callable[[], Awaitable[None]]
    sticky: bool


class Voice:
    """Speaks pieces of text one after another; between them it does what was put there with `then`.

    `emit` sends a part, and says False when there is no point in going on with that piece.
    """

    def __init__(self, vendor: SpeakingVendor, emit: Callable[[Part], Awaitable[bool]]) -> None:
        self._vendor = vendor
        self._emit = emit
        self._queue: deque[_Piece | _Then] = deque()
        self._forgotten: list[tuple[str, Utterance]] = []
        """Logged as cancelled behind what is left of the running piece, in the order of the text."""
        self._news = asyncio.Event()
        self._running: _Piece | None = None
        self._left = math.inf
        """Messages that the running piece may still send."""
        self._silenced = asyncio.Event()
        self._free = -math.inf
        """When everything up to now is generated."""
        self._over = False

    def say(self, text: str, utterance: Utterance) -> None:
        """Generates `text`: its audio begins `delay` after this, or when all before it is generated."""
        self._put(_Piece(text, asyncio.get_running_loop().time(), utterance))

    def then(self, do: Callable[[], Awaitable[None]], *, sticky: bool = False) -> None:
        """Does `do` when everything before it is spoken. A sticky one survives `cut`."""
        self._put(_Then(do, sticky))

    def cut(self, late: int = 0, *, since: float = -math.inf) -> None:
        """Forgets the pieces from `since` on that have not begun, and what waited for them. The running one
        sends up to `late` messages more: what a service that generates ahead has in its hands."""
        kept: deque[_Piece | _Then] = deque()
        for item in self._queue:
            if item.sticky if isinstance(item, _Then) else item.at < since:
                kept.append(item)
            elif isinstance(item, _Piece):
                self._forgotten.append((item.text, item.utterance))
        self._queue = kept
        self._log_forgotten()
        if self._running is not None and self._running.at >= since:
            self._left = min(self._left, late)
            if self._left == 0:
                self._silenced.set()

    def forget(self, text: str, utterance: Utterance) -> None:
        """Takes note of text that is not going to be spoken."""
        self._forgotten.append((text, utterance))
        self._log_forgotten()

    def stop(self) -> None:
        """Ends `run`."""
        self.cut()
        self._over = True
        self._news.set()

    async def run(self) -> None:
        """Speaks until `stop`."""
        try:
            while not self._over:
                if not self._queue:
                    self._news.clear()
                    await self._news.wait()
                elif isinstance(item := self._queue.popleft(), _Piece):
                    await self._speak(item)
                else:
                    await item.do()
        finally:
            self.cut()

    def _put(self, item: _Piece | _Then) -> None:
        self._queue.append(item)
        self._news.set()

    def _log_forgotten(self) -> None:
        if self._running is None:
            for text, utterance in self._forgotten:
                utterance.cancelled += text
            self._forgotten.clear()

    async def _speak(self, piece: _Piece) -> None:
        vendor, loop = self._vendor, asyncio.get_running_loop()
        start = max(piece.at + vendor.delay, self._free)
        size, total, sent = max(1, round(vendor.chunk * RATE)), len(piece.text) * CHARACTER, 0
        self._running, self._left = piece, math.inf
        self._silenced.clear()
        vendor.tell("generates", piece.text)
        vendor.generating += 1
        vendor.peak = max(vendor.peak, vendor.generating)
        try:
            sound = b"" if vendor.synthesize is None else await vendor.synthesize(piece.text)
            total = len(sound) or total
            while sent < total and self._left > 0:
                due = start + sent / RATE / vendor.pace
                if due > loop.time():
                    await sleep_until(due, unless=self._silenced)
                part = _part(piece, sound, total, sent, min(sent + size, total))
                if self._left <= 0 or not await self._emit(part):
                    break
                self._left -= 1
                sent += len(part.audio)
        finally:
            vendor.generating -= 1
            self._running = None
            self._free = start + sent / RATE / vendor.pace
            whole = sent * len(piece.text) // total
            piece.utterance.said += piece.text[:whole]
            piece.utterance.cancelled += piece.text[whole:]
            self._log_forgotten()


def to_format(audio: bytes, format: AudioFormat) -> bytes:
    """Mu-law at 8 kHz in another encoding, and at a multiple of its rate by repeating samples."""
    if format == AudioFormat("mulaw", RATE):
        return audio
    return encode(np.repeat(decode(audio), format.rate // RATE), format)


def from_format(audio: bytes, format: AudioFormat) -> bytes:
    """The way back, to what `spelled.read` understands."""
    return encode(decode(audio, format)[:: format.rate // RATE])


def _part(piece: _Piece, sound: bytes, total: int, begin: int, end: int) -> Part:
    """The samples from `begin` to `end` of `total`, over which the characters are spread evenly."""
    count = len(piece.text)
    beginning = range(-(-begin * count // total), -(-end * count // total))
    at = [(piece.text[i], round((i * total / count - begin) * 1000 / RATE)) for i in beginning]
    audio = sound[begin:end] or _spelled(piece.text, begin, end)
    return Part(piece.utterance, audio, at, total / count * 1000 / RATE)


def _spelled(text: str, begin: int, end: int) -> bytes:
    """Those samples of `text`. No others are made, so that a long text takes no memory."""
    first, last = begin // CHARACTER, -(-end // CHARACTER)
    return spell(_spellable(text[first:last]))[begin - first * CHARACTER : end - first * CHARACTER]


def _spellable(text: str) -> str:
    """Blanks of all kinds as a space, what is no printable ASCII as "?"."""
    return "".join(" " if c.isspace() else c if FIRST <= ord(c) <= LAST else "?" for c in text)
