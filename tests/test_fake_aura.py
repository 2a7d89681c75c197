"""The fake Deepgram Aura has the habits of the real one, and every fault it can be asked for."""

from __future__ import annotations

import asyncio
import math
from typing import Any
from uuid import UUID

import pytest

from tests.vendors import spelled
from tests.vendors.aura import FakeAura
from tests.vendors.reach import Client, InMemory, OverSockets, Wire, both_ways
from tests.vendors.speaking import SEND_TIMEOUT, Fault
from tests.vendors.voice import from_format
from tests.vendors.wire import Asked
from voiceflow.errors import LinkRefused
from voiceflow.frames import PHONE, AudioFormat
from voiceflow.testing import pair

SPEAK = "/v1/speak?model=aura-2-thalia-en&encoding=mulaw&sample_rate=8000"
FLUSH = {"type": "Flush"}
CLEAR = {"type": "Clear"}
CLOSE = {"type": "Close"}
TEXT = "Hello there. "


def quick(**options: Any) -> FakeAura:
    """Without delays, for tests over sockets too."""
    return FakeAura(**{"delay": 0.0, "pace": math.inf, **options})


async def opened(dial: Any, path: str = SPEAK) -> Client:
    """A connection that has said its Metadata."""
    client: Client = await dial(path)
    (metadata,) = await client.take(1)
    assert metadata["type"] == "Metadata"
    return client


async def say(client: Client, text: str = TEXT) -> None:
    await client.send({"type": "Speak", "text": text})


async def until(client: Client, kind: str) -> list[Any]:
    """Everything up to the next message of that type, which comes last."""
    messages: list[Any] = []
    while not messages or not isinstance(messages[-1], dict) or messages[-1]["type"] != kind:
        messages += await client.take(1)
    return messages


def heard(messages: list[Any], format: AudioFormat = PHONE) -> str:
    return spelled.read(from_format(b"".join(m for m in messages if isinstance(m, bytes)), format))


def flushed(number: int) -> dict[str, Any]:
    return {"type": "Flushed", "sequence_id": number}


def cleared(number: int) -> dict[str, Any]:
    return {"type": "Cleared", "sequence_id": number}


def now() -> float:
    return asyncio.get_running_loop().time()


# -- speaking


@both_ways
def test_from_text_to_flushed(wire: Wire) -> None:
    async def main() -> None:
        fake = quick(key="secret")
        async with wire.serving(fake) as dial:
            client = await dial(SPEAK, {"Authorization": "Token secret"})
            (metadata,) = await client.take(1)
            assert set(metadata) == {"type", "request_id", "model_name", "model_version", "model_uuid"}
            assert metadata["model_name"] == "aura-2-thalia-en"
            UUID(metadata["request_id"])
            UUID(metadata["model_uuid"])
            for number, text in enumerate((TEXT, "Bye.")):
                await say(client, text[:4])
                await say(client, text[4:])
                await client.send(FLUSH)
                messages = await until(client, "Flushed")
                assert heard(messages) == text
                assert all(isinstance(m, bytes) for m in messages[:-1])
                assert messages[-1] == flushed(number)
        first, second = fake.log
        assert (first.text, first.said, first.cancelled, first.name) == (TEXT, TEXT, "", "0")
        assert first.opened <= first.flushes[0] <= first.first_audio <= first.last_audio <= first.finished
        assert first.audio == pytest.approx(0.78)
        assert (second.text, second.late, second.closed) == ("Bye.", 0.0, None)
        assert not fake.wrongs

    wire.run(main())


