"""Speech that spells itself: each character is 60 ms of mu-law audio whose bytes say which character it is.

A fake text-to-speech speaks it, a fake recogniser reads it back without an error, and a test can tell from
the audio that reached the caller's ear which words were heard, to the character. Printable ASCII only; the
top bit is the sign of the sample and flips every 20 samples, so it is a 200 Hz buzz and not a constant.
"""

from __future__ import annotations

import numpy as np

CHARACTER = 480
"""Samples of one character: 60 ms at 8 kHz, 16.7 characters a second, about as people speak."""
RATE = 8000
SILENCE = 0xFF
"""The byte of silence; 0x7F decodes to 0 too. Neither is a character."""
FIRST, LAST = 0x20, 0x7E
"""The characters there are."""
UNSIGNED = bytes(code & 0x7F for code in range(256))
"""For `bytes.translate`: takes the sign away, which leaves the character."""


def seconds(text: str, character: int = CHARACTER) -> float:
    """How long `text` takes to say."""
    return len(text) * character / RATE


def spell(text: str, character: int = CHARACTER) -> bytes:
    """Mu-law audio of `text` at 8 kHz. ValueError for anything but printable ASCII."""
    if not all(FIRST <= ord(c) <= LAST for c in text):
        raise ValueError(f"only printable ASCII can be spelled: {text!r}")
    half = bytes(20)
    out = bytearray()
    for c in text:
        low, high = bytes([ord(c)]) * len(half), bytes([ord(c) | 0x80]) * len(half)
        out += ((low + high) * (character // 40 + 1))[:character]
    return bytes(out)


def read(audio: bytes, character: int = CHARACTER) -> str:
    """The text in `audio`. Silence counts for nothing; a character counts once half of it is there."""
    spoken = np.frombuffer(audio.translate(UNSIGNED, delete=b"\x7f\xff"), np.uint8)
    if not len(spoken):
        return ""
    starts = np.concatenate(([0], np.flatnonzero(np.diff(spoken)) + 1))
    runs = zip(spoken[starts], np.diff(starts, append=len(spoken)), strict=True)
    return "".join(chr(v) * characters(int(run), character) for v, run in runs if v >= FIRST)


def characters(samples: int, character: int = CHARACTER) -> int:
    """How many times a character stands in a run of `samples` of it."""
    return (samples + character // 2) // character
