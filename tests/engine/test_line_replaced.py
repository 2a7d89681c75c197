"""The carrier takes a live call's stream away and opens another: the call goes on. In virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_calls import PACKET, RATE, Carrier, Phone, Speaker, phone, settled

from voiceflow.engine.processor import Processor, tap
from voiceflow.errors import LineError
from voiceflow.frames import PHONE, AudioIn, Dtmf
from voiceflow.line.codec import LineStarted
from voiceflow.testing import run
from voiceflow.testing.line import MemoryCodec
from voiceflow.testing.links import ScriptedLink


def numbered(packets: int) -> bytes:
    """Audio whose every packet says which one it is."""
    return b"".join(n.to_bytes(2, "big") + b"\x55" * (PACKET - 2) for n in range(packets))


class Ear(Processor):
    """Where each packet of the caller begins, and the keys."""

    def __init__(self) -> None:
        self.at: list[int] = []
        self.keys: list[str] = []

    @tap(AudioIn)
    def hear(self, frame: AudioIn) -> None:
        self.at.append(frame.at)

    @tap(Dtmf)
    def key(self, frame: Dtmf) -> None:
        self.keys.append(frame.digit)


class Next:
    """Another stream of the call of `p`, and its carrier."""

    def __init__(self, p: Phone, *, delay: float = 0.0) -> None:
        self.link = ScriptedLink(delay=delay)
        self.codec = MemoryCodec()
        self.carrier = Carrier(self.link)
        self.p = p
        self.handler: asyncio.Task[None] | None = None

    async def open(self) -> None:
        started = LineStarted("next", "c", PHONE)
        self.handler = asyncio.create_task(self.p.call.follow(self.codec, self.link, started))
        await settled()

    async def over(self) -> None:
        assert self.handler is not None
        self.carrier.hang()
        async with asyncio.timeout(10):
            await self.handler


async def stopped(p: Phone) -> bytes:
    """The first stream stops; what its caller has heard."""
    p.link.peer.send("stop")
    heard = bytes(p.carrier.heard)
    p.carrier.hang()
    await settled()
    return heard


@pytest.mark.parametrize("after", [0.05, 1.05, 2.95])
def test_what_was_cut_off_goes_on_where_it_was_heard(after: float) -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            p.speak(reply, numbered(150), "A long one.", end=True)
            await asyncio.sleep(after)
            p.call.line.expect(15.0)
            heard = await stopped(p)
            assert p.call.line.link is None
            await asyncio.sleep(2.0)
            assert not reply.dead
            following = Next(p)
            await following.open()
            await asyncio.sleep(4.0)
            whole, second = numbered(150), bytes(following.carrier.heard).rstrip(PHONE.silence)
            assert whole.startswith(heard)
            assert whole.endswith(second)
            assert 0 <= len(heard) + len(second) - len(whole) <= RATE  # none lost, a second repeated at most
            assert [m.content for m in p.call.history.messages][-1] == "A long one."
            assert p.call.history.messages[-1].cut is False
            assert p.call.turns.live is None
        await following.over()
        assert p.result is not None
        assert p.result.reason == "the test is done"

    run(main())


def test_a_reply_that_is_made_meanwhile_waits() -> None:
    async def main() -> None:
        async with phone(Speaker()) as p:
            p.call.line.expect(15.0)
            await stopped(p)
            saying = asyncio.create_task(p.call.say("hello"))
            await asyncio.sleep(3.0)
            assert not saying.done()
            assert p.call.line.depth().depth == 0
            following = Next(p)
            await following.open()
            assert await saying == "hello"
            assert len(following.carrier.heard) == RATE // 2
        await following.over()

    run(main())


def test_an_interrupt_meanwhile_leaves_what_was_heard() -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            p.speak(reply, numbered(150), "one two three four five six", end=True)
            await asyncio.sleep(1.51)
            p.call.line.expect(15.0)
            await stopped(p)
            await asyncio.sleep(1.0)
            p.call.turns.started()
            assert reply.dead
            (said,) = (m for m in p.call.history.messages if m.role == "assistant")
            assert (said.content, said.cut) == ("one two three", True)
            following = Next(p)
            await following.open()
            await asyncio.sleep(1.0)
            assert following.carrier.wire == []  # nothing of it, and nothing to clear
        await following.over()

    run(main())


def test_the_callers_audio_counts_on() -> None:
    async def main() -> None:
        ear = Ear()
        async with phone(ear) as p:
            for _ in range(10):
                p.link.peer.send(b"\xff" * PACKET)
                await asyncio.sleep(0.02)
            p.call.line.expect(15.0)
            await stopped(p)
            await asyncio.sleep(2.0)
            following = Next(p)
            await following.open()
            for _ in range(10):
                following.link.peer.send(b"\xff" * PACKET)
                await asyncio.sleep(0.02)
            following.link.peer.send("digit 5")
            await settled()
            first, second = ear.at[:10], ear.at[10:]
            assert first == list(range(0, 10 * PACKET, PACKET))
            # The gap counts too, so that a position is a time on the phone.
            assert second == list(range(second[0], second[0] + 10 * PACKET, PACKET))
            assert abs(second[0] - first[-1] - 2.02 * RATE) <= 2 * PACKET
            assert ear.keys == ["5"]
        await following.over()

    run(main())


def test_one_that_comes_before_the_first_has_stopped() -> None:
    async def main() -> None:
        async with phone() as p:
            p.speak(p.answer(), numbered(100), "Words.", end=True)
            await asyncio.sleep(0.5)
            p.call.line.expect(15.0)
            following = Next(p)
            await following.open()
            assert not p.link.is_open
            assert p.call.line.link is following.link
            assert p.call.line.stream == "next"
            p.carrier.hang()
            await asyncio.sleep(4.0)
            assert numbered(100).endswith(bytes(following.carrier.heard).rstrip(PHONE.silence))
        await following.over()

    run(main())


def test_one_after_the_other() -> None:
    async def main() -> None:
        async with phone(Speaker()) as p:
            p.call.line.expect(15.0)
            await stopped(p)
            second, third = Next(p), Next(p)
            await second.open()
            p.call.line.expect(15.0)
            second.link.peer.send("stop")
            await settled()
            await second.over()  # whoever took its socket may leave
            await third.open()
            assert await p.call.say("hello") == "hello"
            assert len(third.carrier.heard) == RATE // 2
        await third.over()

    run(main())


def test_none_comes() -> None:
    async def main() -> None:
        async with phone() as p:
            began = p.call.loop.time()
            p.call.line.expect(15.0)
            await stopped(p)
            while p.call.phase.value == "live":  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.1)
            assert p.call.loop.time() - began < 15.5
        assert p.result is not None
        assert p.result.reason == "its next stream did not come within 15 s"
        assert not p.result.normal

    run(main())


def test_a_stream_that_was_not_taken_away_is_as_before() -> None:
    """The time is over, or it was taken back: its end is the call's."""

    async def main(take_back: bool) -> None:
        async with phone() as p:
            p.call.line.expect(5.0)
            if take_back:
                p.call.line.unexpect()
            else:
                await asyncio.sleep(6.0)
            assert not p.call.line.expecting
            await stopped(p)
            with pytest.raises(LineError, match="expects no other stream"):
                await p.call.follow(MemoryCodec(), ScriptedLink(), LineStarted("x", "c", PHONE))
        assert p.result is not None
        assert (p.result.reason, p.result.normal) == ("the caller hung up", True)

    run(main(True))
    run(main(False))


