"""Keypad: entries, type-ahead, keys as words, the tool, secrets; in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from processors.barge_in import BargeIn
from processors.keypad import End, Entry, Keypad, KeypadBusy, Wanted
from processors.keypad.entry import MOST
from processors.keypad.keypad import LONGEST, STATE
from tests.engine.engine_calls import Phone, phone
from tests.quiet_calls import Hand, Model, Voice, now, press, said, sounds, until, words
from voiceflow.engine.processor import Processor, on
from voiceflow.errors import CallEnded, DeclarationError
from voiceflow.frames import Prompt, ReplyEnd, Sentence, ToolEnd, ToolStart
from voiceflow.testing import check_processor, run
from voiceflow.tools import Requested, Tool, ToolDesk, ToolUse, UseState


def typed(entry: Entry) -> tuple[str, End]:
    return entry.keys, entry.ended


# -- entries


@pytest.mark.parametrize(
    ("digits", "terminator", "pressed", "expected"),
    [
        (4, "#", "1234", ("1234", End.FULL, True)),
        (4, "#", "12#", ("12", End.TERMINATOR, False)),
        (4, "", "12#4", ("12#4", End.FULL, True)),
        ((2, 4), "#", "12#", ("12", End.TERMINATOR, True)),
        ((2, 4), "*", "1#*", ("1#", End.TERMINATOR, True)),
        (None, "#", "#", ("", End.TERMINATOR, False)),
        (None, "#", "0123456789*ABCD#", ("0123456789*ABCD", End.TERMINATOR, True)),
        (None, "", "1" * MOST, ("1" * MOST, End.FULL, True)),
    ],
)
def test_wanted(digits: object, terminator: str, pressed: str, expected: tuple[str, End, bool]) -> None:
    wanted = Wanted.of(digits, terminator)  # type: ignore[arg-type]
    taken: str | Entry = ""
    for key in pressed:
        assert isinstance(taken, str), "complete too soon"
        taken = wanted.take(taken, key)
    assert isinstance(taken, Entry)
    assert (taken.keys, taken.ended, taken.complete) == expected


@pytest.mark.parametrize(
    ("digits", "terminator"), [(0, "#"), (-1, "#"), (MOST + 1, "#"), ((3, 2), "#"), (4, "12"), (4, "x")]
)
def test_an_entry_that_nobody_could_type(digits: object, terminator: str) -> None:
    with pytest.raises(DeclarationError):
        Wanted.of(digits, terminator)  # type: ignore[arg-type]


def test_an_entry_s_repr_shows_no_keys() -> None:
    entry = Wanted().entry("1234", End.FULL)
    assert "1234" not in repr(entry)
    assert "1234" not in str(entry)
    assert entry.spoken == "1 2 3 4"


# -- from code


def test_read_gives_the_keys_as_soon_as_they_are_all_there() -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Voice()) as p:
            reading = asyncio.create_task(keys.read(digits=4, timeout=5))
            for key in "1234":
                await asyncio.sleep(1.5)
                await press(p, key)
            assert typed(await reading) == ("1234", End.FULL)
            assert now() == pytest.approx(6.0)
            reading = asyncio.create_task(keys.read(terminator="*"))
            await asyncio.sleep(1)
            await press(p, "12*")
            assert typed(await reading) == ("12", End.TERMINATOR)
            await asyncio.sleep(30)
            assert words(p) == [], "what was read is no turn"

    run(main())


@pytest.mark.parametrize(
    ("pressed", "at", "expected", "ended"),
    [("", 0.0, "", 5.0), ("1", 1.0, "1", 1.0 + 4.0), ("12", 4.9, "12", 4.9 + 4.0)],
)
def test_read_gives_up(pressed: str, at: float, expected: str, ended: float) -> None:
    async def main() -> None:
        keys = Keypad(gap=4.0)
        async with phone(keys, Voice()) as p:
            reading = asyncio.create_task(keys.read(digits=4, timeout=5))
            await until(at)
            await press(p, pressed)
            entry = await reading
            assert typed(entry) == (expected, End.TIMEOUT)
            assert not entry.complete
            assert now() == pytest.approx(ended)

    run(main())


def test_the_timeout_begins_when_the_agent_has_finished_speaking() -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Voice()) as p:
            saying = asyncio.create_task(p.call.say("x" * 70))  # 7 s
            reading = asyncio.create_task(keys.read(timeout=5))
            assert (await reading).ended is End.TIMEOUT
            assert now() == pytest.approx(12.0)
            await saying

    run(main())


def test_however_much_is_said_meanwhile_it_is_over_in_the_end() -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Voice()) as p:
            saying = asyncio.create_task(p.call.say("x" * 700))
            reading = asyncio.create_task(keys.read(timeout=5))
            await reading
            assert now() == pytest.approx(LONGEST)
            reading = asyncio.create_task(keys.read(terminator="", gap=50.0))
            for _ in range(4):
                await asyncio.sleep(19)
                await press(p, "1")
            assert typed(await reading) == ("111", End.TIMEOUT)
            saying.cancel()

    run(main())


def test_two_at_once_are_refused_and_the_first_goes_on() -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Voice()) as p:
            reading = asyncio.create_task(keys.read(digits=2))
            await asyncio.sleep(1)
            with pytest.raises(KeypadBusy, match="collected already"):
                await keys.read()
            await press(p, "12")
            assert (await reading).keys == "12"

    run(main())


def test_an_entry_that_makes_no_sense_leaves_the_keypad_free() -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Voice()) as p:
            with pytest.raises(DeclarationError):
                await keys.read(digits=0)
            await press(p, "7")
            assert (await keys.read(digits=1)).keys == "7"

    run(main())


def test_keys_typed_ahead_are_not_lost() -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Voice()) as p:
            await press(p, "1234567")
            await asyncio.sleep(1.0)
            assert (await keys.read(digits=4)).keys == "1234"
            reading = asyncio.create_task(keys.read(digits=4))
            await asyncio.sleep(1.0)
            await press(p, "8")
            assert (await reading).keys == "5678"
            assert now() == pytest.approx(2.0)

    run(main())


def test_the_terminator_that_is_pressed_out_of_habit_belongs_to_the_full_entry() -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Voice()) as p:
            reading = asyncio.create_task(keys.read(digits=4))
            await asyncio.sleep(0.5)
            await press(p, "1234")
            await reading
            await asyncio.sleep(0.5)
            await press(p, "#")
            await asyncio.sleep(5)
            assert words(p) == []
            await press(p, "1234*5")  # the same typed ahead
            assert (await keys.read(digits=4, terminator="*")).keys == "1234"
            assert (await keys.read(digits=1)).keys == "5"
            await asyncio.sleep(5)
            await press(p, "#")
            await asyncio.sleep(5)
            assert words(p) == ["(The caller pressed #.)"], "a habit does not last for ever"

    run(main())


def test_who_gives_up_leaves_the_keys_to_the_next() -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Voice()) as p:
            reading = asyncio.create_task(keys.read(digits=4))
            await asyncio.sleep(1.0)
            await press(p, "12")
            reading.cancel()
            await asyncio.wait([reading])
            reading = asyncio.create_task(keys.read(digits=4))
            await asyncio.sleep(0.5)
            await press(p, "34")
            assert (await reading).keys == "1234"

    run(main())


def test_words_instead_of_keys_end_it_but_not_once_a_key_was_pressed() -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Voice()) as p:
            reading = asyncio.create_task(keys.read(digits=4))
            await asyncio.sleep(1)
            p.turner.turns.started()
            p.turner.turns.ended("")
            await asyncio.sleep(1)
            assert not reading.done(), "a turn without words may be the keys' own sound"
            p.turner.turns.ended("I do not have it here")
            assert typed(await reading) == ("", End.WORDS)
            reading = asyncio.create_task(keys.read(digits=4))
            await asyncio.sleep(1)
            await press(p, "1")
            p.turner.turns.ended("wait a moment")
            await asyncio.sleep(1)
            await press(p, "234")
            assert typed(await reading) == ("1234", End.FULL)

    run(main())


def test_the_end_of_the_call_ends_it() -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Voice()) as p:
            reading = asyncio.create_task(keys.read())
            await asyncio.sleep(1)
            await press(p, "1")
            await asyncio.sleep(0.1)
        with pytest.raises(CallEnded):
            await reading
        assert p.result is not None
        assert p.result.fault is None

    run(main())


# -- keys that nobody asked for


def test_keys_are_a_turn_of_their_own_after_a_pause_or_the_terminator() -> None:
    async def main() -> None:
        model = Model(seconds=0.0)
        async with phone(Keypad(), model, Voice()) as p:
            await press(p, "1")
            await until(1.0)
            await press(p, "2")
            await until(2.49)
            assert words(p) == []
            await until(2.51)
            assert words(p) == ["(The caller pressed 1 2.)"]
            await until(4.0)  # the answer was heard
            await press(p, "3#")
            await until(4.001)
            assert words(p)[1:] == ["(The caller pressed 3.)"]
            assert [prompt.text for prompt in model.prompts] == words(p)
            assert p.call.turns.state.turn == 2

    run(main())


def test_the_first_key_stops_the_agent_and_the_others_nothing() -> None:
    async def main() -> None:
        async with phone(Keypad(), Voice()) as p:
            saying = asyncio.create_task(p.call.say("for sales press one, for"))
            await until(1.0)
            await press(p, "1")
            assert p.carrier.times("clear") == [1.0]
            assert await saying == "for sales"
            await until(1.2)
            await press(p, "2")
            await until(2.69)
            assert words(p) == []
            await until(2.71)
            assert words(p) == ["(The caller pressed 1 2.)"]
            assert p.call.interrupts == 1

    run(main())


def test_a_key_does_not_stop_an_answer_that_is_only_being_prepared() -> None:
    async def main() -> None:
        model = Model(seconds=1.0)
        async with phone(Keypad(), model, Voice()) as p:
            p.turner.turns.ended("what time is it")
            await until(0.5)
            await press(p, "1")
            await until(0.6)
            assert p.turns.live is not None
            await until(3.5)  # what was typed was a turn at 2.0, in the end of the answer
            assert words(p) == ["what time is it", "(The caller pressed 1.)"]

    run(main())


def test_without_interrupts_keys_wait_until_the_agent_has_finished() -> None:
    async def main() -> None:
        async with phone(Keypad(interrupts=False), Model(seconds=0.0), Voice()) as p:
            saying = asyncio.create_task(p.call.say("x" * 50))
            await until(1.0)
            await press(p, "1")
            await until(4.9)
            assert words(p) == []
            assert p.carrier.times("clear") == []
            await until(5.1)
            assert words(p) == ["(The caller pressed 1.)"]
            assert await saying == "x" * 50

    run(main())


def test_a_notice_that_may_not_be_interrupted_is_heard_and_the_keys_are_answered_after_it() -> None:
    async def main() -> None:
        async with phone(Keypad(), Model(seconds=0.0), Voice()) as p:
            saying = asyncio.create_task(p.call.say("x" * 50, interruptible=False))
            await until(1.0)
            await press(p, "1")
            await until(6.5)
            assert await saying == "x" * 50
            assert p.carrier.times("clear") == []
            assert words(p) == ["(The caller pressed 1.)"]
            assert said(p) == ["x" * 50, "an answer."]

    run(main())


@pytest.mark.parametrize("protected", [False, True])
def test_a_referee_does_not_take_a_key_for_listening(protected: bool) -> None:
    async def main() -> None:
        async with phone(Hand(), Keypad(), BargeIn(), Model(seconds=0.0), Voice()) as p:
            saying = asyncio.create_task(p.call.say("x" * 50, interruptible=not protected))
            await until(1.0)
            p.turner.turns.started()  # somebody may be speaking
            await until(1.2)
            await press(p, "1#")
            await until(2.0)
            p.turner.turns.ended("mhm")
            await until(9.0)
            assert await saying == ("x" * 50 if protected else "")
            assert "(The caller pressed 1.)" in " ".join(words(p))
            assert said(p)[-1] == "an answer."

    run(main())


def test_without_interrupts_the_end_of_the_protection_is_not_the_end_of_the_reply() -> None:
    async def main() -> None:
        async with phone(Keypad(interrupts=False), Model(seconds=0.0), Voice()) as p:
            reply = p.answer()
            p.turner.push(Sentence("x" * 20, protected=True, reply=reply))
            p.turner.push(Sentence("y" * 20, reply=reply))
            p.turner.push(ReplyEnd(reply=reply))
            await until(0.5)
            await press(p, "1#")
            await until(3.9)
            assert words(p) == []
            await until(6.0)
            assert words(p) == ["(The caller pressed 1.)"]
            assert p.carrier.times("clear") == []

    run(main())


def test_keys_during_the_caller_s_words_go_with_them() -> None:
    async def main() -> None:
        model = Model(seconds=0.0)
        async with phone(Keypad(), model, Voice()) as p:
            p.turner.turns.started()
            await press(p, "12#")
            await press(p, "3")
            await until(3.0)
            assert words(p) == []
            p.turner.turns.ended("that is my number")
            await until(3.5)
            both = "(The caller pressed 1 2.) (The caller pressed 3.)"
            assert [prompt.text for prompt in model.prompts] == [f"that is my number {both}"]
            assert words(p) == ["that is my number", both]
            await until(5.0)
            p.turner.turns.ended("well")
            await until(6.0)
            assert model.prompts[-1].text == "well"

    run(main())


def test_a_draft_that_is_dropped_does_not_take_the_keys_with_it() -> None:
    async def main() -> None:
        model = Model(seconds=5.0)
        async with phone(Keypad(), model, Voice()) as p:
            p.turner.turns.started()
            await press(p, "12#")
            p.turner.turns.may_be_over("my number")
            p.turner.turns.resumed()
            assert words(p) == []
            p.turner.turns.may_be_over("my number is that")
            await press(p, "3#")  # after the draft was prompted: for the next
            p.turner.turns.ended("my number is that")
            added = "(The caller pressed 1 2.)"
            assert words(p) == ["my number is that", added]
            await asyncio.sleep(0)
            texts = [prompt.text for prompt in model.prompts]
            assert texts[-1] == f"my number is that {added}"
            p.turner.turns.ended("and")
            assert words(p)[2:] == ["and", "(The caller pressed 3.)"]

    run(main())


def test_more_keys_than_anybody_types_are_counted_and_not_kept() -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Voice()) as p:
            p.turner.turns.started()
            for _ in range(10):
                await press(p, "123456789*")
            await until(5.0)
            figures = p.call.figures()
            assert figures["Keypad.keys"] == 100
            assert figures["Keypad.keys_lost"] == 100 - MOST
            assert sum(map(len, keys._entries)) == MOST

    run(main())


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_every_key_is_told_once(seed: int) -> None:
    """To whoever read it, or to the model; in the order in which they were pressed."""
    dice = random.Random(seed)

    async def main() -> None:
        keys = Keypad(terminator="", interrupts=dice.random() < 0.5)
        model = Model(seconds=dice.choice([0.0, 0.7]))
        pressed: list[str] = []
        told: list[tuple[str, float]] = []

        async def read(p: Phone) -> None:
            try:
                entry = await keys.read(dice.choice([None, 3]), timeout=dice.uniform(1, 5), gap=2.0)
            except KeypadBusy:
                return
            told.append((entry.keys, now()))

        async with phone(keys, model, Voice()) as p:
            tasks: list[asyncio.Task[object]] = []
            speaking = False
            for _ in range(60):
                await asyncio.sleep(dice.expovariate(2.0))
                match dice.randrange(9):
                    case 0 | 1 | 2 | 3:
                        pressed.append(dice.choice("0123456789"))
                        await press(p, pressed[-1])
                    case 4:
                        tasks.append(asyncio.create_task(read(p)))
                    case 5 if tasks:
                        dice.choice(tasks).cancel()
                    case 6:
                        tasks.append(asyncio.create_task(p.call.say("x" * dice.randrange(1, 40))))
                    case 7 if not speaking:
                        p.turner.turns.started()
                        speaking = True
                    case 8 if speaking:
                        if dice.random() < 0.5:
                            p.turner.turns.may_be_over("words")
                            if dice.random() < 0.5:
                                p.turner.turns.resumed()
                        p.turner.turns.ended("words")
                        speaking = False
            p.turner.turns.ended("words")
            await asyncio.sleep(90.0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks or [asyncio.create_task(asyncio.sleep(0))])
            await asyncio.sleep(90.0)
            modelled = "".join(c for text in words(p) for c in text if c.isdigit())
            read_keys = "".join(entry for entry, _ in told)
            assert Counter(modelled) + Counter(read_keys) == Counter(pressed)
            for part in (modelled, read_keys):
                rest = iter(pressed)
                assert all(key in rest for key in part), "in order"
            prompted = "".join(c for prompt in model.prompts for c in prompt.text if c.isdigit())
            assert Counter(modelled) <= Counter(prompted), "the model was asked with all of them"
        assert p.result is not None
        assert p.result.fault is None

    run(main())


def test_a_key_that_is_none_is_left_alone() -> None:
    async def main() -> None:
        async with phone(Keypad(), Voice()) as p:
            p.link.peer.send("digit x")
            await until(5.0)
            assert words(p) == []

    run(main())


# -- the tool


class Asking(Processor):
    """A model that asks for keys, with a sentence before, and answers with the result."""

    needs = (Prompt,)
    emits = (Sentence, ReplyEnd, ToolStart, ToolEnd)

    def __init__(self, tool: Tool, arguments: str = '{"digits": 4}', first: str = "pin?") -> None:
        self.desk = ToolDesk(self, [tool])
        self.arguments, self.first = arguments, first
        self.prompts: list[Prompt] = []

    @on(Prompt)
    async def answer(self, prompt: Prompt) -> AsyncIterator[Sentence | ReplyEnd]:
        self.prompts.append(prompt)
        assert prompt.reply is not None
        if prompt.text.startswith("("):
            yield Sentence("thanks!")
        else:
            yield Sentence(self.first)
            asked = [Requested("1", "collect_keys", self.arguments)]
            ran = await self.desk.run(prompt.reply, asked, self.desk.tools)
            yield Sentence(ran.uses[0].result)
        yield ReplyEnd()

    async def stop(self) -> None:
        await self.desk.close()


def uses(p: Phone) -> list[ToolUse]:
    return [entry for entry in p.call.history.messages if isinstance(entry, ToolUse)]


def test_the_tool_gives_the_model_the_keys() -> None:
    async def main() -> None:
        keys = Keypad()
        model = Asking(keys.collect)
        async with phone(keys, model, Voice()) as p:
            p.turner.turns.ended("I want to pay")
            await until(2.0)
            await press(p, "12")
            await until(3.0)
            await press(p, "34")
            await until(5.0)
            assert sounds(p) == [0.0, 3.0]
            assert said(p) == ["pin? 1 2 3 4"]
            assert [(use.state, use.result) for use in uses(p)] == [(UseState.DONE, "1 2 3 4")]
            assert words(p) == ["I want to pay"]
            assert p.call.interrupts == 0

    run(main())


@pytest.mark.parametrize(
    ("arguments", "pressed", "result"),
    [
        ('{"digits": 4}', "12#", "1 2 (4 were asked for)"),
        ("{}", "12#", "1 2"),
        ("{}", "", "The caller pressed no key."),
        ('{"end_key": "none", "digits": 2}', "1#", "1 #"),
        ('{"end_key": "*"}', "1#*", "1 #"),
    ],
)
def test_what_the_model_reads(arguments: str, pressed: str, result: str) -> None:
    async def main() -> None:
        keys = Keypad()
        model = Asking(keys.collect, arguments)
        async with phone(keys, model, Voice()) as p:
            p.turner.turns.ended("I want to pay")
            await until(2.0)
            await press(p, pressed)
            await until(20.0)
            assert uses(p)[0].result == result

    run(main())


@pytest.mark.parametrize(
    "arguments", ['{"digits": 0}', '{"digits": 65}', '{"wait": 300}', '{"end_key": "1"}']
)
def test_what_the_model_asks_for_has_bounds(arguments: str) -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Asking(keys.collect, arguments), Voice()) as p:
            p.turner.turns.ended("I want to pay")
            await until(0.1)
            assert uses(p)[0].state is UseState.REFUSED

    run(main())


def test_who_types_while_he_is_still_being_asked_is_understood() -> None:
    """The first key stops the question, and with it the answer that waited for the keys."""

    async def main() -> None:
        keys = Keypad()
        model = Asking(keys.collect, first="please type your pin, and after it")
        async with phone(keys, model, Voice()) as p:
            p.turner.turns.ended("I want to pay")
            await until(1.0)
            await press(p, "12")
            await until(2.0)
            await press(p, "34")
            await until(5.0)
            assert p.carrier.times("clear") == [1.0]
            assert uses(p)[0].state is UseState.CANCELLED
            assert words(p) == ["I want to pay", "(The caller pressed 1 2 3 4.)"]
            assert said(p) == ["please", "thanks!"]
            await until(40.0)
            assert len(model.prompts) == 2, "nobody is told of it again"

    run(main())


def test_who_speaks_instead_of_typing_is_answered_and_nothing_is_collected_any_more() -> None:
    async def main() -> None:
        keys = Keypad()
        model = Asking(keys.collect)
        async with phone(keys, model, Voice()) as p:
            p.turner.turns.ended("I want to pay")
            await until(2.0)
            model.first = "all right. "
            p.turner.turns.ended("I have no pin")
            await until(2.5)
            first, second = uses(p)
            assert first.state is UseState.CANCELLED
            assert first.result == "The caller spoke instead of typing."
            assert second.state is UseState.RUNNING, "the keypad was free for it"

    run(main())


def test_a_model_that_asks_twice_at_once_gets_one_entry() -> None:
    class Twice(Asking):
        @on(Prompt)
        async def answer(self, prompt: Prompt) -> AsyncIterator[Sentence | ReplyEnd]:
            assert prompt.reply is not None
            asked = [Requested(name, "collect_keys", self.arguments) for name in "ab"]
            ran = await self.desk.run(prompt.reply, asked, self.desk.tools)
            yield Sentence(ran.uses[0].result)
            yield ReplyEnd()

    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Twice(keys.collect), Voice()) as p:
            p.turner.turns.ended("I want to pay")
            await until(2.0)
            await press(p, "1234")
            await until(5.0)
            first, second = uses(p)
            assert (first.state, first.result) == (UseState.DONE, "1 2 3 4")
            assert second.state is UseState.FAILED
            assert "collected already" in second.result

    run(main())


def test_hanging_up_while_keys_are_collected_does_not_hold_the_call() -> None:
    async def main() -> None:
        keys = Keypad()
        async with phone(keys, Asking(keys.collect), Voice()) as p:
            p.turner.turns.ended("I want to pay")
            await until(2.0)
            p.link.peer.send("stop")
            await until(2.1)
        assert now() < 2.5
        assert p.result is not None
        assert p.result.fault is None

    run(main())


# -- secrets


def test_a_secret_is_in_the_call_s_state_and_nowhere_else() -> None:
    from loguru import logger

    logged: list[str] = []
    sink = logger.add(lambda message: logged.append(str(message)), level=0)

    async def main() -> None:
        keys = Keypad(secret=True)
        async with phone(keys, Asking(keys.collect), Voice()) as p:
            p.turner.turns.ended("I want to pay")
            await until(2.0)
            await press(p, "9753")
            await until(6.0)
            assert p.call.state[STATE] == "9753"
            assert uses(p)[0].result == "entered, 4 digits"
            await press(p, "8642#")
            await until(9.0)
            assert p.call.state[STATE] == "8642"
            assert words(p)[-1] == "(The caller entered 4 digits.)"
            seen = "".join([*(e.content for e in p.call.history.messages), str(vars(p.call.trace)), *logged])
        for secret in ("9753", "9 7 5 3", "8642", "8 6 4 2"):
            assert secret not in seen + "".join(logged)

    try:
        run(main())
    finally:
        logger.remove(sink)


@pytest.mark.parametrize(
    "wrong",
    [{"timeout": 0.0}, {"gap": -1.0}, {"pause": 61.0}, {"terminator": "##"}, {"timeout": float("nan")}],
)
def test_parameters_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(DeclarationError):
        Keypad(**wrong)  # type: ignore[arg-type]


def test_it_conforms() -> None:
    # The turn that a key becomes is no frame of ours: here it comes after everything else.
    check_processor(lambda: Keypad(pause=60.0))
    check_processor(lambda: Keypad(pause=60.0, interrupts=False, secret=True))
