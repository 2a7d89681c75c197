"""Holds over real sockets: how soon the line is silent at a voice, and how soon and from where it goes on.

One process has all of it: voiceflow's server, the fake vendors, and the simulated caller, each on sockets of
127.0.0.1. The caller asks, and coughs into the answer: any sound of 40 ms is a voice for the detector of this
benchmark, and nothing for the recogniser. So every hold is for nothing, and the answer goes on.

    voice_to_clear_ms     from VoiceStart being pushed until `clear` is with the caller
    window_to_audio_ms    from the end of BargeIn's window until audio is with the caller again
    repeated_words        complete words that were said again after a hold
    repeated_s            seconds of audio that were
    lost                  characters of the answer that were never heard

`elevenlabs` tells when each word is spoken; `aura` does not, and goes back to a pause in the last second. In
the first: the bot's work and one write over the loopback. Not in it: deciding that there is a voice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chain import finish, ours, target
from benchmarks.measure import default_loop, new_loop, summary
from processors.aura import AuraTTS
from processors.barge_in import BargeIn
from processors.elevenlabs import ElevenLabsTTS
from processors.flux import FluxSTT
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from tests.e2e.conversation import Phone, real
from tests.vendors import spelled
from tests.vendors.openai import FakeOpenAI
from tests.vendors.server import OPENAI_KEY, Vendors
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, tap
from voiceflow.frames import AudioIn, VoiceStart, VoiceStop

VOICES = ("elevenlabs", "aura")
WINDOW = 0.6
CLEAR_AT_MOST_MS = 5.0
AUDIO_AT_MOST_MS = 100.0
WORDS_AT_MOST = 1.0
BOUND_S = 1.0
COUGH = (b"\x10" * 20 + b"\x90" * 20) * 40
"""0.2 s of sound that is no character."""
SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va")
ANSWER = " ".join(
    f"{first}{second}{'.' if n % 8 == 7 else ''}"
    for n, (first, second) in enumerate((a, b) for a in SYLLABLES[:8] for b in SYLLABLES[8:])
)
"""Words that are found again wherever they stand: 64, in 20 s."""
SURE = 12
"""Characters that stand in one place of the answer only."""
QUESTION = "Well?"
PATIENCE = 60.0


class Loudness(Processor):
    """A detector of voice: any sound of 40 ms. It notes when it said so."""

    emits = (VoiceStart, VoiceStop)

    def __init__(self) -> None:
        self.said: list[float] = []
        self._loud = self._quiet = 0
        self._voice = False

    @tap(AudioIn)
    def listen(self, frame: AudioIn) -> None:
        sound = bool(frame.audio.strip(b"\xff\x7f"))
        self._loud, self._quiet = (self._loud + 1, 0) if sound else (0, self._quiet + 1)
        end = frame.at + frame.samples
        if self._loud == 2 and not self._voice:
            self._voice = True
            self.said.append(time.perf_counter())
            self.push(VoiceStart(end - 320, decided_at=end))
        elif self._quiet == 5 and self._voice:
            self._voice = False
            self.push(VoiceStop(end - 800, decided_at=end))


@dataclass
class Holds:
    """Those of one voice."""

    to_clear: list[float] = field(default_factory=list)
    to_audio: list[float] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    missing: int = 0
    """Holds that were asked for and did not come, or did not end."""

    def report(self) -> dict[str, Any]:
        return {
            "voice_to_clear_ms": summary(self.to_clear),
            "window_to_audio_ms": summary(self.to_audio),
            "repeated_words": max(self.words, default=None),
            "repeated_s": summary(self.seconds, "s"),
            "lost": self.lost,
            "missing": self.missing,
        }


def agent(voice: str, detectors: list[Loudness]) -> Callable[[Call], Pipeline]:
    def make(call: Call) -> Pipeline:
        detectors.append(Loudness())
        return Pipeline(
            call.source(),
            detectors[-1],
            FluxSTT(),
            BargeIn(window=WINDOW, most_holds=1000),
            ChatLLM(instructions="You answer."),
            SentenceAggregator(),
            ElevenLabsTTS() if voice == "elevenlabs" else AuraTTS(),
            call.sink(),
        )

    return make


class Line:
    """What reaches the caller, and when."""

    def __init__(self, phone: Phone) -> None:
        self.cleared: list[float] = []
        self.media: list[float] = []
        playout: Any = phone.stream._playout
        clear, audio = playout.clear, playout.audio

        def on_clear(sample: int) -> Any:
            self.cleared.append(time.perf_counter())
            return clear(sample)

        def on_audio(sample: int, data: bytes) -> Any:
            self.media.append(time.perf_counter())
            return audio(sample, data)

        playout.clear, playout.audio = on_clear, on_audio


async def call(voice: str, coughs: int, holds: Holds, rng: random.Random) -> None:
    """One call; what came of it goes to `holds`."""
    fakes = Vendors(llm=FakeOpenAI(key=OPENAI_KEY, reply=lambda _: ANSWER, ttft=0.05, gap=0.005))
    detectors: list[Loudness] = []
    async with fakes:
        with _environment(fakes.environment):
            async with real(fakes, agent(voice, detectors)) as phone:
                line, since = Line(phone), 0
                await phone.said(QUESTION)
                since = len(detectors[-1].said)
                await phone.hears(ANSWER[:3], PATIENCE)
                for _ in range(coughs):
                    await asyncio.sleep(rng.uniform(0.5, 1.0))
                    phone.handset.speak(COUGH)
                    await asyncio.sleep(WINDOW + 0.3)
                await phone.hears(ANSWER[-SURE:], PATIENCE)
                await phone.quiet(0.3)
                heard = phone.replies_heard()
    voices = detectors[-1].said[since:]
    holds.missing += abs(coughs - len(voices))
    for voice_at in voices:
        cleared = next((at for at in line.cleared if at >= voice_at), None)
        again = next((at for at in line.media if at >= voice_at + WINDOW / 2), None)
        if cleared is None or again is None:
            holds.missing += 1
            continue
        holds.to_clear.append(cleared - voice_at)
        holds.to_audio.append(again - voice_at - WINDOW)
    _compare(heard, holds)


def _compare(heard: list[str], holds: Holds) -> None:
    """Each part of the answer begins where the one before stopped, or before that."""
    answer = "".join(ANSWER.split())
    ends = [len("".join(ANSWER.split()[: n + 1])) for n in range(len(ANSWER.split()))]
    at = 0
    for number, part in enumerate(heard):
        letters = "".join(part.split())
        begins = answer.find(letters[:SURE])
        if begins < 0:  # it went on in the middle of a character
            begins = answer.find(letters[1:SURE]) - 1
        if number:
            words = [
                end for begin, end in zip([0, *ends], ends, strict=False) if begins <= begin and end <= at
            ]
            holds.words.append(len(words))
            holds.seconds.append(max(0, at - begins) * spelled.CHARACTER / spelled.RATE)
        holds.lost += max(0, begins - at)
        at = max(at, begins + len(letters))
    holds.lost += max(0, len(answer) - at)


@contextmanager
def _environment(of: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(of)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run(calls: int = 4, coughs: int = 8, loop: str | None = None) -> dict[str, Any]:
    """`calls` calls with so many holds with each voice in turn, as a dict for JSON. About 4 min."""
    loop = loop or default_loop()
    found = {voice: Holds() for voice in VOICES}
    rng = random.Random(0)
    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        for _ in range(calls):
            for voice in VOICES:
                runner.run(call(voice, coughs, found[voice], rng))
    setups = {voice: holds.report() for voice, holds in found.items()}
    both = list(found.values())
    with_words, without = found["elevenlabs"], found["aura"]
    targets = [
        target("VoiceStart to clear, p99", _p99(both, "to_clear"), CLEAR_AT_MOST_MS, "ms"),
        target("end of the window to audio, p99", _p99(both, "to_audio"), AUDIO_AT_MOST_MS, "ms"),
        target(
            "words said again, with alignments", max(with_words.words, default=None), WORDS_AT_MOST, "words"
        ),
        target("audio said again, without", max(without.seconds, default=None), BOUND_S, "s"),
        target("characters lost", sum(holds.lost for holds in both), 0, "characters"),
        target("holds that did not come or end", sum(holds.missing for holds in both), 0, "holds"),
    ]
    return {"benchmark": "hold", "ours": ours(), "event_loop": loop, "setups": setups, "targets": targets}


def _p99(both: list[Holds], what: str) -> float | None:
    found = summary([value for holds in both for value in getattr(holds, what)])
    value: float | None = found.get("p99")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--coughs", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="one call with each voice, 3 holds")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    calls, coughs = (1, 3) if options.quick else (options.calls, options.coughs)
    finish(run(calls, coughs, options.loop), options.loop)


if __name__ == "__main__":
    main()
