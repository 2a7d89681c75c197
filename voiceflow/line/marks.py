"""Marks: how the carrier tells what was heard. Bookkeeping only; the sink sends them and believes them.

A mark comes back when everything before it was played, or at once when the line is cleared: then it proves
nothing. `clear` is therefore remembered with every mark that is out.
"""

from __future__ import annotations

from dataclasses import dataclass

from voiceflow.engine.reply import Reply

MARKS_BOUND = 1024
"""Marks on their way. More means that the carrier does not send them back; the oldest are forgotten."""


@dataclass(slots=True)
class Mark:
    """It comes back when the first `samples` of the reply were played."""

    reply: Reply
    samples: int
    first: bool = False
    """It follows the reply's first piece: it tells when the caller began to hear."""
    cleared: bool = False


class Marks:
    """Those of one call that are on their way, by name."""

    def __init__(self) -> None:
        self.heard = 0
        self.cleared = 0
        """How many came back, proving something and proving nothing; lost ones are among the latter."""
        self._out: dict[str, Mark] = {}
        self._number = 0

    def new(self, reply: Reply, samples: int, *, first: bool = False) -> str:
        """The name of another one."""
        self._number += 1
        name = f"r{reply.number}.{self._number}"
        self._out[name] = Mark(reply, samples, first)
        while len(self._out) > MARKS_BOUND:
            del self._out[next(iter(self._out))]
        return name

    def back(self, name: str) -> Mark | None:
        """It came back. None when that proves nothing."""
        mark = self._out.pop(name, None)
        if mark is None or mark.cleared:
            self.cleared += mark is not None
            return None
        self.heard += 1
        return mark

    def clear(self) -> None:
        """The line is cleared: those that are out will come back."""
        for mark in self._out.values():
            mark.cleared = True

    def lose(self) -> None:
        """The stream is over: they will not."""
        self.cleared += len(self._out)
        self._out.clear()
