"""How long an interruption takes in pipecat 1.14 with 1,000 agent frames queued, and how many get past it.

A chain of ten processors. The middle one, on a system frame (as when VAD finds the caller speaking), calls
`broadcast_interruption()`, which is pipecat's own way: one InterruptionFrame downstream and one upstream.
The time runs from just before that call until an end's `process_frame` is entered with its
InterruptionFrame; `to_both_ms` is the later end. `stale` counts the agent frames (TTSAudioRawFrame, 20 ms
each) that enter the last processor's `process_frame` after it saw the interruption.

Scenarios, each with 1,000 agent frames:

- plain: they wait in the inbox of a processor behind the middle whose handler waits, as a sink waits for
  its clock. Nothing else runs.
- burst_from_middle: the middle pushes them all and then interrupts, without anything between.
- burst_at_head: they are put into the first processor's inbox, and the trigger into the middle's, without
  anything between. A frame that reaches the end
  before the interruption does is not stale.
- busy: they wait in the inbox of a processor that awaits 5 ms for each; the interruption comes in the
  middle of one.
- slow_finally: as plain, but the waiting handler's `finally` takes 300 ms when it is cancelled.

After the ends have seen the interruption, the handlers that wait become plain, so that stale frames are
counted soon rather than after 5 s; a marker frame sent behind them ends the count. One pipeline serves all
runs of a scenario. The garbage collector runs as usual, after a collection before each run.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import default_loop, emit, environment, new_loop, noise, summary
from benchmarks.peers.pipecat_session import Pass, peer, running

# pipecat_session comes first: it silences the log before pipecat writes its banner.
# isort: split
from pipecat.frames.frames import DataFrame, Frame, InterruptionFrame, SystemFrame, TTSAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection

PROCESSORS = 10
MIDDLE = 5
WAITING = 7  # the processor behind the middle whose handler waits
BUSY = 0.005
SLOW_FINALLY = 0.3
DEADLINE = 10.0
PCM_20MS = bytes(320)
SCENARIOS = ("plain", "burst_from_middle", "burst_at_head", "busy", "slow_finally")


@dataclass
class Trigger(SystemFrame):
    """Tells the middle processor to interrupt."""


@dataclass
class Marker(DataFrame):
    """Sent behind the last stale frame; what comes to the end before it is all there was."""


class End(Pass):
    """First or last processor: when it saw the interruption, and what came before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.saw_interruption = asyncio.Event()
        self.saw_audio = asyncio.Event()
        self.saw_marker = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        self.at = 0.0
        self.before = 0
        self.stale = 0
        for event in (self.saw_interruption, self.saw_audio, self.saw_marker):
            event.clear()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, InterruptionFrame):
            self.at = time.perf_counter()
            self.saw_interruption.set()
        elif isinstance(frame, TTSAudioRawFrame):
            if self.saw_interruption.is_set():
                self.stale += 1
            else:
                self.before += 1
                self.saw_audio.set()
        elif isinstance(frame, Marker):
            self.saw_marker.set()
        await super().process_frame(frame, direction)


