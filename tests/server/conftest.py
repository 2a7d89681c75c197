"""A real server on a loopback port, agents to run on it, and an ear for its log."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from loguru import logger

from processors.twilio.codec import TwilioCodec
from processors.twilio.routes import STREAM, VOICE, TwilioRoutes
from processors.twilio.signature import SIGNATURE_HEADER, sign
from processors.twilio.simulated.caller import SimulatedCaller
from voiceflow.audio import encode
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.errors import VoiceflowError
from voiceflow.frames import AudioIn, AudioOut, Dtmf, Prompt, ReplyEnd
from voiceflow.record import CallResult
from voiceflow.server.listener import Listener, warm
from voiceflow.server.server import Server, Settings

AUTH_TOKEN = "0123456789abcdef0123456789abcdef"


class Log:
    """What was logged, through loguru and through the standard library."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        """(level, message) of everything from INFO on, in order."""
        self.errors: list[str] = []
        """Tracebacks: of processors, or of ourselves."""
        self._looked = 0

    def add(self, message: Any) -> None:
        record = message.record
        self.lines.append((record["level"].name, record["message"]))
        if record["exception"] is not None:
            self.errors.append(str(message))

    def warnings(self) -> list[str]:
        """The lines from WARNING on that came since this was last asked."""
        fresh, self._looked = self.lines[self._looked :], len(self.lines)
        return [message for level, message in fresh if level in ("WARNING", "ERROR", "CRITICAL")]

    @property
    def text(self) -> str:
        return "\n".join(message for _, message in self.lines) + "\n".join(self.errors)


class _Ear(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.lines.append((record.levelname, f"stdlib {record.name}: {record.getMessage()}"))
        self._log.errors.append(f"stdlib {record.name}: {record.getMessage()} {record.exc_info}")


class Ears(Processor):
    """Lets the caller have the first packet, then gives the agent the floor; remembers what came in."""

    needs = (AudioIn,)
    takes_turns = True

    def __init__(self) -> None:
        self.packets = 0
        self.digits: list[str] = []

    @tap(AudioIn)
    def hear(self, frame: AudioIn) -> None:
        self.packets += 1
        if self.packets == 1:
            self.turns.started()
            self.turns.ended("hello")

    @tap(Dtmf)
    def key(self, frame: Dtmf) -> None:
        self.digits.append(frame.digit)


class Babble(Processor):
    """Speaks without end."""

    emits = (AudioOut, ReplyEnd)

    @on(Prompt)
    async def babble(self, prompt: Prompt) -> AsyncIterator[AudioOut | ReplyEnd]:
        for number in itertools.count():
            yield AudioOut(TONE, f"Words {number}.")
            await asyncio.sleep(0.05)
        yield ReplyEnd()


TONE = encode((8000 * np.sin(np.arange(800) * 2 * np.pi * 0.05)).astype(np.int16))
"""100 ms of 400 Hz."""


class Agent:
    """Runs `function(call)` for every call, and keeps the calls it was asked for."""

    def __init__(self, function: Callable[[Call], Pipeline]) -> None:
        self.function = function
        self.calls: list[Call] = []

    def make(self, call: Call) -> Pipeline:
        self.calls.append(call)
        try:
            return self.function(call)
        except VoiceflowError:
            raise
        except Exception as error:
            raise VoiceflowError(f"agent.py:3: {error}") from error


def babbling(call: Call) -> Pipeline:
    return Pipeline(call.source(), Ears(), Babble(), call.sink())


class Site:
    """One server that listens. What a test needs to know about it."""

    def __init__(self, server: Server, agent: Agent, listener: Listener, auth_token: str) -> None:
        self.server = server
        self.agent = agent
        self.listener = listener
        self.base = base = listener.url
        self.auth_token = auth_token
        self.voice = base + VOICE
        self.finished: list[CallResult] = []
        server.finished = lambda call, result: self.finished.append(result)

    @property
    def public_url(self) -> str:
        return self.server.settings.public_url or ""

    def caller(self, **options: Any) -> SimulatedCaller:
        options = {"auth_token": self.auth_token, "public_url": self.public_url, **options}
        return SimulatedCaller(self.voice, **options)

    @property
    def connections(self) -> int:
        """TCP connections that are open."""
        server = self.listener._runner.server
        return len(server.connections) if server is not None else 0

    async def until(self, condition: Callable[[], Any], what: str = "", timeout: float = 5.0) -> None:
        """Looks every 2 ms until `condition` holds."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():  # noqa: ASYNC110 - what others do has no event
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}") from None

    async def empty(self) -> None:
        """No call is left, and nothing of one."""
        await self.until(lambda: not self.server.calls, "no calls")


