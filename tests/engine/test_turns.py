"""The reducer: every state that can be reached, every evidence in it, every rule at the top of turns.py."""

from __future__ import annotations

from itertools import product

import pytest
from engine_laws import TurnsLaw, all_evidence, explore_turns, shape
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from voiceflow.engine.turns import (
    EagerEnd,
    Evidence,
    Floor,
    Hold,
    HoldAsked,
    HoldReleased,
    Kill,
    Open,
    Promote,
    Release,
    ReplyOver,
    ReplyStopped,
    Resumed,
    Retire,
    SayAsked,
    SpeechEnded,
    SpeechStarted,
    TurnBegan,
    TurnDrafted,
    TurnFinished,
    TurnResumed,
    Turns,
    reduce,
)


def test_every_state_keeps_every_rule() -> None:
    shapes, deepest = explore_turns()
    # FREE alone, live, held; SPEAKING; MAYBE_DONE with each of three texts. Nothing else can be reached,
    # so this is all of it, however long a call lasts.
    assert shapes == 7
    assert deepest <= 3


def test_every_path_of_four_steps_without_merging_states() -> None:
    """The same, but each path is walked by itself: no state is taken for another one."""
    edge: list[tuple[Turns, TurnsLaw]] = [(Turns(), TurnsLaw())]
    for _ in range(4):
        following = []
        for state, law in edge:
            for evidence in all_evidence(state):
                branch = law.copy()
                following.append((branch.step(state, evidence, reduce), branch))
        edge = following
    assert len(edge) > 10_000


def test_equal_shapes_behave_alike() -> None:
    """Numbers are labels: adding to all of them changes nothing but the numbers."""
    for live, held, draft in product((None, 0), (False, True), (None, 0)):
        for floor in Floor:
            small = Turns(floor, 1, None if live is None else 1, held, None if draft is None else 1, "a", 1)
            large = Turns(
                floor, 901, None if live is None else 501, held, None if draft is None else 501, "a", 501
            )
            for evidence in all_evidence(Turns()):
                if isinstance(evidence, ReplyOver):
                    continue
                one, other = reduce(small, evidence), reduce(large, evidence)
                assert shape(one[0]) == shape(other[0])
                assert [type(a) for a in one[1]] == [type(a) for a in other[1]]


class LongRuns(RuleBasedStateMachine):
    """The same law over long random lives, with texts and numbers of any kind."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Turns()
        self.law = TurnsLaw()

    def give(self, evidence: Evidence) -> None:
        self.state = self.law.step(self.state, evidence, reduce)

    @rule()
    def speech_started(self) -> None:
        self.give(SpeechStarted())

    @rule(text=st.sampled_from(["", "a", "b"]) | st.text(max_size=3))
    def eager_end(self, text: str) -> None:
        self.give(EagerEnd(text))

    @rule(text=st.sampled_from(["", "a", "b"]) | st.text(max_size=3))
    def speech_ended(self, text: str) -> None:
        self.give(SpeechEnded(text))

    @rule()
    def same_words_confirmed(self) -> None:
        self.give(SpeechEnded(self.state.draft_text))

    @rule(which=st.sampled_from([Resumed(), SayAsked(), HoldAsked(), HoldReleased(), ReplyStopped("x")]))
    def other(self, which: Evidence) -> None:
        self.give(which)

    @rule(number=st.integers(-1, 40))
    def any_reply_over(self, number: int) -> None:
        self.give(ReplyOver(number))

    @rule()
    def live_reply_over(self) -> None:
        self.give(ReplyOver(self.state.live or 0))


LongRuns.TestCase.settings = settings(
    max_examples=100, stateful_step_count=60, deadline=None, derandomize=True
)
test_long_runs = LongRuns.TestCase


# -- a few lives, told out: what the actions are and in which order


def actions(*evidence: Evidence) -> list[object]:
    state, done = Turns(), []
    for each in evidence:
        state, made = reduce(state, each)
        done.extend(made)
    return done


def test_a_turn_and_its_answer() -> None:
    assert actions(SpeechStarted(), SpeechEnded("hi"), ReplyOver(1)) == [
        TurnBegan(1),
        TurnFinished(1, "hi"),
        Open(1, draft=False, text="hi"),
        Retire(1),
    ]


def test_a_barge_in_kills_before_the_turn_begins() -> None:
    assert actions(SpeechEnded("a"), SpeechStarted())[-2:] == [Kill(1, "barge-in"), TurnBegan(2)]


def test_a_confirmed_draft_is_promoted_and_not_opened_again() -> None:
    assert actions(SpeechStarted(), EagerEnd("a"), SpeechEnded("a")) == [
        TurnBegan(1),
        TurnDrafted(1, "a"),
        Open(1, draft=True, text="a"),
        TurnFinished(1, "a"),
        Promote(1),
    ]


def test_a_draft_of_other_words_is_replaced() -> None:
    assert actions(SpeechStarted(), EagerEnd("a"), EagerEnd("b"), SpeechEnded("c"))[3:] == [
        Kill(1, "the caller's words changed"),
        TurnDrafted(1, "b"),
        Open(2, draft=True, text="b"),
        Kill(2, "the caller's words changed"),
        TurnFinished(1, "c"),
        Open(3, draft=False, text="c"),
    ]


@pytest.mark.parametrize("again", [Resumed(), SpeechStarted()])
def test_a_resumed_turn_has_no_draft(again: Evidence) -> None:
    assert actions(SpeechStarted(), EagerEnd("a"), again, SpeechEnded("a"))[3:] == [
        Kill(1, "the caller went on"),
        TurnResumed(1),
        TurnFinished(1, "a"),
        Open(2, draft=False, text="a"),
    ]


def test_an_end_whose_start_went_unnoticed_is_a_whole_turn_and_a_barge_in() -> None:
    assert actions(SpeechEnded("a"), SpeechEnded("b"))[3:] == [
        Kill(1, "barge-in"),
        TurnBegan(2),
        TurnFinished(2, "b"),
        Open(2, draft=False, text="b"),
    ]


def test_say_waits_for_a_free_floor() -> None:
    opened = Open(1, draft=False, text="", prompted=False)
    assert actions(SayAsked()) == [opened]
    assert actions(SayAsked(), SayAsked()) == [opened]
    assert actions(SpeechStarted(), SayAsked()) == [TurnBegan(1)]


def test_a_hold_ends_with_release_or_with_the_callers_words() -> None:
    held = actions(SayAsked(), HoldAsked())
    assert held[-1] == Hold(1)
    assert actions(SayAsked(), HoldAsked(), HoldReleased())[-1] == Release(1)
    assert actions(SayAsked(), HoldAsked(), SpeechStarted())[-2:] == [Kill(1, "barge-in"), TurnBegan(1)]
    assert actions(SayAsked(), HoldAsked(), HoldAsked()) == held
    assert actions(SayAsked(), HoldAsked(), ReplyOver(1), HoldReleased())[-1] == Retire(1)
