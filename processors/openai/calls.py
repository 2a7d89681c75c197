"""Calls of functions, put together from the fragments that a stream has of them.

OpenAI counts the calls with `index` and gives id and name in the first fragment of each. Others:

    Gemini, Ollama                no `index` at all; a new id begins a new call
    lmdeploy, proxies of Gemini   `index` is 0 in every call; a new id beside a name begins a new call
    vLLM                          the id in every fragment; in some versions another one each time
    Ollama                        the arguments as an object instead of its JSON

What contradicts itself still makes calls: whether they can be run is for those who know the functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voiceflow.tools.use import Requested

MOST_CALLS = 64
MOST_TEXT = 65_536
"""Characters of all calls of one answer together: a model that writes more has lost its way."""


@dataclass(slots=True)
class _Call:
    index: int | None
    id: str
    name: str = ""
    arguments: str = ""


class Calls:
    """The calls of one answer so far. Falsy while there are none."""

    __slots__ = ("_calls", "excess", "fragments")

    def __init__(self) -> None:
        self.fragments = 0
        """How many have said something: a server that sends them is not silent."""
        self.excess = ""
        """What there was too much of; what comes after that is dropped."""
        self._calls: list[_Call] = []

    def __len__(self) -> int:
        return len(self._calls)

    def feed(self, fragments: object) -> None:
        """The `tool_calls` of the next delta, whatever they are."""
        given = [each for each in fragments if isinstance(each, dict)] if isinstance(fragments, list) else []
        for place, fragment in enumerate(given):
            if not self.excess:
                self._take(fragment, apart=place > 0)

    def requested(self, new_id: Callable[[], str]) -> tuple[Requested, ...]:
        """The calls, in the order in which they began, each with an id of its own: `new_id` makes one where
        the server gave none, or the same twice."""
        found: dict[str, Requested] = {}
        for call in self._calls:
            id = _sound(call.id)
            while not id or id in found:
                id = new_id()
            arguments = _sound(call.arguments)
            if arguments.strip() in ("", "null"):
                arguments = "{}"
            found[id] = Requested(id, _sound(call.name).strip(), arguments)
        return tuple(found.values())

    def _take(self, fragment: dict[str, Any], *, apart: bool) -> None:
        function = fragment.get("function")
        said = function if isinstance(function, dict) else {}
        id, name = _text(fragment.get("id")), _text(said.get("name"))
        arguments = said.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = json.dumps(arguments)
        if not (id or name or arguments):
            return
        self.fragments += 1
        index = fragment.get("index")
        call = self._whose(index if isinstance(index, int) else None, id, name, apart)
        call.id = call.id or id
        if not call.arguments and name != call.name:  # else it is the whole name, said again
            call.name += name
        call.arguments += arguments or ""
        if len(self._calls) > MOST_CALLS:
            self.excess = f"more than {MOST_CALLS} calls of functions in one answer"
        elif sum(len(each.id) + len(each.name) + len(each.arguments) for each in self._calls) > MOST_TEXT:
            self.excess = f"more than {MOST_TEXT} characters of calls of functions in one answer"

    def _whose(self, index: int | None, id: str, name: str, apart: bool) -> _Call:
        """The call that a fragment belongs to. `apart`: another one came before it in the same delta."""
        if index is not None:
            call = next((each for each in reversed(self._calls) if each.index == index), None)
            # The index is wrong where a named fragment has another id, or follows a whole call in its delta.
            wrong = call is not None and (call.id not in ("", id) if id else apart and call.arguments != "")
            new = bool(name) and wrong
        elif id:
            call, new = next((each for each in self._calls if each.id == id), None), False
        else:
            call = self._calls[-1] if self._calls else None
            new = call is not None and bool(name) and (apart or call.arguments != "")
        if call is None or new:
            call = _Call(index, id)
            self._calls.append(call)
        return call


def _text(found: object) -> str:
    return found if isinstance(found, str) else ""


def _sound(text: str) -> str:
    """With the halves of characters that came in two fragments put together, and without lone ones: they
    cannot be sent again."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
