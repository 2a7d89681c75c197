"""The path of one turn: from the caller's last word to the agent's first sound, in parts that sum to the gap.

    last speech ─▶ end of turn ─▶ first token ─▶ first sentence ─▶ first audio ─▶ on the wire ─▶ heard
                 turn's authority  language model  aggregator        voice          sink           line

Every part belongs to the processor that ends it. A step that a chain does not have (an agent that plays
recordings has no tokens) is left out, and the next part begins where the last one ended: so the parts always
sum to the gap. A step that came earlier than the one before it, as with a draft that was prepared while the
turn was not over yet, took no time of the caller's.

What the agent says by itself has no turn: its path begins with the first step there is, the sentence.
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
MAKING = (Step.FIRST_TOKEN, Step.FIRST_SENTENCE)
"""Steps that lead to the first audio, if they came before it."""


@dataclass(slots=True, frozen=True)
class Part:
    """One piece of the gap: what `owner` took until `step`, in whole microseconds, so that sums are exact."""

    step: Step
    owner: str
    microseconds: int

    @property
    def seconds(self) -> float:
        return self.microseconds / 1e6


@dataclass(slots=True)
class Path:
    """One reply on its way to the caller. Times in seconds since the call began, on `call.now()`."""

    reply: int
    turn: int | None
    """The turn it answers; None when the agent speaks by itself."""
    draft: bool = False
    """It was begun before the turn was over."""
    opened: float = 0.0
    """When the reply was made."""
    at: dict[Step, float] = field(default_factory=dict)
    owner: dict[Step, str] = field(default_factory=dict)
    asked: str = ""
    """What the caller had said."""
    heard: str = ""
    """What the caller heard of the answer, from the ledger."""
    lost: str = ""
    """What was ready to be heard when it was cut off, and was not."""
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
    def since(self) -> Step | None:
        """The first step known: what the gap is measured from."""
        return next((step for step in ORDER if step in self.at), None)

    @property
    def dropped(self) -> bool:
        """It was a draft, and the turn was not over after all."""
        return self.draft and Step.END_OF_TURN not in self.at

    @property
    def saved(self) -> float | None:
        """Seconds by which it was heard sooner because it was a draft: what was done of the way to its first
        audio when the turn was over, so never more than that way takes. None when it was neither."""
        if not self.draft or Step.HEARD not in self.at or Step.END_OF_TURN not in self.at:
            return None
        ended = self.at[Step.END_OF_TURN]
        return max(0.0, min(self.at.get(Step.FIRST_AUDIO, ended), ended) - self.opened)

    @property
    def gap(self) -> float | None:
        """Seconds from the first step known until it was heard; None when nothing was."""
        return sum(part.microseconds for part in self.parts()) / 1e6 if Step.HEARD in self.at else None

    def parts(self) -> list[Part]:
        """The pieces between the steps known so far, in order. Their sum is the gap, to the microsecond."""
        found: list[Part] = []
        before: int | None = None
        for step in self._counted():
            at = round(self.at[step] * 1e6)
            if before is not None:
                found.append(Part(step, self.owner[step], max(0, at - before)))
            before = at if before is None else max(before, at)
        return found

    def _counted(self) -> list[Step]:
        """The steps that led to what was heard. A token that came when there was audio already - somebody
        played "one moment, please" - did not."""
        steps: list[Step] = []
        for step in reversed(ORDER):
            if step not in self.at:
                continue
            made_late = step in MAKING and steps and self.at[step] > self.at[steps[0]]
            if not made_late:
                steps.insert(0, step)
        return steps
