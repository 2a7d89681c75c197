"""The reducer: every state that can be reached, every evidence in it, every rule at the top of turns.py."""

from __future__ import annotations

from itertools import product

import pytest
from engine_laws import TurnsLaw, all_evidence, explore_turns, shape
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from voiceflow.engine.turns import (
    Doubt,
    DoubtConfirmed,
    DoubtDismissed,
    DoubtDropped,
    EagerEnd,
    Evidence,
    Floor,
    Hold,
    HoldAsked,
    HoldReleased,
    Judged,
    Kill,
    Open,
    Promote,
    ProtectionOver,
    Release,
    ReplyOver,
    ReplyStopped,
    Resumed,
    Retire,
    SayAsked,
    SpeechDoubted,
    SpeechEnded,
    SpeechKept,
    SpeechStarted,
    TurnBegan,
    TurnDrafted,
    TurnFinished,
    TurnResumed,
    Turns,
    WordsKept,
    reduce,
)


def test_every_state_keeps_every_rule() -> None:
    shapes, deepest = explore_turns()
    # FREE alone, live, held; SPEAKING; MAYBE_DONE with each of three texts: 7. The last four also with words
    # that were kept: 4. In doubt over a live reply: open and set aside, each held or not, and kept: 5. Over
    # words that were kept: the caller silent, or speaking again: 2. Nothing else can be reached, so this is
    # all of it, however long a call lasts.
    assert shapes == 18
    assert deepest <= 4


def test_every_short_path_without_merging_states() -> None:
    """The same, but each path is walked by itself: no state is taken for another one."""
    paths = 0

    def walk(state: Turns, law: TurnsLaw, steps: int) -> None:
        nonlocal paths
        paths += steps == 0
        for evidence in all_evidence(state) if steps else ():
            branch = law.copy()
            walk(branch.step(state, evidence, reduce), branch, steps - 1)

    walk(Turns(), TurnsLaw(), 3)
    speaking, law = Turns(), TurnsLaw()
    for evidence in (SpeechEnded("hi"), SpeechKept(), SpeechEnded("a")):  # where most can happen
        speaking = law.step(speaking, evidence, reduce)
    walk(speaking, law, 3)
    assert paths > 15_000


def test_equal_shapes_behave_alike() -> None:
    """Numbers are labels: adding to all of them changes nothing but the numbers."""
    for live, held, draft, doubt in product((None, 0), (False, True), (None, 0), Doubt):
        for floor in Floor:
            one, many = (None if live is None else 1), (None if live is None else 501)
            small = Turns(floor, 1, one, held, None if draft is None else 1, "a", 1, doubt)
            large = Turns(floor, 901, many, held, None if draft is None else 501, "a", 501, doubt)
            for evidence in all_evidence(Turns()):
                if isinstance(evidence, ReplyOver):
                    continue
                this, other = reduce(small, evidence), reduce(large, evidence)
                assert shape(this[0]) == shape(other[0])
                assert [type(a) for a in this[1]] == [type(a) for a in other[1]]


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

    @rule(which=st.sampled_from([SpeechDoubted(), SpeechKept(), DoubtConfirmed(), DoubtDismissed()]))
    def doubts(self, which: Evidence) -> None:
        self.give(which)

    @rule(which=st.sampled_from([DoubtDropped("mm"), ProtectionOver()]))
    def over(self, which: Evidence) -> None:
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


# -- in doubt

SPEAKS = (SpeechEnded("hi"),)
"""Reply 1 is live: it answers turn 1."""


def after(*evidence: Evidence) -> list[object]:
    """What is done once reply 1 is live."""
    return actions(*SPEAKS, *evidence)[len(actions(*SPEAKS)) :]


def test_a_doubt_that_is_confirmed_is_a_barge_in() -> None:
    assert after(SpeechDoubted(), DoubtConfirmed(), SpeechEnded("stop")) == [
        Judged(Doubt.OPEN),
        Kill(1, "barge-in"),
        TurnBegan(2),
        TurnFinished(2, "stop"),
        Open(2, draft=False, text="stop"),
    ]


def test_a_doubt_that_was_nothing_leaves_no_trace_but_its_own() -> None:
    assert after(SpeechDoubted(), HoldAsked(), DoubtDismissed(), DoubtDropped("uh-huh"), ReplyOver(1)) == [
        Judged(Doubt.OPEN),
        Hold(1),
        Judged(Doubt.ASIDE),
        Release(1),
        Judged(Doubt.NONE, "uh-huh"),
        Retire(1),
    ]


