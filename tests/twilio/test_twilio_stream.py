"""The far end of one stream in virtual time, where every instant can be stated exactly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import aiohttp
import pytest

from processors.twilio.codec import TwilioCodec
from processors.twilio.simulated.carrier import CarrierCodec
from processors.twilio.simulated.handset import Handset
from processors.twilio.simulated.report import CallReport, Event
from processors.twilio.simulated.stream import Line, MediaStream, Socket, StreamClock
from voiceflow.testing import run

STREAM = "MZ1"
CLOSED = aiohttp.WSMessage(aiohttp.WSMsgType.CLOSED, None, None)


class Wire:
    """A socket in memory: what was sent and when, and what the test lets arrive."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, dict[str, Any]]] = []
        self.closed = self.aborted = False
        self.flows = asyncio.Event()
        self.flows.set()
        self._arriving: asyncio.Queue[aiohttp.WSMessage] = asyncio.Queue()

    def arrive(self, data: str | bytes) -> None:
        kind = aiohttp.WSMsgType.TEXT if isinstance(data, str) else aiohttp.WSMsgType.BINARY
        self._arriving.put_nowait(aiohttp.WSMessage(kind, data, None))

    def close_from_server(self, code: int) -> None:
        self._arriving.put_nowait(aiohttp.WSMessage(aiohttp.WSMsgType.CLOSE, code, None))

    def lose(self) -> None:
        self._arriving.put_nowait(CLOSED)

    def of(self, event: str) -> list[tuple[float, Any]]:
        return [(round(at, 6), body.get(event)) for at, body in self.sent if body["event"] == event]

    async def receive(self) -> aiohttp.WSMessage:
        return await self._arriving.get()

    async def send_str(self, data: str) -> None:
        await self.flows.wait()
        self.sent.append((asyncio.get_running_loop().time(), json.loads(data)))

    async def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


class Bench:
    """One stream on one wire, and the server's codec, already started."""

    def __init__(self, **line: Any) -> None:
        self.wire = Wire()
        self.handset = Handset()
        self.report = CallReport("CA1")
        codec = CarrierCodec(stream=STREAM, call="CA1", account="AC1", parameters={"agent": "b"})
        shape = Line(**line)
        self.stream = MediaStream(
            cast(Socket, self.wire),
            codec,
            self.handset,
            self.report,
            lambda kind, at, detail: cast(None, self.report.add(Event(round(at, 6), kind, detail))),
            shape,
            StreamClock(shape.speed),
        )
        self.server = TwilioCodec()
        other = CarrierCodec(stream=STREAM, call="CA1", account="AC1", parameters={})
        assert self.server.parse(other.start())

    def events(self, *kinds: str) -> list[tuple[float, str, str]]:
        return [(e.at, e.kind, e.detail) for e in self.report.events if e.kind in kinds]


def scene(play: Callable[[Bench], Awaitable[None]], **line: Any) -> Bench:
    """Runs the stream beside `play`, which plays the server and must end it."""

    async def main() -> Bench:
        bench = Bench(**line)
        async with asyncio.TaskGroup() as group:
            group.create_task(bench.stream.run())
            await play(bench)
        return bench

    return run(main())


def test_connected_start_then_a_frame_every_20_ms() -> None:
    async def play(bench: Bench) -> None:
        bench.handset.speak(b"\x01" * 320, at=160)
        await asyncio.sleep(0.111)
        bench.stream.hang_up()

    bench = scene(play)
    assert [body["event"] for _, body in bench.wire.sent] == ["connected", "start", *["media"] * 5, "stop"]
    assert [at for at, _ in bench.wire.of("media")] == [0.02, 0.04, 0.06, 0.08, 0.1]
    assert [media["timestamp"] for _, media in bench.wire.of("media")] == ["0", "20", "40", "60", "80"]
    assert [media["chunk"] for _, media in bench.wire.of("media")] == ["1", "2", "3", "4", "5"]
    assert [body["sequenceNumber"] for _, body in bench.wire.sent[1:]] == [str(n + 1) for n in range(7)]
    assert bench.stream.tracks()[0] == b"\xff" * 160 + b"\x01" * 320 + b"\xff" * 320
    assert bench.events("caller speaks", "caller stops") == [
        (0.02, "caller speaks", ""),
        (0.06, "caller stops", ""),
    ]
    assert bench.wire.closed
    assert bench.stream.ended_by == "caller"


def test_the_pace_has_no_drift() -> None:
    async def play(bench: Bench) -> None:
        await asyncio.sleep(60.001)
        bench.stream.hang_up()

    times = [at for at, _ in scene(play).wire.of("media")]
    assert times == [round((n + 1) * 0.02, 6) for n in range(3000)]


