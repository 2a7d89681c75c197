"""Tools without IO: calls put together from what servers send, and conversations with tools in them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processors.openai import chat
from processors.openai.calls import MOST_CALLS, MOST_TEXT, Calls
from processors.openai.chat import Earlier, Reading
from tests.tool_talks import trouble
from voiceflow import Prompt
from voiceflow.engine.history import Entry, Message
from voiceflow.tools.tool import Effect, tool
from voiceflow.tools.use import Requested, ToolUse, UseState

DAY = '{"day": "Monday"}'


def fragment(id: str | None = None, name: str | None = None, arguments: Any = None, **more: Any) -> Any:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**more, **({"id": id} if id is not None else {}), "function": function}


def read(*deltas: list[Any]) -> list[tuple[str, str, str]]:
    """The calls in these deltas."""
    calls, ids = Calls(), itertools.count(1)
    for delta in deltas:
        calls.feed(delta)
    assert not calls.excess
    return [(r.id, r.name, r.arguments) for r in calls.requested(lambda: f"made{next(ids)}")]


# -- fragments

OPENAI = (
    [fragment("c1", "book", "", index=0, type="function")],
    [fragment(arguments='{"day": ', index=0)],
    [fragment(arguments='"Monday"}', index=0)],
    [fragment("c2", "hours", "", index=1)],
    [fragment(arguments="{}", index=1)],
)
GEMINI = ([fragment("c1", "book", DAY)], [fragment("c2", "hours", "{}")])
WHOLE = ([fragment("c1", "book", {"day": "Monday"}), fragment("c2", "hours", {})],)
MANNERS = {
    "OpenAI": OPENAI,
    "no index, whole": GEMINI,
    "no index, in pieces": [
        [{key: value for key, value in each.items() if key != "index"} for each in delta] for delta in OPENAI
    ],
    "an empty id where there is none": [
        [{"id": "", "type": "", **each} for each in delta] for delta in OPENAI
    ],
    "always 0": [[{**each, "index": 0} for each in delta] for delta in OPENAI],
    "always 0, whole": [[{**each, "index": 0} for each in delta] for delta in GEMINI],
    "objects, in one delta": WHOLE,
    "objects, in one delta, always 0": [[{**each, "index": 0} for each in WHOLE[0]]],
    "the id in every fragment": [
        [{**each, "id": "c1" if each["index"] == 0 else "c2"} for each in delta] for delta in OPENAI
    ],
    "the id in every fragment, no index": [
        [{"id": "c1" if each["index"] == 0 else "c2", "function": each["function"]} for each in delta]
        for delta in OPENAI
    ],
    "another id in every fragment": [
        [{"id": f"c{place}", **each} for each in delta] for place, delta in enumerate(OPENAI, 10)
    ],
    "the name in every fragment": [
        [
            {**each, "function": {"name": "book" if each["index"] == 0 else "hours", **each["function"]}}
            for each in delta
        ]
        for delta in OPENAI
    ],
    "the name in pieces": [
        [fragment("c1", "bo", index=0)],
        [fragment(name="ok", index=0)],
        *OPENAI[1:3],
        [fragment("c2", "ho", index=1)],
        [fragment(None, "urs", "{}", index=1)],
    ],
    "interleaved": [OPENAI[0], OPENAI[3], OPENAI[1], OPENAI[4], OPENAI[2]],
}


@pytest.mark.parametrize("manner", MANNERS)
def test_every_server_s_manner_is_understood(manner: str) -> None:
    book, hours = read(*MANNERS[manner])
    assert (book[0], book[1], json.loads(book[2])) == ("c1", "book", {"day": "Monday"})
    assert hours == ("c2", "hours", "{}")


def test_ids_are_made_where_there_are_none() -> None:
    assert read([fragment(None, "a", "{}"), fragment(None, "b", {})], [fragment(None, "c", {})]) == [
        ("made1", "a", "{}"),
        ("made2", "b", "{}"),
        ("made3", "c", "{}"),
    ]
    assert read([fragment(None, "a", "{", index=0)], [fragment(arguments="}", index=0)]) == [
        ("made1", "a", "{}")
    ]


def test_an_id_that_comes_twice_is_made_anew() -> None:
    twice = read([fragment("c", "a", "{}", index=0)], [fragment("c", "b", "{}", index=1)])
    assert twice == [("c", "a", "{}"), ("made1", "b", "{}")]


def test_no_arguments_are_an_empty_object() -> None:
    assert read([fragment("c", "hours", index=0)]) == [("c", "hours", "{}")]
    nothings: tuple[Any, ...] = (" \n", "null", {})
    for nothing in nothings:
        assert read([fragment("c", "hours", nothing, index=0)]) == [("c", "hours", "{}")]


def test_what_says_nothing_is_no_call() -> None:
    assert read([{}, {"index": 0}, None, 3, {"function": None}, fragment("", "", "")]) == []
    assert read([{"index": 0, "type": "function"}]) == []


def test_characters_that_came_in_halves() -> None:
    halves = [fragment("c", "say", '{"x": "\ud83d', index=0)], [fragment(arguments='\ude00"}', index=0)]
    (call,) = read(*halves)
    assert call[2] == '{"x": "\U0001f600"}'
    (call,) = read([fragment("c", "say\udc00", '{"x": "\ud83d"}', index=0)])
    assert (call[1], call[2]) == ("say\ufffd", '{"x": "\ufffd"}')


def test_there_is_a_bound() -> None:
    calls = Calls()
    for number in range(200):
        calls.feed([fragment(f"c{number}", "book", "{}", index=number)])
    assert (len(calls), calls.excess) == (MOST_CALLS + 1, "more than 64 calls of functions in one answer")
    calls = Calls()
    for _ in range(200):
        calls.feed([fragment("c", "book", "x" * 1000, index=0)])
    assert calls.excess == f"more than {MOST_TEXT} characters of calls of functions in one answer"
    assert len(calls.requested(lambda: "id")[0].arguments) <= MOST_TEXT + 1000


def test_the_old_kind_of_call_is_passed_over() -> None:
    reading = Reading()
    delta = {"content": "Hi", "function_call": {"name": "book", "arguments": "{}"}}
    assert reading.feed({"choices": [{"delta": delta}]}) == "Hi"
    assert not reading.calls


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "a", "b", "{}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["index", "id", "function", "name"]), inner, max_size=4)
    ),
    max_leaves=20,
)
FRAGMENT = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 3) | st.none(),
        "id": st.sampled_from(["", "a", "b"]) | JSON,
        "function": st.fixed_dictionaries(
            {}, optional={"name": st.text(max_size=3) | JSON, "arguments": st.text(max_size=9) | JSON}
        ),
    },
)


@settings(deadline=None)
@given(st.lists(JSON | st.lists(FRAGMENT | JSON, max_size=4), max_size=6))
def test_no_fragment_is_too_strange(deltas: list[Any]) -> None:
    calls, ids = Calls(), itertools.count()
    for delta in deltas:
        calls.feed(delta)
    found = calls.requested(lambda: f"made{next(ids)}")
    assert len({each.id for each in found}) == len(found) == len(calls)
    uses = tuple(ToolUse(each, Effect.READ) for each in found)
    if uses:
        assert trouble(chat.messages("", Prompt("Hi"), [Earlier("", uses)])) == ""


# -- the conversation


def use(
    number: int, batch: int = 1, *, state: UseState = UseState.DONE, result: str = "ok", **asked: Any
) -> ToolUse:
    requested = Requested(f"c{number}", asked.get("name", "book"), asked.get("arguments", DAY))
    return ToolUse(requested, Effect.COMMIT, batch, state, result)


def call(number: int, name: str = "book", arguments: str = DAY) -> dict[str, Any]:
    return {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def result(number: int, content: str = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"c{number}", "content": content}


def test_calls_asked_for_at_once_are_one_message() -> None:
    history = (Message("user", "Book it."), use(1), use(2), use(3, batch=2), Message("assistant", "Done."))
    assert chat.messages("Be brief.", Prompt("Thanks.", history)) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Book it."},
        {"role": "assistant", "content": None, "tool_calls": [call(1), call(2)]},
        result(1),
        result(2),
        {"role": "assistant", "content": None, "tool_calls": [call(3)]},
        result(3),
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "Thanks."},
    ]


def test_calls_of_one_batch_with_words_between_them_are_two() -> None:
    history = (use(1), Message("user", "Hm."), use(2))
    found = chat.messages("", Prompt("Hi", history))
    assert [message["role"] for message in found] == ["assistant", "tool", "user"] * 2
    assert trouble(found) == ""


def test_what_runs_has_no_result_until_it_has_one() -> None:
    running = use(1, state=UseState.RUNNING)
    prompt = Prompt("Well?", (running,))
    assert chat.messages("", prompt)[1] == result(1, "Still running: there is no result yet.")
    running.result, running.state = "Booked.", UseState.DONE
    assert chat.messages("", prompt)[1] == result(1, "Booked.")


def test_the_rounds_of_a_reply_follow_the_caller_s_words() -> None:
    earlier = [Earlier(" Let me see.\n", (use(1),)), Earlier("", (use(2, 2),))]
    assert chat.messages("", Prompt("Book it."), earlier) == [
        {"role": "user", "content": "Book it."},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call(1)]},
        result(1),
        {"role": "assistant", "content": None, "tool_calls": [call(2)]},
        result(2),
    ]


def test_a_cue_is_the_system_s_word() -> None:
    prompt = Prompt(history=(Message("user", "Hi"),), cue="The caller is silent: ask whether he is there.")
    assert chat.messages("Be brief.", prompt) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": prompt.cue},
    ]
    assert chat.messages("Be brief.", prompt, alternate=True) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"Hi ({prompt.cue})"},
    ]


def test_templates_without_tools_are_told_in_words() -> None:
    words = [Message("assistant", "Hello."), Message("user", "Book it."), Message("assistant", "Yes.")]
    history = (*words[:2], use(1), words[2])
    found = chat.messages("", Prompt("And now?", history), [Earlier("Hm.", (use(2),))], alternate=True)
    told = f"(The result of book({DAY}): ok)"
    assert found == [
        {"role": "user", "content": "(The call begins.)"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": f"Book it. {told}"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "Hm."},
        {"role": "user", "content": told},
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "shown", "with_"),
    [
        ("book", '{"day": ', "book", '{"unreadable": "{\\"day\\": "}'),
        ("book", "[1]", "book", '{"unreadable": "[1]"}'),
        ("book", '{"x": NaN}', "book", '{"unreadable": "{\\"x\\": NaN}"}'),
        ("book", "[" * 100_000, "book", json.dumps({"unreadable": "[" * 100_000})),
        ("", "{}", "unknown", "{}"),
        ("functions.book it!", "{}", "functions_book_it_", "{}"),
        ("x" * 99, "{}", "x" * 64, "{}"),
    ],
)
def test_what_was_asked_badly_does_not_spoil_the_conversation(
    name: str, arguments: str, shown: str, with_: str
) -> None:
    found = chat.messages("", Prompt("Hi", (use(1, name=name, arguments=arguments),)))
    assert found[0]["tool_calls"] == [call(1, shown, with_)]
    assert trouble(found) == ""


ENTRY = st.one_of(
    st.builds(Message, st.sampled_from(["user", "assistant"]), st.text(min_size=1, max_size=5)),
    st.tuples(
        st.integers(1, 3),
        st.sampled_from(UseState),
        st.text(max_size=5),
        st.sampled_from(["book", "", "a b"]),
        st.sampled_from([DAY, "{}", "", "{", "null", '{"x": Infinity}']),
    ),
)


@settings(deadline=None)
@given(st.lists(ENTRY, max_size=12), st.lists(st.tuples(st.text(max_size=3), st.integers(1, 3)), max_size=4))
@example([], [])
def test_any_history_is_one_that_servers_take(entries: list[Any], rounds: list[tuple[str, int]]) -> None:
    ids = itertools.count()

    def made(batch: int, state: UseState, text: str, name: str, arguments: str) -> ToolUse:
        return ToolUse(Requested(f"c{next(ids)}", name, arguments), Effect.READ, batch, state, text)

    history: tuple[Entry, ...] = tuple(e if isinstance(e, Message) else made(*e) for e in entries)
    earlier = [
        Earlier(said, tuple(made(9, UseState.DONE, "ok", "book", DAY) for _ in range(count)))
        for said, count in rounds
    ]
    for prompt in (Prompt("Hi", history), Prompt(history=history, cue="Say hello.")):
        assert trouble(chat.messages("Be brief.", prompt, earlier)) == ""
        assert trouble(chat.messages("", prompt, earlier, alternate=True), alternate=True) == ""


# -- the request

LIMITS: dict[str, Any] = {"official": True, "temperature": None, "max_tokens": None, "stream_options": False}


def test_tools_in_the_request() -> None:
    @tool(effect="commit")
    def book(day: str) -> None:
        """Books a day."""

    asked = chat.body("m", [], {"parallel_tool_calls": False}, tools=[book], **LIMITS)
    function = {"name": "book", "description": "Books a day.", "parameters": book.parameters}
    assert asked["tools"] == [{"type": "function", "function": function}]
    json.dumps(asked)
    assert asked["parallel_tool_calls"] is False
    assert "tool_choice" not in asked
    last = chat.body("m", [], {"tool_choice": "required"}, tools=[book], withheld=True, **LIMITS)
    assert last["tool_choice"] == "none"
    assert last["tools"] == asked["tools"]


def test_without_tools_nothing_is_said_of_them() -> None:
    assert set(chat.body("m", [], {}, withheld=True, **LIMITS)) == {"model", "messages", "stream"}
