"""`voiceflow call` as a process of its own, against a Twilio on loopback that really phones it back."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from aiohttp import web
from typer.testing import CliRunner

from processors.twilio.api import PlacedCall, TwilioRefused
from processors.twilio.codec import TwilioCodec
from processors.twilio.simulated.caller import SimulatedCaller, Speech
from tests.vendors.server import Serving
from tests.vendors.twilio import TOO_MANY, FakeTwilio, Outcome, Problem
from voiceflow import Call, Pipeline
from voiceflow.cli import app, outbound
from voiceflow.cli.outbound import Interrupted, OneCall, Order, follow
from voiceflow.errors import LinkError, VoiceflowError
from voiceflow.record import CallResult
from voiceflow.server.server import Refused, Settings

ROOT = Path(__file__).parents[2]
ACCOUNT = "AC" + "a1" * 16
TOKEN = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
ME, YOU = "+12025550199", "+12025550143"
MAIN = [sys.executable, "-c", "from voiceflow.cli import main; main()"]
CLEAN = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}
HELLO = Speech((9000 * np.sin(np.arange(1600))).astype(np.int16), 0.1)

VOICE = """
    from voiceflow import AudioOut, Pipeline, Processor, Sentence, on
    from voiceflow.frames import AudioIn

    class Voice(Processor):
        needs = (AudioIn,)
        emits = (AudioOut,)

        @on(Sentence)
        def speak(self, sentence):
            return AudioOut(b"\\x20" * 1600, sentence.text)
"""
SPEAKS = (
    VOICE
    + """
    def pipeline(call):
        print("SEEN", call.caller, call.called, sorted(call.parameters.items()), flush=True)

        async def greet(call):
            await call.say("hello")
            print("HEARD", flush=True)
            END

        call.on_start(greet)
        return Pipeline(call.source(), Voice(), call.sink())
"""
)
HANGS_UP = SPEAKS.replace("END", 'await call.hangup("all is said")')
STAYS = SPEAKS.replace("END", "pass")
BREAKS = SPEAKS.replace("END", 'raise RuntimeError("a bug of the user\'s")')


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """`write(text)`: a pipeline file."""

    def write(text: str) -> Path:
        file = tmp_path / "agent.py"
        file.write_text(textwrap.dedent(text))
        return file

    return write


def free_port() -> int:
    """One below those that the system gives to outgoing connections, so that none takes it meanwhile."""
    while True:
        port = random.randint(12_000, 32_000)
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)):
                return port


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 40))


@asynccontextmanager
async def carrier(**options: Any) -> AsyncIterator[tuple[FakeTwilio, str]]:
    """A Twilio, and its address."""
    options = {"answers": [HELLO], "line": {"linger": 20.0}, **options}
    twilio = FakeTwilio(account_sid=ACCOUNT, auth_token=TOKEN, numbers=[ME], **options)
    async with Serving(twilio) as serving:
        try:
            yield twilio, serving.url
        finally:
            await twilio.close()


class Calling:
    """`voiceflow call` beside the test. Nothing it prints may be a traceback or hold the auth token."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.text = ""

    @classmethod
    async def start(cls, *words: str | Path, url: str, **given: str) -> Calling:
        """To YOU from ME, with a public URL that leads there, unless `words` and `given` say otherwise."""
        port = free_port()
        environment = {
            **CLEAN,
            "TWILIO_BASE_URL": url,
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_NUMBER": ME,
            "VOICEFLOW_PUBLIC_URL": f"http://127.0.0.1:{port}",
            **given,
        }
        file, *rest = map(str, words)
        process = await asyncio.create_subprocess_exec(
            *MAIN, "call", file, YOU, "--port", str(port), *rest,
            env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        return cls(process)

    async def says(self, words: str) -> None:
        """Reads on until a line has `words`."""
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode():
            self.text += line
            if words in line:
                return
        raise AssertionError(f"it ended without saying {words!r}:\n{self.text}")

    async def ends(self, traceback: bool = False) -> int:
        """Reads to the end; the exit code. Only a fault of the user's own code may show a traceback."""
        assert self.process.stdout is not None
        self.text += (await self.process.stdout.read()).decode()
        code = await self.process.wait()
        assert traceback or "Traceback" not in self.text, self.text
        assert TOKEN not in self.text
        return code

    def line(self, begins: str) -> str:
        """The one line that begins so."""
        (line,) = (line for line in self.text.splitlines() if line.startswith(begins))
        return line

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)


