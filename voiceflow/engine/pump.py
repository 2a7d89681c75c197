"""The pump: one per call. It takes frames from a ready queue and sends each along its route.

    push ──▶ ready: control │ caller │ agent ──▶ travel: stop ─▶ stop ─▶ … ──▶ an inbox, or the end
                 ▲                                  │
                 └──────── what a handler made ─────┘

A frame travels to its end before the next one starts, so order is kept without locks or sequence numbers;
what a handler made goes to the front of its lane, so that it stays where the handled frame was. There
is no recursion and no re-entry, and a bounded number of frames is moved per tick of the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from voiceflow.engine.buffers import Depth, Policy, Pressure, Relief
from voiceflow.engine.inbox import Inbox
from voiceflow.engine.processor import Kind, Processor
from voiceflow.engine.reply import Reply
from voiceflow.engine.routes import AGENT, ASYNC, CALLER, CONTROL, Action, Route, Stop
from voiceflow.errors import BufferOverflowError, CallEnded, DeclarationError
from voiceflow.frames import AgentFrame, ControlFrame, Frame, Way

FRAMES_A_TICK = 256
"""Frames moved before other tasks get a turn: about 1 ms of work for a chain of ten in-line processors."""
READY_BOUND = 65_536
"""Frames in the ready queue. Only a handler that makes frames without end gets here."""

ENDLESS = "a handler makes frames without end"

Fault = Callable[[Processor | None, str, Exception], None]
Probe = Callable[[Any, int], None]
"""Looks at a frame of an agent's type when it is made, with the position of the processor that made it."""


