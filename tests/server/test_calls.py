"""Calls end to end over real sockets: what the caller hears, what the record says, faults of all kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from pipelines import vad_only
from processors.twilio.simulated.caller import Speech
from voiceflow.assets import speech
from voiceflow.audio import read_wav
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.errors import LinkError
from voiceflow.frames import AudioIn, AudioOut, Dtmf, Sentence
from voiceflow.line import source, websocket
from voiceflow.line import stream as line
from voiceflow.server.server import FALLBACK

CLUBS = read_wav(speech("ten_of_clubs"))[1440:6400]
"""A person, 0.62 s, voiced from the first sample on."""
TONE = b"\x20" * 800


class Speaker(Processor):
    """A voice: every sentence is 100 ms long. It needs no maker of sentences: the program speaks."""

    needs = (AudioIn,)
    emits = (AudioOut,)

    @on(Sentence)
    def speak(self, sentence: Sentence) -> AudioOut:
        return AudioOut(TONE, sentence.text)


def speaking(call: Call) -> Pipeline:
    return Pipeline(call.source(), Speaker(), call.sink())


# -- the VAD-only agent ---------------------------------------------------------------------------------


def test_answered_cut_off_and_answered_again(site, run_it, log):
    """Three callers at once: two near, one 60 ms away. All are answered when they stop, and cut the agent
    off when they speak again."""

    async def phone(s, delay: float):
        said = [Speech(CLUBS, 0.3), Speech(CLUBS, 1.4)]
        caller = s.caller(speeches=said, delay_in=delay, delay_out=delay, linger=1.0, limit=1.6)
        return await caller.run()

    async def main():
        async with site(vad_only.pipeline, warmed=True) as s:
            reports = await asyncio.gather(phone(s, 0.0), phone(s, 0.0), phone(s, 0.06))
            await s.empty()
            for report, delay in zip(reports, (0.0, 0.0, 0.06), strict=True):
                check(report, delay)
            assert len(s.finished) == 3
            for result in s.finished:
                assert result.normal
                assert result.fault is None
                assert result.reason == "Twilio stopped the stream"
                assert (result.figures["turns"], result.figures["interrupts"]) == (2, 1)
                assert result.figures["underruns"] == 0
                assert result.figures["line_faults"] == 0
            for call in s.agent.calls[1:]:  # the first was the warm-up's
                first, second = call.history.messages
                assert (first.role, first.cut, second.cut) == ("assistant", True, True)
                assert vad_only.ANSWER.startswith(first.content)
                assert first.content != vad_only.ANSWER
            assert log.warnings() == []

    def check(report, delay: float) -> None:
        kinds = [event.kind for event in report.events if event.kind != "mark returned"]
        assert kinds == [
            "stream started",
            "caller speaks",
            "caller stops",
            "agent heard",
            "caller speaks",
            "agent silent",
            "clear received",
            "caller stops",
            "agent heard",
            "agent silent",
            "hung up",
        ], report.events
        assert report.faults == []
        assert report.notes == {}
        stops, speaks = report.of("caller stops"), report.of("caller speaks")
        heard, cut = report.of("agent heard"), report.of("clear received")[0]
        # 0.6 s of silence, a window of 32 ms and packets of 20; the machine may be busy.
        assert 0.5 < heard[0].at - stops[0].at - 2 * delay < 1.0
        assert 0.0 < cut.at - speaks[1].at - 2 * delay < 0.5
        # Not a sample of the old answer is played after the clear, until the next answer begins.
        after = report.agent_audio[int(cut.at * 8000) + 1 : int(heard[1].at * 8000)]
        assert len(after) > 4000
        assert not after.any()
        before = report.agent_audio[int(heard[0].at * 8000) : int(cut.at * 8000)]
        assert np.abs(before).max() > 1000

    run_it(main())


# -- what a call knows and does -------------------------------------------------------------------------


def test_digits_numbers_and_parameters(site, run_it):
    class Keys(Processor):
        def __init__(self) -> None:
            self.digits = ""

        @tap(Dtmf)
        def key(self, frame: Dtmf) -> None:
            self.digits += frame.digit

    async def main():
        keys: list[Keys] = []

        def pipeline(call: Call) -> Pipeline:
            keys.append(Keys())
            return Pipeline(call.source(), keys[-1], Speaker(), call.sink())

        options = {"start_overrides": {"customParameters": {"agent": "böoking", "n": 5}}}
        async with (
            site(pipeline) as s,
            s.caller(caller="+12025550101", called="+12025550102", **options) as caller,
        ):
            for digit in "0159*#AD":
                caller.press(digit)
            await s.until(lambda: keys[0].digits == "0159*#AD")
            call = s.agent.calls[0]
            assert (call.caller, call.called) == ("+12025550101", "+12025550102")
            assert call.parameters == {"agent": "böoking"}

    run_it(main())


def test_say_then_hang_up(site, run_it, log):
    """What was said was heard before the line is closed, and the action says <Hangup>."""
    heard: list[str] = []

    def pipeline(call: Call) -> Pipeline:
        @call.on_start
        async def greet(call: Call) -> None:
            heard.append(await call.say("Good morning."))
            heard.append(await call.say("Goodbye."))
            await call.hangup("all is said")

        return speaking(call)

    async def main():
        async with site(pipeline) as s:
            caller = s.caller()
            async with caller:
                closed = await caller.wait_for("stream closed by server")
                assert closed.detail == "code 1000"
                await caller.wait_for("hung up")
            assert heard == ["Good morning.", "Goodbye."]
            assert [(step.method, step.status) for step in caller.report.http] == [
                ("POST", 200),
                ("GET", 101),
                ("POST", 200),
            ]
            assert caller.report.said == []
            assert caller.report.of("hung up")[0].detail == "TwiML"
            assert np.count_nonzero(caller.report.agent_audio) == 2 * len(TONE)
            await s.empty()
            result = s.finished[0]
            assert (result.normal, result.reason, result.fault) == (True, "all is said", None)
            assert [m.content for m in s.agent.calls[0].history.messages] == heard
            assert log.warnings() == []

    run_it(main())


def test_hang_up_while_speaking_waits_for_the_end(site, run_it):
    def pipeline(call: Call) -> Pipeline:
        @call.on_start
        async def goodbye(call: Call) -> None:
            saying = asyncio.ensure_future(call.say("Goodbye."))
            await asyncio.sleep(0)
            await call.hangup()
            assert await saying == "Goodbye."

        return speaking(call)

    async def main():
        async with site(pipeline) as s, s.caller() as caller:
            await caller.wait_for("stream closed by server")
            await caller.wait_for("hung up")
            assert caller.report.of("agent silent")
            assert caller.report.of("agent silent")[0].at <= caller.report.of("stream closed by server")[0].at
            assert [m.cut for m in s.agent.calls[0].history.messages] == [False]

    run_it(main())


def test_the_limit_of_a_call(site, run_it):
    async def main():
        async with site(call_limit=0.3) as s, s.caller() as caller:
            await caller.wait_for("stream closed by server")
            await caller.wait_for("hung up")
            assert 0.25 < caller.report.of("stream closed by server")[0].at < 0.8
            assert caller.report.said == []
            await s.empty()
            assert s.finished[0].normal
            assert "limit of 0.3 s" in s.finished[0].reason

    run_it(main())


# -- faults of processors -------------------------------------------------------------------------------


class Boom(Exception):
    pass


class InStart(Processor):
    async def start(self) -> None:
        raise Boom("oh no")


class HangsInStart(Processor):
    start_timeout = 0.05

    async def start(self) -> None:
        await asyncio.sleep(60)


class InTap(Processor):
    @tap(AudioIn)
    def look(self, frame: AudioIn) -> None:
        raise Boom("oh no")


class InAsyncTap(Processor):
    @tap(AudioIn)
    async def look(self, frame: AudioIn) -> None:
        raise Boom("oh no")


class InHandler(Processor):
    @on(AudioIn)
    def handle(self, frame: AudioIn) -> AudioIn:
        if frame.at >= 0:
            raise Boom("oh no")
        return frame


class InAsyncHandler(Processor):
    @on(AudioIn)
    async def handle(self, frame: AudioIn) -> AudioIn:
        await asyncio.sleep(0)
        if frame.at >= 0:
            raise Boom("oh no")
        return frame


class InAsyncGenerator(Processor):
    @on(AudioIn)
    async def handle(self, frame: AudioIn) -> AsyncIterator[AudioIn]:
        yield frame
        raise Boom("oh no")


class InTask(Processor):
    async def start(self) -> None:
        self.spawn(self.work(), "work")

    async def work(self) -> None:
        raise Boom("oh no")


class GivesRubbish(Processor):
    @on(AudioIn)
    def handle(self, frame: AudioIn) -> AudioIn:
        return "not a frame"  # type: ignore[return-value]


class GivesUndeclared(Processor):
    @tap(AudioIn)
    def look(self, frame: AudioIn) -> None:
        self.push(Dtmf("1"))


BROKEN = [
    (InStart, "in start"),
    (HangsInStart, "not ready"),
    (InTap, "look"),
    (InAsyncTap, "look"),
    (InHandler, "handle"),
    (InAsyncHandler, "handle"),
    (InAsyncGenerator, "handle"),
    (InTask, "work"),
    (GivesRubbish, "not a frame"),
    (GivesUndeclared, "does not declare"),
]


def route(processor: type[Processor], babbling):
    """A broken chain for one number, a good one for all others."""

    def pipeline(call: Call) -> Pipeline:
        if call.called == "+12025550166":
            return Pipeline(call.source(), processor(), Speaker(), call.sink())
        return babbling(call)

    return pipeline


@pytest.mark.parametrize(("processor", "words"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_processor_ends_its_own_call(site, bystander, babbling, run_it, log, processor, words):
    """It is named, the caller hears the fallback, and the call beside it goes on."""

    async def main():
        async with site(route(processor, babbling)) as s, bystander(s):
            report = await s.caller(called="+12025550166").run()
            assert report.said == [FALLBACK]
            await s.until(lambda: s.finished, "the broken call is over")
            result = s.finished[0]
            assert not result.normal
            assert result.fault is not None
            assert processor.__name__ in result.fault
            assert words in result.fault
            errors = [message for level, message in log.lines if level == "ERROR"]
            assert errors == [f"call ended: {result.fault}"]

    run_it(main())


def test_a_broken_stop_is_only_a_warning(site, run_it, log):
    class InStop(Processor):
        async def stop(self) -> None:
            raise Boom("oh no")

    async def main():
        async with site(lambda call: Pipeline(call.source(), InStop(), Speaker(), call.sink())) as s:
            async with s.caller():
                pass
            await s.empty()
            assert s.finished[0].normal
            assert [w for w in log.warnings() if "InStop" in w] != []

    run_it(main())


def test_the_fallback_number(site, run_it):
    async def main():
        broken = lambda call: Pipeline(call.source(), InTap(), Speaker(), call.sink())  # noqa: E731
        async with site(broken, fallback_number="+12025550111") as s:
            report = await s.caller().run()
            assert [event.detail for event in report.of("dialled")] == ["+12025550111"]
            assert report.said == []

    run_it(main())


def test_the_fallback_comes_before_slow_cleaning_up(site, run_it, monkeypatch):
    class SlowToStop(InTap):
        async def stop(self) -> None:
            await asyncio.sleep(0.4)

    async def main():
        async with site(lambda call: Pipeline(call.source(), SlowToStop(), Speaker(), call.sink())) as s:
            caller = s.caller()
            await caller.run()
            assert caller.report.said == [FALLBACK]
            assert s.finished == []  # the caller was served while the processor was still stopping
            await s.empty()

    run_it(main())


def test_a_pipeline_that_fails_for_one_number(site, bystander, babbling, run_it, log):
    def pipeline(call: Call) -> Pipeline:
        if call.called == "+12025550166":
            raise KeyError(call.called)
        return babbling(call)

    async def main():
        async with site(pipeline) as s, bystander(s):
            log.warnings()
            report = await s.caller(called="+12025550166").run()
            assert report.said == [FALLBACK]
            assert report.stream_sids == []
            warnings = log.warnings()
            assert len(warnings) == 1
            assert "agent.py:3" in warnings[0]
            assert len(s.server.calls) == 1

    run_it(main())


def test_end_hooks_run_however_it_ended(site, run_it):
    ends: list[str] = []

    def pipeline(call: Call) -> Pipeline:
        call.on_end(lambda call: ends.append(call.called))
        broken = [InTap()] if call.called == "+12025550166" else []
        return Pipeline(call.source(), *broken, Speaker(), call.sink())

    async def main():
        async with site(pipeline) as s:
            await s.caller(called="+12025550166").run()
            async with s.caller(called="+12025550177"):
                pass
            async with s.caller(called="+12025550188") as caller:
                await caller.die()
            await s.empty()
        assert ends == ["+12025550166", "+12025550177", "+12025550188"]

    run_it(main())


# -- faults of the line ---------------------------------------------------------------------------------


def test_the_connection_dies_in_mid_word(site, bystander, run_it, log):
    async def main():
        async with site() as s, bystander(s):
            async with s.caller() as caller:
                await s.until(lambda: caller.report.bytes_received > 4800)
                call = s.agent.calls[-1]
                log.warnings()
                await caller.die()
            await s.until(lambda: call.phase.value == "over")
            result = s.finished[0]
            assert result.fault is None
            assert call.history.messages[-1].cut
            assert len(call._tasks) == 0
            assert log.errors == []

    run_it(main())


def test_a_line_that_falls_silent(site, bystander, wire, run_it, log, monkeypatch):
    async def main():
        async with site() as s, bystander(s), wire(s) as w:
            monkeypatch.setattr(source, "SILENCE_LIMIT", 0.05)
            log.warnings()
            socket = await w.started()
            await socket.send_str(w.media(0))
            assert await w.closed(socket) == 1000
            await s.until(lambda: s.finished)
            assert not s.finished[0].normal
            assert log.warnings() == ["the line was lost: nothing came for 0.05 s"]
            await s.until(lambda: len(s.server.calls) == 1)

    run_it(main())


@pytest.mark.parametrize("bound", [10, 100_000])
def test_a_carrier_that_does_not_read(site, bystander, wire, run_it, log, monkeypatch, bound):
    """Its call ends, its connection is cut - a transport that is only closed would wait for it for ever -
    and the server and the other call go on."""
    monkeypatch.setattr(line, "SEND_TIMEOUT", 0.2 if bound > 10 else 5.0)
    monkeypatch.setattr(line, "OUTBOX_BOUND", bound)
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 0.2)

    async def main():
        async with site() as s, bystander(s) as beside, wire(s) as w:
            socket = await w.started()
            call = s.agent.calls[-1]
            await s.until(lambda: call.phase.value == "live")
            socket._response.connection.transport.pause_reading()
            before = s.connections
            log.warnings()

            def stuffed() -> bool:
                if call.phase.value == "live":
                    call.line.send("x" * 60_000)
                return call.phase.value == "over"

            await s.until(stuffed)
            assert not s.finished[0].normal
            (warning,) = log.warnings()
            assert "the line was lost" in warning
            assert ("took no message" if bound > 10 else "outbox is full") in warning
            await s.until(lambda: s.connections == before - 1, "its connection is cut")
            await beside.goes_on()
            socket._response.connection and socket._response.connection.transport.abort()

    run_it(main())


def test_the_webhook_answers_while_a_processor_starts_slowly(site, run_it):
    """Starting takes time; the webhook does not, and early audio is not lost."""

    class Slow(Processor):
        def __init__(self) -> None:
            self.first: int | None = None

        async def start(self) -> None:
            await asyncio.sleep(0.25)

        @tap(AudioIn)
        def look(self, frame: AudioIn) -> None:
            self.first = frame.at if self.first is None else self.first

    slow = Slow()

    async def main():
        async with (
            site(lambda call: Pipeline(call.source(), slow, Speaker(), call.sink())) as s,
            s.caller() as caller,
        ):
            assert caller.now < 0.2
            await s.until(lambda: slow.first is not None)
            assert slow.first == 0

    run_it(main())


def test_a_webhook_that_is_not_there(run_it, site):
    async def main():
        async with site() as s:
            caller = s.caller()
        with pytest.raises(LinkError, match="cannot be reached"):
            await caller.run()

    run_it(main())


def test_many_sayings(site, run_it):
    """Asked for at once, they are said one after the other, and each returns what was heard of it."""
    heard: list[str] = []

    def pipeline(call: Call) -> Pipeline:
        @call.on_start
        async def talk(call: Call) -> None:
            heard.extend(await asyncio.gather(*(call.say(f"{n}.") for n in range(4))))
            call.end("done")

        return speaking(call)

    async def main():
        async with site(pipeline) as s:
            await s.caller().run()
            assert heard == ["0.", "1.", "2.", "3."]

    run_it(main())
