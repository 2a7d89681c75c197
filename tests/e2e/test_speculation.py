"""Drafts end to end: an answer that is begun before the turn is over plays at once when it was right, and
leaves nothing behind when it was not. The same scripts over real sockets and in virtual time.

Flux says EagerEndOfTurn after 0.12 s of silence and EndOfTurn after 0.5 s. The model's answers come in the
order in which they are asked for: a draft's words are nobody else's.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path as FilePath
from typing import Any

import pytest

from processors.aura import AuraTTS
from processors.elevenlabs import ElevenLabsTTS
from processors.flux import FluxSTT
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from processors.twilio.codec import TwilioCodec
from tests.e2e.agents import environment, vendors
from tests.e2e.conversation import Make, Phone, real, virtual
from tests.vendors.completions import Completion
from tests.vendors.flux import FakeFlux, turn_info
from tests.vendors.openai import FakeOpenAI
from tests.vendors.openai import Fault as ModelFault
from tests.vendors.server import DEEPGRAM_KEY, OPENAI_KEY, Vendors
from tests.vendors.speaking import Fault as VoiceFault
from tests.vendors.speaking import Utterance
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.trace.path import Path, Step

PAGE = FilePath(__file__).resolve().parents[2] / "docs" / "speculation.md"

EAGER, END = 0.12, 0.5
ZEBRA = "Zebras have stripes, and so do bees."
CAKE = "A cake it is, then."
RYE = "Rye bread, gladly."
SORRY = "Could you say that again?"

Scene = Callable[[Phone, Vendors], Awaitable[None]]
Played = Callable[..., Phone]


def drafting(
    voice: str = "elevenlabs", eager: float | None = 0.4, timeout: int | None = None, **llm: Any
) -> Make:
    """An agent that answers early, and greets nobody. `timeout`: milliseconds after which a turn is over in
    any case, and with it the wait of a draft."""

    def make(call: Call) -> Pipeline:
        return Pipeline(
            call.source(),
            FluxSTT(eager_eot_threshold=eager, eot_timeout_ms=timeout),
            ChatLLM(instructions="You sell bread.", **llm),
            SentenceAggregator(),
            ElevenLabsTTS() if voice == "elevenlabs" else AuraTTS(),
            call.sink(),
        )

    return make


def speakers(replies: Sequence[str] = (ZEBRA, CAKE, RYE), **more: Any) -> Vendors:
    """Fakes whose model gives `replies` in turn, 0.06 s after it was asked."""
    flux = FakeFlux(
        key=DEEPGRAM_KEY,
        mode=more.pop("mode", "spelled"),
        eager_silence=more.pop("eager", EAGER),
        eot_silence=more.pop("end", END),
    )
    llm = FakeOpenAI(key=OPENAI_KEY, reply=list(replies), ttft=more.pop("ttft", 0.06), gap=0.002)
    return vendors(flux=flux, llm=llm, **more)


@pytest.fixture(params=["virtual", "real"])
def played(request: pytest.FixtureRequest, virtual_time: Any) -> Played:
    """Plays a scene in that world; returns the phone when the call is over."""

    def in_virtual_time(scene: Scene, fakes: Vendors, make: Make | None = None) -> Phone:
        async def call() -> Phone:
            with environment(fakes):
                async with virtual(fakes, make or drafting()) as phone:
                    await scene(phone, fakes)
                return phone

        done: Phone = virtual_time.run(call())
        return done

    def over_real_sockets(scene: Scene, fakes: Vendors, make: Make | None = None) -> Phone:
        async def call() -> Phone:
            async with fakes:
                with environment(fakes):
                    async with real(fakes, make or drafting()) as phone:
                        await scene(phone, fakes)
                    return phone

        return asyncio.run(asyncio.wait_for(call(), 60))

    return in_virtual_time if request.param == "virtual" else over_real_sockets


def asked(fakes: Vendors) -> list[Completion]:
    return [request for request in fakes.llm.requests if request.messages]


def spoken(fakes: Vendors) -> list[Utterance]:
    return [u for u in (*fakes.elevenlabs.log, *fakes.aura.log) if u.text.strip()]


def drafts(phone: Phone) -> tuple[float, float, float]:
    figures = phone.call.figures()
    return figures["drafts"], figures["drafts_kept"], figures["drafts_dropped"]


async def listening(phone: Phone, fakes: Vendors) -> None:
    await phone.until(lambda: any(session.chunks for session in fakes.flux.sessions), "Flux hears")


def letters(text: str) -> str:
    return "".join(text.split())


def well(phone: Phone, fakes: Vendors) -> None:
    """What holds after every one of these calls."""
    assert phone.result is not None
    assert phone.result.fault is None
    assert not fakes.flux.wrongs
    assert not fakes.elevenlabs.wrongs
    for path in phone.call.trace.paths:
        adds_up(path)


def adds_up(path: Path) -> None:
    """No part of a path is negative, and together they are the gap."""
    parts = path.parts()
    assert all(part.microseconds >= 0 for part in parts)
    if path.gap is not None and path.since is not None:
        wall = path.at[Step.HEARD] - path.at[path.since]
        assert sum(part.seconds for part in parts) == pytest.approx(wall, abs=2e-6)
        assert path.gap == pytest.approx(wall, abs=2e-6)


def vanished(phone: Phone, fakes: Vendors, text: str, number: int = 0) -> None:
    """Nothing of the draft that was path `number`, and of its words `text`, is anywhere."""
    path = phone.call.trace.paths[number]
    assert (path.draft, path.dropped, path.heard, path.gap) == (True, True, "", None)
    assert Step.ON_THE_WIRE not in path.at, "no audio of it, so no mark of it, was sent"
    for word in text.split():
        assert letters(word) not in letters(phone.ear())
    assert not [m for m in phone.call.history.messages if text.split()[0] in m.content]
    for request in asked(fakes):
        assert text.split()[0] not in str(request.messages)
    if path.cut.startswith("the caller"):  # else the call's end took it, and the ledger goes with the call
        assert phone.call._pipeline is not None
        assert phone.call._pipeline.sink is not None
        assert path.reply not in {reply.number for reply in phone.call._pipeline.sink.ledger._tracks}


# -- a draft that was right ---------------------------------------------------------------------------------


def test_a_draft_that_was_right_plays_when_the_turn_is_over(played: Played) -> None:
    async def scene(phone: Phone, fakes: Vendors) -> None:
        await phone.said("A cake, please.")
        await phone.until(lambda: fakes.flux.messages("EagerEndOfTurn"), "Flux guesses")
        await phone.hears(ZEBRA)
        await phone.quiet(0.3)

    fakes = speakers()
    phone = played(scene, fakes)
    well(phone, fakes)
    assert len(fakes.flux.messages("EagerEndOfTurn")) == len(fakes.flux.messages("EndOfTurn")) == 1
    assert len(asked(fakes)) == 1
    assert [u.text.strip() for u in spoken(fakes)] == [ZEBRA]
    assert (phone.said_by_caller(), phone.said_by_agent()) == (["A cake, please."], [ZEBRA])
    assert drafts(phone) == (1, 1, 0)
    (path,) = phone.call.trace.paths
    took = {part.step: part.seconds for part in path.parts()}
    assert path.at[Step.FIRST_AUDIO] < path.at[Step.END_OF_TURN], "it waited"
    assert [took[s] for s in (Step.FIRST_TOKEN, Step.FIRST_SENTENCE, Step.FIRST_AUDIO)] == [0, 0, 0]
    assert took[Step.ON_THE_WIRE] < 0.01
    assert path.saved == pytest.approx(path.at[Step.FIRST_AUDIO] - path.opened)
    assert phone.call.figures()["ElevenLabsTTS.wasted_characters"] == 0


def test_a_draft_that_is_half_ready_saves_what_was_done(played: Played) -> None:
    async def scene(phone: Phone, fakes: Vendors) -> None:
        await phone.said("A cake, please.")
        await phone.hears(ZEBRA)

    fakes = speakers(ttft=1.0)
    phone = played(scene, fakes)
    well(phone, fakes)
    (path,) = phone.call.trace.paths
    assert path.at[Step.FIRST_TOKEN] > path.at[Step.END_OF_TURN]
    assert path.saved == pytest.approx(path.at[Step.END_OF_TURN] - path.opened)
    assert path.saved == pytest.approx(END - EAGER, abs=0.09), "to a chunk of 80 ms"
    assert drafts(phone) == (1, 1, 0)
    assert len(asked(fakes)) == 1


def test_without_a_threshold_nothing_is_drafted(played: Played) -> None:
    async def scene(phone: Phone, fakes: Vendors) -> None:
        await phone.said("A cake, please.")
        await phone.hears(ZEBRA)

    fakes = speakers()
    phone = played(scene, fakes, drafting(eager=None))
    well(phone, fakes)
    assert drafts(phone) == (0, 0, 0)
    assert not fakes.flux.messages("EagerEndOfTurn")


# -- a draft that was wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("voice", ["elevenlabs", "aura"])
def test_a_caller_who_pauses_in_the_middle_of_a_sentence(played: Played, voice: str) -> None:
    async def scene(phone: Phone, fakes: Vendors) -> None:
        await phone.said("I would like")
        await phone.until(lambda: spoken(fakes) and spoken(fakes)[0].first_audio, "the draft is spoken")
        assert not phone.ear()
        await phone.said(" a cake.")
        await phone.hears(CAKE)
        await phone.quiet(0.3)
        await phone.said("And rye?")
        await phone.hears(RYE)
        await phone.quiet(0.3)

    fakes = speakers(end=0.8)
    phone = played(scene, fakes, drafting(voice))
    well(phone, fakes)
    vanished(phone, fakes, ZEBRA)
    assert phone.said_by_caller() == ["I would like a cake.", "And rye?"]
    assert phone.said_by_agent() == [CAKE, RYE]
    assert letters(phone.ear()) == letters(CAKE + RYE)
    assert drafts(phone) == (3, 2, 1)
    first, second, third = asked(fakes)
    assert [m["content"] for m in first.messages if m["role"] == "user"] == ["I would like"]
    assert [m["content"] for m in second.messages if m["role"] == "user"] == ["I would like a cake."]
    assert [m["content"] for m in third.messages[1:]] == ["I would like a cake.", CAKE, "And rye?"]
    assert spoken(fakes)[0].closed is not None, "the voice was told to stop"
    name = "ElevenLabsTTS" if voice == "elevenlabs" else "AuraTTS"
    assert phone.call.figures()[f"{name}.wasted_characters"] == pytest.approx(len(ZEBRA), abs=1)
    assert phone.call.figures()[f"{name}.wasted_ms"] > 0
    assert phone.call.figures()["interrupts"] == 0, "nobody was interrupted"
    assert phone.report.of("clear received") == []


def test_several_drafts_in_one_turn(played: Played) -> None:
    async def scene(phone: Phone, fakes: Vendors) -> None:
        for number, words in enumerate(("I would", " like", " a cake,", " please."), 1):
            await phone.said(words)
            await phone.until(
                lambda n=number: len(fakes.flux.messages("EagerEndOfTurn")) == n, "Flux guesses"
            )
        await phone.hears("The fourth.")
        await phone.quiet(0.3)

    fakes = speakers(["One zebra.", "Two yaks.", "Three xerus.", "The fourth."])
    phone = played(scene, fakes)
    well(phone, fakes)
    for number, words in enumerate(("One zebra", "Two yaks", "xerus")):
        vanished(phone, fakes, words.split()[-1], number)
    assert letters(phone.ear()) == "Thefourth."
    assert drafts(phone) == (4, 1, 3)
    assert phone.said_by_caller() == ["I would like a cake, please."]
    assert len(fakes.flux.messages("TurnResumed")) == 3


def test_words_that_change_at_the_end(played: Played) -> None:
    """The turn ends with other words than those that the draft answers, without a TurnResumed."""

    async def scene(phone: Phone, fakes: Vendors) -> None:
        await listening(phone, fakes)
        fakes.flux.say(turn_info("StartOfTurn", "A cake"))
        fakes.flux.say(turn_info("EagerEndOfTurn", "A cake"))
        await phone.until(lambda: spoken(fakes) and spoken(fakes)[0].first_audio, "the draft is spoken")
        fakes.flux.say(turn_info("EndOfTurn", "A cake, and bread"))
        await phone.hears(CAKE)
        await phone.quiet(0.3)

    fakes = speakers(mode="script")
    phone = played(scene, fakes)
    well(phone, fakes)
    vanished(phone, fakes, ZEBRA)
    assert phone.said_by_caller() == ["A cake, and bread"]
    assert letters(phone.ear()) == letters(CAKE)
    assert [m["content"] for m in asked(fakes)[1].messages[1:]] == ["A cake, and bread"]
    assert drafts(phone) == (1, 0, 1)


async def test_a_turn_that_is_ended_by_force_keeps_its_draft(virtual_time: None) -> None:
    """A key ends it, without a TurnResumed: the words are those of the guess."""
    fakes = speakers(end=5.0)
    with environment(fakes):
        async with virtual(fakes, drafting()) as phone:
            await phone.said("A cake, please.")
            await phone.until(lambda: spoken(fakes) and spoken(fakes)[0].first_audio, "the draft is spoken")
            assert phone.call._pipeline is not None
            (ears,) = [p for p in phone.call._pipeline.chain if isinstance(p, FluxSTT)]
            await ears.force_end_turn()
            await phone.hears(ZEBRA, 3.0)
    well(phone, fakes)
    assert len(asked(fakes)) == 1
    assert drafts(phone) == (1, 1, 0)


def test_a_second_guess_with_other_words(played: Played) -> None:
    async def scene(phone: Phone, fakes: Vendors) -> None:
        await listening(phone, fakes)
        fakes.flux.say(turn_info("StartOfTurn", "A cake"))
        fakes.flux.say(turn_info("EagerEndOfTurn", "A cake"))
        await phone.until(lambda: spoken(fakes), "the draft is spoken")
        fakes.flux.say(turn_info("EagerEndOfTurn", "A cake"))
        fakes.flux.say(turn_info("EagerEndOfTurn", "A cake for two"))
        await phone.until(lambda: len(spoken(fakes)) == 2, "the second draft is spoken")
        fakes.flux.say(turn_info("EndOfTurn", "A cake for two"))
        await phone.hears(CAKE)

    fakes = speakers(mode="script")
    phone = played(scene, fakes)
    well(phone, fakes)
    vanished(phone, fakes, ZEBRA)
    assert drafts(phone) == (2, 1, 1), "the same words need no other draft"


def test_a_draft_over_the_answer_before(played: Played) -> None:
    """The caller talks over an answer, and pauses: the answer is dead before a draft of the next begins."""

    async def scene(phone: Phone, fakes: Vendors) -> None:
        await phone.said("A loaf?")
        await phone.hears("Zebras have")
        await phone.said("No, a")
        await phone.until(lambda: len(fakes.flux.messages("EagerEndOfTurn")) == 2, "Flux guesses")
        await phone.said(" loaf.")
        await phone.hears(RYE)
        await phone.quiet(0.3)

    fakes = speakers()
    phone = played(scene, fakes)
    well(phone, fakes)
    vanished(phone, fakes, "cake", 1)
    assert phone.said_by_agent()[0] in ZEBRA
    assert phone.said_by_agent()[1:] == [RYE]
    assert phone.call.figures()["interrupts"] == 1
    assert drafts(phone) == (3, 2, 1)


# -- the call ends, the draft is long, the draft is short -------------------------------------------------


def test_a_hang_up_while_a_draft_waits(played: Played) -> None:
    async def scene(phone: Phone, fakes: Vendors) -> None:
        await phone.said("I would like")
        await phone.until(lambda: spoken(fakes) and spoken(fakes)[0].first_audio, "the draft is spoken")

    fakes = speakers(end=5.0)
    phone = played(scene, fakes)
    well(phone, fakes)
    vanished(phone, fakes, ZEBRA)
    assert phone.said_by_agent() == []
    assert phone.result is not None
    figures = phone.result.figures
    assert (figures["drafts"], figures["drafts_kept"], figures["drafts_dropped"]) == (1, 0, 1)
    assert figures["ElevenLabsTTS.wasted_characters"] == pytest.approx(len(ZEBRA), abs=1)


LONG = " ".join(f"Sentence {number} of very many, each as dull as the last." for number in range(24))
"""About 80 s of speech: more than the sink queues and the voice has ahead."""


@pytest.mark.parametrize("voice", ["elevenlabs", "aura"])
async def test_a_draft_that_is_longer_than_the_sink_queues(virtual_time: None, voice: str) -> None:
    """It waits for 12 s, longer than any patience of ours, and is heard to its last word."""
    fakes = speakers([LONG, CAKE], end=12.0)
    with environment(fakes):
        async with virtual(fakes, drafting(voice, timeout=60_000)) as phone:
            await phone.said("Tell me all.")
            await phone.hears("Sentence 0", 30.0)
            await asyncio.sleep(75.0)  # the ear takes its time to read so much
            await phone.hears("Sentence 23 of very many, each as dull as the last.", 30.0)
            await phone.quiet(0.3)
    well(phone, fakes)
    assert phone.said_by_agent() == [LONG]
    assert letters(phone.ear()) == letters(LONG)
    assert phone.call.figures()["underruns"] == 0


async def test_a_long_draft_that_is_dropped_holds_nobody_up(virtual_time: None) -> None:
    fakes = speakers([LONG, CAKE, RYE], end=8.0)
    with environment(fakes):
        async with virtual(fakes, drafting(timeout=60_000)) as phone:
            await phone.said("Tell me")
            await asyncio.sleep(6.0)
            await phone.said(" a joke.")
            await phone.hears(CAKE)
            await phone.quiet(0.3)
    well(phone, fakes)
    vanished(phone, fakes, "Sentence")
    assert phone.said_by_agent() == [CAKE]
    wasted = phone.call.figures()["ElevenLabsTTS.wasted_characters"]
    assert 30 * 15 < wasted < len(LONG), "what could be ahead of the line, not all of it"


async def test_a_draft_that_is_over_before_it_is_confirmed(virtual_time: None) -> None:
    """ReplyEnd waits with it, and a dropped one is wasted all the same."""
    fakes = speakers(["No zebras.", "Yes."], end=3.0)
    fakes.elevenlabs.pace = math.inf
    with environment(fakes):
        async with virtual(fakes, drafting()) as phone:
            await phone.said("Is it")
            await phone.until(lambda: spoken(fakes) and spoken(fakes)[0].finished, "all of it is spoken")
            await asyncio.sleep(0.5)
            await phone.said(" open?")
            await phone.until(lambda: len(spoken(fakes)) > 1 and spoken(fakes)[1].finished, "the second")
            await asyncio.sleep(1.0)
            assert phone.ear() == ""
            await phone.hears("Yes.")
            await phone.quiet(0.3)
    well(phone, fakes)
    vanished(phone, fakes, "zebras")
    assert phone.said_by_agent() == ["Yes."]
    assert phone.call.figures()["ElevenLabsTTS.wasted_characters"] == len("No zebras.")
    assert phone.call.figures()["ElevenLabsTTS.wasted_ms"] == pytest.approx(630, abs=30)


async def test_a_draft_without_a_word(virtual_time: None) -> None:
    """The model says nothing: the reply is over when it is confirmed, and the next turn is answered."""
    fakes = speakers(["", "", "", CAKE])
    with environment(fakes):
        async with virtual(fakes, drafting(sorry=SORRY, first_token_timeout=0.5, patience=0.5)) as phone:
            await phone.said("Hello?")
            await phone.hears(SORRY)
            await phone.quiet(0.3)
    well(phone, fakes)
    assert drafts(phone) == (1, 1, 0)


# -- a draft that fails -----------------------------------------------------------------------------------


def failing(fakes: Vendors, how: str, times: int) -> None:
    if how == "model":
        fakes.llm.faults.extend([ModelFault(status=404)] * times)
    elif how == "model breaks off":
        fakes.llm.faults.extend([ModelFault(then="error", after=3)] * times)
    else:
        fakes.elevenlabs.faults.extend([VoiceFault(how)] * times)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["model", "model breaks off", "drop", "stall", "error", "close", "garbage"])
async def test_a_draft_that_fails_and_is_confirmed(virtual_time: None, how: str) -> None:
    """The caller hears something all the same."""
    fakes = speakers()
    failing(fakes, how, 1)
    with environment(fakes):
        async with virtual(fakes, drafting()) as phone:
            await phone.said("A cake, please.")
            await phone.hears_since("say that again?" if how.startswith("model") else ZEBRA)
            await phone.quiet(0.3)
            await phone.said("Rye?")
            await phone.hears_since(ZEBRA if how == "model" else CAKE)  # what it has not said yet
    well(phone, fakes)


@pytest.mark.parametrize("how", ["model", "model breaks off", "drop", "stall", "error", "close", "garbage"])
async def test_drafts_that_fail_and_are_dropped(virtual_time: None, how: str) -> None:
    """Five in one turn: nobody waited for any of them, so none counts."""
    fakes = speakers()
    words = ("I", " would", " like", " some", " very", " good cake.")
    with environment(fakes):
        async with virtual(fakes, drafting()) as phone:
            for number, word in enumerate(words, 1):
                if number < len(words):
                    failing(fakes, how, 1)
                await phone.said(word)
                await phone.until(
                    lambda n=number: len(fakes.flux.messages("EagerEndOfTurn")) == n, "Flux guesses"
                )
                if number < len(words):
                    await asyncio.sleep(0.2)
            fakes.llm.faults.clear()
            fakes.elevenlabs.faults.clear()
            await phone.quiet(0.3)
            await phone.agent_speaks()
            await phone.quiet(0.5)
    well(phone, fakes)
    assert phone.said_by_caller() == ["I would like some very good cake."]
    assert letters(phone.ear()) in [letters(answer) for answer in (ZEBRA, CAKE, RYE)]
    assert drafts(phone) == (6, 1, 5)


async def test_a_voice_that_is_down_ends_no_call_for_a_draft(virtual_time: None) -> None:
    """It speaks nothing for 25 s, in which only a draft waits for it; then the caller goes on."""
    fakes = speakers(end=60.0)
    fakes.elevenlabs.delay = 1e6
    with environment(fakes):
        async with virtual(fakes, drafting(timeout=60_000)) as phone:
            await phone.said("I would like")
            await asyncio.sleep(25.0)
            fakes.elevenlabs.delay = 0.1
            phone.say(" a cake.")
            await phone.until(lambda: fakes.flux.messages("TurnResumed"), "Flux takes it back")
            fakes.flux.eot_silence = END
            await phone.hears(CAKE)
            await phone.quiet(0.3)
    well(phone, fakes)
    vanished(phone, fakes, ZEBRA)


async def test_a_voice_that_is_down_when_the_draft_is_confirmed_has_its_patience_anew(
    virtual_time: None,
) -> None:
    fakes = speakers(end=15.0)
    fakes.elevenlabs.delay = 1e6
    with environment(fakes):
        async with virtual(fakes, drafting(timeout=60_000)) as phone:
            await phone.said("I would like")
            await phone.until(lambda: fakes.flux.messages("EndOfTurn"), "the turn is over", 20.0)
            began = asyncio.get_running_loop().time()
            await phone.until(lambda: phone.call.fault is not None, "the call fails", 20.0)
            assert asyncio.get_running_loop().time() - began == pytest.approx(10.0, abs=0.3)
    assert phone.result is not None
    assert "could not speak" in str(phone.result.fault)
    assert not phone.result.normal


def test_flux_dies_while_a_draft_waits(played: Played) -> None:
    """The new connection hears the same pause again; the draft is the answer, asked for once."""

    async def scene(phone: Phone, fakes: Vendors) -> None:
        await phone.said("A cake, please.")
        await phone.until(lambda: spoken(fakes), "the draft is spoken")
        fakes.flux.drop()
        await phone.hears(ZEBRA)
        await phone.quiet(0.3)

    fakes = speakers(end=1.5)
    phone = played(scene, fakes)
    well(phone, fakes)
    assert len(fakes.flux.sessions) >= 2
    assert phone.said_by_caller() == ["A cake, please."]
    assert len(asked(fakes)) == 1
    assert drafts(phone) == (1, 1, 0)


# -- the page ---------------------------------------------------------------------------------------------


def test_the_chains_of_the_page() -> None:
    flux, vad = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(flux, names)
    assert names["pipeline"](Call(TwilioCodec())).warnings == []
    exec(vad, names)
    assert names["chain"][1].eager == 0.25
