"""Microseconds per hop per frame in voiceflow: ten processors that only give frames on.

What a hop is: a processor's handler, called with the frame, and what it returns sent on to the next one.
In line (`def`) it is a call by the pump. Async (`async def`, or an async generator) it is an inbox, a runner
task and a hand-over between tasks. An agent frame is also asked at every hop whether its reply is dead.

Under load, with the same definition as the peer's: the time runs from the first push until the last
processor's handler is entered with the last frame. Ten processors are ten hops:

- `us_per_hop` = that time / (frames x processors). Nothing is subtracted. It includes the pushes and, for the
  last processor, giving all frames but one on. It does not include making the frames (`us_to_create`).
- `us_per_hop_slope` = (time with ten processors - time with one) / (frames x 9): the cost of one more.
- `us_per_hop_idle`: one frame at a time through an otherwise idle chain, from push to arrival, / processors.

Two ways of pushing: `queued` gives all frames from within one handler, so that they all wait in the pump's
ready queue before the first one moves (as after a burst); `pushed` gives them one by one from outside, as a
socket's reader does: an in-line chain then takes each to its end at once.

A processor that does not handle a type costs its frames nothing, so there is no figure for it.
Every figure is a median over the rounds; the garbage collector runs as usual, after a collection before
each round.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.chain import Live, finish, live, ours, target
from benchmarks.measure import default_loop, new_loop, summary
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.reply import Reply
from voiceflow.frames import AudioIn, AudioOut, ControlFrame, Frame, Token

INLINE_AT_MOST, ASYNC_AT_MOST = 1.0, 8.0
MULAW_20MS = bytes(160)
REPLY = Reply(1)
FRAMES: dict[str, Callable[[], Frame]] = {
    "AudioIn": lambda: AudioIn(MULAW_20MS, 0),
    "AudioOut": lambda: AudioOut(MULAW_20MS, reply=REPLY),
    "Token": lambda: Token("word", reply=REPLY),
}
ROUND_DEADLINE = 15.0


@dataclass(slots=True)
class Burst(ControlFrame):
    """Tells the head to push these frames all at once."""

    frames: list[Frame]


class Head(Processor):
    """Above the ten: pushes a burst from within one handler. Not a hop."""

    emits = (AudioIn, AudioOut, Token)

    @tap(Burst)
    def burst(self, burst: Burst) -> None:
        for frame in burst.frames:
            self.push(frame)


class Arrivals:
    """What the last of the ten also does: notes when the expected number of frames has come."""

    missing = 0
    at = 0.0
    complete: asyncio.Event

    def note(self) -> None:
        self.missing -= 1
        if not self.missing:
            self.at = time.perf_counter()
            self.complete.set()


class Plain(Processor):
    @on(AudioIn, AudioOut, Token)
    def hop(self, frame: Frame) -> Frame:
        return frame


class PlainLast(Arrivals, Processor):
    @on(AudioIn, AudioOut, Token)
    def hop(self, frame: Frame) -> Frame:
        self.note()
        return frame


class Generator(Processor):
    @on(AudioIn, AudioOut, Token)
    def hop(self, frame: Frame) -> Iterator[Frame]:
        yield frame


class GeneratorLast(Arrivals, Processor):
    @on(AudioIn, AudioOut, Token)
    def hop(self, frame: Frame) -> Iterator[Frame]:
        self.note()
        yield frame


class Coroutine(Processor):
    @on(AudioIn, AudioOut, Token)
    async def hop(self, frame: Frame) -> Frame:
        return frame


class CoroutineLast(Arrivals, Processor):
    @on(AudioIn, AudioOut, Token)
    async def hop(self, frame: Frame) -> Frame:
        self.note()
        return frame


class AsyncGenerator(Processor):
    @on(AudioIn, AudioOut, Token)
    async def hop(self, frame: Frame) -> AsyncIterator[Frame]:
        yield frame


class AsyncGeneratorLast(Arrivals, Processor):
    @on(AudioIn, AudioOut, Token)
    async def hop(self, frame: Frame) -> AsyncIterator[Frame]:
        self.note()
        yield frame


KINDS: dict[str, tuple[type[Processor], type[Arrivals]]] = {
    "def": (Plain, PlainLast),
    "generator": (Generator, GeneratorLast),
    "async def": (Coroutine, CoroutineLast),
    "async generator": (AsyncGenerator, AsyncGeneratorLast),
}
WAYS = ("queued", "pushed")


def run(
    processors: int = 10, frames: int = 1000, rounds: int = 15, loop: str | None = None
) -> dict[str, Any]:
    """Hop times for each kind of handler and of frame, as a dict that JSON can hold. About 20 s.

    `processors` at least 2; `frames` are pushed at once; `loop` is "asyncio" or "uvloop" (default: uvloop
    if there).
    """
    loop = loop or default_loop()
    setups: dict[str, Any] = {}
    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        for kind in KINDS:
            many = runner.run(_measure(kind, processors, frames, rounds))
            one = runner.run(_measure(kind, 1, frames, rounds))
            setups[kind] = {name: _per_hop(many[name], one[name], processors, frames) for name in FRAMES}
    return {
        "benchmark": "hops",
        "ours": ours(),
        "event_loop": loop,
        "frames_queued": frames,
        "processors": processors,
        "us_to_create": {name: _creation(make, frames, rounds) for name, make in FRAMES.items()},
        "setups": setups,
        "targets": [
            target("in-line hop", _worst(setups, "def"), INLINE_AT_MOST, "us"),
            target("in-line hop (plain generator)", _worst(setups, "generator"), INLINE_AT_MOST, "us"),
            target("async hop (async def)", _worst(setups, "async def"), ASYNC_AT_MOST, "us"),
            target("async hop (async generator)", _worst(setups, "async generator"), ASYNC_AT_MOST, "us"),
        ],
    }


def _worst(setups: dict[str, Any], kind: str) -> float:
    """The highest median of all frame types and ways of pushing."""
    return max(setups[kind][name][way]["us_per_hop"]["median"] for name in FRAMES for way in WAYS)


def _creation(make: Callable[[], Frame], frames: int, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        gc.collect()
        began = time.perf_counter()
        for _ in range(frames):
            make()
        times.append((time.perf_counter() - began) / frames)
    return round(statistics.median(times) * 1e6, 3)


async def _measure(kind: str, processors: int, frames: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    middle, end = KINDS[kind]
    last = end()
    last.complete = asyncio.Event()
    assert isinstance(last, Processor)
    times: dict[str, dict[str, list[float]]] = {}
    async with live(Head(), *(middle() for _ in range(processors - 1)), last) as chain:
        for name, make in FRAMES.items():
            times[name] = {}
            for way in WAYS:
                load = [
                    await _round(chain, last, [make() for _ in range(frames)], way) for _ in range(rounds + 1)
                ]
                times[name][way] = load[1:]  # the first warms up
            idle = [await _round(chain, last, [make()], "pushed") for _ in range(101)]
            times[name]["idle"] = idle[1:]
    return times


async def _round(chain: Live, last: Arrivals, batch: list[Frame], way: str) -> float:
    last.missing = len(batch)
    last.complete.clear()
    if len(batch) > 1:
        gc.collect()
    began = time.perf_counter()
    if way == "queued":
        chain.send(Burst(batch))
    else:
        for frame in batch:
            chain.send(frame, to=1)
    async with asyncio.timeout(ROUND_DEADLINE):
        await last.complete.wait()
    await asyncio.sleep(0.002)
    return last.at - began


def _per_hop(
    many: dict[str, list[float]], one: dict[str, list[float]], processors: int, frames: int
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "us_per_hop_idle": summary([elapsed / processors for elapsed in many["idle"]], "us")
    }
    for way in WAYS:
        slope = statistics.median(many[way]) - statistics.median(one[way])
        result[way] = {
            "us_per_hop": summary([elapsed / (frames * processors) for elapsed in many[way]], "us"),
            "us_per_hop_slope": round(slope / (frames * (processors - 1)) * 1e6, 3),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--processors", type=int, default=10)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    finish(run(options.processors, options.frames, options.rounds, options.loop), options.loop)


if __name__ == "__main__":
    main()
