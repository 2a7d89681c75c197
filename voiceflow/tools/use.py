"""One call of a tool: what the model asked for, how far it is, what came of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from voiceflow.tools.tool import Effect


@dataclass(slots=True, frozen=True)
class Requested:
    """A call as a model asked for it. `arguments` is what it sent, JSON or not."""

    id: str
    name: str
    arguments: str


class UseState(enum.Enum):
    """WAITING and RUNNING change; the others are final."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed out"

    @property
    def over(self) -> bool:
        return self not in (UseState.WAITING, UseState.RUNNING)


@dataclass(slots=True, eq=False)
class ToolUse:
    """An entry of the call's history: the call and its result in one, so that none is ever left open.

    `batch` is the same for calls that the model asked for at once.
    """

    requested: Requested
    effect: Effect
    batch: int = 0
    state: UseState = UseState.WAITING
    result: str = ""
    """In words for the model, once it is over."""
    began: float | None = None
    """`loop.time()`."""
    ended: float | None = None

    @property
    def role(self) -> str:
        return "tool"

    @property
    def cut(self) -> bool:
        return False

    @property
    def content(self) -> str:
        """What the model reads as its result at this moment."""
        if self.state.over:
            return self.result
        return "Still running: there is no result yet."
