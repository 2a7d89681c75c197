"""BargeIn in a running call: what is held, what goes on, what interrupts, what is kept. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.barge_in import Attempt, BargeIn, Verdict
from tests.engine.engine_calls import RATE, Phone, Speaker, phone
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.reply import Reply
from voiceflow.engine.turns import Doubt, Floor
from voiceflow.errors import DeclarationError
from voiceflow.frames import (
    AudioOut,
    Cleared,
    Overlap,
    ReplyEnd,
    Sentence,
    Transcript,
    TurnEnd,
    TurnStart,
    VoiceStart,
    VoiceStop,
    Word,
)
from voiceflow.testing import check_processor, run

WORDS = tuple(f"w{i}" for i in range(16))


class Hears(Processor):
    """Stands for detector and recogniser, moved by the test."""

    emits = (VoiceStart, VoiceStop, Transcript, Overlap)


class Sees(Processor):
    """What came of it."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    @tap(TurnStart, TurnEnd)
    def turn(self, frame: TurnStart | TurnEnd) -> None:
        self.told.append(frame.text if isinstance(frame, TurnEnd) else frame.turn)


class World:
    """A call with BargeIn, whose agent says sixteen words in eight seconds."""

    def __init__(self, p: Phone, hears: Hears, sees: Sees, barge_in: BargeIn) -> None:
        self.p, self.hears, self.sees, self.barge_in = p, hears, sees, barge_in

    @property
    def state(self) -> Any:
        return self.p.turns.state

    @property
    def counted(self) -> dict[str, float]:
        return self.barge_in.counted

    def voice(self) -> None:
        at = self.p.call.line.arrived[0]
        self.hears.push(VoiceStart(at, at))

    def quiet(self) -> None:
        at = self.p.call.line.arrived[0]
        self.hears.push(VoiceStop(at, at))

    def words(self, text: str, *, final: bool = False) -> None:
        self.hears.push(Transcript(text, final=final))

    def speaks(self, *, protected: bool = False, words: tuple[str, ...] = WORDS, end: bool = True) -> Reply:
        """The caller has asked; the agent answers with these words, two a second."""
        self.p.turner.turns.ended("hello")
        reply = self.p.turns.live
        self.more(reply, words, protected=protected, end=end)
        self.sees.told.clear()
        return reply

    def more(
        self, reply: Reply, words: tuple[str, ...], *, protected: bool = False, end: bool = True
    ) -> None:
        times = tuple(Word(w, i * 0.5, i * 0.5 + 0.45) for i, w in enumerate(words))
        audio = b"\x55" * (len(words) * RATE // 2)
        self.p.turner.push(AudioOut(audio, " ".join(words), times, protected, reply=reply))
        if end:
            self.p.turner.push(ReplyEnd(reply=reply))

    def history(self) -> list[tuple[str, str]]:
        return [(m.role, m.content) for m in self.p.call.history.messages]

    def silent(self) -> bool:
        """The line was cleared, and given nothing since."""
        return self.p.carrier.wire[-1][1] == "clear"


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    hears, sees, barge_in = Hears(), Sees(), BargeIn(**options)
    async with phone(hears, barge_in, sees) as p:
        yield World(p, hears, sees, barge_in)


def test_a_cough_holds_the_agent_and_nothing_else_comes_of_it() -> None:
    async def main() -> None:
        async with world() as w:
            reply = w.speaks()
            await asyncio.sleep(2.2)  # in the fifth word
            w.voice()
            assert w.silent()
            held_at = len(w.p.carrier.heard)
            await asyncio.sleep(0.59)
            assert w.silent()
            await asyncio.sleep(0.02)
            assert not w.silent(), "it goes on when the window is over"
            await asyncio.sleep(8)
            assert reply.dead
            assert len(w.p.carrier.heard) - 8 * RATE <= 0.25 * RATE, "only the word was said again"
            assert held_at < len(w.p.carrier.heard)
            assert w.sees.told == []
            assert w.history() == [("user", "hello"), ("assistant", " ".join(WORDS))]
            assert w.counted == {
                "holds": 1, "resumed": 1, "committed": 0, "backchannels": 0,
                "hold_ms": pytest.approx(600),
            }  # fmt: skip
            assert w.p.call.interrupts == 0

    run(main())


def test_noise_without_end_holds_three_times_and_never_again_in_that_reply() -> None:
    async def main() -> None:
        async with world() as w:
            w.speaks()
            await asyncio.sleep(0.3)
            for _ in range(9):
                w.voice()
                await asyncio.sleep(0.7)
                w.quiet()
            assert w.counted["holds"] == 3
            await asyncio.sleep(9)
            w.speaks()
            await asyncio.sleep(0.3)
            w.voice()
            assert w.counted["holds"] == 4, "another reply, another chance"

    run(main())


@pytest.mark.parametrize("vad", [True, False])
def test_uh_huh_does_not_interrupt(vad: bool) -> None:
    """As Flux tells it: StartOfTurn with words, then EndOfTurn."""

    async def main() -> None:
        async with world() as w:
            reply = w.speaks()
            await asyncio.sleep(2.2)
            if vad:
                w.voice()
                await asyncio.sleep(0.3)
            w.p.turner.turns.started()
            assert w.state.doubt is Doubt.OPEN
            w.words("Uh-huh.")
            assert w.state.doubt is Doubt.ASIDE
            assert not w.silent()
            if vad:
                w.quiet()
            await asyncio.sleep(0.4)
            w.p.turner.turns.may_be_over("Uh-huh.")
            await asyncio.sleep(0.2)
            w.words("Uh-huh.", final=True)
            w.p.turner.turns.ended("Uh-huh.")
            assert w.state.doubt is Doubt.NONE
            await asyncio.sleep(8)
            assert reply.dead
            assert w.sees.told == []
            assert w.history() == [("user", "hello"), ("assistant", " ".join(WORDS))]
            assert w.counted["backchannels"] == 1
            assert w.counted["holds"] == w.counted["resumed"] == vad
            events = [(e.kind, e.words) for e in w.p.call.trace.events]
            assert ("backchannel", "Uh-huh.") in events

    run(main())


@pytest.mark.parametrize("vad", [True, False])
def test_stop_interrupts_in_the_tick_of_its_words(vad: bool) -> None:
    async def main() -> None:
        async with world() as w:
            reply = w.speaks()
            await asyncio.sleep(2.2)
            if vad:
                w.voice()
                await asyncio.sleep(0.3)
            w.p.turner.turns.started()
            assert w.sees.told == []
            w.words("Stop.")
            assert reply.dead
            assert w.silent()
            assert w.sees.told == [2]
            w.p.turner.turns.ended("Stop.")
            assert w.sees.told == [2, "Stop."]
            assert w.history() == [
                ("user", "hello"), ("assistant", "w0 w1 w2 w3"), ("user", "Stop."),
            ]  # fmt: skip
            assert w.counted["committed"] == 1
            assert w.counted["resumed"] == 0
            assert w.p.call.interrupts == 1

    run(main())


def test_more_words_make_an_interruption_of_a_backchannel() -> None:
    async def main() -> None:
        async with world() as w:
            reply = w.speaks()
            await asyncio.sleep(2.2)
            w.voice()
            w.p.turner.turns.started()
            w.words("Okay")
            assert not reply.dead
            await asyncio.sleep(0.4)
            assert not w.silent()
            w.words("Okay, but")
            assert reply.dead
            w.p.turner.turns.ended("Okay, but not today.")
            assert w.sees.told == [2, "Okay, but not today."]

    run(main())


def test_half_a_backchannel_holds_until_there_is_more() -> None:
    async def main() -> None:
        async with world() as w:
            reply = w.speaks()
            await asyncio.sleep(2.2)
            w.p.turner.turns.started()
            w.words("I")
            assert w.silent()
            await asyncio.sleep(0.3)
            w.words("I see")
            assert not w.silent()
            w.p.turner.turns.ended("I see")
            assert not reply.dead
            w.p.turner.turns.started()
            w.words("I")
            await asyncio.sleep(0.61)
            assert reply.dead, "nothing more came: it is what the caller has said"
            assert w.sees.told == [2]

    run(main())


def test_words_that_only_the_end_tells_are_not_lost() -> None:
    """An authority that says when a turn begins and ends, and nothing between."""

    async def main() -> None:
        async with world(hold=False) as w:
            reply = w.speaks()
            await asyncio.sleep(2.2)
            w.p.turner.turns.started()
            await asyncio.sleep(1)
            assert w.state.doubt is Doubt.ASIDE
            w.p.turner.turns.ended("I would like to order.")
            assert reply.dead
            assert w.sees.told == [2, "I would like to order."]

    run(main())


def test_an_end_whose_start_went_unnoticed_is_judged_too() -> None:
    async def main() -> None:
        async with world() as w:
            reply = w.speaks()
            await asyncio.sleep(2.2)
            w.p.turner.turns.ended("okay")
            assert not reply.dead
            w.p.turner.turns.ended("no")
            assert reply.dead
            assert w.sees.told == [2, "no"]

    run(main())


def test_with_the_turns_of_a_detector_words_decide_too() -> None:
    """VADTurns says that a turn begins at the voice; a recogniser gives the words later."""

    async def main() -> None:
        hears, sees, barge_in = Hears(), Sees(), BargeIn()

        async with phone(hears, sees, barge_in) as p:
            w = World(p, hears, sees, barge_in)
            reply = w.speaks()
            await asyncio.sleep(2.2)
            p.turner.turns.started()
            w.voice()
            assert w.silent()
            await asyncio.sleep(0.4)
            w.words("right")
            assert not w.silent()
            w.quiet()
            p.turner.turns.ended("right")
            w.words("right", final=True)  # too late to matter
            assert not reply.dead
            p.turner.turns.started()
            w.voice()
            await asyncio.sleep(0.3)
            w.words("what", final=True)
            assert reply.dead
            p.turner.turns.ended()
            assert sees.told == [2, ""]

    run(main())


def test_near_the_end_okay_is_an_answer() -> None:
    async def main() -> None:
        async with world() as w:
            reply = w.speaks()
            await asyncio.sleep(7.3)
            w.p.turner.turns.started()
            w.words("Okay.")
            assert reply.dead
            assert w.sees.told == [2]

    run(main())


def test_after_a_question_yes_is_an_answer() -> None:
    async def main() -> None:
        async with world() as w:
            reply = w.speaks(words=("Shall", "I", "go", "on?", *WORDS))
            await asyncio.sleep(2.6)
            w.p.turner.turns.started()
            w.words("Yes.")
            assert reply.dead

    run(main())


def test_a_detector_of_overlaps_is_asked() -> None:
    async def main() -> None:
        async with world() as w:
            reply = w.speaks()
            await asyncio.sleep(2.2)
            w.voice()
            w.p.turner.turns.started()
            w.words("okay")
            assert not reply.dead
            w.hears.push(Overlap(0.9))
            assert reply.dead

    run(main())


def test_while_the_agent_is_silent_all_is_as_without() -> None:
    async def main() -> None:
        async with world() as w:
            w.voice()
            w.p.turner.turns.started()
            assert w.state.floor is Floor.SPEAKING
            w.words("okay")
            w.p.turner.turns.ended("okay")
            prepared = w.p.turns.live
            w.voice()
            w.p.turner.turns.started()
            assert prepared.dead, "nobody had heard anything of it"
            assert w.sees.told == [1, "okay", 2]
            assert w.counted["holds"] == w.counted["committed"] == 0

    run(main())


def test_a_reply_that_is_over_while_it_is_doubted_gives_the_caller_the_floor() -> None:
    async def main() -> None:
        async with world(hold=False, window=5.0) as w:
            reply = w.speaks(words=WORDS[:4])
            await asyncio.sleep(0.8)
            w.p.turner.turns.started()
            await asyncio.sleep(2)
            assert reply.dead
            assert w.state.floor is Floor.SPEAKING
            w.p.turner.turns.ended("so there")
            assert w.sees.told == [2, "so there"]
            assert w.p.call.interrupts == 0

    run(main())


def test_a_held_reply_is_stopped_by_the_program_and_by_the_end_of_the_call() -> None:
    async def main() -> None:
        for end in (True, False):
            async with world() as w:
                w.speaks()
                await asyncio.sleep(2.2)
                w.voice()
                w.p.turns.stop("the program") if end else w.p.call.end("enough")
                await asyncio.sleep(1)
                assert w.history() == [("user", "hello"), ("assistant", "w0 w1 w2 w3")]
                assert w.counted["resumed"] == 0

    run(main())


def test_a_policy_that_fails_ends_the_call_by_the_name_of_who_asked_it() -> None:
    async def main() -> None:
        def broken(attempt: Attempt) -> Verdict:
            raise ZeroDivisionError("no")

        async with world(policy=broken) as w:
            w.speaks()
            await asyncio.sleep(2.2)
            w.p.turner.turns.ended("okay")
            await asyncio.sleep(0.1)
            assert w.p.call.fault is not None
            assert "BargeIn" in w.p.call.fault

    run(main())


@pytest.mark.parametrize("options", [{"window": 0}, {"window": -1.0}, {"most_holds": -1}, {"policy": 0.6}])
def test_parameters_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError):
        BargeIn(**options)


