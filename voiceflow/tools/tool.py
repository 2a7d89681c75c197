"""A tool: a Python function that a model may call, and what is known about the harm it can do."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from voiceflow.errors import VoiceflowError

if TYPE_CHECKING:
    from voiceflow.vendor import Key

LIMIT = 10.0
"""Seconds a tool may take unless it says otherwise. A caller waits meanwhile."""


class Effect(enum.Enum):
    """What a tool does to the world, and so when it may run.

    READ      looks something up: cancelled by an Interrupt, may run for a draft
    COMMIT    changes something: begins only for a live reply, then belongs to the call and is finished
              whatever happens, within its limit
    TERMINAL  ends the conversation (hang up, transfer): runs once everything said before it was heard
    """

    READ = "read"
    COMMIT = "commit"
    TERMINAL = "terminal"


class ToolWithdrawn(VoiceflowError):
    """Raised by a tool that is no longer wanted: its message is the result, and nobody is told of it."""


@dataclass(slots=True, frozen=True, eq=False)
class Tool:
    """Made by `@tool`. Calling it calls the function."""

    function: Callable[..., Any]
    name: str
    description: str
    effect: Effect
    limit: float
    """Seconds it may take."""
    announce: bool
    """Whether a result that nobody has asked about is told at the next silence."""
    parameters: Mapping[str, Any]
    """The JSON schema of its arguments: an object."""
    keys: tuple[Key, ...] = ()
    """Secrets it cannot work without: a missing one is told before a call is answered."""
    details: Any = field(default=None, repr=False)
    """What `arguments.py` keeps to validate with."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)
