"""The benchmarks of the whole agent: one call on real sockets, and the caller's end of the line."""

from __future__ import annotations

import base64
import math
import time
from typing import Any

import pytest

from benchmarks.bots import BARE, running
from benchmarks.caller import QUIET, Playout, Script, Talk, Turn
from benchmarks.turns import figures, seen
from benchmarks.vendors import Delays, Fakes

DELAYS = Delays(flux=0.02, first_token=0.02, voice=0.02)


def media(seconds: float) -> dict[str, Any]:
    return {"event": "media", "media": {"payload": base64.b64encode(QUIET * round(seconds * 50)).decode()}}


def mark(name: str) -> dict[str, Any]:
    return {"event": "mark", "mark": {"name": name}}


def test_one_turn_of_the_bare_bot():
    with Fakes() as fakes:
        fakes.set(DELAYS)
        with running(BARE, fakes.environment, "asyncio") as bot:
            since = time.monotonic()
            talk = bot.call(Script(turns=1, silence=DELAYS.silence))
            records = fakes.records(since)
    (turn,) = seen(talk.turns, records, DELAYS)
    assert turn.over_floor > 0
    assert math.isclose(turn.over_floor, sum(turn.legs.values()) + turn.fakes)
    assert figures([turn])["over_floor_ms"]["n"] == 1
    assert {size for _, size in records["chunks"]} == {640}
    assert records["wrongs"] == []


def test_marks_come_back_when_what_is_before_them_was_played():
    line = Playout(Talk())
    line.take(10.0, media(0.2))
    line.take(10.1, mark("a"))
    line.take(10.1, media(0.2))
    line.take(10.1, mark("b"))
    assert line.due == pytest.approx(10.2)
    assert line.played(10.19) == []
    assert line.played(10.21) == ["a"]
    assert line.played(10.41) == ["b"]


def test_clear_returns_all_marks_and_what_comes_after_it_is_counted():
    talk = Talk(turns=[Turn(began=9.0)])
    line = Playout(talk)
    line.take(10.0, media(2.0))
    line.take(10.0, mark("a"))
    line.take(10.5, {"event": "clear"})
    assert line.played(10.5) == ["a"]
    line.take(10.6, media(0.1))
    assert talk.turns[0].cleared == 10.5
    assert talk.turns[0].ghost == pytest.approx(0.1)


def test_a_caller_who_pauses():
    assert Script(1, 0.24).packets == [True] * 16
    assert Script(1, 0.24, pause=2).packets == [True] * 16 + [False] * 2 + [True] * 16


def test_the_floor_counts_the_tokens_of_the_first_sentence():
    delays = Delays(flux=0.05, first_token=0.1, gap=0.01, voice=0.075, reply=("I", " do", ".", " OK", "?"))
    assert delays.sentence == 3
    assert delays.floor == pytest.approx(0.245)