def test_no_holds_at_all() -> None:
    async def main() -> None:
        async with world(most_holds=0) as w:
            w.speaks()
            await asyncio.sleep(2.2)
            w.voice()
            assert not w.silent()

    run(main())


# -- what may not be interrupted


@pytest.mark.parametrize("referee", [True, False])
def test_a_caller_who_talks_through_the_notice_is_answered_after_it(referee: bool) -> None:
    async def main() -> None:
        hears, sees = Hears(), Sees()
        chain = [hears, BargeIn(), sees] if referee else [hears, sees]
        async with phone(*chain) as p:
            w = World(p, hears, sees, BargeIn())
            reply = w.speaks(protected=True, words=WORDS[:6], end=False)
            w.more(reply, WORDS[6:])
            await asyncio.sleep(0.5)
            w.voice()
            p.turner.turns.started()
            w.words("Who are")
            assert not reply.dead
            assert w.state.doubt is Doubt.KEPT
            await asyncio.sleep(0.4)
            p.turner.turns.may_be_over("Who are you?")
            p.turner.turns.ended("Who are you?")
            await asyncio.sleep(0.4)
            p.turner.turns.started()
            w.words("And why?")
            p.turner.turns.ended("And why?")
            w.voice()
            assert "clear" not in [m for _, m in p.carrier.wire]
            assert sees.told == []
            await asyncio.sleep(1.65)
            assert not reply.dead
            await asyncio.sleep(0.1)
            assert reply.dead
            assert sees.told == [2, "Who are you? And why?"]
            assert w.history()[1:] == [
                ("assistant", " ".join(WORDS[:6])), ("user", "Who are you? And why?"),
            ]  # fmt: skip
            assert p.turns.live is not None, "and it is answered"
            kept = [e.words for e in p.call.trace.events if e.kind == "kept"]
            assert kept == ["Who are you?", "And why?"]

    run(main())


