"""Whole calls with the full agent: the same script over real sockets and in virtual time."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.e2e.agents import ANSWERS, GREETING, environment, spoken, vendors
from tests.e2e.conversation import Phone, real, virtual
from tests.vendors import spelled
from voiceflow.server.loader import load
from voiceflow.trace.path import Step

ROOT = Path(__file__).resolve().parents[2]
SAID = ["Hello, when do you open?", "One loaf, please.", "No, wait.", "A cake.", "Yes."]
CUT_AT = {2: "Sure, one", 4: "That is", 6: "We open at", 8: "No problem at all. We", 9: "That is noted."}
"""Turns, from 1, in which the caller speaks once he has heard so much of the answer."""


async def ten_turns(phone: Phone) -> None:
    """The caller waits for the end of some answers, and interrupts others."""
    await phone.hears(GREETING)
    for turn in range(1, 11):
        await phone.said(SAID[(turn - 1) % len(SAID)])
        before = len(phone.said_by_caller())
        answer = ANSWERS[(turn - 1) % len(ANSWERS)]
        await phone.hears_since(CUT_AT.get(turn, answer))
        assert len(phone.said_by_caller()) >= before
    await phone.quiet(0.3)


def check_ten_turns(phone: Phone) -> None:
    assert phone.said_by_caller() == [SAID[(turn - 1) % len(SAID)] for turn in range(1, 11)]
    replies = phone.said_by_agent()
    assert replies[0] == GREETING
    assert len(replies) == 11
    for turn, reply in enumerate(replies[1:], 1):
        answer = ANSWERS[(turn - 1) % len(ANSWERS)]
        if turn in CUT_AT:
            assert answer.startswith(reply)
            assert reply != answer
        else:
            assert reply == answer
    check_ear(phone)
    answered = [path for path in phone.call.trace.paths if path.turn is not None]
    assert [path.turn for path in answered] == list(range(1, 11))
    for path in answered:
        parts = path.parts()
        assert [part.step for part in parts] == list(Step)[1:]
        assert [part.owner for part in parts] == [
            "FluxSTT", "ChatLLM", "SentenceAggregator", "ElevenLabsTTS", "LineSink", "line",
        ]  # fmt: skip
        assert sum(part.seconds for part in parts) == pytest.approx(path.gap, abs=1e-12)
        assert all(part.seconds >= 0 for part in parts)
    assert phone.result is not None
    assert phone.result.fault is None
    assert phone.result.figures["underruns"] == 0


def check_ear(phone: Phone) -> None:
    """The history is what the ear received: to the word, or one less where a reply was cut."""
    for believed, heard in zip(phone.said_by_agent(), phone.replies_heard(), strict=True):
        words, ear = believed.split(), heard.split()
        assert words == ear[: len(words)], "every word of the history was heard, in order"
        assert len(ear) - len(words) <= 1, f"{believed!r} in the history, {heard!r} in the ear"


async def test_ten_turns_with_barge_ins_in_virtual_time(virtual_time: None) -> None:
    fakes = vendors()
    with environment(fakes):
        async with virtual(fakes, spoken()) as phone:
            await ten_turns(phone)
        check_ten_turns(phone)
        check_vendors(fakes)


def test_ten_turns_with_barge_ins_over_real_sockets() -> None:
    async def call() -> None:
        async with vendors() as fakes:
            with environment(fakes):
                async with real(fakes, spoken()) as phone:
                    await ten_turns(phone)
                check_ten_turns(phone)
                check_vendors(fakes)
                check_no_turn_dialled(fakes, phone)

    asyncio.run(asyncio.wait_for(call(), 120))


def check_vendors(fakes) -> None:
    """Each vendor saw the barge-ins as it should, and nothing that it would complain of."""
    assert not fakes.flux.wrongs
    assert not fakes.elevenlabs.wrongs
    assert sum(bool(session.chunks) for session in fakes.flux.sessions) == 1, "the warm-up said nothing"
    spoken_texts = [u for u in fakes.elevenlabs.log if u.text.strip()]
    assert len(spoken_texts) == 11
    assert all(u.closed is not None for u in spoken_texts)
    asked = [request for request in fakes.llm.requests if request.messages]
    assert len(asked) == 10
    for request in asked[1:]:
        history = [m["content"] for m in request.messages if m["role"] == "assistant"]
        assert history[0] == GREETING, "what was heard is what the model reads"


def check_no_turn_dialled(fakes, phone: Phone) -> None:
    """Every request after a barge-in went over a connection that was open before that turn ended."""
    asked = [request for request in fakes.llm.requests if request.messages]
    for request in asked:
        assert request.connection.opened < request.arrived - 0.02
    figures = phone.call.figures()
    assert figures["ChatLLM.pool_misses"] == 0
    assert figures["ElevenLabsTTS.reconnects"] == 0


@pytest.mark.parametrize("voice", ["elevenlabs", "aura"])
@pytest.mark.parametrize("seed", range(8))
async def test_history_is_what_the_ear_received(virtual_time: None, voice: str, seed: int) -> None:
    """Network delays of 20 to 200 ms each way, interruptions at random points."""
    dice = random.Random(seed)
    fakes = vendors()
    line = {"delay_out": dice.uniform(0.02, 0.2), "delay_in": dice.uniform(0.02, 0.2)}
    with environment(fakes):
        async with virtual(fakes, spoken(voice), line=line, seed=seed) as phone:
            await phone.hears(GREETING.split()[0])
            for _ in range(6):
                await asyncio.sleep(dice.uniform(0.0, 4.0))
                await phone.said("Hold on, please.")
                await phone.agent_speaks()
            await asyncio.sleep(dice.uniform(0.0, 3.0))
        believed, heard = phone.said_by_agent(), [r for r in phone.replies_heard() if r.strip()]
    assert phone.result is not None
    assert phone.result.fault is None
    slack = 1 if voice == "elevenlabs" else 2
    for said, ear in pair_up(believed, heard):
        words, received = "".join(said.split()), "".join(ear.split())
        assert received.startswith(words), f"{said!r} in the history, {ear!r} in the ear"
        missing = received[len(words) :]
        assert len(missing) <= longest(ANSWERS, slack), f"{said!r} in the history, {ear!r} in the ear"


def pair_up(believed: list[str], heard: list[str]) -> list[tuple[str, str]]:
    """Each reply in the history with its sound. A reply of which not one word was heard is not in it."""
    pairs, rest = [], list(believed)
    for ear in heard:
        start = "".join(ear.split())[:8]
        if rest and "".join(rest[0].split()).startswith(start[: len("".join(rest[0].split()))]):
            pairs.append((rest.pop(0), ear))
        else:
            pairs.append(("", ear))
    assert not rest, f"in the history but not in the ear: {rest}"
    return pairs


def longest(texts: list[str], words: int) -> int:
    """The most characters that so many words have, and the spaces are not counted."""
    return max(
        sum(len(word) for word in text.split()[at : at + words])
        for text in texts
        for at in range(len(text.split()))
    )


def test_the_shipped_phone_agent_answers(tmp_path: Path) -> None:
    async def call() -> None:
        async with vendors() as fakes:
            with environment(fakes):
                agent = load(ROOT / "pipelines" / "phone_agent.py")
                async with real(fakes, agent.make) as phone:
                    await phone.hears("good day!")
                    await phone.said("When do you open?")
                    await phone.hears("nice today?")
                    assert phone.said_by_caller() == ["When do you open?"]

    asyncio.run(asyncio.wait_for(call(), 60))


async def test_first_words_are_heard_while_flux_is_still_connecting(virtual_time: None) -> None:
    fakes = vendors()
    fakes.flux.handshake = 2.0
    with environment(fakes):
        async with virtual(fakes, spoken()) as phone:
            await phone.said("Hello, can you hear me?")
            await phone.hears(ANSWERS[0])
            assert phone.said_by_caller() == ["Hello, can you hear me?"]


def test_spelled_words_survive_the_codec() -> None:
    assert spelled.read(spelled.spell("To be sure.")) == "To be sure."
