from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from processors.silero.hysteresis import Hysteresis, Started, Stopped
from processors.silero.model import MODEL, SileroModel, SileroState
from voiceflow.assets import speech
from voiceflow.audio import Samples, decode, encode, read_wav, resample
from voiceflow.errors import VoiceflowError

ROOT = Path(__file__).parent.parent
WINDOW = 256

# Where somebody speaks, in seconds, by energy: see voiceflow/assets/speech/README.md.
VOICE = {"go_forward_ten_meters": (0.30, 2.18), "ten_of_clubs": (0.19, 0.79), "three_cards": (0.21, 2.97)}


def over_the_phone(samples: Samples) -> Samples:
    return decode(encode(samples))


def silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * 8_000), dtype=np.int16)


def pink_noise(seconds: float, level: float, seed: int) -> Samples:
    """Noise whose power falls with 1/f, peak at `level` dBFS."""
    count = int(seconds * 8_000)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), count)
    return np.array(noise / np.abs(noise).max() * 32_767 * 10 ** (level / 20), dtype=np.int16)


def windows(samples: Samples, size: int = WINDOW) -> list[Samples]:
    return [samples[i : i + size] for i in range(0, len(samples) - size + 1, size)]


def listen(samples: Samples) -> tuple[list[tuple[Started | Stopped, int]], list[float]]:
    """Decisions, each with the sample that completed it, and the probability of every window."""
    model, hysteresis = SileroModel.shared(), Hysteresis()
    state = model.state()
    decisions, probabilities = [], []
    for index, window in enumerate(windows(samples)):
        probability = model.step(state, window)
        decision = hysteresis.feed(probability, (index + 1) * WINDOW)
        if decision:
            decisions.append((decision, (index + 1) * WINDOW))
        if hysteresis.take_reset():
            model.reset(state)
        probabilities.append(probability)
    return decisions, probabilities


