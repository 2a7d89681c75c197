"""The routing table: for each concrete frame type, the stops it makes along the chain.

    chain      0 source   1 VAD    2 Turns   3 LLM         4 TTS            5 sink
    AudioIn             ─▶ look ─▶ in line ─▶ (end)
    Token                                     made here  ─▶ joins its inbox
    ReplyEnd                                  made here  ─▶ joins its inbox ─▶ in line
    AudioOut                                                made here       ─▶ in line

A route is resolved once per type, by the type's MRO, and kept as a linked list: one attribute read gets
a frame from a stop to its next one. Besides the handlers there are gates: at an async processor, an agent
or caller frame that is handled in line there, or not at all, still waits behind earlier work of its own
lane and reply, or it would overtake it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from voiceflow.engine.processor import Handler, Handles, Kind, Processor, handler_for
from voiceflow.frames import AgentFrame, CallerFrame, ControlFrame, Frame, Lane, Way

if TYPE_CHECKING:
    from voiceflow.engine.inbox import Inbox

CONTROL, CALLER, AGENT = 0, 1, 2
"""Lanes as the pump counts them: the lower goes first."""
_LANE = {Lane.CONTROL: CONTROL, Lane.CALLER: CALLER, Lane.AGENT: AGENT}
_OTHERS = {CALLER: (ControlFrame, AgentFrame), AGENT: (ControlFrame, CallerFrame)}
"""The frames that can never be in this lane."""


class Action(enum.IntEnum):
    """What a frame does at a stop. The first three are in line and end within the hop."""

    CALL = 0  # a plain handler: what it returns goes on
    LOOK = 1  # a plain tap, or a handler of a control frame: the frame itself goes on
    YIELD = 2  # a plain generator: what it yields goes on
    JOIN = 3  # an async handler: the frame joins the inbox and ends here
    SHOW = 4  # an async tap: the frame joins the inbox and goes on
    GATE = 5  # no async handler: the frame joins the inbox only if earlier work of its stream is in it


ASYNC = Action.JOIN
"""From here on an action needs the processor's inboxes."""


class Stop:
    """One stop of one frame type. `action` is a plain int because it is compared at every hop."""

    __slots__ = ("action", "handler", "inboxes", "index", "kind", "lane", "next", "processor", "stage")

    def __init__(
        self,
        processor: Processor,
        index: int,
        lane: int,
        action: Action,
        handles: Handles | None,
        after: Stop | None,
    ) -> None:
        self.processor = processor
        self.index = index
        self.lane = lane
        self.action = int(action)
        self.kind = int(handles.kind) if handles else -1
        self.stage = handles.method if handles else "its inbox"
        self.handler: Handler = getattr(processor, handles.method) if handles else _nothing
        self.next = after
        self.inboxes: dict[Any, Inbox] = {}


def _nothing(frame: Frame) -> None:
    return None


class Route:
    """All stops of one frame type: `down[i + 1]` is the first after position i, `up[i]` the first before."""

    __slots__ = ("down", "lane", "probe", "up", "way")

    def __init__(
        self, frame_type: type[Frame], chain: tuple[Processor, ...], inboxes: list[dict[Any, Inbox]]
    ) -> None:
        self.lane = _LANE[frame_type.lane]
        self.way = frame_type.way
        self.probe: Callable[[Any, int], None] | None = None
        self.down: list[Stop | None] = [None] * (len(chain) + 1)
        self.up: list[Stop | None] = [None] * (len(chain) + 1)
        if self.way is not Way.UP:
            first = None
            for index in range(len(chain) - 1, -1, -1):
                first = _stops(frame_type, chain[index], index, self.lane, inboxes[index], first)
                self.down[index] = first
        if self.way is not Way.DOWN:
            first = None
            for index in range(len(chain)):
                first = _stops(frame_type, chain[index], index, self.lane, inboxes[index], first)
                self.up[index + 1] = first

    def stops(self) -> list[Stop]:
        """Every stop, from the top of the chain down: for tests and drawings."""
        found, stop = [], self.down[0] or self.up[-1]
        while stop is not None:
            found.append(stop)
            stop = stop.next
        return found


def _stops(
    frame_type: type[Frame],
    processor: Processor,
    index: int,
    lane: int,
    inboxes: dict[Any, Inbox],
    after: Stop | None,
) -> Stop | None:
    """The stops of one processor, tap before handler, in front of those that come `after`."""
    cls = type(processor)
    on = handler_for(cls, frame_type, tap=False)
    waits = on is not None and on.kind >= Kind.COROUTINE
    if on is not None:
        if lane == CONTROL:
            action = Action.SHOW if waits else Action.LOOK
        elif waits:
            action = Action.JOIN
        else:
            action = Action.YIELD if on.kind is Kind.GENERATOR else Action.CALL
        after = Stop(processor, index, lane, action, on, after)
        after.inboxes = inboxes
    if lane != CONTROL and not waits and _works_in_lane(cls, lane):
        after = Stop(processor, index, lane, Action.GATE, None, after)
        after.inboxes = inboxes
    tap = handler_for(cls, frame_type, tap=True)
    if tap is not None:
        action = Action.SHOW if tap.kind >= Kind.COROUTINE else Action.LOOK
        after = Stop(processor, index, lane, action, tap, after)
        after.inboxes = inboxes
    return after


def _works_in_lane(cls: type[Processor], lane: int) -> bool:
    """Whether the class has an async handler, tap or not counted, for frames of this lane."""
    return any(
        not h.tap
        and h.kind >= Kind.COROUTINE
        and any(not issubclass(t, _OTHERS[lane]) for t in h.types)  # a mixin may be of any lane
        for h in cls.handles
    )
