"""The command line as a shell sees it: what it prints, where, and with which exit code."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
from typer.testing import CliRunner

from voiceflow.assets import speech
from voiceflow.audio import write_wav
from voiceflow.cli import app, dial, doctor
from voiceflow.cli.run import listen_on
from voiceflow.errors import VoiceflowError

ROOT = Path(__file__).parents[2]
TOKEN = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
CLEAN = {
    **{k: v for k, v in os.environ.items() if not k.startswith(("TWILIO", "VOICEFLOW"))},
    "PYTHONPATH": str(ROOT),
    "NO_COLOR": "1",
    "COLUMNS": "200",
}
MAIN = [sys.executable, "-c", "from voiceflow.cli import main; main()"]

GOOD = """
    from voiceflow import AudioOut, Pipeline, Processor, Sentence, on
    from voiceflow.frames import AudioIn

    class Voice(Processor):
        needs = (AudioIn,)
        emits = (AudioOut,)

        @on(Sentence)
        def speak(self, sentence):
            return AudioOut(b"\\x20" * 4000, sentence.text)

    def pipeline(call):
        call.on_start(lambda call: call.say("one"))
        return Pipeline(call.source(), Voice(), call.sink())
"""
BROKEN_CHAIN = """
    from voiceflow import Pipeline
    from processors.play import Play
    from voiceflow.assets import speech

    def pipeline(call):
        return Pipeline(
            call.source(),
            Play(speech("answer")),
            call.sink(),
        )
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write(text, name)`: a pipeline file."""

    def write(text: str, name: str = "agent.py") -> Path:
        file = tmp_path / name
        file.write_text(textwrap.dedent(text))
        return file

    return write


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """A short tone to say."""
    file = tmp_path / "hello.wav"
    write_wav(file, [(9000 * np.sin(np.arange(1600))).astype(np.int16)])
    return file


def voiceflow(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end. Nothing it prints may be a traceback or hold the auth token."""
    done = subprocess.run(
        [*MAIN, *map(str, words)],
        env={**CLEAN, **environment},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert TOKEN not in done.stderr + done.stdout
    return done


# -- files that cannot be used --------------------------------------------------------------------------


WRONG = [
    ("missing.py", None, "there is no such file"),
    ("agent.py", "def pipeline(call)\n    return 1\n", "agent.py:1: "),
    ("agent.py", "x = 1\n", "has no function named pipeline"),
    ("agent.py", "import nonsense_that_is_not_there\ndef pipeline(call): ...\n", "agent.py:1: "),
    ("agent.py", "def pipeline(call):\n    return [1]\n", "agent.py:1: pipeline(call) returned a list"),
    ("agent.py", BROKEN_CHAIN, "agent.py:7: "),
    ("agent.py", "x = 1\n\ndef pipeline(call):\n    return call.nothing()\n", "agent.py:4: "),
]


@pytest.mark.parametrize("command", ["run", "graph", "dial"])
@pytest.mark.parametrize(("name", "text", "words"), WRONG, ids=[words for _, _, words in WRONG])
def test_a_file_that_cannot_be_used(write, tmp_path, hello, command, name, text, words, monkeypatch):
    """Exit code 2 and one readable message with the line; the same for every command that takes a file."""
    monkeypatch.delenv("TWILIO_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("VOICEFLOW_PUBLIC_URL", raising=False)
    if text is not None:
        write(text)
    options = {"run": ["--port", "0"], "graph": [], "dial": ["--speech", str(hello)]}[command]
    result = CliRunner().invoke(app, [command, str(tmp_path / name), *options])
    assert isinstance(result.exception, VoiceflowError), result.output
    assert words in str(result.exception)
    assert str(tmp_path / name) in str(result.exception)


def test_exit_code_2_and_the_message_on_stderr(write):
    file = write(BROKEN_CHAIN)
    done = voiceflow("run", file, "--port", "0")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {file}:7: ")
    assert "VADTurns" in done.stderr
    assert done.stdout == ""


# -- options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "0.0.0.0"], "without an auth token anybody could call"),
        (["--host", "::"], "without an auth token anybody could call"),
        (["--public-url", "agent.example.com"], "is no address"),
        (["--public-url", "http://agent.example.com"], "must be https://"),
        (["--public-url", "https://agent.example.com?x=1"], "is no address"),
        (["--public-url", "https://[::1"], "is no address"),
        (["--public-url", "https://host:port"], "is no address"),
        (["--public-url", "https://ho st"], "is no address"),
        (["--public-url", f"https://me:{TOKEN}@host"], "a user name or a password"),
        (["--log-level", "LOUD"], "there is no log level 'LOUD'"),
        (["--fallback-number", "my mother"], "no telephone number"),
    ],
)
def test_run_refuses_what_cannot_work(write, monkeypatch, words, message):
    monkeypatch.delenv("TWILIO_AUTH_TOKEN", raising=False)
    result = CliRunner().invoke(app, ["run", str(write(GOOD)), "--port", "0", *words])
    assert isinstance(result.exception, VoiceflowError), result.output
    assert message in str(result.exception)
    assert TOKEN not in str(result.exception)


@pytest.mark.parametrize(
    "words",
    [
        ["--drain", "nan"],
        ["--drain", "inf"],
        ["--drain", "-1"],
        ["--call-limit", "nan"],
        ["--max-calls", "0"],
        ["--port", "70000"],
    ],
)
def test_numbers_that_are_none(write, words):
    result = CliRunner().invoke(app, ["run", str(write(GOOD)), *words])
    assert result.exit_code == 2
    assert words[0].strip("-") in result.output


def test_the_token_in_the_environment_is_never_shown():
    for command in ("run", "dial", "doctor"):
        result = CliRunner().invoke(app, [command, "--help"], env={"TWILIO_AUTH_TOKEN": TOKEN})
        assert result.exit_code == 0
        assert "TWILIO_AUTH_TOKEN" in result.output
        assert TOKEN not in result.output


@pytest.mark.parametrize(
    ("speeches", "after", "fine"),
    [
        (1, [], [0.5]),
        (2, [], [0.5, 3.0]),
        (2, [1.5], [0.5, 1.5]),
        (3, [0.0], [0.5, 0.0, 3.0]),
        (1, [1.0], None),
        (2, [1.0, 2.0], None),
        (2, [-1.0], None),
        (2, [float("nan")], None),
        (2, [float("inf")], None),
    ],
)
def test_after(speeches, after, fine):
    if fine is None:
        with pytest.raises(VoiceflowError, match="--after"):
            dial._pauses(speeches, after)
    else:
        assert dial._pauses(speeches, after) == fine


# -- graph ----------------------------------------------------------------------------------------------


def test_graph():
    done = voiceflow("graph", ROOT / "pipelines" / "vad_only.py")
    assert done.returncode == 0
    names = ["LineSource", "SileroVAD", "VADTurns", "Play", "LineSink"]
    places = [done.stdout.find(name) for name in names]
    assert -1 not in places
    assert places == sorted(places)
    assert "AudioOut" in done.stdout


def test_graph_of_a_file_that_routes_by_number(write):
    routed = '    {"+12025550107": 1}[call.called]\n        call.on_start'
    file = write(GOOD.replace("    call.on_start", routed))
    assert voiceflow("graph", file, "--called", "+12025550107").returncode == 0
    refused = voiceflow("graph", file, "--called", "+12025550108")
    assert refused.returncode == 2
    line = file.read_text().splitlines().index('    {"+12025550107": 1}[call.called]') + 1
    assert f"{file}:{line}: " in refused.stderr


# -- dial -----------------------------------------------------------------------------------------------


def test_dial_a_file(write, hello, tmp_path):
    """Both voices are in the recording: the caller left, the agent right."""
    out = tmp_path / "call.wav"
    done = voiceflow(
        "dial", write(GOOD), "--speech", hello, "--out", out, "--linger", "0.2", "--delay", "20",
        TWILIO_AUTH_TOKEN=TOKEN, VOICEFLOW_PUBLIC_URL="https://agent.example.com",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in ("line open", "caller ▶ speaks", "agent  ▶ is heard", "hung up", "0 underruns, 0 faults"):
        assert words in done.stdout
    with wave.open(str(out)) as recording:
        assert (recording.getnchannels(), recording.getframerate()) == (2, 8000)
        frames = np.frombuffer(recording.readframes(recording.getnframes()), np.int16).reshape(-1, 2)
    caller, agent = frames[:, 0], frames[:, 1]
    assert np.count_nonzero(np.abs(caller) > 4000) > 800
    assert np.count_nonzero(agent) == 4000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--speech", "nothing.wav"], "nothing.wav"),
        (["--speech", str(ROOT / "README.md")], "README.md"),
        (["--speech", "HELLO", "--after", "1"], "--after"),
        (["--speech", "HELLO", "--out", "/nowhere/call.wav"], "there is no folder"),
        (["--speech", "HELLO", "--out", "/tmp"], "is a folder"),
        (["--speech", "HELLO", "--delay", "nan"], "delay"),
        (["--speech", "HELLO", "--first", "nan"], "--first"),
        (["--speech", "HELLO", "--first", "-1"], "--first"),
        (["--speech", "HELLO", "--log-level", "LOUD"], "log level"),
        (["--speech", "HELLO", "--keys", "4711"], "--keys 4711: give the second"),
        (["--keys", "3:4E"], "--keys 3:4E"),
    ],
)
def test_dial_refuses_what_cannot_work(write, hello, words, message):
    words = [str(hello) if word == "HELLO" else word for word in words]
    result = CliRunner().invoke(app, ["dial", str(write(GOOD)), *words])
    if not isinstance(result.exception, VoiceflowError):  # which `main` turns into exit code 2
        assert result.exit_code == 2, result.output
    assert message in result.output + str(result.exception)


class Running:
    """`voiceflow run` beside the test."""

    def __init__(self, *words: str | Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*MAIN, "run", *map(str, words), "--port", "0"],
            env={**CLEAN, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._queue: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()
        line = self.says("answering calls")
        self.url = re.search(r"listening on (http://\S+)\)", line)[1].replace("0.0.0.0", "127.0.0.1")  # type: ignore[index]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._queue.put(line)
        self._queue.put("")

    def says(self, words: str) -> str:
        """Reads on until a line has `words`."""
        while True:
            line = self._queue.get(timeout=20)
            assert line, f"it ended without saying {words!r}: {self.lines}"
            self.lines.append(line)
            if words in line:
                return line

    def stop(self) -> str:
        self.process.terminate()
        self.process.wait(timeout=15)
        while line := self._queue.get(timeout=5):
            self.lines.append(line)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return "".join(self.lines)


@contextmanager
def running(*words: str | Path, **environment: str) -> Iterator[Running]:
    server = Running(*words, **environment)
    try:
        yield server
    finally:
        text = server.stop()
        assert "Traceback" not in text
        assert TOKEN not in text


def test_dial_a_url_that_verifies_signatures(write, hello):
    public = "https://agent.example.com/phone/"
    with running(write(GOOD), "--public-url", public, TWILIO_AUTH_TOKEN=TOKEN) as server:
        assert "https://agent.example.com/phone/twilio/voice" in server.lines[-1]
        words = ("dial", server.url, "--speech", hello, "--linger", "0.1")
        signed = voiceflow(*words, TWILIO_AUTH_TOKEN=TOKEN, VOICEFLOW_PUBLIC_URL=public)
        assert signed.returncode == 0, signed.stdout
        assert "agent  ▶ is heard" in signed.stdout
        unsigned = voiceflow(*words)
        assert unsigned.returncode == 1
        assert "HTTP 403" in unsigned.stdout
        assert "give its auth token, with --auth-token or TWILIO_AUTH_TOKEN" in unsigned.stdout
        wrong = voiceflow(*words, TWILIO_AUTH_TOKEN="0" * 32, VOICEFLOW_PUBLIC_URL=public)
        assert wrong.returncode == 1
        assert "must be the same here as there" in wrong.stdout
        server.says("no X-Twilio-Signature")
        server.says("X-Twilio-Signature is wrong")


def test_dial_where_nobody_listens(hello):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        done = voiceflow("dial", f"http://127.0.0.1:{taken.getsockname()[1]}/a/[x]", "--speech", hello)
    assert done.returncode == 1
    assert "cannot be reached" in done.stdout


def test_run_without_a_public_url_says_what_that_means(write):
    with running(write(GOOD), TWILIO_AUTH_TOKEN=TOKEN) as server:
        server.says("no --public-url")
        assert "http://0.0.0.0" in server.lines[0]
    with running(write(GOOD)) as server:
        server.says("listens on loopback only")
        assert "http://127.0.0.1" in server.lines[0]


def test_a_public_url_on_this_machine_is_for_nobody_else(write):
    """Whoever can use it is on this machine: the port need not be open to all."""
    with running(write(GOOD), "--public-url", "http://localhost:1", TWILIO_AUTH_TOKEN=TOKEN) as server:
        assert "(listening on http://127.0.0.1:" in server.lines[0]


@pytest.mark.parametrize(
    ("public_url", "auth_token", "address"),
    [
        ("", "", "127.0.0.1"),
        ("", TOKEN, "0.0.0.0"),
        ("https://agent.example.com", "", "127.0.0.1"),
        ("https://agent.example.com", TOKEN, "0.0.0.0"),
        ("http://127.0.0.1:8080", TOKEN, "127.0.0.1"),
        ("http://localhost:8080/phone", TOKEN, "127.0.0.1"),
        ("http://[::1]:8080", TOKEN, "::1"),
        ("https://localhost.example.com", TOKEN, "0.0.0.0"),
    ],
)
def test_where_it_listens(public_url, auth_token, address):
    assert listen_on(public_url, auth_token) == address


# -- reload ---------------------------------------------------------------------------------------------


def test_reload(write, hello, monkeypatch):
    """The next call gets the edited file; an edit that is broken, in its syntax or in its chain, does not
    take the place of the one that works."""
    file = write(GOOD)
    monkeypatch.delenv("TWILIO_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("VOICEFLOW_PUBLIC_URL", raising=False)

    def call(url: str) -> str:
        result = CliRunner().invoke(app, ["dial", url, "--speech", str(hello), "--linger", "0.1"])
        assert result.exit_code == 0
        return result.output

    with running(file, "--reload", "--fallback", "It broke.") as server:
        assert "agent  ▶ is heard" in call(server.url)
        file.write_text(file.read_text().replace('call.say("one")', 'call.hangup("edited")'))
        server.says("reloaded")
        assert "line closed by the server" in call(server.url)
        for broken in ("def pipeline(call)\n", textwrap.dedent(BROKEN_CHAIN)):
            file.write_text(broken)
            server.says("not reloaded, the old one goes on")
        last = call(server.url)
        assert "line closed by the server" in last
        assert "It broke." not in last
        file.write_text(textwrap.dedent(GOOD))
        server.says("reloaded")


# -- doctor ---------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_doctor_finds_what_is_missing():
    port = free_port()
    done = voiceflow("doctor", "--port", str(port))
    assert done.returncode == 1
    for words in ("missing  TWILIO_AUTH_TOKEN", "missing  public URL", f"port {port}", "voice detector"):
        assert " ".join(words.split()) in " ".join(done.stdout.split()), done.stdout


def test_doctor_finds_nothing_missing(write):
    port = free_port()
    done = voiceflow(
        "doctor", write(GOOD), "--port", str(port), "--public-url", f"http://127.0.0.1:{port}/",
        TWILIO_AUTH_TOKEN=TOKEN,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "leads here" in done.stdout
    assert "missing" not in done.stdout
    assert "3 processors" in done.stdout


def test_doctor_beside_the_running_agent(write):
    with running(write(GOOD)) as server:
        port = server.url.rpartition(":")[2]
        done = voiceflow("doctor", "--port", port, "--public-url", server.url, TWILIO_AUTH_TOKEN=TOKEN)
        assert done.returncode == 0, done.stdout
        assert "in use" in done.stdout
        assert "leads here" in done.stdout


@contextmanager
def website(status: int, body: bytes, date: str | None = None) -> Iterator[str]:
    """Somebody else's server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            if date is not None:
                self.send_header("Date", date)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>hello</html>"),
        (200, b""),
        (200, b"[1]"),
        (200, b"[" * 4000),
        (200, b"\xff\xfe"),
        (200, b'{"status":"ok"}'),
        (200, b'{"status":"ok","doctor":"0123456789abcdef"}'),
        (404, b'{"status":"ok"}'),
        (502, b"[/bold] bad gateway"),
    ],
)
def test_doctor_and_somebody_elses_server(status, body):
    with website(status, body) as url:
        findings = asyncio.run(doctor._public(url, 8080, "my-nonce"))
    assert [finding.ok for finding in findings] == [False]
    assert f"answers (HTTP {status}), but it is not this server" in findings[0].says


def test_doctor_and_a_clock_that_is_wrong():
    body = b'{"status":"ok","doctor":"my-nonce"}'
    for date, ok, says in (
        ("Sun, 22 Nov 2020 12:00:00 GMT", False, "s off"),
        ("nonsense", None, "not checked"),
        (None, None, "not checked"),
    ):
        with website(200, body, date) as url:
            findings = asyncio.run(doctor._public(url, 8080, "my-nonce"))
        assert [finding.ok for finding in findings] == [True, ok]
        assert says in findings[1].says


def test_doctor_and_a_url_nobody_answers():
    findings = asyncio.run(doctor._public(f"http://127.0.0.1:{free_port()}", 8080, "n"))
    assert findings[0].ok is False
    assert "cannot be reached from here" in findings[0].says
    for url in ("https://[::1", "ftp://x", f"https://me:{TOKEN}@host"):
        (finding,) = asyncio.run(doctor._public(url, 8080, "n"))
        assert finding.ok is False
        assert TOKEN not in finding.says


# -- demo -----------------------------------------------------------------------------------------------


def test_demo_vad_only(tmp_path):
    """The short one, in real time. The whole one: tests/local/test_demo_offline.py."""
    out = tmp_path / "demo.wav"
    done = voiceflow("demo", "--vad-only", "--out", out)
    assert done.returncode == 0, done.stderr
    steps = ["line open", "caller ▶ speaks", "agent  ▶ is heard", "agent  ✂ cut off", "hung up"]
    places = [done.stdout.find(step) for step in steps]
    assert -1 not in places, done.stdout
    assert places == sorted(places)
    assert "0 underruns, 0 faults" in done.stdout
    with wave.open(str(out)) as recording:
        assert recording.getnchannels() == 2
        seconds = recording.getnframes() / recording.getframerate()
        frames = np.frombuffer(recording.readframes(recording.getnframes()), np.int16).reshape(-1, 2)
    assert 8 < seconds < 60
    assert (np.abs(frames).max(axis=0) > 3000).all()
    assert speech("answer").is_file()
