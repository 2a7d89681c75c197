"""`voiceflow doctor` and accounts: which keys are set, which hosts answer, whom the number asks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from tests.vendors.server import Serving
from tests.vendors.twilio import FakeTwilio
from voiceflow.cli import accounts, doctor, environment
from voiceflow.cli.accounts import Finding
from voiceflow.vendor import Key

ACCOUNT = "AC" + "a1" * 16
TOKEN = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
ME = "+12025550199"
PUBLIC = "https://agent.example.com"
SECRET = "sk-nobody-may-see-this"

PIPELINE = """
from voiceflow import Pipeline, Processor
from voiceflow.vendor import Key

class Hearing(Processor):
    def __init__(self):
        self.keys = (Key.of("DEEPGRAM_API_KEY", None, "console.deepgram.com"),)

def pipeline(call):
    return Pipeline(call.source(), Hearing(), call.sink())
"""


def examined(body: Awaitable[list[Finding]]) -> dict[str, Finding]:
    async def main() -> list[Finding]:
        return await body

    findings = asyncio.run(asyncio.wait_for(main(), 10))
    for each in findings:
        assert TOKEN not in each.says + each.mend
        assert SECRET not in each.says + each.mend
    return {each.what: each for each in findings}


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """No vendor's own host is asked by a test: all lead to a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for vendor in accounts.VENDORS:
            monkeypatch.setenv(vendor.base, f"http://127.0.0.1:{taken.getsockname()[1]}")


# -- keys and hosts -------------------------------------------------------------------------------------


def test_keys_that_are_not_set(monkeypatch):
    found = examined(accounts.keys({"OPENAI_API_KEY": Key("OPENAI_API_KEY", "there")}))
    assert [found[vendor.key].ok for vendor in accounts.VENDORS] == [None, False, None]
    assert found["DEEPGRAM_API_KEY"].says == "not set; api.deepgram.com not checked: no key"
    assert found["DEEPGRAM_API_KEY"].mend == "get one at console.deepgram.com, API Keys"
    assert found["OPENAI_API_KEY"].says.startswith("not set, and the pipeline needs it")


@pytest.mark.usefixtures("deaf")
def test_keys_that_the_pipeline_brings_and_keys_of_others():
    own = {
        "OPENAI_API_KEY": Key("OPENAI_API_KEY", "there", SECRET),
        "MINE_API_KEY": Key("MINE_API_KEY", "mine.example.com"),
        "YOURS_API_KEY": Key("YOURS_API_KEY", "there", SECRET),
    }
    found = examined(accounts.keys(own))
    assert found["OPENAI_API_KEY"].says.startswith("set, but 127.0.0.1:")
    assert found["MINE_API_KEY"].ok is False
    assert found["MINE_API_KEY"].mend == "get one at mine.example.com"
    assert found["YOURS_API_KEY"] == Finding("YOURS_API_KEY", True, "set")


