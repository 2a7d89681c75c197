"""Interrupt: seven steps in one order, everything of a reply gone at one instant, and nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from engine_calls import Speaker, phone, settled

from voiceflow.engine.history import History
from voiceflow.engine.interrupt import interrupt
from voiceflow.engine.mouth import HeardText
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.reply import Reply
from voiceflow.frames import AudioIn, Frame, Interrupt, Prompt, ReplyEnd, Sentence, Token, TurnEnd, TurnStart
from voiceflow.testing import run
from voiceflow.testing.rig import Rig


class Authority(Processor):
    """The turn's authority in the middle of a chain."""

    takes_turns = True


class Ears(Processor):
    """Notes what passes, above or below."""

    def __init__(self) -> None:
        self.seen: list[Frame] = []

    @tap(Token, ReplyEnd, Interrupt, TurnStart)
    def look(self, frame: Frame) -> None:
        self.seen.append(frame)

    def got(self, kind: type) -> list[Any]:
        return [f for f in self.seen if isinstance(f, kind)]


# -- the order


def test_the_seven_steps_come_in_their_order() -> None:
    steps: list[str] = []
    reply = Reply(7)

    class FakeMouth:
        def drop(self, of: Reply) -> None:
            steps.append("2 dropped" if of.dead else "2 dropped while it lives")

        def freeze(self, of: Reply) -> HeardText:
            steps.append("3 frozen")
            return HeardText("Good mor", 800, True)

        def clear(self, of: Reply) -> None:
            steps.append("4 cleared")

    class FakePump:
        def detach(self, of: Reply, *, cancel: bool) -> list[tuple[str, str]]:
            steps.append(f"5 detached, cancel={cancel}")
            return [("processor", "task")]

        def inject(self, frame: Interrupt, origin: int) -> None:
            assert frame == Interrupt(reply, "barge-in", "Good mor")
            steps.append(f"7 sent from {origin}")

    class FakeHistory(History):
        def agent_was_heard(self, text: str, *, cut: bool) -> None:
            steps.append(f"6 history: {text}, cut={cut}")

    heard = interrupt(
        reply,
        "barge-in",
        pump=FakePump(),  # type: ignore[arg-type]
        mouth=FakeMouth(),  # type: ignore[arg-type]
        history=FakeHistory(),
        reap=lambda processor, task: steps.append(f"5 reaps {processor} {task}"),
        origin=3,
    )
    assert reply.dead  # 1, and the mouth saw it
    assert heard == HeardText("Good mor", 800, True)
    assert steps == [
        "2 dropped",
        "3 frozen",
        "4 cleared",
        "5 detached, cancel=True",
        "5 reaps processor task",
        "6 history: Good mor, cut=True",
        "7 sent from 3",
    ]


def test_on_the_wire_nothing_of_the_reply_follows_its_clear() -> None:
    async def main() -> None:
        async with phone() as p:
            first = p.answer()
            p.speak(first, b"\x01" * 8000, "one", end=True)
            await asyncio.sleep(0.35)
            p.turner.turns.started()
            p.speak(first, b"\x01" * 8000, "late")  # a straggler, after its death
            p.turner.turns.ended()
            second = p.turns.live
            p.speak(second, b"\x02" * 1600, "two", end=True)
            await asyncio.sleep(3)
            wire = p.carrier
            assert [m for _, m in wire.wire].count("clear") == 1
            assert all(set(m) == {2} for m in wire.after("clear") if isinstance(m, bytes))
            assert bytes(wire.heard).count(2) == 1600
            assert p.call.history.messages[-1].content == "two"
            # What the first had sent ahead was thrown away: at most the lead of 200 ms.
            sent = sum(len(m) for _, m in wire.wire if isinstance(m, bytes) and m[0] == 1)
            assert sent - bytes(wire.heard).count(1) <= 1600

    run(main())