@pytest.mark.parametrize("judged", [(), (DoubtDismissed(),)])
def test_words_at_the_end_of_a_doubted_voice_are_a_whole_turn(judged: tuple[Evidence, ...]) -> None:
    assert after(SpeechDoubted(), *judged, SpeechEnded("what?"))[-4:] == [
        Kill(1, "barge-in"),
        TurnBegan(2),
        TurnFinished(2, "what?"),
        Open(2, draft=False, text="what?"),
    ]


def test_a_set_aside_voice_may_still_interrupt() -> None:
    assert after(SpeechDoubted(), DoubtDismissed(), DoubtConfirmed())[-2:] == [
        Kill(1, "barge-in"),
        TurnBegan(2),
    ]


@pytest.mark.parametrize("over", [ReplyOver(1), ReplyStopped("enough")])
def test_a_doubted_voice_has_the_floor_once_the_reply_is_over(over: Evidence) -> None:
    gone = Retire(1) if over == ReplyOver(1) else Kill(1, "enough")
    assert after(SpeechDoubted(), over, EagerEnd("so"), SpeechEnded("so"))[1:4] == [
        gone,
        TurnBegan(2),
        TurnDrafted(2, "so"),
    ]


def test_an_eager_end_in_doubt_drafts_nothing() -> None:
    assert after(SpeechDoubted(), EagerEnd("so"), Resumed()) == [Judged(Doubt.OPEN)]


def test_without_a_live_reply_there_is_nothing_to_doubt() -> None:
    assert actions(SpeechDoubted()) == actions(SpeechKept()) == [TurnBegan(1)]


# -- kept


def test_words_that_were_kept_are_answered_when_the_reply_may_be_interrupted() -> None:
    assert after(SpeechKept(), SpeechEnded("who?"), SpeechKept(), SpeechEnded("why?"), ProtectionOver()) == [
        Judged(Doubt.KEPT),
        WordsKept("who?"),
        Judged(Doubt.KEPT),
        WordsKept("why?"),
        Kill(1, "the caller spoke meanwhile"),
        TurnBegan(2),
        TurnFinished(2, "who? why?"),
        Open(2, draft=False, text="who? why?"),
    ]


@pytest.mark.parametrize("over", [ReplyOver(1), ReplyStopped("enough")])
def test_words_that_were_kept_are_answered_when_the_reply_is_over(over: Evidence) -> None:
    assert after(SpeechKept(), SpeechEnded("who?"), over)[-3:] == [
        TurnBegan(2),
        TurnFinished(2, "who?"),
        Open(2, draft=False, text="who?"),
    ]


@pytest.mark.parametrize("over", [ReplyOver(1), ReplyStopped("enough"), ProtectionOver(), SpeechStarted()])
def test_who_still_speaks_then_says_it_in_one_turn_with_what_was_kept(over: Evidence) -> None:
    assert after(
        SpeechKept(), SpeechEnded("who?"), SpeechKept(), over, EagerEnd("are"), SpeechEnded("are you?")
    )[-5:] == [
        TurnDrafted(2, "who? are"),
        Open(2, draft=True, text="who? are"),
        Kill(2, "the caller's words changed"),
        TurnFinished(2, "who? are you?"),
        Open(3, draft=False, text="who? are you?"),
    ]


def test_a_cough_after_kept_words_does_not_lose_them() -> None:
    assert after(SpeechKept(), SpeechEnded("who?"), SpeechKept(), DoubtDropped(), ProtectionOver())[-2:] == [
        TurnFinished(2, "who?"),
        Open(2, draft=False, text="who?"),
    ]


def test_a_voice_that_is_kept_releases_a_hold_and_cannot_be_held() -> None:
    assert after(HoldAsked(), SpeechKept(), HoldAsked()) == [Hold(1), Judged(Doubt.KEPT), Release(1)]


def test_a_kept_voice_may_be_doubted_once_the_reply_may_be_interrupted() -> None:
    assert after(SpeechKept(), SpeechDoubted(), DoubtDropped("mm")) == [
        Judged(Doubt.KEPT),
        Judged(Doubt.OPEN),
        Judged(Doubt.NONE, "mm"),
    ]
