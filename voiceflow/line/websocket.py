"""The link from a carrier: a WebSocket that it opened to us, on aiohttp."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import web

from voiceflow.errors import LinkError
from voiceflow.line.link import AT_ONCE, at_once

CLOSE_TIMEOUT = 2.0
"""Seconds a closing handshake may take."""

_OVER = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)


class WebSocketLink:
    """A `voiceflow.line.link.Link` over an open WebSocket.

    `transport` is the connection below it: it is cut when the other side does not even let us say goodbye,
    because a transport that is merely closed waits for ever for what it has still to send.
    """

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport | None = None) -> None:
        self._socket = socket
        self._transport = transport
        self.abrupt = False
        """The connection died without a closing handshake."""

    @property
    def is_open(self) -> bool:
        return not self._socket.closed

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

    def send_at_once(self, message: str | bytes) -> bool:
        if self._transport is None or self._socket.closed or len(message) > AT_ONCE:
            return False
        if self._transport.is_closing() or self._transport.get_write_buffer_size():
            return False
        if isinstance(message, str):
            return at_once(self._socket.send_str(message))
        return at_once(self._socket.send_bytes(message))

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
