"""`voiceflow demo`: the whole of it where there is no network, and what it does without its models."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from voiceflow.cli import app, demo
from voiceflow.cli.visitor import REMARKS, Remark, converse
from voiceflow.errors import LinkError
from voiceflow.models import ModelError

ROOT = Path(__file__).parents[2]
NOT_PERMITTED = 77
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
    "PYTHONPATH": str(ROOT),
    "NO_COLOR": "1",
    "COLUMNS": "120",
    "PYTHONIOENCODING": "utf-8",
    "LOCAL_LLM": "http://127.0.0.1:9/v1",  # which the demo must not ask
}
ALONE = f"""
import ctypes, errno, fcntl, os, socket, struct, sys
NEWNET, NEWUSER, SIOCSIFFLAGS, UP = 0x40000000, 0x10000000, 0x8914, 1
libc = ctypes.CDLL(None, use_errno=True)
if not hasattr(libc, "unshare"):
    print("this system has none", file=sys.stderr)
    sys.exit({NOT_PERMITTED})
if libc.unshare(NEWNET) and libc.unshare(NEWNET | NEWUSER):
    print(os.strerror(ctypes.get_errno()), file=sys.stderr)
    sys.exit({NOT_PERMITTED})
with socket.socket() as probe:
    fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", UP))
assert [name for _, name in socket.if_nameindex()] == ["lo"], socket.if_nameindex()
with socket.socket() as probe:
    assert probe.connect_ex(("192.0.2.1", 443)) == errno.ENETUNREACH
from voiceflow.cli import main
main()
"""


def test_the_whole_demo_without_a_network(tmp_path):
    """In real time, in a namespace with no interface but loopback: whatever needs more fails at once."""
    out = tmp_path / "call.wav"
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "demo", "--out", str(out)],
        env=ENVIRONMENT,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=150,
    )
    if done.returncode == NOT_PERMITTED:
        pytest.skip(
            f"NOT TESTED: the demo without a network: no namespace of its own ({done.stderr.strip()})"
        )
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [
        '"Go forward ten meters." - recorded person',
        '"When are you open?" - synthetic voice',
        "agent  ✂ cut off",
        "line closed by the server",
        "What was said",
        "How can I help you?",
        "What would you like?",
        "We are open Monday to Friday",
        "May I have your name, please?",
        "Is that right?",
        "tool   book",
        "You are booked for Thursday",
        "Thank you for calling. Goodbye!",
        "the agent hung up",
        "6 turns",
        "1 cut in",
        "Listen:",
    ]
    place = 0
    for step in steps:
        place = done.stdout.find(step, place)
        assert place >= 0, f"{step}, in {done.stdout}"
    assert " 0 faults" in done.stdout
    with wave.open(str(out)) as recording:
        assert (recording.getnchannels(), recording.getframerate()) == (2, 8000)
        sound = np.frombuffer(recording.readframes(recording.getnframes()), np.int16).reshape(-1, 2)
    assert 30 < len(sound) / 8000 < 60
    assert (np.abs(sound.astype(int)).max(axis=0) > 3000).all()
    page = out.with_suffix(".html").read_text("utf-8")
    assert "You are booked for Thursday" in page
    assert not list(tmp_path.glob("*.json"))  # what it made in passing is gone


# -- without the models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["hibari", "moonshine_voice"])
def test_a_package_that_is_missing(monkeypatch, tmp_path, package):
    """It says how to install it, and plays the one that needs none."""
    played = []

    async def detector(out: Path) -> None:
        played.append(out)

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(demo, "_detector", detector)
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "a.wav")])
    assert done.exit_code == 0, done.output
    assert f"{package}, which is not installed: pip install 'voiceflow-agents[local]'" in done.output
    assert played == [tmp_path / "a.wav"]


def test_a_model_that_cannot_be_loaded(monkeypatch, tmp_path):
    async def serve(*_: object) -> None:
        raise ModelError("Moonshine: libc is too old")

    monkeypatch.setattr(demo, "serve", serve)
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "a.wav")])
    assert "libc is too old. The short demo needs no models: --vad-only" in str(done.exception)


def test_places_where_nothing_can_be_left(tmp_path):
    for out in (tmp_path, tmp_path / "no" / "a.wav", tmp_path / "a.html"):
        done = CliRunner().invoke(app, ["demo", "--out", str(out)])
        assert done.exit_code == 1
        assert "--out" in str(done.exception)


# -- the caller --------------------------------------------------------------------------------------------


class Phone:
    """Plays a list of events, each `after` seconds: what a SimulatedCaller would see."""

    def __init__(self, *events: tuple[float, str]) -> None:
        self.events, self.said, self.over = list(events), [], False

    async def wait_for(self, what: str, timeout: float = 10.0) -> None:
        try:
            async with asyncio.timeout(timeout):
                while self.events:
                    after, kind = self.events[0]
                    await asyncio.sleep(after)
                    del self.events[0]
                    self.over = kind == "hung up"
                    if kind == what:
                        return
                    if self.over:
                        raise LinkError("the call ended without it")
                await asyncio.sleep(timeout)
        except TimeoutError:
            raise LinkError("not seen") from None

    async def say(self, words: str) -> None:
        self.said.append((round(asyncio.get_running_loop().time(), 3), words))
        self.events.insert(0, (0.0, "caller stops"))


HELLO, INTO = Remark("hello"), Remark("but", into=2.0)


async def test_the_agent_is_heard_out_and_interrupted(virtual_time):
    begin = asyncio.get_running_loop().time()
    phone = Phone(
        *((1.0, "agent heard"), (3.0, "agent silent")),
        *((0.5, "agent heard"), (1.0, "agent silent")),  # only between two sentences
        *((2.0, "agent heard"), (9.0, "hung up")),
    )
    await converse(phone, ["hello", "but"], (HELLO, INTO))
    first, second = ((round(at - begin, 3), words) for at, words in phone.said)
    assert first == (6.2, "hello")
    assert second == (10.2, "but")


@pytest.mark.parametrize(
    "events",
    [
        [],
        [(1.0, "agent heard")],
        [(1.0, "agent heard"), (1.0, "agent silent")],
        [(1.0, "agent heard"), (1.0, "agent silent"), (0.3, "hung up")],
    ],
)
async def test_a_call_that_does_not_go_on(virtual_time, events):
    """It ends with an error, in bounded time."""
    async with asyncio.timeout(120):
        with pytest.raises(LinkError):
            await converse(Phone(*events), ["hello", "but"], (HELLO, INTO))


def test_what_is_said():
    assert sum(bool(remark.recording) for remark in REMARKS) == 1
    assert sum(remark.into is not None for remark in REMARKS) == 1
