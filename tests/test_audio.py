from __future__ import annotations

import hashlib
import json
import struct
import tempfile
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from voiceflow.audio import (
    AudioFileError,
    Samples,
    decode,
    encode,
    read_wav,
    resample,
    silence,
    write_wav,
)
from voiceflow.errors import VoiceflowError
from voiceflow.frames import PHONE, AudioFormat, AudioIn

GOLDEN = json.loads((Path(__file__).parent / "golden" / "mulaw.json").read_text())
PCM16 = AudioFormat("pcm16", 16_000)
ALL_SAMPLES = np.arange(-32_768, 32_768).astype(np.int16)
SIXTEEN_BITS = st.integers(-32_768, 32_767)


def samples(*values: int) -> Samples:
    return np.array(values, dtype=np.int16)


def tone(seconds: float, rate: int, hertz: float = 440.0) -> Samples:
    phase = 2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate
    return np.array(np.rint(8_000 * np.sin(phase)), dtype=np.int16)


def pcm_wav(path: Path, data: bytes, width: int = 2, channels: int = 1, rate: int = 8_000) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setparams((channels, width, rate, 0, "NONE", ""))
        out.writeframes(data)
    return path


def bare_header(path: Path, tag: int, width: int = 2, rate: int = 8_000, data: bytes = b"\0\0") -> Path:
    """A WAV whose format tag `wave` cannot write: 3 is float, 0xFFFE is extensible."""
    fmt = struct.pack("<HHIIHH", tag, 1, rate, rate * width, width, 8 * width)
    if tag == 0xFFFE:  # a float subformat, which no Python reads
        fmt += struct.pack("<HHI", 22, 8 * width, 4) + bytes.fromhex("0300000000001000800000aa00389b71")
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


# -- mu-law and PCM ------------------------------------------------------------------------------


def test_mulaw_decodes_every_code_as_audioop_did() -> None:
    assert decode(bytes(range(256)), PHONE).tolist() == GOLDEN["decode"]


def test_mulaw_encodes_every_sample_as_audioop_did() -> None:
    encoded = encode(ALL_SAMPLES, PHONE)
    assert len(encoded) == 65_536
    assert hashlib.sha256(encoded).hexdigest() == GOLDEN["encode_sha256"]


@pytest.mark.parametrize(
    ("sample", "code"),
    [(0, 0xFF), (-1, 0x7E), (32_767, 0x80), (-32_768, 0x00), (-32_124, 0x00), (32_124, 0x80)],
)
def test_mulaw_fixed_points(sample: int, code: int) -> None:
    assert encode(samples(sample), PHONE) == bytes([code])


def test_both_mulaw_zeros_decode_to_zero_and_only_one_is_written() -> None:
    assert decode(b"\x7f\xff", PHONE).tolist() == [0, 0]
    codes = bytes(range(256))
    assert encode(decode(codes, PHONE), PHONE) == codes.replace(b"\x7f", b"\xff")


