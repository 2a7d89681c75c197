"""ModelHost: the queue in front of the model process, and what happens when that goes wrong."""

from __future__ import annotations

import asyncio
import enum
import heapq
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from loguru import logger

from voiceflow.clock import is_virtual
from voiceflow.models.child import Child
from voiceflow.models.model import Model, ModelDied, ModelError
from voiceflow.models.wire import Answer, Cancel, Done, Load, Piece, Run
from voiceflow.models.worker import Models
from voiceflow.services import Services

WAITING_BOUND = 256
"""Jobs that may wait. At 100 ms each that is half a minute, so their deadlines pass long before."""
STUCK = 30.0
"""Seconds between two signs of life of a job that runs, or of a model that is loaded; then the process is
killed."""
DEADLINE = 5.0
"""Seconds that an answer, or its next piece, may take unless somebody says otherwise."""
LOADING = 60.0
"""Seconds that a model may take to be loaded: 0.3 to 1 is usual."""
CLOSED = "the models were closed: the process is ending"


class Urgency(enum.IntEnum):
    """Which job is done first. Among equals, the one that came first."""

    NOW = 0
    """Somebody waits in silence for it."""
    SOON = 1
    """It will be needed, but not in the next second."""


class _Again(Exception):
    """The process died before anything of an answer had come: it may be tried once more."""


class _Job:
    """Something to be done, and what has come of its answer."""

    def __init__(self, urgency: Urgency, message: Load | Run) -> None:
        self.order = (urgency, message.number)
        self.message = message
        self.answers: asyncio.Queue[Answer | ModelError] = asyncio.Queue()  # no more than one job gives

    def __lt__(self, other: _Job) -> bool:
        return self.order < other.order


