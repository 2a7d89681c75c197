"""How long an Interrupt takes in voiceflow with 1,000 agent frames queued, and how many get past it.

A chain of ten processors. The middle one is the turn's authority: on a caller's frame (as when VAD finds the
caller speaking) it tells the real TurnKeeper so, which runs the engine's seven steps. The last is the real
LineSink, on a line in memory; `first` and `last` are the ends of the chain: positions 0 and 8. The time
runs from just before the authority's call until an end's handler is entered with its Interrupt;
`to_both_ms` is the later end. `stale` counts the agent frames (AudioOut, 20 ms each) of the dead reply that
enter the last end's handler after it saw the Interrupt, and `stale_on_wire` the audio that the line was given
after `clear`.

Scenarios, each with 1,000 agent frames; `plain` to `slow_finally` are the same as the peer's:

- warm: as plain, again and again without a pause: what the code costs. All the others come after some
  milliseconds of idling and a garbage collection, as a barge-in does, when caches and clocks are cold: on a
  virtual machine that alone makes a factor of three to six.
- plain: they wait in the inbox of a processor behind the middle whose handler waits. Nothing else runs.
- burst_from_middle: the middle pushes them all and then interrupts, within one handler.
- burst_at_head: they are pushed above the first processor, and the trigger into the middle, without anything
  between. A frame that reaches the end before the Interrupt does is not stale.
- busy: they wait in the inbox of a processor that awaits 5 ms for each; the Interrupt comes in the middle
  of one.
- slow_finally: as plain, but the waiting handler's `finally` takes 300 ms when it is cancelled.
- at_sink: they are all in the sink's queue and being played, 20 s of audio: `to_clear_ms` is the time until
  the line was given `clear`.

Right after every Interrupt a new reply begins and one frame of it is sent down the whole chain:
`to_next_reply_ms` is the time from the Interrupt to its arrival, so a clean-up that blocks the next reply
would show. After slow_finally the count of stale frames goes on until the 300 ms are over.

Two set-ups: "async", where every processor is `async def` as the peer's are, the ends included, and "inline",
where the others are `def` and only the waiting one is async. One call serves all runs of a scenario. The
garbage collector runs as usual, after a collection before each run.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.chain import CLEAR, Live, finish, live, ours, target
from benchmarks.measure import default_loop, new_loop, summary
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.reply import Reply
from voiceflow.frames import AudioOut, CallerFrame, Interrupt, Prompt

PROCESSORS = 10
MIDDLE = 5
WAITING = 7  # the processor behind the middle whose handler waits
BUSY = 0.005
SLOW_FINALLY = 0.3
DEADLINE = 10.0
AT_MOST_MS = 0.15
OLD, NEW = b"\x01" * 160, b"\x02" * 160
SCENARIOS = ("warm", "plain", "burst_from_middle", "burst_at_head", "busy", "slow_finally", "at_sink")
SETUPS = ("async", "inline")


@dataclass(slots=True)
class Trigger(CallerFrame):
    """Tells the middle processor that the caller speaks."""


class Seen:
    """An end of the chain: when it saw the Interrupt, and what came before and after."""

    def __init__(self) -> None:
        self.saw_interrupt = asyncio.Event()
        self.saw_audio = asyncio.Event()
        self.saw_next = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        self.at = self.next_at = 0.0
        self.before = self.stale = 0
        for event in (self.saw_interrupt, self.saw_audio, self.saw_next):
            event.clear()

    def note_interrupt(self) -> None:
        self.at = time.perf_counter()
        self.saw_interrupt.set()

    def note_audio(self, frame: AudioOut) -> None:
        if frame.audio == NEW:
            self.next_at = time.perf_counter()
            self.saw_next.set()
        elif self.saw_interrupt.is_set():
            self.stale += 1
        else:
            self.before += 1
            self.saw_audio.set()


class InlineEnd(Seen, Processor):
    @on(Interrupt)
    def interrupted(self, frame: Interrupt) -> None:
        self.note_interrupt()

    @on(AudioOut)
    def audio(self, frame: AudioOut) -> AudioOut:
        self.note_audio(frame)
        return frame


class AsyncEnd(Seen, Processor):
    @on(Interrupt)
    async def interrupted(self, frame: Interrupt) -> None:
        self.note_interrupt()

    @on(AudioOut)
    async def audio(self, frame: AudioOut) -> AudioOut:
        self.note_audio(frame)
        return frame


class InlinePass(Processor):
    @on(AudioOut)
    def audio(self, frame: AudioOut) -> AudioOut:
        return frame


class AsyncPass(Processor):
    @on(AudioOut)
    async def audio(self, frame: AudioOut) -> AudioOut:
        return frame


class Middle(Processor):
    """The turn's authority. Interrupts when it gets a Trigger, after it has pushed what is in `burst`."""

    takes_turns = True
    emits = (AudioOut,)

    def __init__(self) -> None:
        self.burst: list[AudioOut] = []
        self.began = 0.0

    @tap(Trigger)
    def voice(self, frame: Trigger) -> None:
        for audio in self.burst:
            self.push(audio)
        self.burst = []
        self.began = time.perf_counter()
        self.turns.started()


