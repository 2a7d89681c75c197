"""`voiceflow run` with its page, as a shell sees it; docs/browser.md, whose numbers are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from processors.browser import access, shelf
from voiceflow.cli import app
from voiceflow.errors import VoiceflowError

ROOT = Path(__file__).parents[2]
FILE = ROOT / "pipelines" / "vad_only.py"
PAGE = (ROOT / "docs" / "browser.md").read_text(encoding="utf-8")
TOKEN = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"


def test_it_serves_the_page_on_loopback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from voiceflow.cli import main; main()", "run", str(FILE), "--port", "0"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"talk to it in a browser: (http://127\.0\.0\.1:\d+/)", line):
                break
        else:
            pytest.fail(said)
        with urllib.request.urlopen(found[1], timeout=10) as answer:
            assert b"Talk to the agent" in answer.read()
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--auth-token", TOKEN, "--dashboard"], "set a password with VOICEFLOW_DASHBOARD_PASSWORD"),
        (["--public-url", "https://agent.example.com", "--dashboard"], "set a password"),
        (["--dashboard-password", "short"], "use at least 8"),
    ],
)
def test_it_refuses_a_page_for_everybody(words: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["run", str(FILE), "--port", "0", *words])
    assert isinstance(result.exception, VoiceflowError), result.output
    assert message in str(result.exception)
    assert "short" not in str(result.exception)


def test_the_numbers_of_the_page_about_it() -> None:
    for number in (
        f"at least {access.SHORTEST} characters",
        f"for {access.SESSION_SECONDS / 3600:g} hours, for {access.SESSIONS_BOUND} browsers",
        f"After {access.TRIES} wrong ones in a row another is\nanswered every {access.TRY_SECONDS:g} s",
        f"the last {shelf.CALLS_KEPT} calls",
        f"{shelf.BYTES_KEPT >> 20} MB",
    ):
        assert number in PAGE, number
    worklet = (ROOT / "processors/browser/page/playback.js").read_text(encoding="utf-8")
    for constant, value in {"LEAD": 0.04, "LEAD_STEP": 0.02, "LEAD_MOST": 0.2}.items():
        assert f"const {constant} = {value};" in worklet
        assert f"{value * 1000:g} ms" in PAGE