def test_a_notice_with_nothing_after_it_is_heard_to_its_end_and_no_interrupt() -> None:
    async def main() -> None:
        async with world() as w:
            reply = w.speaks(protected=True, words=WORDS[:4])
            await asyncio.sleep(0.5)
            w.p.turner.turns.ended("What is that?")
            await asyncio.sleep(2)
            assert reply.dead
            assert w.sees.told == [2, "What is that?"]
            assert w.p.call.interrupts == 0

    run(main())


@pytest.mark.parametrize("referee", [True, False])
def test_who_still_speaks_when_the_notice_ends_is_treated_like_anybody(referee: bool) -> None:
    async def main() -> None:
        hears, sees = Hears(), Sees()
        chain = [hears, BargeIn(hold=False), sees] if referee else [hears, sees]
        async with phone(*chain) as p:
            w = World(p, hears, sees, BargeIn())
            reply = w.speaks(protected=True, words=WORDS[:4], end=False)
            w.more(reply, WORDS[4:])
            await asyncio.sleep(1.5)
            p.turner.turns.started()
            await asyncio.sleep(0.6)
            assert reply.dead is not referee
            if referee:
                assert w.state.doubt is Doubt.OPEN
                w.words("No way")
            assert reply.dead
            assert sees.told == [2]
            p.turner.turns.ended("No way")
            assert w.history()[1] == ("assistant", " ".join(WORDS[:4]))

    run(main())


