from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.silero.hysteresis import Hysteresis, Started, Stopped
from voiceflow.errors import DeclarationError

WINDOW = 256
Decision = Started | Stopped

HIGH, MIDDLE, LOW = 0.9, 0.4, 0.05  # voice, between the thresholds, silence

PROBABILITIES = st.lists(
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.35, 0.5, 1.0, HIGH, MIDDLE, LOW])), max_size=120
)
SECONDS = st.sampled_from([0.0, 0.001, 0.03, 0.032, 0.064, 0.1, 0.2, 0.5])


def decide(probabilities: list[float], hysteresis: Hysteresis) -> list[tuple[int, Decision]]:
    """Every decision with the index of the window that completed it."""
    fed = ((i, hysteresis.feed(p, (i + 1) * WINDOW)) for i, p in enumerate(probabilities))
    return [(i, decision) for i, decision in fed if decision]


def letters(text: str) -> list[float]:
    """ "hhml" as probabilities."""
    return [{"h": HIGH, "m": MIDDLE, "l": LOW}[letter] for letter in text]


def by_regular_expression(
    probabilities: list[float], min_speech: float, min_silence: float, padding: float
) -> list[tuple[int, Decision]]:
    """The same semantics said in another way: the oracle of the property test."""
    text = "".join("h" if p >= 0.5 else "l" if p < 0.35 else "m" for p in probabilities)
    windows = {s: max(1, math.ceil(round(s * 8_000) / WINDOW)) for s in (min_speech, min_silence)}
    start = re.compile(f"h[hm]{{{windows[min_speech] - 1}}}")
    stop = re.compile(f"l[lm]{{{windows[min_silence] - 1}}}")
    found: list[tuple[int, Decision]] = []
    position, last_stop = 0, 0
    while match := start.search(text, position):
        at = max(match.start() * WINDOW - round(padding * 8_000), last_stop)
        found.append((match.end() - 1, Started(at)))
        match = stop.search(text, match.end())
        if match is None:
            break
        position, last_stop = match.end(), match.start() * WINDOW
        found.append((match.end() - 1, Stopped(last_stop)))
    return found


# -- what is decided, and when -------------------------------------------------------------------


def test_a_voice_is_believed_after_two_windows_and_dated_back_to_its_beginning() -> None:
    assert decide(letters("llllhh"), Hysteresis()) == [(5, Started(4 * WINDOW - 240))]


def test_a_start_is_never_before_the_stream() -> None:
    assert decide(letters("hh"), Hysteresis()) == [(1, Started(0))]


def test_a_start_is_never_before_the_end_of_the_voice_before() -> None:
    decisions = decide(letters("hh" + "l" + "hh"), Hysteresis(min_silence=0, padding=1.0))
    assert decisions == [(1, Started(0)), (2, Stopped(2 * WINDOW)), (4, Started(2 * WINDOW))]


def test_a_click_of_one_window_is_no_voice() -> None:
    assert decide(letters("llhlllhlhlhl"), Hysteresis()) == []


def test_between_the_thresholds_a_tentative_start_goes_on() -> None:
    assert decide(letters("lhm"), Hysteresis(padding=0)) == [(2, Started(WINDOW))]
    assert decide(letters("lmmmm"), Hysteresis()) == []


def test_the_first_window_decides_when_no_length_is_asked_for() -> None:
    assert decide(letters("lh"), Hysteresis(min_speech=0, padding=0)) == [(1, Started(WINDOW))]


def test_a_voice_stops_after_seven_windows_of_silence_and_is_dated_back() -> None:
    assert decide(letters("hhh" + "l" * 7), Hysteresis()) == [(1, Started(0)), (9, Stopped(3 * WINDOW))]


def test_a_short_pause_does_not_stop_a_voice() -> None:
    assert decide(letters("hh" + "llllllh" * 5), Hysteresis()) == [(1, Started(0))]


def test_between_the_thresholds_a_tentative_end_goes_on() -> None:
    assert decide(letters("hhlmmmmmm"), Hysteresis())[1:] == [(8, Stopped(2 * WINDOW))]
    assert decide(letters("hh" + "m" * 50), Hysteresis())[1:] == []


def test_other_windows_and_rates() -> None:
    hysteresis = Hysteresis(window=512, rate=16_000, padding=0.016)
    assert hysteresis.feed(HIGH, 5_120) is None
    assert hysteresis.feed(HIGH, 5_632) == Started(5_120 - 512 - 256)


def test_a_gap_in_the_audio_counts_as_time() -> None:
    hysteresis = Hysteresis(padding=0)
    assert hysteresis.feed(HIGH, 1_000) is None
    assert hysteresis.feed(HIGH, 9_000) == Started(744)


# -- what always holds ---------------------------------------------------------------------------


