"""Barge-in with vendors at the ends: from Flux's StartOfTurn to `clear`, and what becomes of the rest.

The bots, the vendors and the caller are those of `voice_to_voice`. The caller talks over each answer 0.5 s
after its first sound, while the model still sends tokens and the voice is still speaking; after 0.3 s of
that Flux says StartOfTurn, and the turn goes on to its end and its answer, which is talked over in its
turn.

    start_to_clear_ms     from Flux writing StartOfTurn until `clear` was read from the wire
    model_cancelled_ms    from there until the model's server noticed that nobody listens
    voice_closed_ms       from there until the voice was told to close the context
    ghost_s               seconds of audio after `clear`, before the caller's turn was over
    waited_for_a_dial     turns whose request went on a connection opened after the turn was over, or whose
                          voice had to connect after that
    dialled_meanwhile     connections opened between StartOfTurn and the next answer's first sound, those that
                          replace a spare one included

In the first: the fake's write, the loopback, the bot's waking up, its JSON, the turn, the interruption, and
the write of `clear`. Not in it: recognising the word, which is Flux's.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.bots import BARE, PIPECAT, VOICEFLOW, Bot, can_run, running
from benchmarks.caller import Script, Turn
from benchmarks.chain import finish, ours, target
from benchmarks.measure import default_loop, summary
from benchmarks.vendors import Delays, Fakes

DELAYS = Delays(gap=0.03, pace=1.5, reply=("I", " do", ".", *(" I", " think", " so", ".") * 20))
"""83 tokens in 2.5 s: the model still sends them when it is interrupted, 0.8 s after the first sound."""
LISTEN = 0.5
MEDIAN_AT_MOST_MS = 1.0
WARM_UP = 2
KINDS = (BARE, VOICEFLOW, PIPECAT)
VENDORS = ("flux", "llm", "tts")


@dataclass
class Cut:
    """The interruptions of one bot."""

    to_clear: list[float] = field(default_factory=list)
    model_cancelled: list[float] = field(default_factory=list)
    voice_closed: list[float] = field(default_factory=list)
    ghost: float = 0.0
    missing: int = 0
    """Interruptions without `clear`."""
    uncancelled: int = 0
    """Answers that the model or the voice went on with."""
    waited: int = 0
    dialled: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VENDORS, 0))

    def take(self, turns: Sequence[Turn], records: dict[str, Any]) -> None:
        """All turns but the first talk over an answer."""
        for turn in turns[1:]:
            self._one(turn, records)

    def _one(self, turn: Turn, records: dict[str, Any]) -> None:
        until = turn.deciding or math.inf
        started = [
            sent["at"]
            for sent in records["turns"]
            if sent["event"] == "StartOfTurn" and turn.began < sent["at"] < until
        ]
        if not started or turn.cleared is None:
            self.missing += 1
            return
        start = started[0]
        self.to_clear.append(turn.cleared - start)
        self.ghost += turn.ghost
        asked = [each for each in records["asked"] if each["arrived"] < start]
        spoken = [each for each in records["spoken"] if each["opened"] < start]
        if asked and asked[-1]["how"] == "left" and asked[-1]["ended"] >= start:
            self.model_cancelled.append(asked[-1]["ended"] - start)
        else:
            self.uncancelled += 1
        if spoken and spoken[-1]["closed"] is not None and spoken[-1]["closed"] >= start:
            self.voice_closed.append(spoken[-1]["closed"] - start)
        else:
            self.uncancelled += 1
        self._dials(turn, records, start)

    def _dials(self, turn: Turn, records: dict[str, Any], start: float) -> None:
        if turn.answered is None or turn.deciding is None:
            self.missing += 1
            return
        for vendor in VENDORS:
            self.dialled[vendor] += sum(start < at < turn.answered for at in records["dialled"][vendor])
        asked = next(each for each in records["asked"] if each["arrived"] > turn.deciding)
        voice = any(turn.deciding < at < turn.answered for at in records["dialled"]["tts"])
        self.waited += asked["opened"] > turn.deciding or voice

    def report(self) -> dict[str, Any]:
        return {
            "start_to_clear_ms": summary(self.to_clear),
            "model_cancelled_ms": summary(self.model_cancelled),
            "voice_closed_ms": summary(self.voice_closed),
            "ghost_s": round(self.ghost, 3),
            "missing": self.missing,
            "uncancelled": self.uncancelled,
            "waited_for_a_dial": self.waited,
            "dialled_meanwhile": self.dialled,
        }


def call(bot: Bot, fakes: Fakes, interruptions: int, cut: Cut) -> None:
    """One call; what came of it goes to `cut`."""
    since = time.monotonic()
    talk = bot.call(Script(interruptions + 1, DELAYS.silence, listen=LISTEN))
    cut.take(talk.turns, fakes.records(since))
    cut.missing += interruptions + 1 - len(talk.turns)


def run(rounds: int = 2, interruptions: int = 10, loop: str | None = None) -> dict[str, Any]:
    """`rounds` calls with so many interruptions, with each bot in turn, as a dict for JSON. About 2 min.

    `loop` is the bots' event loop, "asyncio" or "uvloop" (default: uvloop if there).
    """
    loop = loop or default_loop()
    kinds = can_run(KINDS)
    cuts = {kind.name: Cut() for kind in kinds}
    with Fakes() as fakes, contextlib.ExitStack() as stack:
        fakes.set(DELAYS)
        bots = [stack.enter_context(running(kind, fakes.environment, loop)) for kind in kinds]
        for bot in bots:
            call(bot, fakes, WARM_UP, Cut())
        for _ in range(rounds):
            for bot in bots:
                call(bot, fakes, interruptions, cuts[bot.kind.name])
    setups = {name: cut.report() for name, cut in cuts.items()}
    found = setups[VOICEFLOW.name]
    targets = [
        target(
            "StartOfTurn to clear, median", found["start_to_clear_ms"].get("median"), MEDIAN_AT_MOST_MS, "ms"
        ),
        target("audio after clear", found["ghost_s"], 0, "s"),
        target("interruptions without clear or without an answer", found["missing"], 0, "turns"),
        target("answers that model or voice went on with", found["uncancelled"], 0, "answers"),
        target("turns that waited for a new connection", found["waited_for_a_dial"], 0, "turns"),
    ]
    return {
        "benchmark": "agent_barge_in",
        "ours": ours(),
        "event_loop": loop,
        "setups": setups,
        "targets": targets,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--interruptions", type=int, default=10)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    finish(run(options.rounds, options.interruptions, options.loop), options.loop)


if __name__ == "__main__":
    main()
