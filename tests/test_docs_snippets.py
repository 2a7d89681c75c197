"""The Python in README.md and docs/processors.md is run, so that a reader can copy it."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

from processors.twilio.codec import TwilioCodec
from voiceflow import Pipeline, Processor
from voiceflow.call import Call
from voiceflow.testing import check_processor

ROOT = Path(__file__).parents[1]


def blocks(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [textwrap.dedent(code) for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]


def test_the_readme_s_agent_and_processor() -> None:
    agent, processor, test = blocks("README.md")
    names: dict[str, Any] = {}
    exec(agent, names)
    pipeline = names["pipeline"](Call(TwilioCodec()))
    assert isinstance(pipeline, Pipeline)
    assert pipeline.warnings == []
    names = {}
    exec(processor, names)
    assert issubclass(names["Redact"], Processor)
    exec(test, names)
    names["test_redact"]()


def test_the_processors_of_the_guide() -> None:
    parrot, forget, mood = blocks("docs/processors.md")
    names: dict[str, Any] = {}
    exec(parrot, names)
    check_processor(names["Parrot"])
    exec("from voiceflow import *\nfrom dataclasses import dataclass\n", names)
    exec(f"class Remembers(Processor):\n    buffer = {{}}\n{textwrap.indent(forget, '    ')}", names)
    assert names["Remembers"].handles
    exec(mood, names)
    assert names["Mood"](0.5).lane.value == "caller"
