"""The Python of docs/endings.md runs as it stands."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from processors.idle import LINGER, NOISE, IdlePrompts
from processors.keypad import Keypad
from processors.keypad.entry import MOST
from processors.time_limit import GOODBYE_LIMIT
from processors.twilio.codec import TwilioCodec
from tests.engine.engine_calls import phone
from tests.quiet_calls import Voice, over, press, said, until
from voiceflow.call import Call
from voiceflow.testing import run
from voiceflow.tools.desk import HEARING_LIMIT

PAGE = (Path(__file__).parents[1] / "docs" / "endings.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def names() -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec("\n".join(BLOCKS), found)
    return found


def test_the_chain(names: dict[str, Any]) -> None:
    assert names["pipeline"](Call(TwilioCodec())).warnings == []


def test_the_silence(names: dict[str, Any]) -> None:
    idle: IdlePrompts = names["never_hangs_up"]

    async def main() -> None:
        async with phone(idle, Voice()) as p:
            await until(60.0)
            assert said(p) == ["Take your time."]

    run(main())
    assert names["patient"]._waits == [10.0, 6.0, LINGER]


def test_the_keys(names: dict[str, Any]) -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Voice()) as p:
            asking = asyncio.create_task(names["ask_for_pin"](p.call, keys))
            await until(3.0)
            await press(p, "4711")
            assert await asking == "4711"
            p.call.state["keypad"] = "4711"
            assert await names["check_pin"](p.call) is True
            assert p.call.state == {"keypad": "4711"}, "a read has taken nothing away"

    run(main())


def test_the_policy(names: dict[str, Any]) -> None:
    policy = names["twice_at_most"]
    assert [policy(3.0, 0), policy(3.0, 1), policy(3.0, 2)] == [-1.0, 7.0, float("inf")]


def test_the_hanging_up(names: dict[str, Any]) -> None:
    async def main() -> None:
        async with phone(Voice()) as p:
            saying = asyncio.create_task(p.call.say("x" * 50))
            await until(1.0)
            await p.call.hangup()
            assert await over(p) == pytest.approx(5.0)
            assert await saying == "x" * 50

    run(main())


def test_the_numbers() -> None:
    for number in (LINGER, NOISE, GOODBYE_LIMIT, HEARING_LIMIT):
        assert f"{number:g} s" in PAGE
    assert f"{MOST} at most are kept" in PAGE