def test_words_in_the_notice_count_at_once_when_it_is_over() -> None:
    async def main() -> None:
        async with world() as w:
            reply = w.speaks(protected=True, words=WORDS[:4], end=False)
            w.more(reply, WORDS[4:])
            await asyncio.sleep(1.5)
            w.p.turner.turns.started()
            w.words("I do not want")
            assert not reply.dead
            await asyncio.sleep(0.55)
            assert reply.dead
            assert w.state.floor is Floor.SPEAKING

    run(main())


def test_a_backchannel_in_the_notice_changes_nothing() -> None:
    async def main() -> None:
        async with world() as w:
            reply = w.speaks(protected=True, words=WORDS[:4], end=False)
            w.more(reply, WORDS[4:])
            await asyncio.sleep(0.5)
            w.voice()
            w.p.turner.turns.started()
            w.words("okay")
            w.p.turner.turns.ended("okay")
            await asyncio.sleep(9)
            assert reply.dead
            assert w.sees.told == []
            assert w.history()[1:] == [("assistant", " ".join(WORDS))]

    run(main())


def test_a_doubt_that_runs_into_the_notice_waits_for_its_end() -> None:
    async def main() -> None:
        async with world() as w:
            reply = w.speaks(words=WORDS[:2], end=False)
            w.more(reply, WORDS[2:4], protected=True, end=False)
            w.more(reply, WORDS[4:])
            await asyncio.sleep(0.6)
            w.p.turner.turns.started()
            w.words("okay")
            assert w.state.doubt is Doubt.ASIDE
            await asyncio.sleep(0.6)
            w.words("okay, stop")
            assert w.state.doubt is Doubt.KEPT
            assert not reply.dead
            await asyncio.sleep(0.95)
            assert reply.dead
            assert w.sees.told == [2]

    run(main())


