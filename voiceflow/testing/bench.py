"""A bench: one processor in a call of its own, tried with samples, cut where one likes, and read.

    Above ──▶ the processor ──▶ Watcher

Replies are the TurnKeeper's and Interrupts come from it, as in a real call; only the Prompt is the sample's
own, so that the same frames can be given again and again. Between the samples run numbered marks that no
processor knows, one kind in the caller's lane and one in the agent's.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.mouth import HeardText
from voiceflow.engine.processor import Processor, handler_for, on
from voiceflow.engine.reply import Reply
from voiceflow.errors import CallEnded
from voiceflow.frames import AgentFrame, CallerFrame, Frame, Heard, Way
from voiceflow.record import Phase
from voiceflow.services import Services
from voiceflow.testing.clock import VirtualTimeLoop
from voiceflow.testing.line import MemoryCodec
from voiceflow.testing.rig import DONE, KEPT, Below, Rig
from voiceflow.testing.samples import Sample

if TYPE_CHECKING:
    from loguru import Logger


ENDED = "check_processor ended it"
"""Why a call ends in the middle of its work."""
SETTLED = 20
"""Turns of the loop after which everything has happened that needs no time."""
CALLBACKS_AT_AN_INSTANT = 100_000
"""More than that without time moving on is a processor that polls."""
LEAST_STREAMED = 20
"""Caller frames in a stream at least: 0.4 s, about a processor's work on one sentence."""


@dataclass(slots=True)
class Sound(CallerFrame):
    """A mark in the caller's lane."""

    number: int


@dataclass(slots=True)
class Note(AgentFrame):
    """A mark in the agent's lane."""

    number: int


@dataclass(slots=True, frozen=True)
class Cut:
    """A moment in a round: before frame `before` of the sample or, when that is None, at the instant `at`
    (seconds of the loop's time); then `turns` turns of the event loop later."""

    turns: int
    before: int | None = None
    at: float = 0.0


@dataclass(slots=True, frozen=True)
class Failure:
    """What a processor ended its call with. `closing` when the call was over already."""

    processor: Processor | None
    stage: str
    error: Exception
    closing: bool