class Middle(Pass):
    """Interrupts when it gets a Trigger, after it has pushed `burst`, if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.burst: list[Frame] = []
        self.began = 0.0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if not isinstance(frame, Trigger):
            await super().process_frame(frame, direction)
            return
        for audio in self.burst:
            await self.push_frame(audio)
        self.burst = []
        self.began = time.perf_counter()
        await self.broadcast_interruption()


class Waiting(Pass):
    """Handles agent frames as `mode` says: plain (waits for ever), busy or slow_finally; "" gives them on."""

    def __init__(self) -> None:
        super().__init__()
        self.mode = ""
        self.entered = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, TTSAudioRawFrame) and self.mode:
            self.entered.set()
            await self._wait()
        await super().process_frame(frame, direction)

    async def _wait(self) -> None:
        if self.mode == "busy":
            await asyncio.sleep(BUSY)
        elif self.mode == "plain":
            await asyncio.Event().wait()
        elif self.mode == "slow_finally":
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(SLOW_FINALLY)


@dataclass
class Run:
    """One interruption. Times in seconds; frames counted at the last processor."""

    to_first: float
    to_last: float
    before: int
    stale: int


class Chain:
    """The ten processors and what one run of a scenario does with them."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.first, self.middle, self.waiting, self.last = End(), Middle(), Waiting(), End()
        self.processors: list[Pass] = [Pass() for _ in range(PROCESSORS)]
        self.processors[0], self.processors[-1] = self.first, self.last
        self.processors[MIDDLE], self.processors[WAITING] = self.middle, self.waiting

    async def interrupt(self, scenario: str) -> Run:
        """Fill the queues as the scenario says, interrupt, count. Raises TimeoutError after 10 s."""
        audio: list[Frame] = [
            TTSAudioRawFrame(audio=PCM_20MS, sample_rate=8000, num_channels=1) for _ in range(self.frames)
        ]
        self.first.reset()
        self.last.reset()
        gc.collect()
        async with asyncio.timeout(DEADLINE):
            await self._fill(scenario, audio)
            await self.middle.queue_frame(Trigger())
            await self.first.saw_interruption.wait()
            await self.last.saw_interruption.wait()
            self.waiting.mode = ""
            await self.first.queue_frame(Marker())
            await self.last.saw_marker.wait()
        began = self.middle.began
        return Run(self.first.at - began, self.last.at - began, self.last.before, self.last.stale)

    async def _fill(self, scenario: str, audio: list[Frame]) -> None:
        if scenario == "burst_from_middle":
            self.middle.burst = audio
            return
        if scenario == "burst_at_head":
            for frame in audio:
                await self.first.queue_frame(frame)
            return
        self.waiting.mode = scenario
        self.waiting.entered.clear()
        for frame in audio:
            await self.waiting.queue_frame(frame)
        await self.waiting.entered.wait()
        if scenario == "busy":
            await self.last.saw_audio.wait()
            await asyncio.sleep(BUSY / 2)


def run(
    runs: int = 30,
    frames: int = 1000,
    setups: tuple[str, ...] = ("default", "lean"),
    scenarios: tuple[str, ...] = SCENARIOS,
    loop: str | None = None,
) -> dict[str, Any]:
    """Every scenario `runs` times in each set-up (slow_finally: a third of that), as a dict for JSON.

    About 30 s. `frames` are queued before each interruption; `loop` is "asyncio" or "uvloop" (default:
    uvloop if there).
    """
    loop = loop or default_loop()
    result: dict[str, Any] = {
        "benchmark": "interrupt",
        "peer": peer(),
        "event_loop": loop,
        "frames_queued": frames,
        "processors": PROCESSORS,
        "setups": {},
    }
    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        for setup in setups:
            result["setups"][setup] = {
                scenario: _report(runner.run(_measure(setup, scenario, runs, frames)))
                for scenario in scenarios
            }
    return result


async def _measure(setup: str, scenario: str, runs: int, frames: int) -> list[Run]:
    if scenario == "slow_finally":
        runs = max(5, runs // 3)
    chain = Chain(frames)
    async with running(chain.processors, setup):
        await chain.interrupt(scenario)  # warms up
        return [await chain.interrupt(scenario) for _ in range(runs)]


def _report(runs: list[Run]) -> dict[str, Any]:
    return {
        "to_both_ms": summary([max(one.to_first, one.to_last) for one in runs]),
        "to_first_ms": summary([one.to_first for one in runs]),
        "to_last_ms": summary([one.to_last for one in runs]),
        "stale": _counts([one.stale for one in runs]),
        "reached_end_before": _counts([one.before for one in runs]),
        "runs_with_stale": sum(one.stale > 0 for one in runs),
    }


def _counts(counts: list[int]) -> dict[str, int]:
    ordered = sorted(counts)
    return {"median": ordered[len(ordered) // 2], "min": ordered[0], "max": ordered[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    result = run(options.runs, options.frames, loop=options.loop)
    emit({**result, "environment": environment(options.loop), "noise": noise(options.loop)})


if __name__ == "__main__":
    main()
