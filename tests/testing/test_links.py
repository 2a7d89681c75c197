"""Links in memory: order, delay, bounds, ends, scripts and reactions, on virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceflow.errors import BufferOverflowError, LinkError
from voiceflow.line.link import Link
from voiceflow.testing import Break, Close, Leak, ScriptedLink, pair, run


def now() -> float:
    return asyncio.get_running_loop().time()


async def heard(link: Link) -> list[tuple[float, str | bytes]]:
    """All that the link receives until its end, with the times."""
    messages = []
    while (message := await link.receive()) is not None:
        messages.append((now(), message))
    return messages


def test_the_test_moves_the_peer():
    async def main() -> None:
        link = ScriptedLink()
        link.peer.send("hello")
        link.peer.send(b"\x00")
        assert await link.receive() == "hello"
        assert await link.receive() == b"\x00"
        await link.send("hi")
        await asyncio.sleep(2)
        await link.send(b"audio")
        assert await link.peer.receive() == "hi"
        assert await link.peer.receive() == b"audio"
        assert link.sent == [(0.0, "hi"), (2.0, b"audio")]

    run(main())


def test_peer_receive_waits_for_a_bounded_time():
    async def main() -> None:
        link = ScriptedLink(name="tts")
        with pytest.raises(TimeoutError, match=r"tts's peer: no message came in 5\.0 s"):
            await link.peer.receive()
        assert now() == 5.0
        asyncio.get_running_loop().call_later(3, link.send_now, "late")
        assert await link.peer.receive(timeout=4) == "late"
        assert now() == 8.0

    run(main())


def test_only_text_and_bytes_travel():
    async def main() -> None:
        with pytest.raises(TypeError, match="str or bytes, not dict"):
            await ScriptedLink().send({"event": "media"})  # type: ignore[arg-type]

    run(main())


# -- the end of a connection ---------------------------------------------------------------------


def test_the_peer_closes_after_what_it_sent():
    async def main() -> None:
        link = ScriptedLink()
        link.peer.send("last words")
        link.peer.close(1011, "overloaded")
        assert [await link.receive() for _ in range(3)] == ["last words", None, None]
        with pytest.raises(LinkError, match="the other side closed it"):
            await link.send("too late")
        await link.close()
        await link.close()
        assert link.sent == []

    run(main())


def test_the_link_closes():
    async def main() -> None:
        link = ScriptedLink()
        link.peer.send("never read")
        await link.send("last words")
        await link.close(4000, "done")
        await link.close(1000, "again")
        assert await link.receive() is None
        with pytest.raises(LinkError, match="this side closed it"):
            await link.send("too late")
        assert [await link.peer.receive() for _ in range(3)] == ["last words", None, None]
        assert link.closed == link.peer.closed == Close(4000, "done")
        with pytest.raises(LinkError, match="the other side closed it"):
            link.peer.send("too late")

    run(main())


def test_a_waiting_receive_ends_with_its_own_link():
    async def main() -> None:
        link = ScriptedLink()
        reading = asyncio.create_task(link.receive())
        await asyncio.sleep(1)
        await link.close()
        assert await reading is None

    run(main())


def test_sudden_death_loses_what_is_under_way_and_wakes_everyone():
    async def main() -> None:
        link = ScriptedLink(name="stt", delay=0.1)
        reading = asyncio.create_task(link.receive())
        await asyncio.sleep(1)
        link.peer.send("in flight")
        link.peer.break_("reset by peer")
        with pytest.raises(LinkError, match="peer to stt: reset by peer"):
            await reading
        with pytest.raises(LinkError, match="reset by peer"):
            await link.receive()
        with pytest.raises(LinkError, match="reset by peer"):
            await link.send("anyone?")
        with pytest.raises(LinkError, match="reset by peer"):
            await link.peer.receive()
        await link.close()
        assert now() == 1.0

    run(main())


# -- delay and bounds ----------------------------------------------------------------------------


def test_delay_holds_each_way_and_for_the_close():
    async def main() -> None:
        link = ScriptedLink(delay=0.25)
        await link.send("ping")
        assert await link.peer.receive() == "ping"
        assert now() == 0.25
        link.peer.send("pong")
        link.peer.close()
        await asyncio.sleep(0.125)
        await link.send("the close has not arrived yet")
        assert await heard(link) == [(0.5, "pong")]
        assert now() == 0.5
        await link.close(1001)
        await asyncio.sleep(1)
        assert await link.peer.receive() is None
        assert link.peer.closed == Close(1001)

    run(main())


@given(st.lists(st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.3])), st.sampled_from([0.0, 0.1]))
def test_messages_arrive_all_and_in_order_after_the_delay(pauses: list[float], delay: float):
    async def main() -> None:
        first, second = pair(delay=delay)
        sent = []

        async def send() -> None:
            for number, pause in enumerate(pauses):
                await asyncio.sleep(pause)
                sent.append((now() + delay, str(number)))
                await first.send(str(number))
            await first.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            got = group.create_task(heard(second))
        assert got.result() == sent

    run(main())


def test_order_holds_on_a_stock_loop_too():
    async def main() -> None:
        first, second = pair(delay=0.001)
        for number in range(200):
            await first.send(str(number))
        await first.close()
        assert [message for _, message in await heard(second)] == [str(number) for number in range(200)]

    asyncio.run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_a_full_link_says_so_to_whoever_sends(delay: float):
    async def main() -> None:
        link = ScriptedLink(name="llm", bound=3, delay=delay)
        for _ in range(3):
            await link.send("x")
            link.peer.send("y")
        with pytest.raises(BufferOverflowError, match="llm to peer is full"):
            await link.send("x")
        with pytest.raises(BufferOverflowError, match="peer to llm is full"):
            link.peer.send("y")
        assert await link.peer.receive() == "x"
        await link.send("room again")
        assert [message for _, message in link.sent] == ["x", "x", "room again"]
        link.peer.close()
        assert [message for _, message in await heard(link)] == ["y", "y", "y"]

    run(main())


# -- scripts and reactions -----------------------------------------------------------------------


def test_a_script_plays_from_the_first_use():
    link = ScriptedLink.playing([(0.0, "msg"), (0.5, b".."), "with it", Close(1000)], name="flux")

    async def main() -> None:
        await asyncio.sleep(10)
        assert await heard(link) == [(10.0, "msg"), (10.5, b".."), (10.5, "with it")]
        assert link.peer.closed is None

    run(main())


def test_a_script_can_end_in_sudden_death_and_stops_when_the_link_closes():
    async def main() -> None:
        dying = ScriptedLink.playing([(0.1, "one"), (0.2, Break()), (0.3, "lost")])
        assert await dying.receive() == "one"
        with pytest.raises(LinkError):
            await dying.receive()
        closing = ScriptedLink.playing([(1.0, "one"), (2.0, "two")])
        assert await closing.receive() == "one"
        await closing.close()
        await asyncio.sleep(5)
        assert await closing.receive() is None

    run(main())


def test_a_script_only_goes_forward():
    with pytest.raises(ValueError, match=r"'b' at 0\.5 s comes after an item at 1"):
        ScriptedLink.playing([(1.0, "a"), (0.5, "b")])
    with pytest.raises(TypeError, match="in brackets"):
        ScriptedLink.playing("hello")


def test_reactions_answer_on_arrival_and_keep_the_message():
    async def main() -> None:
        link = ScriptedLink(delay=0.25)
        link.on(lambda message: message == "ping", ["pong", (0.5, b"and later")])

        @link.on
        def bye(message: str | bytes) -> list[Close] | None:
            return [Close(1001)] if message == "bye" else None

        link.on(lambda message: isinstance(message, bytes), [])
        await link.send("ping")
        await link.send(b"audio, swallowed")
        await link.send("for the test")
        await asyncio.sleep(2)
        await link.send("bye")
        assert await heard(link) == [(2.0, "pong"), (2.0, b"and later")]
        assert now() == 2.5
        assert [await link.peer.receive() for _ in range(2)] == ["for the test", None]

    run(main())


def test_a_swallowing_reaction_keeps_a_long_call_within_the_bound():
    async def main() -> None:
        link = ScriptedLink(bound=10)
        link.on(lambda message: True, [])
        for _ in range(1000):
            await link.send(b"audio")
            await asyncio.sleep(0.02)
        assert len(link.sent) == 10

    run(main())


def test_an_overflow_by_a_script_fails_the_run():
    async def main() -> None:
        link = ScriptedLink.playing([(1.0, "a"), "b", "c"], bound=2)
        await link.send("go")
        await asyncio.sleep(2)

    with pytest.raises(Leak, match="peer to link is full"):
        run(main())
