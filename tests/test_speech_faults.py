"""Text to speech on bad days: random lives of calls and of vendors in virtual time, and the stated bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.speech_booth import KEY, VOICES, Booth, now, squeezed, until
from tests.vendors.elevenlabs import OTHER_SPELLING
from tests.vendors.speaking import Fault
from tests.vendors.wire import Refusal
from voiceflow import AudioOut, Reply
from voiceflow.errors import LinkError, LinkRefused
from voiceflow.frames import AudioFormat
from voiceflow.line.link import Link
from voiceflow.speech import Audio, TextToSpeech
from voiceflow.speech.connection import SEND_TIMEOUT
from voiceflow.speech.connections import DIAL_TIMEOUT
from voiceflow.speech.outlet import Outlet
from voiceflow.speech.processor import AGAIN, PATIENCE
from voiceflow.speech.utterance import Utterance, pieces_of
from voiceflow.testing import Rig, run

SLOW = [HealthCheck.too_slow]
"""A machine with other work is no failure."""

TEXT = "we open at seven in the morning on every day but Monday which is when we rest"
WORDS = TEXT.split()


class Forever(list[Fault]):
    """Faults that come again and again."""

    def remove(self, fault: Fault) -> None:
        pass


class Life:
    """One call: what was said in it, what was cut, and what must be true of it in the end."""

    def __init__(self, booth: Booth) -> None:
        self.booth = booth
        self.said: dict[Reply, list[str]] = {}
        self.open: list[Reply] = []
        self.cut: dict[Reply, int] = {}
        """How many frames of it had come when it was cut."""
        self.number = 0

    def reply(self, *, beside: bool) -> None:
        if not self.open or (beside and len(self.open) < 2):
            reply = self.booth.r.reply()
            self.open.append(reply)
            self.said[reply] = []

    def speak(self, count: int) -> None:
        self.reply(beside=False)
        for _ in range(count):
            self.number += 1
            first = self.number % len(WORDS)
            words = (WORDS[first:] + WORDS)[: 1 + self.number % 9]
            text = f"No. {self.number}: {' '.join(words)}"  # a full stop is nothing that has to be heard
            self.said[self.open[-1]].append(text)
            self.booth.more(self.open[-1], text, end=False)

    def end(self) -> None:
        if self.open:
            self.booth.more(self.open.pop(0))

    def interrupt(self, which: int) -> None:
        living = [r for r in self.said if r not in self.cut and not self.booth.ended(r)]
        if living:
            reply = living[which % len(living)]
            self.booth.cut(reply)
            self.cut[reply] = len(self.booth.heard(reply))
            if reply in self.open:
                self.open.remove(reply)

    async def over(self) -> bool:
        """Waits until everything is said. False when the call was ended. AssertionError when neither happens
        though all that came was heard PATIENCE ago, and what came before could be said again."""
        while self.open:
            self.end()
        living = [r for r in self.said if r not in self.cut]
        vendor = self.booth.vendor
        limit = PATIENCE + 0.5 + AGAIN * (vendor.delay + 10.0 / vendor.pace)
        silent, seen = now(), 0
        while self.booth.r.fault is None:
            if all(self.booth.ended(reply) for reply in living):
                return True
            frames = self.booth.r.got(AudioOut)
            silent = max(silent, now()) if len(frames) > seen else silent
            silent += sum(len(frame.audio) for frame in frames[seen:]) / 8000
            seen = len(frames)
            assert now() - silent < limit, "silence beyond the bound"
            await asyncio.sleep(0.1)
        return False

    def check(self, *, complete: bool) -> None:
        for reply, texts in self.said.items():
            if reply in self.cut:
                assert len(self.booth.heard(reply)) == self.cut[reply], "nothing came after its Interrupt"
                assert not self.booth.ended(reply)
            elif complete:
                assert self.booth.text(reply) == squeezed(*texts)
                told = " ".join(text for text, _ in self.booth.stretches(reply))
                assert told == " ".join(texts), "the ledger has every sentence once"
            else:
                assert squeezed(*texts).startswith(self.booth.text(reply))
        failed = [u.name for u in self.booth.vendor.log if u.failed]  # what crosses an error is no mistake
        wrongs = [w for _, w in self.booth.vendor.wrongs if not any(name in w for name in failed)]
        assert not wrongs


speaking = st.one_of(
    st.tuples(st.just("speak"), st.integers(1, 4)),
    st.tuples(st.just("end"), st.none()),
    st.tuples(st.just("cut"), st.integers(0, 1)),
    st.tuples(st.just("draft"), st.none()),
)
failing = st.one_of(
    st.tuples(
        st.just("fault"),
        st.tuples(st.sampled_from(["drop", "stall", "close", "error", "garbage"]), st.integers(0, 12)),
    ),
    st.tuples(st.just("break"), st.none()),
    st.tuples(st.just("refuse"), st.sampled_from([429, 503])),
    st.tuples(st.just("hang"), st.booleans()),
    st.tuples(st.just("handshake"), st.sampled_from([0.0, 0.3, 2.0])),
)
gaps = st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.25, 0.7, 2.0, 8.0])


async def live(name: str, script: list[tuple[tuple[str, Any], float]], vendor: dict[str, Any]) -> None:
    booth, hung = Booth(name, **vendor), False
    async with booth.rig(settle=0.0):
        life = Life(booth)
        for (what, how), gap in script:
            match what:
                case "speak":
                    life.speak(how)
                case "end":
                    life.end()
                case "cut":
                    life.interrupt(how)
                case "draft":
                    life.reply(beside=True)
                case "fault":
                    booth.vendor.faults.append(Fault(*how))
                case "break" if booth.vendor.links:
                    booth.vendor.links[-1].break_()
                case "refuse":
                    booth.vendor.refusals.append(Refusal(how))
                case "hang":
                    booth.vendor.hang = how
                    hung |= how
                case "handshake":
                    booth.vendor.handshake = how
            await asyncio.sleep(gap)
        complete = await life.over()
        life.check(complete=complete)
        if not complete:
            assert "could not speak" in str(booth.r.fault)
            troubles = [
                what for (what, how), _ in script if what in ("fault", "break", "refuse") or how == 2.0
            ]
            assert hung or len(troubles) > 2, "two failures must be survived"
    await asyncio.sleep(0.1)
    assert booth.vendor.live == 0, "every connection is closed"
    assert booth.voice._timer is None or booth.voice._timer.cancelled()


COMMON = {
    "delay": st.sampled_from([0.0, 0.1, 1.5]),
    "pace": st.sampled_from([1.0, 5.0, 50.0]),
    "chunk": st.sampled_from([0.07, 0.25, 1.0]),
}
ODD = {
    "elevenlabs": {
        "late": st.sampled_from([None, 0, 3]),
        "final_after": st.sampled_from([0.0, 0.05, 1.5, 1e6]),
        "alignments": st.booleans(),
        "unaligned": st.sets(st.integers(0, 12), max_size=4),
        "spelling": st.sampled_from([{}, OTHER_SPELLING]),
    },
    "aura": {
        "late": st.integers(0, 5),
        "clear_after": st.sampled_from([0.0, 0.3, 1.5, 5.0]),
        "enough": st.sampled_from([30, 500]),
        "flushes": st.just(18),
    },
}
"""What a vendor may do; 5 s for Cleared, and an isFinal that never comes, are waited for in vain."""


@pytest.mark.parametrize("name", VOICES)
@settings(max_examples=80, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
@given(st.data())
def test_random_lives_with_a_vendor_that_works(name: str, data: st.DataObject) -> None:
    vendor = data.draw(st.fixed_dictionaries({**COMMON, **ODD[name]}), "vendor")
    run(live(name, data.draw(st.lists(st.tuples(speaking, gaps), max_size=25), "script"), vendor))


@pytest.mark.parametrize("name", VOICES)
@settings(max_examples=80, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
@given(
    script=st.lists(st.tuples(speaking | failing, gaps), max_size=25), vendor=st.fixed_dictionaries(COMMON)
)
def test_random_lives_with_a_vendor_that_does_not(
    name: str, script: list[Any], vendor: dict[str, Any]
) -> None:
    run(live(name, script, vendor))


# -- one fault at a time


@pytest.fixture(params=VOICES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_stall_is_noticed_though_sentences_keep_coming(virtual_time: None, name: str) -> None:
    """What counts is how long audio is owed, not when something was last asked for."""
    booth = Booth(name)
    booth.vendor.faults = [Fault("stall")]
    async with booth.rig():
        began = now()
        reply = booth.speak("The first sentence.", end=False)
        for number in range(6):
            await asyncio.sleep(1.0)
            booth.more(reply, f"Another one, number {number}.", end=False)
        assert booth.heard(reply)
        assert now() - began < 6.1
        booth.more(reply)
        await until(lambda: booth.ended(reply))
        assert booth.voice.figures()["reconnects"] == 1


async def test_a_pause_of_the_language_model_is_no_stall(virtual_time: None, name: str) -> None:
    booth = Booth(name)
    async with booth.rig():
        reply = booth.speak("Let me look that up.", end=False)
        await asyncio.sleep(25.0)
        booth.more(reply, "Here it is.")
        await until(lambda: booth.ended(reply))
        assert booth.text(reply) == "Letmelookthatup.Hereitis."
        assert booth.voice.figures()["reconnects"] == 0
        assert not booth.vendor.wrongs


async def test_an_outage_that_nobody_hears_ends_no_call(virtual_time: None, name: str) -> None:
    """The connection dies while the caller speaks, and for half a minute there is no other."""
    booth = Booth(name)
    async with booth.rig(settle=6.0):
        booth.vendor.refusals.extend([Refusal(503)] * 99)
        for link in booth.vendor.links:
            link.break_()
        await asyncio.sleep(30.0)
        assert booth.r.fault is None
        booth.vendor.refusals.clear()
        reply = booth.speak("Here I am again.")
        await until(lambda: booth.ended(reply))
        assert booth.text(reply) == "HereIamagain."


@pytest.mark.parametrize("how", ["refused", "hangs", "dies"])
async def test_an_outage_that_the_caller_hears_ends_the_call_within_the_bound(
    virtual_time: None, name: str, how: str
) -> None:
    booth = Booth(name)
    async with booth.rig() as rig:
        for link in booth.vendor.links:
            link.break_()
        booth.vendor.hang = how == "hangs"
        if how == "refused":
            booth.vendor.refusals.extend([Refusal(503, f"down, dear {KEY}")] * 99)
        if how == "dies":
            booth.vendor.faults = Forever([Fault("close", None, message=f"no more for {KEY}")])
        began = now()
        booth.speak("Hello?")
        await until(lambda: rig.call.fault is not None)
        assert PATIENCE <= now() - began < PATIENCE + 0.3
        assert "could not speak" in str(rig.fault)
        assert KEY not in str(rig.fault)
        assert len(booth.vendor.connections) < 20, "a vendor in trouble is not hammered"


async def test_a_key_that_is_withdrawn_ends_the_call_at_once(virtual_time: None, name: str) -> None:
    booth = Booth(name)
    async with booth.rig() as rig:
        booth.vendor.refusals.extend([Refusal(401)] * 9)
        for link in booth.vendor.links:
            link.break_()
        began = now()
        booth.speak("Hello?")
        await until(lambda: rig.call.fault is not None)
        assert now() - began < 0.5
        assert "_API_KEY is not valid" in str(rig.fault)


async def test_a_socket_that_takes_nothing_is_replaced(virtual_time: None, name: str) -> None:
    booth = Booth(name)

    async def stuck(message: object) -> None:
        await asyncio.Event().wait()

    async with booth.rig():
        connection = booth.voice._lines.current
        assert connection is not None
        connection.link.send = stuck  # type: ignore[method-assign]
        connection.link.send_at_once = lambda message: False  # type: ignore[method-assign]
        began = now()
        reply = booth.speak("Hello.")
        await until(lambda: booth.ended(reply))
        assert booth.text(reply) == "Hello."
        assert now() - began < SEND_TIMEOUT + 1.5


async def test_an_interrupt_in_the_tick_of_the_end(virtual_time: None) -> None:
    """The context's close waits for the socket when the interrupt comes: dropped with the rest, the context
    would keep its place for ever."""
    booth = Booth("elevenlabs", delay=0.0, pace=100.0)
    async with booth.rig():
        for number in range(12):
            reply = booth.speak("Short.", end=False)
            await asyncio.sleep(0.05 * number)
            booth.more(reply)
            if number % 3:
                await asyncio.sleep(0.26)
            connection = booth.voice._lines.current
            assert connection is not None
            connection._writing = True  # as if the socket were full
            booth.voice._tick()
            booth.cut(reply)
            connection._writing = False
            await asyncio.sleep(0.5)
            assert connection.protocol.clean()
        assert len(booth.vendor.connections) == 2, "one in use, one spare"
        assert not booth.vendor.wrongs


async def test_a_reply_outlives_its_context(virtual_time: None) -> None:
    """The service gives an idle context up, in either of its two ways, while the model looks something up."""
    for ends in ("socket", "context"):
        booth = Booth("elevenlabs", idle_ends=ends)
        async with booth.rig():
            reply = booth.speak("One moment.", end=False)
            await asyncio.sleep(200.0)
            booth.more(reply, "Here it is.", end=False)
            await asyncio.sleep(3.0)
            booth.more(reply)
            await until(lambda: booth.ended(reply))  # noqa: B023
            assert booth.text(reply) == "Onemoment.Hereitis."
            assert [text for text, _ in booth.stretches(reply)] == ["One moment.", "Here it is."]


async def test_a_context_that_the_service_finishes_early(virtual_time: None) -> None:
    """isFinal comes though nobody has closed the context: what follows goes to another, and ReplyEnd comes
    once."""
    booth = Booth("elevenlabs")
    async with booth.rig():
        reply = booth.speak("One moment.", end=False)
        await asyncio.sleep(2.0)
        (key,) = booth.voice._by_key
        await booth.vendor.links[0].send(json.dumps({"isFinal": True, "contextId": key}))
        await asyncio.sleep(1.0)
        assert not booth.ended(reply)
        booth.more(reply, "Here it is.")
        await until(lambda: booth.ended(reply))
        assert booth.text(reply) == "Onemoment.Hereitis."


async def test_silence_where_a_sentence_should_be_is_said_again_once(virtual_time: None) -> None:
    """A flush race that swallows text, as was seen: isFinal comes, and the last sentence is missing."""
    booth = Booth("elevenlabs", flush_race=10.0, pace=50.0)
    async with booth.rig():
        reply = booth.speak("The first one.", "And the second one that is swallowed.")
        await until(lambda: booth.ended(reply))
        # The fake swallows it every time: it was tried twice, and the call goes on.
        assert booth.text(reply) in ("Thefirstone.", "Thefirstone.Andthesecondonethatisswallowed.")
        assert booth.r.fault is None


async def test_forty_short_sentences(virtual_time: None, name: str) -> None:
    """Aura takes twenty Flushes a minute. Nobody hears that."""
    texts = [f"Number {n} it is." for n in range(40)]
    booth = Booth(name)
    async with booth.rig():
        began = now()
        reply = booth.r.reply()
        for text in texts:
            booth.more(reply, text, end=False)
            await asyncio.sleep(0.12)
        booth.more(reply)
        heard, came = 0, began
        while not booth.ended(reply):
            await asyncio.sleep(0.01)
            frames = booth.heard(reply)
            if len(frames) > heard:
                came += sum(len(f.audio) for f in frames[heard:]) / 8000
                heard = len(frames)
            assert now() < came + 0.5, "the line never runs dry"
        assert booth.text(reply) == squeezed(*texts)
        assert not booth.vendor.wrongs


async def test_slow_short_sentences_use_more_than_one_connection(virtual_time: None) -> None:
    """A sentence a second, each with a Flush of its own: in a minute that is three times what Aura takes."""
    texts = [f"Yes, {n}." for n in range(60)]
    booth = Booth("aura", pace=20.0)
    async with booth.rig():
        reply = booth.r.reply()
        for text in texts:
            booth.more(reply, text, end=False)
            await asyncio.sleep(1.0)
            assert booth.stretches(reply)[-1] == (text, text), "it is there within the second"
        booth.more(reply)
        await until(lambda: booth.ended(reply))
        assert booth.text(reply) == squeezed(*texts)
        assert 3 <= len(booth.vendor.connections) <= 6
        assert not booth.vendor.wrongs


async def test_a_flush_that_the_service_ignores_costs_no_time(virtual_time: None) -> None:
    """It counts in another way than we do: the sentence goes to another connection at once."""
    texts = [f"Yes, {n}." for n in range(20)]
    booth = Booth("aura", flushes=5)
    async with booth.rig():
        reply = booth.r.reply()
        for text in texts:
            booth.more(reply, text, end=False)
            await asyncio.sleep(1.0)
            assert booth.stretches(reply)[-1] == (text, text)
        booth.more(reply)
        await until(lambda: booth.ended(reply))
        assert booth.text(reply) == squeezed(*texts)


async def test_a_connection_that_fails_inside_gathered_sentences(virtual_time: None) -> None:
    """They are said again in one breath, and what was heard of them is skipped."""
    texts = [f"Sentence number {n} of many." for n in range(12)]
    for after in range(0, 40, 3):
        booth = Booth("aura", pace=20.0)
        booth.vendor.faults = [Fault("drop", after), Fault("drop", after + 5)]
        async with booth.rig():
            reply = booth.speak(*texts)
            await until(lambda: booth.ended(reply))  # noqa: B023
            assert booth.text(reply) == squeezed(*texts)
            assert " ".join(text for text, _ in booth.stretches(reply)) == " ".join(texts)


async def test_two_replies_at_once(virtual_time: None, name: str) -> None:
    """Aura speaks one on a connection: the other gets one of its own, and both are given back."""
    booth = Booth(name, pace=2.0)
    async with booth.rig():
        first = booth.speak("The first reply, which takes a while to be said.")
        await asyncio.sleep(0.3)
        second = booth.speak("The second one.")
        await until(lambda: booth.ended(first) and booth.ended(second))
        assert booth.text(first) == "Thefirstreply,whichtakesawhiletobesaid."
        assert booth.text(second) == "Thesecondone."
        await asyncio.sleep(0.5)
        assert len(list(booth.voice._lines)) == 1
        assert len(booth.vendor.connections) == (2 if name == "elevenlabs" else 3)
        pool = booth.voice._lines.pool
        assert pool.idle == (1 if name == "elevenlabs" else 2), "as good as new: it waits for the next"
        assert not booth.vendor.wrongs


async def test_five_places_and_more_replies_than_that(virtual_time: None) -> None:
    """Contexts that never become final keep their places: another connection is taken in time."""
    booth = Booth("elevenlabs", final_after=1e6, pace=100.0)
    async with booth.rig():
        for number in range(12):
            reply = booth.speak(f"Reply {number}.")
            await until(lambda: booth.ended(reply))  # noqa: B023
            assert booth.text(reply) == f"Reply{number}."
        assert booth.vendor.peak_contexts == 5  # type: ignore[attr-defined]
        assert not booth.vendor.wrongs


async def test_what_cannot_be_spoken_is_not_sent(virtual_time: None, name: str) -> None:
    booth = Booth(name)
    async with booth.rig():
        reply = booth.speak("\N{WAVING HAND SIGN}", "Hello.", "...", "  ", "\ud83d Bye.", ")")
        await until(lambda: booth.ended(reply))
        assert booth.text(reply) == "Hello.?Bye."
        assert [text for text, _ in booth.stretches(reply)] == ["Hello.", "? Bye."]


async def test_samples_that_are_cut_between_messages(virtual_time: None) -> None:
    """16-bit samples, in messages of an odd number of bytes."""
    format = AudioFormat("pcm16", 8000)
    frames: list[AudioOut] = []

    async def keep(frame: AudioOut) -> None:
        frames.append(frame)

    outlet = Outlet(lambda work, name: asyncio.ensure_future(work), keep, lambda: None, lambda: None)  # type: ignore[arg-type]
    utterance = Utterance(Reply(1), outlet, pieces=["Hello."])
    whole = bytes(range(100))
    for begin in range(0, 100, 7):
        utterance.take(Audio("k", whole[begin : begin + 7], 0, 0), format.rate, format.sample_bytes)
    outlet.finish()
    await asyncio.sleep(0.1)
    assert all(len(frame.audio) % 2 == 0 for frame in frames)
    assert b"".join(frame.audio for frame in frames) == whole
    assert outlet.samples == 0


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        (" ... ", []),
        ("Hello.", ["Hello."]),
        ("One. " * 80, [("One. " * 60).strip(), ("One. " * 20).strip()]),
        ("word " * 80, [("word " * 60).strip(), ("word " * 20).strip()]),
        ("x" * 650, ["x" * 300, "x" * 300, "x" * 50]),
        ("\u4f60\u597d\u3002" * 101, ["\u4f60\u597d\u3002" * 100, "\u4f60\u597d\u3002"]),
    ],
)
def test_long_texts_are_cut(text: str, pieces: list[str]) -> None:
    assert pieces_of(text) == pieces


# -- warming up


async def test_warming_with_a_wrong_key_says_so(virtual_time: None, name: str) -> None:
    booth = Booth(name)
    booth.vendor.key = "another"
    async with warming(booth) as voice:
        with pytest.raises(LinkRefused, match=r"_API_KEY is not valid") as caught:
            await voice.warm()
        assert KEY not in str(caught.value)


@pytest.mark.parametrize("how", ["unreachable", "slow", "busy"])
async def test_warming_waits_for_nobody(virtual_time: None, name: str, how: str) -> None:
    """What may pass is no reason not to answer calls."""
    booth = Booth(name)

    async def unreachable(url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
        raise LinkError("vendor.example cannot be reached (ConnectionRefusedError)")

    booth.vendor.hang = how == "slow"
    if how == "busy":
        booth.vendor.refusals.extend([Refusal(429)] * 99)
    if how == "unreachable":
        booth.services.dial = unreachable
    async with warming(booth) as voice:
        began = now()
        await voice.warm()
        assert now() - began < DIAL_TIMEOUT + 1.1


@asynccontextmanager
async def warming(booth: Booth) -> AsyncIterator[TextToSpeech]:
    """A voice of a call that never begins, as the server has one to warm up with."""
    voice = booth.make()
    async with Rig(services=booth.services) as rig:
        voice._call = rig.call
        yield voice
