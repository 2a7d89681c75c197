"""MoonshineSTT: which audio it gives to a model and when, in virtual time; and real people."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from processors.moonshine import MoonshineSTT
from processors.moonshine.model import Moonshine
from processors.silero import SileroVAD
from processors.turns import VADTurns
from voiceflow.assets import speech
from voiceflow.audio import decode, encode, read_wav, resample
from voiceflow.errors import DeclarationError
from voiceflow.frames import AudioIn, Transcript, TurnEnd, VoiceStart, VoiceStop
from voiceflow.models import Model, ModelError, ModelHost
from voiceflow.testing import check_processor
from voiceflow.testing.rig import Rig

LOUD = encode((8000 * np.sin(np.arange(160))).astype(np.int16))


class Ears(MoonshineSTT):
    """Says how many seconds it was given."""

    model = Model.of("local_models:Ears")


class Script:
    """Audio in packets of 20 ms, in real time, and a voice that starts and stops."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.at = rig, 0

    async def audio(self, seconds: float) -> None:
        for _ in range(round(seconds * 50)):
            self.rig.push(AudioIn(LOUD, self.at))
            self.at += 160
            await asyncio.sleep(0.02)

    async def voice(self, seconds: float) -> None:
        """That it has stopped is known 0.2 s later."""
        self.rig.push(VoiceStart(self.at))
        await self.audio(seconds)
        ended = self.at
        await self.audio(0.2)
        self.rig.push(VoiceStop(ended))

    def finals(self) -> list[str]:
        return [frame.text for frame in self.rig.got(Transcript) if frame.final]

    def partials(self) -> list[str]:
        return [frame.text for frame in self.rig.got(Transcript) if not frame.final]


def test_it_conforms():
    report = check_processor(Ears)
    assert report.never_seen == ()


async def test_a_piece_is_the_voice_and_a_little_before_it(virtual_time):
    async with Rig(Ears()) as rig:
        script = Script(rig)
        await script.audio(3.0)
        await script.voice(1.0)
        await script.audio(0.2)
        assert script.finals() == ["1.5 s"]  # 0.3 before it, and 0.2 until its end was known


async def test_no_word_is_heard_twice(virtual_time):
    """In a pause shorter than what is listened to before a voice, the next begins where the last ended."""
    async with Rig(Ears()) as rig:
        script = Script(rig)
        await script.audio(1.0)
        await script.voice(1.0)
        await script.voice(1.0)
        await script.audio(0.3)
        assert script.finals() == ["1.5 s", "1.4 s"]


async def test_evidence_that_comes_late(virtual_time):
    async with Rig(Ears(partials=False)) as rig:
        script = Script(rig)
        await script.audio(3.0)
        rig.push(VoiceStart(script.at - 8000))
        rig.push(VoiceStop(script.at - 1600))
        await asyncio.sleep(0.2)
        assert script.finals() == ["1.3 s"]


async def test_partial_transcripts(virtual_time):
    async with Rig(Ears()) as rig:
        script = Script(rig)
        await script.audio(1.0)
        await script.voice(2.2)
        await script.audio(0.3)
        assert script.partials() == ["0.8 s", "1.3 s", "1.8 s", "2.3 s"]
        assert script.finals() == ["2.7 s"]
    async with Rig(Ears(partials=False)) as rig:
        script = Script(rig)
        await script.voice(2.2)
        await script.audio(0.3)
        assert script.partials() == []
        assert script.finals() == ["2.4 s"]


async def test_no_partial_transcript_while_the_agent_speaks(virtual_time):
    """They are guesses, and words interrupt."""
    ears = Ears()
    async with Rig(ears, VADTurns()) as rig:
        script = Script(rig)
        await rig.call.turns.take_floor()
        assert rig.call.turns.live is not None
        ears.voice(VoiceStart(0))  # to the recogniser alone: the floor stays the agent's
        await script.audio(2.0)
        ears.quiet(VoiceStop(script.at))
        await asyncio.sleep(0.2)
        assert script.partials() == []
        assert script.finals() == ["2.0 s"]


async def test_a_long_speech_is_cut(virtual_time):
    ears = Ears()
    async with Rig(ears) as rig:
        script = Script(rig)
        await script.voice(31.0)
        await script.audio(0.3)
        assert script.finals() == ["15.0 s", "15.0 s", "1.2 s"]
        assert len(ears._audio._frames) <= 102


async def test_a_turn_waits_for_its_words(virtual_time):
    async with Rig(Ears(), VADTurns(0.25, words=1.0)) as rig:
        script = Script(rig)
        await script.voice(1.0)
        await script.audio(0.5)
        (end,) = rig.got(TurnEnd)
        assert end.text == "1.2 s"