@pytest.mark.usefixtures("deaf")
def test_a_host_that_is_not_there(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    found = examined(accounts.keys({}))
    assert found["OPENAI_API_KEY"].ok is False
    assert "set, but 127.0.0.1:" in found["OPENAI_API_KEY"].says
    assert "cannot be reached (ConnectionRefusedError)" in found["OPENAI_API_KEY"].says
    assert "OPENAI_BASE_URL" in found["OPENAI_API_KEY"].mend
    monkeypatch.setenv("OPENAI_BASE_URL", "nonsense")
    assert "OPENAI_BASE_URL is no address" in examined(accounts.keys({}))["OPENAI_BASE_URL"].says


def test_a_host_that_answers(monkeypatch):
    """Connected to, and sent nothing; ws:// stands for http:// here."""

    async def main() -> list[Finding]:
        heard = bytearray()
        gone = asyncio.Event()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.extend(await reader.read())
            writer.close()
            gone.set()

        server = await asyncio.start_server(listen, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            monkeypatch.setenv("DEEPGRAM_API_KEY", SECRET)
            monkeypatch.setenv("DEEPGRAM_BASE_URL", f"ws://127.0.0.1:{port}")
            findings = await accounts.keys({})
            await gone.wait()
            assert heard == b""
        return findings

    found = examined(main())
    assert found["DEEPGRAM_API_KEY"].ok is True
    assert found["DEEPGRAM_API_KEY"].says.startswith("set; 127.0.0.1:")
    assert found["DEEPGRAM_API_KEY"].says.endswith(" ms")


def test_a_host_without_tls_and_one_that_says_nothing(monkeypatch):
    monkeypatch.setattr(accounts, "CONNECT_TIMEOUT", 0.2)

    async def main(answer: bytes) -> list[Finding]:
        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(listen, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            monkeypatch.setenv("ELEVENLABS_API_KEY", SECRET)
            monkeypatch.setenv("ELEVENLABS_BASE_URL", f"wss://127.0.0.1:{port}")
            return await accounts.keys({})

    assert (
        "cannot be reached (SSLError)" in examined(main(b"HTTP/1.1 400 \r\n\r\n"))["ELEVENLABS_API_KEY"].says
    )
    assert "no answer within 0.2 s" in examined(main(b""))["ELEVENLABS_API_KEY"].says


# -- Twilio ---------------------------------------------------------------------------------------------


def asked(number: str, public: str = PUBLIC, token: str = TOKEN, **fields: Any) -> dict[str, Finding]:
    """What is found out about a fake account whose number has these fields."""

    async def main() -> list[Finding]:
        twilio = FakeTwilio(account_sid=ACCOUNT, auth_token=TOKEN, numbers=[ME])
        for each in twilio.numbers.values():
            each.update(fields)
        async with Serving(twilio) as serving:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("TWILIO_ACCOUNT_SID", ACCOUNT)
                patch.setenv("TWILIO_BASE_URL", serving.url)
                findings = await accounts.twilio(token, number, public)
        assert {each.method for each in twilio.requests} <= {"GET"}
        return findings

    return examined(main())


def test_no_account():
    found = examined(accounts.twilio(TOKEN, "", PUBLIC))
    assert [each.ok for each in found.values()] == [None, None]
    assert "api.twilio.com not checked: no key" in found["TWILIO_ACCOUNT_SID"].says
    assert found["TWILIO_NUMBER"].says == "not set"
    assert examined(accounts.twilio("", ME, PUBLIC))["TWILIO_NUMBER"].says == "set, not checked"


@pytest.mark.parametrize(
    ("fields", "ok", "says", "mend"),
    [
        ({"voice_url": f"{PUBLIC}/twilio/voice"}, True, "set; calls to it come here", ""),
        ({"voice_url": "https://x.org/"}, False, "ask https://x.org/ (POST)", f"voiceflow number {ME}"),
        ({"voice_url": f"{PUBLIC}/twilio/voice", "voice_method": "GET"}, False, "(GET)", "voiceflow number"),
        ({"trunk_sid": "TK1"}, False, "ask the SIP trunk TK1", "voiceflow number"),
        ({}, False, "ask nobody", "voiceflow number"),
    ],
)
def test_whom_the_number_asks(fields, ok, says, mend):
    found = asked("+1 202 555 0199", **fields)
    assert found["TWILIO_ACCOUNT_SID"].ok is True
    assert found["TWILIO_NUMBER"].ok is ok
    assert says in found["TWILIO_NUMBER"].says
    assert mend in found["TWILIO_NUMBER"].mend


def test_what_else_is_found_out_about_the_account():
    assert asked("")["TWILIO_ACCOUNT_SID"].says.endswith("takes it")
    assert asked("")["TWILIO_NUMBER"].ok is None
    assert asked(ME, public="")["TWILIO_NUMBER"] == Finding(
        "TWILIO_NUMBER", None, "set; calls to it ask nobody"
    )
    assert "is no number of this account" in asked("+12025550100")["TWILIO_NUMBER"].says
    refused = asked(ME, token="0" * 32)
    assert refused["TWILIO_ACCOUNT_SID"].ok is False
    assert "credentials are wrong" in refused["TWILIO_ACCOUNT_SID"].says
    assert refused["TWILIO_NUMBER"].says == "set, not checked"
    assert asked("12")["Twilio"].ok is False
    assert "TWILIO_AUTH_TOKEN is not set" in asked(ME, token="")["TWILIO_ACCOUNT_SID"].says


# -- .env, and the whole --------------------------------------------------------------------------------


def test_env_files(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert accounts.env_files(None).ok is None
    monkeypatch.setenv(environment.DISABLED, "0")
    assert "cp .env.example .env" in accounts.env_files(None).mend
    (tmp_path / ".env").write_text(f"A=1\nOPENAI_API_KEY={SECRET}\nEMPTY=\n")
    assert accounts.env_files(None) == Finding(".env", True, f"{tmp_path}/.env (2 variables)")
    (tmp_path / ".env").write_text(f'A=1\nOPENAI_API_KEY="{SECRET}\n')
    wrong = accounts.env_files(None)
    assert wrong.ok is None
    assert f"{tmp_path}/.env:2 is not like NAME=value" in wrong.mend
    assert SECRET not in wrong.says + wrong.mend


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What `doctor` printed, on one wide page."""
    pages: list[str] = []

    class Page(Console):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options, width=200, record=True)

        def print(self, *things: Any, **options: Any) -> None:
            super().print(*things, **options)
            pages.append(self.export_text())

    monkeypatch.setattr(doctor, "Console", Page)
    return lambda: "".join(pages)


@pytest.mark.usefixtures("deaf")
def test_a_pipeline_says_which_keys_it_needs(tmp_path, printed):
    file = tmp_path / "agent.py"
    file.write_text(PIPELINE)
    with pytest.raises(typer.Exit) as ended:
        doctor.doctor(file, port=free_port(), public_url="", auth_token=TOKEN, number="")
    assert ended.value.exit_code == 1
    lines = {line.split()[1]: line for line in printed().splitlines() if line[:1].strip()}
    assert lines["DEEPGRAM_API_KEY"].startswith("missing")
    assert "the pipeline needs it" in lines["DEEPGRAM_API_KEY"]
    assert lines["OPENAI_API_KEY"].startswith("note")
    assert TOKEN not in printed()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
