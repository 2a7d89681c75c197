"""The two voices on their common base, against the fake vendors: in virtual time, so to the millisecond."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from tests.speech_booth import KEY, VOICES, Booth, now, squeezed, until
from tests.vendors.speaking import Fault
from tests.vendors.wire import Refusal
from voiceflow import ReplyEnd, Sentence
from voiceflow.errors import LinkRefused
from voiceflow.frames import AudioFormat
from voiceflow.services import Services
from voiceflow.speech.processor import PATIENCE, PIECES_BOUND
from voiceflow.testing import Rig, check_processor

ONE, TWO = "The first sentence.", "And the second one!"


@pytest.fixture(params=VOICES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_every_sentence_is_spoken_once_and_is_a_stretch_of_its_own(
    virtual_time: None, name: str
) -> None:
    booth = Booth(name)
    async with booth.rig():
        reply = booth.speak(ONE, TWO)
        await until(lambda: booth.ended(reply))
        assert booth.text(reply) == squeezed(ONE, TWO)
        assert [text for text, _ in booth.stretches(reply)] == [ONE, TWO]
        for text, spoken in booth.stretches(reply):
            assert squeezed(spoken) == squeezed(text), "the ledger's text is what this audio says"
        assert not booth.vendor.wrongs


@pytest.mark.parametrize("rate", [8000, 16_000])
async def test_linear_audio(virtual_time: None, name: str, rate: int) -> None:
    booth = Booth(name)
    booth.vendor.faults = [Fault("drop", 2)]
    async with booth.rig(format=AudioFormat("pcm16", rate)):
        reply = booth.speak(ONE, TWO)
        await until(lambda: booth.ended(reply))
        assert booth.text(reply) == squeezed(ONE, TWO)
        assert [frame.text for frame in booth.heard(reply) if frame.text] == [ONE, TWO]


async def test_the_first_audio_comes_as_soon_as_the_vendor_gives_it(virtual_time: None, name: str) -> None:
    booth = Booth(name, delay=0.123, handshake=0.3)
    async with booth.rig():
        began = now()
        reply = booth.speak(ONE)
        await until(lambda: bool(booth.heard(reply)))
        assert now() - began == pytest.approx(0.123, abs=0.0101), "no handshake, no wait of ours"


async def test_after_an_interrupt_nothing_of_it_comes_and_the_socket_stays(
    virtual_time: None, name: str
) -> None:
    booth = Booth(name, pace=1.0)
    async with booth.rig():
        dialled = len(booth.vendor.connections)
        dead = booth.speak("This is a long answer that nobody will hear to its end, so it goes on.")
        await until(lambda: bool(booth.heard(dead)))
        booth.cut(dead)
        before = len(booth.heard(dead))
        reply = booth.speak(ONE)
        await until(lambda: booth.ended(reply))
        assert len(booth.heard(dead)) == before
        assert booth.text(reply) == squeezed(ONE)
        assert len(booth.vendor.connections) == dialled
        cut = next(u for u in booth.vendor.log if "nobody" in u.text)
        assert cut.closed is not None, "the vendor was told"
        assert booth.voice.figures()["cut"] == 1
        assert not booth.vendor.wrongs


async def test_a_reply_cut_before_anything_of_it_was_sent_leaves_no_trace(
    virtual_time: None, name: str
) -> None:
    booth = Booth(name, handshake=2.0)
    async with booth.rig(settle=0.0):
        dead = booth.speak(ONE)
        booth.cut(dead)
        reply = booth.speak(TWO)
        await until(lambda: booth.ended(reply))
        assert booth.text(reply) == squeezed(TWO)
        assert all("first" not in u.text for u in booth.vendor.log)
        assert not booth.vendor.wrongs


async def test_ten_interrupts_in_a_row(virtual_time: None, name: str) -> None:
    booth = Booth(name)
    async with booth.rig():
        for number in range(10):
            dead = booth.speak(f"Reply number {number}, which will be cut.", end=number % 2 == 0)
            await asyncio.sleep(0.02 * number)
            booth.cut(dead)
        reply = booth.speak(ONE, TWO)
        await until(lambda: booth.ended(reply))
        assert booth.text(reply) == squeezed(ONE, TWO)
        assert not booth.vendor.wrongs


async def test_an_empty_reply_ends_at_once(virtual_time: None, name: str) -> None:
    booth = Booth(name)
    async with booth.rig():
        reply = booth.speak("  ")
        await booth.r.settled()
        assert booth.ended(reply)


async def test_a_reply_without_an_end_ends_the_call(virtual_time: None, name: str) -> None:
    booth = Booth(name)
    async with booth.rig() as rig:
        reply = booth.speak(end=False)
        for _ in range(PIECES_BOUND // 64 + 1):
            booth.more(reply, *["And on."] * 64, end=False)
            await rig.settled()
        assert "a reply's text is full" in str(rig.fault)


@pytest.mark.parametrize("kind", ["drop", "stall", "close"])
@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_connection_that_fails_costs_no_word(
    virtual_time: None, name: str, kind: Any, after: int
) -> None:
    booth = Booth(name)
    booth.vendor.faults = [Fault(kind, after)]
    async with booth.rig():
        reply = booth.speak(ONE, TWO, "A third.")
        began = now()
        await until(lambda: booth.ended(reply))
        assert booth.text(reply) == squeezed(ONE, TWO, "A third.")
        assert [f.text for f in booth.heard(reply) if f.text] == [ONE, TWO, "A third."]
        assert now() - began < 3.2 + 4.0
        assert booth.voice.figures()["reconnects"] == 1


async def test_a_vendor_that_never_speaks_ends_the_call_within_a_bound(virtual_time: None, name: str) -> None:
    booth = Booth(name, delay=1e6)
    async with booth.rig() as rig:
        began = now()
        booth.speak(ONE)
        await until(lambda: rig.call.fault is not None)
        assert now() - began < PATIENCE + 0.2
        assert "could not speak, 3 times in 10 s: no audio for 3 s" in str(rig.fault)


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "_API_KEY is not valid"), (402, "credit"), (403, "may not use"), (404, "no such")],
)
async def test_a_refusal_says_what_to_do(virtual_time: None, name: str, status: int, advice: str) -> None:
    booth = Booth(name)
    booth.vendor.refusals.extend([Refusal(status, f"no: {KEY}")] * 9)
    async with booth.rig() as rig:
        fault = str(rig.fault)
        assert advice in fault
        assert str(status) in fault
        assert KEY not in fault
    booth.services = Services(dial=booth.vendor.dial)
    voice = booth.make()
    voice._call = rig.call
    rig.call.services = booth.services
    with pytest.raises(LinkRefused, match=advice):
        await voice.warm()
    await booth.services.close()


async def test_a_refusal_that_passes_is_survived(virtual_time: None, name: str) -> None:
    booth = Booth(name)
    booth.vendor.refusals.extend([Refusal(429), Refusal(503)])
    async with booth.rig(settle=0.0):
        reply = booth.speak(ONE)
        await until(lambda: booth.ended(reply))
        assert booth.text(reply) == squeezed(ONE)


async def test_calls_share_the_pool(virtual_time: None, name: str) -> None:
    booth = Booth(name, handshake=0.3)
    warming = booth.make()
    async with Rig(warming, services=booth.services):
        await warming.warm()
        for _ in range(3):
            async with booth.rig(settle=0.5):
                assert (booth.voice.figures()["pool_hits"], booth.voice.figures()["pool_misses"]) == (1, 0)
                assert booth.voice.figures()["saved_ms"] >= 299
                booth.r.call.services = Services()  # the rig closes its own; these are shared
        assert booth.services.figures()[f"{warming.vendor} voice"]["hits"] == 3


async def test_a_clean_connection_serves_the_next_call(virtual_time: None, name: str) -> None:
    booth = Booth(name)
    voices = [booth.make(), booth.make()]
    pools = Services(dial=booth.vendor.dial)
    for voice in voices:
        rig = Rig(voice, services=pools)
        rig.call.services.close = _nothing  # type: ignore[method-assign]
        async with rig:
            await asyncio.sleep(0.5)
            reply = rig.reply()
            rig.push(Sentence(ONE, reply=reply), ReplyEnd(reply=reply))
            await until(partial(rig.got, ReplyEnd))
            await asyncio.sleep(0.5)
    assert len(booth.vendor.connections) == 2, "one in use, one spare: the second call dialled nothing"
    await Services.close(pools)


async def _nothing() -> None: ...


def test_no_key_is_shown(name: str) -> None:
    voice = Booth(name).make()
    assert KEY not in repr(voice.keys)
    assert KEY not in repr(vars(voice))


def test_both_conform(name: str) -> None:
    booth = Booth(name)
    check_processor(booth.make, services=booth.services)