def test_after_a_stall_the_frames_catch_up_with_the_clock() -> None:
    async def play(bench: Bench) -> None:
        await asyncio.sleep(0.05)
        bench.wire.flows.clear()
        await asyncio.sleep(0.1)
        bench.wire.flows.set()
        await asyncio.sleep(0.06)
        bench.stream.hang_up()

    bench = scene(play)
    assert [at for at, _ in bench.wire.of("media")] == [0.02, 0.04, *[0.15] * 5, 0.16, 0.18, 0.2]
    assert [media["timestamp"] for _, media in bench.wire.of("media")] == [str(n * 20) for n in range(10)]


def test_a_fast_clock_is_the_same_stream_sooner() -> None:
    async def play(bench: Bench) -> None:
        bench.wire.arrive(bench.server.audio(b"\x01" * 1600))
        bench.wire.arrive(bench.server.mark("m"))
        await asyncio.sleep(0.0301)
        bench.stream.hang_up()

    bench = scene(play, speed=10)
    assert [at for at, _ in bench.wire.of("media")] == [round((n + 1) * 0.002, 6) for n in range(15)]
    assert bench.wire.of("mark") == [(0.02, {"name": "m"})]
    assert bench.events("mark returned") == [(0.2, "mark returned", "m")]


def test_marks_come_back_when_they_were_played() -> None:
    async def play(bench: Bench) -> None:
        bench.wire.arrive(bench.server.mark("at once"))
        await asyncio.sleep(0.1)
        bench.wire.arrive(bench.server.audio(b"\x01" * 800))
        bench.wire.arrive(bench.server.mark("one"))
        bench.wire.arrive(bench.server.audio(b"\x02" * 1600))
        bench.wire.arrive(bench.server.mark("two"))
        await asyncio.sleep(1)
        bench.wire.close_from_server(1000)

    bench = scene(play)
    assert bench.wire.of("mark") == [
        (0.0, {"name": "at once"}),
        (0.2, {"name": "one"}),
        (0.4, {"name": "two"}),
    ]
    assert bench.events("agent heard", "agent silent", "stream closed by server") == [
        (0.1, "agent heard", ""),
        (0.4, "agent silent", ""),
        (1.1, "stream closed by server", "code 1000"),
    ]
    assert bench.stream.tracks()[1] == b"\xff" * 800 + b"\x01" * 800 + b"\x02" * 1600 + b"\xff" * 5600
    assert (bench.report.media_messages, bench.report.bytes_received) == (2, 2400)


def test_clear_returns_all_marks_and_leaves_silence() -> None:
    async def play(bench: Bench) -> None:
        for n in range(3):
            bench.wire.arrive(bench.server.audio(b"\x01" * 1600))
            bench.wire.arrive(bench.server.mark(str(n)))
        await asyncio.sleep(0.25)
        bench.wire.arrive(bench.server.clear())
        await asyncio.sleep(0.25)
        bench.wire.close_from_server(1000)

    bench = scene(play)
    assert bench.wire.of("mark") == [(0.2, {"name": "0"}), (0.25, {"name": "1"}), (0.25, {"name": "2"})]
    assert bench.events("agent silent", "clear received") == [
        (0.25, "agent silent", ""),
        (0.25, "clear received", "350 ms thrown away"),
    ]
    assert bench.stream.tracks()[1] == b"\x01" * 2000 + b"\xff" * 2000


def test_latency_each_way_keeps_the_order() -> None:
    async def play(bench: Bench) -> None:
        bench.wire.arrive(bench.server.audio(b"\x01" * 80))
        bench.wire.arrive(bench.server.mark("m"))
        await asyncio.sleep(0.02)
        bench.wire.arrive(bench.server.clear())
        await asyncio.sleep(0.5)
        bench.stream.hang_up()

    bench = scene(play, delay_out=0.1, delay_in=0.05)
    assert [round(at, 6) for at, _ in bench.wire.sent[:4]] == [0.1, 0.1, 0.12, 0.14]
    assert bench.events("agent heard", "mark returned", "clear received") == [
        (0.05, "agent heard", ""),
        (0.06, "mark returned", "m"),
        (0.07, "clear received", "0 ms thrown away"),
    ]
    assert bench.wire.of("mark") == [(0.16, {"name": "m"})]
    assert bench.wire.of("stop")[0][0] == 0.62
    stamps = [int(body["sequenceNumber"]) for _, body in bench.wire.sent[1:]]
    assert stamps == sorted(stamps)


