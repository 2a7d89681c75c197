"""What a call's requests cost, and how much of that was for drafts that came to nothing."""

from __future__ import annotations

from voiceflow.engine.reply import Reply

FIGURES = (
    "requests", "tokens", "cancelled", "failed", "retries", "fallbacks", "prompt_tokens", "completion_tokens",
    "pool_hits", "pool_misses", "saved_ms",
)  # fmt: skip
WASTED = ("requests", "tokens", "prompt_tokens", "completion_tokens")
"""What of a draft that was never live is counted as `wasted_...` too. `tokens` are pieces of text as they
came; the other two are the server's own counts, which it gives only at an answer's end."""


class Spending:
    """The figures of one call."""

    def __init__(self) -> None:
        self._counted = dict.fromkeys((*FIGURES, *(f"wasted_{name}" for name in WASTED)), 0.0)
        self._drafts: list[
            tuple[Reply, dict[str, float]]
        ] = []  # those not decided yet: one, or two for a moment

    def account(self, reply: Reply) -> Account:
        """For what answering a Prompt costs. What dies as a draft was wasted, also when its answer was
        complete by then: that is found out later."""
        self._settle()
        spent = dict.fromkeys(WASTED, 0.0)
        if not reply.confirmed:
            self._drafts.append((reply, spent))
        return Account(self._counted, spent)

    def figures(self) -> dict[str, float]:
        self._settle()
        return dict(self._counted)

    def _settle(self) -> None:
        for reply, spent in self._drafts:
            if reply.dead and not reply.confirmed:
                for name, count in spent.items():
                    self._counted[f"wasted_{name}"] += count
        self._drafts = [draft for draft in self._drafts if not (draft[0].dead or draft[0].confirmed)]


class Account:
    """Where one reply's costs are put down."""

    def __init__(self, counted: dict[str, float], spent: dict[str, float]) -> None:
        self._counted, self._spent = counted, spent

    def add(self, name: str, count: float = 1.0) -> None:
        self._counted[name] += count
        if name in self._spent:
            self._spent[name] += count
