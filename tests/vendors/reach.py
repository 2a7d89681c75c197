"""A fake vendor as a test reaches it: over a loopback socket with `websockets`, or in memory in virtual time.

@both_ways
def test_it_answers(wire):
    async def main():
        async with wire.serving(fake) as dial:
            client = await dial("/v1/speak", {"Authorization": "Token key"})
            await client.send({"type": "Flush"})
            assert await client.receive() == {...}

    wire.run(main())
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.vendors.server import Serving
from tests.vendors.wire import MAX_MESSAGE, SocketVendor
from voiceflow.errors import LinkError, LinkRefused
from voiceflow.testing import run
from voiceflow.testing.links import MemoryLink

LIMIT = 10.0
"""Real seconds for a test over sockets."""
SETTLE_TURNS = 20
"""Of the loop, in which cancelled tasks end: aiohttp's and the SDK's, which nobody can wait for."""

T = TypeVar("T")
Said = dict[str, Any] | str | bytes
Dial = Callable[..., Awaitable["Client"]]


def within(main: Coroutine[Any, Any, T], seconds: float = LIMIT) -> T:
    """Runs `main` in real time, and sees that it leaves no task behind. TimeoutError."""

    async def bounded() -> T:
        async with asyncio.timeout(seconds):
            result = await main
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks that are left: {left}"
        return result

    return asyncio.run(bounded())


class Client:
    """One connection. `send` takes JSON as a dict, `receive` gives it as one; None is the end."""

    code: int | None = None
    """The close code, once `receive` has given None: 1006 for a connection that died."""
    reason = ""

    async def send(self, message: Said) -> None:
        await self._send(json.dumps(message) if isinstance(message, dict) else message)

    async def receive(self) -> Said | None:
        message = await self._receive()
        if not isinstance(message, str):
            return message
        try:
            body: dict[str, Any] = json.loads(message)
            return body
        except ValueError:
            return message

    async def take(self, count: int) -> list[Any]:
        """The next `count` messages. AssertionError when the connection ends before."""
        taken: list[Any] = []
        for _ in range(count):
            message = await self.receive()
            assert message is not None, f"closed with {self.code} {self.reason} after {taken}"
            taken.append(message)
        return taken

    async def rest(self) -> list[Any]:
        """Everything until the other side ends the connection."""
        taken: list[Any] = []
        while (message := await self.receive()) is not None:
            taken.append(message)
        return taken

    async def close(self) -> None:
        raise NotImplementedError

    async def _send(self, message: str | bytes) -> None:
        raise NotImplementedError

    async def _receive(self) -> str | bytes | None:
        raise NotImplementedError


class Wire(Protocol):
    def run(self, main: Coroutine[Any, Any, None]) -> None: ...

    def serving(self, vendor: SocketVendor) -> Any:
        """`async with` gives `dial(path, headers=None)`, which raises LinkRefused. At the end everything is
        closed, and the fake has made no mistake of its own."""
        ...


class InMemory:
    def run(self, main: Coroutine[Any, Any, None]) -> None:
        run(main)

    @asynccontextmanager
    async def serving(self, vendor: SocketVendor) -> AsyncIterator[Dial]:
        async def dial(path: str, headers: Mapping[str, str] | None = None) -> Client:
            link = await vendor.dial(f"wss://vendor.example{path}", headers=headers or {}, timeout=5.0)
            assert isinstance(link, MemoryLink)
            return _MemoryClient(link)

        try:
            yield dial
        finally:
            await vendor.close()


class OverSockets:
    def run(self, main: Coroutine[Any, Any, None]) -> None:
        within(main)

    @asynccontextmanager
    async def serving(self, vendor: SocketVendor) -> AsyncIterator[Dial]:
        clients: list[Client] = []
        async with Serving(vendor) as serving:

            async def dial(path: str, headers: Mapping[str, str] | None = None) -> Client:
                clients.append(await _websocket(serving.url.replace("http", "ws") + path, headers or {}))
                return clients[-1]

            try:
                yield dial
            finally:
                for client in clients:
                    await client.close()
        assert vendor.live == 0


class _MemoryClient(Client):
    def __init__(self, link: MemoryLink) -> None:
        self._link = link

    async def close(self) -> None:
        await self._link.close()

    async def _send(self, message: str | bytes) -> None:
        await self._link.send(message)

    async def _receive(self) -> str | bytes | None:
        try:
            message = await self._link.receive()
        except LinkError:
            self.code = 1006
            return None
        if message is None and (closed := self._link._incoming.closed) is not None:
            self.code, self.reason = closed.code, closed.reason
        return message


class _SocketClient(Client):
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def close(self) -> None:
        await self._socket.close()

    async def _send(self, message: str | bytes) -> None:
        await self._socket.send(message)

    async def _receive(self) -> str | bytes | None:
        try:
            return await self._socket.recv()
        except ConnectionClosed as closed:
            self.code = closed.rcvd.code if closed.rcvd is not None else 1006
            self.reason = closed.rcvd.reason if closed.rcvd is not None else ""
            return None


async def _websocket(url: str, headers: Mapping[str, str]) -> Client:
    try:
        return _SocketClient(
            await connect(
                url,
                additional_headers=dict(headers),
                compression=None,
                proxy=None,
                max_size=MAX_MESSAGE,
                close_timeout=1.0,
            )
        )
    except InvalidStatus as refused:
        answer = refused.response
        body = answer.body.decode() if answer.body else ""
        raise LinkRefused("loopback", answer.status_code, body, dict(answer.headers)) from None


both_ways = pytest.mark.parametrize("wire", [InMemory(), OverSockets()], ids=["memory", "sockets"])
