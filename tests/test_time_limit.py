"""TimeLimit: the notice, the goodbye, and the latest moment at which a call is over, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from processors.time_limit import GOODBYE_LIMIT, REASON, TimeLimit
from tests.engine.engine_calls import phone
from tests.quiet_calls import Model, Voice, is_over, over, said, sounds, until
from voiceflow.errors import DeclarationError
from voiceflow.frames import ReplyEnd, Sentence
from voiceflow.testing import check_processor, run

NOTICE = "one minute"  # 1.0 s as Speaker says it
BYE = "time is up. goodbye!"  # 2.0 s


def limit(seconds: float = 100.0, warn: float = 60.0, wait: float = 5.0) -> TimeLimit:
    return TimeLimit(seconds, warn, NOTICE, BYE, wait)


def test_in_silence_the_notice_and_the_goodbye_come_on_time() -> None:
    async def main() -> None:
        async with phone(limit(), Voice()) as p:
            ended = await over(p)
            assert sounds(p) == pytest.approx([40.0, 100.0])
            assert said(p) == [NOTICE, BYE]
            assert ended == pytest.approx(102.0)
            assert bytes(p.carrier.heard) == p.carrier.audio
        assert p.result is not None
        assert p.result.reason == REASON
        assert p.result.normal
        assert p.result.figures["TimeLimit.notices"] == 1
        assert p.result.figures["TimeLimit.reached"] == 1

    run(main())


def test_the_notice_waits_for_the_caller_and_for_his_answer() -> None:
    async def main() -> None:
        async with phone(Model(seconds=1.0), limit(), Voice()) as p:
            await until(39.0)
            p.turner.turns.started()
            await until(45.0)
            p.turner.turns.ended("a question")
            await until(50.0)
            assert said(p) == ["an answer.", NOTICE]
            assert sounds(p) == pytest.approx([46.0]), "the notice follows without a gap"

    run(main())


def test_both_are_heard_to_their_end_whatever_the_caller_says() -> None:
    async def main() -> None:
        async with phone(Model(seconds=1.0), limit(), Voice()) as p:
            await until(40.4)
            p.turner.turns.started()
            await until(40.7)
            p.turner.turns.ended("oh no")
            await until(50.0)
            assert said(p) == [NOTICE, "an answer."]
            assert sounds(p) == pytest.approx([40.0, 42.0]), "what he said is answered after it"
            await until(101.0)
            p.turner.turns.started()
            p.turner.turns.ended("no, wait")
            assert await over(p) == pytest.approx(102.0)
            assert said(p)[-1] == BYE

    run(main())


def test_a_notice_that_found_no_silence_is_not_given_after_the_limit() -> None:
    async def main() -> None:
        async with phone(limit(), Voice()) as p:
            await until(39.0)
            p.turner.turns.started()
            await until(101.0)
            p.turner.turns.ended("at last")
            ended = await over(p)
            assert said(p) == [BYE]
            assert ended == pytest.approx(103.0)
        assert p.result is not None
        assert p.result.figures["TimeLimit.notices"] == 0

    run(main())


@pytest.mark.parametrize(("length", "stopped"), [(30, False), (200, True)])
def test_a_reply_at_the_limit_is_finished_or_stopped(length: int, stopped: bool) -> None:
    async def main() -> None:
        async with phone(limit(wait=5.0), Voice()) as p:
            await until(99.0)
            reply = p.answer()
            p.turner.push(Sentence("x" * length, reply=reply))  # 3 s, or 20 s
            p.turner.push(ReplyEnd(reply=reply))
            ended = await over(p)
            assert said(p)[-1] == BYE
            if stopped:
                assert p.carrier.times("clear") == pytest.approx([105.0])
                assert ended == pytest.approx(107.0)
            else:
                assert p.carrier.times("clear") == []
                assert said(p)[-2] == "x" * length
                assert ended == pytest.approx(104.0)

    run(main())


def test_a_goodbye_longer_than_the_wait_is_not_stopped_by_it() -> None:
    async def main() -> None:
        async with phone(limit(wait=0.5), Voice()) as p:
            ended = await over(p)
            assert said(p)[-1] == BYE
            assert ended == pytest.approx(102.0)

    run(main())


def test_what_the_caller_says_after_the_limit_is_not_answered() -> None:
    async def main() -> None:
        model = Model(seconds=0.5, text="y" * 50)
        async with phone(model, limit(), Voice()) as p:
            await until(99.5)
            p.turner.turns.started()
            await until(100.5)
            p.turner.turns.may_be_over("one more thing")
            await until(101.0)
            p.turner.turns.ended("one more thing")
            ended = await over(p)
            assert said(p) == [NOTICE, BYE]
            assert ended == pytest.approx(103.0)

    run(main())


def test_a_caller_who_does_not_stop_talking_is_hung_up_on() -> None:
    async def main() -> None:
        async with phone(limit(wait=5.0), Voice()) as p:
            await until(99.0)
            p.turner.turns.started()
            ended = await over(p)
            assert ended == pytest.approx(100.0 + 5.0 + GOODBYE_LIMIT)
            assert said(p) == [NOTICE]

    run(main())


def test_without_words_it_hangs_up_at_the_next_silence() -> None:
    async def main() -> None:
        async with phone(TimeLimit(100.0, line="", goodbye=""), Voice()) as p:
            await until(99.0)
            reply = p.answer()
            p.turner.push(Sentence("x" * 30, reply=reply))
            p.turner.push(ReplyEnd(reply=reply))
            assert await over(p) == pytest.approx(102.0)

    run(main())


def test_the_call_may_end_at_any_moment() -> None:
    for at in (0.0, 40.0, 40.5, 70.0, 100.0, 101.0):

        async def main(at: float = at) -> None:
            async with phone(limit(), Voice()) as p:
                await until(at)
                assert not is_over(p)
            assert p.result is not None
            assert p.result.fault is None
            assert p.result.reason == "the test is done"

        run(main())


@pytest.mark.parametrize(("seconds", "warned"), [(3000.0, False), (3598.0, True), (4000.0, True)])
def test_a_limit_behind_the_call_s_own_is_logged(seconds: float, warned: bool) -> None:
    from loguru import logger

    async def main() -> None:
        async with phone(TimeLimit(seconds), Voice()):
            await asyncio.sleep(1)

    logged: list[str] = []
    sink = logger.add(lambda message: logged.append(str(message)), level="WARNING")
    try:
        run(main())
    finally:
        logger.remove(sink)
    assert any("comes before the goodbye" in line for line in logged) is warned


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds": 0.0},
        {"seconds": float("inf")},
        {"seconds": 60.0, "warn": 60.0},
        {"seconds": 60.0, "warn": 90.0},
        {"warn": 0.0},
        {"warn": float("nan")},
        {"wait": -1.0},
    ],
)
def test_parameters_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(DeclarationError, match="TimeLimit"):
        TimeLimit(**wrong)  # type: ignore[arg-type]


def test_a_call_shorter_than_the_notice_is_possible_without_one() -> None:
    assert TimeLimit(30.0, line="").seconds == 30.0


def test_it_conforms() -> None:
    check_processor(TimeLimit)
