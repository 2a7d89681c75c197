"""A turn with one tool call: what we add to the time that the tool and the second request take.

Calls of voiceflow's phone agent on real sockets, against the fake vendors, as in `voice_to_voice`; the bare
bot and the peer are not called. In `plain` turns the model answers at once. In the others it answers with
one call and no word, the tool takes 50 ms, and the second request gets the answer. The calls alternate.

The agent's own time is in legs, each between two moments that others saw (see `benchmarks.turns`):

    hear   the caller's packet is written     ─▶  Flux has the audio that completes the turn
    ask    Flux writes EndOfTurn              ─▶  the model has the request
    call   the last fragment of the call is out  ─▶  the model has the second request, less the tool's own
           time: from the first line of its function to the last, by the function's own clock
    say    the sentence's last token is out   ─▶  the voice has the sentence
    play   the voice's first audio is out     ─▶  the caller has read the first media message

What lies between them is the vendors': Flux's delay, the model's first answer, its second up to the end of
the first sentence, the voice. `own_ms` is the sum of the legs. `added_ms` is that of each turn with a tool
less the median of plain turns: `call`, and whatever a longer conversation costs in the other legs. Its median
has a target, and the p99 of `call`: the p99 of the sum has the other legs' bad moments in it, which plain
turns have too.

In `call` are: the fake's writing of finish_reason, its way, the arguments' validation, the desk, for COMMIT
the step into a task of the call's, for a plain function the way into a thread and back, the result, the
history, the request and its way; making the request is most of it, as it is of `ask`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.bots import Bot, Kind, running
from benchmarks.caller import Script, Turn
from benchmarks.chain import finish, ours, target
from benchmarks.measure import default_loop, summary
from benchmarks.vendors import Delays, Fakes

AGENT = Kind("voiceflow", "benchmarks.phone_agent", ("--tools",))
PLAIN = Delays()
SETTINGS = {
    "plain": PLAIN,
    "read": dataclasses.replace(PLAIN, tool="look_up"),
    "commit": dataclasses.replace(PLAIN, tool="book"),
    "read, in a thread": dataclasses.replace(PLAIN, tool="find"),
}
LEGS = ("hear", "ask", "call", "say", "play")
ADDED_AT_MOST_MS = 5.0
WARM_UP = 2

Use = tuple[float, float]


@dataclasses.dataclass
class Measured:
    """What was seen in the turns of one setting."""

    legs: list[dict[str, float]] = dataclasses.field(default_factory=list)
    """Of each turn that was answered, in seconds."""
    unanswered: int = 0

    @property
    def own(self) -> list[float]:
        return [sum(legs.values()) for legs in self.legs]

    def report(self, plain: float | None) -> dict[str, Any]:
        report: dict[str, Any] = {
            "own_ms": summary(self.own),
            "legs": {f"{leg}_ms": summary([legs[leg] for legs in self.legs]) for leg in LEGS},
            "unanswered": self.unanswered,
        }
        if plain is not None:
            report["added_ms"] = summary([own - plain for own in self.own])
        return report


def seen(
    turns: Sequence[Turn], records: dict[str, Any], uses: Sequence[Use], delays: Delays
) -> list[dict[str, float]]:
    """The legs of the turns that were answered. RuntimeError when what vendors and tools saw does not fit."""
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
        ran = [use for use in uses if turn.last < use[0] < until]
        texts = [at for at in records["texts"] if turn.last < at < turn.answered]
        audio = [
            each["first"] for each in records["spoken"] if each["first"] and turn.last < each["first"] < until
        ]
        calls = 1 if delays.tool else 0
        if not (len(ended) == 1 and len(asked) == 1 + calls and len(ran) == calls and texts and audio):
            raise RuntimeError(f"turn {number + 1} does not fit what the vendors and the tools saw")
        call = 0.0
        if calls:
            call = asked[1]["arrived"] - asked[0]["tokens"][-1] - (ran[0][1] - ran[0][0])
        found.append(
            {
                "hear": ended[0]["due"] - delays.flux - turn.deciding,
                "ask": asked[0]["arrived"] - ended[0]["at"],
                "call": call,
                "say": texts[0] - asked[-1]["tokens"][delays.sentence - 1],
                "play": turn.answered - audio[0],
            }
        )
    return found


def call(bot: Bot, fakes: Fakes, delays: Delays, turns: int, measured: Measured) -> None:
    """One call; what came of it goes to `measured`."""
    fakes.set(delays)
    since = time.monotonic()
    talk = bot.call(Script(turns, delays.silence))
    uses: list[Use] = [(began, ended) for began, ended in json.loads(bot.ask("GET", "/bench/uses"))]
    found = seen(talk.turns, fakes.records(since), uses, delays)
    measured.legs += found
    measured.unanswered += turns - len(found)


def run(rounds: int = 4, turns: int = 15, loop: str | None = None) -> dict[str, Any]:
    """`rounds` calls of `turns` turns in each setting, as a dict for JSON. About 5 min.

    `loop` is the bot's event loop, "asyncio" or "uvloop" (default: uvloop if there).
    """
    loop = loop or default_loop()
    measured = {name: Measured() for name in SETTINGS}
    with Fakes() as fakes, running(AGENT, fakes.environment, loop) as bot:
        for delays in SETTINGS.values():
            call(bot, fakes, delays, WARM_UP, Measured())
        for _ in range(rounds):
            for name, delays in SETTINGS.items():
                call(bot, fakes, delays, turns, measured[name])
    plain = summary(measured["plain"].own).get("median")
    plain = None if plain is None else plain / 1000
    setups = {name: each.report(None if name == "plain" else plain) for name, each in measured.items()}
    targets = []
    for name, setup in list(setups.items())[1:]:
        added, between = setup.get("added_ms", {}).get("median"), setup["legs"]["call_ms"].get("p99")
        targets += [
            target(f"{name}: added to the turn, median", added, ADDED_AT_MOST_MS, "ms"),
            target(f"{name}: between the two requests, p99", between, ADDED_AT_MOST_MS, "ms"),
        ]
    unanswered = sum(each.unanswered for each in measured.values())
    return {
        "benchmark": "tool_turn",
        "ours": ours(),
        "event_loop": loop,
        "setups": setups,
        "targets": [*targets, target("turns without an answer", unanswered, 0, "turns")],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    finish(run(options.rounds, options.turns, options.loop), options.loop)


if __name__ == "__main__":
    main()