def test_audio_plays_on_while_later_messages_are_still_on_their_way() -> None:
    async def play(bench: Bench) -> None:
        bench.wire.arrive(bench.server.audio(b"\x01" * 80))
        bench.wire.arrive(bench.server.mark("m"))
        await asyncio.sleep(0.199)
        bench.wire.arrive(bench.server.clear())
        await asyncio.sleep(0.3)
        bench.stream.hang_up()

    bench = scene(play, delay_in=0.2)
    assert bench.wire.of("mark") == [(0.21, {"name": "m"})]


def test_short_gaps_are_underruns_and_pauses_are_not() -> None:
    async def play(bench: Bench) -> None:
        for wait in (0.15, 0.5, 0.05, 0.15):
            bench.wire.arrive(bench.server.audio(b"\x01" * 800))
            await asyncio.sleep(wait)
        bench.wire.arrive(bench.server.audio(b"\x01" * 800))
        bench.wire.arrive(bench.server.clear())
        await asyncio.sleep(0.01)
        bench.wire.arrive(bench.server.audio(b"\x01" * 800))
        await asyncio.sleep(0.2)
        bench.stream.hang_up()

    bench = scene(play)
    assert bench.events("agent heard") == [
        (0.0, "agent heard", ""),
        (0.15, "agent heard", "after a gap of 50 ms"),
        (0.65, "agent heard", ""),
        (0.86, "agent heard", ""),
    ]
    assert bench.report.underruns == 1


def test_keys_are_sent_with_the_frame_they_belong_to() -> None:
    async def play(bench: Bench) -> None:
        bench.handset.press("1", at=100)
        bench.handset.press("#", at=400)
        await asyncio.sleep(0.101)
        bench.stream.hang_up()

    bench = scene(play)
    assert bench.wire.of("dtmf") == [
        (0.02, {"track": "inbound_track", "digit": "1"}),
        (0.06, {"track": "inbound_track", "digit": "#"}),
    ]
    assert bench.events("key pressed") == [(0.0125, "key pressed", "1"), (0.05, "key pressed", "#")]


def test_what_twilio_would_warn_about() -> None:
    async def play(bench: Bench) -> None:
        for _ in range(3):
            bench.wire.arrive(b"\x00" * 160)
            bench.wire.arrive("{")
        bench.wire.arrive('{"event":"clear","streamSid":"MZother"}')
        bench.wire.arrive('{"event":"hello","streamSid":"MZ1"}')
        bench.wire.arrive(bench.server.audio(b"\x01" * 161))
        bench.wire.arrive(bench.server.audio(bytes(600 * 8000)))
        await asyncio.sleep(0.1)
        bench.stream.hang_up()

    bench = scene(play)
    assert [(fault.code, fault.detail, fault.count) for fault in bench.report.faults] == [
        (31950, "binary message", 3),
        (31951, "bad JSON", 3),
        (31951, "wrong streamSid", 1),
        (31951, "unknown event", 1),
        (31931, "audio beyond ten minutes discarded", 1),
    ]
    assert len(bench.events("fault")) == 5
    assert bench.report.discarded == 161
    assert bench.report.notes == {"media that is no multiple of 160 bytes": 1}


@pytest.mark.parametrize("announce", [True, False])
def test_a_caller_can_keep_silent(announce: bool) -> None:
    async def play(bench: Bench) -> None:
        await asyncio.sleep(1)
        bench.stream.die()

    bench = scene(play, announce=announce, media=False)
    assert [body["event"] for _, body in bench.wire.sent] == ["connected", "start"] * announce
    assert bench.wire.aborted
    assert not bench.wire.closed
    assert bench.stream.ended_by == "died"


def test_a_lost_connection_is_told_from_a_closed_one() -> None:
    async def play(bench: Bench) -> None:
        bench.wire.arrive(bench.server.audio(b"\x01" * 800))
        await asyncio.sleep(0.05)
        bench.wire.lose()

    bench = scene(play)
    assert bench.stream.ended_by == "broken"
    assert [fault.code for fault in bench.report.faults] == [31903]
    assert bench.events("agent silent", "stream closed by server") == [
        (0.05, "stream closed by server", "code 1006"),
        (0.05, "agent silent", ""),
    ]
    assert bench.stream.tracks()[1] == b"\x01" * 400


def test_a_server_that_reads_nothing_ends_the_stream_in_bounded_time() -> None:
    async def play(bench: Bench) -> None:
        bench.wire.flows.clear()
        await asyncio.sleep(1)
        bench.stream.hang_up()

    bench = scene(play)
    assert bench.stream.ended_by == "broken"
    assert bench.events("stream closed by server") == [(7.0, "stream closed by server", "")]