class Waiting(Processor):
    """Handles agent frames as `mode` says: plain (waits for ever), busy or slow_finally; "" gives them on.
    It also takes the Prompt: the reply that the frames of a run belong to."""

    def __init__(self) -> None:
        self.mode = ""
        self.entered = asyncio.Event()
        self.cleaned_up = asyncio.Event()
        self.prompts: asyncio.Queue[Prompt] = asyncio.Queue(1)

    @on(Prompt, stops=True)
    def prompt(self, prompt: Prompt) -> None:
        self.prompts.put_nowait(prompt)

    @on(AudioOut)
    async def audio(self, frame: AudioOut) -> AudioOut:
        if self.mode and frame.audio == OLD:
            self.entered.set()
            await self._wait()
        return frame

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
                self.cleaned_up.set()


@dataclass
class Run:
    """One Interrupt. Times in seconds; frames counted at the last end and on the wire."""

    to_first: float
    to_last: float
    to_next_reply: float
    to_clear: float | None
    before: int
    stale: int
    stale_on_wire: int


class Chain:
    """The ten processors and what one run of a scenario does with them."""

    def __init__(self, setup: str, frames: int) -> None:
        self.frames = frames
        passing, end = (AsyncPass, AsyncEnd) if setup == "async" else (InlinePass, InlineEnd)
        self.first, self.last = end(), end()
        self.middle, self.waiting = Middle(), Waiting()
        self.processors: list[Processor] = [passing() for _ in range(PROCESSORS - 1)]
        self.processors[0], self.processors[-1] = self.first, self.last
        self.processors[MIDDLE], self.processors[WAITING] = self.middle, self.waiting

    async def interrupt(self, chain: Live, scenario: str) -> Run:
        """Fills the queues as the scenario says, interrupts, counts. Raises TimeoutError after 10 s."""
        self.first.reset()
        self.last.reset()
        chain.wire.sent.clear()
        old = await self._reply(chain)
        audio = [AudioOut(OLD, reply=old) for _ in range(self.frames)]
        gc.collect()
        async with asyncio.timeout(DEADLINE):
            await self._fill(chain, scenario, audio)
            chain.send(Trigger(), to=MIDDLE)
            await self.first.saw_interrupt.wait()
            await self.last.saw_interrupt.wait()
            chain.send(AudioOut(NEW, reply=await self._reply(chain)))
            await self.last.saw_next.wait()
            if scenario == "slow_finally":
                await self.waiting.cleaned_up.wait()
            self.waiting.mode = ""
            await asyncio.sleep(0.02)  # what is late may still come
        began = self.middle.began
        cleared = [at for at, message in chain.wire.sent if message == CLEAR]
        stale = sum(
            len(m) // 160 for at, m in chain.wire.sent if cleared and at > cleared[0] and m[:1] == OLD[:1]
        )
        result = Run(
            self.first.at - began,
            self.last.at - began,
            self.last.next_at - began,
            cleared[0] - began if cleared else None,
            self.last.before,
            self.last.stale,
            stale,
        )
        chain.call.turns.stop("run over")
        await asyncio.sleep(0.005)  # this Interrupt is not to be seen by the next run
        return result

    async def interrupt_warm(self, chain: Live) -> Run:
        """The plain scenario without a pause, a collection or a next reply: right after the last one."""
        self.first.reset()
        self.last.reset()
        old = await self._reply(chain)
        self.waiting.mode = "plain"
        self.waiting.entered.clear()
        for _ in range(self.frames):
            chain.send(AudioOut(OLD, reply=old), to=WAITING)
        await self.waiting.entered.wait()
        chain.send(Trigger(), to=MIDDLE)
        await self.first.saw_interrupt.wait()
        await self.last.saw_interrupt.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        began = self.middle.began
        seen = self.first.at - began, self.last.at - began
        self.waiting.mode = ""
        chain.wire.sent.clear()
        return Run(*seen, 0.0, None, self.last.before, self.last.stale, 0)

    async def _reply(self, chain: Live) -> Reply:
        """A live reply of the TurnKeeper's own: the caller's turn is over, and this answers it."""
        if chain.call.turns.live is not None:
            raise RuntimeError("the last reply is still live")
        chain.call.turns.ended()
        async with asyncio.timeout(DEADLINE):
            reply = (await self.waiting.prompts.get()).reply
        assert reply is not None
        return reply

    async def _fill(self, chain: Live, scenario: str, audio: list[AudioOut]) -> None:
        if scenario == "burst_from_middle":
            self.middle.burst = audio
            return
        if scenario in ("burst_at_head", "at_sink"):
            for frame in audio:
                chain.send(frame, to=0 if scenario == "burst_at_head" else PROCESSORS - 1)
            if scenario == "at_sink":
                await asyncio.sleep(0.01)  # the line takes the first pieces
            return
        self.waiting.mode = scenario
        self.waiting.entered.clear()
        self.waiting.cleaned_up.clear()
        for frame in audio:
            chain.send(frame, to=WAITING)
        await self.waiting.entered.wait()
        if scenario == "busy":
            await self.last.saw_audio.wait()
            await asyncio.sleep(BUSY / 2)


