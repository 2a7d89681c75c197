"""A Reply: one answer of the agent, from its prompt to the last sample that the caller hears.

    DRAFT ──confirmed──▶ LIVE ◀──resume── HELD
      │                   │ └────hold─────▶ │
      └────── any ────────┴──▶ DEAD ◀───────┘

Agent frames carry their reply, and the pump asks only one thing of it: is it dead? `number` is a label
for people and logs; it is never compared, so nothing depends on which reply came first.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable


class ReplyState(enum.Enum):
    """Where a reply is in its life. DEAD is final."""

    DRAFT = "draft"
    LIVE = "live"
    HELD = "held"
    DEAD = "dead"


class Reply:
    """One answer. Made only by the TurnKeeper; compared by identity."""

    __slots__ = ("_waiting", "confirmed", "dead", "number", "state")

    def __init__(self, number: int, state: ReplyState = ReplyState.LIVE) -> None:
        self.number = number
        self.state = state
        self.dead = False
        """The pump's question, kept as a plain attribute because it is asked at every hop."""
        self.confirmed = state is ReplyState.LIVE
        """It was live once: not a draft, or a draft that was right. What one without this cost is waste."""
        self._waiting: list[Callable[[], None]] = []  # one for each handler of this reply that waits

    def become(self, state: ReplyState) -> None:
        """Moves to `state`. A dead reply stays dead."""
        if self.dead:
            return
        self.state = state
        self.dead = state is ReplyState.DEAD
        if state is ReplyState.LIVE:
            self.confirmed = True
            waiting, self._waiting = self._waiting, []
            for then in waiting:
                then()
        elif self.dead:
            self._waiting.clear()

    def when_live(self, then: Callable[[], None]) -> None:
        """Calls `then` in the instant in which the reply is live: now, or when its draft is confirmed or its
        hold is over. Never, when it dies before that. `then` must not raise."""
        if self.state is ReplyState.LIVE:
            then()
        elif not self.dead:
            self._waiting.append(then)

    async def until_live(self) -> None:
        """Waits until the reply is live. For its own handlers, which are cancelled when it dies: for one that
        is dead already it never returns."""
        live: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def go() -> None:
            if not live.done():
                live.set_result(None)

        self.when_live(go)
        await live

    def __repr__(self) -> str:
        return f"<reply {self.number} {self.state.value}>"
