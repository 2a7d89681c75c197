"""Microseconds per hop per frame in pipecat 1.14: ten processors that only give frames on.

What a hop is: a processor's `queue_frame`, its input queue and input task, for data frames also its process
queue and process task, `process_frame`, and `push_frame` to the next processor. `InputAudioRawFrame` is a
SystemFrame in pipecat and skips the second queue.

Under load: all frames are put into the first processor's queue at once, and the time runs from the first put
until the last processor's `process_frame` is entered with the last frame. Ten processors are ten hops:

- `us_per_hop` = that time / (frames x processors). Nothing is subtracted. It includes the puts and, for the
  last processor, giving all frames but one on to the pipeline's sink. It does not include making the frames
  (`us_to_create`), nor the RTVI processor that the default set-up has before the first one, nor what
  observers still have in their queues when the last frame arrives.
- `us_per_hop_slope` = (time with ten processors - time with one) / (frames x 9): the same less the cost of
  both ends, which is the cost of one more processor.
- `us_per_hop_idle`: one frame at a time through an otherwise idle chain, from put to arrival, / processors.

Every figure is a median over the rounds; the garbage collector runs as usual, after a collection before
each round.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measure import default_loop, emit, environment, new_loop, noise, summary
from benchmarks.peers.pipecat_session import SETUPS, Pass, peer, running

# pipecat_session comes first: it silences the log before pipecat writes its banner.
# isort: split
from pipecat.frames.frames import Frame, InputAudioRawFrame, TextFrame, TTSAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection

PCM_20MS = bytes(320)  # 20 ms of 8 kHz 16-bit silence
FRAMES: dict[str, Callable[[], Frame]] = {
    "InputAudioRawFrame": lambda: InputAudioRawFrame(audio=PCM_20MS, sample_rate=8000, num_channels=1),
    "TTSAudioRawFrame": lambda: TTSAudioRawFrame(audio=PCM_20MS, sample_rate=8000, num_channels=1),
    "TextFrame": lambda: TextFrame(text="word"),
}
ROUND_DEADLINE = 15.0


class Arrivals(Pass):
    """The last processor: notes when the expected number of frames has reached it."""

    def __init__(self) -> None:
        super().__init__()
        self.expected: type[Frame] = Frame
        self.missing = 0
        self.at = 0.0
        self.complete = asyncio.Event()

    def expect(self, kind: type[Frame], count: int) -> None:
        self.expected, self.missing = kind, count
        self.complete.clear()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, self.expected) and self.missing:
            self.missing -= 1
            if not self.missing:
                self.at = time.perf_counter()
                self.complete.set()
        await super().process_frame(frame, direction)


def run(
    processors: int = 10,
    frames: int = 1000,
    rounds: int = 5,
    setups: tuple[str, ...] = tuple(SETUPS),
    loop: str | None = None,
) -> dict[str, Any]:
    """Hop times for each set-up and kind of frame, as a dict that JSON can hold. About 15 s.

    `processors` at least 2; `frames` are queued at once; `loop` is "asyncio" or "uvloop" (default: uvloop
    if there).
    """
    loop = loop or default_loop()
    result: dict[str, Any] = {
        "benchmark": "hops",
        "peer": peer(),
        "event_loop": loop,
        "frames_queued": frames,
        "processors": processors,
        "us_to_create": {name: _creation(make, frames, rounds) for name, make in FRAMES.items()},
        "setups": {},
    }
    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        for setup in setups:
            many = runner.run(_measure(setup, processors, frames, rounds))
            one = runner.run(_measure(setup, 1, frames, rounds))
            result["setups"][setup] = {
                name: _per_hop(many[name], one[name], processors, frames) for name in FRAMES
            }
    return result


def _creation(make: Callable[[], Frame], frames: int, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        gc.collect()
        began = time.perf_counter()
        for _ in range(frames):
            make()
        times.append((time.perf_counter() - began) / frames)
    return round(statistics.median(times) * 1e6, 3)


async def _measure(
    setup: str, processors: int, frames: int, rounds: int
) -> dict[str, dict[str, list[float]]]:
    last = Arrivals()
    chain = [*(Pass() for _ in range(processors - 1)), last]
    times: dict[str, dict[str, list[float]]] = {}
    async with running(chain, setup):
        for name, make in FRAMES.items():
            load = [await _round(chain[0], last, [make() for _ in range(frames)]) for _ in range(rounds + 1)]
            idle = [await _round(chain[0], last, [make()]) for _ in range(101)]
            times[name] = {"load": load[1:], "idle": idle[1:]}  # the first of each warms up
    return times


async def _round(first: Pass, last: Arrivals, batch: list[Frame]) -> float:
    last.expect(type(batch[0]), len(batch))
    if len(batch) > 1:
        gc.collect()
    began = time.perf_counter()
    for frame in batch:
        await first.queue_frame(frame)
    async with asyncio.timeout(ROUND_DEADLINE):
        await last.complete.wait()
    elapsed = last.at - began
    # Observers work off their queues outside the time measured.
    await asyncio.sleep(0.05 if len(batch) > 1 else 0.001)
    return elapsed


def _per_hop(
    many: dict[str, list[float]], one: dict[str, list[float]], processors: int, frames: int
) -> dict[str, Any]:
    slope = statistics.median(many["load"]) - statistics.median(one["load"])
    return {
        "us_per_hop": summary([elapsed / (frames * processors) for elapsed in many["load"]], "us"),
        "us_per_hop_idle": summary([elapsed / processors for elapsed in many["idle"]], "us"),
        "us_per_hop_slope": round(slope / (frames * (processors - 1)) * 1e6, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--processors", type=int, default=10)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    result = run(options.processors, options.frames, options.rounds, loop=options.loop)
    emit({**result, "environment": environment(options.loop), "noise": noise(options.loop)})


if __name__ == "__main__":
    main()