def test_the_same_script_gives_the_same_messages_on_both_wires() -> None:
    seen: list[list[Any]] = []

    async def main(wire: Wire) -> None:
        fake = quick(flushes=1)
        async with wire.serving(fake) as dial:
            client = await opened(dial)
            await say(client)
            await client.send(FLUSH)
            seen.append(await until(client, "Flushed"))
            await client.send(CLEAR)
            seen.append(await until(client, "Cleared"))
            await say(client)
            await client.send(FLUSH)
            seen.append(await until(client, "Warning"))
            await client.send("?")
            seen.append([await client.rest(), client.code, client.reason])

    for wire in (InMemory(), OverSockets()):
        wire.run(main(wire))
    assert seen[:4] == seen[4:]
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("query", "format"),
    [
        ("?encoding=mulaw", PHONE),
        ("?encoding=mulaw&sample_rate=8000", PHONE),
        ("?encoding=mulaw&sample_rate=16000", AudioFormat("mulaw", 16_000)),
        ("?encoding=linear16&sample_rate=8000", AudioFormat("pcm16", 8000)),
        ("?encoding=linear16&sample_rate=16000", AudioFormat("pcm16", 16_000)),
        ("", AudioFormat("pcm16", 24_000)),
    ],
)
async def test_formats(virtual_time: Any, query: str, format: AudioFormat) -> None:
    async with InMemory().serving(quick()) as dial:
        client = await opened(dial, f"/v1/speak{query}")
        await say(client)
        await client.send(FLUSH)
        messages = await until(client, "Flushed")
    assert heard(messages, format) == TEXT
    assert len(messages[0]) == format.rate * format.sample_bytes // 4


async def test_messages_keep_their_absolute_times(virtual_time: Any) -> None:
    async with InMemory().serving(FakeAura(delay=0.2, pace=5.0)) as dial:
        client = await opened(dial)
        await asyncio.sleep(3)
        await say(client, "Ten chars.")  # 0.6 s of audio
        await asyncio.sleep(1)
        await client.send(FLUSH)
        times = []
        for _ in range(4):
            await client.take(1)
            times.append(now())
        assert times == [4.2, 4.25, 4.3, 4.3]  # Flushed comes with the last audio


async def test_nothing_is_said_before_a_flush_or_enough_text(virtual_time: Any) -> None:
    fake = quick(enough=50)
    async with InMemory().serving(fake) as dial:
        client = await opened(dial)
        await say(client, "x" * 49)
        await _silent(client, 60)
        await say(client, "y")
        assert heard(await client.take(12)) == "x" * 49 + "y"
        await say(client, "End.")
        await _silent(client, 60)
        await client.send(FLUSH)
        messages = await until(client, "Flushed")
        assert heard(messages) == "End."
    assert [said.text for said in fake.log] == ["x" * 49 + "yEnd."]
    assert FakeAura().enough == 500


async def test_flushes_are_answered_in_order(virtual_time: Any) -> None:
    async with InMemory().serving(FakeAura(chunk=5.0)) as dial:
        client = await opened(dial)
        await client.send(FLUSH)  # with nothing to say
        for text in ("One. ", "Two. "):
            await say(client, text)
            await client.send(FLUSH)
        messages = await client.take(5)
        assert [m if isinstance(m, dict) else heard([m]) for m in messages] == [
            flushed(0),
            "One. ",
            flushed(1),
            "Two. ",
            flushed(2),
        ]


async def test_any_text_can_be_spoken(virtual_time: Any) -> None:
    async with InMemory().serving(quick()) as dial:
        client = await opened(dial)
        await say(client, "")
        await say(client, "Zürich\n\U0001f600")
        await client.send(FLUSH)
        assert heard(await until(client, "Flushed")) == "Z?rich ?"


# -- barge-in


