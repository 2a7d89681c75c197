"""Barge-in that can be taken back, on whole calls: a cough, "uh-huh", "stop", and a legal notice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest

from processors.aura import AuraTTS
from processors.barge_in import BargeIn
from processors.elevenlabs import ElevenLabsTTS
from processors.flux import FluxSTT
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from tests.e2e.agents import ANSWERS, COUGH, GREETING, Loudness, environment, vendors
from tests.e2e.conversation import Phone, real, virtual
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on
from voiceflow.frames import Sentence
from voiceflow.testing import run

ANSWER = ANSWERS[0]
NOTICE = "This call is recorded for training."


class Notice(Processor):
    """Marks the sentence that has to be heard."""

    @on(Sentence)
    def mark(self, sentence: Sentence) -> Sentence:
        return replace(sentence, protected=sentence.protected or "recorded" in sentence.text)


def agent(voice: str = "elevenlabs", greeting: str = GREETING) -> Callable[[Call], Pipeline]:
    def make(call: Call) -> Pipeline:
        return Pipeline(
            call.source(),
            Loudness(),
            FluxSTT(),
            BargeIn(),
            ChatLLM(instructions="You sell bread.", greeting=greeting),
            SentenceAggregator(),
            Notice(),
            ElevenLabsTTS() if voice == "elevenlabs" else AuraTTS(),
            call.sink(),
        )

    return make


Script = Callable[[Phone], Coroutine[Any, Any, None]]


def in_both_worlds(script: Script, check: Script, *, real_too: bool = True, **options: Any) -> None:
    """Plays the script in virtual time and over real sockets."""

    async def in_virtual() -> None:
        fakes = vendors()
        with environment(fakes):
            async with virtual(fakes, agent(**options)) as phone:
                await script(phone)
            await check(phone)

    async def in_real() -> None:
        async with vendors() as fakes:
            with environment(fakes):
                async with real(fakes, agent(**options)) as phone:
                    await script(phone)
                await check(phone)

    run(in_virtual())
    if real_too:
        asyncio.run(asyncio.wait_for(in_real(), 60))


def figures(phone: Phone) -> dict[str, float]:
    assert phone.result is not None
    assert phone.result.fault is None
    found = phone.result.figures
    return {name.partition(".")[2]: value for name, value in found.items() if name.startswith("BargeIn.")}


def said_again(phone: Phone, answer: str) -> list[str]:
    """Words of the answer that the ear has twice in a row. Raises if one is missing."""
    ear, wanted, again = phone.replies_heard(), answer.split(), []
    heard = [word for part in ear[1:] for word in part.split()]
    at = 0
    for word, times in ((word, len(list(same))) for word, same in groupby(heard)):
        if word == wanted[at]:
            again += [word] * (times - 1)
            at += 1
        else:  # the beginning of the word that is said again next, or of one after it
            assert any(wanted[i].startswith(word) for i in range(at, min(at + 2, len(wanted)))), heard
    assert at == len(wanted), f"words are missing: {heard}"
    return again


async def cough(phone: Phone) -> None:
    await phone.hears(GREETING)
    await phone.said("When do you open?")
    await phone.hears_since("We open at nine. Wou")
    phone.handset.speak(COUGH * 50)
    await phone.quiet(0.2)
    await phone.hears_since("order something nice today?")
    await phone.quiet(0.3)


def test_a_cough_silences_the_agent_for_a_moment_and_no_word_is_lost() -> None:
    async def check(phone: Phone) -> None:
        assert phone.said_by_agent() == [GREETING, ANSWER]
        assert phone.said_by_caller() == ["When do you open?"]
        assert len(said_again(phone, ANSWER)) <= 1
        counted = figures(phone)
        assert (counted["holds"], counted["resumed"], counted["committed"]) == (1, 1, 0)
        assert 550 < counted["hold_ms"] < 1200
        assert phone.result is not None
        assert phone.result.figures["interrupts"] == 0

    in_both_worlds(cough, check)


def test_without_alignments_a_second_is_said_again_at_most() -> None:
    async def check(phone: Phone) -> None:
        assert phone.said_by_agent() == [GREETING, ANSWER]
        heard = "".join("".join(phone.replies_heard()[1:]).split())
        assert len(heard) <= len("".join(ANSWER.split())) + 17 + 1, "16.7 characters are a second"
        assert figures(phone)["resumed"] == 1

    in_both_worlds(cough, check, voice="aura", real_too=False)


def test_uh_huh_is_listening() -> None:
    async def script(phone: Phone) -> None:
        await phone.hears(GREETING)
        await phone.said("When do you open?")
        await phone.hears_since("We open at nine. W")
        await phone.said("Uh-huh.")
        await phone.hears_since("order something nice today?")
        await phone.quiet(0.3)
        await phone.said("One loaf, please.")
        await phone.hears_since(ANSWERS[1])
        await phone.quiet(0.3)

    async def check(phone: Phone) -> None:
        assert phone.said_by_caller() == ["When do you open?", "One loaf, please."]
        assert phone.said_by_agent() == [GREETING, ANSWER, ANSWERS[1]]
        counted = figures(phone)
        assert (counted["backchannels"], counted["committed"]) == (1, 0)

    in_both_worlds(script, check)


def test_stop_is_an_interruption() -> None:
    async def script(phone: Phone) -> None:
        await phone.hears(GREETING)
        await phone.said("When do you open?")
        await phone.hears_since("We open at nine. Would you")
        await phone.said("Stop that.")
        await phone.hears_since(ANSWERS[1])

    async def check(phone: Phone) -> None:
        assert phone.said_by_caller() == ["When do you open?", "Stop that."]
        cut = phone.said_by_agent()[1]
        assert ANSWER.startswith(cut)
        assert cut != ANSWER
        heard = phone.replies_heard()[1].split()
        assert heard[: len(cut.split())] == cut.split()
        assert len(heard) - len(cut.split()) <= 1
        counted = figures(phone)
        assert (counted["holds"], counted["resumed"], counted["committed"]) == (1, 0, 1)

    in_both_worlds(script, check, real_too=False)


def test_who_talks_through_the_notice_is_answered_after_it() -> None:
    async def script(phone: Phone) -> None:
        await phone.hears("This call")
        await phone.said("When do you open?")
        await phone.hears_since(ANSWER)
        await phone.quiet(0.3)

    async def check(phone: Phone) -> None:
        assert phone.said_by_caller() == ["When do you open?"]
        first, answer = phone.said_by_agent()
        assert first.startswith(NOTICE)
        assert answer == ANSWER
        heard = "".join("".join(phone.replies_heard()).split())
        assert heard.startswith("".join(NOTICE.split()))
        assert "kept" in [event.kind for event in phone.call.trace.events]
        assert figures(phone)["holds"] == 0, "noise holds no notice"

    in_both_worlds(script, check, greeting=f"{NOTICE} How can I help you on this fine and sunny day?")


@pytest.mark.parametrize("interruptible", [True, False])
def test_a_notice_by_the_program_is_said_to_its_end(interruptible: bool) -> None:
    notice_text = "We have moved to Baker Street, number nine."
    said: list[str] = []

    def make(call: Call) -> Pipeline:
        @call.on_start
        async def notice(call: Call) -> None:
            said.append(await call.say(notice_text, interruptible=interruptible))

        return agent(greeting="")(call)

    async def script() -> None:
        fakes = vendors()
        with environment(fakes):
            async with virtual(fakes, make) as phone:
                await phone.hears("We have")
                await phone.said("No, stop it.")
                await phone.hears_since(ANSWER)
            assert phone.said_by_caller() == ["No, stop it."]
            assert (said == [notice_text]) is not interruptible

    run(script())
