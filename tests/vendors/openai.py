"""A fake server of chat completions, as OpenAI speaks them and vLLM, llama.cpp, Groq and Ollama nearly do.

    over a real socket    app.add_routes(fake.routes())     base_url="http://127.0.0.1:PORT/v1"
    in memory             httpx2.AsyncClient(transport=fake.transport())             virtual time

One conversation serves both. Token n (from 0) is due `ttft + n * gap` seconds after the request arrived: an
absolute deadline, so that a slow reader shifts nothing. The conversation goes on until it is finished or the
client's connection is gone, as a server's does: for a client that only stops reading, it goes on to the end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from tests.vendors.completion_events import Events, Script, error_body
from tests.vendors.completions import Answer, Completion, Fault, Reply, ToolCall, read_request, tokens
from tests.vendors.http_connection import SEND_TIMEOUT, Connection, SocketWire, Wire, send_json
from tests.vendors.memory_http import MemoryTransport
from tests.vendors.timing import sleep_until

__all__ = ["Answer", "Completion", "FakeOpenAI", "Fault", "MemoryTransport", "ToolCall", "tokens"]

MOST_KEPT = 1000
"""Requests and connections that are remembered; the oldest go first."""


class FakeOpenAI:
    """Answers chat completions with `reply`: texts used in turn, over and over, or `messages -> Answer`.

    ttft, gap        seconds to the first token, and from one to the next
    packet           tokens that travel together, when the first of them is due
    handshake        seconds a new connection needs before its first request arrives (TCP and TLS)
    key              when given, other keys get 401
    models_status    of GET /v1/models: 404 is what servers without that route say
    usual            how requests are answered for which `faults` has nothing, or None
    """

    def __init__(
        self,
        reply: Reply = ("Hello there, how can I help you today?",),
        *,
        ttft: float = 0.2,
        gap: float = 0.02,
        packet: int = 1,
        handshake: float = 0.0,
        key: str = "",
        models_status: int = 200,
        usual: Fault | None = None,
    ) -> None:
        self.reply = reply
        self.ttft = ttft
        self.gap = gap
        self.packet = packet
        self.handshake = handshake
        self.models_status = models_status
        self.usual = usual or Fault()
        self.faults: deque[Fault | None] = deque()
        """For the next completions, one each."""
        self.key = key
        self._requests: deque[Completion] = deque(maxlen=MOST_KEPT)
        self._connections: deque[Connection] = deque(maxlen=MOST_KEPT)
        self._answered = 0
        self._connected = 0
        self._sockets: dict[RequestHandler, tuple[float, Connection | None]] = {}
        self._watched: list[web.Server] = []
        self._works: dict[asyncio.Task[None], Connection] = {}
        self._news = asyncio.Event()

    @property
    def requests(self) -> list[Completion]:
        """The completions that were asked for, in order."""
        return list(self._requests)

    @property
    def connections(self) -> list[Connection]:
        """The connections that a request came on, of either kind, in order."""
        return list(self._connections)

    async def until(self, condition: Callable[[], object], timeout: float = 5.0) -> None:
        """Waits until `condition` holds of what is recorded. TimeoutError."""
        async with asyncio.timeout(timeout):
            while not condition():
                await self._news.wait()

    async def close(self) -> None:
        """Drops every connection on which somebody waits for an answer."""
        works = dict(self._works)
        for work, connection in works.items():
            connection.drop()
            work.cancel()
        if works:
            await asyncio.wait(works)

    # -- over a real socket

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/chat/completions", self._handle), web.get("/v1/models", self._handle)]

    def watch(self, server: web.Server) -> None:
        """Sees connections of `AppRunner.server` open and close. Unasked, the first request sees to it; that
        one connection then counts as opened when its request came."""
        if server in self._watched:
            return
        self._watched.append(server)
        made, lost = server.connection_made, server.connection_lost

        def connection_made(handler: RequestHandler, transport: asyncio.Transport) -> None:
            self._sockets[handler] = asyncio.get_running_loop().time(), None
            made(handler, transport)

        def connection_lost(handler: RequestHandler, exc: BaseException | None = None) -> None:
            _, connection = self._sockets.pop(handler, (0.0, None))
            if connection is not None:
                connection.lost()
                self.tell()
            lost(handler, exc)

        server.connection_made = connection_made  # type: ignore[method-assign]
        server.connection_lost = connection_lost  # type: ignore[method-assign]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        transport, server = request.transport, request.protocol._manager
        if transport is None or server is None:
            return web.Response()  # gone already
        self.watch(server)
        opened, connection = self._sockets.get(request.protocol, (asyncio.get_running_loop().time(), None))
        if connection is None:
            connection = self.connect(opened)
            connection.cut = transport.abort
            self._sockets[request.protocol] = opened, connection
        wire = SocketWire(request)
        async with asyncio.timeout(SEND_TIMEOUT):
            body = await request.read()
        work = self.work(request.method, request.path, request.headers, body, connection, wire)
        try:
            await asyncio.wait({work})
        finally:
            work.cancel()
            await asyncio.wait({work})
        if not work.cancelled():
            work.result()
        return wire.response

    # -- in memory

    def transport(self) -> MemoryTransport:
        """A client's end, with connections of its own. The client's timeouts mean nothing to it."""
        return MemoryTransport(self)

    # -- the conversation

    def connect(self, opened: float) -> Connection:
        """Takes note of another connection."""
        self._connected += 1
        connection = Connection(self._connected, opened)
        self._connections.append(connection)
        return connection

    def work(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        connection: Connection,
        wire: Wire,
    ) -> asyncio.Task[None]:
        """Starts the conversation about one request. The connection's loss ends it."""
        connection.requests.append(f"{method} {path}")
        talk = self._converse(path, headers, body, connection, wire)
        work = asyncio.get_running_loop().create_task(talk, name=f"FakeOpenAI {connection.number}")
        self._works[work] = connection
        work.add_done_callback(self._works.pop)
        connection.work = work
        return work

    async def _converse(
        self, path: str, headers: Mapping[str, str], body: bytes, connection: Connection, wire: Wire
    ) -> None:
        authorized = not self.key or headers.get("authorization") == f"Bearer {self.key}"
        try:
            await sleep_until(connection.opened + self.handshake)
            if path.endswith("/models"):
                await self._list_models(wire, self.models_status if authorized else 401)
            else:
                await self._complete(body, authorized, connection, wire)
        except (ConnectionError, TimeoutError) as error:  # it is gone, or does not read
            if connection.asked is not None:
                connection.asked.end("left" if isinstance(error, ConnectionError) else "dropped")
            connection.cut()
        except BaseException:
            if connection.asked is not None:
                connection.asked.end("dropped")
            raise
        finally:
            connection.work = connection.asked = None
            self.tell()

    async def _list_models(self, wire: Wire, status: int) -> None:
        model = {"id": "gpt-4o-mini", "object": "model", "created": 1, "owned_by": "fake"}
        models = {"object": "list", "data": [model]}
        await send_json(wire, status, models if status == 200 else error_body(status))

    async def _complete(self, body: bytes, authorized: bool, connection: Connection, wire: Wire) -> None:
        asked = read_request(body, authorized, connection)
        if asked is None:
            return await send_json(wire, 400, error_body(400))
        connection.asked = asked
        self._requests.append(asked)
        self.tell()
        fault = (self.faults.popleft() if self.faults else None) or self.usual
        asked.status = fault.status if authorized else 401
        if asked.status == 200:
            return await self._stream(asked, fault, wire)
        await sleep_until(asked.arrived + (fault.ttft or 0.0))
        retry = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
        await send_json(wire, asked.status, error_body(asked.status), retry)
        return asked.end("finished")

    async def _stream(self, asked: Completion, fault: Fault, wire: Wire) -> None:
        self._answered += 1
        if callable(self.reply):
            answer = self.reply(asked.messages)
        else:
            answer = self.reply[(self._answered - 1) % len(self.reply)]
        script = Script(f"chatcmpl-{self._answered}", asked, answer, fault)
        stop = min(fault.after, len(script.body)) if fault.then else len(script.body)
        ttft = self.ttft if fault.ttft is None else fault.ttft
        gap = self.gap if fault.gap is None else fault.gap
        sse = Events(wire, fault)

        for first in range(0, stop, self.packet):
            await sse.wait(asked.arrived + ttft + first * gap)
            together = script.body[first : min(first + self.packet, stop)]
            await sse.send([*(script.head if not first else ()), *(chunk for _, chunk in together)])
            now = asyncio.get_running_loop().time()
            asked.sent += [(now, token) for token, _ in together]
            self.tell()
        if fault.then == "stall":
            await sse.wait(None)
        elif fault.then or not stop:
            await sse.wait(asked.arrived + ttft + stop * gap)
        if fault.then == "drop":
            return asked.connection.drop()
        await sse.send([error_body(500)] if fault.then else [*(() if stop else script.head), *script.tail])
        await sse.end(done=fault.done and not fault.then)
        return asked.end("finished")

    def tell(self) -> None:
        """Wakes whoever waits in `until`."""
        news, self._news = self._news, asyncio.Event()
        news.set()
