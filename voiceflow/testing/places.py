"""Says where tasks and callbacks stand: the lines of a Deadlock, a Livelock or a Leak."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from itertools import islice
from types import FrameType
from typing import Any

LISTED = 20
"""Lines a message shows at most; the rest is counted."""

_ASYNCIO = os.path.dirname(asyncio.__file__)


def list_tasks(tasks: list[asyncio.Task[Any]]) -> str:
    """One line for each task: its name, its coroutine and where it waits."""
    return _bounded((describe(task) for task in tasks), len(tasks)) or "  (no tasks)"


def list_handles(handles: Iterable[asyncio.Handle]) -> str:
    """One line for each callback; one that steps a task is shown as that task."""
    handles = list(handles)
    return _bounded(map(_describe_handle, handles), len(handles)) or "  (only timers that are due at once)"


def describe(task: asyncio.Task[Any]) -> str:
    """`Task-2 (Reader.run) at file.py:31 in Reader.next (Queue.get)`: the innermost await that is not
    asyncio's own, and in parentheses what of asyncio it called."""
    coroutine = task.get_coro()
    name = f"{task.get_name()} ({getattr(coroutine, '__qualname__', coroutine)})"
    frames = list(_frames(coroutine))
    outside = [i for i, frame in enumerate(frames) if not frame.f_code.co_filename.startswith(_ASYNCIO)]
    if not frames:
        return f"{name} done" if task.done() else f"{name} at an unknown place"
    at = outside[-1] if outside else len(frames) - 1
    code = frames[at].f_code
    inside = f" ({frames[at + 1].f_code.co_qualname})" if at + 1 < len(frames) else ""
    return f"{name} at {code.co_filename}:{frames[at].f_lineno} in {code.co_qualname}{inside}"


def _frames(awaited: Any) -> Iterable[FrameType]:
    """The frames of a suspended coroutine, outermost first, down to the last that Python can see: an async
    generator hides what it awaits behind `__anext__`."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            return
        yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def _describe_handle(handle: asyncio.Handle) -> str:
    owner = getattr(getattr(handle, "_callback", None), "__self__", None)
    return describe(owner) if isinstance(owner, asyncio.Task) else repr(handle)


def _bounded(lines: Iterable[str], total: int) -> str:
    shown = [f"  {line}" for line in islice(lines, LISTED)]
    if total > LISTED:
        shown.append(f"  and {total - LISTED} more")
    return "\n".join(shown)
