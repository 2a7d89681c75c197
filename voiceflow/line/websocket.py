"""Links over WebSocket: to a vendor (we connect) and from a carrier (it connects to us), on aiohttp."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from voiceflow.errors import LinkError

MAX_MESSAGE = 16 * 2**20
"""Bytes of one message from a vendor. Text-to-speech sends more than the usual limit of 1 MiB."""
CLOSE_TIMEOUT = 2.0
"""Seconds a closing handshake may take."""

Socket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse
_OVER = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)


class WebSocketLink:
    """A `voiceflow.line.link.Link` over an open WebSocket of either side.

    `transport` is the connection below it: it is cut when the other side does not even let us say goodbye,
    because a transport that is merely closed waits for ever for what it has still to send.
    """

    def __init__(self, socket: Socket, transport: asyncio.Transport | None = None) -> None:
        self._socket = socket
        self._transport = transport
        self.abrupt = False
        """The connection died without a closing handshake."""

    async def send(self, message: str | bytes) -> None:
        try:
            if isinstance(message, str):
                await self._socket.send_str(message)
            else:
                await self._socket.send_bytes(message)
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise LinkError(f"the connection is closed ({type(error).__name__})") from error
        except asyncio.CancelledError:
            if not _stray():
                raise
            raise LinkError("the connection is stuck") from None

    async def receive(self) -> str | bytes | None:
        try:
            message = await self._socket.receive()
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise LinkError(f"the connection broke ({type(error).__name__})") from error
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            data: str | bytes = message.data
            return data
        if message.type in _OVER:
            self.abrupt = self._socket.close_code in (None, 1006)
            return None
        raise LinkError(_reason(message.data if message.data is not None else self._socket.exception()))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._socket.close(code=code, message=reason.encode()[:123])
        except (TimeoutError, ConnectionError, RuntimeError, aiohttp.ClientError):
            pass  # it is gone either way
        except asyncio.CancelledError:
            if not _stray():
                raise
        if self._transport is not None and self._socket.close_code in (None, 1006):
            self._transport.abort()


def _stray() -> bool:
    """Whether a CancelledError was not meant for this task. All senders of a socket wait on one future of
    aiohttp's: when one of them gives up, the next one gets its cancellation too."""
    task = asyncio.current_task()
    return task is not None and not task.cancelling()


def _reason(error: object) -> str:
    if isinstance(error, aiohttp.WebSocketError):
        if error.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
            return "a message was larger than allowed"
        return f"the other side broke the WebSocket protocol ({error.code})"
    return f"the connection broke ({type(error).__name__})"


def session() -> aiohttp.ClientSession:
    """An HTTP client that keeps its connections warm and reads no proxy from the environment."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=300.0))


async def connect(
    http: aiohttp.ClientSession, url: str, *, headers: Mapping[str, str], timeout: float
) -> WebSocketLink:
    """Opens a WebSocket within `timeout` seconds. Raises LinkError naming the host and what went wrong."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    try:
        async with asyncio.timeout(timeout):
            socket = await http.ws_connect(
                url, headers=dict(headers), max_msg_size=MAX_MESSAGE, compress=0, heartbeat=20.0
            )
    except TimeoutError as error:
        raise LinkError(f"{host} did not answer within {timeout:g} s") from error
    except aiohttp.WSServerHandshakeError as error:
        raise LinkError(f"{host} refused the connection: HTTP {error.status}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise LinkError(f"{host} cannot be reached ({type(error).__name__})") from error
    return WebSocketLink(socket)