def test_the_program_and_the_end_of_the_call_are_not_hindered() -> None:
    async def main() -> None:
        for stop in (True, False):
            async with world() as w:
                reply = w.speaks(protected=True)
                await asyncio.sleep(1.2)
                w.p.turner.turns.ended("who?")
                if stop:
                    w.p.turns.stop("the program")
                    assert w.sees.told == [2, "who?"]
                else:
                    w.p.call.end("enough")
                    await asyncio.sleep(0.1)
                assert reply.dead
                assert w.history() == [("user", "hello"), ("assistant", "w0 w1"), ("user", "who?")]

    run(main())


def test_what_the_program_says_is_protected_before_there_is_audio() -> None:
    async def main() -> None:
        sees = Sees()
        async with phone(Speaker(), sees) as p:
            said = asyncio.create_task(p.call.say("a notice", interruptible=False))
            await asyncio.sleep(0.3)
            p.turner.turns.started()
            p.turner.turns.ended("what?")
            assert await said == "a notice"
            assert sees.told == [1, "what?"]

    run(main())


class Mute(Processor):
    """A voice that is never heard."""

    emits = (ReplyEnd,)

    @on(Sentence, ReplyEnd, stops=True)
    def nothing(self, frame: Sentence | ReplyEnd) -> None:
        pass