@pytest.mark.parametrize("late", [0, 2])
async def test_late_audio_comes_before_cleared(virtual_time: Any, late: int) -> None:
    fake = FakeAura(late=late, delay=0.1, pace=5.0, clear_after=0.03)
    async with InMemory().serving(fake) as dial:
        client = await opened(dial)
        await say(client, "x" * 50)
        await client.send(FLUSH)
        await say(client, "y" * 50)
        await client.send(FLUSH)
        await say(client, "z" * 50)
        await client.take(3)
        at = now()
        await client.send(CLEAR)
        messages = await until(client, "Cleared")
        assert len(messages) == late + 1
        assert messages[-1] == cleared(0)
        assert now() == pytest.approx(at + late * 0.05 + 0.03)
        await _silent(client, 60)  # no Flushed for what was cleared

        await say(client)
        await client.send(FLUSH)
        messages = await until(client, "Flushed")
        assert heard(messages) == TEXT
        assert messages[-1] == flushed(0)
    one, two, three, four = fake.log
    assert (one.closed, two.closed, three.closed, four.closed) == (at, at, at, None)
    assert one.late == late * 0.25
    assert len(one.said) == (3 + late) * 2000 // 480
    assert [len(said.said + said.cancelled) for said in (one, two, three)] == [50] * 3
    assert (two.audio, three.audio) == (0.0, 0.0)
    assert one.finished == two.finished == three.finished == pytest.approx(at + late * 0.05 + 0.03)


async def test_late_audio_can_come_although_none_had_come_before(virtual_time: Any) -> None:
    fake = FakeAura(delay=0.3)
    async with InMemory().serving(fake) as dial:
        client = await opened(dial)
        await say(client)
        await client.send(FLUSH)
        await asyncio.sleep(0.1)
        await client.send(CLEAR)
        messages = await until(client, "Cleared")
    assert len(messages) == 3
    assert fake.log[0].late == 0.5


@both_ways
def test_the_next_text_need_not_wait_for_cleared(wire: Wire) -> None:
    async def main() -> None:
        fake = quick(delay=0.02)
        async with wire.serving(fake) as dial:
            client = await opened(dial)
            await say(client, "x" * 50)
            await client.send(FLUSH)
            await client.take(1)
            await client.send(CLEAR)
            await say(client, "New. ")
            await client.send(FLUSH)
            late = await until(client, "Cleared")
            assert "New" not in heard(late)
            assert heard(await until(client, "Flushed")) == "New. "

    wire.run(main())


async def test_every_clear_is_answered(virtual_time: Any) -> None:
    fake = FakeAura()
    async with InMemory().serving(fake) as dial:
        client = await opened(dial)
        await client.send(CLEAR)
        assert await client.take(1) == [cleared(0)]
        await say(client, "x" * 50)
        await client.send(FLUSH)
        await client.take(1)
        await client.send(CLEAR)
        await say(client, "Not this either. ")
        await client.send(FLUSH)
        await client.send(CLEAR)
        messages = await client.take(4)
        assert messages[2:] == [cleared(1), cleared(2)]
        await _silent(client, 60)
    assert [said.said for said in fake.log] == ["x" * 12, ""]


# -- limits


async def test_twenty_flushes_in_a_minute(virtual_time: Any) -> None:
    fake = quick()
    async with InMemory().serving(fake) as dial:
        client = await opened(dial)
        for number in range(20):
            await say(client)
            await client.send(FLUSH)
            assert (await until(client, "Flushed"))[-1] == flushed(number)
            await asyncio.sleep(1)
        await say(client, "Not lost. ")
        await client.send(FLUSH)
        (warning,) = await client.take(1)
        assert set(warning) == {"type", "description", "code"}
        assert warning["type"] == "Warning"
        await _silent(client, 39.9)  # it was ignored
        assert now() == pytest.approx(59.9)
        await client.send(FLUSH)
        assert (await client.take(1))[0]["type"] == "Warning"
        await asyncio.sleep(0.2)
        await client.send(FLUSH)
        messages = await until(client, "Flushed")
        assert heard(messages) == "Not lost. "
        assert messages[-1] == flushed(20)
    assert len(fake.wrongs) == 2


async def test_the_window_slides(virtual_time: Any) -> None:
    async with InMemory().serving(quick(flushes=2)) as dial:
        client = await opened(dial)
        for at, answer in (
            (0, "Flushed"),
            (40, "Flushed"),
            (59, "Warning"),
            (61, "Flushed"),
            (99, "Warning"),
        ):
            await asyncio.sleep(at - now())
            await client.send(FLUSH)
            assert (await client.take(1))[0]["type"] == answer


