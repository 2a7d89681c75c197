"""What was said, as the model will read it. Two writers only: the TurnKeeper and the ledger."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Message:
    """One entry. `role` is "user" or "assistant"; `cut` when the caller interrupted it there."""

    role: str
    content: str
    cut: bool = False


class History:
    """An append-only list of messages. The caller's words are written before anyone sees TurnEnd;
    the agent's only once they were heard."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(self._messages)

    def caller_said(self, text: str) -> None:
        if text:
            self._messages.append(Message("user", text))

    def agent_was_heard(self, text: str, *, cut: bool) -> None:
        if text:
            self._messages.append(Message("assistant", text, cut))
