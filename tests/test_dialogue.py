"""Dialogue in a call: what was not heard was not said, drafts leave nothing, tools run by their rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, time
from typing import Any

import pytest

from processors.dialogue import Day, Dialogue, Form, Goodbye, Intent, Match, Name, Time
from processors.dialogue.deciding import State
from processors.sentences import SentenceAggregator
from tests.engine.engine_calls import Phone, Speaker, phone, settled
from tests.quiet_calls import is_over, over, said
from voiceflow import Prompt, ReplyEnd, Token, ToolWithdrawn
from voiceflow.errors import DeclarationError
from voiceflow.frames import Heard, Interrupt
from voiceflow.services import Services
from voiceflow.testing import Rig, check_processor, run
from voiceflow.tools import tool
from voiceflow.tools.use import UseState

SUNDAY = date(2026, 11, 22)
A_CHARACTER = 0.05
"""Seconds of speech."""


class Diary:
    """What was booked, and how booking goes."""

    def __init__(self, seconds: float = 0.2, trouble: Exception | None = None, limit: float = 5.0) -> None:
        self.booked: list[tuple[date, time, str]] = []
        self.begun = 0

        @tool(effect="commit", limit=limit)
        async def book(day: date, at: time, name: str) -> str:
            """Books."""
            self.begun += 1
            await asyncio.sleep(seconds)
            if trouble is not None:
                raise trouble
            self.booked.append((day, at, name))
            return "It is number seven."

        self.tool = book


def dialogue(diary: Diary | None = None, **options: Any) -> Dialogue:
    return Dialogue(
        [
            Intent("hours", ["When are you open?", "What are your opening hours?"], "From nine to five."),
            Form(
                "book",
                ["I would like an appointment", "Can I book a time?"],
                [
                    Day(check=lambda day: "Closed on Sundays." if day.weekday() == 6 else ""),
                    Time(earliest=time(9), latest=time(17)),
                    Name(),
                ],
                (diary or Diary()).tool,
                confirm="{day} at {at} for {name}. Is that right?",
                then="You are booked. {result}",
                again=["at"],
            ),
            Goodbye(),
        ],
        matcher="text",
        today=lambda: SUNDAY,
        **options,
    )


@asynccontextmanager
async def talking(diary: Diary | None = None, **options: Any) -> AsyncIterator[tuple[Phone, Dialogue]]:
    it = dialogue(diary, **options)
    async with phone(it, SentenceAggregator(), Speaker(A_CHARACTER)) as p:
        yield p, it


async def says(p: Phone, text: str, *, waits: bool = True) -> None:
    """The caller says it, and lets the agent finish."""
    p.turns.started()
    p.turns.ended(text)
    while waits and p.turns.live is not None and not is_over(p):  # noqa: ASYNC110 - one reply may follow another
        await asyncio.sleep(0.05)
    await settled()


async def asked_to_confirm(p: Phone, *, waits: bool = True) -> None:
    await says(p, "I would like an appointment on Tuesday at ten")
    await says(p, "Ada Lovelace", waits=waits)


READ_BACK = "Tuesday the twenty fourth of November at ten in the morning for Ada Lovelace. Is that right?"


def test_a_booking_from_the_greeting_to_the_hang_up() -> None:
    diary = Diary()

    async def main() -> None:
        async with talking(diary, greeting="Good day!") as (p, it):
            await asyncio.sleep(1)
            await says(p, "I'd like an appointment please")
            await says(p, "Tuesday")
            await says(p, "when are you open")
            await says(p, "ten")
            await says(p, "it's Ada Lovelace")
            assert diary.begun == 0
            await says(p, "yes")
            assert diary.booked == [(date(2026, 11, 24), time(10), "Ada Lovelace")]
            await says(p, "no thanks")
            assert said(p) == [
                "Good day!",
                "What day would suit you?",
                "At what time?",
                "From nine to five. At what time?",
                "May I have your name, please?",
                READ_BACK,
                "You are booked. It is number seven. Is there anything else?",
                "Thank you for calling. Goodbye!",
            ]
            await over(p)
            assert it.figures()["forms_done"] == 1
        assert p.result is not None
        assert p.result.reason == "the agent hung up"
        assert p.result.fault is None

    run(main())


def test_a_confirmation_that_was_cut_is_asked_again() -> None:
    diary = Diary()

    async def main() -> None:
        async with talking(diary) as (p, _):
            await asked_to_confirm(p, waits=False)
            await asyncio.sleep(3.0)  # in the middle of what is read back
            await says(p, "yes")
            assert diary.begun == 0
            assert READ_BACK.startswith(said(p)[-2])
            assert said(p)[-1] == READ_BACK
            await says(p, "yes")
            assert diary.begun == 1

    run(main())


def test_who_agrees_over_the_last_word_has_heard_enough() -> None:
    diary = Diary()

    async def main() -> None:
        async with talking(diary) as (p, _):
            await asked_to_confirm(p, waits=False)
            await asyncio.sleep(A_CHARACTER * (len(READ_BACK) - 3))
            await says(p, "yes", waits=False)
            assert said(p)[-1].endswith("Is that")
            await asyncio.sleep(1)
            assert diary.begun == 1

    run(main())


def test_a_word_alone_answers_only_what_was_heard() -> None:
    async def main() -> None:
        async with talking() as (p, it):
            await says(p, "I would like an appointment on Tuesday at ten", waits=False)
            await says(p, "Hurry")  # "May I have your name" had not begun
            assert "name" not in it.state.values
            await says(p, "Ada")
            assert it.state.values["name"] == "Ada"

    run(main())


def test_a_correction_of_what_is_being_read_back() -> None:
    diary = Diary()

    async def main() -> None:
        async with talking(diary) as (p, it):
            await asked_to_confirm(p, waits=False)
            await asyncio.sleep(2.0)
            await says(p, "no, Wednesday")
            assert said(p)[-1].startswith("Wednesday the twenty fifth")
            await says(p, "that's correct")
            assert diary.booked[0][0] == date(2026, 11, 25)
            assert it.state.form == ""

    run(main())


def test_words_whose_answer_never_began_are_not_lost() -> None:
    async def main() -> None:
        async with talking() as (p, it):
            await says(p, "I would like an appointment")
            p.turns.started()
            p.turns.ended("on Tuesday")
            p.turns.started()  # in the same instant: no runner has begun
            await settled()
            p.turns.ended("at ten")
            await asyncio.sleep(10)
            assert dict(it.state.values) == {"day": date(2026, 11, 24), "at": time(10)}
            assert said(p)[-1] == "May I have your name, please?"

    run(main())


# -- drafts


def test_a_draft_that_is_dropped_leaves_nothing() -> None:
    diary = Diary()

    async def main() -> None:
        async with talking(diary) as (p, it):
            await says(p, "I would like an appointment")
            before = it.state
            p.turns.started()
            p.turns.may_be_over("on Tuesday")
            await settled()
            assert it.state is before
            p.turns.resumed()
            await settled()
            p.turns.ended("on Tuesday, no, on Thursday")
            await asyncio.sleep(5)
            assert dict(it.state.values) == {"day": date(2026, 11, 26)}

            await says(p, "at ten")
            await says(p, "Ada")
            p.turns.started()
            p.turns.may_be_over("yes")
            await settled()
            assert it.state.submitted == ""
            p.turns.resumed()
            p.turns.ended("yes but no")
            await asyncio.sleep(10)
            assert diary.begun == 0
            assert it.state.asked is not None
            assert it.state.asked.what == "confirm"

    run(main())


def test_a_draft_that_was_right_is_taken_over_when_it_is_confirmed() -> None:
    diary = Diary()

    async def main() -> None:
        async with talking(diary) as (p, it):
            await asked_to_confirm(p)
            before = it.state
            p.turns.started()
            p.turns.may_be_over("yes please")
            await asyncio.sleep(1)
            assert it.state is before
            assert diary.begun == 0  # never for a draft
            p.turns.ended("yes please")
            await asyncio.sleep(10)
            assert diary.begun == 1
            assert said(p)[-1].startswith("You are booked.")

    run(main())


# -- tools and interruptions


def test_interrupted_while_it_books_the_result_is_told_at_the_next_silence() -> None:
    diary = Diary(seconds=3.0)

    async def main() -> None:
        async with talking(diary) as (p, it):
            await asked_to_confirm(p)
            await says(p, "yes", waits=False)
            await asyncio.sleep(1)
            await says(p, "when are you open")
            assert said(p)[-1] == "From nine to five."
            assert it.state.submitted
            await asyncio.sleep(12)
            assert diary.begun == len(diary.booked) == 1
            assert said(p)[-1] == "You are booked. It is number seven. Is there anything else?"
            assert it.state.form == ""
            told = len(said(p))
            await asyncio.sleep(30)
            assert len(said(p)) == told  # once
            await says(p, "no")
            assert said(p)[-1] == "Thank you for calling. Goodbye!"

    run(main())


def test_interrupted_before_it_is_begun_it_has_to_be_agreed_to_again() -> None:
    diary = Diary()

    async def main() -> None:
        async with talking(diary) as (p, _):
            await asked_to_confirm(p)
            p.turns.started()
            p.turns.ended("yes")
            p.turns.started()
            p.turns.ended("hm")
            await asyncio.sleep(10)
            assert diary.begun == 0
            assert said(p)[-1].endswith(READ_BACK)
            await says(p, "yes")
            assert diary.begun == 1

    run(main())


def test_what_failed_is_said_and_the_slot_asked_again() -> None:
    diary = Diary(trouble=ValueError("that time is taken"))

    async def main() -> None:
        async with talking(diary) as (p, it):
            await asked_to_confirm(p)
            await says(p, "yes")
            assert said(p)[-1] == "I'm sorry, that did not work. That time is taken. At what time?"
            assert set(it.state.values) == {"day", "name"}
            await says(p, "eleven")
            assert "at eleven in the morning" in said(p)[-1]

    run(main())


def test_what_may_have_been_done_is_not_done_again_by_itself() -> None:
    diary = Diary(seconds=20.0, limit=1.0)

    async def main() -> None:
        async with talking(diary) as (p, it):
            await asked_to_confirm(p)
            await says(p, "yes")
            assert said(p)[-1] == "I'm sorry, that did not work."
            assert it.state == State()

    run(main())


def test_the_goodbye_is_heard_before_the_end_and_can_be_taken_back() -> None:
    async def main() -> None:
        async with talking() as (p, _):
            await says(p, "goodbye", waits=False)
            await asyncio.sleep(1.0)
            assert not is_over(p)
            await says(p, "wait, when are you open?")
            assert not is_over(p)
            assert said(p)[-1] == "From nine to five."
            await says(p, "bye bye")
            assert said(p)[-1] == "Thank you for calling. Goodbye!"
            await over(p)

    run(main())


def test_who_is_not_understood_again_and_again_is_given_up() -> None:
    async def main() -> None:
        async with talking(give_up_after=2, give_up="I give up.") as (p, it):
            await says(p, "xylophone")
            await says(p, "when are you open")
            await says(p, "xylophone")
            await says(p, "zeppelin")
            assert said(p)[-1] == "I give up."
            await over(p)
            assert it.figures()["misses"] == 2

    run(main())


def test_an_intent_with_a_tool() -> None:
    @tool(effect="read")
    async def queue() -> int:
        """How many wait."""
        await asyncio.sleep(0.1)
        return 3

    @tool(effect="read")
    async def broken() -> str:
        """Does not work."""
        raise ToolWithdrawn("nobody knows")

    waits = Intent("wait", ["How long is the queue?"], "Let me see.", done=queue, then="There are {result}.")
    fails = Intent("fail", ["Does the lift work?"], "", done=broken, then="{result}", failed="Oh. {reason}")

    async def main() -> None:
        it = Dialogue([waits, fails], matcher="text")
        async with phone(it, SentenceAggregator(), Speaker(A_CHARACTER)) as p:
            await says(p, "How long is the queue")
            await says(p, "does the lift work")
            assert said(p) == ["Let me see. There are 3.", "Oh."]
            assert it.state == State()

    run(main())


# -- prompts by the program, and turns without words


def test_a_silence_is_filled_with_the_open_question() -> None:
    async def main() -> None:
        async with talking(help="What can I do?") as (p, _):
            await p.call.prompt("ask whether he is there")
            await says(p, "I would like an appointment")
            await p.call.prompt("ask whether he is there")
            assert said(p) == ["What can I do?", "What day would suit you?", "What day would suit you?"]

    run(main())


def test_a_turn_without_words_changes_nothing() -> None:
    async def main() -> None:
        async with talking() as (p, it):
            await asked_to_confirm(p)
            before = it.state
            for text in ("", " ", "...", "?!"):
                await says(p, text)
                assert said(p)[-1] == "Sorry, I did not catch that."
                assert it.state is before
            await says(p, "yes")  # what was asked before was heard
            assert said(p)[-1].startswith("You are booked")

    run(main())


def test_who_speaks_first_is_not_greeted() -> None:
    async def main() -> None:
        async with talking(greeting="Good day!") as (p, _):
            p.turns.started()
            p.turns.ended("when are you open")
            await asyncio.sleep(10)
            assert said(p) == ["From nine to five."]

    run(main())


# -- by itself


def test_it_conforms() -> None:
    report = check_processor(dialogue, frames=[Prompt("When are you open?")], stateful=True)
    assert report.emitted["Token"] > 0


def test_in_a_rig_the_same_conversation_takes_the_same_course() -> None:
    async def course() -> list[str]:
        it = dialogue()
        async with Rig(it) as rig:
            for text in ("I want an appointment", "Tuesday", "ten", "Ada", "no", "the time", "eleven"):
                reply = rig.reply()
                rig.push(Prompt(text, reply=reply))
                await rig.settled()
                rig.below.push(Heard(reply, "", final=True))
                await rig.settled()
            assert len(rig.got(ReplyEnd)) == 7
            return [token.text for token in rig.got(Token)]

    first = run(course())
    assert first == run(course())
    assert first[-1].startswith("Tuesday the twenty fourth of November at eleven")


def test_an_interrupt_tells_what_was_heard() -> None:
    async def main() -> None:
        it = dialogue()
        async with Rig(it) as rig:
            turns = (("an appointment on Tuesday at ten", ""), ("Ada", "May I have"), ("Bob", "May"))
            for text, heard in turns:
                reply = rig.reply()
                rig.push(Prompt(text, reply=reply))
                await rig.settled()
                rig.kill(reply)
                rig.push(Interrupt(reply, heard=heard))
                await rig.settled()
            assert set(it.state.values) == {"day", "at"}

    run(main())


def test_its_own_matcher() -> None:
    class Always:
        async def match(self, text: str, services: Services) -> Match:
            return Match("hours", 1.0)

    async def main() -> None:
        async with Rig(Dialogue([Intent("hours", ["x"], "Nine.")], matcher=Always())) as rig:
            rig.push(Prompt("anything", reply=rig.reply()))
            await rig.settled()
            assert rig.texts() == ["Nine."]

    run(main())


def test_what_cannot_work_is_told_when_it_is_declared() -> None:
    @tool(effect="commit")
    async def book(day: date) -> None:
        """Books."""

    @tool(effect="terminal")
    async def leave(day: date) -> None:
        """Leaves."""

    hours = Intent("hours", ["x"], "y")
    with pytest.raises(DeclarationError, match="at least one"):
        Dialogue([])
    with pytest.raises(DeclarationError, match="a name of its own"):
        Dialogue([hours, hours])
    with pytest.raises(DeclarationError, match="2 or more"):
        Dialogue([hours], give_up_after=1)
    with pytest.raises(DeclarationError, match="needs words"):
        Dialogue([hours], fallback=" ")
    with pytest.raises(DeclarationError, match='"auto", "text", "e5"'):
        Dialogue([hours], matcher="magic")  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="list of examples"):
        Intent("hours", "when", "y")
    with pytest.raises(DeclarationError, match="needs an answer"):
        Intent("hours", ["x"], "")
    with pytest.raises(DeclarationError, match=r"\{open\} is not known there"):
        Intent("hours", ["x"], "from {open}")
    with pytest.raises(DeclarationError, match="cannot be filled in"):
        Intent("hours", ["x"], "from {")
    with pytest.raises(DeclarationError, match=r"question of day: \{at\}"):
        Form("f", ["x"], [Day(ask="When on {at}?")], book)
    with pytest.raises(DeclarationError, match="no parameter at"):
        Form("f", ["x"], [Day(), Time()], book)
    with pytest.raises(DeclarationError, match="needs day, but there is no such slot"):
        Intent("f", ["x"], "y", done=book)
    with pytest.raises(DeclarationError, match="ends the conversation"):
        Form("f", ["x"], [Day()], leave)
    with pytest.raises(DeclarationError, match="there is no slot at"):
        Form("f", ["x"], [Day()], book, again=["at"])
    with pytest.raises(DeclarationError, match="is no tool"):
        Form("f", ["x"], [Day()], print)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="like a parameter's"):
        Day("the day")


def test_the_states_that_a_use_can_have_are_all_read() -> None:
    from processors.dialogue.deciding import settled as resolved
    from voiceflow.tools.tool import Effect
    from voiceflow.tools.use import Requested, ToolUse

    before = State(form="book", values={"day": SUNDAY}, submitted="1")
    for state in UseState:
        use = ToolUse(Requested("1", "book", "{}"), Effect.COMMIT, state=state)
        after = resolved(before, use)
        match state:
            case UseState.WAITING | UseState.RUNNING:
                assert after is before
            case UseState.DONE:
                assert after == State()
            case _:
                assert (after.submitted, after.form, after.asked) == ("", "book", None)
    assert resolved(before, None).submitted == ""