def test_the_callers_words_are_in_the_history_before_anyone_sees_the_turn_end() -> None:
    async def main() -> None:
        read: list[Any] = []

        class Reads(Processor):
            @tap(TurnEnd)
            def end(self, frame: TurnEnd) -> None:
                read.append([(m.role, m.content) for m in self.call.history.messages])

            @tap(Prompt)
            def prompt(self, frame: Prompt) -> None:
                read.append((frame.text, [(m.role, m.content) for m in frame.history]))

        async with phone(Reads()) as p:
            p.turner.turns.ended("hello")
            p.turner.turns.started()
            p.turner.turns.may_be_over("and")
            p.turner.turns.ended("and")
            p.turner.turns.ended("and on")
        said = [("user", "hello")]
        # Whether a draft or an answer: the words are in `text`, and in `history` only what came before.
        assert read == [
            said,
            ("hello", []),
            ("and", said),
            [*said, ("user", "and")],
            [*said, ("user", "and"), ("user", "and on")],
            ("and on", [*said, ("user", "and")]),
        ]

    run(main())


# -- nothing gets past it


class Slow(Processor):
    """An async handler that takes its time, and longer to clean up."""

    def __init__(self, work: float = 1.0, cleanup: float = 0.0) -> None:
        self.work, self.cleanup = work, cleanup
        self.entered: list[tuple[float, Reply | None]] = []
        self.cleaned: list[float] = []

    @on(Token)
    async def slow(self, token: Token) -> AsyncIterator[Token]:
        self.entered.append((self.call.loop.time(), token.reply))
        try:
            await asyncio.sleep(self.work)
            yield token
        finally:
            if self.cleanup:
                await asyncio.sleep(self.cleanup)
            self.cleaned.append(self.call.loop.time())


@pytest.mark.parametrize("at", ["before", "in one burst", "after"])
def test_a_thousand_queued_frames_die_at_once_from_the_middle_to_both_ends(at: str) -> None:
    async def main() -> None:
        above, below, authority, slow = Ears(), Ears(), Authority(), Slow()
        async with Rig(above, authority, slow, below) as rig:
            authority.turns.ended()
            reply = rig.call.turns.live
            frames = [Token(str(i), reply=reply) for i in range(1000)]
            if at == "before":
                authority.turns.started()
                rig.push(*frames)
            elif at == "after":
                rig.push(*frames)
                await asyncio.sleep(2.5)
                authority.turns.started()
            else:
                rig.push(*frames[:500])
                authority.turns.started()
                rig.push(*frames[500:])
            passed = len(below.got(Token))
            assert passed == (2 if at == "after" else 0)
            await asyncio.sleep(1800)
            assert len(below.got(Token)) == passed
            assert [f.dead for f in above.got(Interrupt)] == [reply]
            assert [f.dead for f in below.got(Interrupt)] == [reply]
            assert rig.got(Interrupt) == rig.up[-1:], "both ends of the chain"
            assert not rig.call._pump._inboxes[3], "an inbox of the dead reply is left"
            assert rig.call.interrupts == 1

    run(main())


def test_frames_and_an_interrupt_in_one_burst_from_inside_a_handler() -> None:
    """The Interrupt is asked for while the pump is in the middle of this very reply."""

    async def main() -> None:
        class Bursts(Processor):
            takes_turns = True
            emits = (Token,)

            @on(TurnStart)
            def turn(self, frame: TurnStart) -> TurnStart:
                return frame

            @on(Sentence)
            def burst(self, frame: Sentence) -> Any:
                for i in range(100):
                    yield Token(str(i))
                self.turns.started()
                for i in range(100):
                    yield Token(str(i))

        below = Ears()
        async with Rig(Bursts(), below) as rig:
            rig.processors[0].turns.ended()
            reply = rig.call.turns.live
            rig.push(Sentence("go", reply=reply))
            await rig.settled()
            assert below.got(Token) == []
            assert [f.dead for f in below.got(Interrupt)] == [reply]
            assert rig.call._pump.dropped == 200

    run(main())


def test_a_cleanup_of_300_ms_does_not_delay_the_next_reply() -> None:
    async def main() -> None:
        slow, authority = Slow(work=10, cleanup=0.3), Authority()
        async with Rig(authority, slow) as rig:
            authority.turns.ended()
            first = rig.call.turns.live
            rig.push(Token("one", reply=first))
            await asyncio.sleep(1)
            now = asyncio.get_running_loop().time()
            authority.turns.started()
            authority.turns.ended()
            second = rig.call.turns.live
            rig.push(Token("two", reply=second))
            await rig.settled()
            assert slow.entered == [(now - 1, first), (now, second)]
            assert slow.cleaned == []
            await asyncio.sleep(20)
            assert slow.cleaned == [pytest.approx(now + 0.3), pytest.approx(now + 10.3)]
            assert rig.texts()[-1:] == ["two"]

    run(main())


