"""The phone agents that are compared, each in a process of its own, and how to call them.

A bot's process is told the vendors' addresses by its environment and prints where it can be called: a
WebSocket URL, or the address of voiceflow's server, whose webhook is asked first, as Twilio would.
pipecat's single-client server prints one line for each call that it is ready to take.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

from benchmarks.caller import Script, Talk, converse
from benchmarks.clear_driver import CALL_SID, STREAM_SID
from processors.twilio.routes import VOICE

ROOT = Path(__file__).resolve().parents[1]
PYTHON = "VOICEFLOW_BENCH_PYTHON"
START_DEADLINE = 60.0
STOP_DEADLINE = 10.0
SETTLE = 0.2
"""Seconds after a call in which its bot ends what it has to end, before another one is called."""


def find_peer() -> str | None:
    """A Python that can import pipecat; None when there is none."""
    if importlib.util.find_spec("pipecat") is not None:
        return sys.executable
    return os.environ.get(PYTHON) or None


@dataclass(slots=True, frozen=True)
class Kind:
    """One of the bots. `words` follow the module on its command line."""

    name: str
    module: str
    words: tuple[str, ...] = ()
    peer: bool = False
    """It needs the interpreter that has pipecat."""
    one_call: bool = False
    """It prints a line for each call."""


BARE = Kind("bare bot", "benchmarks.peers.bare_bot")
VOICEFLOW = Kind("voiceflow", "benchmarks.phone_agent")
PIPECAT = Kind("pipecat at 8 kHz", "benchmarks.peers.pipecat_agent", ("--rates", "phone"), True, True)
PIPECAT_RATES = Kind(
    "pipecat at its default rates", "benchmarks.peers.pipecat_agent", ("--rates", "default"), True, True
)


def can_run(kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
    """Those of `kinds` whose interpreter is here."""
    return tuple(kind for kind in kinds if not kind.peer or find_peer() is not None)


class Bot:
    """A running bot. What it does wrong is a RuntimeError that ends with what it wrote to stderr."""

    def __init__(self, kind: Kind, process: subprocess.Popen[str], complaints: IO[str]) -> None:
        self.kind = kind
        self.url = ""
        self._process = process
        self._complaints = complaints
        self._calls = 0

    def call(self, script: Script) -> Talk:
        """One call, blocking; at the end the bot has cleared up and can take the next one."""
        url, start = self._dial()
        try:
            talk = converse(url, script, start)
        except OSError as error:
            raise self._failed(str(error)) from error
        if self.kind.one_call:
            self.ready()
        time.sleep(SETTLE)
        return talk

    def ready(self) -> None:
        """Waits until it says that it can take a call; 60 s at most."""
        assert self._process.stdout is not None
        if select.select([self._process.stdout], [], [], START_DEADLINE)[0]:
            self.url = self._process.stdout.readline().strip()
        else:
            self.url = ""
        if not self.url:
            raise self._failed("it did not start")

    def _dial(self) -> tuple[str, dict[str, Any]]:
        """A media WebSocket's URL, and what `start` must say there."""
        if self.url.startswith("ws"):
            return self.url, {"callSid": CALL_SID, "streamSid": STREAM_SID}
        self._calls += 1
        number = f"{self._calls:032x}"
        form = urlencode({"CallSid": f"CA{number}", "From": "+12025550143", "To": "+12025550199"})
        answer = self.ask("POST", VOICE, form)
        found = re.search(r'url="([^"]+)"', answer)
        if found is None:
            raise self._failed(f"it did not take the call: {answer}")
        return found[1], {"callSid": f"CA{number}", "streamSid": f"MZ{number}"}

    def ask(self, method: str, path: str, form: str | None = None) -> str:
        """An HTTP request to a bot that is a web server."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=START_DEADLINE)
        try:
            headers = {"content-type": "application/x-www-form-urlencoded"}
            connection.request(method, path, form, headers)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def _failed(self, what: str) -> RuntimeError:
        self._complaints.seek(0)
        return RuntimeError(f"{self.kind.name}: {what}\n{self._complaints.read()[-2000:]}")


@contextlib.contextmanager
def running(kind: Kind, environment: Mapping[str, str], loop: str) -> Iterator[Bot]:
    """Starts a bot that is ready to be called, and stops it."""
    python = find_peer() if kind.peer else sys.executable
    assert python is not None
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            [python, "-m", kind.module, *kind.words, "--loop", loop],
            cwd=ROOT,
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
        try:
            bot = Bot(kind, process, complaints)
            bot.ready()
            yield bot
        finally:
            process.terminate()
            try:
                process.wait(STOP_DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
