"""Filler: what a caller hears while a tool works, and when he must hear nothing of it, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from processors.filler import LONGEST_SOUND, PAUSE, Filler, waits
from processors.sentences import SentenceAggregator
from tests.engine.engine_calls import Phone, phone
from tests.quiet_calls import Hand, Voice, said, sounds, until
from voiceflow.audio import write_wav
from voiceflow.engine.referee import Referee
from voiceflow.engine.reply import Reply
from voiceflow.errors import DeclarationError
from voiceflow.frames import ReplyEnd, Sentence, Token, ToolEnd, ToolStart
from voiceflow.testing import check_processor, run
from voiceflow.tools.tool import Effect
from voiceflow.tools.use import Requested, ToolUse

LINES = ("a moment", "still on")  # 0.8 s each as Speaker says them


def filler(**options: object) -> Filler:
    return Filler(lines=LINES, **options)  # type: ignore[arg-type]


def use(name: str = "look_up") -> ToolUse:
    return ToolUse(Requested("1", name, "{}"), Effect.COMMIT)


class Scene:
    """A reply that waits for a tool, from 0 s on."""

    def __init__(self, p: Phone, hand: Hand, reply: Reply, name: str = "look_up") -> None:
        self.p, self.hand, self.reply, self.use = p, hand, reply, use(name)

    def begin(self) -> None:
        self.hand.push(ToolStart(self.use, self.reply))

    def done(self) -> None:
        self.hand.push(ToolEnd(self.use, self.reply))

    def answer(self, text: str) -> None:
        self.hand.push(Sentence(text, reply=self.reply))
        self.hand.push(ReplyEnd(reply=self.reply))


def played(scene: Callable[..., object], processor: Filler | None = None, name: str = "look_up") -> None:
    async def main() -> None:
        hand = Hand()
        async with phone(hand, processor or filler(), Voice()) as p:
            await scene(Scene(p, hand, p.answer(), name))  # type: ignore[misc]

    run(main())


def test_a_line_once_it_has_been_silent_and_another_after_a_longer_silence() -> None:
    async def scene(s: Scene) -> None:
        s.begin()
        await until(12.0)
        s.done()
        s.answer("found it.")
        await until(20.0)
        assert sounds(s.p) == pytest.approx([1.5, 1.5 + 0.8 + 8.0, 12.0])
        assert said(s.p) == ["a moment still on found it."], "heard text like any other"

    played(scene)


def test_it_is_part_of_the_reply_and_dies_with_it() -> None:
    async def scene(s: Scene) -> None:
        s.begin()
        await until(1.9)
        s.p.turner.turns.started()
        await until(30.0)
        assert sounds(s.p) == [1.5]
        assert s.p.carrier.times("clear") == pytest.approx([1.9])
        assert said(s.p) == ["a"]
        s.p.turner.turns.ended("what?")
        await until(60.0)
        assert sounds(s.p) == [1.5], "the tool of a dead reply is none of the next one's"

    played(scene)


def test_silence_is_the_line_s_counted_from_what_was_said_before_the_tool() -> None:
    async def scene(s: Scene) -> None:
        s.hand.push(Sentence("x" * 30, reply=s.reply))  # 3 s
        s.begin()
        await until(5.4)
        assert sounds(s.p) == [0.0, 4.5]

    played(scene)


def test_a_quick_tool_needs_no_filler_and_none_comes_after_it() -> None:
    async def scene(s: Scene) -> None:
        s.begin()
        await until(1.4)
        s.done()
        await until(20.0)
        assert sounds(s.p) == [], "the model is slow, but no tool is at work"

    played(scene)


def test_two_tools_are_waited_for_and_each_reply_begins_with_the_first_line() -> None:
    async def scene(s: Scene) -> None:
        other = use()
        s.begin()
        s.hand.push(ToolStart(other, s.reply))
        await until(1.0)
        s.done()
        await until(3.0)
        s.hand.push(ToolEnd(other, s.reply))
        s.answer("ok")
        await until(4.0)
        reply = s.p.answer()
        s.hand.push(ToolStart(use(), reply))
        await until(8.0)
        assert sounds(s.p) == pytest.approx([1.5, 3.0, 5.5])
        assert s.p.carrier.audio.count(b"\x55") == round((0.8 + 0.2 + 0.8) * 8000)
        s.p.turns.stop("enough")
        assert said(s.p)[-1] == "a moment"

    played(scene)


def test_nothing_comes_after_the_end_of_the_reply() -> None:
    async def scene(s: Scene) -> None:
        s.begin()
        s.answer("goodbye")
        await until(0.3)
        s.hand.push(ToolStart(use("end_call"), s.reply))
        await until(20.0)
        assert said(s.p) == ["goodbye"]

    played(scene)


def test_a_held_reply_says_nothing_until_it_goes_on() -> None:
    async def scene(s: Scene) -> None:
        s.begin()
        s.p.turner.turns.hold()
        await until(6.0)
        assert sounds(s.p) == []
        s.p.turner.turns.unhold()
        await until(7.0)
        assert sounds(s.p) == pytest.approx([6.0])

    played(scene)


def test_nothing_is_said_while_the_caller_may_be_speaking() -> None:
    class Doubtful(Referee):
        def doubts(self, reply: Reply) -> bool:
            return True

    async def scene(s: Scene) -> None:
        s.p.turns.referee = Doubtful()
        s.begin()
        await until(1.0)
        s.p.turner.turns.started()
        await until(4.2)
        assert sounds(s.p) == []
        s.p.turns.drop("mhm")
        await until(5.6)
        assert sounds(s.p) == [pytest.approx(4.5, abs=1.0)]

    played(scene)


def test_a_draft_says_nothing_before_it_is_confirmed() -> None:
    async def main(confirmed: bool) -> None:
        hand = Hand()
        async with phone(hand, filler(), Voice()) as p:
            p.turner.turns.started()
            p.turner.turns.may_be_over("what time")
            draft = p.call.turns._replies[p.call.turns.state.draft]
            hand.push(ToolStart(use(), draft))
            await until(4.0)
            if confirmed:
                p.turner.turns.ended("what time")
            else:
                p.turner.turns.resumed()
            await until(5.6)
            assert sounds(p) == (pytest.approx([5.5]) if confirmed else [])

    run(main(True))
    run(main(False))


def test_a_tool_that_waits_for_the_caller_is_no_reason() -> None:
    async def scene(s: Scene) -> None:
        s.begin()
        await until(20.0)
        assert sounds(s.p) == []

    played(scene, name="collect_keys")


def test_what_the_aggregator_holds_comes_first() -> None:
    async def main() -> None:
        hand = Hand()
        async with phone(hand, SentenceAggregator(), filler(), Voice()) as p:
            reply = p.answer()
            hand.push(Token("Let me look. ", reply=reply))
            hand.push(ToolStart(use(), reply))
            await until(4.0)
            p.turns.stop("enough")
            assert said(p) == ["Let me look. a moment"]

    run(main())


def test_a_voice_that_has_not_begun_to_speak_is_waited_for() -> None:
    """The sentence came 1.4 s ago and its audio is on its way: that is not silence."""

    async def scene(s: Scene) -> None:
        s.begin()
        await until(1.4)
        s.hand.push(Sentence("...", reply=s.reply))
        await until(1.4 + 0.3 + 1.5 - 0.01)
        assert sounds(s.p) == pytest.approx([1.4])
        await until(1.4 + 0.3 + 1.5 + 0.01)
        assert sounds(s.p) == pytest.approx([1.4, 3.2])

    played(scene)


def test_a_policy_of_one_s_own_and_the_pause_that_it_cannot_leave_out() -> None:
    asked: list[tuple[float, int]] = []

    def greedy(silent: float, said: int) -> float:
        asked.append((round(silent, 3), said))
        return 0.0 if said < 3 else float("inf")

    async def scene(s: Scene) -> None:
        s.begin()
        await until(30.0)
        assert sounds(s.p) == pytest.approx([0.0, 0.8 + PAUSE, 2 * (0.8 + PAUSE)])
        assert asked[0] == (0.0, 0)

    played(scene, filler(policy=greedy))


def test_a_policy_that_fails_ends_the_call_by_name() -> None:
    def broken(silent: float, said: int) -> float:
        raise KeyError("no idea")

    async def main() -> None:
        hand = Hand()
        async with phone(hand, filler(policy=broken), Voice()) as p:
            hand.push(ToolStart(use(), p.answer()))
            await until(1.0)
        assert p.result is not None
        assert p.result.fault is not None
        assert p.result.fault.startswith("Filler")

    run(main())


def test_waits() -> None:
    fill = waits(1.5, 8.0)
    assert fill(0.0, 0) == 1.5
    assert fill(2.0, 0) == -0.5
    assert fill(2.0, 1) == 6.0


@pytest.mark.parametrize("as_file", [True, False])
def test_a_sound_is_heard_and_is_no_words(tmp_path: Path, as_file: bool) -> None:
    tone = tmp_path / "tone.wav"
    write_wav(tone, [np.full(8000, 1000, dtype=np.int16)])  # 1 s

    async def scene(s: Scene) -> None:
        s.hand.push(Sentence("let me look", reply=s.reply))  # 1.1 s
        s.begin()
        await until(3.1)  # in the middle of the sound
        s.p.turner.turns.started()
        assert sounds(s.p) == pytest.approx([0.0, 2.6])
        assert said(s.p) == ["let me look"], "whole: the sound is not more of that stretch"

    played(scene, filler(sound=tone if as_file else b"\x11" * 8000))


def test_after_a_sound_the_answer_is_a_stretch_of_its_own() -> None:
    async def scene(s: Scene) -> None:
        s.begin()
        await until(2.0)
        s.done()
        s.answer("found it.")
        await until(6.0)
        assert said(s.p) == ["found it."]
        assert len(s.p.carrier.heard) == 8000 + 7200

    played(scene, filler(sound=b"\x11" * 8000))


def test_a_sound_that_is_too_long_or_empty_is_refused_before_a_call_is_answered() -> None:
    async def main(sound: bytes) -> None:
        async with phone(filler(sound=sound), Voice()) as p:
            await until(1.0)
        assert p.result is not None
        assert "the answer waits" in str(p.result.fault)

    run(main(b"\x11" * int(8000 * LONGEST_SOUND + 160)))
    run(main(b""))


@pytest.mark.parametrize(
    "wrong",
    [
        {"after": 0.0},
        {"after": "One moment."},
        {"again": float("nan")},
        {"lines": ()},
        {"lines": ("", "x")},
        {"lines": "One moment."},
        {"except_for": "collect"},
        {"sound": "nowhere.wav"},
    ],
)
def test_parameters_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(DeclarationError, match="Filler"):
        Filler(**wrong)  # type: ignore[arg-type]


def test_it_conforms() -> None:
    check_processor(Filler)
    check_processor(lambda: Filler(sound=b"\x11" * 800))
