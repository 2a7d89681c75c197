"""Results that nobody has told the caller: the agent speaks of them by itself, at the next silence.

A result is told when some answer that was given with it in view was heard, at least in part. Whether it was
is known only once that answer is over, so it is looked up when the floor is free and not before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from voiceflow.engine.mouth import HeardText
from voiceflow.engine.processor import Processor
from voiceflow.engine.reply import Reply
from voiceflow.errors import CallEnded
from voiceflow.record import Phase
from voiceflow.tools.job import Job
from voiceflow.tools.tool import Effect
from voiceflow.tools.use import ToolUse, UseState

if TYPE_CHECKING:
    from voiceflow.call import Call

TRIES = 3
"""How often a result is begun to be told. Interrupted so often, the caller does not want to hear it."""
QUOTED = 500
"""Characters of a result in the cue: the history has all of it."""
KEPT = 100
"""Results that wait to be told; the oldest are given up."""


class Announcer:
    """One per desk. It has a task only while there is something to tell."""

    def __init__(self, owner: Processor) -> None:
        self.announced = 0
        """Replies that were opened."""
        self._owner = owner
        self._open: dict[ToolUse, Job] = {}
        self._telling: asyncio.Task[None] | None = None

    def ended(self, job: Job) -> None:
        """The job is over. Its result has to be told, unless that is of no use."""
        if _worth_telling(job):
            self._open[job.use] = job
            while len(self._open) > KEPT:
                del self._open[next(iter(self._open))]
            self.look()

    def answering(self, reply: Reply, uses: Iterable[object]) -> None:
        """`reply` is being made by somebody who knows the results of `uses`."""
        jobs = [job for use in uses if isinstance(use, ToolUse) and (job := self._open.get(use)) is not None]
        if not jobs or reply.dead:
            return
        try:
            heard = self._call.turns.outcome(reply)
        except KeyError:  # not the TurnKeeper's: nobody will ever know, and twice is worse than never
            for job in jobs:
                del self._open[job.use]
            return
        for job in jobs:
            job.told.append(heard)
        heard.add_done_callback(lambda _: self.look())

    def look(self) -> None:
        """Is there something to tell, and nobody who does?"""
        busy = self._telling is not None and not self._telling.done()
        if not busy and self._call.phase is Phase.LIVE and self._untold():
            self._telling = self._call.spawn(self._tell(), name="announcing", owner=self._owner)

    def close(self) -> None:
        self._open.clear()
        if self._telling is not None:
            self._telling.cancel()

    # -- inside

    @property
    def _call(self) -> Call:
        return self._owner.call

    def _untold(self) -> list[Job]:
        """What nobody has told, nor is telling now, nor will."""
        for job in list(self._open.values()):
            if any(heard.done() and _counts(heard.result()) for heard in job.told):
                del self._open[job.use]
            elif job.announced == TRIES and job.told[-1].done():
                del self._open[job.use]
                self._call.log.warning(
                    f"{self._owner.name}: the caller has not heard what came of {job.tool.name}: "
                    f"interrupted {TRIES} times"
                )
        waiting = [job for job in self._open.values() if not job.attended]
        return [job for job in waiting if all(heard.done() for heard in job.told)]

    async def _tell(self) -> None:
        turns = self._call.turns
        while self._untold():
            try:
                granted = await turns.take_floor(lambda: bool(self._untold()))
            except CallEnded:
                return
            if granted is None:
                continue
            reply, heard = granted
            if not (jobs := self._untold()):  # told in the very tick in which the floor was given
                turns.stop("nothing is left to tell")
                continue
            for job in jobs:
                job.announced += 1
                job.told.append(heard)
            self.announced += 1
            turns.prompt(reply, cue(jobs))
            await asyncio.wait([heard])


def cue(jobs: Iterable[Job]) -> str:
    """What the model is asked to say."""
    results = "\n".join(f"{job.tool.name}: {job.use.result[:QUOTED]}" for job in jobs)
    return (
        "While the conversation went on, this came of what you had begun before, and the caller does not "
        f"know it yet:\n{results}\nTell the caller now, in one short sentence."
    )


def _counts(heard: HeardText) -> bool:
    return bool(heard.text) or heard.complete


def _worth_telling(job: Job) -> bool:
    failed = job.use.state in (UseState.FAILED, UseState.TIMED_OUT)
    ended = failed or (job.use.state is UseState.DONE and job.tool.effect is Effect.COMMIT)
    return ended and job.changes and job.tool.announce and not job.hopeless
