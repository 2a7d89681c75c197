"""Trials: one short call after another in virtual time, each with a fresh processor on a bench of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial

from voiceflow.declaration.check import BY_ENGINE
from voiceflow.declaration.places import BY_AUTHORITY
from voiceflow.engine.processor import Processor
from voiceflow.errors import CallEnded, DeclarationError, LinkError, VoiceflowError
from voiceflow.frames import Frame
from voiceflow.line.link import Link
from voiceflow.services import Dial, Services
from voiceflow.testing import rules
from voiceflow.testing.bench import Bench, StepLoop
from voiceflow.testing.clock import Deadlock, Leak, Livelock, run
from voiceflow.testing.rules import Judge, NotConforming
from voiceflow.testing.samples import Sample

SERVICES_END = 0.05
"""Virtual seconds in which work that the process shares, such as a batch of a model, may end after a call."""

Script = Callable[..., Awaitable[None]]
"""What is done with the benches of a trial."""


class Trials:
    """Runs calls and counts what came of them. `patience` is how long it waits after a call for what may
    still come. `sample` is set once the processor's class is known."""

    def __init__(self, make: Callable[[], Processor], services: Services | None, patience: float) -> None:
        self.dial = services.dial if services is not None else None
        self._transport = services.transport if services is not None else None
        self.sample: Sample | None = None
        self.calls = 0
        self.frames = 0
        self.emitted: Counter[type[Frame]] = Counter()
        """The frames that the processors made, by type."""
        self._make = make
        self._patience = patience

    def run(
        self,
        script: Script,
        *,
        benches: int = 1,
        dial: Dial | None = None,
        loop: StepLoop | None = None,
        enter: bool = True,
    ) -> list[Bench]:
        """`script(*benches)` in a call each; without `enter` it has to start them itself. `dial` replaces
        that of the services.

        Raises NotConforming for what no bench can tell: a processor that cannot be made or declared, tasks
        left behind, a loop that gets nowhere. VoiceflowError for a link nobody has scripted.
        """
        dialled: list[str] = []
        if dial is None:
            dial = self.dial or partial(_refuse, dialled)
        services = Services(dial=dial, transport=self._transport)  # a loop's own
        made: list[Bench] = []

        async def main() -> None:
            async with AsyncExitStack() as calls:
                made.extend(Bench(self._new(), self.sample, services) for _ in range(benches))
                for bench in made if enter else ():
                    await calls.enter_async_context(bench)
                with suppress(CallEnded):  # `failures` says why
                    await script(*made)
            for bench in made:
                bench.over = True
            await asyncio.sleep(SERVICES_END)
            if asyncio.all_tasks() == {asyncio.current_task()}:  # whatever else is left is a Leak
                await asyncio.sleep(self._patience)

        try:
            run(main(), loop=loop or StepLoop())
        except (Leak, Deadlock, Livelock, DeclarationError) as error:
            if not made:
                raise
            self._explain(made[0], error)
        if dialled:
            raise VoiceflowError(
                f"{type(made[0].processor).__name__} opens a link to {dialled[0]}: give its other side with "
                "check_processor(..., services=Services(dial=...)), where dial makes a ScriptedLink"
            )
        for bench in made:
            self._count(bench)
            if bench.ended_by_itself:
                raise VoiceflowError(
                    f"{type(bench.processor).__name__} ended its call ({bench.ended_by_itself}) before the "
                    "rules were tried: give frames that do not make it, check_processor(..., frames=[...])"
                )
        return made

    def _new(self) -> Processor:
        try:
            processor = self._make()
        except Exception as error:
            name = getattr(self._make, "__name__", "make")
            advice = "make it as a pipeline would: check_processor(lambda: Mine(...))"
            seen = f"making it raised {type(error).__name__}: {error}"
            raise NotConforming(name, rules.NO_FAILURE, seen, advice) from error
        if not isinstance(processor, Processor) or processor._call is not None:
            raise VoiceflowError(
                f"check_processor(make) needs a new processor each time, and make gave {processor!r}: pass "
                "the class, or a lambda that makes one"
            )
        return processor

    def _explain(self, bench: Bench, error: Exception) -> None:
        judge = Judge(bench, self._patience)
        if isinstance(error, Leak):
            judge.failures()
            advice = "use self.spawn, whose tasks the call ends, and let CancelledError through"
            judge.broken(rules.NOTHING_LEFT, str(error), advice, error)
        if isinstance(error, DeclarationError):
            judge.broken(rules.DECLARES, str(error), "change the class as this says", error)
        judge.broken(rules.NO_FAILURE, str(error), "wait with an await that takes time, or that ends", error)

    def _count(self, bench: Bench) -> None:
        self.calls += 1
        self.frames += len(bench.out)
        given = {id(frame) for frame, _ in bench.given}
        theirs = (*BY_ENGINE, *BY_AUTHORITY) if bench.processor.takes_turns else BY_ENGINE
        for frame in bench.out:
            if id(frame) not in given and not isinstance(frame, theirs):
                self.emitted[type(frame)] += 1


async def _refuse(dialled: list[str], url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
    dialled.append(url)
    raise LinkError(f"check_processor has no link to {url}")


async def silent(url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
    """A `dial` that gets no answer."""
    await asyncio.sleep(timeout)
    raise LinkError(f"{url} did not answer in {timeout:g} s")


async def unreachable(url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
    """A `dial` that reaches nobody."""
    raise LinkError(f"{url} cannot be reached")
