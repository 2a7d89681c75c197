"""Where somebody pauses, by how loud the audio is: the place to go on from when nobody told the words."""

from __future__ import annotations

from array import array

from voiceflow.frames import AudioFormat

PAUSE = 0.04
"""Seconds of the window that is looked for. Pauses between words are 50 ms and longer where there are any."""
STEP = 0.01
"""Seconds between two windows."""
QUIETER = 0.5
"""How loud a pause is at most, of the whole. Loudness is counted in steps of about 6 dB / 16, as the ear has
it: half of speech at -20 dB is -45 dB."""

_LOUDNESS = bytes(0x7F - (code & 0x7F) for code in range(256))
"""Of a mu-law byte: it is a logarithm already."""


def pause(audio: bytes, format: AudioFormat) -> int | None:
    """The sample in the middle of the quietest 40 ms of `audio`; the last such. None when nothing in it is a
    pause. Takes 0.2 ms for a second of mu-law, 2 ms for PCM at 8 kHz."""
    levels = _levels(audio, format)
    window, step = round(PAUSE * format.rate), round(STEP * format.rate)
    if len(levels) < window:
        return None
    parts = [sum(levels[i : i + step]) for i in range(0, len(levels) - step + 1, step)]
    width = window // step
    loud = [sum(parts[i : i + width]) for i in range(len(parts) - width + 1)]
    quietest = min(loud)
    if quietest / window > QUIETER * sum(levels) / len(levels):
        return None
    last = max(i for i, level in enumerate(loud) if level == quietest)
    return last * step + window // 2


def _levels(audio: bytes, format: AudioFormat) -> bytes:
    """A loudness from 0 to 127 for each sample."""
    if format.encoding == "mulaw":
        return audio.translate(_LOUDNESS)
    samples = array("h", audio[: len(audio) // 2 * 2])
    return bytes(min(127, 8 * max(0, abs(sample).bit_length() - 1)) for sample in samples)
