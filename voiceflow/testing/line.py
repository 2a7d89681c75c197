"""A carrier with no protocol to speak of, for tests in memory: audio is bytes, the rest is words.

in    b"..." audio   "digit 5"   "mark NAME"   "stop"   anything else is ignored
out   b"..." audio   "mark NAME"   "clear"
"""

from __future__ import annotations

from voiceflow.frames import PHONE, AudioFormat
from voiceflow.line.codec import LineAudio, LineDigit, LineEvent, LineIgnored, LineMark, LineStopped, Wire


class MemoryCodec:
    """See the module. `has_marks=False` imitates a carrier that does not say when it has played."""

    name = "memory"

    def __init__(self, *, has_marks: bool = True, format: AudioFormat = PHONE) -> None:
        self.has_marks = has_marks
        self.format = format
        self.frame_bytes = format.rate // 50 * format.sample_bytes

    def parse(self, message: Wire) -> list[LineEvent]:
        if isinstance(message, bytes):
            return [LineAudio(message)]
        match message.split():
            case ["digit", digit]:
                return [LineDigit(digit)]
            case ["mark", name]:
                return [LineMark(name)]
            case ["stop"]:
                return [LineStopped("the caller hung up")]
            case _:
                return [LineIgnored("unknown message", message[:20])]

    def audio(self, audio: bytes) -> Wire:
        return audio

    def mark(self, name: str) -> Wire:
        return f"mark {name}"

    def clear(self) -> Wire:
        return "clear"
