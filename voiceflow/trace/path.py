"""The path of one turn: from the caller's last word to the agent's first sound, in parts that sum to the gap.

    last speech ─▶ end of turn ─▶ first token ─▶ first sentence ─▶ first audio ─▶ on the wire ─▶ heard
                 turn's authority  language model  aggregator        voice          sink           line

Every part belongs to the processor that ends it. A step that a chain does not have (an agent that plays
recordings has no tokens) is left out, and the next part begins where the last one ended: so the parts always
sum to the gap. A step that came earlier than the one before it, as with a draft that was prepared while the
turn was not over yet, took no time of the caller's.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Step(enum.Enum):
    """The moments of a turn, in the order in which they happen. The value is what a person reads."""

    LAST_SPEECH = "last speech"
    END_OF_TURN = "end of turn"
    FIRST_TOKEN = "first token"
    FIRST_SENTENCE = "first sentence"
    FIRST_AUDIO = "first audio"
    ON_THE_WIRE = "on the wire"
    HEARD = "heard"


ORDER = tuple(Step)


@dataclass(slots=True, frozen=True)
class Part:
    """One piece of the gap: `seconds` that `owner` took until `step`."""

    step: Step
    owner: str
    seconds: float


@dataclass(slots=True)
class Path:
    """One reply on its way to the caller. Times in seconds since the call began, on `call.now()`."""

    reply: int
    turn: int | None
    """The turn it answers; None when the agent speaks by itself."""
    draft: bool = False
    at: dict[Step, float] = field(default_factory=dict)
    owner: dict[Step, str] = field(default_factory=dict)
    asked: str = ""
    """What the caller had said."""
    heard: str = ""
    """What the caller heard of the answer, from the ledger."""
    estimated: bool = False
    """`heard` is not certain to the word."""
    cut: str = ""
    """Why it was cut off; empty when it was not."""
    over: float | None = None
    """When it was over."""

    def mark(self, step: Step, at: float, owner: str) -> None:
        """The first time counts."""
        if step not in self.at:
            self.at[step] = at
            self.owner[step] = owner

    @property
    def gap(self) -> float | None:
        """Seconds from the first step known to the last one; None when nothing was played."""
        parts = self.parts()
        return sum(part.seconds for part in parts) if Step.ON_THE_WIRE in self.at and parts else None

    def parts(self) -> list[Part]:
        """The pieces of the gap, in order. Their sum is the gap, to the last bit."""
        found: list[Part] = []
        before: float | None = None
        for step in ORDER:
            if (at := self.at.get(step)) is None:
                continue
            if before is not None:
                found.append(Part(step, self.owner[step], max(0.0, at - before)))
            before = at if before is None else max(before, at)
        return found