def in_order(text: str, *words: str) -> bool:
    places = [text.find(word) for word in words]
    return -1 not in places and places == sorted(places)


# -- a conversation -------------------------------------------------------------------------------------


def test_a_call_that_is_answered(write):
    """The person who picks up hears the agent; the agent knows what --param said; then it hangs up."""

    async def main() -> None:
        async with carrier() as (twilio, url):
            calling = await Calling.start(
                write(HANGS_UP), "--param", "name=Ada", "--param", "why=a=b",
                "--ring", "25", "--limit", "90.5", url=url,
            )  # fmt: skip
            assert await calling.ends() == 0, calling.text
            assert in_order(calling.text, "queued", "HEARD", "ended  after"), calling.text
            assert f"SEEN {ME} {YOU} [('name', 'Ada'), ('why', 'a=b')]" in calling.text
            (call,) = twilio.calls
            assert [status for _, status in call.history] == ["queued", "ringing", "in-progress", "completed"]
            assert (call.given("To"), call.given("From")) == (YOU, ME)
            assert (call.given("Timeout"), call.given("TimeLimit")) == ("25", "96")
            assert call.given("Url").endswith("/twilio/voice")
            assert call.given("StatusCallback") == ""
            (report,) = call.reports
            assert report.faults == []
            assert np.count_nonzero(report.agent_audio) == 1600
            assert call.error == ""
            phone = [line for line in calling.text.splitlines() if line.startswith("phone ")]
            assert [outbound.CLOCK in line for line in phone] == [True] + [False] * (len(phone) - 1)
            assert len(phone) >= 3  # each line with this clock says so

    run(main())


def test_the_person_hangs_up(write, tmp_path):
    async def main() -> None:
        async with carrier(line={"linger": 0.2}) as (_, url):
            calling = await Calling.start(write(STAYS), "--trace-dir", tmp_path / "calls", url=url)
            assert await calling.ends() == 0, calling.text
            assert "ended  after" in calling.text
            assert len(list((tmp_path / "calls").glob("*.json"))) == 1

    run(main())


def test_behind_a_tunnel(write):
    """The public URL is signed, and is not the address that the process listens on."""
    public = "https://agent.example.com/phone"

    async def main() -> None:
        async with carrier() as (twilio, url):
            port = free_port()
            twilio.reach = {public: f"http://127.0.0.1:{port}"}
            words = ("--no-check", "--public-url", public + "/", "--port", str(port))
            calling = await Calling.start(write(HANGS_UP), *words, url=url)
            assert await calling.ends() == 0, calling.text
            assert twilio.calls[0].given("Url") == f"{public}/twilio/voice"

    run(main())


def test_an_api_key_makes_the_requests_the_token_checks_them(write):
    async def main() -> None:
        async with carrier() as (twilio, url):
            twilio.logins = {"SK1": "key-secret"}
            calling = await Calling.start(
                write(HANGS_UP), url=url, TWILIO_API_KEY="SK1", TWILIO_API_SECRET="key-secret"
            )
            assert await calling.ends() == 0, calling.text
            assert "key-secret" not in calling.text

    run(main())


# -- no conversation ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome("busy"), "busy"),
        (Outcome("no-answer"), "not answered"),
        (Outcome("failed"), "Twilio could not reach that number"),
    ],
    ids=lambda each: getattr(each, "end", ""),
)
def test_nobody_answers(write, outcome, words):
    async def main() -> None:
        async with carrier(outcome=outcome) as (_, url):
            calling = await Calling.start(write(HANGS_UP), url=url)
            assert await calling.ends() == 1
            assert words in calling.line("no conversation: ")
            assert calling.text.count("SEEN") == 1  # the chain that was made to try it

    run(main())


def test_the_agent_breaks(write):
    async def main() -> None:
        async with carrier() as (twilio, url):
            calling = await Calling.start(write(BREAKS), url=url)
            assert await calling.ends(traceback=True) == 1
            assert "a bug of the user" in calling.line("no conversation: ")
            assert len(twilio.calls[0].reports[0].of("said")) == 1  # the fallback

    run(main())


def test_requests_that_are_not_twilio_s(write):
    """Whoever calls the webhook signs with another token: no stream, and the command says so."""

    async def main() -> None:
        async with carrier() as (twilio, url):
            twilio.auth_token = "0" * 32
            calling = await Calling.start(write(HANGS_UP), url=url)
            assert await calling.ends() == 1
            assert "X-Twilio-Signature is wrong" in calling.text
            assert "Twilio opened no stream here" in calling.text
            assert "docs/phone.md" in calling.text

    run(main())