async def test_a_voice_without_a_word_ends_its_turn_too(virtual_time, monkeypatch):
    monkeypatch.setattr("local_models.Ears.transcribe", lambda self, audio, rate: "")
    async with Rig(Ears(), VADTurns(0.3, words=5.0)) as rig:
        script = Script(rig)
        await script.voice(1.0)
        await script.audio(0.3)
        (end,) = rig.got(TurnEnd)
        assert end.text == ""
        assert script.partials() == []


async def test_a_model_that_fails_ends_the_call_by_name(virtual_time):
    class Deaf(MoonshineSTT):
        model = Model.of("local_models:Broken")

    async with Rig(Deaf()) as rig:
        script = Script(rig)
        await script.voice(0.2)
        await asyncio.sleep(0.5)
        assert rig.fault is not None
        assert "Deaf" in rig.fault
        assert "its file is gone" in rig.fault


async def test_a_partial_transcript_that_fails_harms_nobody(virtual_time, monkeypatch):
    async def refuse(*arguments: object, **named: object) -> str:
        raise ModelError("too many calls")

    async with Rig(Ears()) as rig:
        script = Script(rig)
        with monkeypatch.context() as patch:
            patch.setattr(ModelHost, "ask", refuse)
            rig.push(VoiceStart(0))
            await script.audio(1.2)
        rig.push(VoiceStop(script.at))
        await asyncio.sleep(0.2)
        assert rig.fault is None
        assert script.finals() == ["1.2 s"]


def test_a_package_that_is_missing(monkeypatch):
    class Elsewhere(MoonshineSTT):
        package = "no_such_package"

    with pytest.raises(
        DeclarationError, match=r"Elsewhere needs the package .* pip install 'voiceflow-agents"
    ):
        Elsewhere()


# -- the real model


@pytest.fixture(scope="module")
def moonshine() -> Moonshine:
    pytest.importorskip("moonshine_voice", reason="pip install 'voiceflow-agents[local]'")
    return Moonshine()


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


SAID = {
    "go_forward_ten_meters": "go forward ten meters",
    "ten_of_clubs": "ten of clubs",
    "three_cards": "eight of spades four of clubs seven of hearts",
}
"""What people say in the recordings."""
MISHEARD = {"clubs"}
"""A word that it takes for another, in the original recordings as well."""


@pytest.mark.parametrize("name", SAID)
def test_people_on_the_phone(moonshine, name):
    samples: NDArray[np.int16] = decode(encode(read_wav(speech(name))))
    heard = words(moonshine.transcribe(samples.tobytes(), 8000))
    said = words(SAID[name])
    assert len(heard) == len(said)
    assert {word for word, other in zip(said, heard, strict=True) if word != other} <= MISHEARD


def test_near_silence_is_no_you(moonshine):
    random = np.random.default_rng(1)
    assert moonshine.transcribe(b"", 8000) == ""
    assert moonshine.transcribe(bytes(16_000), 8000) == ""
    assert moonshine.transcribe(random.normal(0, 10, 8000).astype(np.int16).tobytes(), 8000) == ""


def test_a_turn_of_a_person_in_real_time():
    """The whole way, with the model in its own process: 8 kHz mu-law in, the turn's words out."""
    pytest.importorskip("moonshine_voice", reason="pip install 'voiceflow-agents[local]'")

    async def main() -> None:
        samples = read_wav(speech("go_forward_ten_meters"))
        samples = np.concatenate([samples, np.zeros(8000 + -len(samples) % 160, np.int16)])
        rig = Rig(SileroVAD(), MoonshineSTT(), VADTurns(0.4, words=5.0))
        async with rig:
            await ModelHost.of(rig.call.services).load(MoonshineSTT.model)
            for at in range(0, len(samples), 160):
                rig.push(AudioIn(encode(samples[at : at + 160]), at))
                await asyncio.sleep(0.002)  # ten times as fast as a line
            while not rig.got(TurnEnd):
                await asyncio.sleep(0.01)
                rig.push(AudioIn(b"\xff" * 160, at := at + 160))
        assert words(rig.got(TurnEnd)[0].text) == words("go forward ten meters")

    asyncio.run(main())


def test_the_filter_between_the_rates_is_a_real_one():
    """What a phone cannot carry is not folded into what it can."""
    tone = (10_000 * np.sin(np.arange(8000) * 2 * np.pi * 3000 / 8000)).astype(np.int16)
    spectrum = np.abs(np.fft.rfft(resample(tone, 8000, 16_000)[2000:14_000]))
    assert spectrum[5000 * 12_000 // 16_000] < spectrum.max() / 1000
