"""docs/agent.md: its Python runs as it stands, as one pytest file, and its numbers are those of the code."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from processors.flux import liveness
from processors.openai import ChatLLM
from processors.openai.failure import PAUSE
from processors.sentences.splitter import Splitter
from voiceflow import Processor
from voiceflow.line import source, stream
from voiceflow.speech import processor as speech

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[1] / "docs" / "agent.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def row(begin: str) -> list[str]:
    """The cells of the one table row that begins like this."""
    (line,) = [line for line in page().splitlines() if line.startswith(f"| {begin}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_examples_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    source = "\n\n".join(BLOCK.findall(page()))
    tests = re.findall(r"^(?:async )?def (test_\w+)", source, re.MULTILINE)
    assert len(tests) == len(set(tests)) >= 5
    pytester.makepyfile(test_page=source + PIPELINE)
    # The plugin is named with -p and entry points are off: it is loaded once, installed or not.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    result = pytester.runpytest_subprocess("-p", "voiceflow.testing.pytest_plugin", "-W", "error", timeout=60)
    result.assert_outcomes(passed=len(tests) + 1)


PIPELINE = """

def test_the_chain_of_the_page():
    from processors.twilio.codec import TwilioCodec

    assert pipeline(Call(TwilioCodec())).warnings == []
"""


LLM = ChatLLM()
BOUNDS: dict[str, list[float]] = {
    "Flux goes quiet": [liveness.ANSWER_LIMIT],
    "Flux takes no audio": [liveness.SEND_LIMIT],
    "Flux cannot be reached": [liveness.TRYING],
    "**The model** says no": [PAUSE],
    "The model says nothing": [LLM.first_token_timeout],
    "Every model fails": [LLM.patience],
    "The model stops": [LLM.token_timeout],
    "The voice goes quiet": [speech.AUDIO_TIMEOUT],
    "The voice fails so again and again": [speech.PATIENCE],
    "**A processor of yours**": [Processor.start_timeout],
    "**The line**": [stream.SEND_TIMEOUT, source.SILENCE_LIMIT],
}


@pytest.mark.parametrize("begin", BOUNDS)
def test_the_bounds_are_those_of_the_code(begin: str):
    assert [float(number) for number in NUMBER.findall(row(begin)[-1])] == BOUNDS[begin]


SENT_AT_ONCE = ["We open at nine.", "Good evening to you all,"]
SENT_AFTER = {"It is $3.": 0.06, 'He said "Come in.': 0.06, "So what we could do is": 1.5}
NOT_YET = "Ask for Dr."


def test_the_table_of_pieces():
    for text in SENT_AT_ONCE:
        assert row(f"`{text}`")
        assert Splitter().feed(text, 0.0) == [text]
    for text, seconds in SENT_AFTER.items():
        (_, says) = row(f"`{text}`")
        assert f"{seconds * 1000:g} ms" in says or f"{seconds:g} s" in says
        splitter = Splitter()
        assert splitter.feed(f"{text} " if text[-1].isalpha() else text, 0.0) == []
        assert splitter.deadline == pytest.approx(seconds)
        assert splitter.expire(seconds) == [text]
    assert row(f"`{NOT_YET}`")
    splitter = Splitter(longest_wait=None)
    assert splitter.feed(NOT_YET, 0.0) == []
    assert splitter.deadline is None