async def test_too_many_characters_in_a_minute(virtual_time: Any) -> None:
    fake = quick(characters_per_minute=100)
    async with InMemory().serving(fake) as dial:
        client = await opened(dial)
        await say(client, "x" * 100)
        await asyncio.sleep(61)
        await say(client, "x" * 60)
        await asyncio.sleep(30)
        await say(client, "x" * 41)
        assert await client.rest() == []
        assert client.code == 1008
        assert client.reason.startswith("DATA-0001")


# -- what it refuses


@both_ways
@pytest.mark.parametrize("authorization", ["", "Bearer secret", "Token wrong", "secret"])
def test_a_wrong_key_is_refused_at_the_upgrade(wire: Wire, authorization: str) -> None:
    async def main() -> None:
        fake = quick(key="secret")
        async with wire.serving(fake) as dial:
            with pytest.raises(LinkRefused) as refused:
                await dial(SPEAK, {"Authorization": authorization} if authorization else {})
        assert refused.value.status == 401
        assert "INVALID_AUTH" in refused.value.body
        assert "secret" not in refused.value.body
        assert (fake.refused, fake.connections) == (1, [])

    wire.run(main())


@pytest.mark.parametrize("query", ["encoding=mp3", "encoding=linear16&sample_rate=44100"])
async def test_formats_that_the_fake_does_not_speak(virtual_time: Any, query: str) -> None:
    async with InMemory().serving(quick()) as dial:
        with pytest.raises(LinkRefused) as refused:
            await dial(f"/v1/speak?{query}")
    assert refused.value.status == 400


@both_ways
@pytest.mark.parametrize(
    "message", ['{"type": ', "[]", {"type": "Shout"}, {"text": "x"}, {"type": "Speak", "text": 5}, b"\x00"]
)
def test_what_it_cannot_read_ends_the_connection(wire: Wire, message: Any) -> None:
    async def main() -> None:
        fake = quick()
        async with wire.serving(fake) as dial:
            client = await opened(dial)
            await client.send(message)
            assert await client.rest() == []
            assert client.code == 1003
            assert client.reason.startswith("MESSAGE-0000")
        assert len(fake.wrongs) == 1

    wire.run(main())


# -- ends


@both_ways
def test_close_finishes_what_was_flushed(wire: Wire) -> None:
    async def main() -> None:
        fake = quick(delay=0.1)
        async with wire.serving(fake) as dial:
            client = await opened(dial)
            await say(client)
            await client.send(FLUSH)
            await say(client, "Not flushed. ")
            await client.send(CLOSE)
            await client.send(CLEAR)  # too late
            messages = await client.rest()
            assert client.code == 1000
        assert heard(messages) == TEXT
        assert messages[-1] == flushed(0)
        assert fake.log[1].cancelled == "Not flushed. "
        assert [what for _, what in fake.wrongs] == ["a message after Close"]

    wire.run(main())


@both_ways
def test_a_client_that_leaves(wire: Wire) -> None:
    async def main() -> None:
        fake = quick(delay=60.0)
        async with wire.serving(fake) as dial:
            client = await opened(dial)
            await say(client)
            await client.send(FLUSH)
            while not fake.generating:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await client.close()
        assert (fake.live, fake.generating) == (0, 0)
        assert (fake.log[0].finished, fake.log[0].cancelled) == (None, TEXT)

    wire.run(main())


# -- faults


@both_ways
@pytest.mark.parametrize("after", [0, 2])
def test_sudden_death(wire: Wire, after: int) -> None:
    async def main() -> None:
        fake = quick()
        fake.faults.append(Fault("drop", after=after))
        async with wire.serving(fake) as dial:
            client = await opened(dial)
            await say(client)
            await client.send(FLUSH)
            await client.rest()
            assert client.code == 1006
            assert fake.log[0].audio == pytest.approx(after * 0.25)

            again = await opened(dial)  # it happens once
            await say(again)
            await again.send(FLUSH)
            assert heard(await until(again, "Flushed")) == TEXT

    wire.run(main())