# -- Ctrl-C ---------------------------------------------------------------------------------------------


def test_ctrl_c_hangs_up(write):
    async def main() -> None:
        async with carrier() as (twilio, url):
            calling = await Calling.start(write(STAYS), url=url)
            await calling.says("HEARD")
            calling.interrupt()
            assert await calling.ends() == 0, calling.text
            assert in_order(calling.text, "answered", "hanging up; once more", "ended  after")
            assert twilio.calls[0].updates == [{"Status": "completed"}]
            assert twilio.calls[0].status == "completed"

    run(main())


def test_ctrl_c_while_it_rings(write):
    async def main() -> None:
        async with carrier(outcome=Outcome(rings=30.0)) as (twilio, url):
            calling = await Calling.start(write(STAYS), url=url)
            await calling.says("rings")
            calling.interrupt()
            assert await calling.ends() == 1
            assert twilio.calls[0].status == "canceled"
            assert "no conversation: hung up before it was answered" in calling.text

    run(main())


def test_a_second_ctrl_c_leaves_at_once(write):
    async def main() -> None:
        async with carrier() as (twilio, url):
            calling = await Calling.start(write(STAYS), url=url)
            await calling.says("HEARD")
            twilio.delay = 60.0
            calling.interrupt()
            await calling.says("hanging up")
            calling.interrupt()
            assert await calling.ends() == 130
            assert "the phone may still be connected" in calling.text

    run(main())


def test_the_program_in_the_docs(monkeypatch, capsys):
    page = (ROOT / "docs/phone.md").read_text(encoding="utf-8")
    program = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]

    async def main() -> None:
        async with carrier(answers=None) as (twilio, url):
            for name, value in {**KEYS, "TWILIO_BASE_URL": url}.items():
                monkeypatch.setenv(name, value)
            names: dict[str, Any] = {}
            exec(program, names)
            await names["remind"](YOU)
            assert capsys.readouterr().out == f"{twilio.calls[0].sid} queued\n"

    run(main())


# -- nothing is dialled ---------------------------------------------------------------------------------

KEYS = {
    "TWILIO_ACCOUNT_SID": ACCOUNT,
    "TWILIO_AUTH_TOKEN": TOKEN,
    "TWILIO_NUMBER": ME,
    "VOICEFLOW_PUBLIC_URL": "https://agent.example.com",
    "TWILIO_BASE_URL": "http://127.0.0.1:9",
}


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        ([], {"TWILIO_ACCOUNT_SID": ""}, "TWILIO_ACCOUNT_SID is not set: get one at console.twilio.com"),
        ([], {"TWILIO_AUTH_TOKEN": " "}, "TWILIO_AUTH_TOKEN is not set: get one at console.twilio.com"),
        ([], {"TWILIO_NUMBER": ""}, "TWILIO_NUMBER is not set: get one at console.twilio.com, Phone Numbers"),
        ([], {"VOICEFLOW_PUBLIC_URL": ""}, "cloudflared tunnel"),
        ([], {"TWILIO_BASE_URL": "nonsense"}, "TWILIO_BASE_URL is no address"),
        ([], {"TWILIO_ACCOUNT_SID": "SK" + "0" * 32}, "begins with AC"),
        (["--public-url", "http://agent.example.com"], {}, "must be https://"),
        (["--public-url", "http://127.0.0.1:1"], {"TWILIO_BASE_URL": ""}, "Twilio cannot reach it"),
        (["--from", "2025550143"], {}, "'2025550143' is no telephone number"),
        (["--param", "name"], {}, "write it like name=value"),
        (["--param", "=x"], {}, "write it like name=value"),
        (["--param", "a=1", "--param", "a=2"], {}, "--param a is given twice"),
        (["--log-level", "LOUD"], {}, "there is no log level"),
        (["--ring", "0"], {}, "--ring"),
        (["--ring", "601"], {}, "--ring"),
        (["--limit", "nan"], {}, "--limit"),
        (["--limit", "0"], {}, "--limit"),
        (["--host", "192.0.2.1"], {}, "cannot listen on 192.0.2.1:"),
    ],
)
def test_wrong_use(write, monkeypatch, words, given, message):
    for name, value in {**KEYS, **given}.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["call", str(write(HANGS_UP)), YOU, "--port", "0", *words])
    if not isinstance(result.exception, VoiceflowError):  # which `main` turns into exit code 2
        assert result.exit_code == 2, result.output
    said = result.output + str(result.exception)
    assert message in said
    assert TOKEN not in said