@settings(deadline=None)
@given(st.lists(SIXTEEN_BITS))
@example([-32_768, 32_767])
def test_mulaw_is_stable_after_one_round(values: list[int]) -> None:
    once = decode(encode(samples(*values), PHONE), PHONE)
    assert np.array_equal(decode(encode(once, PHONE), PHONE), once)
    error = np.abs(once.astype(int) - np.array(values, dtype=int))
    assert (error <= np.maximum(8, np.abs(np.array(values, dtype=int)) // 8)).all()


@settings(deadline=None)
@given(st.lists(SIXTEEN_BITS))
def test_pcm16_round_trip_is_exact(values: list[int]) -> None:
    encoded = encode(samples(*values), PCM16)
    assert encoded == struct.pack(f"<{len(values)}h", *values)
    assert decode(encoded, PCM16).tolist() == values


def test_encode_takes_strided_samples_as_channels_of_a_stereo_array_are() -> None:
    stereo = np.stack([ALL_SAMPLES, ALL_SAMPLES[::-1]], axis=1)
    assert encode(stereo[:, 1], PHONE) == encode(ALL_SAMPLES, PHONE)[::-1]


def test_audio_in_decodes_once() -> None:
    frame = AudioIn(bytes(range(160)), at=0)
    assert frame.pcm.tolist() == GOLDEN["decode"][:160]
    assert frame.pcm is frame.pcm


def test_what_cannot_be_coded_is_refused() -> None:
    with pytest.raises(ValueError, match="alaw"):
        decode(b"", AudioFormat("alaw"))
    with pytest.raises(ValueError, match="alaw"):
        encode(samples(), AudioFormat("alaw"))
    with pytest.raises(ValueError, match="half a sample"):
        decode(b"\0\0\0", PCM16)
    with pytest.raises(ValueError, match="float64"):
        encode(np.zeros(3), PHONE)  # type: ignore[arg-type]


def test_silence_is_as_long_as_asked_and_silent() -> None:
    assert silence(0.02, PHONE) == b"\xff" * 160
    assert silence(0.02, PCM16) == b"\0" * 640
    assert not decode(silence(0.5, PHONE), PHONE).any()


# -- resampling ----------------------------------------------------------------------------------


def test_resampling_keeps_the_tone_and_the_length() -> None:
    there = resample(tone(0.5, 16_000), 16_000, 8_000)
    assert len(there) == 4_000
    middle = slice(400, -400)
    assert np.abs(there[middle].astype(int) - tone(0.5, 8_000)[middle]).max() < 20


def test_resampling_removes_what_would_alias() -> None:
    too_high = resample(tone(0.5, 16_000, hertz=6_000), 16_000, 8_000)
    assert np.abs(too_high[400:-400]).max() < 20


def test_resampling_to_the_same_rate_changes_nothing_and_is_repeatable() -> None:
    assert resample(ALL_SAMPLES, 8_000, 8_000) is ALL_SAMPLES
    assert np.array_equal(resample(ALL_SAMPLES, 8_000, 16_000), resample(ALL_SAMPLES, 8_000, 16_000))


# -- WAV files -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(arrays(np.int16, st.integers(0, 50)), min_size=1, max_size=3),
    st.sampled_from([8_000, 16_000, 44_100]),
)
def test_written_channels_are_interleaved_and_padded(channels: list[Samples], rate: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "call.wav")
        write_wav(path, channels, rate)
        with wave.open(str(path), "rb") as source:
            assert source.getparams()[:3] == (len(channels), 2, rate)
            data = np.frombuffer(source.readframes(source.getnframes()), "<i2").reshape(-1, len(channels))
    assert len(data) == max(map(len, channels))
    for index, channel in enumerate(channels):
        assert np.array_equal(data[: len(channel), index], channel)
        assert not data[len(channel) :, index].any()


def test_writing_nothing_or_floats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one channel"):
        write_wav(tmp_path / "a.wav", [], 8_000)
    with pytest.raises(ValueError, match="int16"):
        write_wav(tmp_path / "a.wav", [np.zeros(4)], 8_000)  # type: ignore[list-item]
    with pytest.raises(FileNotFoundError):
        write_wav(tmp_path / "missing" / "a.wav", [ALL_SAMPLES], 8_000)


def test_a_16_bit_mono_file_at_the_rate_comes_back_bit_for_bit(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", [ALL_SAMPLES], 8_000)
    assert np.array_equal(read_wav(tmp_path / "a.wav"), ALL_SAMPLES)
    assert np.array_equal(read_wav(str(tmp_path / "a.wav")), ALL_SAMPLES)


def test_a_file_longer_than_one_block_is_read_whole(tmp_path: Path) -> None:
    long = np.tile(ALL_SAMPLES, 3)
    write_wav(tmp_path / "a.wav", [long], 8_000)
    assert np.array_equal(read_wav(tmp_path / "a.wav"), long)


@pytest.mark.parametrize(
    ("width", "data"),
    [
        (1, bytes([0, 64, 128, 192])),
        (2, struct.pack("<4h", -32_768, -16_384, 0, 16_384)),
        (3, bytes.fromhex("000080 0000c0 000000 000040")),
        (4, struct.pack("<4i", -(2**31), -(2**30), 0, 2**30)),
    ],
)
def test_every_pcm_width_is_read(tmp_path: Path, width: int, data: bytes) -> None:
    path = pcm_wav(tmp_path / "a.wav", data, width)
    assert read_wav(path).tolist() == [-32_768, -16_384, 0, 16_384]


def test_loud_samples_are_clipped_not_wrapped(tmp_path: Path) -> None:
    path = pcm_wav(tmp_path / "a.wav", struct.pack("<2i", 2**31 - 1, -(2**31)), width=4)
    assert read_wav(path).tolist() == [32_767, -32_768]


def test_channels_are_mixed_down_and_the_rate_converted(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", [tone(0.5, 44_100), tone(0.5, 44_100), np.zeros(10, np.int16)], 44_100)
    heard = read_wav(tmp_path / "a.wav", 8_000)
    assert len(heard) == 4_000
    expected = tone(0.5, 8_000)[400:-400].astype(int) * 2 // 3
    assert np.abs(heard[400:-400] - expected).max() < 20


def test_a_file_cut_short_keeps_its_whole_frames(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", [tone(0.1, 8_000), tone(0.1, 8_000)], 8_000)
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: 44 + 4 * 100 + 3])
    assert np.array_equal(read_wav(tmp_path / "cut.wav"), tone(0.1, 8_000)[:100])


def test_a_file_that_is_no_plain_wav_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "song.wav").write_bytes(b"ID3\x04" + bytes(200))
    bare_header(tmp_path / "float.wav", tag=3, width=4, data=bytes(8))
    bare_header(tmp_path / "extensible.wav", tag=0xFFFE, width=4, data=bytes(8))
    bare_header(tmp_path / "norate.wav", tag=1, rate=0)
    bare_header(tmp_path / "wide.wav", tag=1, width=8, data=bytes(8))
    for name in ("empty", "song", "float", "extensible", "norate", "wide"):
        path = tmp_path / f"{name}.wav"
        with pytest.raises(AudioFileError, match="not a WAV file of plain PCM") as caught:
            read_wav(path)
        assert str(path) in str(caught.value)
        assert "ffmpeg -i" in str(caught.value)
        assert isinstance(caught.value, VoiceflowError)
        assert isinstance(caught.value, ValueError)


def test_other_unusable_files_say_why(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="no audio"):
        read_wav(pcm_wav(tmp_path / "none.wav", b""))
    with pytest.raises(AudioFileError, match="does not exist"):
        read_wav(tmp_path / "missing.wav")
    with pytest.raises(AudioFileError, match="cannot be read"):
        read_wav(tmp_path)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_file_never_raises_anything_else(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.wav")
        write_wav(path, [tone(0.01, 8_000)], 8_000)
        damaged = bytearray(path.read_bytes()[: data.draw(st.integers(0, 100))])
        for _ in range(data.draw(st.integers(0, 4)) if damaged else 0):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(damaged)
        try:
            assert len(read_wav(path, 8_000)) > 0
        except AudioFileError:
            pass
