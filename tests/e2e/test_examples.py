"""The examples of pipelines/, played on the fake vendors: both in memory, one by its documented command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.agents import environment
from tests.e2e.conversation import virtual
from tests.vendors.completions import Completion
from tests.vendors.flux import FakeFlux
from tests.vendors.openai import FakeOpenAI
from tests.vendors.server import DEEPGRAM_KEY, OPENAI_KEY, Vendors
from tests.vendors.stories import STORIES, Story
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.record import CallResult
from voiceflow.server.loader import load

ROOT = Path(__file__).resolve().parents[2]


async def played(story: Story) -> tuple[CallResult, list[Completion]]:
    """The whole call in virtual time: each line once the agent has spoken and fallen silent."""
    vendors = Vendors(
        llm=FakeOpenAI(story.model, key=OPENAI_KEY, ttft=0.25, gap=0.02), flux=FakeFlux(key=DEEPGRAM_KEY)
    )
    file = load(story.file)

    def make(call: Call) -> Pipeline:
        call.parameters = story.parameters
        return file.make(call)

    with environment(vendors):
        async with virtual(vendors, make) as phone:
            for line in story.lines:
                await phone.agent_speaks()
                await phone.quiet(0.8)
                await phone.said(line)
            await phone.hears(story.ends)
            await phone.until(lambda: phone.stream._over.is_set(), "the agent hangs up")
    assert phone.result is not None
    return phone.result, vendors.llm.requests


async def test_the_desk_books_and_hangs_up_after_its_goodbye(virtual_time: None) -> None:
    result, requests = await played(STORIES["appointment_desk"])
    assert (result.reason, result.fault) == ("the agent hung up", None)
    assert result.figures["ChatLLM.tools"] == 3
    booked = [m["content"] for r in requests for m in r.messages if m["role"] == "tool"]
    assert any(words.startswith("Booked for Ada Lovelace") for words in booked)


async def test_who_speaks_over_the_notice_is_answered_and_not_greeted(virtual_time: None) -> None:
    story = STORIES["appointment_desk"]
    vendors = Vendors(
        llm=FakeOpenAI(story.model, key=OPENAI_KEY, ttft=0.25, gap=0.02), flux=FakeFlux(key=DEEPGRAM_KEY)
    )
    with environment(vendors):
        async with virtual(vendors, load(story.file).make) as phone:
            await phone.agent_speaks()
            await phone.said(story.lines[0])
            await phone.hears("Which do you like?")
            await phone.quiet(2.0)
            spoken = [entry.content for entry in phone.call.history.messages if entry.role == "assistant"]
    assert spoken[0].startswith("Harbour Street Dental.")
    assert len(spoken) == 2


async def test_the_notice_comes_before_the_greeting(virtual_time: None) -> None:
    story = STORIES["appointment_desk"]
    vendors = Vendors(llm=FakeOpenAI(story.model, key=OPENAI_KEY), flux=FakeFlux(key=DEEPGRAM_KEY))
    with environment(vendors):
        async with virtual(vendors, load(story.file).make) as phone:
            await phone.hears("How can I help you?")
            await phone.quiet(0.5)
            spoken = [entry.content for entry in phone.call.history.messages if entry.role == "assistant"]
    assert [words.partition(".")[0] for words in spoken] == ["Harbour Street Dental", "How can I help you?"]


async def test_the_reminder_notes_the_answer(virtual_time: None) -> None:
    result, requests = await played(STORIES["reminder"])
    assert (result.reason, result.fault) == ("the agent hung up", None)
    assert "Ada" in requests[0].messages[0]["content"]
    assert [m["content"] for m in requests[-1].messages if m["role"] == "tool"] == ["Noted."]


def test_the_documented_command(tmp_path):
    command = [sys.executable, "-m", "tests.vendors.play", "reminder", "--buzz"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "played to its end" in done.stdout
    assert "note_answer" in done.stdout


@pytest.mark.parametrize("name", sorted(STORIES))
def test_each_example_says_its_command(name):
    assert f"python -m tests.vendors.play {name}" in STORIES[name].file.read_text()
