"""A fake server of chat completions, as OpenAI speaks them and vLLM, llama.cpp, Groq and Ollama nearly do.

    over a real socket    app.add_routes(fake.routes())     base_url="http://127.0.0.1:PORT/v1"
    in memory             httpx2.AsyncClient(transport=fake.transport())             virtual time

One conversation serves both. Token n (from 0) is due `ttft + n * gap` seconds after the request arrived: an
absolute deadline, so that a slow reader shifts nothing. The conversation goes on until it is finished or the
client's connection is gone, as a server's does: for a client that only stops reading, it goes on to the end.
Shapes: platform.openai.com/docs/api-reference/chat-streaming, and what openai 3.54 was seen to parse.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import httpx2
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

MOST_KEPT = 1000
"""Requests and connections that are remembered; the oldest go first."""
MOST_UNREAD = 10_000
"""Packets in memory that the client has not read yet; then the server waits, as it does for a full socket."""
SEND_TIMEOUT = 10.0
"""Seconds a client may take to read what was sent."""
COMMENT_EVERY = 1.0
"""Seconds between comments while nothing else is sent."""

_TOKEN = re.compile(
    r"'(?:[sdmt]|ll|ve|re)\b| ?[^\W\d_]{1,9}|\d{1,3}| ?(?:[^\s\w]|_)+\n*|\s*\n|\s+(?=\s)|\s", re.IGNORECASE
)


def tokens(text: str) -> list[str]:
    """`text` in pieces like those of a real tokenizer: "Hello", " there", ",", "3", ".", "50".

    After OpenAI's cl100k pattern, with words over nine letters cut, as rare ones are. The pieces joined are
    the text again."""
    return _TOKEN.findall(text)


@dataclass(slots=True, frozen=True)
class ToolCall:
    """A call of a function that the model wants. `arguments` is JSON, sent in fragments."""

    name: str
    arguments: str = "{}"
    id: str = ""


Answer = str | Sequence[str | ToolCall]
"""A text, or its pieces and tool calls: a token each, and one for each fragment of a call's arguments."""
Reply = Sequence[str] | Callable[[list[dict[str, Any]]], Answer]


@dataclass(slots=True, frozen=True, kw_only=True)
class Fault:
    """How one request is answered otherwise than well. The fields combine.

    status        an HTTP error, with OpenAI's body, instead of a stream; `retry_after` seconds in its header
    ttft, gap     other times than the server's, in seconds
    then, after   `after` so many tokens, or all when there are fewer, it falls silent, sends an error object
                  and ends, or drops the connection. Until the first token not even a header is sent
    early         the HTTP header comes at once, not with the first token
    finish        a finish_reason: "length", "content_filter"
    done          False: the stream ends without [DONE]
    index         False: tool calls come without `index`, as some Ollama versions send them
    blank         "null": deltas without text have `"content": null`; "absent": the first one has none either
    no_choices    a first chunk with empty choices, as Azure sends for its content filter
    extras        fields that no client knows
    crlf          lines end in CR LF
    comments      SSE comments between the chunks, and each second while nothing else is sent; implies `early`
    """

    status: int = 200
    retry_after: float | None = None
    ttft: float | None = None
    gap: float | None = None
    then: Literal["", "stall", "error", "drop"] = ""
    after: int = 0
    early: bool = False
    finish: str = ""
    done: bool = True
    index: bool = True
    blank: Literal["", "null", "absent"] = ""
    no_choices: bool = False
    extras: bool = False
    crlf: bool = False
    comments: bool = False


class Connection:
    """One TCP connection, or in memory what would have been one. Times are `loop.time()`."""

    def __init__(self, number: int, opened: float) -> None:
        self.number = number
        """From 1, in the order of their first requests."""
        self.opened = opened
        self.closed: float | None = None
        self.requests: deque[str] = deque(maxlen=MOST_KEPT)
        """What was asked on it, such as "GET /v1/models"."""
        self.work: asyncio.Task[None] | None = None
        """The conversation that is on."""
        self.asked: Completion | None = None
        self.cut: Callable[[], None] = lambda: None

    def drop(self) -> None:
        """The server closes it, idle or in the middle of an answer."""
        if self.asked is not None:
            self.asked.end("dropped")
        self.cut()

    def lost(self) -> None:
        """It is gone: whoever generates for it stops."""
        if self.asked is not None:
            self.asked.end("left")
        if self.closed is None:
            self.closed = asyncio.get_running_loop().time()
        if self.work is not None:
            self.work.cancel()

    def __repr__(self) -> str:
        state = "open" if self.closed is None else "closed"
        return f"<Connection {self.number}, {state}: {', '.join(self.requests)}>"