# -- what it hears -------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [1.0, 30.0])
@pytest.mark.parametrize("name", VOICE)
def test_real_speech_is_found_where_it_is(name: str, before: float) -> None:
    recording = read_wav(speech(name))
    decisions, probabilities = listen(
        over_the_phone(np.concatenate([silence(before), recording, silence(1.0)]))
    )
    (started, started_by), (stopped, stopped_by) = decisions
    assert isinstance(started, Started)
    assert isinstance(stopped, Stopped)
    onset, end = (int((before + seconds) * 8_000) for seconds in VOICE[name])
    # Dated within 150 ms of the energy's onset, mostly before it, and decided at most four windows after it.
    assert -1_200 < started.at - onset < 400
    assert started_by - onset <= 4 * WINDOW
    # A decaying last consonant counts as voice for up to 0.4 s, a soft one is missed by up to 0.2 s.
    assert -1_600 < stopped.at - end < 3_200
    assert stopped_by - stopped.at == 7 * WINDOW
    voiced = probabilities[onset // WINDOW + 1 : end // WINDOW]
    assert np.mean([p >= 0.5 for p in voiced]) > 0.9
    assert max(probabilities[: int(before * 8_000) // WINDOW]) < 0.1
    assert max(probabilities[-10:]) < 0.1


def test_the_pauses_around_a_real_recording_are_not_voice() -> None:
    recording = over_the_phone(read_wav(speech("go_forward_ten_meters")))
    _, probabilities = listen(recording)
    onset, end = (int(seconds * 8_000) // WINDOW for seconds in VOICE["go_forward_ten_meters"])
    assert max(probabilities[: onset - 1]) < 0.35
    assert max(probabilities[end + 1 :]) < 0.35


def test_the_agents_answer_sounds_like_a_voice() -> None:
    decisions, probabilities = listen(over_the_phone(read_wav(speech("answer"))))
    started, by = decisions[0]
    assert isinstance(started, Started)
    assert by <= 1_600
    assert np.mean([p >= 0.5 for p in probabilities]) > 0.7


def test_silence_is_not_a_voice() -> None:
    decisions, probabilities = listen(over_the_phone(silence(10)))
    assert decisions == []
    assert max(probabilities) < 0.1


@pytest.mark.parametrize("level", [-40, -20, -6])
def test_pink_noise_is_not_a_voice(level: int) -> None:
    decisions, probabilities = listen(over_the_phone(pink_noise(10, level, seed=level + 100)))
    assert decisions == []
    assert np.mean(probabilities) < 0.1


@pytest.mark.parametrize(("rate", "size", "context"), [(8_000, 256, 32), (16_000, 512, 64)])
def test_each_window_is_heard_after_the_end_of_the_one_before(rate: int, size: int, context: int) -> None:
    """Against the plain session, fed as the published Python wrapper feeds it."""
    session = onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
    recording = resample(read_wav(speech("go_forward_ten_meters")), 8_000, rate)
    padded = np.concatenate([np.zeros(context, np.float32), recording / np.float32(32_768)])
    hidden, sr = np.zeros((2, 1, 128), np.float32), np.array(rate, np.int64)
    model = SileroModel.shared()
    state = model.state(rate)
    heard = []
    for index, window in enumerate(windows(recording, size)):
        seen = padded[None, index * size : index * size + context + size]
        expected, hidden = session.run(None, {"input": seen, "state": hidden, "sr": sr})
        heard.append(model.step(state, window))
        assert heard[-1] == pytest.approx(float(expected[0, 0]), abs=1e-5)
    start, end = (int(seconds * rate) // size for seconds in VOICE["go_forward_ten_meters"])
    assert np.mean(heard[start + 1 : end]) > 0.8


# -- many streams --------------------------------------------------------------------------------


def test_a_batch_hears_what_single_steps_hear() -> None:
    model = SileroModel.shared()
    recording = over_the_phone(read_wav(speech("three_cards")))
    streams = [windows(recording[offset:])[:60] for offset in (0, 100, 2_000, 5_000, 9_999)]
    alone, together = [model.state() for _ in streams], [model.state() for _ in streams]
    for step in range(60):
        # Streams leave and come back in another order: a batch is whoever has a window ready.
        present = [i for i in range(len(streams)) if (step + i) % 7][:: -1 if step % 2 else 1]
        one = [model.step(alone[i], streams[i][step]) for i in present]
        many = model.step_batch([together[i] for i in present], [streams[i][step] for i in present])
        assert np.abs(np.array(one) - np.array(many)).max() <= 1e-5
    for mine, batched in zip(alone, together, strict=True):
        assert np.abs(mine.hidden - batched.hidden).max() <= 1e-4
        assert batched.hidden.base is None


def test_streams_do_not_hear_each_other() -> None:
    model = SileroModel.shared()
    recording = windows(over_the_phone(read_wav(speech("ten_of_clubs"))))
    talker, listener, alone = model.state(), model.state(), model.state()
    expected = [model.step(alone, window) for window in recording]
    heard = []
    for window in recording:
        heard.append(model.step(talker, window))
        assert model.step(listener, np.zeros(WINDOW, np.int16)) < 0.1
    assert heard == expected


def test_an_empty_batch_is_no_work() -> None:
    assert SileroModel.shared().step_batch([], []) == []


def test_a_reset_stream_is_as_good_as_new() -> None:
    model = SileroModel.shared()
    recording = windows(over_the_phone(read_wav(speech("ten_of_clubs"))))
    state = model.state()
    first = [model.step(state, window) for window in recording]
    model.reset(state)
    assert [model.step(state, window) for window in recording] == first


def test_one_session_serves_the_process_whichever_thread_asks_first() -> None:
    shared, SileroModel._shared = SileroModel._shared, None
    try:
        with ThreadPoolExecutor(4) as pool:
            models = list(pool.map(lambda _: SileroModel.shared(), range(8)))
        assert len(set(map(id, models))) == 1
    finally:
        SileroModel._shared = shared or SileroModel._shared


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "window",
    [
        np.zeros(160, np.int16),
        np.zeros(512, np.int16),
        np.zeros((1, 256), np.int16),
        np.zeros(256, np.float32),
        np.zeros(0, np.int16),
    ],
)
def test_a_window_that_does_not_fit_is_refused_and_changes_nothing(window: Samples) -> None:
    model = SileroModel.shared()
    state, other, untouched = model.state(), model.state(), model.state()
    good = read_wav(speech("ten_of_clubs"))[2_000:2_256]
    for each in (state, other, untouched):
        model.step(each, good)
    with pytest.raises(ValueError, match=r"int16 of shape \(256,\)"):
        model.step(state, window)
    with pytest.raises(ValueError, match=r"int16 of shape \(256,\)"):
        model.step_batch([other, state], [good, window])
    expected = model.step(untouched, good)
    assert model.step(state, good) == expected
    assert model.step(other, good) == expected


def test_a_batch_that_cannot_be_one_run_is_refused() -> None:
    model = SileroModel.shared()
    state, zeros = model.state(), np.zeros(WINDOW, np.int16)
    with pytest.raises(ValueError, match="same rate"):
        model.step_batch([state, model.state(16_000)], [zeros, np.zeros(512, np.int16)])
    with pytest.raises(ValueError, match="only once"):
        model.step_batch([state, state], [zeros, zeros])
    with pytest.raises(ValueError, match="zip"):
        model.step_batch([state], [zeros, zeros])


def test_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="resample"):
        SileroState(44_100)


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    for name in (MODEL.name, "SHA256SUMS"):
        shutil.copy(MODEL.with_name(name), tmp_path)
    copy = tmp_path / MODEL.name
    SileroModel(copy)
    damaged = bytearray(copy.read_bytes())
    damaged[1_000_000] ^= 1
    copy.write_bytes(damaged)
    with pytest.raises(VoiceflowError, match=r"damaged.*reinstall"):
        SileroModel(copy)


def test_a_missing_model_or_checksum_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VoiceflowError, match=r"cannot be loaded.*reinstall"):
        SileroModel(tmp_path / "silero_vad.onnx")
    shutil.copy(MODEL, tmp_path)
    with pytest.raises(VoiceflowError, match="SHA256SUMS"):
        SileroModel(tmp_path / MODEL.name)


# -- how it is shipped ---------------------------------------------------------------------------


def test_importing_is_cheap() -> None:
    check = (
        "import sys, processors.silero.model, processors.silero.hysteresis\n"
        "sys.exit(', '.join({'numpy', 'onnxruntime'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_model_is_the_published_one_with_its_licence() -> None:
    assert MODEL.with_name("SHA256SUMS").read_text().startswith("1a153a22f4509e29")
    assert "Silero Team" in MODEL.with_name("LICENSE").read_text()
