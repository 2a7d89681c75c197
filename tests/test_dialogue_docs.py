"""The Python of docs/dialogue.md runs as it stands, and pipelines/offline.py is what it says it is."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

# What a pipeline file is the first to import is forgotten with the next file: other tests hold on to these.
import processors.barge_in
import processors.elevenlabs
import processors.flux
import processors.hibari
import processors.moonshine
import processors.play
import processors.silero
import processors.speech_text
import processors.turns  # noqa: F401
from processors.dialogue import Dialogue, TextMatcher
from processors.dialogue.matching import ENOUGH
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from processors.twilio.codec import TwilioCodec
from tests.engine.engine_calls import Speaker, phone
from tests.quiet_calls import over, said
from tests.test_dialogue import says
from voiceflow.call import Call
from voiceflow.cli.chat import PACE
from voiceflow.errors import PipelineFileError
from voiceflow.models import without_packages
from voiceflow.server.loader import load
from voiceflow.testing import run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "dialogue.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
OFFLINE = ROOT / "pipelines" / "offline.py"


@pytest.fixture
def names() -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec("\n".join(BLOCKS), found)
    return found


def test_the_test_of_the_page(names: dict[str, Any]) -> None:
    run(names["test_when_it_is_open"](None))


def test_the_waiter(names: dict[str, Any]) -> None:
    async def main() -> None:
        async with phone(names["waiter"](), SentenceAggregator(), Speaker(0.02)) as p:
            await says(p, "can I make a reservation on Monday")
            assert said(p)[-1].startswith("We are closed on Mondays.")
            for text in ("the day after tomorrow, no, on Friday", "eight", "Ada", "yes"):
                await says(p, text)
            assert said(p)[-1].startswith("Your table is booked. We look forward to it.")
            await says(p, "no")
            await over(p)
        assert [(at.hour, name) for (_, at), name in names["DIARY"].items()] == [(20, "Ada")]

    run(main())


def test_the_numbers() -> None:
    assert f"from {ENOUGH} on" in PAGE
    assert f"{PACE} letters a second" in (ROOT / "docs" / "chat.md").read_text(encoding="utf-8")


# -- the offline agent


def offline() -> Any:
    with without_packages():
        return load(OFFLINE).make(Call(TwilioCodec()))


def test_the_offline_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_LLM", raising=False)
    pipeline = offline()
    assert pipeline.warnings == []
    assert sum(isinstance(each, Dialogue) for each in pipeline.chain) == 1
    monkeypatch.setenv("LOCAL_LLM", "http://127.0.0.1:11434/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-others")
    model = next(each for each in offline().chain if isinstance(each, ChatLLM))
    assert model.targets[0].address.url == "http://127.0.0.1:11434/v1"
    assert not model.targets[0].address.key
    assert model.keys == ()


def test_a_missing_package_names_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in ("moonshine_voice", "hibari") else found(name, *rest),
    )
    with pytest.raises(PipelineFileError, match=re.escape("pip install 'voiceflow-agents[local]'")):
        load(OFFLINE).make(Call(TwilioCodec()))


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("what are your opening times", "hours"),
        ("when do you open tomorrow", "hours"),
        ("how much does a cleaning cost", "prices"),
        ("what's the price of a check up", "prices"),
        ("where are you located", "place"),
        ("can i make an apointment please", "appointment"),
        ("i'd like to come in for a checkup on tuesday at ten", "appointment"),
        ("okay thanks bye", "goodbye"),
        ("go forward ten meters", ""),
        ("hello", ""),
    ],
)
def test_what_callers_say_to_it(text: str, intent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_LLM", raising=False)
    dialogue = next(each for each in offline().chain if isinstance(each, Dialogue))
    match = TextMatcher(dialogue.script.examples).closest(text)
    assert (match.name if match.score >= ENOUGH else "") == intent, match


def test_a_whole_call_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_LLM", raising=False)
    dialogue = next(each for each in offline().chain if isinstance(each, Dialogue))

    async def main() -> None:
        async with phone(dialogue, SentenceAggregator(), Speaker(0.02)) as p:
            await asyncio.sleep(3)
            for text in ("I need an appointment next Friday", "seven", "half past two", "Ada", "yes", "no"):
                await says(p, text)
            assert said(p)[0].startswith("Harbour Street Clinic, good day!")
            assert said(p)[2].startswith(
                "We are open from eight in the morning"
            )  # half past seven is too early
            assert said(p)[-2].startswith("You are booked for Friday")
            await over(p)

    run(main())