def test_a_handler_that_ignores_its_cancellation_is_named_and_the_call_goes_on(logged: list[str]) -> None:
    class Stubborn(Processor):
        stop_timeout = 2.0

        @on(Token)
        async def work(self, token: Token) -> Token:
            end = self.call.loop.time() + 4
            while self.call.loop.time() < end:
                try:
                    await asyncio.sleep(end - self.call.loop.time())
                except asyncio.CancelledError:
                    pass
            return token

    async def main() -> None:
        authority = Authority()
        async with Rig(authority, Stubborn()) as rig:
            authority.turns.ended()
            rig.push(Token("one", reply=rig.call.turns.live))
            await asyncio.sleep(1)
            authority.turns.started()
            authority.turns.ended()
            rig.push(Token("two", reply=rig.call.turns.live))
            await asyncio.sleep(10)
            assert rig.texts()[-1] == "two"
            assert "one" not in rig.texts()
        assert any("Stubborn" in m and "still runs after 2 s" in m for m in logged)

    run(main())


def test_what_a_cancelled_handler_raises_while_cleaning_up_does_not_end_the_call(logged: list[str]) -> None:
    class Breaks(Processor):
        @on(Token)
        async def work(self, token: Token) -> Token:
            try:
                await asyncio.sleep(10)
            finally:
                raise ValueError("the socket was gone already")
            return token

    async def main() -> None:
        authority = Authority()
        async with Rig(authority, Breaks()) as rig:
            authority.turns.ended()
            rig.push(Token("one", reply=rig.call.turns.live))
            await asyncio.sleep(1)
            authority.turns.started()
            await asyncio.sleep(1)
            assert rig.fault is None
        assert any("Breaks: work failed after its reply was dead" in m for m in logged)

    run(main())


# -- what it must not touch


def test_it_never_cancels_a_handler_of_a_caller_frame() -> None:
    async def main() -> None:
        done: list[Any] = []

        class Listens(Processor):
            @on(AudioIn)
            async def listen(self, frame: AudioIn) -> AudioIn:
                await asyncio.sleep(1)
                done.append(frame.at)
                return frame

        authority = Authority()
        async with Rig(Listens(), authority) as rig:
            for at in range(3):
                rig.push(AudioIn(b"", at))
            for _ in range(5):
                authority.turns.ended()
                await asyncio.sleep(0.5)
            await asyncio.sleep(10)
            assert done == [0, 1, 2]
            assert [f.at for f in rig.got(AudioIn)] == [0, 1, 2]
            assert rig.call.interrupts == 4

    run(main())


@pytest.mark.parametrize("how", ["coroutine", "async generator"])
def test_it_never_cancels_the_handler_that_asked_for_it(how: str) -> None:
    async def main() -> None:
        done: list[str] = []

        class Stops(Processor):
            @on(Token)
            async def coroutine(self, token: Token) -> Token:
                self.call.turns.stop("that was wrong")
                await asyncio.sleep(1)
                done.append(token.text)
                return token

            @on(Sentence)
            async def generator(self, sentence: Sentence) -> AsyncIterator[Sentence]:
                yield sentence
                self.call.turns.stop("that was wrong")
                await asyncio.sleep(1)
                done.append(sentence.text)
                yield sentence

        authority = Authority()
        async with Rig(authority, Stops()) as rig:
            authority.turns.ended()
            kind = Token if how == "coroutine" else Sentence
            rig.push(kind("a", reply=rig.call.turns.live), kind("b", reply=rig.call.turns.live))
            await asyncio.sleep(10)
            assert done == ["a"], "it ran to its end, and nothing that waited behind it began"
            assert len(rig.got(kind)) == (0 if kind is Token else 1)
            assert [f.reason for f in rig.got(Interrupt)] == ["that was wrong"]

    run(main())


