"""`voiceflow run --webhook`, `call --webhook` and `voiceflow webhook` as processes of their own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from processors.twilio.routes import VOICE
from processors.twilio.simulated.caller import SimulatedCaller, Speech
from tests.vendors.receiver import PATH, FakeReceiver, Hang, Reply
from tests.vendors.server import Serving
from tests.vendors.twilio import FakeTwilio
from voiceflow.cli import app
from voiceflow.errors import VoiceflowError
from voiceflow.webhook import verify
from voiceflow.webhook.signature import Secret

ROOT = Path(__file__).parents[1]
MAIN = [sys.executable, "-c", "from voiceflow.cli import main; main()"]
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
TOKEN = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
HELLO = Speech((9000 * np.sin(np.arange(1600))).astype(np.int16), 0.1)
AGENT = """
    from voiceflow import AudioOut, Pipeline, Processor, Sentence, on
    from voiceflow.frames import AudioIn

    class Voice(Processor):
        needs = (AudioIn,)
        emits = (AudioOut,)

        @on(Sentence)
        def speak(self, sentence):
            return AudioOut(b"\\x20" * 1600, sentence.text)

    def pipeline(call):
        async def greet(call):
            await call.say("marmalade is ready")
            END

        call.on_start(greet)
        return Pipeline(call.source(), Voice(), call.sink())
"""
HANGS_UP = AGENT.replace("END", 'await call.hangup("all is said")')
BREAKS = AGENT.replace("END", 'raise RuntimeError("too much marmalade")')


def file(tmp_path: Path, text: str = HANGS_UP) -> Path:
    path = tmp_path / "agent.py"
    path.write_text(textwrap.dedent(text))
    return path


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


class Process:
    """A command beside the test; nothing that it prints may be a secret."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.text = ""

    @classmethod
    async def start(cls, *words: str | Path, **environment: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            *MAIN, *map(str, words),
            env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200",
                 "VOICEFLOW_WEBHOOK_SECRET": SECRET, **environment},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        return cls(process)

    async def says(self, words: str) -> str:
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode():
            self.text += line
            if words in line:
                return line
        raise AssertionError(f"it ended without saying {words!r}:\n{self.text}")

    async def ends(self) -> int:
        assert self.process.stdout is not None
        self.text += (await self.process.stdout.read()).decode()
        code = await self.process.wait()
        for hidden in (SECRET, SECRET.removeprefix("whsec_"), "hidden-path", "v1,"):
            assert hidden not in self.text
        return code


@asynccontextmanager
async def answering(*words: str | Path, **environment: str) -> AsyncIterator[tuple[Process, str]]:
    """`voiceflow run`, and where it is called."""
    process = await Process.start("run", *words, "--port", "0", **environment)
    try:
        line = await process.says("listening on")
        found = re.search(r"listening on (http://\S+)\)", line)
        assert found is not None
        yield process, found[1] + VOICE
    finally:
        if process.process.returncode is None:
            process.process.send_signal(signal.SIGTERM)
        await process.ends()


async def phone(url: str) -> None:
    async with SimulatedCaller(url, limit=30.0) as caller:
        await caller.wait_for("hung up")


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[FakeReceiver, str]]:
    receiver = FakeReceiver(SECRET)
    async with Serving(receiver) as serving:
        yield receiver, serving.url + PATH


@pytest.mark.parametrize("redact", [True, False])
def test_run_tells_about_each_call(tmp_path: Path, redact: bool) -> None:
    async def main() -> None:
        async with receiving() as (receiver, url):
            receiver.script.append(Reply(500))
            words = ["--redact"] if redact else []
            async with answering(file(tmp_path), "--webhook", url, *words) as (process, called):
                await phone(called)
                _, request = await receiver.until(2)
                assert request.genuine
                assert verify(SECRET, request.headers, request.body) == request.id
            data = request.event["data"]
            assert data["outcome"] == {"reason": "all is said", "normal": True, "fault": None}
            assert [(e["role"], e["cut"]) for e in data["transcript"]] == [("agent", False)]
            assert data["transcript"][0]["text"] == ("[3 words]" if redact else "marmalade is ready")
            assert data["redacted"] == redact
            assert data["carrier_call"].startswith("CA")
            assert "answered HTTP 500; it is tried again" in process.text
            assert ("marmalade" in request.body.decode()) != redact

    run(main())