@dataclass(slots=True, eq=False)
class Completion:
    """One completion that was asked for. Times are `loop.time()`."""

    arrived: float
    """When the server had the request, the connection's `handshake` included."""
    connection: Connection
    messages: list[dict[str, Any]]
    parameters: dict[str, Any]
    """The rest of the body."""
    authorized: bool = True
    status: int = 0
    sent: list[tuple[float, str]] = field(default_factory=list)
    """The tokens and when they were handed to the connection."""
    how: Literal["", "finished", "left", "dropped"] = ""
    """How it ended: all was sent, the client left before that, or the server dropped the connection."""
    ended: float | None = None
    """When it did; for "left", when the server noticed."""

    @property
    def text(self) -> str:
        return "".join(token for _, token in self.sent)

    def end(self, how: Literal["finished", "left", "dropped"]) -> None:
        if not self.how:
            self.how, self.ended = how, asyncio.get_running_loop().time()


class Wire(Protocol):
    """What carries one response."""

    async def start(self, status: int, headers: Mapping[str, str]) -> None: ...
    async def write(self, data: bytes) -> None: ...
    async def end(self) -> None: ...


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
        self._key = key
        self._requests: deque[Completion] = deque(maxlen=MOST_KEPT)
        self._connections: deque[Connection] = deque(maxlen=MOST_KEPT)
        self._answered = 0
        self._connected = 0
        self._sockets: dict[RequestHandler, tuple[float, Connection | None]] = {}
        self._watched: list[web.Server] = []
        self._news = asyncio.Event()

    @property
    def key(self) -> str:
        return self._key

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
                self._tell()
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
            connection = self._connect(opened)
            connection.cut = transport.abort
            self._sockets[request.protocol] = opened, connection
        wire = SocketWire(request)
        async with asyncio.timeout(SEND_TIMEOUT):
            body = await request.read()
        work = self._work(request.method, request.path, request.headers, body, connection, wire)
        try:
            await asyncio.wait({work})
        finally:
            work.cancel()
        if not work.cancelled():
            work.result()
        return wire.response

    # -- in memory

    def transport(self) -> MemoryTransport:
        """A client's end, with connections of its own. The client's timeouts mean nothing to it."""
        return MemoryTransport(self)

    # -- the conversation

    def _connect(self, opened: float) -> Connection:
        self._connected += 1
        connection = Connection(self._connected, opened)
        self._connections.append(connection)
        return connection

    def _work(
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
        connection.work = asyncio.get_running_loop().create_task(talk, name=f"FakeOpenAI {connection.number}")
        return connection.work

    async def _converse(
        self, path: str, headers: Mapping[str, str], body: bytes, connection: Connection, wire: Wire
    ) -> None:
        authorized = not self._key or headers.get("authorization") == f"Bearer {self._key}"
        try:
            await _until(connection.opened + self.handshake)
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
            self._tell()

    async def _list_models(self, wire: Wire, status: int) -> None:
        model = {"id": "gpt-4o-mini", "object": "model", "created": 1, "owned_by": "fake"}
        models = {"object": "list", "data": [model]}
        await _send_json(wire, status, models if status == 200 else _error(status))

    async def _complete(self, body: bytes, authorized: bool, connection: Connection, wire: Wire) -> None:
        asked = _read(body, authorized, connection)
        if asked is None:
            return await _send_json(wire, 400, _error(400))
        connection.asked = asked
        self._requests.append(asked)
        self._tell()
        fault = (self.faults.popleft() if self.faults else None) or self.usual
        asked.status = fault.status if authorized else 401
        if asked.status == 200:
            return await self._stream(asked, fault, wire)
        await _until(asked.arrived + (fault.ttft or 0.0))
        retry = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
        await _send_json(wire, asked.status, _error(asked.status), retry)
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
            self._tell()
        if fault.then == "stall":
            await sse.wait(None)
        elif fault.then or not stop:
            await sse.wait(asked.arrived + ttft + stop * gap)
        if fault.then == "drop":
            return asked.connection.drop()
        await sse.send([_error(500)] if fault.then else [*(() if stop else script.head), *script.tail])
        await sse.end(done=fault.done and not fault.then)
        return asked.end("finished")

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Script:
    """The chunks of one answer: `head` before the first token, `body` with a token each, `tail`."""

    def __init__(self, number: str, asked: Completion, answer: Answer, fault: Fault) -> None:
        self._known = {"id": number, "object": "chat.completion.chunk", "created": 1}
        self._known["model"] = asked.parameters.get("model", "")
        self._fault = fault
        self._usage = bool((asked.parameters.get("stream_options") or {}).get("include_usage"))
        pieces = tokens(answer) if isinstance(answer, str) else answer
        deltas: list[tuple[str, dict[str, Any]]] = []
        calls = 0
        for piece in pieces:
            if isinstance(piece, ToolCall):
                deltas += self._fragments(calls, piece, f"call_{number}_{calls}")
                calls += 1
            else:
                deltas.append((piece, {"content": piece}))
        most = asked.parameters.get("max_completion_tokens", asked.parameters.get("max_tokens"))
        finish = "length" if most and most < len(deltas) else "tool_calls" if calls else "stop"

        role: dict[str, Any] = {"role": "assistant"}
        if fault.blank != "absent":
            role["content"] = None if fault.blank else ""
        self.head = [self._chunk(role)]
        if fault.no_choices:
            empty = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
            self.head.insert(0, {**empty, "prompt_filter_results": [{"prompt_index": 0}]})
        self.body = [(token, self._chunk(delta)) for token, delta in deltas[:most]]
        self.tail = [self._chunk(self._blank(), fault.finish or finish)]
        if self._usage:
            prompt = sum(len(tokens(str(message.get("content") or ""))) for message in asked.messages)
            counts = {"prompt_tokens": prompt, "completion_tokens": len(self.body)}
            usage = {**counts, "total_tokens": sum(counts.values())}
            self.tail.append({**self._known, "choices": [], "usage": usage})

    def _fragments(self, place: int, call: ToolCall, number: str) -> list[tuple[str, dict[str, Any]]]:
        index = {"index": place} if self._fault.index else {}
        opening = {"id": call.id or number, "type": "function"}
        pieces = [(call.name, {**index, **opening, "function": {"name": call.name, "arguments": ""}})]
        pieces += [(part, {**index, "function": {"arguments": part}}) for part in tokens(call.arguments)]
        return [(token, {**self._blank(), "tool_calls": [piece]}) for token, piece in pieces]

    def _blank(self) -> dict[str, Any]:
        return {"content": None} if self._fault.blank == "null" else {}

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {**self._known, "choices": [choice], **({"usage": None} if self._usage else {})}
        if self._fault.extras:
            choice["delta"] = {**delta, "reasoning_content": None, "refusal": None}
            chunk |= {"service_tier": "default", "obfuscation": "bY3x", "x_vendor": {"queue_time": 0.01}}
        return chunk


class Events:
    """Server-sent events on a wire, in the manner that the fault asks for."""

    def __init__(self, wire: Wire, fault: Fault) -> None:
        self._wire = wire
        self._comments = fault.comments
        self._early = fault.early or fault.comments
        self._end = "\r\n" if fault.crlf else "\n"
        self._started = False

    async def wait(self, until: float | None) -> None:
        """Until that time, or for ever."""
        loop = asyncio.get_running_loop()
        if self._early:
            await self._write("")
        while self._comments and (until is None or loop.time() + COMMENT_EVERY < until):
            await self._write(f": processing{self._end * 2}")
            await _until(loop.time() + COMMENT_EVERY)
        await _until(until)

    async def send(self, events: Sequence[dict[str, Any]]) -> None:
        """In one packet."""
        between = f": processing{self._end * 2}" if self._comments else ""
        await self._write("".join(f"{between}data: {json.dumps(event)}{self._end * 2}" for event in events))

    async def end(self, *, done: bool) -> None:
        if done:
            await self._write(f"data: [DONE]{self._end * 2}")
        async with asyncio.timeout(SEND_TIMEOUT):
            await self._wire.end()

    async def _write(self, text: str) -> None:
        async with asyncio.timeout(SEND_TIMEOUT):
            if not self._started:
                self._started = True
                await self._wire.start(200, {"content-type": "text/event-stream; charset=utf-8"})
            if text:
                await self._wire.write(text.encode())


class SocketWire:
    """A response of aiohttp's server."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response: web.StreamResponse = web.Response()

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.response = web.StreamResponse(status=status, headers=headers)
        await self.response.prepare(self._request)

    async def write(self, data: bytes) -> None:
        await self.response.write(data)

    async def end(self) -> None:
        await self.response.write_eof()


class MemoryTransport(httpx2.AsyncBaseTransport):
    """A pool of connections that never were: a request takes an idle one, or opens another. One whose
    response was not read to its end is closed, as HTTP/1.1 has to."""

    def __init__(self, fake: FakeOpenAI) -> None:
        self._fake = fake
        self._idle: list[Connection] = []
        self._busy: list[Connection] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        fake = self._fake
        connection = self._idle.pop() if self._idle else fake._connect(asyncio.get_running_loop().time())
        self._busy.append(connection)
        wire = MemoryWire(self, connection)
        connection.cut = wire.drop
        work = fake._work(request.method, request.url.path, request.headers, body, connection, wire)
        work.add_done_callback(wire.over)
        try:
            status, headers = await wire.head
        except BaseException:
            self.close(connection)
            raise
        return httpx2.Response(status, headers=dict(headers), stream=wire)

    async def aclose(self) -> None:
        for connection in [*self._busy, *self._idle]:
            self.close(connection)

    def close(self, connection: Connection) -> None:
        for each in (self._busy, self._idle):
            if connection in each:
                each.remove(connection)
                connection.lost()
                self._fake._tell()

    def keep(self, connection: Connection) -> None:
        if connection in self._busy:
            self._busy.remove(connection)
            self._idle.append(connection)


class MemoryWire(httpx2.AsyncByteStream):
    """One response on its way, and the stream that the client reads it from."""

    def __init__(self, transport: MemoryTransport, connection: Connection) -> None:
        self.head: asyncio.Future[tuple[int, Mapping[str, str]]] = asyncio.get_running_loop().create_future()
        self._transport = transport
        self._connection = connection
        self._packets: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_UNREAD)
        self._broken: BaseException | None = None
        self._read = False

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.head.set_result((status, headers))

    async def write(self, data: bytes) -> None:
        await self._packets.put(data)

    async def end(self) -> None:
        await self._packets.put(None)

    def drop(self) -> None:
        self._break(httpx2.RemoteProtocolError("the server closed the connection"))
        self._transport.close(self._connection)

    def over(self, work: asyncio.Task[None]) -> None:
        """A reply function that raises is a fault of the test: it is what the client gets to see."""
        if not work.cancelled() and (error := work.exception()) is not None:
            self._break(error)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (packet := await self._packets.get()) is not None:
            yield packet
        if self._broken is not None:
            raise self._broken
        self._read = True

    async def aclose(self) -> None:
        (self._transport.keep if self._read else self._transport.close)(self._connection)

    def _break(self, error: BaseException) -> None:
        if not self.head.done():
            self.head.set_exception(error)
            return
        self._broken = error
        if self._packets.full():
            self._packets.get_nowait()  # a reset loses what is on its way, too
        self._packets.put_nowait(None)


_ERRORS: dict[int, tuple[str, str, str | None]] = {
    400: ("This request cannot be understood, or does not stream.", "invalid_request_error", None),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    404: ("The model does not exist, or not for you.", "invalid_request_error", "model_not_found"),
    429: ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request. Sorry about that!", "server_error", None),
    503: ("The engine is currently overloaded, please try again later.", "server_error", None),
}


def _error(status: int) -> dict[str, Any]:
    message, kind, code = _ERRORS.get(status, (f"HTTP {status}", "server_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


async def _send_json(wire: Wire, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
    async with asyncio.timeout(SEND_TIMEOUT):
        await wire.start(status, {"content-type": "application/json", **(headers or {})})
        await wire.write(json.dumps(body).encode())
        await wire.end()


def _read(body: bytes, authorized: bool, connection: Connection) -> Completion | None:
    """The request, or None when it is none that can be answered: this server only streams."""
    try:
        parameters = json.loads(body)
        messages = parameters.pop("messages")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    if not isinstance(messages, list) or not messages or parameters.get("stream") is not True:
        return None
    return Completion(asyncio.get_running_loop().time(), connection, messages, parameters, authorized)


async def _until(when: float | None) -> None:
    """Sleeps to an absolute time of the loop, to the last bit; None: for ever."""
    loop = asyncio.get_running_loop()
    if when is not None and when <= loop.time():
        return
    due = asyncio.Event()
    timer = loop.call_at(when, due.set) if when is not None else None
    try:
        await due.wait()
    finally:
        if timer is not None:
            timer.cancel()