class Pump:
    """Moves the frames of one call.

    `fault(processor, stage, error)` is called, once or more, when a handler fails; it must not raise.
    `probes` are told of each frame of their type where it is made from something else: a trace needs that.
    """

    def __init__(
        self,
        chain: tuple[Processor, ...],
        fault: Fault,
        probes: Mapping[type[Frame], Probe] | None = None,
    ) -> None:
        self.chain = chain
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.dropped = 0
        """Frames of dead replies that were thrown away."""
        self.pressed: dict[Pressure, None] = {}
        """Buffers that the latest push filled above their mark."""
        self._fault = fault
        self._probes = probes or {}
        self._routes: dict[type[Frame], Route] = {}
        self._inboxes: list[dict[Any, Inbox]] = [{} for _ in chain]
        self._declared = [_may_emit(p) for p in chain]
        # Bounded by READY_BOUND, checked where frames are added.
        self._ready: tuple[deque[tuple[Frame, Stop | None]], ...] = (deque(), deque(), deque())
        self._made: list[tuple[int, Frame, Stop | None]] = []
        self._ticked = Relief()
        self._leaving: dict[asyncio.Task[None], Processor] = {}
        self._running = False
        self._handling = CONTROL
        """The lane of the frame that is being handled."""
        self._scheduled = False

    # -- frames in

    def push(self, frame: Frame, index: int) -> None:
        """Sends a frame from the processor at `index`.

        Raises DeclarationError for an agent frame without a reply, or a type that is not declared.
        """
        route = self._routes.get(frame.__class__) or self._resolve(frame.__class__)
        if frame.__class__ not in self._declared[index]:
            self._admit(frame.__class__, index)
        if route.lane == AGENT and frame.reply is None:  # type: ignore[attr-defined]
            raise DeclarationError(
                f"{self.chain[index].name} pushed a {type(frame).__name__} without saying which reply it "
                f"belongs to: {type(frame).__name__}(..., reply=reply), of the frame it comes from"
            )
        self._send(frame, route, index)

    async def put(self, frame: Frame, index: int) -> None:
        """`push`, then waits until the frame has moved and the buffers it overfilled are below their mark.

        Raises CallEnded when the call is over.
        """
        if self.closed:
            raise CallEnded("the call is over")
        self.pressed.clear()
        self.push(frame, index)
        lane = self._routes[frame.__class__].lane
        if self._scheduled:
            await self.moved(lane)
        if self.pressed:
            await self.relief(index, lane)

    def inject(self, frame: Frame, index: int) -> None:
        """`push` for the engine's own frames, which no processor declares; -1 is above the first one.

        What goes both ways is seen by the processor at `index` too: it may be a model that speaks itself.
        """
        route = self._routes.get(frame.__class__) or self._resolve(frame.__class__)
        if route.way is Way.BOTH:
            here = max(index, 0)
            self._enter(route.lane, frame, route.down[here])
            self._enter(route.lane, frame, route.up[here])
        else:
            self._send(frame, route, index)

    @property
    def behind(self) -> bool:
        """Whether frames wait for the next tick: there were more than one tick moves."""
        return self._scheduled

    async def moved(self, lane: int) -> None:
        """Waits until no frame of this lane is in the ready queue."""
        while self._ready[lane]:
            await self._ticked.wait()

    def emit(self, out: Frame, source: Frame, stop: Stop) -> None:
        """Sends on what an async handler gave for `source`."""
        self._enter(*self._onward(out, source, stop))

    async def relief(self, index: int, lane: int) -> None:
        """Waits until every buffer in `pressed` that is downstream of `index` is below its mark.

        Only buffers of the same lane: what the caller does may make the agent speak, but the caller's
        next frame must not wait until the agent has spoken.
        """
        pressed, self.pressed = self.pressed, {}
        for buffer in pressed:
            if buffer.index > index and buffer.lane == lane:
                await buffer.relieved()

    # -- the life of a reply

    def detach(self, reply: Reply, *, cancel: bool) -> list[tuple[Processor, asyncio.Task[None]]]:
        """Takes the runners of a dead reply out of service; returns the tasks that have to be reaped."""
        reap = []
        for inboxes in self._inboxes:
            inbox = inboxes.pop(reply, None)
            if inbox is None:
                continue
            if (task := inbox.retire(cancel=cancel)) is not None:
                reap.append((inbox.processor, task))
            else:
                self._let_leave(inbox)
        return reap

    def _let_leave(self, inbox: Inbox) -> None:
        """Remembers a runner that ends by itself, so that `close` finds it if it does not."""
        if not inbox.task.done():
            self._leaving[inbox.task] = inbox.processor
            inbox.task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving.pop(task, None)

    async def finish_control(self) -> None:
        """Waits until every async handler of control frames has seen what was sent, and retires them."""
        inboxes = [found for by_key in self._inboxes if (found := by_key.pop(CONTROL, None)) is not None]
        for inbox in inboxes:
            inbox.retire(cancel=False)
            self._let_leave(inbox)
        if inboxes:
            await asyncio.wait([inbox.task for inbox in inboxes])

    def close(self) -> list[tuple[Processor, asyncio.Task[None]]]:
        """Ends all traffic, the caller's too; returns the tasks that have to be reaped."""
        self.closed = True
        for ready in self._ready:
            ready.clear()
        self._ticked.wake()
        retired = [inbox for inboxes in self._inboxes for inbox in inboxes.values()]
        for inboxes in self._inboxes:
            inboxes.clear()
        reap = [(inbox.processor, inbox.task) for inbox in retired if inbox.retire(cancel=True) is not None]
        for task, processor in self._leaving.items():
            task.cancel()
            reap.append((processor, task))
        return reap

    def fault(self, processor: Processor, stage: str, error: Exception) -> None:
        """A handler failed: the call ends, by name."""
        self._fault(processor, stage, error)

    def depths(self) -> list[Depth]:
        """Every buffer of the pump and its inboxes, read now."""
        waiting = sum(len(ready) for ready in self._ready)
        found = [Depth("pump ready queue", waiting, waiting, READY_BOUND, Policy.END_CALL)]
        found.extend(inbox.depth() for inboxes in self._inboxes for inbox in inboxes.values())
        return found

    def route(self, frame_type: type[Frame]) -> Route:
        """The route of a type, for drawings and tests."""
        return self._routes.get(frame_type) or self._resolve(frame_type)

    # -- the hot path

    def _send(self, frame: Frame, route: Route, index: int) -> None:
        if route.probe is not None:
            route.probe(frame, index)
        if route.way is not Way.UP:
            self._enter(route.lane, frame, route.down[index + 1])
        if route.way is not Way.DOWN and index >= 0:
            self._enter(route.lane, frame, route.up[index])

    def _enter(self, lane: int, frame: Frame, stop: Stop | None) -> None:
        if stop is None or self.closed:
            return
        if self._running and lane == self._handling:  # `_settle` gives it its place after the handler
            self._made.append((lane, frame, stop))
            return
        self._ready[lane].append((frame, stop))
        if not self._scheduled and not self._running:
            self._drain()

    def _drain(self) -> None:
        self._scheduled = False
        self._running = True
        control, caller, agent = self._ready
        left = FRAMES_A_TICK
        urgent = False
        try:
            while left:
                if control:
                    urgent = True
                    self._handling = CONTROL
                    frame, stop = control.popleft()
                    self._travel(frame, stop, CONTROL)
                elif caller:
                    self._handling = CALLER
                    frame, stop = caller.popleft()
                    self._travel(frame, stop, CALLER)
                elif agent:
                    if urgent:  # an async handler of Interrupt goes before a thousand dead frames
                        break
                    self._handling = AGENT
                    frame, stop = agent.popleft()
                    self._travel(frame, stop, AGENT)
                else:
                    return
                left -= 1
        finally:
            self._running = False
        if control or caller or agent:
            self._scheduled = True
            self.loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._drain()
        self._ticked.wake()

    def _travel(self, frame: Frame, stop: Stop | None, lane: int) -> None:
        """Takes one frame from stop to stop until it ends, waits in an inbox, or becomes other frames."""
        try:
            while stop is not None:
                if lane == AGENT and frame.reply.dead:  # type: ignore[attr-defined]
                    self.dropped += 1
                    return
                action = stop.action
                if action == Action.CALL:
                    out = stop.handler(frame)
                    if out is frame and not self._made:
                        stop = stop.next
                        continue
                    if out is not None:
                        self._made.append(self._onward(out, frame, stop))
                    self._settle(lane)
                    return
                if action >= ASYNC:
                    if self._join(frame, stop, action, lane):
                        if self._made:  # the Fault of an inbox that overflowed
                            self._settle(lane)
                        return
                elif action == Action.LOOK:
                    out = stop.handler(frame)
                    if out is not None:
                        if lane != CONTROL:
                            raise TypeError(
                                f"a @tap only looks, but it returned {out!r}: use @on, or self.push(frame)"
                            )
                        if stop.kind == Kind.GENERATOR:  # it runs only while somebody asks for more
                            deque(out, maxlen=0)
                    if self._made:
                        self._made.append((lane, frame, stop.next))
                        self._settle(lane)
                        return
                else:
                    for out in stop.handler(frame):
                        self._made.append(self._onward(out, frame, stop))
                        if len(self._made) > READY_BOUND:
                            raise BufferOverflowError("the pump's ready queue", READY_BOUND, ENDLESS)
                    self._settle(lane)
                    return
                stop = stop.next
        except (Exception, asyncio.CancelledError) as error:  # nothing in line can be cancelled from outside
            assert stop is not None
            known = error if isinstance(error, Exception) else RuntimeError(f"it raised {error!r}")
            self.fault(stop.processor, stop.stage, known)
            self._settle(lane)

    def _join(self, frame: Frame, stop: Stop, action: int, lane: int) -> bool:
        """Gives the frame to an inbox where it has to be; True when it stays there."""
        key = frame.reply if lane == AGENT else lane  # type: ignore[attr-defined]
        inbox = stop.inboxes.get(key)
        if action == Action.GATE:
            if inbox is None or not inbox.work:
                return False
        elif inbox is None:
            inbox = stop.inboxes[key] = Inbox(self, stop.processor, key)
        inbox.put(frame, stop)
        return action != Action.SHOW

    def _settle(self, handled: int) -> None:
        """Moves what a handler made to the front of the handled frame's lane, in the order it was made;
        frames for another lane go behind those that wait there."""
        if not self._made or self.closed:
            self._made.clear()
            return
        made, self._made = self._made, []
        for lane, frame, stop in made:
            if lane != handled:
                self._ready[lane].append((frame, stop))
        ready = self._ready[handled]
        for lane, frame, stop in reversed(made):
            if lane == handled:
                ready.appendleft((frame, stop))
        if sum(map(len, self._ready)) > READY_BOUND:
            for ready in self._ready:
                ready.clear()
            error = BufferOverflowError("the pump's ready queue", READY_BOUND, ENDLESS)
            self._fault(None, "the pump", error)
            self._settle(CONTROL)

    def _onward(self, out: Any, source: Frame, stop: Stop) -> tuple[int, Frame, Stop | None]:
        """Where a frame that a handler gave goes next. It inherits the reply of the handled frame."""
        cls = out.__class__
        if cls is source.__class__:
            if stop.lane == AGENT and out.reply is None:
                out.reply = source.reply  # type: ignore[attr-defined]
            return stop.lane, out, stop.next
        if not isinstance(out, Frame):
            raise TypeError(f"it gave {out!r}, which is not a frame (to give several, yield them)")
        if cls not in self._declared[stop.index]:
            self._admit(cls, stop.index)
        route = self._routes.get(cls) or self._resolve(cls)
        if isinstance(out, AgentFrame) and out.reply is None:
            if not isinstance(source, AgentFrame):
                raise DeclarationError(
                    f"a {cls.__name__} made from a {type(source).__name__} must name its reply: "
                    f"{cls.__name__}(..., reply=reply)"
                )
            out.reply = source.reply
        if route.probe is not None:
            route.probe(out, stop.index)
        if route.way is Way.UP:
            return route.lane, out, route.up[stop.index]
        if route.way is Way.BOTH:
            self._enter(route.lane, out, route.up[stop.index])
        return route.lane, out, route.down[stop.index + 1]

    # -- once per type

    def _resolve(self, frame_type: type[Frame]) -> Route:
        route = self._routes[frame_type] = Route(frame_type, self.chain, self._inboxes)
        route.probe = next((self._probes[t] for t in frame_type.__mro__ if t in self._probes), None)
        return route

    def _admit(self, frame_type: type[Frame], index: int) -> None:
        """Checks that the processor at `index` declares this type or a base of it."""
        processor, declared = self.chain[index], self._declared[index]
        if not any(issubclass(frame_type, t) for t in declared):
            raise DeclarationError(
                f"{processor.name} gave a {frame_type.__name__}, which it does not declare: "
                f"add {frame_type.__name__} to its `emits`"
            )
        declared.add(frame_type)


def _may_emit(processor: Processor) -> set[type[Frame]]:
    cls = type(processor)
    handled = {t for h in cls.handles if not h.tap for t in h.types if not issubclass(t, ControlFrame)}
    return {*cls.emits, *cls.pushes, *handled}