@pytest.mark.parametrize("after", [None, 0, 2])
async def test_a_stall(virtual_time: Any, after: int | None) -> None:
    fake = quick()
    fake.faults.append(Fault("stall", after=after))
    async with InMemory().serving(fake) as dial:
        client = await opened(dial)
        await say(client)
        await client.send(FLUSH)
        await client.take(after or 0)
        await _silent(client, 60)
        await client.send(CLEAR)
        await client.send("no JSON")
        await _silent(client, 600)
        assert fake.live == 1
        await client.close()
        await asyncio.sleep(1)
        assert fake.live == 0


@both_ways
@pytest.mark.parametrize(
    ("fault", "code", "reason"),
    [
        (Fault("close", code=1011, message="NET-0001 timeout"), 1011, "NET-0001 timeout"),
        (Fault("close", after=None, code=1001), 1001, ""),
        (Fault("refuse"), 1008, "DATA-0001: the request was refused"),
    ],
)
def test_a_close_from_its_side(wire: Wire, fault: Fault, code: int, reason: str) -> None:
    async def main() -> None:
        fake = quick()
        fake.faults.append(fault)
        async with wire.serving(fake) as dial:
            client = await opened(dial)
            await say(client)
            await client.send(FLUSH)
            assert await client.rest() == []
            assert (client.code, client.reason) == (code, reason)
        assert fake.faults == []

    wire.run(main())


@both_ways
def test_an_error_ends_the_connection(wire: Wire) -> None:
    async def main() -> None:
        fake = quick()
        fake.faults.append(Fault("error", after=1))
        async with wire.serving(fake) as dial:
            client = await opened(dial)
            await say(client)
            await client.send(FLUSH)
            audio, error = await client.rest()
            assert isinstance(audio, bytes)
            assert (error["type"], error["code"]) == ("Error", "NET-0000")
            assert client.code == 1011
        assert (fake.log[0].failed, fake.log[0].said) == ("NET-0000", "Hell")

    wire.run(main())


@both_ways
def test_garbage_between_the_audio(wire: Wire) -> None:
    async def main() -> None:
        fake = quick()
        fake.faults.append(Fault("garbage", after=1))
        async with wire.serving(fake) as dial:
            client = await opened(dial)
            await say(client)
            await client.send(FLUSH)
            messages = await client.take(6)
        assert isinstance(messages[1], str)
        assert heard(messages) == TEXT
        assert messages[-1] == flushed(0)

    wire.run(main())


async def test_faults_hit_the_connection_that_comes_to_them(virtual_time: Any) -> None:
    fake = quick()
    fake.faults += [Fault("garbage", after=3), Fault("drop", after=6)]
    async with InMemory().serving(fake) as dial:
        for number in range(2):
            client = await opened(dial)
            await say(client)  # 4 messages
            await client.send(FLUSH)
            messages = await until(client, "Flushed")
            assert len(messages) == 6 - number
        assert [fault.kind for fault in fake.faults] == ["drop"]


# -- the rest


async def test_a_client_that_does_not_read_is_dropped(virtual_time: Any) -> None:
    fake = quick()
    _, link = pair()
    asked = Asked("/v1/speak", {}, {}, now())

    async def stuck(message: str | bytes) -> None:
        await asyncio.Event().wait()

    link.send = stuck  # type: ignore[method-assign]
    fake.connections.append(asked)
    await fake.converse(link, asked)
    assert now() == SEND_TIMEOUT


async def test_concurrency(virtual_time: Any) -> None:
    fake = FakeAura(delay=0.1)
    async with InMemory().serving(fake) as dial:
        one, two = await opened(dial), await opened(dial)
        for client in (one, one, two):
            await say(client)
            await client.send(FLUSH)
        await asyncio.sleep(10)
        assert (fake.generating, fake.peak) == (0, 2)
    assert {(said.connection, said.name) for said in fake.log} == {(0, "0"), (0, "1"), (1, "0")}


async def _silent(client: Client, seconds: float) -> None:
    """Nothing comes for so long."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.receive(), seconds)