def test_taken_back_after_the_stream_has_ended() -> None:
    """The caller hung up while the carrier was asked."""

    async def main() -> None:
        async with phone() as p:
            p.call.line.expect(15.0)
            await stopped(p)
            assert p.call.phase.value == "live"
            p.call.line.unexpect()
            await settled()
        assert p.result is not None
        assert (p.result.reason, p.result.normal) == ("the caller hung up", True)

    run(main())


def test_a_stream_that_breaks_while_it_is_taken_away() -> None:
    async def main() -> None:
        async with phone(Speaker()) as p:
            saying = asyncio.create_task(p.call.say("hello you"))
            await asyncio.sleep(0.3)
            p.call.line.expect(15.0)
            p.link.break_()
            p.carrier.hang()
            await asyncio.sleep(1.0)
            following = Next(p)
            await following.open()
            assert await saying == "hello you"
        await following.over()
        assert p.result is not None
        assert p.result.reason == "the test is done"

    run(main())


def test_only_one_follows() -> None:
    async def main() -> None:
        async with phone() as p:
            p.call.line.expect(15.0)
            started = LineStarted("x", "c", PHONE)
            p.call.line.replace(MemoryCodec(), ScriptedLink(), started)
            with pytest.raises(LineError, match="came before it"):
                p.call.line.replace(MemoryCodec(), ScriptedLink(), started)

    run(main())


@pytest.mark.parametrize("ends", ["before", "with", "after"])
def test_the_call_ends_while_a_stream_is_replaced(ends: str) -> None:
    """Every socket is closed, and whoever took one may leave."""

    async def main() -> None:
        async with phone() as p:
            p.call.line.expect(15.0)
            p.carrier.hang()
            following = Next(p)
            if ends == "before":
                await stopped(p)
                p.call.end("enough")
                await settled()
                with pytest.raises(LineError):
                    await p.call.follow(following.codec, following.link, LineStarted("x", "c", PHONE))
                following.carrier.hang()
                return
            handler: Any = asyncio.create_task(
                p.call.follow(following.codec, following.link, LineStarted("x", "c", PHONE))
            )
            if ends == "with":
                p.call.end("enough")
            else:
                await settled()
                p.call.end("enough")
            async with asyncio.timeout(10):
                await handler
            assert not following.link.is_open
            assert not p.link.is_open
            following.carrier.hang()
        assert p.result is not None
        assert p.result.reason == "enough"

    run(main())