@settings(deadline=None)
@given(PROBABILITIES, SECONDS, SECONDS, SECONDS)
def test_decisions_are_those_of_the_regular_expressions(
    probabilities: list[float], min_speech: float, min_silence: float, padding: float
) -> None:
    hysteresis = Hysteresis(min_speech=min_speech, min_silence=min_silence, padding=padding)
    expected = by_regular_expression(probabilities, min_speech, min_silence, padding)
    assert decide(probabilities, hysteresis) == expected


@settings(deadline=None)
@given(
    PROBABILITIES,
    st.floats(0.02, 0.98),
    st.floats(0.02, 1.0),
    st.lists(st.integers(1, 1_000), min_size=120, max_size=120),
)
def test_starts_and_stops_alternate_and_positions_never_go_back(
    probabilities: list[float], start: float, share: float, steps: list[int]
) -> None:
    hysteresis = Hysteresis(start_threshold=start, stop_threshold=start * share)
    end, decisions = 0, []
    for probability, step in zip(probabilities, steps, strict=False):
        end += step
        decision = hysteresis.feed(probability, end)
        if decision:
            assert 0 <= decision.at < end
            assert hysteresis.speaking is isinstance(decision, Started)
            decisions.append(decision)
    kinds = [type(decision) for decision in decisions]
    assert kinds == [Started, Stopped] * (len(kinds) // 2) + [Started] * (len(kinds) % 2)
    assert all(before.at <= after.at for before, after in pairwise(decisions))


@settings(deadline=None)
@given(st.lists(st.floats(0, 0.5, exclude_max=True)))
def test_nothing_starts_below_the_start_threshold(probabilities: list[float]) -> None:
    assert decide(probabilities, Hysteresis()) == []


@settings(deadline=None)
@given(PROBABILITIES)
def test_silence_always_ends_a_voice(probabilities: list[float]) -> None:
    hysteresis = Hysteresis()
    decide([*probabilities, *letters("l" * 7)], hysteresis)
    assert not hysteresis.speaking


# -- resets only in quiet ------------------------------------------------------------------------


def resets(probabilities: list[float]) -> list[int]:
    """The windows after which the network would be reset."""
    hysteresis, found = Hysteresis(), []
    for i, probability in enumerate(probabilities):
        hysteresis.feed(probability, (i + 1) * WINDOW)
        if hysteresis.take_reset():
            found.append(i)
    return found


def test_silence_is_reset_every_two_seconds() -> None:
    assert resets(letters("l" * 190)) == [62, 125, 188]


def test_a_reset_waits_for_five_quiet_windows_after_the_voice() -> None:
    assert resets(letters("h" * 80 + "l" * 20)) == [86]  # the seventh silent window ends the voice
    assert resets(letters("m" * 80 + "l" * 20)) == [84]  # nobody spoke: the fifth is enough


def test_noise_and_voice_are_never_reset() -> None:
    assert resets([0.2] * 300) == []
    assert resets(letters("hhhhllllll" * 30)) == []


@settings(deadline=None)
@given(PROBABILITIES)
def test_a_reset_is_never_in_speech_nor_soon_after_the_last(probabilities: list[float]) -> None:
    hysteresis, last = Hysteresis(), 0
    for i, probability in enumerate(probabilities * 3):
        end = (i + 1) * WINDOW
        hysteresis.feed(probability, end)
        was_quiet = hysteresis.quiet
        if hysteresis.take_reset():
            assert was_quiet
            assert not hysteresis.speaking
            assert max((probabilities * 3)[i - 4 : i + 1]) < 0.1
            assert end - last >= 16_000
            last = end


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"start_threshold": 0.0}, "between 0 and 1"),
        ({"start_threshold": 50}, "between 0 and 1"),
        ({"start_threshold": math.nan}, "between 0 and 1"),
        ({"stop_threshold": 0.0}, "above 0"),
        ({"stop_threshold": 0.6}, "at most start_threshold"),
        ({"min_speech": -0.1}, "min_speech is in seconds"),
        ({"min_silence": 200}, "200 ms is written 0.2"),
        ({"padding": math.inf}, "padding is in seconds"),
        ({"window": 0}, "window is a number of samples"),
        ({"rate": 0}, "rate is a number of samples"),
    ],
)
def test_parameters_that_cannot_work_are_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        Hysteresis(**parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize("probability", [-0.01, 1.01, math.nan])
def test_what_is_no_probability_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        Hysteresis().feed(probability, WINDOW)


def test_windows_out_of_order_are_refused() -> None:
    hysteresis = Hysteresis()
    hysteresis.feed(LOW, 512)
    with pytest.raises(ValueError, match="in order"):
        hysteresis.feed(LOW, 512)
