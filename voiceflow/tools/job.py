"""A job: a use of a tool while somebody has to do something about it.

    WAITING ──begin──▶ RUNNING ──finish──▶ DONE, FAILED, TIMED_OUT
       └────────────────finish───────────▶ REFUSED, CANCELLED

`finish` takes effect at once, whatever the function does then: one that ignores its cancellation, or sits in
a thread, is nobody's concern any more.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from voiceflow.clock import is_virtual
from voiceflow.engine.mouth import HeardText
from voiceflow.engine.processor import Processor
from voiceflow.engine.reply import Reply, ReplyState
from voiceflow.errors import CallEnded
from voiceflow.frames import ToolEnd, ToolStart
from voiceflow.tools import result
from voiceflow.tools.threads import ToolThreads
from voiceflow.tools.tool import Effect, Tool, ToolWithdrawn
from voiceflow.tools.use import ToolUse, UseState

if TYPE_CHECKING:
    from voiceflow.call import Call


class Job:
    """One accepted use. `given` are the arguments of the function; `over` is called when it has ended."""

    def __init__(
        self,
        owner: Processor,
        reply: Reply,
        use: ToolUse,
        tool: Tool,
        given: dict[str, Any],
        over: Callable[[Job], None],
    ) -> None:
        self.use, self.tool, self.reply, self.given = use, tool, reply, given
        self.call: Call = owner.call
        self.ended: asyncio.Future[None] = self.call.loop.create_future()
        self.attended = True
        """Its reply waits for the result."""
        self.announced = 0
        """How often the agent has begun to tell the result by itself."""
        self.told: list[asyncio.Future[HeardText]] = []
        """What is heard of each answer that was given with the result known. Bounded by `announced`, and by
        the answers until one of them is heard."""
        self.hearing: asyncio.Future[HeardText] | None = None
        """What TERMINAL waits for: what is heard of its reply."""
        self.hopeless = False
        """There is nobody left to tell it to."""
        self._owner = owner
        self._over = over
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def changes(self) -> bool:
        return self.tool.effect is not Effect.READ

    # -- its life

    def start(self) -> None:
        """Begins now."""
        self._begin()
        self._spawn(self._work())

    def start_when_live(self) -> None:
        """Begins in an instant in which the reply is live; never, if there is none."""
        self._spawn(self._work_when_live())

    def start_if(self, allowed: Callable[[], bool]) -> None:
        """Begins with the next step of the loop, if it is `allowed` then."""
        self._spawn(self._work_if(allowed))

    def finish(self, state: UseState, words: str) -> None:
        """It is over, for everybody. The first time counts."""
        use = self.use
        if use.state.over:
            return
        began = use.began
        use.state, use.result, use.ended = state, words, self.call.loop.time()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and self._task is not asyncio.current_task(self.call.loop):
            self._task.cancel()
        self.call.trace.tool(self.tool.name, self.reply, use)
        if began is not None:
            self._owner.push(ToolEnd(use, self.reply))
        self.ended.set_result(None)
        self._over(self)

    # -- inside

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self.call.spawn(work, name=f"tool {self.tool.name}", owner=self._owner)

    def _begin(self) -> None:
        self.use.state = UseState.RUNNING
        self.use.began = self.call.loop.time()
        self._timer = self.call.loop.call_later(self.tool.limit, self._overdue)
        self.call.trace.tool(self.tool.name, self.reply, self.use)
        self._owner.push(ToolStart(self.use, self.reply))

    async def _work_when_live(self) -> None:
        # Live when it was told so may be held or dead by now: asked again in the very step that begins.
        while self.reply.state is not ReplyState.LIVE:
            if self.reply.dead:
                self.finish(UseState.CANCELLED, result.NOT_BEGUN)
                return
            await self.reply.until_live()
        self._begin()
        await self._work()

    async def _work_if(self, allowed: Callable[[], bool]) -> None:
        if allowed() and not self.use.state.over:
            self._begin()
            await self._work()

    async def _work(self) -> None:
        """The function, from its first step to its end. Raises nothing but its own cancellation."""
        try:
            words = result.words_of(await self._called())
        except ToolWithdrawn as withdrawn:
            self.finish(UseState.CANCELLED, str(withdrawn) or result.INTERRUPTED)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self.finish(UseState.CANCELLED, result.CALL_OVER)
                raise
            self._failed(error)  # something that it awaited was cancelled
        except (Exception, SystemExit) as error:
            self._failed(error)
        else:
            self.finish(UseState.DONE, words)

    async def _called(self) -> Any:
        about = self.tool.details
        given = {**self.given, about.call: self.call} if about.call else self.given
        work = partial(self.tool.function, **given)
        if about.threaded and not is_virtual(self.call.loop):
            wanted: Callable[[], bool] = lambda: not (self.use.state.over or self._late())  # noqa: E731
            value = await ToolThreads.of(self.call.services).run(work, wanted)
        else:
            value = work()
        return await value if inspect.isawaitable(value) else value

    def _late(self) -> bool:
        """It should not begin any more, though it was said to: it has waited for a thread meanwhile."""
        return self.tool.effect is Effect.COMMIT and self.reply.dead

    def _failed(self, error: BaseException) -> None:
        if self.use.state.over:
            return
        self.hopeless = isinstance(error, CallEnded)
        known = result.expected(error)
        log = self.call.log.opt(exception=None if known else error)
        said = f"{self._owner.name}: the tool {self.tool.name} failed ({type(error).__name__})"
        log.log("WARNING" if known else "ERROR", said)
        self.finish(UseState.FAILED, result.failure(error))

    def _overdue(self) -> None:
        limit = self.tool.limit
        left = ": its thread is left to itself" if self.tool.details.threaded else ""
        self.call.log.warning(
            f"{self._owner.name}: the tool {self.tool.name} took more than {limit:g} s{left}"
        )
        self.finish(UseState.TIMED_OUT, result.overdue(limit, changes=self.changes))
