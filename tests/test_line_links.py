"""Links over real sockets: what is sent at once, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from voiceflow.errors import LinkError, LinkRefused
from voiceflow.line.dialled import DialledLink, connect
from voiceflow.line.link import AT_ONCE, at_once
from voiceflow.line.websocket import WebSocketLink


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[DialledLink, WebSocketLink]]:
    """Our end of a connection that we dialled, and our end of one that was opened to us."""
    accepted: asyncio.Future[WebSocketLink] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        accepted.set_result(WebSocketLink(socket, request.transport))
        await over.wait()
        return socket

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=403, text="no", headers={"dg-error": "WHY"})

    app = web.Application()
    app.router.add_get("/", serve)
    app.router.add_get("/no", refuse)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"ws://127.0.0.1:{runner.addresses[0][1]}"
    try:
        dialled = await connect(url, headers={}, timeout=5)
        yield dialled, await accepted
        with pytest.raises(LinkRefused) as refused:
            await connect(f"{url}/no", headers={}, timeout=5)
        assert (refused.value.status, refused.value.body) == (403, "no")
        assert refused.value.headers["dg-error"] == "WHY"
        await dialled.close()
    finally:
        over.set()
        await runner.cleanup()


def run(main) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_message_is_written_at_once_and_in_order() -> None:
    async def main() -> None:
        async with connected() as (dialled, accepted):
            for one, other in ((dialled, accepted), (accepted, dialled)):
                for number in range(50):
                    if number % 3:
                        assert one.send_at_once(str(number))
                    else:
                        await one.send(str(number).encode())
                for number in range(50):
                    got = await other.receive()
                    assert got == (str(number) if number % 3 else str(number).encode())

    run(main)


def test_nothing_is_written_at_once_to_a_full_socket_and_nothing_twice() -> None:
    async def main() -> None:
        async with connected() as (dialled, accepted):
            for one, other in ((dialled, accepted), (accepted, dialled)):
                sent = 0
                while one.send_at_once(b"x" * AT_ONCE):
                    sent += 1
                    assert sent < 10_000
                for _ in range(sent):
                    assert await other.receive() == b"x" * AT_ONCE
                await one.send(b"last")
                assert await other.receive() == b"last"

    run(main)


def test_large_messages_and_closed_links_are_left_to_send() -> None:
    async def main() -> None:
        async with connected() as (dialled, accepted):
            assert not dialled.send_at_once("x" * (AT_ONCE + 1))
            assert not accepted.send_at_once("x" * (AT_ONCE + 1))
            await accepted.close()
            assert await dialled.receive() is None
            assert not dialled.is_open
            assert not dialled.send_at_once("x")
            assert not accepted.send_at_once("x")
            with pytest.raises(LinkError):
                await dialled.send("x")

    run(main)


def test_a_send_that_raises_or_waits() -> None:
    async def main() -> None:
        async def fails() -> None:
            raise ConnectionError

        async def waits() -> None:
            await asyncio.sleep(0)

        assert not at_once(fails())
        assert at_once(waits()), "it has written already, and waits for room only"

    run(main)
