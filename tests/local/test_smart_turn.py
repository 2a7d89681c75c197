"""SmartTurn's guesses, what VADTurns makes of them, and the features against their definition."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest

from processors.smart_turn import SmartTurn
from processors.smart_turn import model as model_module
from processors.smart_turn.features import RATE, log_mel
from processors.smart_turn.model import FILE, INSIDE, SmartTurnModel, find
from processors.turns import VADTurns
from voiceflow.assets import speech
from voiceflow.audio import encode, read_wav
from voiceflow.errors import DeclarationError
from voiceflow.frames import AudioIn, TurnEnd, TurnGuess, VoiceStart, VoiceStop
from voiceflow.models import Model, ModelError, ModelHost
from voiceflow.testing import check_processor
from voiceflow.testing.rig import Rig

SOFT = encode((3000 * np.sin(np.arange(160))).astype(np.int16))
LOUD = encode((20_000 * np.sin(np.arange(160))).astype(np.int16))


class Guesses(SmartTurn):
    """Guesses by how loud the end is, after 0.05 s."""

    def __init__(self) -> None:
        super().__init__(__file__)
        self.model = Model.of("local_models:Guess", path="nowhere")


class Script:
    def __init__(self, rig: Rig) -> None:
        self.rig, self.at = rig, 0

    async def audio(self, seconds: float, packet: bytes = SOFT) -> None:
        for _ in range(round(seconds * 50)):
            self.rig.push(AudioIn(packet, self.at))
            self.at += 160
            await asyncio.sleep(0.02)

    async def voice(self, packet: bytes) -> int:
        """Half a second; that it is over is known 0.2 s later. Returns where it ended."""
        self.rig.push(VoiceStart(self.at))
        await self.audio(0.5)
        ended = self.at
        await self.audio(0.2, packet)
        self.rig.push(VoiceStop(ended))
        return ended


def turns() -> VADTurns:
    return VADTurns(0.6, finished=0.3, unfinished=1.0)


def test_it_conforms():
    report = check_processor(Guesses)
    assert report.never_seen == ()
    check_processor(turns, frames=[AudioIn(SOFT, 0), VoiceStart(0), VoiceStop(100), TurnGuess(0.9, 100)])


@pytest.mark.parametrize(("packet", "wait"), [(SOFT, 0.3), (LOUD, 1.0)], ids=["finished", "unfinished"])
async def test_a_guess_shortens_or_lengthens_the_wait(virtual_time, packet, wait):
    async with Rig(Guesses(), turns()) as rig:
        script = Script(rig)
        ended = await script.voice(packet)
        while not rig.got(TurnEnd):
            await script.audio(0.02, packet)
        assert (script.at - ended) / 8000 == pytest.approx(wait, abs=0.021)
        (guess,) = rig.got(TurnGuess)
        assert guess.at == ended


async def test_a_guess_is_for_its_own_silence(virtual_time):
    """The second silence is waited for as if there had been no guess: it comes from the first."""
    async with Rig(turns()) as rig:
        script = Script(rig)
        first = await script.voice(SOFT)
        second = await script.voice(SOFT)
        rig.push(TurnGuess(0.9, first))
        await script.audio(0.2)
        assert not rig.got(TurnEnd)
        rig.push(TurnGuess(0.1, second))
        await script.audio(0.5)
        assert not rig.got(TurnEnd)
        await script.audio(0.2)
        assert len(rig.got(TurnEnd)) == 1
        await script.voice(SOFT)
        await script.audio(0.38)
        assert len(rig.got(TurnEnd)) == 1
        await script.audio(0.04)
        assert len(rig.got(TurnEnd)) == 2


async def test_a_voice_that_comes_back_makes_the_guess_void(virtual_time):
    async with Rig(Guesses(), turns()) as rig:
        script = Script(rig)
        await script.voice(SOFT)
        rig.push(VoiceStart(script.at))
        await script.audio(2.0)
        assert len(rig.got(TurnGuess)) == 1
        assert not rig.got(TurnEnd)


async def test_what_it_hears_is_the_turn_and_no_more_than_eight_seconds(virtual_time, monkeypatch):
    heard = []

    def finished(self: object, audio: bytes, rate: int) -> float:
        heard.append(len(audio) / 2 / rate)
        return 0.9

    monkeypatch.setattr("local_models.Guess.finished", finished)
    async with Rig(Guesses()) as rig:
        script = Script(rig)
        await script.audio(3.0)
        await script.voice(SOFT)
        await script.voice(SOFT)
        await script.audio(3.0)
        await script.voice(SOFT)
        for _ in range(12):
            await script.voice(SOFT)
        await script.audio(0.1)
    assert heard[:3] == pytest.approx([1.2, 1.9, 1.2])
    assert heard[-1] == pytest.approx(8.0, abs=0.021)


async def test_a_guess_that_fails_is_left_out(virtual_time, monkeypatch):
    async def refuse(*arguments: object, **named: object) -> float:
        raise ModelError("too many calls")

    monkeypatch.setattr(ModelHost, "ask", refuse)
    async with Rig(Guesses(), turns()) as rig:
        script = Script(rig)
        await script.voice(SOFT)
        await script.audio(0.38)
        assert not rig.got(TurnEnd)
        await script.audio(0.04)
        assert rig.got(TurnEnd)
        assert rig.fault is None


def test_numbers_that_cannot_be():
    for numbers in ({"finished": 0.7}, {"finished": 0.0}, {"finished": -1.0}, {"unfinished": 0.5}):
        with pytest.raises(DeclarationError, match="finished"):
            VADTurns(0.6, **numbers)


def test_the_file_is_found_without_importing_anything(tmp_path, monkeypatch):
    package = tmp_path / "pipecat"
    (package / INSIDE).parent.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipecat"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(DeclarationError, match=r"pip install --no-deps pipecat-ai==1\.14\.0"):
        SmartTurn()
    (package / INSIDE).touch()
    assert find(None) == package / INSIDE
    with pytest.raises(DeclarationError, match=f"give the path of {FILE}"):
        SmartTurn(tmp_path / "elsewhere.onnx")


# -- what the network sees


def test_the_features_of_a_tone_are_one_bright_band():
    tone = np.sin(np.arange(4 * RATE) * 2 * np.pi * 1000 / RATE)
    features = log_mel(tone)
    assert features.shape == (80, 800)
    assert features.dtype == np.float32
    loud = features[:, 500:700].mean(axis=1)
    # 1 kHz is 15 mel of 45.2, and there are 80 bands between 81 steps: 15 / 45.245 * 81 = 26.9.
    assert loud.argmax() in (25, 26)
    assert features[:, :390].max() == features.min(), "the silence before it"
    assert features.max() - features.min() == pytest.approx(2.0)


def test_the_features_do_not_depend_on_the_level():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.1, 9 * RATE)
    assert log_mel(noise) == pytest.approx(log_mel(noise * 3), abs=1e-3)
    assert np.array_equal(log_mel(noise), log_mel(noise[-8 * RATE :]))


@pytest.fixture(scope="module")
def network() -> SmartTurnModel:
    try:
        return SmartTurnModel(str(find(None)))
    except DeclarationError:
        pytest.skip(f"NOT TESTED: the real Smart Turn network is not installed: {model_module.INSTALL}")


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_people_who_have_finished(network, rate):
    for name in ("go_forward_ten_meters", "ten_of_clubs", "three_cards"):
        samples = read_wav(speech(name), rate)
        assert network.finished(samples.tobytes(), rate) > 0.5, Path(name).name
