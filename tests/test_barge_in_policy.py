"""The policy `backchannels`: recorded cases, and what must hold for any words."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.barge_in import BACKCHANNELS, Attempt, Verdict, backchannels, normalised
from processors.barge_in.policy import DEMANDS

CASES = json.loads((Path(__file__).parent / "golden" / "barge_in.json").read_text())["cases"]
PARTS = {word for phrase in BACKCHANNELS for word in phrase.split()}
ORDER = {Verdict.IGNORE: 0, Verdict.WAIT: 1, Verdict.INTERRUPT: 2}


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 60
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_recorded_case(case: dict[str, Any]) -> None:
    lines = case["heard_as"]
    for line in lines:
        attempt = Attempt(
            normalised(line["text"]),
            line["at"],
            not (case.get("over", False) and line is lines[-1]),
            case["heard"],
            case["left"],
            case.get("question", False),
            case.get("probability"),
        )
        assert backchannels(attempt).name.lower() == line["verdict"], line


def test_words_are_compared_without_marks() -> None:
    assert normalised(" Uh-huh, THAT'S it -- ok? ") == ("uhhuh", "thats", "it", "ok")
    assert normalised("...") == normalised("") == ()


def test_the_words_can_be_replaced() -> None:
    polish = partial(backchannels, words=frozenset({"tak", "no tak"}), demands=frozenset({"stop"}))
    assert polish(Attempt(("no", "tak"), left=9.0)) is Verdict.IGNORE
    assert polish(Attempt(("no",), left=9.0)) is Verdict.WAIT
    assert polish(Attempt(("yeah",), left=9.0)) is Verdict.INTERRUPT
    assert backchannels(Attempt(("mm",), left=9.0), words=frozenset()) is Verdict.INTERRUPT


word = st.sampled_from(sorted(PARTS | DEMANDS)) | st.text("abcdefg", min_size=1, max_size=7)
attempts = st.builds(
    Attempt,
    words=st.lists(word, max_size=8).map(tuple),
    seconds=st.floats(0, 10),
    speaking=st.booleans(),
    heard=st.floats(0, 60),
    left=st.none() | st.floats(0, 60),
    question=st.booleans(),
    probability=st.none() | st.floats(0, 1),
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(attempts, st.lists(st.text("hijkl", min_size=8, max_size=9), min_size=1, max_size=3))
def test_more_words_never_make_it_less_of_an_interruption(attempt: Attempt, more: list[str]) -> None:
    before = backchannels(attempt)
    after = backchannels(replace(attempt, words=(*attempt.words, *more)))
    assert not (before is Verdict.INTERRUPT and after is not Verdict.INTERRUPT)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(attempts)
def test_it_always_decides_once_the_voice_is_over(attempt: Attempt) -> None:
    over = backchannels(replace(attempt, speaking=False))
    assert over is not Verdict.WAIT
    assert ORDER[over] >= ORDER[backchannels(attempt)] or not attempt.words
    assert attempt.words or over is Verdict.IGNORE, "noise alone never interrupts"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(attempts, st.floats(0, 60))
def test_a_longer_voice_is_never_less_of_an_interruption(attempt: Attempt, longer: float) -> None:
    later = backchannels(replace(attempt, seconds=attempt.seconds + longer))
    assert ORDER[later] >= ORDER[backchannels(attempt)]