def test_what_a_stopped_server_could_not_deliver_is_sent_later(tmp_path: Path) -> None:
    """Two calls, one of which breaks; the receiver is down until the server has stopped."""

    async def main() -> None:
        traces = tmp_path / "calls"
        async with receiving() as (receiver, url):
            receiver.always = Reply(503, {"Retry-After": "300"})
            words = (file(tmp_path, BREAKS), "--trace-dir", traces, "--quiet")
            async with answering(*words, VOICEFLOW_WEBHOOK_URL=url) as (process, called):
                await phone(called)
                await phone(called)
                await receiver.until(2)
            kept = sorted(traces.glob("*.webhook"))
            assert len(kept) == len(list(traces.glob("*.json"))) == 2
            assert process.text.count(f"it is kept: voiceflow webhook resend {traces}") == 2
            down = await Process.start("webhook", "resend", traces, "--webhook", url)
            assert await down.ends() == 1
            assert "answered HTTP 503" in down.text
            assert "0 delivered to 127.0.0.1" in down.text
            assert "2 left in" in down.text
            assert len(receiver.requests) == 3  # the second is not even tried
            receiver.always = Reply()
            again = await Process.start("webhook", "resend", traces, VOICEFLOW_WEBHOOK_URL=url)
            assert await again.ends() == 0, again.text
            assert "2 delivered to 127.0.0.1" in again.text
            assert list(traces.glob("*.webhook")) == []
            assert {e["id"] for e in receiver.events()} == {r.id for r in list(receiver.requests)[:2]}
            assert {e["data"]["outcome"]["normal"] for e in receiver.events()} == {False}
            assert all(r.genuine for r in receiver.requests)

    run(main())


def test_resend_passes_over_what_is_no_event_or_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        spool = tmp_path / "spool"
        async with receiving() as (receiver, url):
            receiver.always = Reply(400)
            words = (file(tmp_path), "--webhook", url, "--webhook-spool", spool)
            async with answering(*words) as (_, called):
                await phone(called)
                await phone(called)
                await receiver.until(2)
            (spool / "0.webhook").write_text("{")
            resent = await Process.start("webhook", "resend", spool, "--webhook", url)
            assert await resent.ends() == 1
            assert "passed over:" in resent.text
            assert resent.text.count("not delivered: ") == 2
            assert "0 delivered" in resent.text
            assert "3 left" in resent.text

    run(main())


def test_a_receiver_that_never_answers_holds_up_no_caller(tmp_path: Path) -> None:
    async def main() -> None:
        async with receiving() as (receiver, url):
            receiver.always = Hang()
            async with answering(file(tmp_path), "--webhook", url) as (process, called):
                for _ in range(3):
                    await phone(called)
                    await process.says("all is said")
                await receiver.until(3)
                receiver.always = Reply()
                await receiver.close()  # it hangs no longer: the connections break, and are tried once more
            assert len(receiver.events()) == 3

    run(main())


def test_an_outbound_call(tmp_path: Path) -> None:
    """The command ends when the call has, and not before it was told."""
    me, you, account = "+12025550199", "+12025550143", "AC" + "a1" * 16

    async def main() -> None:
        twilio = FakeTwilio(
            account_sid=account, auth_token=TOKEN, numbers=[me], answers=[HELLO], line={"linger": 20.0}
        )
        async with receiving() as (receiver, url), Serving(twilio) as serving:
            receiver.script.append(Reply(500))
            port = free_port()
            process = await Process.start(
                "call", file(tmp_path), you, "--port", str(port), "--param", "name=Ada", "--webhook", url,
                TWILIO_BASE_URL=serving.url, TWILIO_ACCOUNT_SID=account, TWILIO_AUTH_TOKEN=TOKEN,
                TWILIO_NUMBER=me, VOICEFLOW_PUBLIC_URL=f"http://127.0.0.1:{port}",
            )  # fmt: skip
            assert await process.ends() == 0, process.text
            await twilio.close()
            (event,) = receiver.events()
            assert event["data"]["parameters"] == {"name": "Ada"}
            assert event["data"]["carrier_call"] == twilio.calls[0].sid
            assert event["data"]["outcome"]["reason"] == "all is said"

    run(main())


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


