"""Calls that hear and speak with the models of this machine: how soon they answer, and how that grows.

Each call is SileroVAD, MoonshineSTT, VADTurns(0.6, words=5.0), a processor that answers every turn with the
same two sentences at once, HibariTTS and the real sink, on a line in memory, fed in real time with a
recording of a person and silence, turn after turn. The calls of one run begin at different moments.

    reply_ms     from the packet that completes 0.6 s of silence, to the answer's first audio on the wire
    words_ms     of these, until the turn was over: what the words came later than the silence
    voice_ms     the rest: the sentence to the voice, its first audio
    lag_ms       how late a timer of 20 ms fires on the loop of all calls
    underruns    how often the line ran dry inside a reply, by the sink's own count
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.chain import finish, target
from benchmarks.measure import default_loop, new_loop, summary
from processors.hibari import HibariTTS
from processors.moonshine import MoonshineSTT
from processors.silero import SileroVAD
from processors.turns import VADTurns
from voiceflow.assets import speech
from voiceflow.audio import encode, read_wav
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.frames import PHONE, Prompt, ReplyEnd, Sentence, TurnEnd, VoiceStop
from voiceflow.line.codec import LineStarted
from voiceflow.models import ModelHost
from voiceflow.services import Services
from voiceflow.testing import ScriptedLink
from voiceflow.testing.line import MemoryCodec

SILENCE = 0.6
PACKET = 160
RATE = 8000
NAMES = ("go_forward_ten_meters", "three_cards")
AFTER = 4.0
"""Seconds of silence after each recording: the answer is heard in them."""
ANSWER = ("We are open Monday to Friday, from eight to six.", "Would you like to make an appointment?")
MEDIAN_MS, P95_MS = 350.0, 600.0
LAG_MS = 10.0


class Answer(Processor):
    """What a dialogue does, in no time."""

    emits = (Sentence, ReplyEnd)

    @on(Prompt)
    def answer(self, prompt: Prompt) -> Iterator[Sentence | ReplyEnd]:
        yield from (Sentence(text) for text in ANSWER)
        yield ReplyEnd()


class Probe(Processor):
    """Writes down when a turn was over."""

    def __init__(self) -> None:
        self.stopped = 0
        self.over: list[tuple[int, float]] = []
        """The sample at which the voice had stopped, and when the turn was over."""

    @tap(VoiceStop)
    def quiet(self, frame: VoiceStop) -> None:
        self.stopped = frame.at

    @tap(TurnEnd)
    def ended(self, frame: TurnEnd) -> None:
        self.over.append((self.stopped, time.perf_counter()))


class OneCall:
    """A call on a line in memory. `given` and `wire`: when each packet came in, and audio went out."""

    def __init__(self, services: Services) -> None:
        self.probe, self.link = Probe(), ScriptedLink(bound=1_000_000)
        self.given: list[float] = []
        self.wire: list[float] = []
        self.underruns = 0
        self._call = Call(MemoryCodec(has_marks=False), services=services)
        self.link.on(self._took)

    def _took(self, message: object) -> list[str]:
        if isinstance(message, bytes):
            self.wire.append(time.perf_counter())
        return []

    async def run(self, turns: int, delay: float) -> None:
        call, link, sink = self._call, self.link, self._call.sink()
        ears = (SileroVAD(), MoonshineSTT(), VADTurns(SILENCE, words=5.0))
        call.prepare(Pipeline(call.source(), *ears, self.probe, Answer(), HibariTTS(), sink))
        running = asyncio.create_task(call.run(link, LineStarted("line", call.id, PHONE)))
        pieces = [read_wav(speech(NAMES[turn % 2])) for turn in range(turns)]
        silence = np.zeros(round(AFTER * RATE), np.int16)
        samples = np.concatenate([part for piece in pieces for part in (piece, silence)])
        began = time.perf_counter() + delay
        for at in range(0, len(samples) - PACKET, PACKET):
            await asyncio.sleep(max(0.0, began + at / RATE - time.perf_counter()))
            self.given.append(time.perf_counter())
            link.peer.send(encode(samples[at : at + PACKET]))
        call.end("the benchmark is done")
        result = await running
        self.underruns = sink.pacer.underruns
        assert result.fault is None, result.fault

    def answers(self) -> Iterator[tuple[float, float]]:
        """Of each turn: how much later than the silence it was over, and its answer's first audio."""
        for stopped, over in self.probe.over:
            complete = -(-(stopped + round(SILENCE * RATE)) // PACKET) - 1
            silent = self.given[min(complete, len(self.given) - 1)]
            if (first := next((at for at in self.wire if at >= over), None)) is not None:
                yield max(0.0, over - silent), first - silent


async def calls(count: int, turns: int) -> dict[str, Any]:
    """So many calls at once."""
    services = Services()
    host = ModelHost.of(services)
    for model in (MoonshineSTT.model, HibariTTS.model):
        await host.load(model)
    late: list[float] = []

    async def watch() -> None:
        due = time.perf_counter() + 0.02
        while True:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            late.append(max(0.0, time.perf_counter() - due))
            due = max(due + 0.02, time.perf_counter())

    watching = asyncio.create_task(watch())
    every = [OneCall(services) for _ in range(count)]
    spread = (AFTER + 3.0) / count
    await asyncio.gather(*(each.run(turns, spread * number) for number, each in enumerate(every)))
    watching.cancel()
    await services.close()
    answers = [answer for each in every for answer in each.answers()]
    words, reply = [waited for waited, _ in answers], [heard for _, heard in answers]
    voice = [heard - waited for waited, heard in answers]
    return {
        "reply_ms": {**summary(reply), "p95": round(float(np.percentile(reply, 95)) * 1000, 1)},
        "words_ms": summary(words),
        "voice_ms": summary(voice),
        "lag_ms": summary(late),
        "underruns": sum(each.underruns for each in every),
        "turns": sum(len(each.probe.over) for each in every),
        "answered": len(answers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offline_calls")
    parser.add_argument("--turns", type=int, default=8, metavar="N", help="of each call; 8")
    parser.add_argument("--calls", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N")
    options = parser.parse_args()

    async def measured() -> dict[str, Any]:
        return {f"{count} calls": await calls(count, options.turns) for count in options.calls}

    loop = default_loop()
    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        result = runner.run(measured())
    one = result[f"{options.calls[0]} calls"]["reply_ms"]
    four = result.get("4 calls")
    targets = [
        target("reply of one call, median", one["median"], MEDIAN_MS, "ms"),
        target("reply of one call, p95", one["p95"], P95_MS, "ms"),
    ]
    if four is not None:
        targets += [
            target("underruns in four calls", four["underruns"], 0, ""),
            target("lag of the event loop, four calls, p99", four["lag_ms"]["p99"], LAG_MS, "ms"),
        ]
    finish({**result, "targets": targets})


if __name__ == "__main__":
    main()
