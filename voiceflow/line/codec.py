"""The seam between a carrier's wire protocol and the shared source and sink: sans-IO.

A codec turns one message from the socket into line events, and audio, marks and clear into messages.
It never awaits, never reads a clock and holds no audio. Everything that costs thought - pacing, marks,
clear, the ledger - is shared by all carriers and lives in `voiceflow.line.sink`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from voiceflow.frames import AudioFormat


@dataclass(slots=True, frozen=True)
class LineStarted:
    """The stream is open; nothing may be sent before it. `call` and `stream` are the carrier's ids."""

    stream: str
    call: str
    format: AudioFormat
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class LineAudio:
    """Caller audio in the line's format. `at_ms` is the carrier's own clock, None when it has none."""

    audio: bytes
    at_ms: int | None = None


@dataclass(slots=True, frozen=True)
class LineDigit:
    """The caller pressed `digit`."""

    digit: str


@dataclass(slots=True, frozen=True)
class LineMark:
    """A mark of ours came back. That alone does not prove that it was heard: see the sink."""

    name: str


@dataclass(slots=True, frozen=True)
class LineStopped:
    """The carrier says that the stream is over."""

    reason: str


@dataclass(slots=True, frozen=True)
class LineIgnored:
    """A message that breaks the protocol but harms nothing: logged once per kind, then only counted.

    `kind` is short and constant ("bad JSON", "wrong streamSid"); `detail` quotes a few characters at most.
    """

    kind: str
    detail: str = ""


@dataclass(slots=True, frozen=True)
class LineRefused:
    """A message after which the stream cannot go on (for instance an audio format we do not speak)."""

    reason: str


LineEvent = LineStarted | LineAudio | LineDigit | LineMark | LineStopped | LineIgnored | LineRefused

Wire = str | bytes
"""What goes over the socket: text or binary messages, as the carrier likes it."""


class Codec(Protocol):
    """One carrier's protocol. One instance per stream: it may keep the stream's id."""

    name: str
    """The carrier, for logs: "twilio"."""
    format: AudioFormat
    """The audio it carries, known before the stream is open, so that processors can prepare for it."""
    has_marks: bool
    """The carrier reports when audio has been played. Without, the sink trusts its own clock."""
    frame_bytes: int
    """Audio is sent in multiples of this (160 bytes for 20 ms of mu-law)."""

    def parse(self, message: Wire) -> list[LineEvent]:
        """One message in, its events out, usually one. Never raises: what it cannot read is LineIgnored."""
        ...

    def audio(self, audio: bytes) -> Wire:
        """A message that plays `audio`. Valid only after LineStarted; ValueError before."""
        ...

    def mark(self, name: str) -> Wire:
        """A message that asks to be told when everything before it has been played."""
        ...

    def clear(self) -> Wire:
        """A message that throws away what the carrier has buffered."""
        ...
