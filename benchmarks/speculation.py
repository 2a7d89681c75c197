"""Speculation: how much sooner an answer is heard that was drafted at an eager end of turn, and what is left
of a draft that was wrong.

Two of voiceflow's phone agents on real sockets, the same but for Flux's `eager_eot_threshold`, are called in
turn with the same script, against the same fake vendors with fixed delays; processes and caller are those of
`voice_to_voice`. Flux says EagerEndOfTurn to the one that asks for it after 0.24 s of silence, and EndOfTurn
to both 250 ms later (0.24 s of audio and 10 ms).

    voice_to_voice_ms   from just before the caller's last packet with sound is written until the first media
                        message of the answer was read
    end_to_audio_ms     from Flux writing EndOfTurn until then
    head_start_ms       from Flux writing EagerEndOfTurn until EndOfTurn, as it was
    sooner_ms           the median of voice_to_voice_ms without drafts, less each one with

A draft saves what was done of it when the turn is over: the head start, or what model and voice take,
whichever is less. `slow vendors` take 370 ms (a first token 250, two more, the voice 100), so the head start
is the bound, and all of it can be gained; `quick vendors` take 195 ms, so no more than that can.

Then the caller pauses in the middle of each turn: for 0.72 s, when Flux would wait 0.96. That is time enough
for the draft to be spoken to its end; then he goes on. The draft's words are spelled with z, which no other
word here has, so each sample of it is known on the wire. One such draft is kept, to see that they are found.

    draft_audio_ms      of such samples that came to the caller
    kept_audio_ms       the same of the draft that was kept
    words_in_history    such words in the agent's history at the end of the call
    words_in_requests   such words in what the model was sent
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.bots import Bot, Kind, running
from benchmarks.caller import Script, Turn
from benchmarks.chain import finish, ours, target
from benchmarks.clear_driver import RATE
from benchmarks.measure import default_loop, summary
from benchmarks.vendors import Delays, Fakes

PLAIN = Kind("without drafts", "benchmarks.phone_agent")
EAGER = Kind("with drafts", "benchmarks.phone_agent", ("--eager", "0.4"))
SLOW = Delays(silence=0.48, eager=0.24, end=0.01, first_token=0.25, voice=0.1)
QUICK = Delays(silence=0.48, eager=0.24, end=0.01)
SPEEDS = {"slow vendors": SLOW, "quick vendors": QUICK}
DRAFT = ("zzzz", " zz", ".")
PAUSED = Delays(silence=0.96, eager=0.24, first_token=0.25, voice=0.1, half=DRAFT)
PAUSE = 36
"""Packets: 0.72 s. The draft's audio is there after 0.66: 0.24 of silence, Flux's 0.05, model and voice."""
HEAD_START_MS = 250.0
LOST_AT_MOST_MS = 20.0
"""Of the head start: 230 ms have to be gained."""
WARM_UP = 2


@dataclass
class Timed:
    """The turns of one agent with vendors of one speed. Seconds."""

    voice_to_voice: list[float] = field(default_factory=list)
    end_to_audio: list[float] = field(default_factory=list)
    head_start: list[float] = field(default_factory=list)
    asked: int = 0
    """Requests that the model got."""
    turns: int = 0
    unanswered: int = 0

    def take(self, turns: list[Turn], wanted: int, records: dict[str, Any]) -> None:
        """One call of `wanted` turns."""
        self.turns += wanted
        self.asked += len(records["asked"])
        self.unanswered += wanted - sum(turn.answered is not None for turn in turns)
        for turn in turns:
            if turn.answered is None:
                continue
            self.voice_to_voice.append(turn.answered - turn.last)
            ended = _said(records, "EndOfTurn", turn.last, turn.answered)
            guessed = _said(records, "EagerEndOfTurn", turn.last, turn.answered)
            self.end_to_audio += [turn.answered - at for at in ended]
            self.head_start += [end - guess for end, guess in zip(ended, guessed, strict=False)]

    def report(self, without: Timed | None = None) -> dict[str, Any]:
        """`without`: the same turns without drafts."""
        found: dict[str, Any] = {
            "voice_to_voice_ms": summary(self.voice_to_voice),
            "end_to_audio_ms": summary(self.end_to_audio),
            "requests": self.asked,
            "turns": self.turns,
            "unanswered": self.unanswered,
        }
        if without is not None and without.voice_to_voice:
            usual = statistics.median(without.voice_to_voice)
            found["head_start_ms"] = summary(self.head_start)
            found["sooner_ms"] = summary([usual - each for each in self.voice_to_voice])
        return found


@dataclass
class Left:
    """What is left of drafts that were dropped."""

    drafts: float = 0
    spoken: int = 0
    """Of those, so many had audio before the caller went on."""
    samples: int = 0
    kept: int = 0
    """Samples of a draft that was kept, in a call without pauses."""
    in_history: int = 0
    in_requests: int = 0
    unanswered: int = 0
    characters: float = 0
    wasted_ms: float = 0

    def report(self) -> dict[str, Any]:
        return {
            "drafts_dropped": self.drafts,
            "drafts_spoken": self.spoken,
            "draft_audio_ms": self.samples / RATE * 1000,
            "kept_audio_ms": self.kept / RATE * 1000,
            "words_in_history": self.in_history,
            "words_in_requests": self.in_requests,
            "unanswered": self.unanswered,
            "wasted_characters": self.characters,
            "wasted_ms": self.wasted_ms,
        }


def timed(bot: Bot, fakes: Fakes, delays: Delays, turns: int, found: Timed) -> None:
    """One call without pauses; what came of it goes to `found`."""
    fakes.set(delays)
    since = time.monotonic()
    talk = bot.call(Script(turns, delays.silence))
    found.take(talk.turns, turns, fakes.records(since))


def paused(bot: Bot, fakes: Fakes, turns: int, left: Left) -> None:
    """One call in which the caller pauses in the middle of each turn; what is left of the drafts."""
    fakes.set(PAUSED)
    bot.ask("GET", "/bench/calls")  # those of before
    since = time.monotonic()
    talk = bot.call(Script(turns, PAUSED.silence, pause=PAUSE))
    records = fakes.records(since)
    (call,) = json.loads(bot.ask("GET", "/bench/calls"))
    figures = call["figures"]
    left.drafts += figures["drafts_dropped"]
    left.characters += figures["ElevenLabsTTS.wasted_characters"]
    left.wasted_ms += figures["ElevenLabsTTS.wasted_ms"]
    resumed = [sent["at"] for sent in records["turns"] if sent["event"] == "TurnResumed"]
    begun = [each["first"] for each in records["spoken"] if each["first"] is not None]
    left.spoken += sum(
        any(turn.began < first < at for first in begun)
        for turn in talk.turns
        for at in resumed
        if turn.began < at < turn.last
    )
    left.samples += _samples(talk.audio)
    left.in_history += _words(call["history"])
    left.in_requests += sum(_words(asked["messages"]) for asked in records["asked"])
    left.unanswered += turns - sum(turn.answered is not None for turn in talk.turns)


def _said(records: dict[str, Any], event: str, after: float, before: float) -> list[float]:
    return [sent["at"] for sent in records["turns"] if sent["event"] == event and after < sent["at"] < before]


def kept(bot: Bot, fakes: Fakes, left: Left) -> None:
    """One call of one turn, whose draft has the words that are searched for, and is right."""
    fakes.set(PAUSED)
    left.kept += _samples(bot.call(Script(1, PAUSED.silence)).audio)


def _samples(audio: bytearray) -> int:
    """Those that spell the words of a draft."""
    return sum(byte & 0x7F == ord("z") for byte in audio)


def _words(texts: list[str]) -> int:
    """Those of a draft."""
    return sum("z" in word for text in texts for word in text.split())


def run(rounds: int = 4, turns: int = 12, paused_turns: int = 8, loop: str | None = None) -> dict[str, Any]:
    """`rounds` calls of `turns` turns with each agent and each speed of vendors, and as many of
    `paused_turns` with pauses, as a dict for JSON. About 7 min.

    `loop` is the agents' event loop, "asyncio" or "uvloop" (default: uvloop if there).
    """
    loop = loop or default_loop()
    found = {(speed, kind.name): Timed() for speed in SPEEDS for kind in (PLAIN, EAGER)}
    left = Left()
    with Fakes() as fakes, contextlib.ExitStack() as stack:
        fakes.set(SLOW)
        bots = [stack.enter_context(running(kind, fakes.environment, loop)) for kind in (PLAIN, EAGER)]
        for bot in bots:
            timed(bot, fakes, SLOW, WARM_UP, Timed())
        for _ in range(rounds):
            for speed, delays in SPEEDS.items():
                for bot in bots:
                    timed(bot, fakes, delays, turns, found[speed, bot.kind.name])
            paused(bots[-1], fakes, paused_turns, left)
        kept(bots[-1], fakes, left)
    return _document(found, left, loop)


def _document(found: dict[tuple[str, str], Timed], left: Left, loop: str) -> dict[str, Any]:
    setups = {
        f"{speed}, {name}": each.report(found[speed, PLAIN.name] if name == EAGER.name else None)
        for (speed, name), each in found.items()
    }
    sooner = setups[f"slow vendors, {EAGER.name}"].get("sooner_ms", {}).get("median")
    lost = None if sooner is None else round(HEAD_START_MS - sooner, 3)
    more = sum(each.asked - each.turns for each in found.values())
    unanswered = left.unanswered + sum(each.unanswered for each in found.values())
    vanished = left.report()
    seen = min(left.drafts, left.spoken, left.kept) > 0  # what is left of no draft proves nothing
    targets = [
        target(f"of a head start of {HEAD_START_MS:g} ms not gained, median", lost, LOST_AT_MOST_MS, "ms"),
        *(
            target(name, vanished[figure] if seen else None, 0, unit)
            for name, figure, unit in (
                ("audio of dropped drafts at the caller's end", "draft_audio_ms", "ms"),
                ("words of dropped drafts in the history", "words_in_history", "words"),
                ("words of dropped drafts in later requests", "words_in_requests", "words"),
            )
        ),
        target("requests beyond one for a turn without a pause", more, 0, "requests"),
        target("turns without an answer", unanswered, 0, "turns"),
    ]
    return {
        "benchmark": "speculation",
        "ours": ours(),
        "event_loop": loop,
        "setups": {**setups, "pauses": vanished},
        "targets": targets,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--paused-turns", type=int, default=8)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    finish(run(options.rounds, options.turns, options.paused_turns, options.loop), options.loop)


if __name__ == "__main__":
    main()
