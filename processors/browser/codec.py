"""A browser's line as a codec: our end of the wire, sans-IO.

Audio is binary, both ways: 16-bit PCM, little-endian, mono, 16 kHz. Everything else is JSON in text messages.

    from the page                                          means
    {"type": "start", "call": ID, "rate": 16000}           the first message; ID as the page was given it
    binary                                                 the microphone: 20 ms (640 bytes) as a rule
    {"type": "mark", "name": NAME}                         everything before this mark was played, or cleared
    {"type": "key", "key": "5"}                            a key of the telephone: 0-9 * # A-D
    {"type": "stop"}                                       the caller hung up

    to the page                                            means
    binary                                                 play this after what is there
    {"type": "mark", "name": NAME}                         send it back when everything before it was played
    {"type": "clear"}                                      throw away what is not played; all marks come back

Marks and `clear` mean what they mean on a telephone line: a mark that comes back after a `clear` proves
nothing. Over the same socket the page is also told what happens in the call (`screen.py`), in messages of
other types, which nobody answers.
"""

from __future__ import annotations

import json
from typing import Any

from voiceflow.frames import AudioFormat
from voiceflow.line.codec import (
    LineAudio,
    LineDigit,
    LineEvent,
    LineIgnored,
    LineMark,
    LineRefused,
    LineStarted,
    LineStopped,
    Wire,
)

WIDEBAND = AudioFormat("pcm16", 16_000)
"""What a browser's line carries: 640 bytes every 20 ms."""
DIGITS = frozenset("0123456789*#ABCD")
NAME_LENGTH = 100
"""Characters of a mark's name that is believed; ours are shorter."""
CLEAR = '{"type":"clear"}'


class BrowserCodec:
    """One page's line. Implements `voiceflow.line.codec.Codec`; one instance per socket."""

    name = "browser"
    format = WIDEBAND
    has_marks = True
    frame_bytes = 640

    __slots__ = ("_started", "_stopped")

    def __init__(self) -> None:
        self._started = False
        self._stopped = False

    # -- from the page -----------------------------------------------------------------------------

    def parse(self, message: Wire) -> list[LineEvent]:
        """One WebSocket message in, its events out.

        Never raises. A rate that is not 16 kHz gives LineRefused; whatever else breaks the protocol gives
        LineIgnored.
        """
        if self._stopped:
            return [LineIgnored("message after stop")]
        if not isinstance(message, str):
            return [self._audio(message)]
        try:
            body = json.loads(message)
        except (ValueError, RecursionError):
            return [LineIgnored("bad JSON", _quote(message))]
        if not isinstance(body, dict):
            return [LineIgnored("not an object", _quote(message))]
        kind = body.get("type")
        if not self._started:
            return [self._start(kind, body)]
        match kind:
            case "mark":
                return [_mark(body.get("name"))]
            case "key":
                return [_digit(body.get("key"))]
            case "stop":
                self._stopped = True
                return [LineStopped("the caller hung up")]
            case "start":
                return [LineIgnored("second start")]
        return [LineIgnored("unknown type", _quote(kind))]

    def _audio(self, audio: bytes) -> LineEvent:
        if not self._started:
            return LineIgnored("audio before start", f"{len(audio)} bytes")
        if not audio or len(audio) % 2:
            return LineIgnored("bad audio", f"{len(audio)} bytes")
        return LineAudio(audio)

    def _start(self, kind: Any, body: dict[str, Any]) -> LineEvent:
        if kind != "start":
            return LineIgnored("message before start", _quote(kind))
        call, rate = body.get("call"), body.get("rate")
        if not (isinstance(call, str) and call):
            return LineIgnored("bad start", "call missing")
        if type(rate) is not int or rate != WIDEBAND.rate:
            return LineRefused(f"the page sends {_quote(rate)} Hz; only {WIDEBAND.rate} Hz is spoken here")
        self._started = True
        return LineStarted(call, call, WIDEBAND)

    # -- to the page -------------------------------------------------------------------------------

    def audio(self, audio: bytes) -> Wire:
        """The samples themselves."""
        self._sendable()
        return audio

    def mark(self, name: str) -> Wire:
        """It comes back when all audio sent before it was played, or at `clear`."""
        self._sendable()
        return f'{{"type":"mark","name":{json.dumps(name)}}}'

    def clear(self) -> Wire:
        """Its only answer is that every outstanding mark comes back."""
        self._sendable()
        return CLEAR

    def _sendable(self) -> None:
        if not self._started:
            raise ValueError("the page has not sent `start` yet: nothing can be sent before it")


def _mark(name: Any) -> LineEvent:
    if isinstance(name, str) and len(name) <= NAME_LENGTH:
        return LineMark(name)
    return LineIgnored("bad mark", "name missing")


def _digit(key: Any) -> LineEvent:
    return LineDigit(key) if isinstance(key, str) and key in DIGITS else LineIgnored("bad key", _quote(key))


def _quote(value: Any) -> str:
    """A few characters of something the other side wrote, safe for any log."""
    if isinstance(value, str):
        return ascii(value[:12])[:40]
    return ascii(value)[:12] if isinstance(value, int | float | None) else type(value).__name__