# -- what cannot work -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["--webhook", "https://example.com/x"], {}, "VOICEFLOW_WEBHOOK_SECRET is not set"),
        ([], {"VOICEFLOW_WEBHOOK_URL": "https://example.com/x"}, "`voiceflow webhook secret` makes one"),
        (["--webhook", "http://example.com/x"], {"VOICEFLOW_WEBHOOK_SECRET": SECRET}, "must be https://"),
        (["--webhook", "example.com"], {"VOICEFLOW_WEBHOOK_SECRET": SECRET}, "write it like https://"),
        (["--webhook", "https://example.com"], {"VOICEFLOW_WEBHOOK_SECRET": "abcd"}, "has 24 to 64 bytes"),
    ],
)
def test_run_and_call_refuse_before_anybody_calls(
    tmp_path: Path, words: list[str], environment: dict[str, str], message: str
) -> None:
    twilio = {"TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_NUMBER": "+12025550199"}
    for command, more in (
        (["run", str(file(tmp_path)), "--port", "0"], {}),
        (["call", str(file(tmp_path)), "+12025550143", "--public-url", "https://a.example"], twilio),
    ):
        result = CliRunner().invoke(app, [*command, *words], env={**environment, **more})
        assert isinstance(result.exception, VoiceflowError), result.output
        assert message in str(result.exception)
        assert SECRET not in str(result.exception)


def test_a_secret_that_the_pipeline_file_needs(tmp_path: Path) -> None:
    hook = (
        'from voiceflow.webhook import Webhook\n        call.on_end(Webhook("https://example.com"))\n        '
    )
    path = file(tmp_path, HANGS_UP.replace("call.on_start(greet)", hook + "call.on_start(greet)"))
    result = CliRunner().invoke(app, ["run", str(path), "--port", "0"])
    assert isinstance(result.exception, VoiceflowError), result.output
    assert str(result.exception).startswith(f"{path}:")
    assert "VOICEFLOW_WEBHOOK_SECRET is not set" in str(result.exception)


def test_the_folder_for_what_waits_is_looked_at_first(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    words = ["--webhook", "https://example.com", "--webhook-spool", str(tmp_path / "taken" / "x")]
    result = CliRunner().invoke(
        app, ["run", str(file(tmp_path)), "--port", "0", *words], env={"VOICEFLOW_WEBHOOK_SECRET": SECRET}
    )
    assert isinstance(result.exception, VoiceflowError), result.output
    assert "webhooks cannot be kept in" in str(result.exception)


def test_a_secret_is_made_and_never_shown_again() -> None:
    made = CliRunner().invoke(app, ["webhook", "secret"])
    assert made.exit_code == 0
    assert len(Secret.of(made.output).key) == 32
    for command in (["run"], ["call"], ["webhook", "resend"]):
        shown = CliRunner().invoke(app, [*command, "--help"], env={"VOICEFLOW_WEBHOOK_SECRET": SECRET})
        assert SECRET not in shown.output


def test_resend_needs_a_folder() -> None:
    result = CliRunner().invoke(
        app,
        ["webhook", "resend", "/nowhere/at/all", "--webhook", "https://example.com"],
        env={"VOICEFLOW_WEBHOOK_SECRET": SECRET},
    )
    assert isinstance(result.exception, VoiceflowError)
    assert "there is no folder" in str(result.exception)
