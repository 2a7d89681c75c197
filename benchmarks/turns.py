"""A turn seen from both ends: the caller's times and the vendors' records put side by side.

The bot's own time is in four legs, each between two moments that the others saw:

    hear     the caller's packet is written   ─▶  Flux has the audio that completes the turn
    ask      Flux writes EndOfTurn            ─▶  the model has the request
    say      the sentence's last token is out ─▶  the voice has the sentence
    play     the voice's first audio is out   ─▶  the caller has read the first media message

Between them lie the vendors' delays, which the fakes keep to 0.2 ms or so. `over_floor` is what the caller
would measure: everything above the sum of the delays, the fakes' lateness included. The moments are noted
on either side of a system call, so a leg is right to about 0.1 ms; their sum with the fakes' is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.caller import Turn
from benchmarks.measure import summary
from benchmarks.vendors import Delays

LEGS = ("hear", "ask", "say", "play")


@dataclass(slots=True, frozen=True)
class Seen:
    """One answered turn. Seconds."""

    over_floor: float
    legs: dict[str, float]
    fakes: float
    """How much longer than their delays the fakes took."""


def seen(turns: Sequence[Turn], records: dict[str, Any], delays: Delays) -> list[Seen]:
    """The turns that were answered. RuntimeError when the vendors' records do not fit one of them."""
    found = []
    for number, turn in enumerate(turns):
        if turn.deciding is None or turn.answered is None:
            continue
        until = turns[number + 1].began if number + 1 < len(turns) else math.inf
        ended = [
            sent
            for sent in records["turns"]
            if sent["event"] == "EndOfTurn" and turn.last < sent["at"] < turn.answered
        ]
        asked = [each for each in records["asked"] if turn.last < each["arrived"] < until]
        texts = [at for at in records["texts"] if turn.last < at < turn.answered]
        audio = [
            each["first"] for each in records["spoken"] if each["first"] and turn.last < each["first"] < until
        ]
        if not (len(ended) == 1 and len(asked) == 1 and texts and audio):
            raise RuntimeError(f"turn {number + 1} does not fit what the vendors saw")
        end, tokens = ended[0], asked[0]["tokens"]
        heard = end["due"] - delays.flux
        sentence = tokens[delays.sentence - 1]
        legs = {
            "hear": heard - turn.deciding,
            "ask": asked[0]["arrived"] - end["at"],
            "say": texts[0] - sentence,
            "play": turn.answered - audio[0],
        }
        over_floor = turn.answered - turn.deciding - delays.floor
        found.append(Seen(over_floor, legs, over_floor - sum(legs.values())))
    return found


def figures(turns: Sequence[Seen]) -> dict[str, Any]:
    """Summaries in ms."""
    return {
        "over_floor_ms": summary([turn.over_floor for turn in turns]),
        "own_ms": summary([sum(turn.legs.values()) for turn in turns]),
        "legs": {f"{leg}_ms": summary([turn.legs[leg] for turn in turns]) for leg in LEGS},
        "fakes_ms": summary([turn.fakes for turn in turns]),
    }
