"""The Python in README.md and docs/processors.md is run, so that it can be copied; links lead somewhere."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from processors.twilio.codec import TwilioCodec
from voiceflow import Pipeline, Processor, Prompt
from voiceflow.call import Call
from voiceflow.server.loader import load
from voiceflow.services import Services
from voiceflow.testing import Rig, ScriptedLink, check_processor, run

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
    shipped = load(ROOT / "pipelines" / "phone_agent.py").make(Call(TwilioCodec()))
    assert [type(p) for p in pipeline.chain] == [type(p) for p in shipped.chain]
    names = {}
    exec(processor, names)
    assert issubclass(names["Redact"], Processor)
    exec(test, names)
    names["test_redact"]()


PAGES = ["README.md", "benchmarks/README.md", "tests/vendors/README.md"]
PAGES += sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def anchors(text: str) -> list[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_the_processors_of_the_guide() -> None:
    parrot, forget, account, turns, mood = blocks("docs/processors.md")
    names: dict[str, Any] = {}
    exec(parrot, names)
    check_processor(names["Parrot"])
    exec("from voiceflow import *\nfrom dataclasses import dataclass\n", names)
    exec(f"class Remembers(Processor):\n    buffer = {{}}\n{textwrap.indent(forget, '    ')}", names)
    assert names["Remembers"].handles
    exec(turns, names)
    check_processor(names["PushToTalk"])
    exec(mood, names)
    assert names["Mood"](0.5).lane.value == "caller"
    names = {}
    exec(account, names)
    check_account(names["Account"])


def check_account(account: Any) -> None:
    said = "They are called Ada, and they like rye."

    async def dial(url: str, *, headers: Mapping[str, str], timeout: float) -> ScriptedLink:
        assert (url, headers["Authorization"]) == ("wss://crm.example", "Bearer secret")
        link = ScriptedLink()
        link.on(lambda message: [(0.1, said)])
        return link

    check_processor(lambda: account(api_key="secret"), services=Services(dial=dial))

    async def asked() -> None:
        async with Rig(account(api_key="secret"), services=Services(dial=dial)) as rig:
            rig.push(Prompt("Hello", reply=rig.reply()))
            await rig.settled()
            assert rig.got(Prompt)[0].instructions == said
            assert rig.call.figures()["Account.known"] == 1

    run(asked())
