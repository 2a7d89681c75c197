"""The two voices on their common base, against the fake vendors: in virtual time, so to the millisecond."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from processors.aura import AuraTTS
from processors.elevenlabs import ElevenLabsTTS
from tests.vendors import spelled
from tests.vendors.aura import FakeAura
from tests.vendors.elevenlabs import FakeElevenLabs
from tests.vendors.speaking import Fault, SpeakingVendor
from tests.vendors.wire import Refusal
from voiceflow import AudioOut, Interrupt, Reply, ReplyEnd, Sentence
from voiceflow.errors import LinkRefused
from voiceflow.services import Services
from voiceflow.speech import TextToSpeech
from voiceflow.testing import Rig, check_processor

KEY = "sk-very-secret"
ONE, TWO = "The first sentence.", "And the second one!"


class Booth:
    """One voice, its fake vendor, and a rig around it."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.vendor: SpeakingVendor = {"elevenlabs": FakeElevenLabs, "aura": FakeAura}[name](
            key=KEY, **settings
        )
        self.make: Callable[[], TextToSpeech] = {
            "elevenlabs": lambda: ElevenLabsTTS(api_key=KEY),
            "aura": lambda: AuraTTS(api_key=KEY),
        }[name]
        self.services = Services(dial=self.vendor.dial)

    @asynccontextmanager
    async def rig(self, settle: float = 1.0):
        self.voice = self.make()
        async with Rig(self.voice, services=self.services) as self.r:
            await asyncio.sleep(settle)
            yield self.r

    def speak(self, *texts: str, end: bool = True) -> Reply:
        reply = self.r.reply()
        for text in texts:
            self.r.push(Sentence(text, reply=reply))
        if end:
            self.r.push(ReplyEnd(reply=reply))
        return reply

    def cut(self, reply: Reply) -> None:
        self.r.kill(reply)
        self.r.push(Interrupt(reply))

    def heard(self, reply: Reply) -> list[AudioOut]:
        return [frame for frame in self.r.got(AudioOut) if frame.reply is reply]

    def text(self, reply: Reply) -> str:
        return " ".join(spelled.read(b"".join(f.audio for f in self.heard(reply))).split())

    def ended(self, reply: Reply) -> bool:
        return [f.reply for f in self.r.got(ReplyEnd)].count(reply) == 1 and self.r.out[-1].reply is reply  # type: ignore[attr-defined]


@pytest.fixture(params=["elevenlabs", "aura"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def squeezed(*texts: str) -> str:
    return "".join("".join(texts).split())


async def until(true: Callable[[], object], limit: float = 30.0) -> None:
    async with asyncio.timeout(limit):
        while not true():  # noqa: ASYNC110 - a look every 10 ms costs nothing in virtual time
            await asyncio.sleep(0.01)


async def test_every_sentence_is_spoken_once_and_is_a_stretch_of_its_own(
    virtual_time: None, name: str
) -> None:
    booth = Booth(name)
    async with booth.rig():
        reply = booth.speak(ONE, TWO)
        await until(lambda: booth.ended(reply))
        assert squeezed(booth.text(reply)) == squeezed(ONE, TWO)
        assert [f.text for f in booth.heard(reply) if f.text] == [ONE, TWO]
        for text, audio in stretches(booth.heard(reply)):
            assert squeezed(spelled.read(audio)) == squeezed(text), (
                "the ledger's text is what this audio says"
            )
        assert not booth.vendor.wrongs


def stretches(frames: Iterable[AudioOut]) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for frame in frames:
        if frame.text:
            found.append((frame.text, b""))
        found[-1] = (found[-1][0], found[-1][1] + frame.audio)
    return found


async def test_the_first_audio_comes_as_soon_as_the_vendor_gives_it(virtual_time: None, name: str) -> None:
    booth = Booth(name, delay=0.123, handshake=0.3)
    async with booth.rig():
        loop = asyncio.get_running_loop()
        began = loop.time()
        reply = booth.speak(ONE)
        await until(lambda: bool(booth.heard(reply)))
        assert loop.time() - began == pytest.approx(0.123, abs=0.0101), "no handshake, no wait of ours"


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
        assert squeezed(booth.text(reply)) == squeezed(ONE)
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
        assert squeezed(booth.text(reply)) == squeezed(TWO)
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
        assert squeezed(booth.text(reply)) == squeezed(ONE, TWO)
        assert not booth.vendor.wrongs


async def test_an_empty_reply_ends_at_once(virtual_time: None, name: str) -> None:
    booth = Booth(name)
    async with booth.rig():
        reply = booth.speak("  ")
        await booth.r.settled()
        assert booth.ended(reply)


@pytest.mark.parametrize("kind", ["drop", "stall", "close"])
@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_connection_that_fails_costs_no_word(
    virtual_time: None, name: str, kind: Any, after: int
) -> None:
    booth = Booth(name)
    booth.vendor.faults = [Fault(kind, after)]
    async with booth.rig():
        reply = booth.speak(ONE, TWO, "A third.")
        began = asyncio.get_running_loop().time()
        await until(lambda: booth.ended(reply))
        assert squeezed(booth.text(reply)) == squeezed(ONE, TWO, "A third.")
        assert [f.text for f in booth.heard(reply) if f.text] == [ONE, TWO, "A third."]
        assert asyncio.get_running_loop().time() - began < 3.2 + 4.0
        assert booth.voice.figures()["reconnects"] == 1


async def test_a_vendor_that_never_speaks_ends_the_call_within_a_bound(virtual_time: None, name: str) -> None:
    booth = Booth(name, delay=1e6)
    async with booth.rig() as rig:
        began = asyncio.get_running_loop().time()
        booth.speak(ONE)
        await until(lambda: rig.call.fault is not None)
        assert asyncio.get_running_loop().time() - began < 3 * 3.2 + 0.5
        assert "could not speak, 3 times: no audio for 3 s" in str(rig.fault)


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
        assert squeezed(booth.text(reply)) == squeezed(ONE)


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
