"""Warm HTTP connections for an SDK that is built on httpx2: a request never waits for TCP and TLS.

    transport = WarmTransport("api.openai.com", "https://api.openai.com/v1/models", headers=...)
    client = AsyncOpenAI(http_client=httpx2.AsyncClient(transport=transport), ...)

A *lane* is one HTTP/1.1 connection. Each request has one to itself: an idle one, or else one that it dials
by itself. What was read to its end leaves the lane idle again; what was broken off costs it, as HTTP/1.1
has no other way to tell the server to stop, and the pool dials another in the background. An idle lane has
been used for a cheap GET, so that the connection, and what proxies keep behind it, are there.

httpx2's own pool would do most of this, but it forgets a connection after 5 seconds unless told otherwise,
cannot be told to keep a spare one, and does not say what a request has waited for. Nothing here obeys the
timeouts of a request: bound the await.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Self

import httpx2

from voiceflow.errors import LinkError
from voiceflow.line.proxies import proxy_for
from voiceflow.pool import WarmPool

WARM_TIMEOUT = 5.0
"""Seconds that dialling a lane and its first GET may take together."""
MAX_IDLE = 240.0
"""Seconds after which an idle lane is replaced. A server that is less patient closes it; that is noticed."""
KEEPALIVE = 300.0
"""The same for the connection underneath, which must not be the first to give up."""
MOST_BODY = 2**20
"""Bytes of the GET's answer that are read; a list of models is about 20 KiB."""
QUOTED = 500
"""Bytes of it that are kept."""
TAKEN = "voiceflow.taken"
"""The extension of a response that says what its lane saved: a `Taken`, or None when it was dialled anew."""

_PROBES = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
)
"""The kernel asks an idle connection for life after 30 s and gives it up after 60: a router that has
forgotten it is found out before a caller is."""
_CONNECTED = ("connection.connect_tcp.complete", "connection.start_tls.complete")

Make = Callable[[], httpx2.AsyncBaseTransport]


class Lane:
    """One connection: a transport that never opens a second one while the first is alive."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self.handshake = 0.0
        """Seconds until it was connected."""
        self._transport = transport
        self._body: httpx2.AsyncByteStream | None = None
        self._network: Any = None
        """The connection as httpx2 shows it to the outside; None in memory, and before there is one."""

    async def send(self, request: httpx2.Request) -> httpx2.Response:
        """The response, its body not read yet. Raises httpx2.HTTPError."""
        response = await self._transport.handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        self._body = response.stream
        self._network = response.extensions.get("network_stream")
        return response

    async def greet(self, url: str, headers: Mapping[str, str]) -> tuple[int, str]:
        """Connects, and GETs `url` whatever its status. Raises httpx2.HTTPError, LinkError."""
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def noted(event: str, info: Mapping[str, Any]) -> None:
            if event in _CONNECTED:
                self.handshake = loop.time() - began

        request = httpx2.Request("GET", url, headers=headers, extensions={"trace": noted})
        response = await self.send(request)
        body = b""
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        async for part in response.stream:
            body += part
            if len(body) > MOST_BODY:
                raise LinkError(f"the answer to GET {request.url.path} has no end: is the base URL right?")
        self.handshake = self.handshake or loop.time() - began
        await response.aclose()
        if not self.usable:
            self._network = None  # the server keeps none open: a lane that has to dial is all there can be
        return response.status_code, body[:QUOTED].decode(errors="replace")

    @property
    def usable(self) -> bool:
        """Whether an idle lane is alive. An idle connection has nothing to read, unless it was closed."""
        return self._network is None or not self._network.get_extra_info("is_readable")

    async def close(self) -> None:
        """Ends the connection, in the middle of a response too."""
        try:
            if self._body is not None:
                await self._body.aclose()
        finally:
            await self._transport.aclose()


class WarmTransport(httpx2.AsyncBaseTransport):
    """Sends requests over lanes that were dialled ahead. `pool.expect(1)` when one will be needed soon.

    name      names it in logs and errors
    url       what a new lane GETs, with `headers`; any status will do. Only ever send requests to its host
    make      makes the transport of one lane, for tests in memory; real connections when not given
    """

    def __init__(
        self, name: str, url: str, *, headers: Mapping[str, str] | None = None, make: Make | None = None
    ) -> None:
        self.name = name
        self.greeting: tuple[int, str] | None = None
        """How the latest GET was answered: its status and the beginning of the body."""
        self._url, self._headers = url, dict(headers or {})
        self._make = make or dialler(url)
        self.pool: WarmPool[Lane] = WarmPool(
            name,
            self._open,
            Lane.close,
            usable=lambda lane: lane.usable,
            handshake=lambda lane: lane.handshake,
            max_idle=MAX_IDLE,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        taken = self.pool.take_idle()
        # A lane of its own rather than the next of the pool: that one would do its GET first.
        lane = taken.connection if taken is not None else Lane(self._make())
        try:
            response = await lane.send(request)
        except BaseException:
            self.pool.drop(lane)
            raise
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Body(lane, response, self.pool),
            extensions={**response.extensions, TAKEN: taken},
        )

    async def aclose(self) -> None:
        await self.pool.close()

    async def _open(self) -> Lane:
        lane = Lane(self._make())
        try:
            async with asyncio.timeout(WARM_TIMEOUT):
                self.greeting = await lane.greet(self._url, self._headers)
        except BaseException as error:
            await lane.close()
            if isinstance(error, TimeoutError):
                raise LinkError(f"{self.name} did not answer within {WARM_TIMEOUT:g} s") from None
            if isinstance(error, httpx2.HTTPError | OSError):
                raise LinkError(f"{self.name} cannot be reached ({type(error).__name__})") from None
            raise
        return lane


class _Body(httpx2.AsyncByteStream):
    """The body of a response. Read to its end it gives the lane back; closed before that it costs it."""

    def __init__(self, lane: Lane, response: httpx2.Response, pool: WarmPool[Lane]) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        self._lane: Lane | None = lane
        self._body = response.stream
        self._parts = aiter(self._body)
        self._pool = pool
        self._over = self._broken = False

    def __aiter__(self) -> Self:  # whoever begins again goes on where the first has stopped
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._parts)
        except StopAsyncIteration:
            self._over = not self._broken
            raise
        except BaseException:
            self._broken = True
            raise

    async def aclose(self) -> None:
        """Never waits for the network: whoever breaks off has no time."""
        lane, self._lane = self._lane, None
        if lane is None:
            return
        if not self._over:
            self._pool.drop(lane)
            return
        await self._body.aclose()
        self._pool.give(lane)


def dialler(url: str) -> Make:
    """Makes transports of one connection each to the host of `url`, by the environment's proxy if there is
    one (never for this machine)."""
    proxy = proxy_for(url)

    def make() -> httpx2.AsyncBaseTransport:
        return httpx2.AsyncHTTPTransport(
            verify=_ssl_context(),
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE),
            proxy=proxy,
            socket_options=_socket_options(),
        )

    return make


@lru_cache(maxsize=1)
def _ssl_context() -> ssl.SSLContext:
    """One for all: loading the certificates takes 20-60 ms."""
    return httpx2.create_ssl_context()


def _socket_options() -> list[tuple[int, int, int]]:
    """Those of the probes that this system knows."""
    return [(level, getattr(socket, name), value) for level, name, value in _PROBES if hasattr(socket, name)]
