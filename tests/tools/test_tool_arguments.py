"""What models send as arguments: what the function is given, and the words of a refusal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, time
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field

from voiceflow import Call, Tool, tool
from voiceflow.tools.arguments import LONGEST, Refusal, validated


class Guest(BaseModel):
    name: str
    age: int = 0


@dataclass
class Dish:
    title: str


def known(name: str) -> str:
    if name == "boom":
        raise RuntimeError("secret")
    if name != "Ada":
        raise ValueError("there is no such guest")
    return name


@tool(effect="commit")
async def book(
    day: date,
    call: Call,
    at: time = time(19),
    kind: Literal["lunch", "dinner"] = "dinner",
    people: Annotated[int, Field(ge=1)] = 2,
    guests: list[Guest] = [],  # noqa: B006
    json: Dish | None = None,
    name: Annotated[str, AfterValidator(known)] = "Ada",
) -> None: ...


@tool(effect="read")
def nothing() -> None: ...


def given_to(of: Tool, arguments: str) -> dict[str, Any]:
    found = validated(of, arguments)
    assert isinstance(found, dict), found
    return found


def refused(arguments: Any) -> str:
    found = validated(book, arguments if isinstance(arguments, str) else json.dumps(arguments))
    assert isinstance(found, Refusal), found
    assert "pydantic" not in found.words
    assert "http" not in found.words
    assert len(found.words.splitlines()) <= 6
    assert len(found.words) < 1200
    return found.words


def test_only_what_was_sent_is_passed_on():
    assert given_to(book, '{"day": "2026-11-23"}') == {"day": date(2026, 11, 23)}
    sent = {"day": "2026-11-23", "at": "20:30", "kind": "lunch", "people": "3"}
    assert given_to(book, json.dumps(sent)) == {
        "day": date(2026, 11, 23), "at": time(20, 30), "kind": "lunch", "people": 3,
    }  # fmt: skip


def test_models_come_as_what_they_are():
    sent = {"day": "2026-11-23", "guests": [{"name": "Ada"}], "json": {"title": "rye"}}
    found = given_to(book, json.dumps(sent))
    assert found["guests"] == [Guest(name="Ada")]
    assert found["json"] == Dish("rye")


@pytest.mark.parametrize("arguments", ["", "  \n", "{}", "null"])
def test_no_arguments(arguments: str):
    assert given_to(nothing, arguments) == {}


def test_a_default_of_the_annotation_is_passed_on():
    @tool(effect="read")
    def look(names: Annotated[list[str], Field(default_factory=list)]) -> None: ...

    assert given_to(look, "") == {"names": []}


def test_words_for_the_model():
    assert refused("") == "The arguments are wrong:\nday: it is missing"
    assert refused({"day": "2026-11-23", "colour": "red"}).endswith("colour: there is no such argument")
    assert refused({"day": "2026-11-23", "call": "x"}).endswith("call: there is no such argument")
    assert "kind: it should be 'lunch' or 'dinner'" in refused({"day": "2026-11-23", "kind": "tea"})
    assert "day: it should be a valid date" in refused({"day": "tomorrow"})
    assert "guests.0.name: it is missing" in refused({"day": "2026-11-23", "guests": [{}]})
    assert refused({"day": "2026-11-23", "name": "Bob"}).endswith("name: there is no such guest")
    assert refused({"day": "2026-11-23", "name": "boom"}).endswith("(RuntimeError).")


def test_many_mistakes_are_not_all_told():
    assert refused({f"x{i}": i for i in range(500)}).endswith("and 497 more")


@pytest.mark.parametrize(
    "arguments", ["{", "day=2026", '{"day": "x"', "{'day': 1}", '{"day": NaN}', "\ud800", '"\\ud800"']
)
def test_no_json(arguments: str):
    assert "not valid JSON" in refused(arguments)


@pytest.mark.parametrize("arguments", ["[]", '"{}"', "3", "true"])
def test_no_object(arguments: str):
    assert "one JSON object" in refused(arguments)


def test_too_long_and_too_deep():
    assert "too long" in refused(" " * (LONGEST + 1))
    assert "not valid JSON" in refused('{"day":' + "[" * 9000 + "]" * 9000 + "}")
    assert "not valid JSON" in refused("[" * 19_000)


@given(st.text(max_size=200))
def test_any_text(text: str):
    found = validated(book, text)
    assert isinstance(found, Refusal) or "day" in found


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    st.sampled_from(["day", "at", "kind", "people", "guests", "json", "name", "other"]),
)
def test_any_value(value: Any, place: str):
    found = validated(book, json.dumps({"day": "2026-11-23", place: value}))
    assert isinstance(found, dict) or len(found.words) < 1200
