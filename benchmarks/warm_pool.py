"""Warm connections: what a handshake of 300 ms to the voice, or to the model, costs the caller.

A fresh server each time, called 0.6 s after it listens: one call, and at once a second one.
`greeting_ms` is from writing `start` until the first media message was read, less the voice's delay; `turn`
the time over the floor of `voice_to_voice`, for each turn by its number. With a handshake and a pool they
are what they are without one. The bare bot connects its voice when a call comes and keeps one connection to
the model: it is here for contrast. The fake voice takes 300 ms to answer the upgrade; the fake model
answers the first request of a connection 300 ms after it was opened at the earliest.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import defaultdict
from typing import Any

from benchmarks.bots import BARE, VOICEFLOW, Kind, running
from benchmarks.caller import Script
from benchmarks.chain import finish, ours, target
from benchmarks.measure import default_loop, summary
from benchmarks.turns import seen
from benchmarks.vendors import Delays, Fakes

HANDSHAKE = 0.3
SETTLE = 0.6
CALLS = 2
PAID = HANDSHAKE / 2
"""A first sound so much later than the floor has waited for a handshake."""
LATER_AT_MOST_MS = 10.0
NONE = Delays()
SETTINGS = {
    "no handshake": NONE,
    "300 ms to the voice": dataclasses.replace(NONE, tts_handshake=HANDSHAKE),
    "300 ms to the model": dataclasses.replace(NONE, llm_handshake=HANDSHAKE),
}


class Firsts:
    """When the first sounds of a call came, over the floor: the greeting's, and each turn's."""

    def __init__(self) -> None:
        self.greetings: list[float] = []
        self.turns: dict[int, list[float]] = defaultdict(list)
        self.silent = 0
        """Turns, or greetings, without a sound."""

    @property
    def paid(self) -> int:
        """How many waited for a handshake."""
        turns = [over for each in self.turns.values() for over in each]
        return sum(over > PAID for over in [*self.greetings, *turns])

    def report(self) -> dict[str, Any]:
        return {
            "greeting_ms": summary(self.greetings),
            "turn": {f"{number} ms": summary(found) for number, found in sorted(self.turns.items())},
            "waited_for_a_handshake": self.paid,
            "silent": self.silent,
        }


def measure(kind: Kind, fakes: Fakes, delays: Delays, turns: int, firsts: Firsts, loop: str) -> None:
    """A fresh bot, and its first two calls."""
    fakes.set(delays)
    with running(kind, fakes.environment, loop) as bot:
        time.sleep(SETTLE)
        for _ in range(CALLS):
            since = time.monotonic()
            talk = bot.call(Script(turns, delays.silence))
            found = seen(talk.turns, fakes.records(since), delays)
            for number, turn in enumerate(found, 1):
                firsts.turns[number].append(turn.over_floor)
            firsts.silent += turns - len(found) + (talk.greeted is None)
            if talk.greeted is not None:
                firsts.greetings.append(talk.greeted - talk.dialled - delays.voice)


def run(rounds: int = 2, turns: int = 2, loop: str | None = None) -> dict[str, Any]:
    """`rounds` fresh processes for each setting, and one of the bare bot, as a dict for JSON. About 2 min."""
    loop = loop or default_loop()
    ours_, bare = {name: Firsts() for name in SETTINGS}, {name: Firsts() for name in SETTINGS}
    with Fakes() as fakes:
        for number in range(rounds):
            for name, delays in SETTINGS.items():
                measure(VOICEFLOW, fakes, delays, turns, ours_[name], loop)
                if number == 0 and delays is not NONE:
                    measure(BARE, fakes, delays, turns, bare[name], loop)
    setups = {f"{VOICEFLOW.name}, {name}": firsts.report() for name, firsts in ours_.items()}
    setups |= {f"{BARE.name}, {name}": firsts.report() for name, firsts in bare.items() if firsts.turns}
    without = _medians(ours_["no handshake"])
    targets = []
    for name, firsts in list(ours_.items())[1:]:
        later = {which: median - without[which] for which, median in _medians(firsts).items()}
        worst = round(max(later.values()), 3) if set(later) == set(without) else None
        targets += [
            target(f"{name}: the medians are later by", worst, LATER_AT_MOST_MS, "ms"),
            target(f"{name}: first sounds that waited for it", firsts.paid + firsts.silent, 0, "sounds"),
        ]
    return {
        "benchmark": "warm_pool",
        "ours": ours(),
        "event_loop": loop,
        "setups": setups,
        "targets": targets,
    }


def _medians(firsts: Firsts) -> dict[str, float]:
    """Of the greeting, the first turn, and the later ones together, in ms."""
    later = [over for number, each in firsts.turns.items() if number > 1 for over in each]
    kinds = {"greeting": firsts.greetings, "first turn": firsts.turns[1], "later turns": later}
    return {name: summary(found)["median"] for name, found in kinds.items() if found}


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    finish(run(options.rounds, options.turns, options.loop), options.loop)


if __name__ == "__main__":
    main()
