"""What a model is told of a function: its schema, from signature, types and docstring."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from voiceflow import DeclarationError, Effect, Tool, tool
from voiceflow.tools.docstring import read
from voiceflow.vendor import Key

if TYPE_CHECKING:
    from decimal import Decimal

    from voiceflow import Call


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Guest(BaseModel):
    name: str
    size: Size = Size.SMALL


@dataclass
class Dish:
    title: str
    count: int = 1


class Tree(BaseModel):
    children: list[Tree] = []


def made(function: Callable[..., Any], **options: Any) -> Tool:
    return tool(**{"effect": "read", **options})(function)


def schema(function: Callable[..., Any]) -> dict[str, Any]:
    return dict(made(function).parameters)


def properties(function: Callable[..., Any]) -> dict[str, Any]:
    return dict(schema(function)["properties"])


def test_a_function_of_many_types():
    def book(
        day: date,
        at: time,
        until: datetime,
        kind: Literal["lunch", "dinner"],
        size: Size,
        names: list[str],
        note: str | None = None,
        other: Optional[int] = 3,  # noqa: UP045
        vip: bool = False,
        people: Annotated[int, Field(ge=1, le=20, description="how many come")] = 2,
    ) -> None: ...

    found = schema(book)
    assert found["required"] == ["day", "at", "until", "kind", "size", "names"]
    assert found["additionalProperties"] is False
    assert found["properties"] == {
        "day": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "time"},
        "until": {"type": "string", "format": "date-time"},
        "kind": {"type": "string", "enum": ["lunch", "dinner"]},
        "size": {"type": "string", "enum": ["small", "large"]},
        "names": {"type": "array", "items": {"type": "string"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "other": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 3},
        "vip": {"type": "boolean", "default": False},
        "people": {
            "type": "integer",
            "minimum": 1,
            "maximum": 20,
            "default": 2,
            "description": "how many come",
        },
    }


def test_models_in_it_are_written_out_and_a_parameter_may_have_any_name():
    def order(title: Dish, guests: list[Guest], json: str, model_config: int, _hidden: str = "") -> None: ...

    found = schema(order)
    assert "$defs" not in found
    assert found["properties"]["title"] == {
        "type": "object",
        "properties": {"title": {"type": "string"}, "count": {"type": "integer", "default": 1}},
        "required": ["title"],
        "additionalProperties": False,
    }
    guest = found["properties"]["guests"]["items"]["properties"]
    assert guest["size"] == {"type": "string", "enum": ["small", "large"], "default": "small"}
    assert {"json", "model_config", "_hidden"} < set(found["properties"])


def test_what_refers_to_itself_keeps_its_references():
    def plant(tree: Tree) -> None: ...

    assert "$defs" in schema(plant)


def test_a_default_that_is_no_json_and_one_that_is_none():
    marker = object()

    def find(name: str = None, other: Any = marker) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    found = properties(find)
    assert found["name"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert found["other"] == {}


def test_nothing_at_all():
    assert schema(lambda_like) == {"type": "object", "properties": {}, "additionalProperties": False}


def lambda_like() -> None: ...


def test_the_call_is_given_and_not_seen_though_it_is_imported_for_types_alone():
    def look(day: date, call: Call) -> None: ...

    found = made(look)
    assert set(found.parameters["properties"]) == {"day"}
    assert found.details.call == "call"


def test_types_that_are_known_only_where_the_function_stands():
    class Here(BaseModel):
        x: int

    @tool(effect="read")
    def look(here: Here) -> None: ...

    assert look.parameters["properties"]["here"]["properties"] == {"x": {"type": "integer"}}


class Desk:
    def __init__(self) -> None:
        self.booked: list[str] = []

    @tool(effect="commit", limit=3, announce=False)
    async def book(self, name: str) -> str:
        """Book a table."""
        self.booked.append(name)
        return name

    async def cancel(self, name: str) -> None:
        """Cancel it."""

    @staticmethod
    @tool(effect="read")
    def menu(day: date) -> str:
        return ""

    @tool(effect="read")
    @staticmethod
    def wine(day: date) -> str:
        return ""


async def test_methods(virtual_time: object) -> None:
    desk = Desk()
    assert list(desk.book.parameters["properties"]) == ["name"]
    assert (desk.book.limit, desk.book.announce, desk.book.effect) == (3.0, False, Effect.COMMIT)
    assert await desk.book("Ada") == "Ada"
    assert desk.booked == ["Ada"]
    bound = tool(effect="commit")(desk.cancel)
    assert (bound.name, bound.description) == ("cancel", "Cancel it.")
    assert list(bound.parameters["properties"]) == ["name"]
    for each in (Desk.menu, desk.menu, Desk.wine, desk.wine):
        assert list(each.parameters["properties"]) == ["day"]
        assert each.details.receiver is False


def test_a_tool_that_an_object_holds_is_not_bound_to_it():
    class Holder:
        look = made(lambda_like)

    assert Holder().look() is None


def test_options():
    key = Key("X_KEY", "https://x.example", "secret")
    found = made(lambda_like, name="look-up", description="  Looks.  ", keys=[key], effect=Effect.TERMINAL)
    assert (found.name, found.description, found.keys) == ("look-up", "Looks.", (key,))
    assert found.effect is Effect.TERMINAL
    assert "secret" not in repr(found)


def test_a_partial_and_an_object_that_can_be_called():
    def look(day: date, shop: str) -> str:
        return f"{day} {shop}"

    class Looks:
        async def __call__(self, day: date) -> str:
            return str(day)

    partial = made(functools.partial(look, shop="ours"), name="look")
    assert partial.parameters["required"] == ["day"]
    found = made(Looks(), name="looks")
    assert found.parameters["required"] == ["day"]
    assert not found.details.threaded
    assert partial.details.threaded


def a_plain(day: str) -> str:
    return day


async def many() -> Any:
    yield 1


def starred(*names: str) -> None: ...


def keywords(**names: str) -> None: ...


def untyped(day) -> None: ...  # type: ignore[no-untyped-def]


def positional(day: str, /) -> None: ...


def unusable(day: Callable[[], int]) -> None: ...


def custom(day: Desk) -> None: ...


def field_default(day: str = Field(description="x")) -> None: ...


def unknown(price: Decimal) -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (starred, "starred(*names)"),
        (keywords, "keywords(**names)"),
        (untyped, "untyped(day): say of what type"),
        (positional, "positional(day)"),
        (unusable, "unusable(day): a model cannot give"),
        (custom, "custom(day): a model cannot give Desk"),
        (field_default, "field_default(day): write day: Annotated"),
        (unknown, "Decimal of a parameter is not known"),
        (lambda: None, "'<lambda>'"),
        (many, "many yields"),
        (print, "print("),
    ],
)
def test_what_no_model_could_call(function: Callable[..., Any], says: str):
    with pytest.raises(DeclarationError) as error:
        made(function)
    assert says in str(error.value)
    assert "errors.pydantic.dev" not in str(error.value)


def test_the_effect_has_to_be_said():
    for make in (lambda: tool(a_plain), lambda: tool()(a_plain)):
        with pytest.raises(DeclarationError, match=r'@tool\(effect="read"\)'):
            make()
    with pytest.raises(DeclarationError, match='"commit"'):
        tool(effect="write")


@pytest.mark.parametrize(
    "options", [{"limit": 0}, {"limit": -1}, {"limit": True}, {"limit": float("inf")}, {"name": "a b"}]
)
def test_options_that_make_no_sense(options: dict[str, Any]):
    with pytest.raises(DeclarationError):
        made(a_plain, **options)


def test_a_tool_is_not_made_twice():
    with pytest.raises(DeclarationError, match="above a function"):
        made(made(a_plain))


PLAIN = """When we are open.

