"""A voice and the real sink: what the ledger believes against what the caller's ear received."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors.aura import AuraTTS
from processors.elevenlabs import ElevenLabsTTS
from tests.engine.engine_calls import Phone, phone, settled
from tests.speech_booth import KEY, VOICES, now, squeezed, until
from tests.vendors import spelled
from tests.vendors.aura import FakeAura
from tests.vendors.elevenlabs import FakeElevenLabs
from tests.vendors.speaking import Fault, SpeakingVendor
from voiceflow import Reply, ReplyEnd, Sentence
from voiceflow.services import Services
from voiceflow.speech import TextToSpeech
from voiceflow.speech.processor import AHEAD
from voiceflow.speech.utterance import LONGEST
from voiceflow.testing import run

SLOW = [HealthCheck.too_slow]
"""A machine with other work is no failure."""

SENTENCES = [
    "Good morning, this is Harbour Street Bakery.",
    "We open at seven in the morning on every day but Monday.",
    "Yes.",
    "What would you like to order, and when do you want to come for it?",
    "The rye bread is sold out, I am afraid.",
]


class Agent:
    """A call with nothing but a voice."""

    def __init__(self, it: Phone, voice: TextToSpeech, vendor: SpeakingVendor) -> None:
        self.it, self.voice, self.vendor = it, voice, vendor

    def answer(self, *texts: str, end: bool = True) -> Reply:
        reply = self.it.answer()
        self.say(reply, *texts, end=end)
        return reply

    def say(self, reply: Reply, *texts: str, end: bool = True) -> None:
        for text in texts:
            self.it.turner.push(Sentence(text, reply=reply))
        if end:
            self.it.turner.push(ReplyEnd(reply=reply))

    def remembered(self) -> list[str]:
        return [m.content for m in self.it.call.history.messages if m.role == "assistant"]

    def ear(self) -> str:
        return squeezed(spelled.read(bytes(self.it.carrier.heard)))

    async def finished(self, reply: Reply, limit: float = 60.0) -> None:
        await until(lambda: reply.dead, limit)


@asynccontextmanager
async def agent(name: str, *, network: float = 0.0, **settings: Any) -> AsyncIterator[Agent]:
    fake: SpeakingVendor
    voice: TextToSpeech
    if name == "elevenlabs":
        fake, voice = FakeElevenLabs(key=KEY, **settings), ElevenLabsTTS(api_key=KEY)
    else:
        fake, voice = FakeAura(key=KEY, **settings), AuraTTS(api_key=KEY)
    async with phone(voice, delay=network, services=Services(dial=fake.dial)) as it:
        await asyncio.sleep(1.0)
        yield Agent(it, voice, fake)
    await asyncio.sleep(0.1)
    assert fake.live == 0


def words_in(ear: str, texts: list[str]) -> tuple[list[str], int]:
    """All words, and how many of them the ear received to their end."""
    words = " ".join(texts).split()
    count, left = 0, len(ear)
    while count < len(words) and len(words[count]) <= left:
        left -= len(words[count])
        count += 1
    return words, count


vendors = st.fixed_dictionaries(
    {
        "pace": st.sampled_from([1.0, 5.0, 100.0]),
        "chunk": st.sampled_from([0.07, 0.25, 1.0]),
        "delay": st.sampled_from([0.05, 0.3]),
    }
)
lives = {
    "count": st.integers(1, len(SENTENCES)),
    "after": st.floats(0.0, 16.0),
    "network": st.sampled_from([0.0, 0.02, 0.2]),
    "vendor": vendors,
}


async def cut_at(
    name: str, count: int, after: float, network: float, vendor: dict[str, Any]
) -> tuple[str, str]:
    """What the history has, and what the ear received, of a reply that was cut `after` seconds."""
    async with agent(name, network=network, **vendor) as it:
        reply = it.answer(*SENTENCES[:count])
        await asyncio.sleep(after)
        over = reply.dead
        it.it.turns.started()
        await asyncio.sleep(2 * network + 0.1)
        remembered = " ".join(it.remembered())
        if over:
            assert remembered == " ".join(SENTENCES[:count])
        return remembered, it.ear()


@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
@given(**lives)
def test_with_alignments_the_history_is_right_to_the_word(
    count: int, after: float, network: float, vendor: dict[str, Any]
) -> None:
    async def main() -> None:
        remembered, ear = await cut_at("elevenlabs", count, after, network, vendor)
        words, heard = words_in(ear, SENTENCES[:count])
        assert remembered.split() == words[: len(remembered.split())]
        assert abs(len(remembered.split()) - heard) <= 1

    run(main())


@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
@given(**lives)
def test_without_it_is_right_to_the_sentence_and_in_proportion_inside(
    count: int, after: float, network: float, vendor: dict[str, Any]
) -> None:
    """Inside a stretch (a sentence, or those gathered under one Flush) by its length once all of it has come,
    by 15 characters a second before. The fake speaks 16.7: a tenth of the stretch, and a word."""

    async def main() -> None:
        remembered, ear = await cut_at("aura", count, after, network, vendor)
        text = " ".join(SENTENCES[:count])
        assert text.startswith(remembered)
        said = len(squeezed(remembered))
        longest = max(len(sentence) for sentence in SENTENCES) + 60
        assert abs(said - len(ear)) <= longest / 10 + 12

    run(main())


@pytest.mark.parametrize("name", VOICES)
async def test_a_reply_that_is_heard_to_its_end_is_remembered_whole(virtual_time: None, name: str) -> None:
    async with agent(name) as it:
        reply = it.answer(*SENTENCES)
        await it.finished(reply)
        assert it.remembered() == [" ".join(SENTENCES)]
        assert it.ear() == squeezed(*SENTENCES)
        assert it.it.sink.pacer.underruns == 0


@pytest.mark.parametrize("name", VOICES)
@pytest.mark.parametrize("kind", ["drop", "stall"])
async def test_a_connection_that_fails_while_much_is_queued_is_not_heard(
    virtual_time: None, name: str, kind: Any
) -> None:
    """The audio that is ahead bridges the three seconds in which a stall is noticed."""
    async with agent(name, pace=5.0) as it:
        it.vendor.faults = [Fault(kind, after=40)]
        reply = it.answer(*SENTENCES * 2)
        await it.finished(reply)
        assert it.ear() == squeezed(*SENTENCES * 2)
        assert it.it.sink.pacer.underruns == 0
        assert it.voice.figures()["reconnects"] == 1


@pytest.mark.parametrize("name", VOICES)
async def test_an_outage_is_not_heard_while_there_is_something_to_hear(virtual_time: None, name: str) -> None:
    """A minute is queued, and for half of it there is no vendor."""
    async with agent(name, pace=50.0) as it:
        reply = it.answer(*SENTENCES * 9)
        await asyncio.sleep(20.0)
        it.vendor.hang = True
        for link in it.vendor.links:
            link.break_()
        await asyncio.sleep(30.0)
        it.vendor.hang = False
        await it.finished(reply, 120.0)
        assert it.ear() == squeezed(*SENTENCES * 9)
        assert it.it.sink.pacer.underruns == 0
        assert it.it.call.fault is None


@pytest.mark.parametrize("name", VOICES)
async def test_a_minute_of_queued_audio_holds_nothing_up(virtual_time: None, name: str) -> None:
    """The line takes 30 s. What is more waits for it reply by reply, while the socket is read all the time
    (or its pings would go unanswered), nothing counts as stalled, and an Interrupt takes effect at once."""
    async with agent(name, pace=50.0) as it:
        it.answer(*SENTENCES * 6, end=False)
        await asyncio.sleep(20.0)
        assert it.it.sink.depth().depth > 29_000
        assert it.voice.figures()["reconnects"] == 0
        assert not it.it.call.fault
        (connection,) = it.voice._lines
        assert not connection.link._incoming._waiting, "all that came was read"  # type: ignore[attr-defined]

        cut = now()
        it.it.turns.started()
        await settled()
        assert it.it.carrier.wire[-1] == (cut, "clear")
        reply = it.answer("Yes?")
        await it.finished(reply)
        assert it.ear().endswith("Yes?")
        assert now() - cut < 1.5
        assert not it.vendor.wrongs


@pytest.mark.parametrize("name", VOICES)
async def test_a_draft_beside_a_dying_reply_speaks_at_once(virtual_time: None, name: str) -> None:
    async with agent(name, pace=1.0) as it:
        it.answer(*SENTENCES)
        await asyncio.sleep(2.0)
        it.it.turns.started()
        it.it.turns.may_be_over("so")
        draft = it.it.turns._replies[it.it.turns.state.draft]
        it.say(draft, "Of course.")
        await asyncio.sleep(1.5)
        before = it.ear()
        it.it.turns.ended("so")
        await it.finished(draft)
        assert it.ear() == before + "Ofcourse."
        assert it.remembered()[-1] == "Of course."
        assert not it.vendor.wrongs


@pytest.mark.parametrize("name", VOICES)
async def test_ten_minutes_are_spoken_without_being_kept(virtual_time: None, name: str) -> None:
    """As one Sentence, as `call.say` gives it. The vendor is far faster than the caller's ear."""
    text = " ".join(SENTENCES * 50)
    async with agent(name, pace=100.0, chunk=1.0) as it:
        reply = it.answer(text)
        peak = 0.0
        began = now()
        while not reply.dead:
            await asyncio.sleep(1.0)
            peak = max([peak, *(u.outlet.samples / 8000 for u in it.voice._utterances.values())])
            assert now() - began < 700.0
        assert now() - began > 590.0
        assert it.remembered() == [text]
        assert it.ear() == squeezed(text)
        assert peak < AHEAD + LONGEST / 10, "and the piece that was asked for last"
        assert it.it.sink.pacer.underruns == 0
        assert not it.vendor.wrongs


async def test_a_vendor_that_never_stops_ends_the_call_by_name(virtual_time: None) -> None:
    """Audio that nobody asked for, a minute in a message."""
    async with agent("aura", delay=1e6) as it:
        it.answer("Yes.")
        await asyncio.sleep(0.1)
        for _ in range(23):
            await it.vendor.links[0].send(b"\x55" * 480_000)
        await until(lambda: it.it.call.fault is not None)
        assert "AuraTTS" in str(it.it.call.fault)
        assert "a voice's queue is full" in str(it.it.call.fault)
