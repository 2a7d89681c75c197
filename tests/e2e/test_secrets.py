"""`voiceflow run` as a process, with everything that can be told switched on: no key is in any of it, and
with `--redact` no word that anybody said."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from processors.twilio.routes import VOICE
from processors.twilio.simulated.caller import SimulatedCaller
from tests.e2e.agents import ANSWERS, vendors
from tests.e2e.conversation import Phone
from tests.vendors.openai import Fault
from tests.vendors.server import Vendors
from tests.vendors.speaking import Fault as VoiceFault
from tests.vendors.wire import Refusal

RUN = "from voiceflow.cli import main; main()"
ROOT = Path(__file__).resolve().parents[2]
QUESTION = "Zebras purchase marmalade today?"
TELLING = re.compile(r"\b(zebras|purchase|marmalade|nine|order|something|Harbour|Bakery)\b", re.IGNORECASE)
"""Words of the caller, of the answer and of the greeting that nobody else uses."""


@asynccontextmanager
async def running(fakes: Vendors, *arguments: str, out: Path) -> AsyncIterator[str]:
    """The process, and the URL it answers at; all that it prints goes to `out`."""
    with _open(out) as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", RUN, "run", "pipelines/phone_agent.py", "--port", "0",
            "--host", "127.0.0.1", "--log-level", "DEBUG", *arguments,
            stdout=file, stderr=file, cwd=ROOT, env={**os.environ, **fakes.environment, "COLUMNS": "100"},
        )  # fmt: skip
    try:
        for _ in range(600):
            if found := re.search(rb"listening on (http://127.0.0.1:\d+)", _read(out)):
                break
            assert process.returncode is None, _read(out).decode()
            await asyncio.sleep(0.05)
        else:
            raise AssertionError(_read(out).decode())
        yield found[1].decode()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 30)


def hostile(fakes: Vendors) -> None:
    """Each vendor fails, and repeats the keys while it does."""
    keys = " ".join(secrets_of(fakes))
    fakes.flux.refusals.extend([Refusal(503, keys, {"dg-error": keys})])
    fakes.elevenlabs.refusals.extend([Refusal(429, keys)])
    fakes.llm.faults.append(Fault(status=500))


def secrets_of(fakes: Vendors) -> list[str]:
    return [value for name, value in fakes.environment.items() if name.endswith(("_KEY", "_TOKEN"))]


@pytest.mark.parametrize("redact", [True, False])
def test_no_key_and_no_redacted_word_gets_out(tmp_path: Path, redact: bool) -> None:
    out, traces = tmp_path / "out.txt", tmp_path / "traces"

    async def call() -> None:
        async with vendors() as fakes:
            arguments = ["--trace-dir", str(traces), *(["--redact"] if redact else [])]
            async with running(fakes, *arguments, out=out) as url:
                hostile(fakes)
                caller = SimulatedCaller(url + VOICE, auth_token=fakes.twilio.auth_token, limit=60.0)
                async with caller:
                    assert caller._call.stream is not None
                    phone = Phone(caller._call.stream, caller._handset, caller.report)
                    phone.call = _Nobody()  # type: ignore[assignment]
                    await phone.hears("good day!", 20.0)
                    await phone.said(QUESTION)
                    said = f"{' '.join(secrets_of(fakes))} {QUESTION} {ANSWERS[0].partition('.')[0]}"
                    fakes.elevenlabs.faults.append(VoiceFault("refuse", 0, error="busy", message=said))
                    await phone.agent_speaks(20.0)
                    await phone.quiet(1.0, 20.0)
            printed = _read(out).decode()
            (trace,) = [path.read_text() for path in traces.glob("*.json")]
            for text in (printed, trace):
                for secret in secrets_of(fakes):
                    assert secret not in text
                if redact:
                    assert TELLING.findall(text) == []
            if not redact:
                assert QUESTION in trace
                assert ANSWERS[0].partition(".")[0] in trace
            assert "ChatLLM" in trace, "there is something in it"

    asyncio.run(asyncio.wait_for(call(), 90))


class _Nobody:
    """The call is in another process."""

    class history:  # noqa: N801
        messages = ()

    fault = None


def _open(path: Path) -> BinaryIO:
    return path.open("wb")


def _read(path: Path) -> bytes:
    return path.read_bytes()
