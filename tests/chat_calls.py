"""What the tests of ChatLLM share: a rig with a fake server behind it, and one that does as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx2
from aiohttp import web

from processors.openai import ChatLLM
from tests.vendors.openai import FakeOpenAI
from voiceflow import Prompt, Reply, ReplyEnd, Token
from voiceflow.engine.history import Message
from voiceflow.engine.processor import Processor, tap
from voiceflow.services import Services
from voiceflow.testing import Rig

KEY = "sk-fake-1234567890"
URL = "http://fake/v1"
MEMORY = {"api_key": KEY, "base_url": URL}
"""Parameters of a ChatLLM whose server is in memory."""


class Shared(Services):
    """Services that outlive the rigs that use them."""

    async def close(self) -> None: ...

    async def really_close(self) -> None:
        await super().close()


class Times(Processor):
    """When tokens and ends came out."""

    def __init__(self) -> None:
        self.tokens: list[tuple[float, str]] = []
        self.ends: list[float] = []
        self.news = asyncio.Event()

    @tap(Token)
    def token(self, token: Token) -> None:
        self.tokens.append((self.call.loop.time(), token.text))
        self.news.set()

    @tap(ReplyEnd)
    def end(self, end: ReplyEnd) -> None:
        self.ends.append(self.call.loop.time())
        self.news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.news.clear()
            await self.news.wait()


class Desk:
    """`async with Desk(fake) as desk`: a ChatLLM in a rig, its server in memory unless `services` says
    otherwise."""

    def __init__(
        self, fake: FakeOpenAI | None = None, *, services: Services | None = None, **options: Any
    ) -> None:
        self.fake = fake or FakeOpenAI(key=KEY)
        self.llm = ChatLLM(**{**MEMORY, **options})
        self.times = Times()
        self.rig = Rig(self.llm, self.times, services=services or Services(transport=self.fake.transport))
        self.loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        await self.rig.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.rig.__aexit__(*error)

    def ask(self, text: str = "Are you open?", history: Iterable[Message] = (), **fields: Any) -> Reply:
        reply = self.rig.reply()
        self.rig.push(Prompt(text, tuple(history), reply=reply, **fields))
        return reply

    async def answered(self, **asked: Any) -> str:
        """Asks, and waits for the end of the answer: its text."""
        before = len(self.times.ends)
        reply = self.ask(**asked)
        await self.times.until(lambda: len(self.times.ends) > before)
        return self.text(reply)

    def text(self, reply: Reply) -> str:
        return "".join(token.text for token in self.rig.got(Token) if token.reply is reply)

    def notes(self) -> list[str]:
        return [event.detail for event in self.rig.call.trace.events if event.kind == "note"]


def sse(*events: object, done: bool = True) -> list[bytes]:
    """Server-sent events, one a piece; a `str` stands for a delta with that text."""
    chunks = [{"choices": [{"delta": {"content": e}}]} if isinstance(e, str) else e for e in events]
    pieces = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return [*pieces, b"data: [DONE]\n\n"] if done else pieces


def finish(reason: str = "stop", **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


class Script(httpx2.AsyncBaseTransport):
    """A server in memory that sends each completion the next of `scripts`: pieces of the body, and between
    them seconds to wait. An exception is raised; an int is a status, without a body."""

    def __init__(self, *scripts: Iterable[bytes | float] | Exception | httpx2.Response) -> None:
        self.scripts = list(scripts)
        self.asked: list[dict[str, Any]] = []
        self.headers: list[httpx2.Headers] = []

    def __call__(self) -> Script:  # what Services(transport=...) wants: every lane is this one
        return self

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200, content=b"{}")
        self.asked.append(json.loads(await request.aread()))
        self.headers.append(request.headers)
        script = self.scripts.pop(0)
        if isinstance(script, Exception):
            raise script
        if isinstance(script, httpx2.Response):
            return script
        return httpx2.Response(200, stream=_Pieces(script))


class _Pieces(httpx2.AsyncByteStream):
    def __init__(self, pieces: Iterable[bytes | float]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                await asyncio.sleep(piece)


@asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[str]:
    """A real server on a loopback port; its base URL."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def real(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 10))
