"""A Reply: one answer of the agent, from its prompt to the last sample that the caller hears.

    DRAFT ──confirmed──▶ LIVE ◀──resume── HELD
      │                   │ └────hold─────▶ │
      └────── any ────────┴──▶ DEAD ◀───────┘

Agent frames carry their reply, and the pump asks only one thing of it: is it dead? `number` is a label
for people and logs; it is never compared, so nothing depends on which reply came first.
"""

from __future__ import annotations

import enum


class ReplyState(enum.Enum):
    """Where a reply is in its life. DEAD is final."""

    DRAFT = "draft"
    LIVE = "live"
    HELD = "held"
    DEAD = "dead"


class Reply:
    """One answer. Made only by the TurnKeeper; compared by identity."""

    __slots__ = ("dead", "number", "state")

    def __init__(self, number: int, state: ReplyState = ReplyState.LIVE) -> None:
        self.number = number
        self.state = state
        self.dead = False
        """The pump's question, kept as a plain attribute because it is asked at every hop."""

    def become(self, state: ReplyState) -> None:
        """Moves to `state`. A dead reply stays dead."""
        if not self.dead:
            self.state = state
            self.dead = state is ReplyState.DEAD

    def __repr__(self) -> str:
        return f"<reply {self.number} {self.state.value}>"
