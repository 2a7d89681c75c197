"""HibariTTS: what it promises on a model of beeps in virtual time, and the real voice."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from local_models import Mouth

from processors.hibari import HibariTTS
from voiceflow.audio import decode
from voiceflow.errors import DeclarationError
from voiceflow.frames import PHONE, AudioFormat, AudioOut, Interrupt, ReplyEnd, Sentence
from voiceflow.models import Model, ModelHost
from voiceflow.testing import check_processor
from voiceflow.testing.rig import Rig

WIDE = AudioFormat("pcm16", 16_000)
FULL = AudioFormat("pcm16", 24_000)


class Beeps(HibariTTS):
    """Speaks with a model that is not there: 0.1 s a word, after 0.04 s a sentence."""

    model = Model.of("local_models:Mouth")


def audio(rig: Rig, format: AudioFormat = PHONE) -> np.ndarray:
    return decode(b"".join(frame.audio for frame in rig.got(AudioOut)), format)


async def spoken(rig: Rig, *texts: str, protected: bool = False) -> None:
    reply = rig.reply()
    rig.push(*(Sentence(text, protected, reply=reply) for text in texts), ReplyEnd(reply=reply))
    while not rig.got(ReplyEnd):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def test_it_conforms():
    report = check_processor(Beeps)
    assert report.never_seen == ()


@pytest.mark.parametrize("format", [PHONE, WIDE, FULL], ids=lambda format: f"{format.encoding}-{format.rate}")
async def test_no_sample_is_lost_or_added_between_the_rates(virtual_time, format):
    async with Rig(Beeps(), format=format) as rig:
        await spoken(rig, "One two three.", "Four. Five six seven.", "Eight.")
        assert isinstance(rig.out[-1], ReplyEnd)
    assert len(audio(rig, format)) == pytest.approx(0.8 * format.rate, abs=2)


async def test_the_filter_lasts_across_the_pieces_of_a_reply(virtual_time):
    """A tone that goes on from frame to frame stays one tone: a filter that began anew would click."""
    async with Rig(Beeps()) as rig:
        await spoken(rig, " ".join(["word"] * 20))
    heard = audio(rig)[400:-400].astype(float)
    steps = np.abs(np.diff(heard, 2))
    assert steps.max() < 8000 * (2 * np.pi * 440 / 8000) ** 2 * 1.5  # what the tone itself does, and mu-law


async def test_each_sentence_begins_a_stretch_of_the_ledger(virtual_time):
    async with Rig(Beeps()) as rig:
        await spoken(rig, "One two three four.", "Five.", protected=True)
    begins = [(frame.text, frame.protected) for frame in rig.got(AudioOut) if frame.text]
    assert begins == [("One two three four.", True), ("Five.", True)]
    assert all(not frame.protected for frame in rig.got(AudioOut) if not frame.text)


async def test_a_text_that_is_long_or_empty(virtual_time):
    async with Rig(Beeps()) as rig:
        await spoken(rig, "", " ... ", "word " * 200)
    texts = [frame.text for frame in rig.got(AudioOut) if frame.text]
    assert all(0 < len(text) <= 301 for text in texts)
    assert " ".join(texts).split() == ["word"] * 200
    async with Rig(Beeps()) as rig:
        await spoken(rig, "...")
    assert rig.got(AudioOut) == []


async def test_an_interrupt_stops_it_and_the_next_reply_begins_afresh(virtual_time):
    tts = Beeps()
    async with Rig(tts) as rig:
        first, second = rig.reply(), rig.reply()
        rig.push(Sentence("One two. Three four. Five six.", reply=first))
        await asyncio.sleep(0.1)  # two of its three sentences
        rig.kill(first)
        rig.push(Interrupt(first))
        before = len(rig.got(AudioOut))
        rig.push(Sentence("Seven.", reply=second), ReplyEnd(reply=second))
        await asyncio.sleep(1)
        after = rig.got(AudioOut)[before:]
        assert {frame.reply for frame in after} == {second}
        assert len(b"".join(frame.audio for frame in after)) == pytest.approx(800, abs=2)
        assert tts._voices == {}
        assert tts.figures()["spoken_ms"] < 600


async def test_a_call_that_ends_in_the_middle_of_a_sentence(virtual_time):
    async with Rig(Beeps()) as rig:
        rig.push(Sentence("One two. Three four. Five six.", reply=rig.reply()))
        await asyncio.sleep(0.05)


async def test_a_model_that_fails_ends_the_call_by_name(virtual_time):
    class Mute(HibariTTS):
        model = Model.of("local_models:Broken")

    async with Rig(Mute()) as rig:
        rig.push(Sentence("Hello.", reply=rig.reply()))
        await asyncio.sleep(0.1)
        assert rig.fault is not None
        assert "Mute" in rig.fault


def test_a_speed_that_is_none():
    for speed in (0, 0.4, 2.1):
        with pytest.raises(DeclarationError, match=r"0\.5 \(slow\) to 2 \(fast\)"):
            HibariTTS(speed)


def test_the_beeps_are_what_the_tests_take_them_for():
    assert [len(piece) for piece in Mouth().speak("One two. Three.", 1.0)] == [9600, 4800]


def test_the_real_voice_in_a_process_of_its_own():
    pytest.importorskip("hibari", reason="pip install 'voiceflow-agents[local]'")

    async def main() -> None:
        rig = Rig(HibariTTS())
        async with rig:
            await ModelHost.of(rig.call.services).load(HibariTTS.model)
            await spoken(rig, "Thanks for calling. How can I help?")
        heard = audio(rig)
        assert 1.5 < len(heard) / 8000 < 5
        assert 2_000 < np.abs(heard).max() < 32_000
        loud = np.abs(heard[: len(heard) // 160 * 160].reshape(-1, 160)).max(axis=1) > 500
        assert loud.mean() > 0.4

    asyncio.run(main())
