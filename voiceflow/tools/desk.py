"""The tool desk of an answering processor: runs the calls that a reply asks for, by the rules of effects.

1. A call of a tool that there is not, or with arguments that are wrong, is REFUSED, in words for the model.
2. READ runs at once, for a draft too. It is cancelled with its reply.
3. COMMIT begins in an instant in which its reply is live. From then on it belongs to the call: it is finished
   within its limit whatever becomes of the reply. One whose reply dies before that is never begun. While one
   runs that no reply waits for, the very same call again is REFUSED.
4. TERMINAL is accepted alone, one at a time. It begins when all of its reply, and all that the program said
   right after it, was heard, and the caller has said nothing since. Otherwise it is CANCELLED.
5. A use is in the history from the instant in which its reply is no draft: after the caller's words, before
   what the agent was heard to say. A draft that was dropped leaves nothing.
6. Every tool has its limit. What it raises goes back to the model and never ends the call.
7. A result of COMMIT, or a failure of TERMINAL, that no answer has told, opens a reply at the next silence.
8. Plain functions run in threads.
9. When the call ends, READ and what has not begun are cancelled; what has begun is waited for.

    run ─┬─ READ      start ────────────────────────────▶ result ─┐
         ├─ COMMIT    until live ─▶ start ─ (the call's) ▶ result ┴▶ all over: the next answer
         └─ TERMINAL  accepted: no next answer ... reply heard ─▶ start
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from voiceflow.engine.history import Entry
from voiceflow.engine.mouth import HeardText
from voiceflow.engine.processor import Processor
from voiceflow.engine.reply import Reply, ReplyState
from voiceflow.engine.turns import Floor
from voiceflow.errors import DeclarationError
from voiceflow.frames import Prompt, ToolEnd, ToolStart
from voiceflow.record import Phase
from voiceflow.tools import result
from voiceflow.tools.announcing import Announcer
from voiceflow.tools.job import Job
from voiceflow.tools.tool import Effect, Tool
from voiceflow.tools.use import Requested, ToolUse, UseState

if TYPE_CHECKING:
    from voiceflow.call import Call
    from voiceflow.tools.arguments import Refusal
    from voiceflow.vendor import Key

BATCH_BOUND = 32
"""Calls that a model may ask for at once."""
PENDING_BOUND = 100
"""Uses of one desk that are not over."""
HEARING_LIMIT = 60.0
"""Seconds that TERMINAL waits until its reply was heard. A goodbye takes five."""
FIGURES = ("tools", "tools_failed", "tools_refused", "tools_cancelled")
NOT_ALONE = "Not done yet: tell the caller the outcome of the other calls first, then ask for it again."
RUNNING = "Not done again: the same call is still running, and you will be told what comes of it."
PENDING = "Not done: this, or something else that ends the conversation, is about to happen already."

_batches = itertools.count(1)


class Ran(NamedTuple):
    """What came of the calls of one answer, in the order asked. `ends`: the conversation is about to end, so
    the answerer gives ReplyEnd and asks the model no more."""

    uses: tuple[ToolUse, ...]
    ends: bool


class ToolDesk:
    """Belongs to `owner`, a processor that answers Prompts and has ToolStart and ToolEnd in its `emits`.

    Raises DeclarationError for something that is no Tool, and for two of one name.
    """

    def __init__(self, owner: Processor, tools: Sequence[Tool]) -> None:
        _check(tools)
        emits = type(owner).emits
        if not all(any(issubclass(frame, given) for given in emits) for frame in (ToolStart, ToolEnd)):
            raise DeclarationError(
                f"{type(owner).__name__} runs tools: add ToolStart and ToolEnd to its `emits`"
            )
        self.tools = tuple(tools)
        self.keys: tuple[Key, ...] = tuple(dict.fromkeys(key for tool in tools for key in tool.keys))
        """What the tools cannot work without."""
        self._owner = owner
        self._jobs: dict[ToolUse, Job] = {}
        """Those that are not over."""
        self._announcer = Announcer(owner)
        self._counted = dict.fromkeys(FIGURES, 0.0)
        self._closed = False

    def offered(self, prompt: Prompt) -> tuple[Tool, ...]:
        """The tools for the answer to `prompt`: those of the desk and its own, which win.

        Raises DeclarationError as the desk itself does.
        """
        if not prompt.tools:
            return self.tools
        _check(prompt.tools)
        return tuple({tool.name: tool for tool in (*self.tools, *prompt.tools)}.values())

    async def run(self, reply: Reply, requested: Sequence[Requested], tools: Sequence[Tool]) -> Ran:
        """Runs what the model asked for while answering with `reply`; `tools` were offered to it. Returns
        when all is over that the next answer needs. For handlers of `reply`: cancelled when it dies."""
        batch = next(_batches)
        known = {tool.name: tool for tool in tools}
        uses = [ToolUse(each, _effect(known, each), batch) for each in requested]
        self._counted["tools"] += len(uses)
        jobs = [
            job
            for place, use in enumerate(uses)
            if (job := self._accepted(reply, use, known, place, len(uses))) is not None
        ]
        self._write(reply, uses)
        ends = self._start(jobs)
        awaited = [job for job in jobs if job.tool.effect is not Effect.TERMINAL]
        try:
            if awaited:
                await asyncio.wait([job.ended for job in awaited])
            self._announcer.answering(reply, uses)
        finally:
            for job in awaited:
                self._leave(job)
        return Ran(tuple(uses), ends)

    def answering(self, reply: Reply, entries: Iterable[Entry]) -> None:
        """A model is asked for (a part of) `reply` and reads `entries`: what tools they hold the results of
        has been told as soon as something of the reply was heard."""
        self._announcer.answering(reply, entries)

    async def close(self) -> None:
        """The call is over: for the owner's `stop`, which needs `closing_limit` seconds for it."""
        self._closed = True
        self._announcer.close()
        begun = []
        for job in list(self._jobs.values()):
            if job.changes and job.use.state is UseState.RUNNING:
                begun.append(job.ended)
            else:
                job.finish(UseState.CANCELLED, result.CALL_OVER)
        if begun:
            await asyncio.wait(begun)  # each within its limit

    @property
    def closing_limit(self) -> float:
        """Seconds that `close` may take."""
        pending = [job.tool for job in self._jobs.values()]
        limits = [tool.limit for tool in (*self.tools, *pending) if tool.effect is not Effect.READ]
        return max(limits, default=0.0) + 1.0

    def figures(self) -> dict[str, float]:
        """What was asked for, and what came of it."""
        return {**self._counted, "tools_announced": float(self._announcer.announced)}

    # -- taking a call in

    @property
    def _call(self) -> Call:
        return self._owner.call

    def _accepted(
        self, reply: Reply, use: ToolUse, known: dict[str, Tool], place: int, asked: int
    ) -> Job | None:
        """The job, or None when the use is over already: refused, or too late."""
        from voiceflow.tools.arguments import Refusal, validated

        name = use.requested.name
        tool = known.get(name)
        if self._closed or reply.dead:
            words = result.CALL_OVER if self._closed else result.NOT_BEGUN
            self._settle(reply, use, tool, UseState.CANCELLED, words)
            return None
        given: dict[str, Any] | Refusal
        if place >= BATCH_BOUND or len(self._jobs) >= PENDING_BOUND:
            given = Refusal("Not done: too many calls at once.")
        elif tool is None:
            given = Refusal(f"There is no tool {name[:64]}. There are: {', '.join(known) or 'none'}.")
        else:
            given = validated(tool, use.requested.arguments)
            if not isinstance(given, Refusal):
                given = self._objection(tool, given, asked) or given
        if tool is None or isinstance(given, Refusal):
            words = given.words if isinstance(given, Refusal) else ""
            self._settle(reply, use, tool, UseState.REFUSED, words)
            return None
        job = self._jobs[use] = Job(self._owner, reply, use, tool, given, self._over)
        return job

    def _objection(self, tool: Tool, given: dict[str, Any], asked: int) -> Refusal | None:
        """What its effect has against this call now."""
        from voiceflow.tools.arguments import Refusal

        others = list(self._jobs.values())
        match tool.effect:
            case Effect.TERMINAL if asked > 1:
                return Refusal(NOT_ALONE)
            case Effect.TERMINAL if any(_will_end(job) for job in others):
                return Refusal(PENDING)
            case Effect.COMMIT if any(
                job.tool.name == tool.name and not job.attended and job.given == given for job in others
            ):
                return Refusal(RUNNING)
        return None

    def _settle(self, reply: Reply, use: ToolUse, tool: Tool | None, state: UseState, words: str) -> None:
        """Over before it was a job."""
        use.state, use.result, use.ended = state, words, self._call.loop.time()
        self._count(state)
        # A name that the model has made up is nobody's, and may quote somebody.
        self._call.trace.tool(tool.name if tool is not None else self._owner.name, reply, use)

    def _write(self, reply: Reply, uses: Sequence[ToolUse]) -> None:
        """Into the history: now, or in the instant in which the draft is confirmed."""

        def write() -> None:
            for use in uses:
                self._call.history.tool_was_used(use)

        if reply.confirmed and not reply.dead:  # also when it is held: what it did was done
            write()
        else:
            reply.when_live(write)

    # -- running

    def _start(self, jobs: Sequence[Job]) -> bool:
        """Starts each by its effect; True when one will end the conversation."""
        for job in jobs:
            match job.tool.effect:
                case Effect.READ:
                    job.start()
                case Effect.COMMIT:
                    job.start_when_live()
                case Effect.TERMINAL:
                    self._start_when_heard(job)
        return any(job.tool.effect is Effect.TERMINAL and not job.use.state.over for job in jobs)

    def _leave(self, job: Job) -> None:
        """Its reply waits for it no more."""
        job.attended = False
        if job.use.state is UseState.WAITING:
            job.finish(UseState.CANCELLED, result.NOT_BEGUN)
        elif job.tool.effect is Effect.READ:
            job.finish(UseState.CANCELLED, result.INTERRUPTED)
        self._announcer.look()

    def _over(self, job: Job) -> None:
        self._jobs.pop(job.use, None)
        self._count(job.use.state)
        self._announcer.ended(job)

    def _count(self, state: UseState) -> None:
        match state:
            case UseState.FAILED | UseState.TIMED_OUT:
                self._counted["tools_failed"] += 1
            case UseState.REFUSED:
                self._counted["tools_refused"] += 1
            case UseState.CANCELLED:
                self._counted["tools_cancelled"] += 1

    # -- what ends the conversation

    def _start_when_heard(self, job: Job) -> None:
        turns = self._call.turns
        job.attended = False
        try:
            heard = turns.outcome(job.reply)
        except KeyError:
            job.finish(UseState.CANCELLED, result.SPOKEN)
            return
        # While its reply lives the caller does not begin another turn: that would kill it.
        turn = turns.state.turn
        self._follow(job, turn, heard)
        late = self._call.loop.call_later(HEARING_LIMIT, self._unheard, job, turn)
        job.ended.add_done_callback(lambda _: late.cancel())

    def _follow(self, job: Job, turn: int, heard: asyncio.Future[HeardText]) -> None:
        job.hearing = heard
        heard.add_done_callback(partial(self._was_heard, job, turn))

    def _was_heard(self, job: Job, turn: int, heard: asyncio.Future[HeardText]) -> None:
        """A reply is over: the job's own, or what the program said after it."""
        if job.use.state is not UseState.WAITING:
            return
        if not heard.result().complete or not self._still_fits(job, turn):
            job.finish(UseState.CANCELLED, self._why())
        elif (live := self._call.turns.live) is not None:
            self._follow(job, turn, self._call.turns.outcome(live))
        else:
            job.start_if(partial(self._may_begin, job, turn, heard))

    def _may_begin(self, job: Job, turn: int, heard: asyncio.Future[HeardText]) -> bool:
        """Asked in the step that begins: it is one tick later, and the caller may have begun to speak."""
        if self._still_fits(job, turn) and self._call.turns.live is None:
            return True
        self._was_heard(job, turn, heard)
        return False

    def _still_fits(self, job: Job, turn: int) -> bool:
        state = self._call.turns.state
        live = self._call.phase is Phase.LIVE and not self._closed
        return live and job.reply.confirmed and state.floor is Floor.FREE and state.turn == turn

    def _unheard(self, job: Job, turn: int) -> None:
        """It has waited as long as it may."""
        if job.use.state is not UseState.WAITING:
            return
        live = self._call.turns.live
        if live is None or live.state is not ReplyState.LIVE or not self._still_fits(job, turn):
            job.finish(UseState.CANCELLED, self._why())
            return
        self._call.log.warning(
            f"{self._owner.name}: {job.tool.name} begins before the caller has heard everything: "
            f"{HEARING_LIMIT:g} s were not enough"
        )
        job.start_if(partial(self._still_fits, job, turn))

    def _why(self) -> str:
        return result.SPOKEN if self._call.phase is Phase.LIVE else result.CALL_OVER


