"""The benchmark of a turn with a tool: how the agent's own time is told from the vendors' and the tool's."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.caller import Turn
from benchmarks.tool_turn import LEGS, SETTINGS, Measured, seen

TURN = Turn(began=9.0, last=9.9, deciding=10.0, answered=11.0)
DELAYS = SETTINGS["read"]


def records(**other: Any) -> dict[str, Any]:
    first = {"arrived": 10.06, "tokens": [10.16, 10.17, 10.18]}
    second = {"arrived": 10.25, "tokens": [10.35, 10.36, 10.37, 10.38, 10.39]}
    return {
        "turns": [{"event": "EndOfTurn", "at": 10.052, "due": 10.051}],
        "asked": [first, second],
        "texts": [10.371],
        "spoken": [{"first": 10.45}],
        **other,
    }


def test_the_legs_leave_out_the_vendors_and_the_tool() -> None:
    (legs,) = seen([TURN], records(), [(10.185, 10.235)], DELAYS)
    assert legs == pytest.approx({"hear": 0.001, "ask": 0.008, "call": 0.02, "say": 0.001, "play": 0.55})
    vendors = (10.052 - 10.001) + (10.18 - 10.06) + 0.05 + (10.37 - 10.25) + (10.45 - 10.371)
    assert math.isclose(sum(legs.values()), TURN.answered - TURN.deciding - vendors)


def test_what_does_not_fit_is_not_measured() -> None:
    for uses in ([], [(10.185, 10.235)] * 2):
        with pytest.raises(RuntimeError, match="turn 1 does not fit"):
            seen([TURN], records(), uses, DELAYS)
    with pytest.raises(RuntimeError, match="turn 1 does not fit"):
        seen([TURN], records(asked=records()["asked"][:1]), [(10.185, 10.235)], DELAYS)


def test_added_is_above_a_plain_turn() -> None:
    legs = dict.fromkeys(LEGS, 0.001)
    measured = Measured([{**legs, "call": 0.003}, {**legs, "call": 0.004}])
    assert "added_ms" not in measured.report(None)
    assert measured.report(0.004)["added_ms"]["max"] == 4.0
