"""A page without a browser: what the real one says to the server, and a loudspeaker that keeps its time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp

from processors.browser.access import Access
from processors.browser.codec import WIDEBAND
from processors.browser.routes import CALLS, STREAM, BrowserRoutes
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.record import CallResult
from voiceflow.server.listener import Listener
from voiceflow.server.server import Server, Settings

FRAME = 640
"""Bytes of 20 ms."""
RATE = WIDEBAND.rate


class Site:
    """A server with a page that listens on loopback."""

    def __init__(self, server: Server, routes: BrowserRoutes, listener: Listener, calls: list[Call]) -> None:
        self.server, self.routes, self.listener, self.calls = server, routes, listener, calls
        self.url = listener.url
        self.results: list[CallResult] = []
        server.finished = lambda call, result: self.results.append(result)

    async def until(self, true: Callable[[], object], what: str = "", limit: float = 10.0) -> None:
        try:
            async with asyncio.timeout(limit):
                while not true():  # noqa: ASYNC110 - what others do has no event
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"not within {limit:g} s: {what or true}") from None


@asynccontextmanager
async def site(
    make: Callable[[Call], Pipeline],
    *,
    access: Access | None = None,
    redact: bool = False,
    port: int = 0,
    **settings: Any,
) -> AsyncIterator[Site]:
    calls: list[Call] = []

    def keep(call: Call) -> Pipeline:
        pipeline = make(call)
        if call.id != "warm-up":
            calls.append(call)
        return pipeline

    server = Server(SimpleNamespace(make=keep), Settings(**settings))
    routes = BrowserRoutes(server, access or Access(), redact=redact)
    try:
        async with Listener(server, routes.routes(), host="127.0.0.1", port=port) as listener:
            yield Site(server, routes, listener, calls)
    finally:
        await routes.close()


class Client:
    """HTTP as the page's, by default with its Origin."""

    def __init__(self, site: Site, http: aiohttp.ClientSession) -> None:
        self.site, self.http = site, http
        self.origin = site.url

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.http.get(self.site.url + path, headers=headers) as response:
            return response.status, await response.text()

    async def post(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        headers = {"Origin": self.origin, **headers}
        async with self.http.post(self.site.url + path, json=body or {}, headers=headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.startswith("{") else text

    async def offer(self, **body: Any) -> dict[str, str]:
        status, answer = await self.post(CALLS, body)
        assert status == 200, answer
        return dict(answer)

    async def socket(self, token: str, **headers: str) -> aiohttp.ClientWebSocketResponse:
        url = "ws" + self.site.url.removeprefix("http") + STREAM + token
        headers = {"Origin": self.origin, **headers}
        return await self.http.ws_connect(url, headers=headers, timeout=aiohttp.ClientWSTimeout(ws_close=2.0))

    async def talk(self, **body: Any) -> Tab:
        offer = await self.offer(**body)
        tab = Tab(await self.socket(offer["token"]), offer["call"])
        await tab.start()
        return tab


@asynccontextmanager
async def client(of: Site) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as http:
        yield Client(of, http)


class Tab:
    """A page that is talking: a microphone that sends every 20 ms, and a loudspeaker with a clock of its own.

    `shown` is what it was told of the call, `heard` the audio that was really played, `last` the last
    word."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, call: str) -> None:
        self.socket, self.call = socket, call
        self.shown: list[dict[str, Any]] = []
        self.last: dict[str, Any] | None = None
        self.clears = 0
        self._mouth = bytearray()
        self._pieces: list[tuple[float, bytes]] = []
        self._free = 0.0
        self._marks: dict[str, asyncio.TimerHandle] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.read = asyncio.Event()
        """The socket is closed."""

    async def start(self) -> None:
        await self.send(type="start", call=self.call, rate=RATE)
        self._tasks = [asyncio.create_task(self._speak()), asyncio.create_task(self._read())]

    async def send(self, **message: Any) -> None:
        await self.socket.send_str(json.dumps(message))

    def say(self, audio: bytes) -> None:
        """Says this next: pcm16 at 16 kHz."""
        self._mouth += audio

    async def hang_up(self) -> None:
        """As its button does; waits for the last word."""
        await self.send(type="stop")
        await self.over()

    async def over(self, limit: float = 10.0) -> None:
        async with asyncio.timeout(limit):
            await self.read.wait()
        await self.leave()

    async def leave(self) -> None:
        """Closes it, as whoever shuts a lid does: without a word."""
        for task in self._tasks:
            task.cancel()
        for timer in self._marks.values():
            timer.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.socket.close()

    @property
    def heard(self) -> bytes:
        now = asyncio.get_running_loop().time()
        return b"".join(audio[: max(0, round((now - at) * RATE)) * 2] for at, audio in self._pieces)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.shown if each["type"] == "event" and each["kind"] == kind]

    async def _speak(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self.socket.closed:
            frame = bytes(self._mouth[:FRAME]).ljust(FRAME, b"\0")
            del self._mouth[:FRAME]
            try:
                await self.socket.send_bytes(frame)
            except (ConnectionError, RuntimeError, aiohttp.ClientError):
                return
            due += 0.02
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for message in self.socket:
                now = loop.time()
                if message.type is aiohttp.WSMsgType.BINARY:
                    at = max(now, self._free)
                    self._pieces.append((at, message.data))
                    self._free = at + len(message.data) / 2 / RATE
                elif (body := json.loads(message.data))["type"] == "mark":
                    name = body["name"]
                    self._marks[name] = loop.call_at(max(now, self._free), self._return, name)
                elif body["type"] == "clear":
                    self._clear(now)
                elif body["type"] == "over":
                    self.last = body
                else:
                    self.shown.append(body)
        finally:
            self.read.set()

    def _clear(self, now: float) -> None:
        self.clears += 1
        self._pieces = [(at, audio[: max(0, round((now - at) * RATE)) * 2]) for at, audio in self._pieces]
        self._free = now
        for name, timer in list(self._marks.items()):
            timer.cancel()
            self._return(name)

    def _return(self, name: str) -> None:
        self._marks.pop(name, None)
        task = asyncio.ensure_future(self.send(type="mark", name=name))
        self._tasks.append(task)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