@asynccontextmanager
async def _site(
    function: Callable[[Call], Pipeline] = babbling,
    *,
    auth_token: str = "",
    warmed: bool = False,
    **settings: Any,
) -> AsyncIterator[Site]:
    agent = Agent(function)
    server = Server(agent, Settings(**settings))
    if warmed:
        await warm(agent, TwilioCodec(), server)
    routes = TwilioRoutes(server, auth_token=auth_token)
    async with Listener(server, routes.routes(), host="127.0.0.1", port=0) as listener:
        yield Site(server, agent, listener, auth_token)


class Wire:
    """A carrier without manners: a webhook's form and a bare WebSocket."""

    def __init__(self, site: Site, http: aiohttp.ClientSession) -> None:
        self.site = site
        self.http = http
        self.call_sid = "CA" + "7" * 32
        self.stream_sid = "MZ" + "7" * 32
        self.token = ""

    def form(self) -> dict[str, str]:
        return {"CallSid": self.call_sid, "From": "+12025550143", "To": "+12025550199"}

    def headers(self, url: str, form: dict[str, str] | None = None) -> dict[str, str]:
        if not self.site.auth_token:
            return {}
        return {SIGNATURE_HEADER: sign(self.site.auth_token, url, form or {})}

    async def post(self, **options: Any) -> tuple[int, str]:
        """POSTs to the webhook: by default a good form, signed when the site verifies."""
        if "json" not in options:
            options.setdefault("data", self.form())
        options.setdefault("headers", self.headers(self.site.voice, self.form()))
        async with self.http.post(self.site.voice, **options) as response:
            return response.status, await response.text()

    async def announce(self) -> str:
        """Announces a call; returns the path of its stream."""
        status, body = await self.post()
        assert status == 200, body
        self.token = body.partition(STREAM)[2].partition('"')[0]
        assert self.token, body
        return STREAM + self.token

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.http.get(self.site.base + path, headers=headers) as response:
            return response.status, await response.text()

    async def open(self, path: str = "", **options: Any) -> aiohttp.ClientWebSocketResponse:
        path = path or await self.announce()
        url = "ws" + self.site.base.removeprefix("http") + path
        options.setdefault("headers", self.headers(url))
        options.setdefault("timeout", aiohttp.ClientWSTimeout(ws_close=2.0))
        return await self.http.ws_connect(url, **options)

    async def refused(self, path: str = "", **options: Any) -> int:
        """The HTTP status with which the upgrade is refused."""
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await self.open(path, **options)
        return caught.value.status

    def start(self, **overrides: Any) -> str:
        start = {
            "streamSid": self.stream_sid,
            "callSid": self.call_sid,
            "accountSid": "AC" + "7" * 32,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {},
            **overrides,
        }
        return json.dumps(
            {"event": "start", "sequenceNumber": "1", "streamSid": self.stream_sid, "start": start}
        )

    def media(self, number: int = 0, audio: bytes = b"\xff" * 160, **overrides: Any) -> str:
        media = {
            "track": "inbound",
            "chunk": str(number + 1),
            "timestamp": str(20 * number),
            "payload": base64.b64encode(audio).decode(),
        }
        body = {"event": "media", "sequenceNumber": "2", "streamSid": self.stream_sid, "media": media}
        return json.dumps({**body, **overrides})

    async def started(self) -> aiohttp.ClientWebSocketResponse:
        """A stream that is open and announced."""
        socket = await self.open()
        await socket.send_str(self.start())
        return socket

    async def closed(self, socket: aiohttp.ClientWebSocketResponse, timeout: float = 5.0) -> int | None:
        """Reads to the end; the close code."""
        async with asyncio.timeout(timeout):
            async for _ in socket:
                pass
        return socket.close_code


