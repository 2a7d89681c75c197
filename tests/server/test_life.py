"""The life of a server: full, draining, stopped by signals, and after many calls."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import signal
import socket
import sys
import textwrap
import weakref
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from processors.twilio.simulated.caller import SimulatedCaller
from voiceflow.errors import VoiceflowError
from voiceflow.server import admission
from voiceflow.server.listener import Listener
from voiceflow.server.server import FALLBACK, Server

MAIN = [sys.executable, "-c", "from voiceflow.cli import main; main()"]
ROOT = Path(__file__).parents[2]

TALKER = """
    from voiceflow import AudioOut, Pipeline, Processor, Sentence, on
    from voiceflow.frames import AudioIn

    class Voice(Processor):
        needs = (AudioIn,)
        emits = (AudioOut,)

        @on(Sentence)
        def speak(self, sentence):
            return AudioOut(b"\\x20" * 8000 * 60, sentence.text)

    def pipeline(call):
        call.on_start(lambda call: call.say("Blah."))
        return Pipeline(call.source(), Voice(), call.sink())
"""


async def ready(s) -> tuple[int, dict]:
    async with aiohttp.ClientSession() as http, http.get(s.base + "/readyz") as response:
        return response.status, await response.json()


# -- capacity -------------------------------------------------------------------------------------------


def test_full(site, run_it, log):
    async def main():
        async with site(max_calls=2) as s:
            assert await ready(s) == (200, {"ready": True, "reason": None, "calls": 0})
            async with s.caller() as one, s.caller():
                assert await ready(s) == (503, {"ready": False, "reason": "full", "calls": 2})
                third = await s.caller().run()
                assert third.said == [s.server.settings.busy]
                assert third.stream_sids == []
                assert [step.status for step in third.http] == [200]
                assert log.warnings() == ["call refused: all 2 lines are busy"]
                await one.hang_up()
                await s.until(lambda: len(s.server.calls) == 1)
                async with s.caller() as fourth:
                    await fourth.wait_for("agent heard")
            await s.empty()
            assert await ready(s) == (200, {"ready": True, "reason": None, "calls": 0})

    run_it(main())


def test_health(site, run_it):
    async def main():
        async with site() as s, aiohttp.ClientSession() as http:
            async with s.caller(), http.get(s.base + "/healthz") as response:
                assert response.status == 200
                assert await response.json() == {"status": "ok", "calls": 1, "served": 0}
            await s.empty()
            async with http.get(s.base + "/healthz") as response:
                assert await response.json() == {"status": "ok", "calls": 0, "served": 1}

    run_it(main())


# -- draining -------------------------------------------------------------------------------------------


def test_draining_lets_live_and_announced_calls_finish(site, wire, run_it, log):
    async def main():
        async with site() as s, wire(s) as w:
            async with s.caller() as caller:
                await caller.wait_for("agent heard")
                path = await w.announce()
                draining = asyncio.create_task(s.server.drain())
                await s.until(lambda: s.server.draining)
                refused = await s.caller().run()
                assert refused.said == [s.server.settings.closing]
                assert (await ready(s))[0] == 503
                assert (await ready(s))[1]["reason"] == "draining"
                announced = await w.open(path)  # Twilio was told to connect before the signal came
                await announced.send_str(w.start())
                await s.until(lambda: s.agent.calls[-1].phase.value == "live")
                heard = caller.report.bytes_received
                await s.until(lambda: caller.report.bytes_received > heard + 1600)
                assert not draining.done()
                await announced.close()
            await asyncio.wait_for(draining, 5)
            assert len(s.finished) == 2
            assert all(result.fault is None for result in s.finished)
            assert log.warnings() == ["call refused: the server is shutting down"]

    run_it(main())


def test_the_drain_limit_ends_calls_with_the_fallback(site, run_it, log, monkeypatch):
    """The caller whose call is cut still gets an answer to `action`: the listener outlives the calls."""
    monkeypatch.setattr(admission, "QUESTION_WAIT", 2.0)

    async def main():
        async with site(drain=0.1) as s, s.caller() as caller:
            await caller.wait_for("agent heard")
            began = asyncio.get_running_loop().time()
            await s.server.drain()
            assert asyncio.get_running_loop().time() - began < 1.5  # it was asked, so it did not wait
            await caller.wait_for("hung up")
            assert caller.report.said == [FALLBACK]
            assert not s.finished[0].normal
            assert s.finished[0].reason == "the server is shutting down"
            assert "draining took too long: 1 calls are ended" in log.warnings()

    run_it(main())


def test_leaving_the_listener_ends_calls_and_answers_their_action(site, run_it, monkeypatch):
    monkeypatch.setattr(admission, "QUESTION_WAIT", 2.0)

    async def main():
        async with site() as s:
            caller = s.caller()
            await caller.__aenter__()
            await caller.wait_for("agent heard")
        await caller.wait_for("hung up")
        assert caller.report.said == [FALLBACK]
        assert s.server.calls == {}
        await caller.__aexit__(None, None, None)

    run_it(main())


def test_a_processor_that_will_not_stop_does_not_hold_up_the_end(site, run_it, log):
    from voiceflow import Pipeline, Processor
    from voiceflow.frames import AudioIn, AudioOut

    class Stubborn(Processor):
        needs = (AudioIn,)
        emits = (AudioOut,)
        stop_timeout = 0.05

        async def stop(self) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0.3)

    async def main():
        async with site(lambda call: Pipeline(call.source(), Stubborn(), call.sink())) as s:
            async with s.caller():
                pass
            await s.empty()
            assert "Stubborn: stop() took more than 0.05 s" in log.warnings()

    run_it(main())


def test_a_port_that_is_taken(site, run_it):
    async def main():
        async with site() as s:
            again = Listener(Server(s.agent), [], host="127.0.0.1", port=s.listener.port)
            with pytest.raises(VoiceflowError, match=r"cannot listen on 127\.0\.0\.1:\d+ .*in use"):
                await again.__aenter__()

    run_it(main())


# -- many calls -----------------------------------------------------------------------------------------


def test_fifty_calls_leave_nothing(site, run_it, monkeypatch):
    monkeypatch.setattr(admission, "OUTCOMES_KEPT", 20)

    async def main():
        async with site() as s:

            async def one(number: int) -> None:
                async with s.caller() as caller:
                    if number % 5 == 0:
                        await caller.wait_for("agent heard")
                        await caller.die()

            for number in range(50):
                await one(number)
                if number == 4:
                    await s.empty()
                    tasks = len(asyncio.all_tasks())
            await s.empty()
            await s.until(lambda: s.connections == 0)
            assert len(s.finished) == 50
            assert s.server.admission.waiting == 0
            assert len(s.server.admission._outcomes) == 20
            await s.server.admission.all_asked()
            assert s.server.admission._unasked == {}
            assert s.server._closing == set()
            await s.until(lambda: len(asyncio.all_tasks()) <= tasks)
            calls = [weakref.ref(call) for call in s.agent.calls]
            s.agent.calls.clear()
            gc.collect()
            assert [call for call in calls if call() is not None] == []

    run_it(main())


# -- a real process -------------------------------------------------------------------------------------


class Process:
    """`voiceflow run`, as a shell would start it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.base = ""
        self._reading = asyncio.create_task(self._read())
        self._news = asyncio.Event()

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            self.lines.append(line)
            self._news.set()
        self._news.set()

    async def says(self, words: str) -> str:
        async with asyncio.timeout(20):
            while True:
                for line in self.lines:
                    if words in line:
                        return line
                assert not self._reading.done(), f"it ended without saying {words!r}: {self.text}"
                self._news.clear()
                await self._news.wait()

    @property
    def text(self) -> str:
        return "".join(self.lines)

    async def exit_code(self, timeout: float = 10) -> int:
        async with asyncio.timeout(timeout):
            code = await self.process.wait()
            await self._reading
        return code

    def kill(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@asynccontextmanager
async def process(file: Path, *options: str, **environment: str):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TWILIO", "VOICEFLOW"))}
    started = await asyncio.create_subprocess_exec(
        *MAIN, "run", str(file), "--port", "0", *options,
        cwd=file.parent,
        env={**clean, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    running = Process(started)
    try:
        line = await running.says("answering calls")
        port = re.search(r"listening on http://[^:]+:(\d+)", line)
        assert port is not None, line
        running.base = f"http://127.0.0.1:{port[1]}"
        yield running
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()
        await running._reading


@pytest.fixture
def talker(tmp_path: Path) -> Path:
    file = tmp_path / "talker.py"
    file.write_text(textwrap.dedent(TALKER))
    return file


def test_sigterm_in_mid_call(talker, run_it):
    token = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"

    async def main():
        async with process(talker, TWILIO_AUTH_TOKEN=token) as running:
            voice = running.base + "/twilio/voice"
            async with SimulatedCaller(voice, auth_token=token) as caller:
                await caller.wait_for("agent heard")
                running.kill(signal.SIGTERM)
                await running.says("stopping: no new calls are taken")
                late = await SimulatedCaller(voice, auth_token=token).run()
                assert late.said == ["We are just restarting. Please call again in a minute."]
                async with aiohttp.ClientSession() as http, http.get(running.base + "/readyz") as response:
                    assert response.status == 503
                    assert json.loads(await response.text())["reason"] == "draining"
                heard = caller.report.bytes_received
                async with asyncio.timeout(5):
                    while caller.report.bytes_received < heard + 3200:  # noqa: ASYNC110 - it has no event
                        await asyncio.sleep(0.005)
                assert not caller.over
            assert await running.exit_code() == 0
            assert caller.report.faults == []
            assert "Traceback" not in running.text
            assert token not in running.text
            assert "/ws/w0" not in running.text

    run_it(main())


def test_the_drain_limit_of_a_process(talker, run_it):
    async def main():
        async with process(talker, "--drain", "0.2") as running:
            caller = SimulatedCaller(running.base + "/twilio/voice")
            async with caller:
                await caller.wait_for("agent heard")
                running.kill(signal.SIGTERM)
                await caller.wait_for("hung up")
            assert caller.report.said == [FALLBACK]
            assert await running.exit_code() == 0
            assert "Traceback" not in running.text
            assert "1 calls are ended" in running.text

    run_it(main())


def test_a_second_signal_ends_at_once(talker, run_it):
    async def main():
        async with process(talker) as running:
            caller = SimulatedCaller(running.base + "/twilio/voice")
            async with caller:
                await caller.wait_for("agent heard")
                running.kill(signal.SIGINT)
                await running.says("stopping")
                running.kill(signal.SIGINT)
                await caller.wait_for("hung up", 3)
            assert caller.report.said == [FALLBACK]
            assert await running.exit_code(4) == 0
            assert "stopping at once: 1 calls are ended" in running.text
            assert "Traceback" not in running.text

    run_it(main())


def test_a_signal_when_idle_and_rubbish_before(talker, run_it):
    """Rubbish on the port leaves no traceback on stderr, and an idle server goes at once."""

    async def main():
        async with process(talker) as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(running.base.rpartition(":")[2]))
            writer.write(b"GET / HTTP/9.9\r\nX: \x00\r\n\r\n")
            await reader.read()
            writer.close()
            await writer.wait_closed()
            running.kill(signal.SIGTERM)
            assert await running.exit_code(3) == 0
            assert "Traceback" not in running.text
            assert "no HTTP" in running.text

    run_it(main())


def test_a_process_whose_port_is_taken(talker, run_it):
    async def main():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            ended = await asyncio.create_subprocess_exec(
                *MAIN, "run", str(talker), "--port", port,
                env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            _, stderr = await ended.communicate()
            assert ended.returncode == 2
            text = stderr.decode()
            assert f"cannot listen on 127.0.0.1:{port}" in text
            assert "--port" in text
            assert "Traceback" not in text

    run_it(main())