class ModelHost:
    """Does model work for all calls, in one process of its own, one job at a time.

        host = ModelHost.of(call.services)
        text = await host.ask(model, "transcribe", pcm, cost=0.1)

    `cost` is what an answer (or each piece of it) takes in virtual time, where the model runs in line.

    A process that dies is started again. The job that it was at is tried once more, if nothing of its answer
    has come yet: then it gets ModelDied. What waits is not touched.
    """

    name = "models"

    def __init__(self) -> None:
        self._waiting: list[_Job] = []  # a heap, bounded in `_submit`
        self._running: _Job | None = None
        self._news = asyncio.Event()
        self._number = 0
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None
        self._known: dict[Model, None] = {}  # what pipelines name
        self._in_line = Models()
        self._closed = False
        self._counted = dict.fromkeys(("jobs", "cancelled", "late", "failed", "started"), 0.0)

    @classmethod
    def of(cls, services: Services) -> ModelHost:
        """The one of this process."""
        return services.shared("models", cls)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs: the moment for what is nice to have."""
        return self._running is None and not self._waiting

    @property
    def pid(self) -> int | None:
        """The model process, if there is one now."""
        return self._child.pid if self._child is not None else None

    def figures(self) -> dict[str, float]:
        return {**self._counted, "waiting": float(len(self._waiting))}

    async def load(self, model: Model) -> None:
        """Loads a model ahead of its first use, and again whenever the process is started anew. ModelError
        when it cannot be."""
        self._known[model] = None
        if is_virtual(asyncio.get_running_loop()):
            self._in_line.get(model)
            return
        async for _ in self._answers(Urgency.NOW, LOADING, lambda number: Load(number, model)):
            pass

    async def ask(
        self,
        model: Model,
        method: str,
        *arguments: Any,
        cost: float,
        urgency: Urgency = Urgency.NOW,
        deadline: float = DEADLINE,
    ) -> Any:
        """What the model's method returns. ModelError when it fails, or has not answered after `deadline`
        seconds. Who is cancelled while it waits takes the job out of the queue."""
        answers = self.stream(model, method, *arguments, cost=cost, urgency=urgency, deadline=deadline)
        async with aclosing(answers):
            values = [value async for value in answers]
        if len(values) != 1:
            raise ModelError(f"{model.path}.{method} gave {len(values)} answers: use `stream` for pieces")
        return values[0]

    async def stream(
        self,
        model: Model,
        method: str,
        *arguments: Any,
        cost: float,
        urgency: Urgency = Urgency.NOW,
        deadline: float = DEADLINE,
    ) -> AsyncGenerator[Any, None]:
        """The same for a method that yields: each piece as soon as it is made, `deadline` seconds for each.
        Close it (`contextlib.aclosing`) when no more are wanted: the model stops before the next piece."""
        self._known[model] = None
        if is_virtual(asyncio.get_running_loop()):
            for value in self._in_line.run(model, method, arguments):
                await asyncio.sleep(cost)
                yield value
            return
        answers = self._answers(urgency, deadline, lambda number: Run(number, model, method, arguments))
        async with aclosing(answers):
            async for value in answers:
                yield value

    async def close(self) -> None:
        """Ends the process, and everything that waits for it. Idempotent."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for job in (*self._waiting, *filter(None, [self._running])):
            job.answers.put_nowait(ModelError(CLOSED))
        self._waiting.clear()
        if self._child is not None:
            child, self._child = self._child, None
            await child.close()

    # -- whoever asks

    async def _answers(
        self, urgency: Urgency, deadline: float, message: Callable[[int], Load | Run]
    ) -> AsyncGenerator[Any, None]:
        """The pieces of a job's answer."""
        try:
            async with aclosing(self._attempt(urgency, deadline, message)) as pieces:
                async for value in pieces:
                    yield value
        except _Again:
            async with aclosing(self._attempt(urgency, deadline, message, again=False)) as pieces:
                async for value in pieces:
                    yield value

    async def _attempt(
        self,
        urgency: Urgency,
        deadline: float,
        message: Callable[[int], Load | Run],
        *,
        again: bool = True,
    ) -> AsyncGenerator[Any, None]:
        """The same, once. _Again when the process died before anything came."""
        job = self._submit(urgency, message)
        try:
            while True:
                match await self._next_of(job, deadline):
                    case Piece(value=value):
                        again = False
                        yield value
                    case Done(error=None):
                        return
                    case Done(error=str(error)):
                        self._counted["failed"] += 1
                        raise ModelError(error)
                    case ModelDied() as died if again:
                        raise _Again from died
                    case ModelError() as error:
                        raise error
        finally:
            self._drop(job)

    async def _next_of(self, job: _Job, deadline: float) -> Answer | ModelError:
        try:
            async with asyncio.timeout(deadline):
                return await job.answers.get()
        except TimeoutError:
            self._counted["late"] += 1
            raise ModelError(
                f"the models did not answer in {deadline:g} s, and {len(self._waiting)} jobs wait: "
                "there are too many calls for this machine"
            ) from None

    def _submit(self, urgency: Urgency, message: Callable[[int], Load | Run]) -> _Job:
        if self._closed:
            raise ModelError(CLOSED)
        if len(self._waiting) >= WAITING_BOUND:
            raise ModelError(f"{WAITING_BOUND} pieces of model work wait already: too many calls")
        self._number += 1
        self._counted["jobs"] += 1
        job = _Job(urgency, message(self._number))
        heapq.heappush(self._waiting, job)
        self._news.set()
        if self._task is None:
            self._task = asyncio.create_task(self._serve(), name="models")
        return job

    def _drop(self, job: _Job) -> None:
        """Nobody wants its answer any more, or it has come."""
        if job in self._waiting:
            self._waiting.remove(job)
            heapq.heapify(self._waiting)
        elif job is self._running and self._child is not None:
            self._child.send(Cancel(job.message.number))
        else:
            return
        self._counted["cancelled"] += 1

    # -- the process

    async def _serve(self) -> None:
        """Does one job after another, as long as the host is open."""
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            self._running = job = heapq.heappop(self._waiting)
            try:
                await self._do(job.message, job.answers.put_nowait)
            except ModelDied as error:
                logger.warning(f"{error}; it is started again")
                job.answers.put_nowait(error)
            self._running = None

    async def _do(self, message: Load | Run, take: Callable[[Answer], None]) -> None:
        """One job on the process, which is started if there is none. ModelDied when it does not survive."""
        if self._child is None:
            await self._start()
        assert self._child is not None
        child = self._child
        child.send(message)
        try:
            while True:
                async with asyncio.timeout(STUCK):
                    answer = await child.receive()
                take(answer)
                if isinstance(answer, Done):
                    return
        except TimeoutError:
            self._child = None
            child.kill()
            await child.close()
            raise ModelDied(f"the model process said nothing for {STUCK:g} s and was killed") from None
        except ModelDied:
            self._child = None
            raise

    async def _start(self) -> None:
        """Starts the process and loads what is known. What cannot be loaded is told who asks for it."""
        self._child = await Child.start()
        self._counted["started"] += 1
        for model in self._known:
            await self._do(Load(0, model), lambda answer: None)
