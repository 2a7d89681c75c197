"""What was said and done, as the model will read it. Three writers only: the TurnKeeper for the caller's
words, the ledger for the agent's, and the tool desk for what tools did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True, frozen=True)
class Message:
    """One entry. `role` is "user" or "assistant"; `cut` when the caller interrupted it there."""

    role: str
    content: str
    cut: bool = False


class Entry(Protocol):
    """What a history holds: a Message, or a `voiceflow.tools.ToolUse`, whose role is "tool" and whose content
    is its result as it stands now. A call and its result are one entry: a history with an open call is not
    possible."""

    @property
    def role(self) -> str: ...

    @property
    def content(self) -> str: ...

    @property
    def cut(self) -> bool: ...


class History:
    """An append-only list of entries. The caller's words are written before anyone sees TurnEnd; the agent's
    only once they were heard; a tool's use once the reply that asked for it is live."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    @property
    def messages(self) -> tuple[Entry, ...]:
        return tuple(self._entries)

    def caller_said(self, text: str) -> None:
        if text:
            self._entries.append(Message("user", text))

    def agent_was_heard(self, text: str, *, cut: bool) -> None:
        if text:
            self._entries.append(Message("assistant", text, cut))

    def tool_was_used(self, use: Entry) -> None:
        self._entries.append(use)
