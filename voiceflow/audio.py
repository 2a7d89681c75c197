"""Samples and the bytes they travel in: G.711 mu-law, 16-bit PCM and WAV files.

All samples here are mono int16 in a numpy array of shape [n]. Mu-law is table look-up both ways; the
tables equal CPython's `audioop` (ITU-T G.711) for all 256 codes and all 65,536 samples.

numpy is imported at the top, so import this module where it is needed rather than at start-up.
"""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voiceflow.errors import VoiceflowError
from voiceflow.frames import PHONE, AudioFormat

Samples = NDArray[np.int16]

WAV_BLOCK = 65_536
"""Frames read at a time: a header that promises 4 GB costs nothing when the data is not there."""


class AudioFileError(VoiceflowError, ValueError):
    """A WAV file that cannot be used. The message names the file and says what to do."""


# -- mu-law and PCM ------------------------------------------------------------------------------


def _decode_table() -> Samples:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code >> 4) & 7)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _encode_table() -> NDArray[np.uint8]:
    """Indexed by the sample's 16 bits read as unsigned: an int16 index would wrap below zero."""
    # audioop works on 14 bits, rounded towards minus infinity: hence the two low bits cleared first.
    sample = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32) >> 2 << 2
    magnitude = np.minimum(np.abs(sample), 32_635) + 0x84
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    sign = np.where(sample < 0, 0x80, 0)
    code: NDArray[np.int32] = ~(sign | exponent << 4 | mantissa) & 0xFF
    return code.astype(np.uint8)


_DECODE = _decode_table()
_ENCODE = _encode_table()


def decode(audio: bytes, format: AudioFormat = PHONE) -> Samples:
    """`audio` as samples [n]. Treat them as read-only: pcm16 is a view of the bytes.

    ValueError for an encoding other than "mulaw" and "pcm16", and for half a pcm16 sample at the end.
    """
    if format.encoding == "mulaw":
        return _DECODE[np.frombuffer(audio, np.uint8)]
    if format.encoding == "pcm16":
        if len(audio) % 2:
            raise ValueError(f"{len(audio)} bytes of pcm16 end in half a sample; cut audio at even lengths")
        return np.frombuffer(audio, "<i2").astype(np.int16, copy=False)
    raise _unknown(format)


def encode(samples: Samples, format: AudioFormat = PHONE) -> bytes:
    """Samples [n] as bytes. ValueError for another dtype than int16 or an unknown encoding.

    Mu-law errs by at most 7 on samples under 100 and by 644 on the loudest (of 32,768).
    """
    if samples.dtype != np.int16:
        raise ValueError(f"samples must be int16, not {samples.dtype}; scale and round floats first")
    if format.encoding == "mulaw":
        return _ENCODE[samples.view(np.uint16)].tobytes()
    if format.encoding == "pcm16":
        return samples.astype("<i2", copy=False).tobytes()
    raise _unknown(format)


def silence(seconds: float, format: AudioFormat = PHONE) -> bytes:
    """That much silence, to the nearest sample."""
    return format.silence * round(seconds * format.rate)


def _unknown(format: AudioFormat) -> ValueError:
    return ValueError(f'unknown encoding "{format.encoding}"; it is "mulaw" or "pcm16"')


# -- resampling ----------------------------------------------------------------------------------


def resample(samples: Samples, from_rate: int, to_rate: int) -> Samples:
    """A whole recording at another rate (Hz), band-limited by soxr, without dither: the same every time.

    For audio that comes in pieces use soxr.ResampleStream, whose filter lasts across pieces.
    """
    if from_rate == to_rate:
        return samples
    return _to_int16(_resample(_scaled(samples, 16), from_rate, to_rate))


def _resample(signal: NDArray[np.float32], from_rate: int, to_rate: int) -> NDArray[np.float32]:
    import soxr

    return np.asarray(soxr.resample(signal, from_rate, to_rate), dtype=np.float32)