def test_a_notice_whose_voice_fails_does_not_keep_the_caller_for_ever() -> None:
    async def main() -> None:
        sees = Sees()
        async with phone(Mute(), sees) as p:
            said = asyncio.create_task(p.call.say("Legal notice.", interruptible=False))
            await asyncio.sleep(0.5)
            reply = p.turns.live
            assert p.turns.protected, "before there is any audio"
            p.turner.turns.ended("hello?")
            await asyncio.sleep(2.4)
            assert not reply.dead
            await asyncio.sleep(0.2)
            assert sees.told == [1, "hello?"]
            assert await said == ""

    run(main())


def test_what_the_sink_tells_during_a_hold_is_right() -> None:
    """A hold is Cleared once, where the carrier stopped."""

    async def main() -> None:
        cleared: list[float] = []

        class Above(Hears):
            @tap(Cleared)
            def take(self, frame: Cleared) -> None:
                cleared.append(frame.at)

        hears = Above()
        async with phone(hears, BargeIn()) as p:
            w = World(p, hears, Sees(), BargeIn())
            w.speaks()
            await asyncio.sleep(2.2)
            w.voice()
            assert cleared == [asyncio.get_running_loop().time()]
            await asyncio.sleep(3)
            assert len(cleared) == 1

    run(main())


def test_it_conforms() -> None:
    check_processor(BargeIn)


MOVES = ("voice", "quiet", "started", "eager", "resumed", "ended", "uh-huh", "no", "more", "stop", "wait")


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(st.sampled_from(MOVES), st.sampled_from([0.0, 0.05, 0.3, 0.7])), max_size=25),
    st.booleans(),
    st.booleans(),
)
def test_any_order_of_things_leaves_the_call_able_to_go_on(
    moves: list[tuple[str, float]], protected: bool, hold: bool
) -> None:
    """Whatever happens, the next turn is answered, nothing stays held, and turns begin and end in turn."""

    async def main() -> None:
        async with world(hold=hold) as w:
            reply = w.speaks(protected=protected, words=WORDS[:6], end=False)
            w.more(reply, WORDS[6:])
            turns = w.p.turner.turns
            said = 0
            for move, pause in moves:
                match move:
                    case "voice":
                        w.voice()
                    case "quiet":
                        w.quiet()
                    case "started":
                        turns.started()
                    case "eager":
                        turns.may_be_over("no, thanks")
                    case "resumed":
                        turns.resumed()
                    case "ended":
                        said += 1
                        turns.ended(f"no, thanks {said}")
                    case "stop":
                        w.p.turns.stop("the program")
                    case "more" if w.p.turns.live is not None:
                        w.more(w.p.turns.live, WORDS[:2])
                    case "uh-huh" | "no":
                        w.words(move)
                await asyncio.sleep(pause)
            turns.started()
            turns.ended("no more")
            await asyncio.sleep(5)
            if protected and w.state.live is not None:
                await asyncio.sleep(5)
            users = " ".join(content for role, content in w.history() if role == "user")
            for n in range(1, said + 1):
                assert f"no, thanks {n}" in users, "the caller's words were lost"
            assert users.endswith("no more")
            assert w.state.kept is None
            assert not w.state.held
            told = w.sees.told
            assert all(isinstance(t, int) for t in told[::2])
            assert all(isinstance(t, str) for t in told[1::2])
            assert w.barge_in._timer is None or w.state.doubt is not Doubt.NONE

    run(main())
