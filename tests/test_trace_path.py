"""The arithmetic of paths: parts that sum, numbers that are shown, round ticks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceflow.trace.path import MAKING, ORDER, Path, Step
from voiceflow.trace.text import plain, shorten, tail, whole
from voiceflow.trace.ticks import ticks

TIMES = st.floats(0, 3600, allow_nan=False)


def path(**at: float) -> Path:
    found = Path(1, 1)
    for name, when in at.items():
        step = Step[name.upper()]
        found.mark(step, when, f"owner of {step.value}")
    return found


@given(st.dictionaries(st.sampled_from(ORDER), TIMES))
def test_parts_sum_to_the_gap_whatever_the_times(at):
    """Also when steps are missing, came together or in another order, as with drafts and fillers."""
    it = Path(1, 1)
    for step, when in at.items():
        it.mark(step, when, "x")
    parts = it.parts()
    assert all(part.microseconds >= 0 for part in parts)
    assert [part.step for part in parts] == sorted({part.step for part in parts}, key=ORDER.index)
    if Step.HEARD not in at:
        assert it.gap is None
        return
    assert it.gap == sum(part.microseconds for part in parts) / 1e6
    counted = [at[step] for step in it._counted()]
    assert it.gap == pytest.approx(max(counted) - counted[0], abs=2e-6)


@given(st.lists(TIMES, min_size=len(ORDER), max_size=len(ORDER)))
def test_in_order_the_gap_is_from_the_last_word_to_the_ear(times):
    times.sort()
    it = Path(1, 1)
    for step, when in zip(ORDER, times, strict=True):
        it.mark(step, when, "x")
    assert len(it.parts()) == len(ORDER) - 1
    assert it.gap == pytest.approx(times[-1] - times[0], abs=2e-6)


@pytest.mark.parametrize(
    ("opened", "at", "saved"),
    [
        (1.0, {"first_audio": 1.2, "end_of_turn": 1.5, "heard": 1.6}, 0.2),  # ready: no more than that takes
        (1.0, {"end_of_turn": 1.25, "first_audio": 1.5, "heard": 1.6}, 0.25),  # half ready: the head start
        (1.0, {"end_of_turn": 1.25, "heard": 1.6}, 0.25),
        (1.3, {"end_of_turn": 1.25, "first_audio": 1.5, "heard": 1.6}, 0.0),
        (1.0, {"first_audio": 1.2, "end_of_turn": 1.5}, None),  # not heard
        (1.0, {"first_audio": 1.2}, None),  # dropped
    ],
)
def test_what_a_draft_saves(opened, at, saved):
    it = path(**at)
    assert it.saved is None, "it is no draft"
    it.draft, it.opened = True, opened
    assert it.saved == (saved if saved is None else pytest.approx(saved))


def test_the_first_time_counts():
    it = path(first_audio=1.0)
    it.mark(Step.FIRST_AUDIO, 0.5, "another")
    assert (it.at[Step.FIRST_AUDIO], it.owner[Step.FIRST_AUDIO]) == (1.0, "owner of first audio")


def test_who_ends_a_part_owns_it():
    it = path(last_speech=1.0, end_of_turn=1.25, first_audio=1.5, heard=1.75)
    assert [(part.owner, part.seconds) for part in it.parts()] == [
        ("owner of end of turn", 0.25),
        ("owner of first audio", 0.25),
        ("owner of heard", 0.25),
    ]


def test_what_was_made_after_the_audio_is_not_on_the_way():
    it = path(
        last_speech=1.0, end_of_turn=1.1, first_token=9.0, first_sentence=9.5, first_audio=1.2, heard=1.3
    )
    assert not {part.step for part in it.parts()} & set(MAKING)
    assert it.gap == pytest.approx(0.3)


def test_nothing_is_known():
    assert (Path(1, 1).parts(), Path(1, 1).gap, Path(1, 1).since) == ([], None, None)
    assert path(end_of_turn=1.0).gap is None


@given(st.lists(st.floats(0, 10_000), max_size=8))
def test_whole_numbers_sum_as_the_real_ones_do(parts):
    assert sum(whole(parts)) == round(sum(parts))
    assert all(abs(number - part) < 1.001 for number, part in zip(whole(parts), parts, strict=True))


@given(st.floats(1e-6, 1e12), st.integers(3, 20))
def test_ticks(longest, most):
    found = ticks(longest, most)
    assert found[0] == 0
    assert found == sorted(found)
    assert 1 <= len(found) <= most + 1
    assert found[-1] <= longest * 1.000001
    assert len(found) > 1


def test_ticks_are_round():
    assert ticks(1431, 6) == [0, 500, 1000]
    assert ticks(0.7, 8) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert ticks(0, 5) == [0]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("two\nlines\tand  tabs", "two lines and tabs"),
        ("\x1b[31mred\x1b[0m \x07 bell\x00", "[31mred [0m bell"),
        ("a\u202egpj.exe\u2066b", "a gpj.exe b"),
        ("half \ud800 a pair", "half a pair"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("שלום", "שלום"),
    ],
)
def test_what_strangers_say_fits_on_a_line(said, shown):
    assert plain(said) == shown


def test_shortened():
    assert shorten("Good morning to you", 10) == "Good morn…"
    assert tail("Good morning to you", 10) == "…ng to you"
    assert shorten("short", 10) == tail("short", 10) == "short"
    assert len(shorten("x" * 50, 1)) <= 1