def _to_int16(signal: NDArray[np.float32]) -> Samples:
    return np.clip(np.rint(signal * 32_768), -32_768, 32_767).astype(np.int16)


# -- WAV files -----------------------------------------------------------------------------------


def read_wav(path: Path | str, rate: int = PHONE.rate) -> Samples:
    """The file as mono samples [n] at `rate` Hz: channels averaged, then resampled.

    Reads PCM of 8, 16, 24 or 32 bits, any number of channels, any rate. 16-bit mono at `rate` comes
    through bit for bit. AudioFileError when the file is missing, not such a WAV, or holds no samples.
    """
    raw, width, channels, source_rate = _read_pcm(path)
    if width > 4 or not 1_000 <= source_rate <= 384_000:
        raise _unreadable(path, f"its header says {8 * width} bits at {source_rate} Hz")
    frames = len(raw) // (width * channels)
    signal = _to_float(raw[: frames * width * channels], width).reshape(frames, channels)
    mono = signal.mean(axis=1, dtype=np.float32)
    if source_rate != rate and frames:
        mono = _resample(mono, source_rate, rate)
    if not len(mono):
        raise AudioFileError(f"{path} holds no audio; record or export it again")
    return _to_int16(mono)


def write_wav(path: Path | str, channels: Sequence[Samples], rate: int = PHONE.rate) -> None:
    """Writes 16-bit PCM, one array a channel, interleaved; shorter channels are padded with silence.

    ValueError for no channel or samples that are not int16; OSError as `open` raises it.
    """
    if not channels or any(channel.dtype != np.int16 for channel in channels):
        raise ValueError("write_wav needs at least one channel, each an array of int16")
    frames = np.zeros((max(map(len, channels)), len(channels)), dtype="<i2")
    for index, channel in enumerate(channels):
        frames[: len(channel), index] = channel
    # Opened by hand: `wave` leaves an unraisable error behind when it cannot open a path itself.
    with open(path, "wb") as file, wave.open(file, "wb") as out:
        out.setnchannels(len(channels))
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(frames.tobytes())


def _read_pcm(path: Path | str) -> tuple[bytes, int, int, int]:
    """The data chunk, bytes per sample, channels and rate."""
    try:
        with open(path, "rb") as file, wave.open(file, "rb") as source:
            blocks = []
            while block := source.readframes(WAV_BLOCK):
                blocks.append(block)
            return b"".join(blocks), source.getsampwidth(), source.getnchannels(), source.getframerate()
    except FileNotFoundError:
        raise AudioFileError(f"{path} does not exist; check the name") from None
    except OSError as error:
        raise AudioFileError(f"{path} cannot be read: {error.strerror or error}") from error
    except EOFError:
        raise _unreadable(path, "it is empty or ends inside its header") from None
    except (wave.Error, RuntimeError) as error:
        # 65534 is WAVE_FORMAT_EXTENSIBLE, which `wave` reads only since Python 3.12; 3 is float.
        # A chunk whose size makes no sense ends in a RuntimeError without words.
        raise _unreadable(path, str(error) or "a chunk is damaged") from error


def _unreadable(path: Path | str, why: str) -> AudioFileError:
    return AudioFileError(
        f"{path} is not a WAV file of plain PCM ({why}); "
        f"convert it first: ffmpeg -i {path} -ac 1 -ar 8000 -c:a pcm_s16le out.wav"
    )


def _to_float(raw: bytes, width: int) -> NDArray[np.float32]:
    """PCM bytes as [-1, 1). float32 holds 24 bits: nothing a phone could carry is lost."""
    if width == 1:
        return _scaled(np.frombuffer(raw, np.uint8).astype(np.int16) - 128, 8)
    if width == 3:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        raw, width = wide.tobytes(), 4
    return _scaled(np.frombuffer(raw, f"<i{width}"), 8 * width)


def _scaled(samples: NDArray[np.signedinteger], bits: int) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = np.multiply(samples, 0.5 ** (bits - 1), dtype=np.float32)
    return scaled