@pytest.mark.parametrize("to", ["12025550143", "+1202", "me", "sip:a b@example.com"])
def test_a_number_that_is_none(write, monkeypatch, to):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["call", str(write(HANGS_UP)), to])
    assert "is no telephone number: write it with country code" in str(result.exception)


KEYLESS = (
    VOICE
    + """
    from voiceflow.vendor import Key

    def pipeline(call):
        voice = Voice()
        voice.keys = (Key.of("MINE_API_KEY", None, "mine.example.com"),)
        return Pipeline(call.source(), voice, call.sink())
"""
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def pipeline(call):\n    return 1\n", "agent.py:1: pipeline(call) must return a Pipeline"),
        (KEYLESS, "error: MINE_API_KEY is not set: get one at mine.example.com"),
    ],
    ids=["no pipeline", "no key"],
)
def test_a_pipeline_that_cannot_work_is_told_before_anything_is_dialled(write, text, words):
    async def main() -> None:
        async with carrier() as (twilio, url):
            calling = await Calling.start(write(text), url=url)
            assert await calling.ends() == 2
            assert words in calling.text
            assert list(twilio.requests) == []

    run(main())


def test_a_public_url_that_leads_elsewhere(write):
    """The phone would ring, and the person hear an error message: so it does not ring."""

    async def main() -> None:
        async def healthz(request: web.Request) -> web.Response:
            return web.json_response({"status": "ok"})

        class Other:
            def routes(self) -> list[web.RouteDef]:
                return [web.get("/healthz/{nonce}", healthz)]

        async with carrier() as (twilio, url), Serving(Other()) as other:
            for public, words in (
                (other.url, "answers (HTTP 200), but it is not this server"),
                (url, "answers (HTTP 404), but it is not this server"),
                (f"http://127.0.0.1:{free_port()}", "cannot be reached from here"),
            ):
                calling = await Calling.start(write(HANGS_UP), "--public-url", public, url=url)
                assert await calling.ends() == 2
                assert "error: nothing was dialled: " in calling.text
                assert words in calling.text
                assert "--no-check" in calling.text
            assert list(twilio.requests) == []

    run(main())


@pytest.mark.parametrize(
    ("problem", "code", "words"),
    [
        (
            Problem(401, 20003, "Authenticate"),
            2,
            "error: Twilio refused (error 20003): the credentials are wrong",
        ),
        (Problem(400, 21219, "Unverified"), 2, "error: Twilio refused (error 21219): a trial account"),
        (TOO_MANY, 1, "the call failed: Twilio refused (error 20429): too many requests"),
    ],
    ids=lambda each: str(getattr(each, "code", "")),
)
def test_twilio_refuses(write, problem, code, words):
    async def main() -> None:
        async with carrier() as (twilio, url):
            twilio.problems.append(problem)
            calling = await Calling.start(write(HANGS_UP), url=url)
            assert await calling.ends() == code
            assert words in calling.text
            assert twilio.calls == []

    run(main())


# -- following a call, without a process ----------------------------------------------------------------


class Agent:
    def make(self, call: Call) -> Pipeline:
        return Pipeline(call.source(), call.sink())


class Line:
    """A TwilioRest whose answers are a script: statuses, and errors that asking for one raises."""

    def __init__(self, *script: str | Exception) -> None:
        self.script = list(script)
        self.hung_up: list[str] = []
        self.asked: list[float] = []

    async def place(self, to: str, from_: str, **options: Any) -> PlacedCall:
        return await self.status("CA1")

    async def status(self, sid: str) -> PlacedCall:
        self.asked.append(asyncio.get_running_loop().time())
        now = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(now, Exception):
            raise now
        return PlacedCall("CA1", now)

    async def hang_up(self, sid: str) -> None:
        self.hung_up.append(sid)
        self.script = ["completed"]


def one_call(limit: float = 60.0, parameters: Mapping[str, str] | None = None) -> OneCall:
    order = Order(YOU, ME, "https://agent.example.com", 60, limit, parameters or {})
    return OneCall(Agent(), Settings(), order)


