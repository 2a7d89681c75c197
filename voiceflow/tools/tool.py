"""A tool: a Python function that a model may call, and what is known about the harm it can do.

@tool(effect="read")
async def opening_hours(day: date, call: Call) -> str:
    \"\"\"When we are open.

    day: the day the caller asks about
    \"\"\"
"""

from __future__ import annotations

import enum
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MethodType
from typing import TYPE_CHECKING, Any, NoReturn

from voiceflow.errors import DeclarationError, VoiceflowError

if TYPE_CHECKING:
    from voiceflow.tools.schema import Parameters
    from voiceflow.vendor import Key

LIMIT = 10.0
"""Seconds a tool may take unless it says otherwise. A caller waits meanwhile."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What may be the name of a tool, at OpenAI and so everywhere."""


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
    """Made by `@tool`. Calling it calls the function. As the method of an object it is bound to it, as
    functions are: `tools=[desk.book]`."""

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
    details: Parameters
    """What `arguments.py` validates with."""
    keys: tuple[Key, ...] = ()
    """Secrets it cannot work without: a missing one is told before a call is answered."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Tool:
        if instance is None or not self.details.receiver:
            return self
        bound = MethodType(self.function, instance)
        return replace(self, function=bound, details=replace(self.details, receiver=False))


def tool(
    misplaced: object = None,
    /,
    *,
    effect: Effect | str | None = None,
    limit: float = LIMIT,
    announce: bool = True,
    name: str | None = None,
    description: str | None = None,
    keys: Sequence[Key] = (),
) -> Callable[[Callable[..., Any]], Tool]:
    """Makes a Tool of a function, sync or async, or of a method: `@tool(effect="read")` above it, or
    `tool(effect="read")(function)`.

    effect
        "read", "commit" or "terminal": see Effect. It has no default, because only you know it.
    limit
        Seconds it may take.
    announce
        Whether a result that came too late for its answer is told at the next silence.
    name, description
        Else the function's own: its name, and its docstring without what is said of the parameters.
    keys
        Secrets it cannot work without.

    Every parameter has a type; one of type `Call` is given the call, and the model does not see it. Sync
    functions run in a thread. DeclarationError for what no model could call.
    """
    if misplaced is not None or effect is None:
        _without_effect(misplaced)
    kind = _effect(effect)
    if isinstance(limit, bool) or not (isinstance(limit, int | float) and 0 < limit < math.inf):
        raise DeclarationError(f"@tool(limit={limit!r}): it has to be a number of seconds above 0")

    def decorate(function: Callable[..., Any]) -> Tool:
        from voiceflow.tools.schema import parameters_of

        if isinstance(function, staticmethod):
            function = function.__func__
        if isinstance(function, Tool) or not callable(function):
            raise DeclarationError(f"@tool(...) belongs above a function, not above {function!r}")
        called = name if name is not None else getattr(function, "__name__", "")
        if not NAME.fullmatch(called):
            raise DeclarationError(
                f"a tool cannot be called {called!r}: @tool(name=...) with up to 64 letters, digits, _ and -"
            )
        if any(
            check(each)
            for each in (function, getattr(function, "__call__", None))  # noqa: B004
            for check in (inspect.isasyncgenfunction, inspect.isgeneratorfunction)
        ):
            raise DeclarationError(f"{called} yields, but the result of a tool is one: return it")
        parameters = parameters_of(function, called, sys._getframe(1).f_locals)
        said = parameters.description if description is None else description
        return Tool(
            function=function,
            name=called,
            description=inspect.cleandoc(said).strip(),
            effect=kind,
            limit=float(limit),
            announce=announce,
            parameters=parameters.schema,
            details=parameters,
            keys=tuple(keys),
        )

    return decorate


def _effect(effect: Effect | str | None) -> Effect:
    try:
        return Effect(effect)
    except ValueError:
        raise DeclarationError(
            f'@tool(effect={effect!r}): it is "read" (looks something up), "commit" (changes something) or '
            '"terminal" (ends the conversation)'
        ) from None


def _without_effect(function: object) -> NoReturn:
    name = getattr(function, "__name__", "")
    raise DeclarationError(
        f"{name + ': ' if name else ''}say what the tool does, because that decides when it may run: "
        '@tool(effect="read") if it only looks something up, "commit" if it changes something, "terminal" '
        "if it ends the conversation"
    )
