"""Twilio Media Streams as a codec: our end of the wire, sans-IO.

    from Twilio   connected, start, media (20 ms, 160 bytes of mu-law in base64), dtmf, mark, stop
    to Twilio     media (any length), mark, clear; each names the stream, so nothing can precede `start`

Every number arrives as a JSON string. Source: twilio.com/docs/voice/media-streams/websocket-messages.
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from typing import Any

from voiceflow.frames import PHONE
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

DIGITS = frozenset("0123456789*#ABCD")
CALLER_TRACKS = ("inbound", "inbound_track")
"""`media` says "inbound", `dtmf` says "inbound_track"; "outbound" would be our own voice coming back."""


class TwilioCodec:
    """One Media Stream. Implements `voiceflow.line.codec.Codec`; one instance per socket."""

    name = "twilio"
    format = PHONE
    has_marks = True
    frame_bytes = 160

    __slots__ = ("_head", "_stopped", "_stream")

    def __init__(self) -> None:
        self._stream: str | None = None
        self._stopped = False
        # What every message begins with, rendered once: eight times faster than json.dumps of the whole.
        self._head = ""

    # -- from Twilio -------------------------------------------------------------------------------

    def parse(self, message: Wire) -> list[LineEvent]:
        """One WebSocket message in, its events out.

        Never raises. `connected` gives nothing. A format that is not mu-law, 8000 Hz, mono gives
        LineRefused; whatever else breaks the protocol gives LineIgnored.
        """
        if not isinstance(message, str):
            return [LineIgnored("binary message", f"{len(message)} bytes")]
        try:
            body = json.loads(message)
        except (ValueError, RecursionError):
            return [LineIgnored("bad JSON", _quote(message))]
        if not isinstance(body, dict):
            return [LineIgnored("not an object", _quote(message))]
        event = body.get("event")
        if self._stream is None:
            return self._before_start(event, body)
        if body.get("streamSid") != self._stream:
            return [LineIgnored("wrong streamSid", _quote(event))]
        if self._stopped:
            return [LineIgnored("message after stop", _quote(event))]
        if event == "media":
            return _media(body.get("media"))
        if event == "mark":
            return _mark(body.get("mark"))
        if event == "dtmf":
            return _digit(body.get("dtmf"))
        if event == "stop":
            self._stopped = True
            return [LineStopped("Twilio stopped the stream")]
        if event in ("start", "connected"):
            return [LineIgnored(f"second {event}")]
        return [LineIgnored("unknown event", _quote(event))]

    def _before_start(self, event: Any, body: dict[str, Any]) -> list[LineEvent]:
        if event == "connected":
            return []
        if event != "start":
            return [LineIgnored("message before start", _quote(event))]
        start, stream = body.get("start"), body.get("streamSid")
        if not isinstance(start, dict):
            return [LineIgnored("bad start", "no start object")]
        call = start.get("callSid")
        if not (isinstance(stream, str) and stream and start.get("streamSid", stream) == stream):
            return [LineIgnored("bad start", "streamSid missing, or two that differ")]
        if not (isinstance(call, str) and call):
            return [LineIgnored("bad start", "callSid missing")]
        if refusal := _refusal(start.get("mediaFormat")):
            return [LineRefused(refusal)]
        given = start.get("customParameters")
        parameters = {
            name: value
            for name, value in (given.items() if isinstance(given, dict) else ())
            if isinstance(value, str)
        }
        self._stream = stream
        self._head = f'{{"streamSid":{json.dumps(stream)},"event":'
        return [LineStarted(stream, call, PHONE, parameters)]

    # -- to Twilio ---------------------------------------------------------------------------------

    def audio(self, audio: bytes) -> Wire:
        """A `media` message. Raw mu-law, no header; multiples of 160 bytes avoid audible jitter."""
        payload = b2a_base64(audio, newline=False).decode("ascii")
        return f'{self._started()}"media","media":{{"payload":"{payload}"}}}}'

    def mark(self, name: str) -> Wire:
        """A `mark` message. It comes back when all audio sent before it was played, or at `clear`."""
        return f'{self._started()}"mark","mark":{{"name":{json.dumps(name)}}}}}'

    def clear(self) -> Wire:
        """A `clear` message. Its only answer is that every outstanding mark comes back."""
        return f'{self._started()}"clear"}}'

    def _started(self) -> str:
        if not self._head:
            raise ValueError("Twilio has not sent `start` yet: nothing can be sent before it")
        return self._head


def _refusal(given: Any) -> str:
    """Why this mediaFormat cannot be spoken; empty when it can."""
    if not isinstance(given, dict):
        return "start says no mediaFormat"
    encoding, rate, channels = given.get("encoding"), given.get("sampleRate"), given.get("channels")
    if encoding == "audio/x-mulaw" and _number(rate) == 8000 and _number(channels) == 1:
        return ""
    said = f"{_quote(encoding)}, {_quote(rate)} Hz, {_quote(channels)} channels"
    return f"the stream is {said}; only audio/x-mulaw, 8000 Hz, 1 channel is spoken here"


def _media(media: Any) -> list[LineEvent]:
    try:
        audio = a2b_base64(media["payload"], strict_mode=True)
    except (KeyError, TypeError, ValueError):  # binascii.Error is a ValueError
        return [LineIgnored("bad media", "payload missing or not base64")]
    if not audio:
        return [LineIgnored("bad media", "empty payload")]
    if media.get("track", "inbound") not in CALLER_TRACKS:
        return [LineIgnored("wrong track", _quote(media.get("track")))]
    at = _number(media.get("timestamp"))
    if at is None:  # the sound is good, only its label is not: keep the caller's words, and say so
        return [LineAudio(audio), LineIgnored("bad timestamp", _quote(media.get("timestamp")))]
    return [LineAudio(audio, at)]


def _mark(mark: Any) -> list[LineEvent]:
    name = mark.get("name") if isinstance(mark, dict) else None
    return [LineMark(name) if isinstance(name, str) else LineIgnored("bad mark", "name missing")]


def _digit(dtmf: Any) -> list[LineEvent]:
    digit = dtmf.get("digit") if isinstance(dtmf, dict) else None
    if isinstance(digit, str) and digit in DIGITS:
        return [LineDigit(digit)]
    return [LineIgnored("bad digit", _quote(digit))]


def _number(value: Any) -> int | None:
    """A count that is not negative, written as a number or as a string; None when it is neither."""
    try:
        number = int(str(value))
    except (ValueError, RecursionError):
        return None
    return number if number >= 0 else None


def _quote(value: Any) -> str:
    """A few characters of something the other side wrote, safe for any log."""
    if isinstance(value, str):
        return ascii(value[:12])
    return ascii(value)[:12] if isinstance(value, int | float | None) else type(value).__name__
