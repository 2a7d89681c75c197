"""When the caller of `dial` begins to speak: first the agent, as on a phone, unless --first says when."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from typer.testing import CliRunner

from processors.twilio import twiml
from processors.twilio.codec import TwilioCodec
from processors.twilio.simulated.caller import LONGEST_GREETING, SimulatedCaller, Speech
from processors.twilio.simulated.report import CallReport
from voiceflow.audio import write_wav
from voiceflow.cli import app
from voiceflow.cli.dial import MOMENT, PATIENCE

HELLO = (9000 * np.sin(np.arange(1600))).astype(np.int16)
SPEED = 20
FRAME = 0.02
AGENT = """
    from voiceflow import AudioOut, Pipeline, Processor, Sentence, on
    from voiceflow.frames import AudioIn

    class Voice(Processor):
        needs = (AudioIn,)
        emits = (AudioOut,)

        @on(Sentence)
        def speak(self, sentence):
            return AudioOut(b"\\x20" * 8000, sentence.text)

    def pipeline(call):
        call.on_start(lambda call: call.say("one"))
        return Pipeline(call.source(), Voice(), call.sink())
"""


@asynccontextmanager
async def agent(greeting: float, leaves: bool = False) -> AsyncIterator[str]:
    """A webhook whose stream begins with so many seconds of voice. `leaves` in the middle of it."""

    async def voice(request: web.Request) -> web.Response:
        socket = str(request.url.with_path("/socket").with_scheme("ws"))
        return web.Response(text=twiml.connect_stream(socket, None, {}, None), content_type="text/xml")

    async def stream(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        codec = TwilioCodec()
        async for message in socket:
            if any(type(event).__name__ == "LineStarted" for event in codec.parse(message.data)):
                if greeting:
                    await socket.send_str(codec.audio(b"\x20" * round(greeting * 8000)))
                if leaves:
                    break
        await socket.close()
        return socket

    routes = web.Application()
    routes.add_routes([web.post("/voice", voice), web.get("/socket", stream)])
    runner = web.AppRunner(routes, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/voice"
    finally:
        await runner.cleanup()


def called(
    greeting: float, *, leaves: bool = False, patience: float = PATIENCE, listens: float | None = None
) -> CallReport:
    """Two speeches to an agent that greets, on a fast clock."""

    async def main() -> CallReport:
        async with agent(greeting, leaves) as url:
            return await SimulatedCaller(
                url,
                speeches=[Speech(HELLO, MOMENT), Speech(HELLO, 1.5)],
                patience=patience,
                listens=listens,
                linger=0.1,
                speed=SPEED,
            ).run()

    return asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("greeting", [0.4, 6.0])
def test_the_agent_s_first_words_are_heard_out(greeting):
    report = called(greeting, patience=20.0)  # on a fast clock the agent may be late: it has time
    (silent,) = report.of("agent silent")
    first, second = report.of("caller speaks")
    assert np.count_nonzero(report.agent_audio) == greeting * 8000
    assert silent.at + MOMENT - FRAME <= first.at < 20.0  # not only after the patience
    assert second.at == pytest.approx(report.of("caller stops")[0].at + 1.5)


def test_an_agent_that_says_nothing_is_spoken_to():
    report = called(0.0)
    first, second = report.of("caller speaks")
    assert PATIENCE + MOMENT <= first.at < LONGEST_GREETING
    assert second.at == pytest.approx(report.of("caller stops")[0].at + 1.5)
    assert report.of("agent heard") == []


def test_an_agent_that_does_not_stop_is_interrupted():
    report = called(90.0)
    first = report.of("caller speaks")[0]
    assert LONGEST_GREETING + MOMENT <= first.at < 90.0


def test_a_caller_who_listens_waits_for_an_answer_that_does_not_come():
    report = called(0.4, patience=20.0, listens=4.0)
    _, second = report.of("caller speaks")
    assert second.at == pytest.approx(report.of("caller stops")[0].at + 4.0 + 1.5, abs=FRAME)


def test_an_agent_that_hangs_up_meanwhile():
    report = called(5.0, leaves=True, patience=20.0)
    assert report.of("caller speaks") == []
    assert report.events[-1].kind == "hung up"


def test_keys_and_a_caller_who_says_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("TWILIO_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("VOICEFLOW_PUBLIC_URL", raising=False)
    file = tmp_path / "agent.py"
    file.write_text(textwrap.dedent(AGENT))
    command = ["dial", str(file), "--keys", "0.2:4#", "--keys", "0.1:1", "--linger", "0.1"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert [line[-1] for line in result.output.splitlines() if "presses" in line] == ["1", "4", "#"]
    assert "caller ▶ speaks" not in result.output


def test_dial_lets_the_agent_finish_unless_told_when_to_begin(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("TWILIO_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("VOICEFLOW_PUBLIC_URL", raising=False)
    file, hello = tmp_path / "agent.py", tmp_path / "hello.wav"
    file.write_text(textwrap.dedent(AGENT))
    write_wav(hello, [HELLO])

    def order(*words: str) -> list[str]:
        command = ["dial", str(file), "--speech", str(hello), "--linger", "0.1", *words]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        lines = result.output.splitlines()
        return [word for line in lines for word in ("is heard", "silent", "speaks") if f" {word}" in line]

    assert order()[-2:] == ["silent", "speaks"]
    assert order("--first", "0.3")[-2:] == ["speaks", "silent"]