day: the day
    the caller asks about
at: the time
other: is no parameter

Closed on holidays."""
GOOGLE = """When we are open.

Closed on holidays.

Args:
    day (date): the day
        the caller asks about
    at: the time

Returns:
    A sentence.

Raises:
    day: never
"""
NUMPY = """When we are open.

Closed on holidays.

Parameters
----------
day : date
    the day
    the caller asks about
at
    the time

Returns
-------
str
    A sentence.
"""
SPHINX = """When we are open.

Closed on holidays.

:param day: the day
    the caller asks about
:param time at: the time
:returns: a sentence
:raises ValueError: never
"""


@pytest.mark.parametrize("style", [PLAIN, GOOGLE, NUMPY, SPHINX])
def test_docstrings(style: str):
    said, told = read(style, ("day", "at"))
    assert told == {"day": "the day the caller asks about", "at": "the time"}
    assert said.splitlines()[0] == "When we are open."
    assert said.splitlines()[-1] == "Closed on holidays."
    assert "sentence" not in said


def test_a_docstring_reaches_the_schema():
    def look(day: date, at: Annotated[time, Field(description="exactly")]) -> None: ...

    look.__doc__ = PLAIN
    found = properties(look)
    assert found["day"]["description"] == "the day the caller asks about"
    assert made(look).description.startswith("When we are open.\n")
    assert made(a_plain).description == ""
