"""Twilio's end of a Media Stream, sans-IO: the mirror of `processors.twilio.codec`.

It writes what Twilio sends and reads what a server may send, and complains in Twilio's own error codes.
For the simulated caller and for tests. Sources: twilio.com/docs/voice/media-streams/websocket-messages,
twilio.com/docs/api/errors.
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FRAME_SAMPLES = 160
"""One `media` message: 20 ms at 8 kHz, one byte of mu-law each."""

CONNECT_TIMED_OUT = 31901
CANNOT_CONNECT = 31902
CONNECTION_BROKE = 31903
UPGRADE_REFUSED = 31920
NOT_A_STREAM_URL = 31922
MALFORMED_URL = 31923
AUDIO_DISCARDED = 31931
BAD_TRACK = 31941
BINARY_MESSAGE = 31950
INVALID_MESSAGE = 31951


@dataclass(slots=True, frozen=True)
class Play:
    """The server sent audio: mu-law, any length."""

    audio: bytes


@dataclass(slots=True, frozen=True)
class Mark:
    """The server wants to be told when the audio before this has been played."""

    name: str


@dataclass(slots=True, frozen=True)
class Clear:
    """The server wants the buffered audio thrown away."""


@dataclass(slots=True, frozen=True)
class Complaint:
    """A message that Twilio would ignore, with the warning that it would log."""

    code: int
    detail: str


Command = Play | Mark | Clear | Complaint


class CarrierCodec:
    """Both directions of one stream. `start_overrides` replaces fields of the `start` object, for tests
    that need a liar."""

    def __init__(
        self,
        *,
        stream: str,
        call: str,
        account: str,
        parameters: Mapping[str, str],
        start_overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self.stream = stream
        self._call = call
        self._account = account
        self._parameters = dict(parameters)
        self._overrides = dict(start_overrides or {})
        self._sequence = 0

    # -- to the server -----------------------------------------------------------------------------

    def connected(self) -> str:
        """The first message. It names no stream and has no sequence number."""
        return _dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})

    def start(self) -> str:
        """The second message."""
        return self._message(
            "start",
            {
                "accountSid": self._account,
                "streamSid": self.stream,
                "callSid": self._call,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": self._parameters,
                **self._overrides,
            },
        )

    def media(self, audio: bytes, frame: int) -> str:
        """Caller audio; `frame` counts from 0 and gives chunk and timestamp (ms since the start)."""
        return self._message(
            "media",
            {
                "track": "inbound",
                "chunk": str(frame + 1),
                "timestamp": str(frame * 20),
                "payload": b2a_base64(audio, newline=False).decode("ascii"),
            },
        )

    def dtmf(self, digit: str) -> str:
        """A key the caller pressed."""
        return self._message("dtmf", {"track": "inbound_track", "digit": digit})

    def mark(self, name: str) -> str:
        """A mark on its way back."""
        return self._message("mark", {"name": name})

    def stop(self) -> str:
        """The last message."""
        return self._message("stop", {"accountSid": self._account, "callSid": self._call})

    def _message(self, event: str, content: dict[str, Any]) -> str:
        self._sequence += 1
        head = {"event": event, "sequenceNumber": str(self._sequence), "streamSid": self.stream}
        return _dumps({**head, event: content})

    # -- from the server ---------------------------------------------------------------------------

    def read(self, message: str | bytes) -> Command:
        """What one message of the server asks for. Never raises: see Complaint."""
        if not isinstance(message, str):
            return Complaint(BINARY_MESSAGE, "binary message")
        try:
            body = json.loads(message)
        except (ValueError, RecursionError):
            return Complaint(INVALID_MESSAGE, "bad JSON")
        if not isinstance(body, dict):
            return Complaint(INVALID_MESSAGE, "not an object")
        event = body.get("event")
        if event not in ("media", "mark", "clear"):
            return Complaint(INVALID_MESSAGE, "unknown event")
        if body.get("streamSid") != self.stream:
            return Complaint(INVALID_MESSAGE, "wrong streamSid")
        if event == "clear":
            return Clear() if len(body) == 2 else Complaint(INVALID_MESSAGE, "extra field in clear")
        return _content(event, body)


def _content(event: str, body: dict[str, Any]) -> Command:
    field = "payload" if event == "media" else "name"
    content = body.get(event)
    value = content.get(field) if isinstance(content, dict) else None
    if not (isinstance(value, str) and isinstance(content, dict)):
        return Complaint(INVALID_MESSAGE, f"{event} without {field}")
    if len(body) > 3 or len(content) > 1:
        return Complaint(INVALID_MESSAGE, f"extra field in {event}")
    if event == "mark":
        return Mark(value)
    try:
        return Play(a2b_base64(value, strict_mode=True))
    except ValueError:
        return Complaint(INVALID_MESSAGE, "payload is not base64")


def _dumps(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