def test_a_handler_that_asked_for_it_and_never_ends_is_ended_with_the_call() -> None:
    async def main() -> None:
        class Stops(Processor):
            @on(Token)
            async def work(self, token: Token) -> Token:
                self.call.turns.stop("that was wrong")
                await asyncio.sleep(1e6)
                return token

        authority = Authority()
        async with Rig(authority, Stops()) as rig:
            authority.turns.ended()
            rig.push(Token("a", reply=rig.call.turns.live))
            await asyncio.sleep(1)
        # virtual time itself raises Leak if the task is still there

    run(main())


def test_what_a_users_interrupt_handler_returns_is_ignored() -> None:
    async def main() -> None:
        ran: list[str] = []

        class Answers(Processor):
            emits = (Token,)

            @on(Interrupt)
            def plain(self, frame: Interrupt) -> Any:
                ran.append("plain")
                return Token("stale", reply=frame.dead)

        class Yields(Processor):
            @on(Interrupt)
            def generator(self, frame: Interrupt) -> Any:
                ran.append("generator")
                yield Token("stale")
                ran.append("its end")

        class Waits(Processor):
            @on(Interrupt)
            async def coroutine(self, frame: Interrupt) -> Any:
                ran.append("coroutine")
                return 5

        class WaitsAndYields(Processor):
            @on(Interrupt)
            async def generator(self, frame: Interrupt) -> Any:
                ran.append("async generator")
                yield frame
                yield frame

        authority = Authority()
        async with Rig(authority, Answers(), Yields(), Waits(), WaitsAndYields()) as rig:
            authority.turns.ended()
            authority.turns.started()
            await rig.settled()
            assert ran == ["plain", "generator", "its end", "coroutine", "async generator"]
            assert len(rig.got(Interrupt)) == 1
            assert rig.got(Token) == []

    run(main())


# -- at any moment of a reply


def test_before_the_reply_has_begun() -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            p.turner.turns.started()
            p.speak(reply, b"\x01" * 800, "too late", end=True)
            await asyncio.sleep(2)
            assert p.carrier.wire == [], "nothing was sent, so there is nothing to clear"
            assert p.call.history.messages == ()

    run(main())


def test_during_a_draft() -> None:
    async def main() -> None:
        async with phone() as p:
            p.turner.turns.started()
            p.turner.turns.may_be_over("yes")
            draft = p.turns._replies[p.turns.state.draft]
            p.speak(draft, b"\x01" * 8000, "a draft", end=True)
            await asyncio.sleep(2)
            assert p.carrier.wire == [], "a draft is not heard"
            p.turner.turns.resumed()
            assert draft.dead
            p.turner.turns.ended("yes but")
            live = p.turns.live
            p.speak(live, b"\x02" * 800, "the answer", end=True)
            await asyncio.sleep(2)
            assert set(p.carrier.audio) == {2}
            assert "clear" not in [m for _, m in p.carrier.wire]
            assert [m.content for m in p.call.history.messages] == ["yes but", "the answer"]

    run(main())


def test_twice() -> None:
    async def main() -> None:
        async with phone() as p:
            for _ in range(2):
                p.speak(p.answer(), b"\x01" * 8000, "again", end=True)
                await asyncio.sleep(0.5)
                p.turner.turns.started()
                p.turner.turns.started()
                await settled()
            assert [m for _, m in p.carrier.wire].count("clear") == 2
            assert p.call.interrupts == 2

    run(main())


def test_as_the_last_mark_comes_back() -> None:
    """The reply is over: a barge-in now cuts nothing."""

    async def main() -> None:
        async with phone() as p:
            p.speak(p.answer(), b"\x01" * 800, "all of it", end=True)
            await asyncio.sleep(0.101)
            p.turner.turns.started()
            await asyncio.sleep(1)
            assert [(m.content, m.cut) for m in p.call.history.messages] == [("all of it", False)]
            assert p.call.interrupts == 0

    run(main())


def test_say_is_told_what_was_heard_when_it_is_cut_off() -> None:
    async def main() -> None:
        async with phone(Speaker()) as p:
            saying = asyncio.create_task(p.call.say("one two three four"))
            await asyncio.sleep(0.85)
            p.turner.turns.started()
            assert await saying == "one two"
            [message] = p.call.history.messages
            assert (message.content, message.cut) == ("one two", True)

    run(main())
