"""Voice to voice: from the caller's last sound to the agent's first, above what the vendors take.

The same call with voiceflow, with pipecat and with a bot that has no framework (`peers/bare_bot.py`), in
turn, on real sockets, against fake vendors with fixed delays. Four processes: the bot that is called, the
vendors, this caller, and the other bots, which idle. A call is a greeting and some turns; each waits until
the last answer was heard to its end. The calls of the bots alternate, so that all share the machine's good
and bad minutes. One call of each is not counted: code that runs for the first time is slow.

The time runs from just before the last packet with sound is written until the first media message of the
answer was read. The floor is what the vendors take: Flux's silence, in audio (0.24 s: the time between that
packet and the one that completes the silence, as they were really written), its delay (50 ms), the model's
first token (100 ms), its tokens up to the end of the first sentence (two more, 10 or 60 ms apart), the
voice (75 ms). `over_floor_ms` is the rest: the bot, both of its sockets' ends, and the lateness of the
fakes' timers, about 1 ms, which is the same for all. `own_ms` leaves the fakes' lateness out; `legs` says
where the bot's time went, see `benchmarks.turns`.

The audio's phase is the same for all: see `benchmarks.caller`. Chunks begin with the stream in every bot
here. pipecat at its default rates sends blocks of its resampler's, 94.75 ms each; what it waits for them
depends on the phase, so the calls of each round begin to talk one chunk later than those of the round before.

`slower`: the median with 60 ms between tokens less that with 10. Whoever waits for the token after a
sentence's end pays 50 ms here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.bots import BARE, PIPECAT, PIPECAT_RATES, VOICEFLOW, Bot, Kind, can_run, running
from benchmarks.caller import Script
from benchmarks.chain import finish, ours, target
from benchmarks.measure import default_loop, summary
from benchmarks.turns import Seen, figures, seen
from benchmarks.vendors import Delays, Fakes

QUICK_TOKENS, SLOW_TOKENS = Delays(gap=0.01), Delays(gap=0.06)
MEDIAN_AT_MOST_MS, P99_AT_MOST_MS, SLOWER_AT_MOST_MS = 3.0, 8.0, 2.0
WARM_UP = 2
KINDS = (BARE, VOICEFLOW, PIPECAT, PIPECAT_RATES)


class Measured:
    """What one bot did with tokens of one pace."""

    def __init__(self) -> None:
        self.turns: list[Seen] = []
        self.unanswered = 0
        self.chunks: Counter[int] = Counter()
        """Chunks of audio that Flux got, by their bytes."""

    def report(self) -> dict[str, Any]:
        chunks = {str(size): count for size, count in sorted(self.chunks.items())}
        return {**figures(self.turns), "unanswered": self.unanswered, "chunks": chunks}


def call(bot: Bot, fakes: Fakes, delays: Delays, turns: int, measured: Measured, wait: int = 0) -> None:
    """One call; what came of it goes to `measured`. `wait`: see `Script`."""
    fakes.set(delays)
    since = time.monotonic()
    talk = bot.call(Script(turns, delays.silence, wait=wait))
    records = fakes.records(since)
    found = seen(talk.turns, records, delays)
    measured.turns += found
    measured.chunks.update(size for _, size in records["chunks"])
    measured.unanswered += turns - len(found)


def run(
    rounds: int = 4, turns: int = 15, slow_turns: int = 3, resampled_turns: int = 4, loop: str | None = None
) -> dict[str, Any]:
    """`rounds` calls of `turns` turns with each bot and as many of `slow_turns` with slow tokens, as a dict
    for JSON; `resampled_turns` of each with pipecat at its default rates. About 7 min, without pipecat 4.

    `loop` is the bots' event loop, "asyncio" or "uvloop" (default: uvloop if there).
    """
    loop = loop or default_loop()
    kinds = can_run(KINDS)
    quick = {kind.name: Measured() for kind in kinds}
    slow = {kind.name: Measured() for kind in kinds}
    paths: list[dict[str, Any]] = []
    with Fakes() as fakes, contextlib.ExitStack() as stack:
        fakes.set(QUICK_TOKENS)
        bots = [stack.enter_context(running(kind, fakes.environment, loop)) for kind in kinds]
        for bot in bots:
            call(bot, fakes, QUICK_TOKENS, WARM_UP, Measured())
        for number in range(rounds):
            for bot in _turned(bots, number):
                name, resampled = bot.kind.name, bot.kind is PIPECAT_RATES
                if not resampled:
                    call(bot, fakes, SLOW_TOKENS, slow_turns, slow[name], number)
                if bot.kind is VOICEFLOW:
                    bot.ask("GET", "/bench/paths")  # those of slow tokens are left out
                count = resampled_turns if resampled else turns
                call(bot, fakes, QUICK_TOKENS, count, quick[name], number)
                if bot.kind is VOICEFLOW:
                    paths += json.loads(bot.ask("GET", "/bench/paths"))
    return _document(kinds, quick, slow, _parts(paths), loop)


def _document(
    kinds: tuple[Kind, ...], quick: dict[str, Measured], slow: dict[str, Measured], parts: Any, loop: str
) -> dict[str, Any]:
    setups = {
        f"{kind.name}, {gap} ms between tokens": measured[kind.name].report()
        for measured, gap in ((quick, 10), (slow, 60))
        for kind in kinds
        if measured[kind.name].turns
    }
    bare = figures(quick[BARE.name].turns)["over_floor_ms"]
    above, slower = {}, {}
    for kind in kinds:
        over = figures(quick[kind.name].turns)["over_floor_ms"]
        if not over["n"]:
            continue
        above[kind.name] = {
            f"above_bare_{figure}_ms": round(over[figure] - bare[figure], 3) for figure in ("median", "p99")
        }
        if slow[kind.name].turns:
            late = figures(slow[kind.name].turns)["over_floor_ms"]["median"]
            slower[kind.name] = {"slower_tokens_ms": round(late - over["median"], 3)}
    name = VOICEFLOW.name
    unanswered = quick[name].unanswered + slow[name].unanswered
    more = slower.get(name, {}).get("slower_tokens_ms")
    targets = [
        target(
            "above the bare bot, median",
            above.get(name, {}).get("above_bare_median_ms"),
            MEDIAN_AT_MOST_MS,
            "ms",
        ),
        target("above the bare bot, p99", above.get(name, {}).get("above_bare_p99_ms"), P99_AT_MOST_MS, "ms"),
        target(
            "tokens 60 ms apart, not 10: difference",
            None if more is None else abs(more),
            SLOWER_AT_MOST_MS,
            "ms",
        ),
        target("turns without an answer", unanswered, 0, "turns"),
    ]
    return {
        "benchmark": "voice_to_voice",
        "ours": ours(),
        "event_loop": loop,
        "floor_ms": {
            "10 ms between tokens": QUICK_TOKENS.floor * 1000,
            "60 ms between tokens": SLOW_TOKENS.floor * 1000,
        },
        "setups": setups,
        "above": above,
        "slower": slower,
        "voiceflow's own trace": parts,
        "targets": targets,
    }


def _turned(bots: Sequence[Bot], by: int) -> list[Bot]:
    """The same in another order, so that none is always called after the same one."""
    by %= len(bots)
    return [*bots[by:], *bots[:by]]


def _parts(paths: list[dict[str, Any]]) -> dict[str, Any]:
    """The parts of the paths in voiceflow's own trace, by step: what a user would see."""
    parts: dict[str, list[float]] = {}
    for path in paths:
        for part in path["parts"] if path["turn"] is not None else ():
            parts.setdefault(f"{part['step']} ({part['owner']})", []).append(part["ms"] / 1000)
    return {step: summary(seconds) for step, seconds in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--slow-turns", type=int, default=3)
    parser.add_argument("--resampled-turns", type=int, default=4)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    result = run(
        options.rounds, options.turns, options.slow_turns, options.resampled_turns, loop=options.loop
    )
    finish(result, options.loop)


if __name__ == "__main__":
    main()