async def test_it_is_asked_less_often_while_nothing_happens(virtual_time, capsys):
    line = Line(*["ringing"] * 10, "busy")
    with pytest.raises(typer.Exit) as ended:
        await follow(line, one_call(), Interrupted())  # type: ignore[arg-type]
    assert ended.value.exit_code == 1
    gaps = [round(after - before, 3) for before, after in zip(line.asked, line.asked[1:], strict=False)]
    assert gaps[:4] == [0.5, 0.75, 1.125, 1.688]
    assert gaps[-1] == outbound.LAST_POLL
    assert capsys.readouterr().out.splitlines()[-1] == "no conversation: busy"


async def test_what_happens_here_makes_it_ask_at_once(virtual_time):
    line, server = Line(*["ringing"] * 8, "in-progress", "completed"), one_call()
    server.result = CallResult("w0-1", "all is said", None, 1.0)
    following = asyncio.create_task(follow(line, server, Interrupted()))  # type: ignore[arg-type]
    await asyncio.sleep(3.0)
    before = len(line.asked)
    server.news.set()
    await asyncio.sleep(0.01)
    assert len(line.asked) == before + 1
    await following


async def test_a_status_that_cannot_be_had_for_a_while(virtual_time):
    trouble = LinkError("api.twilio.com did not answer")
    line, server = Line("ringing", *[trouble] * 4, "in-progress", "completed"), one_call()
    server.result = CallResult("w0-1", "all is said", None, 1.0)
    await follow(line, server, Interrupted())  # type: ignore[arg-type]
    line = Line("ringing", trouble)
    with pytest.raises(LinkError, match="did not answer"):
        await follow(line, one_call(), Interrupted())  # type: ignore[arg-type]
    assert outbound.TROUBLE < virtual_time.now < 2 * outbound.TROUBLE + 20


async def test_it_ends_a_call_whose_time_is_up(virtual_time, capsys):
    line, server = Line("in-progress"), one_call(limit=10.0)
    server.result = CallResult("w0-1", "the limit", None, 10.0)
    await follow(line, server, Interrupted())  # type: ignore[arg-type]
    assert line.hung_up == ["CA1"]
    assert server.order.longest < virtual_time.now < server.order.longest + 10
    assert "its time is up" in capsys.readouterr().out


async def test_a_call_that_cannot_be_hung_up(virtual_time):
    class Deaf(Line):
        async def hang_up(self, sid: str) -> None:
            raise TwilioRefused("api.twilio.com", 503)

    with pytest.raises(LinkError, match="could not be hung up and may go on: Twilio refused"):
        await follow(Deaf("in-progress"), one_call(limit=10.0), Interrupted())  # type: ignore[arg-type]

    class Stubborn(Line):
        async def hang_up(self, sid: str) -> None:
            pass

    with pytest.raises(LinkError, match="Twilio did not end the call"):
        await follow(Stubborn("in-progress"), one_call(limit=10.0), Interrupted())  # type: ignore[arg-type]


async def test_only_the_call_that_was_placed_is_taken(virtual_time):
    """Before Twilio has told its id, the caller's number tells; afterwards only the id."""
    server = one_call(parameters={"name": "Ada"})
    ours: dict[str, Any] = {"caller": ME, "called": YOU, "parameters": {}}
    strangers = {**ours, "caller": "+12025550100", "called": ME}
    with pytest.raises(Refused, match="voiceflow run"):
        server.offer(TwilioCodec(), carrier_call="CA2", **strangers)
    assert server.offer(TwilioCodec(), carrier_call="CA1", **ours)
    server.sid = "CA1"
    with pytest.raises(Refused):
        server.offer(TwilioCodec(), carrier_call="CA2", **ours)
    assert server.offer(TwilioCodec(), carrier_call="CA1", **strangers)
    assert {call.parameters["name"] for call in server.calls} == {"Ada"}
    await server.end_calls()
    await server.close()


def test_somebody_else_calls_meanwhile(write):
    async def main() -> None:
        async with carrier(outcome=Outcome(rings=30.0)) as (twilio, url):
            calling = await Calling.start(write(STAYS), url=url)
            await calling.says("rings")
            webhook = twilio.calls[0].given("Url")
            async with SimulatedCaller(webhook, auth_token=TOKEN) as stranger:
                said = await stranger.wait_for("said")
            assert "call again in a minute" in said.detail
            calling.interrupt()
            assert await calling.ends() == 1
            assert "only the call that was placed is taken here" in calling.text

    run(main())
