"""What the engine asks of whoever plays replies to the caller (the sink)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from voiceflow.engine.reply import Reply


@dataclass(slots=True, frozen=True)
class HeardText:
    """What the caller heard of one reply. `samples` of audio, and their text.

    `estimated` when the text is not certain to the word: it ends inside a stretch without alignments.
    """

    text: str = ""
    samples: int = 0
    estimated: bool = False
    complete: bool = False
    """It was all there was to hear."""


@dataclass(slots=True, frozen=True)
class Progress:
    """How far the caller has heard one reply, in seconds."""

    heard: float = 0.0
    left: float | None = None
    """What is still to be heard; None while more may come."""
    queued: bool = False
    """There is audio of it, sent or not."""
    begun: bool = False
    """The line was given some of it."""
    question: bool = False
    """The last seconds that were heard ended a question."""


@runtime_checkable
class Mouth(Protocol):
    """Plays replies. The engine calls these inside an Interrupt, so none may wait."""

    def drop(self, reply: Reply) -> None:
        """Throws away what is queued of this reply and not yet sent."""
        ...

    def freeze(self, reply: Reply) -> HeardText:
        """Closes the reply in the ledger at this instant; returns what was heard of it."""
        ...

    def clear(self, reply: Reply) -> None:
        """Makes the line throw away what was sent of it, if anything was."""
        ...

    def hold(self, reply: Reply) -> None:
        """Silences the reply at once but keeps it, to go on from what was heard."""
        ...

    def release(self, reply: Reply) -> None:
        """The reply may play: its draft was confirmed or its hold is over."""
        ...

    def protected(self, reply: Reply) -> float | None:
        """When what may not be interrupted of it is over (`loop.time()`), as far as it is known; None when
        nothing of that is being heard or comes next."""
        ...

    def progress(self, reply: Reply) -> Progress:
        """How far the caller has heard it."""
        ...