class Bystander:
    """Another live call on the same server, which must not notice anything."""

    def __init__(self, site: Site, caller: SimulatedCaller) -> None:
        self.site = site
        self.caller = caller
        self.call = site.agent.calls[-1]

    async def goes_on(self) -> None:
        """Its audio flows both ways, and nothing was lost meanwhile."""
        source, report = self.call._pipeline.source, self.caller.report  # type: ignore[union-attr]
        packets, heard = source.packets, report.bytes_received  # type: ignore[union-attr]
        await self.site.until(lambda: source.packets >= packets + 2, "the caller is heard")  # type: ignore[union-attr]
        await self.site.until(lambda: report.bytes_received > heard, "the agent is heard")
        assert not self.caller.over
        assert report.faults == []
        assert report.of("clear received") == []
        assert source.faults == {}  # type: ignore[union-attr]


@asynccontextmanager
async def _bystander(site: Site) -> AsyncIterator[Bystander]:
    async with site.caller() as caller:
        await caller.wait_for("agent heard")
        bystander = Bystander(site, caller)
        yield bystander
        await bystander.goes_on()


@asynccontextmanager
async def _wire(site: Site) -> AsyncIterator[Wire]:
    async with aiohttp.ClientSession() as http:
        yield Wire(site, http)


def _run(main: Coroutine[Any, Any, None], timeout: float = 30.0) -> None:
    """Runs `main` and sees that it leaves no task behind."""

    async def bounded() -> None:
        async with asyncio.timeout(timeout):
            await main
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left: {left}"

    if LOOP == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(bounded())
    else:
        asyncio.run(bounded())


LOOP = os.environ.get("VOICEFLOW_TEST_LOOP", "asyncio")
"""`uvloop` runs the same tests there."""


@pytest.fixture(autouse=True)
def _nobody_asks_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most carriers here are rude: they leave without a `stop`, and never ask what comes next."""
    monkeypatch.setattr("voiceflow.server.admission.QUESTION_WAIT", 0.05)


@pytest.fixture
def site() -> Callable[..., Any]:
    """`async with site(pipeline, auth_token=..., max_calls=...) as s`: a server that listens."""
    return _site


@pytest.fixture
def wire() -> Callable[[Site], Any]:
    """`async with wire(s) as w`: a carrier without manners."""
    return _wire


@pytest.fixture
def bystander() -> Callable[[Site], Any]:
    """`async with bystander(s) as b`: a live call beside; at the end it must still go on undisturbed."""
    return _bystander


@pytest.fixture
def run_it() -> Callable[..., None]:
    """`run_it(main())`: runs it, bounded, and sees that no task is left."""
    return _run


@pytest.fixture
def log() -> Iterator[Log]:
    """Everything that is logged during the test."""
    log = Log()
    sink = logger.add(log.add, level="INFO", format="{message}\n{exception}", diagnose=False)
    ear = _Ear(log)
    logging.getLogger().addHandler(ear)
    yield log
    logging.getLogger().removeHandler(ear)
    logger.remove(sink)


@pytest.fixture(name="babbling")
def _babbling() -> Callable[[Call], Pipeline]:
    """A pipeline whose agent speaks without end."""
    return babbling