class StepLoop(VirtualTimeLoop):
    """Remembers its instants, and how many turns it made at each: every moment there is for a cut."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, int]] = []
        super().__init__(callback_limit=CALLBACKS_AT_AN_INSTANT)

    def mark(self) -> None:
        """Forgets the steps up to now."""
        self.steps = [(self.time(), 0)]

    def _set_time(self, now: float) -> None:
        self.steps.append((now, 0))
        super()._set_time(now)

    def _check_progress(self) -> None:
        at, turns = self.steps[-1]
        self.steps[-1] = (at, turns + 1)
        super()._check_progress()


class Watcher(Below):
    """The lower end; it knows when each frame came, and the frames whose reply nobody opened."""

    emits = (Frame,)

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        self.unknown: list[Reply] = []
        """Replies of the test that the TurnKeeper does not know."""
        self.foreign: list[AgentFrame] = []

    @on(Frame, stops=True)
    def keep(self, frame: Frame) -> None:
        if len(self.seen) >= KEPT:
            return
        self.seen.append(frame)
        self.times.append(self.call.loop.time())
        if isinstance(frame, AgentFrame):
            known = (*self.call.turns._replies.values(), *self.unknown)
            if frame.reply not in known:
                self.foreign.append(frame)


class Bench(Rig):
    """`async with Bench(...)`, then `play` rounds. Never raises what the call failed with: see `failures`."""

    def __init__(self, processor: Processor, sample: Sample | None, services: Services) -> None:
        super().__init__(processor, services=services)
        self.processor = processor
        self.sample = sample
        self.watched = self.call = _WatchedCall(MemoryCodec(), services=services, seed=0)
        self.watch = self.below = Watcher()
        self.given: list[tuple[Frame, Frame]] = []
        """Frames that went in, each with a copy of how it was then."""
        self.replies: list[Reply] = []
        """One a round."""
        self.began = 0.0
        """When the first round did."""
        self.rounds: list[tuple[int, int]] = []
        """How many frames had gone in and come out when each began."""
        self.cut_off: Reply | None = None
        self.cut_from = 0
        """The reply that was interrupted, and how many frames had come out by then."""
        self.over = False
        self.late: list[Frame] = []
        """Pushed after the call was over."""
        self.stop_trouble: str | None = None
        self._marks = 0
        self._notes = handler_for(type(processor), Note, tap=False) is None
        self._sounds = handler_for(type(processor), Sound, tap=False) is None
        self._fault_read = True
        self._spy_on(processor)

    @property
    def failures(self) -> list[Failure]:
        return self.watched.failures

    @property
    def warnings(self) -> list[str]:
        """What the engine would have logged about the processor: it went on, but something is wrong."""
        return [line for line in self.watched.notebook.warnings if self.processor.name in line]

    @property
    def ended_by_itself(self) -> str:
        """The reason, when the processor ended its call without failing."""
        reason = self.result.reason if self.result is not None else ""
        return "" if self.failures or reason in (DONE, ENDED) else reason

    def forgive(self) -> None:
        """Forgets what failed: in this trial it was to be expected."""
        self.failures.clear()
        self.watched.notebook.warnings.clear()

    # -- what is done to it

    async def play(
        self, cut: Cut | None = None, act: Callable[[], None] = lambda: None, *, slowly: bool = False
    ) -> None:
        """One round: the whole sample at once, in one burst, or `slowly`, one frame a turn of the loop.
        With `cut`, `act` is called at that moment, and what is left of the sample comes after it, as it
        would in a call."""
        assert self.sample is not None
        if not self.rounds:
            self.began = self.call.loop.time()
        reply = await self.open()
        frames = self.sample.frames(len(self.rounds), reply)
        self.rounds.append((len(self.given), len(self.out)))
        self.replies.append(reply)
        was_cut = False
        for number, frame in enumerate(frames):
            if cut is not None and cut.before == number:
                await _turns(cut.turns)
                act()
                was_cut = True
            if was_cut and isinstance(frame, Heard):  # the ledger of a dead reply is frozen
                continue
            if isinstance(frame, AgentFrame | Heard):
                self.note(reply)
            else:
                self.sound()
            self.give(frame)
            if slowly:
                await asyncio.sleep(0)
        if cut is not None and not was_cut:
            if cut.before is None:
                await _until(cut.at)
            await _turns(cut.turns)
            act()

    async def stream(self, *, busy: bool) -> None:
        """The caller's part of the sample at its own pace, 20 ms a frame; `busy`: while the agent's part,
        given in one burst before, is worked on."""
        assert self.sample is not None
        frames = self.sample.frames(0, await self.open())
        for frame in frames if busy else ():
            if isinstance(frame, AgentFrame):
                self.give(frame)
        caller = [frame for frame in frames if isinstance(frame, CallerFrame)]
        for number in range(max(len(caller), LEAST_STREAMED)):
            self.sound()
            if number < len(caller):
                self.give(caller[number])
            await asyncio.sleep(0.02)

    async def open(self) -> Reply:
        """The reply to give agent frames for. A turn's authority opens its own by the evidence it gives; to
        leave that alone, its frames belong to replies that the TurnKeeper does not know."""
        if self.processor.takes_turns:
            self.watch.unknown.append(Reply(0))
            return self.watch.unknown[-1]
        self.retire()
        granted = await self.call.turns.take_floor()
        assert granted is not None
        return granted[0]

    def retire(self) -> None:
        """The live reply was played to its end."""
        if (live := self.call.turns.live) is not None:
            self.call.turns.played(live, HeardText())

    def interrupt(self) -> None:
        """The reply of this round is cut off, and whatever else is live."""
        self.cut_off, self.cut_from = self.replies[-1], len(self.out)
        self.call.turns.stop("check_processor cut it off")
        if not self.cut_off.dead:
            self.kill(self.cut_off)

    def give(self, frame: Frame) -> None:
        """Sends a frame in, from the end that its way begins at."""
        self.given.append((frame, copy.copy(frame)))
        (self.watch if frame.way is Way.UP else self.above).push(frame)

    def note(self, reply: Reply) -> None:
        self._marks += 1
        if self._notes:
            self.give(Note(self._marks, reply=reply))

    def sound(self) -> None:
        self._marks += 1
        if self._sounds:
            self.give(Sound(self._marks))

    async def abandoned(self) -> None:
        """Instead of `async with`: the carrier announced a call, and its stream never came."""
        self.call.prepare(Pipeline(self.above, self.processor, self.watch, parts=True))
        await self.call.abandon("the stream never came")
        await self.call.services.close()

    # -- what came of it

    def of_reply(self, round_: int) -> list[Frame]:
        """The frames of a round's reply that came out, marks included."""
        if round_ >= len(self.replies):
            return []
        reply = self.replies[round_]
        return [frame for frame in self.out if isinstance(frame, AgentFrame) and frame.reply is reply]

    def times_of_reply(self, round_: int) -> list[float]:
        """When they came out."""
        own = {id(frame) for frame in self.of_reply(round_)}
        return [at for frame, at in zip(self.out, self.watch.times, strict=True) if id(frame) in own]

    def of_caller(self) -> list[tuple[Frame, float]]:
        """The frames of the caller's lane that came out, and when."""
        came = zip(self.out, self.watch.times, strict=True)
        return [(frame, at) for frame, at in came if isinstance(frame, CallerFrame)]

    def _spy_on(self, processor: Processor) -> None:
        push, stop = processor.push, processor.stop

        def watched_push(frame: Frame) -> None:
            if self.over:
                self.late.append(frame)
            push(frame)

        async def watched_stop() -> None:
            try:
                await stop()
            except asyncio.CancelledError:
                self.stop_trouble = f"stop() was not done after {processor.stop_timeout:g} s"
                raise
            except Exception as error:
                self.stop_trouble = f"stop() raised {type(error).__name__}: {error}"
                raise

        processor.push, processor.stop = watched_push, watched_stop  # type: ignore[method-assign]


class _WatchedCall(Call):
    """Keeps what failed and what the engine warned of; prints nothing, for hundreds of calls are made."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.failures: list[Failure] = []
        self.notebook = _Notebook()

    @property
    def log(self) -> Logger:
        return cast("Logger", self.notebook)

    def _fail(self, processor: Processor | None, stage: str, error: Exception) -> None:
        closing = self.phase in (Phase.CLOSING, Phase.OVER)
        if closing and isinstance(error, CallEnded):  # a reader that had a frame in hand: no failure
            return
        self.failures.append(Failure(processor, stage, error, closing))
        super()._fail(processor, stage, error)


class _Notebook:
    """A logger that says nothing, whatever is called on it, and keeps the engine's own warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, message: str, *args: object, **options: object) -> None:
        if str(sys._getframe(1).f_globals.get("__name__")).startswith("voiceflow."):
            self.warnings.append(message)

    def __getattr__(self, name: str) -> Self:
        return self

    def __call__(self, *args: object, **options: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _until(at: float) -> None:
    """Waits for an instant of the loop's time, exactly: a sleep for the difference would be rounded."""
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    loop.call_at(at, reached.set_result, None)
    await reached
