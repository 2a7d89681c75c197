"""Tools for testing phone agents without a phone: virtual time, scripted links, the conformance test.

    VirtualTimeLoop, run             an event loop whose clock jumps; an hour of call in milliseconds
    Deadlock, Livelock, Leak         what that loop raises instead of hanging or hiding something
    ScriptedLink, pair, Close, Break a connection in memory, its other side in the hands of the test
    Rig                              processors in a call without a phone, their frames in the test's hands
    check_processor                  the test that every processor must pass; it returns a Conformance or
                                     raises NotConforming

With pytest, ask for the fixture `virtual_time`: an `async def` test that has it runs in virtual time.
The names are loaded when they are first used, so that pytest's start pays nothing for the plugin.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voiceflow.testing.clock import Deadlock, Leak, Livelock, VirtualTimeLoop, run
    from voiceflow.testing.conformance import Conformance, check_processor
    from voiceflow.testing.links import Break, Close, ScriptedLink, pair
    from voiceflow.testing.rig import Rig
    from voiceflow.testing.rules import NotConforming

_HOMES = {
    "Break": "links",
    "Close": "links",
    "Conformance": "conformance",
    "Deadlock": "clock",
    "Leak": "clock",
    "Livelock": "clock",
    "NotConforming": "rules",
    "Rig": "rig",
    "ScriptedLink": "links",
    "VirtualTimeLoop": "clock",
    "check_processor": "conformance",
    "pair": "links",
    "run": "clock",
}

__all__ = [
    "Break",
    "Close",
    "Conformance",
    "Deadlock",
    "Leak",
    "Livelock",
    "NotConforming",
    "Rig",
    "ScriptedLink",
    "VirtualTimeLoop",
    "check_processor",
    "pair",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
