"""A call: one pipeline, one line, one owner of every task, under one deadline.

prepare(pipeline)     processors start, while the carrier is still setting up the stream
run(link, started)    frames flow until somebody ends it
end(reason)           the only way out: hang-up, deadline, a fault, the server's shutdown
closing               CallEnd, stop(), tasks reaped, end hooks, socket closed - each bounded in time
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from voiceflow.clock import trace_clock
from voiceflow.crew import CLOSING_LIMIT, Crew
from voiceflow.declaration.check import check_keys
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.buffers import Depth
from voiceflow.engine.history import History
from voiceflow.engine.keeper import TurnKeeper
from voiceflow.engine.mouth import HeardText
from voiceflow.engine.processor import Processor
from voiceflow.engine.pump import Pump
from voiceflow.engine.tasks import Tasks
from voiceflow.errors import CallEnded, DeclarationError, LineError, ProcessorError, VoiceflowError
from voiceflow.frames import CallEnd, CallStart, Fault
from voiceflow.line.codec import Codec, LineStarted
from voiceflow.line.following import read_streams
from voiceflow.line.link import Link
from voiceflow.line.sink import LineSink
from voiceflow.line.source import LineSource
from voiceflow.line.stream import Line
from voiceflow.record import CallResult, Phase, figures_of
from voiceflow.services import Services
from voiceflow.speaker import Speaker
from voiceflow.trace.recorder import FIRSTS, Outcome, Recorder
from voiceflow.trace.watch import TurnWatch

if TYPE_CHECKING:
    from loguru import Logger

P = ParamSpec("P")
T = TypeVar("T")
Hook = Callable[["Call"], Any]


class Call:
    """One phone call, as a pipeline and its processors see it.

    `caller` and `called` are phone numbers as the carrier gives them; `parameters` what the carrier was
    told to pass on. `state` is a dict for your own use. `history` is what was said so far.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        id: str = "call",
        caller: str = "",
        called: str = "",
        parameters: Mapping[str, str] | None = None,
        services: Services | None = None,
        limit: float = 3600.0,
        seed: int | None = None,
    ) -> None:
        self.id = id
        self.caller = caller
        self.called = called
        self.carrier_call = ""
        """The carrier's own name for it (Twilio's CallSid), once it is announced."""
        self.carrier: object = None
        """What the carrier's side of the server knows of this call, for that carrier's own tools."""
        self.parameters: Mapping[str, str] = dict(parameters or {})
        self.state: dict[str, Any] = {}
        self.history = History()
        self.line = Line(codec)
        self.services = services or Services()
        self.limit = limit
        """Seconds after which the call is ended whatever happens."""
        self.deadline: float | None = None
        """When that is, on `loop.time()`; None before the line is open."""
        self.random = random.Random(seed)
        """Where all randomness of the call comes from; seeded, a call can be replayed."""
        self.phase = Phase.NEW
        self.fault: str | None = None
        self.trace: Recorder
        """What happened, and where the time went; from `prepare` on."""
        self._tasks = Tasks()
        self._links: list[Link] = []
        self._start_hooks: list[Hook] = []
        self._end_hooks: list[Hook] = []
        self._pipeline: Pipeline | None = None
        self._pump: Pump | None = None
        self._keeper: TurnKeeper | None = None
        self._crew: Crew | None = None
        self._speaker: Speaker | None = None
        self._watch: TurnWatch | None = None
        self._over: asyncio.Future[str] | None = None
        self._normal = True
        self._starting: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._log: Logger | None = None

    # -- for the pipeline file

    def source(self) -> LineSource:
        """The first processor: what the caller says and presses."""
        return LineSource(self.line)

    def sink(self, *, lead: float = 0.2, chunk: float = 0.1) -> LineSink:
        """The last processor: what the caller hears. `lead` and `chunk` in seconds, see LineSink."""
        return LineSink(self.line, lead=lead, chunk=chunk)

    def on_start(self, hook: Hook) -> Hook:
        """Runs `hook(call)`, sync or async, when the line is open. Usable as a decorator."""
        self._start_hooks.append(hook)
        return hook

    def on_end(self, hook: Hook) -> Hook:
        """Runs `hook(call)`, sync or async, when the call is over, however it ended; 5 seconds at most."""
        self._end_hooks.append(hook)
        return hook

    # -- for processors and hooks

    async def say(self, text: str, *, interruptible: bool = True) -> str:
        """Says `text` as soon as nobody speaks; returns what the caller heard of it, once it is over.

        It goes down the whole chain as a Sentence. What is not `interruptible` (a legal notice) is said
        to its end whatever the caller says meanwhile, which is answered after it. DeclarationError when no
        processor speaks Sentences, CallEnded when the call ends first.
        """
        return (await self._speaking().say(text, interruptible=interruptible)).text

    async def prompt(self, cue: str, *, wanted: Callable[[], bool] = lambda: True) -> HeardText:
        """Has the model say something that the caller did not ask for, as soon as nobody speaks: `cue` tells
        it what ("the caller has been silent for a while: ask whether they are still there").

        Returns what was heard of it, once it is over; at once and empty if it is not `wanted` any more when
        there is room for it. Raises as `say`; DeclarationError when nothing in the chain answers a Prompt.
        """
        return await self._speaking().prompt(cue, wanted)

    def silence(self) -> float:
        """Seconds for which nobody has been heard: since the agent's audio has played to its end and the
        caller has finished, whichever was later. 0 while somebody speaks."""
        return self._speaking().silence()

    async def hangup(self, reason: str = "the agent hung up", *, wait: float = 10.0) -> None:
        """Ends the call once what is being said was heard, but after `wait` seconds at the latest."""
        live = self.turns.live
        if live is not None:
            try:
                async with asyncio.timeout(wait):
                    await asyncio.shield(self.turns.outcome(live))
            except TimeoutError:
                self.log.warning(
                    f"hung up before the caller had heard everything: {wait:g} s were not enough"
                )
        self.end(reason)

    def now(self) -> float:
        """Seconds on the trace's clock: monotonic with nanoseconds when live, virtual in tests."""
        return trace_clock(self.loop)()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it runs on. Scheduling uses `call.loop.time()` and nothing else."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    @property
    def turns(self) -> TurnKeeper:
        """Who has the floor. CallError before the call has started."""
        if self._keeper is None:
            raise CallEnded("the call has not started yet: use call.turns from start() on")
        return self._keeper

    @property
    def log(self) -> Logger:
        """A logger whose every line carries the call's id."""
        if self._log is None:
            from loguru import logger

            self._log = logger.bind(call=self.id)
        return self._log

    async def compute(self, work: Callable[P, T], cost: float, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs model work off the event loop, in the process's bounded pool. In virtual time it runs in
        line and takes `cost` seconds."""
        return await self.services.compute(work, cost, *args, **kwargs)

    async def link(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout: float = 10.0
    ) -> Link:
        """Opens a connection to a vendor; the call closes it at its end. LinkError when it cannot."""
        link = await self.services.dial(url, headers=headers or {}, timeout=timeout)
        self._links.append(link)
        return link

    def new_id(self, prefix: str = "") -> str:
        """A random id from the call's own source of randomness: 16 hexadecimal digits."""
        return f"{prefix}{self.random.getrandbits(64):016x}"

    def spawn(
        self, work: Coroutine[Any, Any, None], *, name: str, owner: Processor | None = None
    ) -> asyncio.Task[None]:
        """Runs `work` until it ends or the call does. If it raises, the call ends naming the owner."""
        who = owner.name if owner is not None else "call"

        def failed(task: str, error: Exception) -> None:
            self._fail(owner, f"its task {name}", error)

        return self._tasks.spawn(work, f"{who} {name}", failed)

    def end(self, reason: str, *, normal: bool = True) -> None:
        """Ends the call. The first reason counts. Never waits. Not `normal`: the caller, if he is still
        there, gets the carrier's fallback instead of silence."""
        if self._over is not None and not self._over.done():
            self._over.set_result(reason)
            self._normal = normal

    def depths(self) -> list[Depth]:
        """Every buffer of the call, read now."""
        _, pump = self._running()
        sink = self._pipeline.sink if self._pipeline is not None else None
        return [*pump.depths(), self.line.depth(), *([sink.depth()] if sink is not None else [])]

    # -- for whoever runs calls (the server, a test)

    def prepare(self, pipeline: Pipeline) -> None:
        """Binds a pipeline and begins to start its processors. Returns at once; `run` waits for them."""
        if self._pipeline is not None:
            raise DeclarationError("this call has a pipeline already")
        self._loop = asyncio.get_running_loop()
        self._pipeline = pipeline
        self._over = self._loop.create_future()
        self.trace = Recorder(trace_clock(self._loop), self._owner)
        check_keys(pipeline.chain)
        authority = self._owner(pipeline.authority)
        self._watch = TurnWatch(self.trace, self.line, self._loop, authority)
        self._crew = Crew(pipeline.chain, self._tasks, self._fail, self.log)
        self._pump = Pump(pipeline.chain, self._fail, dict.fromkeys(FIRSTS, self.trace.made))
        self._keeper = TurnKeeper(
            self._pump,
            self.history,
            authority=pipeline.authority,
            mouth=pipeline.sink,
            reap=self._crew.reap,
            watch=self._watch,
        )
        self._speaker = Speaker(pipeline, self._pump, self._keeper)
        for index, processor in enumerate(pipeline.chain):
            processor._bind(self, self._pump, index)
        self.phase = Phase.STARTING
        self._starting = self._tasks.spawn(self._crew.start(), "call start", self._start_failed)

    async def run(
        self, link: Link, started: LineStarted, *, decided: Callable[[str, bool], None] | None = None
    ) -> CallResult:
        """Serves the open line until the call is over, then closes everything. Needs `prepare` first.

        `decided(reason, normal)` is called when it is known how the call ends, just before the line is
        closed: the carrier may ask what comes next while the processors are still being stopped.
        """
        pipeline, pump = self._running()
        assert self._starting is not None
        assert self._over is not None
        loop = self.loop
        self.line.open(link, started)
        self.carrier_call = started.call
        self.parameters = {**self.parameters, **started.parameters}
        began = loop.time()
        self.deadline = began + self.limit
        deadline = loop.call_at(self.deadline, self.end, f"the call reached its limit of {self.limit:g} s")
        try:
            started_or_over: list[asyncio.Future[Any]] = [self._starting, self._over]
            await asyncio.wait(started_or_over, return_when=asyncio.FIRST_COMPLETED)
            if not self._over.done():
                self.phase = Phase.LIVE
                self.trace.tell("line open")
                self.spawn(self.line.write(self._line_failed), name="line writer")
                for hook in self._start_hooks:  # first: what they say comes before a model's greeting
                    self.spawn(self._run_hook(hook), name="start hook")
                pump.inject(CallStart(self.caller, self.called, self.parameters), -1)
                if pipeline.source is not None:
                    self.spawn(self._read(pipeline.source), name="line reader")
            reason = await asyncio.shield(self._over)  # who cancels us does not cancel what it says
        except asyncio.CancelledError:
            reason = "the server stopped"
            self.end(reason, normal=False)
            raise
        finally:
            deadline.cancel()
            if decided is not None:
                decided(reason, self._normal)
            await self._close(reason)
        return CallResult(self.id, reason, self.fault, loop.time() - began, self._normal, self.figures())

    async def follow(self, codec: Codec, link: Link, started: LineStarted) -> None:
        """Goes on over another stream of the same call, which `line.expect` was told of. Returns when that
        one is over too. LineError when the call expects none (any more)."""
        over = self.line.replace(codec, link, started)
        if (before := self.line.link) is not None:  # it came before the first had stopped
            self.spawn(before.close(), name="close the stream before")
        await asyncio.shield(over)

    async def abandon(self, reason: str) -> None:
        """Closes a call whose stream never came."""
        if self.phase in (Phase.STARTING, Phase.LIVE):
            self.end(reason)
            await self._close(reason)

    @property
    def interrupts(self) -> int:
        """How many replies were cut off so far."""
        return self._watch.interrupts if self._watch is not None else 0

    @property
    def chain(self) -> tuple[str, ...]:
        """The names of its processors, in order; empty before `prepare`."""
        return tuple(p.name for p in self._pipeline.chain) if self._pipeline is not None else ()

    def figures(self) -> dict[str, float]:
        """What is worth counting, at this moment."""
        turn = self._keeper.state.turn if self._keeper is not None else 0
        drafts = self._watch.figures() if self._watch is not None else {}
        return {
            "turns": turn,
            "interrupts": self.interrupts,
            **drafts,
            **figures_of(self._pump, self._pipeline),
        }

    # -- inside

    def _running(self) -> tuple[Pipeline, Pump]:
        if self._pipeline is None or self._pump is None:
            raise CallEnded("the call has no pipeline yet")
        return self._pipeline, self._pump

    def _speaking(self) -> Speaker:
        if self._speaker is None:
            raise CallEnded("the call has no pipeline yet")
        return self._speaker

    def _start_failed(self, name: str, error: Exception) -> None:
        self._fail(None, "start", error)

    async def _read(self, source: LineSource) -> None:
        """Reads the line, and ends the call with it."""
        sink = self._pipeline.sink if self._pipeline is not None else None
        try:
            reason, normal = await read_streams(source, sink, self.trace.note)
        except LineError as error:
            self.log.warning(f"line: {error}")
            self.end(f"the line broke its protocol: {error}", normal=False)
            return
        if normal:
            self.end(reason)
        else:
            self._line_lost(reason)

    async def _run_hook(self, hook: Hook) -> None:
        result = hook(self)
        if inspect.isawaitable(result):
            await result

    def _line_failed(self, error: Exception) -> None:
        self._line_lost(f"the line was lost: {error}")

    def _line_lost(self, reason: str) -> None:
        if self._over is not None and not self._over.done():  # reader and writer both notice: told once
            self.log.warning(reason)
        self.end(reason, normal=False)

    def _owner(self, index: int) -> str:
        """Who stands at this position of the chain; -1 is the program (`call.say`)."""
        return self._pipeline.chain[index].name if self._pipeline is not None and index >= 0 else "program"

    def _fail(self, processor: Processor | None, stage: str, error: Exception) -> None:
        """Something of this call failed: it ends, and its message names what did. The first one counts."""
        if self.phase in (Phase.CLOSING, Phase.OVER):
            if isinstance(error, CallEnded):  # what a reader's put() raises then: nothing went wrong
                return
            self.log.warning(f"while closing, {processor.name if processor else 'the call'}: {error}")
            return
        if self.fault is not None:
            return
        name = processor.name if processor is not None else "the call"
        reason = str(error) if isinstance(error, VoiceflowError) else f"{type(error).__name__}: {error}"
        self.fault = str(ProcessorError(name, stage, reason))
        expected = isinstance(error, VoiceflowError | TimeoutError)
        self.log.opt(exception=None if expected else error).error(f"call ended: {self.fault}")
        if self._pump is not None and not self._pump.closed:
            self._pump.inject(Fault(name, reason), processor._index if processor is not None else -1)
        self.end(self.fault, normal=False)

    async def _close(self, reason: str) -> None:
        _, pump = self._running()
        assert self._crew is not None
        crew = self._crew
        self.phase = Phase.CLOSING
        self.trace.ending(Outcome(reason, self.fault, self._normal))
        if self._keeper is not None:
            self._keeper.close()
        if self._starting is not None and not self._starting.done():  # nobody is stopped while it starts
            self._starting.cancel()
            await asyncio.wait([self._starting], timeout=CLOSING_LIMIT)
        # The line first: a caller whose call broke is owed the fallback now, not after every stop().
        closing = crew.bounded(self.line.close(), "closing the line")
        closing_line = self.loop.create_task(closing, name="close line")
        pump.inject(CallEnd(reason), -1)
        await crew.bounded(pump.finish_control(), "the handlers of CallEnd")
        for processor, task in pump.close():
            self._tasks.adopt(task, f"{processor.name} handler")
        await crew.stop()
        await closing_line
        for name in await self._tasks.end(CLOSING_LIMIT):
            self.log.warning(f"{name} did not end within {CLOSING_LIMIT:g} s after it was cancelled")
        self.trace.close()
        for hook in self._end_hooks:
            await crew.bounded(self._run_hook(hook), "an end hook")
        for link in self._links:
            await crew.bounded(link.close(), "closing a connection")
        self.phase = Phase.OVER
        figures = " ".join(f"{name}={value:g}" for name, value in self.figures().items() if "." not in name)
        self.log.info(f"call over: {reason} ({figures})")
