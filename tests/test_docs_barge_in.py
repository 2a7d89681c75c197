"""docs/barge-in.md: its Python runs as it stands, and its numbers are those of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from processors.barge_in import BargeIn, policy
from processors.barge_in import processor as barge_in
from processors.twilio.codec import TwilioCodec
from voiceflow.call import Call
from voiceflow.engine import protection
from voiceflow.frames import Sentence
from voiceflow.line import sink

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "barge-in.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_examples_run() -> None:
    names: dict[str, Any] = {}
    exec("\n\n".join(BLOCK.findall(PAGE)), names)
    call = Call(TwilioCodec())
    assert names["pipeline"](call).warnings == []
    names["test_what_listeners_say"]()
    names["test_a_policy_of_your_own"]()
    mark = names["LegalNotice"]().mark
    assert mark(Sentence("This call is recorded.")).protected
    assert not mark(Sentence("How are you?")).protected


def test_the_numbers() -> None:
    default = BargeIn()
    assert f"`window=0.6`, `hold={default.hold}` and `most_holds={default.most_holds}`" in PAGE
    assert default.window == 0.6
    cases = json.loads((ROOT / "tests" / "golden" / "barge_in.json").read_text())["cases"]
    assert f"of {len(cases)} cases" in PAGE
    assert (policy.NEAR_END, policy.LONG, policy.MANY) == (1.0, 2.5, 5)
    assert (policy.SURE, policy.UNLIKELY) == (0.8, 0.2)
    assert (sink.BACK, sink.QUESTION, sink.STALLED) == (1.0, 2.0, 2.0)
    assert (protection.PROMISE, barge_in.TAIL) == (3.0, 0.3)
