"""Links that we open to a vendor, on the `websockets` library."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as dial
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import State

from voiceflow.errors import LinkError, LinkRefused
from voiceflow.line.link import AT_ONCE, at_once
from voiceflow.line.proxies import proxy_for

MAX_MESSAGE = 16 * 2**20
"""Bytes of one message from a vendor. Text-to-speech sends more than the usual limit of 1 MiB."""
CLOSE_TIMEOUT = 2.0
"""Seconds a closing handshake may take."""
PING_SECONDS = 20.0
"""How often a ping is sent, and how long its answer may take: a half-open connection is noticed in 40 s."""


class DialledLink:
    """A `voiceflow.line.link.Link` over a WebSocket that we opened."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    @property
    def is_open(self) -> bool:
        return self._socket.state is State.OPEN

    @property
    def close_code(self) -> int | None:
        """The code the other side closed with; 1006 when it did not say goodbye; None while open."""
        return self._socket.close_code

    @property
    def close_reason(self) -> str:
        return self._socket.close_reason or ""

    async def send(self, message: str | bytes) -> None:
        try:
            await self._socket.send(message)
        except ConnectionClosed as error:
            raise LinkError(f"the connection is closed ({_why(error)})") from None

    def send_at_once(self, message: str | bytes) -> bool:
        transport = self._socket.transport
        if not self.is_open or len(message) > AT_ONCE or transport.get_write_buffer_size():
            return False
        return at_once(self._socket.send(message))

    async def receive(self) -> str | bytes | None:
        try:
            return await self._socket.recv()
        except ConnectionClosed as error:
            if error.sent is not None and error.sent.code in (1002, 1007, 1009):
                reason = "a message was larger than allowed" if error.sent.code == 1009 else "it broke"
                raise LinkError(f"{reason} ({_why(error)})") from None
            return None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT + 1.0):
                await self._socket.close(code, reason[:120])
        except (TimeoutError, WebSocketException, OSError):
            self._socket.transport.abort()


async def connect(url: str, *, headers: Mapping[str, str], timeout: float) -> DialledLink:
    """Opens a WebSocket within `timeout` seconds.

    A proxy of the environment is used, but not for an address on this machine. Raises LinkRefused when the
    host answers with an HTTP error, LinkError naming the host for everything else.
    """
    host = urlsplit(url).netloc.rpartition("@")[2]
    try:
        async with asyncio.timeout(timeout):
            socket = await dial(
                url,
                additional_headers=dict(headers),
                compression=None,
                max_size=MAX_MESSAGE,
                proxy=proxy_for(url),
                open_timeout=None,
                close_timeout=CLOSE_TIMEOUT,
                ping_interval=PING_SECONDS,
                ping_timeout=PING_SECONDS,
            )
    except TimeoutError as error:
        raise LinkError(f"{host} did not answer within {timeout:g} s") from error
    except InvalidStatus as error:
        response = error.response
        body = (response.body or b"")[:2000].decode(errors="replace")
        raise LinkRefused(host, response.status_code, body, dict(response.headers.raw_items())) from None
    except (WebSocketException, OSError, EOFError, ValueError) as error:
        raise LinkError(f"{host} cannot be reached ({type(error).__name__})") from None
    return DialledLink(socket)


def _why(error: ConnectionClosed) -> str:
    """Why a connection ended: the code, and what the other side said."""
    if error.rcvd is None:
        return "it was cut"
    return f"{error.rcvd.code} {error.rcvd.reason}".strip()
