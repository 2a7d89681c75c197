"""IdlePrompts: when it speaks and when it must not, to the hundredth of a second, in virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest

from processors.idle import LINGER, REASON, Cue, IdlePrompts, due
from tests.engine.engine_calls import phone
from tests.quiet_calls import Hand, Model, Voice, is_over, now, over, said, sounds, until
from voiceflow.errors import DeclarationError
from voiceflow.frames import Dtmf, ReplyEnd, Sentence, ToolEnd, ToolStart, Transcript, VoiceStart, VoiceStop
from voiceflow.testing import check_processor, run
from voiceflow.tools.tool import Effect
from voiceflow.tools.use import Requested, ToolUse

LINES = ("there?", "hello??")  # 0.6 and 0.7 s as Speaker says them
BYE = "bye-bye!!!"  # 1.0 s


def idle(after: float | tuple[float, ...] = 8.0) -> IdlePrompts:
    return IdlePrompts(after, LINES, BYE)


def test_each_line_comes_after_the_end_of_the_one_before_then_the_goodbye_then_the_end() -> None:
    async def main() -> None:
        async with phone(idle(), Voice()) as p:
            ended = await over(p)
            assert sounds(p) == pytest.approx([8.0, 16.6, 25.3])
            assert said(p) == [*LINES, BYE]
            assert ended == pytest.approx(26.3 + LINGER)
            assert bytes(p.carrier.heard) == p.carrier.audio, "the goodbye was heard to its end"
        assert p.result is not None
        assert p.result.reason == REASON
        assert p.result.normal
        assert p.result.figures["IdlePrompts.idle_prompts"] == 3

    run(main())


def test_each_wait_may_be_its_own_and_the_last_goes_on() -> None:
    async def main() -> None:
        async with phone(idle((5.0, 2.0)), Voice()) as p:
            await over(p)
            assert sounds(p) == pytest.approx([5.0, 7.6, 10.3])

    run(main())


def test_it_counts_from_the_end_of_playback_by_the_line_s_clock_however_late_the_mark_is() -> None:
    async def main() -> None:
        async with phone(idle(), Voice(), delay=0.4) as p:
            reply = p.answer()
            p.turner.push(Sentence("x" * 60, reply=reply))  # 6 s
            p.turner.push(ReplyEnd(reply=reply))
            await asyncio.sleep(14.5)
            # Sent from 0 on, so played by our clock until 6.0; the last mark came back at 6.8.
            assert sounds(p)[1] - 0.4 == pytest.approx(14.0)

    run(main())


def test_nothing_is_said_while_the_answer_is_prepared_or_spoken_however_long_that_takes() -> None:
    async def main() -> None:
        async with phone(Model(seconds=20.0, text="y" * 200), idle(), Voice()) as p:
            p.turner.turns.ended("a question")
            await asyncio.sleep(47.9)  # 20 s of thought, 20 s of speech, 8 s of silence
            assert said(p) == ["y" * 200]
            await asyncio.sleep(0.2)
            assert sounds(p) == pytest.approx([20.0, 48.0])

    run(main())


def test_nothing_is_said_to_a_caller_who_has_the_floor_and_his_turn_begins_it_anew() -> None:
    async def main() -> None:
        model = Model(seconds=0.0)  # an answer of 1 s
        async with phone(model, idle(), Voice()) as p:
            await asyncio.sleep(10)  # the first line was said at 8
            p.turner.turns.started()
            await asyncio.sleep(60)
            assert said(p) == [LINES[0]]
            p.turner.turns.ended("yes, I am here")
            await asyncio.sleep(20)
            assert sounds(p) == pytest.approx([8.0, 70.0, 79.0, 87.6])

    run(main())


def test_a_barge_in_over_a_line_begins_it_anew_too() -> None:
    async def main() -> None:
        async with phone(idle(), Voice()) as p:
            await asyncio.sleep(8.3)
            p.turner.turns.started()
            p.turner.turns.ended("I am here")
            p.turns.stop("no model here")  # the silence begins at 8.3
            await asyncio.sleep(8.1)
            assert sounds(p) == pytest.approx([8.0, 16.3])
            await asyncio.sleep(1)
            assert said(p)[-1] == LINES[0]

    run(main())


def test_who_speaks_during_the_goodbye_is_not_hung_up_on() -> None:
    async def main() -> None:
        async with phone(Model(seconds=0.0), idle(1.0), Voice()) as p:
            await asyncio.sleep(1 + 0.6 + 1 + 0.7 + 1 + 0.95)  # 0.05 s of the goodbye are left
            p.turner.turns.started()
            await asyncio.sleep(3)
            p.turner.turns.ended("wait")
            await asyncio.sleep(0.9)
            assert not is_over(p)
            assert said(p)[-1] != BYE
            ended = await over(p)  # and then it begins from the first line
            assert said(p)[-4:] == ["an answer.", *LINES, BYE]
            assert ended == pytest.approx(8.25 + 1.0 + 1 + 0.6 + 1 + 0.7 + 1 + 1.0 + LINGER)

    run(main())


def test_words_that_began_over_the_goodbye_s_last_syllable_are_waited_for() -> None:
    async def main() -> None:
        hand = Hand()
        async with phone(hand, idle(1.0), Voice()) as p:
            await asyncio.sleep(5.2)
            hand.push(VoiceStart(0))
            await asyncio.sleep(0.1 + LINGER + 1.0)  # the recogniser takes its time
            assert not is_over(p)
            p.turner.turns.started()
            await asyncio.sleep(30)
            assert not is_over(p)

    run(main())


def test_a_voice_that_becomes_no_words_does_not_keep_the_line_open() -> None:
    async def main() -> None:
        hand = Hand()
        async with phone(hand, idle(1.0), Voice()) as p:
            await asyncio.sleep(5.2)
            hand.push(VoiceStart(0))
            ended = await over(p)
            assert ended == pytest.approx(5.3 + LINGER + 3.0)

    run(main())


def test_words_that_are_no_turn_begin_it_anew() -> None:
    async def main() -> None:
        hand = Hand()
        async with phone(hand, idle(), Voice()) as p:
            await until(8.5)
            hand.push(Transcript("yes"))  # over the end of the line, and not taken for a barge-in
            await until(10.0)
            hand.push(Transcript(" "))
            await until(18)
            assert sounds(p) == pytest.approx([8.0, 16.6])
            assert said(p) == [LINES[0], LINES[0]]

    run(main())


def test_a_key_begins_it_anew() -> None:
    async def main() -> None:
        hand = Hand()
        async with phone(hand, idle(), Voice()) as p:
            await asyncio.sleep(10)
            hand.push(Dtmf("1"))
            await asyncio.sleep(9)
            assert sounds(p) == pytest.approx([8.0, 18.0])
            assert said(p) == [LINES[0], LINES[0]]

    run(main())


def test_a_voice_puts_the_next_line_off_but_noise_only_once() -> None:
    async def main() -> None:
        hand = Hand()
        async with phone(hand, idle(), Voice()) as p:
            for second in (3.0, 5.0, 7.0):
                await until(second)
                hand.push(VoiceStart(0))
                await asyncio.sleep(0.5)
                hand.push(VoiceStop(0))
            await until(15.4)
            assert sounds(p) == []
            for _ in range(20):  # the television
                hand.push(VoiceStart(0))
                await asyncio.sleep(0.4)
                hand.push(VoiceStop(0))
                await asyncio.sleep(0.1)
            assert sounds(p) == pytest.approx([16.0])

    run(main())


@pytest.mark.parametrize(
    ("since", "wait", "voice", "expected"),
    [
        (10.0, 8.0, None, 18.0),
        (10.0, 8.0, 9.0, 18.0),
        (10.0, 8.0, 10.0, 18.0),
        (10.0, 8.0, 12.0, 20.0),
        (10.0, 8.0, 17.9, 25.9),
        (10.0, 8.0, 25.0, 26.0),
        (10.0, 8.0, float("inf"), 26.0),
        (10.0, 0.5, float("inf"), 13.5),
    ],
)
def test_due(since: float, wait: float, voice: float | None, expected: float) -> None:
    assert due(since, wait, voice) == pytest.approx(expected)


def test_a_tool_that_runs_is_not_silence() -> None:
    async def main() -> None:
        hand = Hand()
        async with phone(hand, idle(), Voice()) as p:
            reply = p.answer()
            use = ToolUse(Requested("1", "book", "{}"), Effect.COMMIT)
            hand.push(ToolStart(use, reply))
            p.turns.stop("the caller pressed a key")  # the tool goes on without its reply
            await asyncio.sleep(30)
            assert sounds(p) == []
            hand.push(ToolEnd(use, reply))
            await asyncio.sleep(8.1)
            assert sounds(p) == pytest.approx([38.0])

    run(main())


def test_a_cue_has_the_model_say_it() -> None:
    async def main() -> None:
        model = Model(seconds=0.5, text="still there?")
        lines = IdlePrompts(8.0, (Cue("Ask whether they are there."),), Cue("Say goodbye."))
        async with phone(model, lines, Voice()) as p:
            ended = await over(p)
            assert [prompt.cue for prompt in model.prompts] == ["Ask whether they are there.", "Say goodbye."]
            assert sounds(p) == pytest.approx([8.5, 8.5 + 1.2 + 8.5])
            assert ended == pytest.approx(8.5 + 1.2 + 8.5 + 1.2 + LINGER)

    run(main())


def test_a_model_that_says_nothing_does_not_make_the_next_line_come_at_once() -> None:
    async def main() -> None:
        model = Model(seconds=0.5, text="")
        async with phone(model, IdlePrompts(8.0, (Cue("Ask."), "there?"), "bye"), Voice()) as p:
            await asyncio.sleep(17)
            assert len(model.prompts) == 1
            assert sounds(p) == pytest.approx([16.0])

    run(main())


def test_without_a_goodbye_nobody_hangs_up() -> None:
    async def main() -> None:
        async with phone(IdlePrompts(2.0, LINES, None), Voice()) as p:
            await asyncio.sleep(100)
            assert said(p) == list(LINES)
            assert not is_over(p)

    run(main())


def test_another_who_speaks_first_is_waited_for() -> None:
    async def main() -> None:
        async with phone(idle(), Voice()) as p:
            await asyncio.sleep(8.0 - 0.001)
            saying = asyncio.create_task(p.call.say("the program says"))  # 1.6 s
            await asyncio.sleep(9)
            assert said(p) == ["the program says"]
            await asyncio.sleep(0.7)
            assert sounds(p) == pytest.approx([7.999, 7.999 + 1.6 + 8.0])
            await saying

    run(main())


def test_the_caller_speaks_in_the_very_tick_in_which_a_line_was_to_begin() -> None:
    async def main() -> None:
        async with phone(idle(), Voice()) as p:
            asyncio.get_running_loop().call_at(8.0, p.turner.turns.started)
            await asyncio.sleep(20)
            assert [r for r in said(p) if r] == []
            p.turner.turns.ended("yes")
            p.turns.stop("no model here")
            await asyncio.sleep(8.5)
            assert sounds(p)[-1] == pytest.approx(28.0)
        assert p.result is not None
        assert p.result.fault is None

    run(main())


def test_the_call_may_end_at_any_moment() -> None:
    for at in (0.0, 4.0, 8.0, 8.3, 16.7, 25.5, 26.35):

        async def main(at: float = at) -> None:
            async with phone(idle(), Voice()) as p:
                await asyncio.sleep(at)
            assert p.result is not None
            assert p.result.fault is None
            assert p.result.reason == "the test is done"

        run(main())


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_lines_come_only_after_silence_and_in_order(seed: int) -> None:
    dice = random.Random(seed)

    async def main() -> None:
        hand, lines = Hand(), idle((3.0, 2.0))
        waits = dict(zip((*LINES, BYE), (3.0, 2.0, 2.0), strict=True))
        async with phone(hand, Model(seconds=0.5), lines, Voice(), delay=dice.choice([0.0, 0.1])) as p:
            say, alive, spoken = p.call.say, 0.0, []
            tools: list[ToolUse] = []

            async def watched(text: str) -> str:
                wait = waits[text]
                assert p.turns.live is None
                assert not p.turns.state.floor.name.startswith(("SPEAK", "MAYBE"))
                assert p.call.silence() >= wait - 1e-6
                assert now() - alive >= wait - 1e-6
                assert not tools
                expected = waits if not spoken else list(waits)[list(waits).index(spoken[-1]) + 1 :]
                assert text == next(iter(expected))
                spoken.append(text)
                return await say(text)

            p.call.say = watched  # type: ignore[assignment,method-assign]
            reply = p.answer()
            p.turns.stop("it begins")
            while not is_over(p) and now() < 300.0:
                await asyncio.sleep(dice.expovariate(0.3))
                if is_over(p):
                    break
                match dice.randrange(6):
                    case 0:
                        hand.push(Dtmf("1"))
                        alive, spoken = now(), []
                    case 1:
                        alive, spoken = now(), []
                        p.turner.turns.started()
                        await asyncio.sleep(dice.uniform(0.0, 6.0))
                        p.turner.turns.ended("words")
                    case 2:
                        tools.append(ToolUse(Requested("1", "t", "{}"), Effect.COMMIT))
                        hand.push(ToolStart(tools[0], reply))
                        await asyncio.sleep(dice.uniform(0.0, 9.0))
                        hand.push(ToolEnd(tools.pop(), reply))
                        alive = now()
                    case 3:
                        saying = asyncio.create_task(say("z" * dice.randrange(1, 60)))
                        await asyncio.sleep(0)
                        await asyncio.sleep(dice.uniform(0.0, 6.0))
                        saying.cancel()
                    case 4:
                        hand.push(VoiceStart(0))
                        await asyncio.sleep(dice.uniform(0.0, 2.0))
                        hand.push(VoiceStop(0))
            if is_over(p):
                assert spoken == [*LINES, BYE]
                assert BYE in said(p)
        assert p.result is not None
        assert p.result.fault is None

    run(main())


@pytest.mark.parametrize(
    "wrong",
    [
        {"after": 0.0},
        {"after": ()},
        {"after": (8.0, -1.0)},
        {"after": float("nan")},
        {"after": "8"},
        {"lines": (5,)},
        {"lines": "Are you there?"},
        {"lines": ("",)},
        {"lines": (), "goodbye": None},
        {"goodbye": " "},
        {"lines": (Cue(""),)},
    ],
)
def test_parameters_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(DeclarationError, match="IdlePrompts"):
        IdlePrompts(**wrong)  # type: ignore[arg-type]


def test_it_conforms() -> None:
    report = check_processor(IdlePrompts)
    assert report.never_seen == ()