def _will_end(job: Job) -> bool:
    """It is about to end the conversation, unless the caller speaks. One whose reply was cut off in this very
    tick does not know yet that it is cancelled."""
    if job.tool.effect is not Effect.TERMINAL:
        return False
    return job.hearing is None or not job.hearing.done() or job.hearing.result().complete


def _effect(known: dict[str, Tool], requested: Requested) -> Effect:
    tool = known.get(requested.name)
    return tool.effect if tool is not None else Effect.READ


def _check(tools: Sequence[Tool]) -> None:
    if isinstance(tools, Tool) or not isinstance(tools, Sequence):
        raise DeclarationError("tools=... takes several tools, as in tools=[look_up, end_call()]")
    seen: set[str] = set()
    for each in tools:
        if not isinstance(each, Tool):
            raise DeclarationError(_no_tool(each))
        if each.details.receiver:
            raise DeclarationError(
                f"{each.name} is a method: give the tool of an object, as in tools=[desk.{each.name}]"
            )
        if each.name in seen:
            raise DeclarationError(f"there are two tools {each.name}: give one another name, @tool(name=...)")
        seen.add(each.name)


def _no_tool(given: object) -> str:
    name = getattr(given, "__name__", repr(given))
    if getattr(given, "__annotations__", {}).get("return") in (Tool, "Tool"):
        return f"{name} makes a tool: call it, as in tools=[{name}()]"
    return f"{name} is no tool: write @tool(effect=...) above the function, or tool(effect=...)({name})"