def run(
    runs: int = 100, frames: int = 1000, scenarios: tuple[str, ...] = SCENARIOS, loop: str | None = None
) -> dict[str, Any]:
    """Every scenario `runs` times in each set-up (slow_finally: a third of that), as a dict for JSON.

    About 40 s. `frames` are queued before each Interrupt; `loop` is "asyncio" or "uvloop" (default: uvloop
    if there).
    """
    loop = loop or default_loop()
    setups: dict[str, Any] = {}
    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        for setup in SETUPS:
            setups[setup] = {
                scenario: _report(runner.run(_measure(setup, scenario, runs, frames)))
                for scenario in scenarios
            }
    targets = []
    for setup, found in setups.items():
        for scenario, figures in found.items():
            name = f"Interrupt to both ends, {scenario} ({setup})"
            targets.append(target(name, figures["to_both_ms"]["median"], AT_MOST_MS, "ms"))
            stale = figures["stale"]["max"] + figures["stale_on_wire"]["max"]
            targets.append(target(f"stale frames, {scenario} ({setup})", stale, 0, "frames"))
    return {
        "benchmark": "interrupt",
        "ours": ours(),
        "event_loop": loop,
        "frames_queued": frames,
        "processors": PROCESSORS,
        "setups": setups,
        "targets": targets,
    }


async def _measure(setup: str, scenario: str, runs: int, frames: int) -> list[Run]:
    if scenario == "slow_finally":
        runs = max(5, runs // 3)
    chain = Chain(setup, frames)
    async with live(*chain.processors, with_sink=True) as call:
        if scenario == "warm":
            return [await chain.interrupt_warm(call) for _ in range(runs + 20)][20:]
        await chain.interrupt(call, scenario)  # warms up
        return [await chain.interrupt(call, scenario) for _ in range(runs)]


def _report(runs: list[Run]) -> dict[str, Any]:
    return {
        "to_both_ms": summary([max(one.to_first, one.to_last) for one in runs]),
        "to_first_ms": summary([one.to_first for one in runs]),
        "to_last_ms": summary([one.to_last for one in runs]),
        "to_next_reply_ms": summary([one.to_next_reply for one in runs]),
        "to_clear_ms": summary([one.to_clear for one in runs if one.to_clear is not None]),
        "stale": _counts([one.stale for one in runs]),
        "stale_on_wire": _counts([one.stale_on_wire for one in runs]),
        "reached_end_before": _counts([one.before for one in runs]),
        "runs_with_stale": sum(one.stale + one.stale_on_wire > 0 for one in runs),
    }


def _counts(counts: list[int]) -> dict[str, int]:
    ordered = sorted(counts)
    return {"median": ordered[len(ordered) // 2], "min": ordered[0], "max": ordered[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    finish(run(options.runs, options.frames, loop=options.loop), options.loop)


if __name__ == "__main__":
    main()
