"""Warm HTTP connections: over loopback sockets as a server sees them, and in memory on a virtual clock."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx2
import pytest

from voiceflow.errors import LinkError
from voiceflow.http import MAX_IDLE, MOST_BODY, TAKEN, WARM_TIMEOUT, Lane, WarmTransport, dialler
from voiceflow.pool import Taken
from voiceflow.testing.pytest_plugin import VirtualTime

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def real(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 10))


class Server:
    """Answers HTTP by hand. `answer(request line)` gives what is sent, as pieces; None closes at once."""

    def __init__(self, answer: Callable[[str], list[bytes] | None] = lambda line: [GOOD]) -> None:
        self.answer = answer
        self.asked: list[tuple[int, str]] = []
        """(connection, request line)"""
        self.headers: list[str] = []
        self.connections = 0
        self.gone: list[int] = []
        self.writers: dict[int, asyncio.StreamWriter] = {}
        self.go_on = asyncio.Event()
        """Without it, it stops after the first piece until the client leaves."""
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self.writers[number] = writer
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                self.asked.append((number, lines[0].rpartition(" ")[0]))
                self.headers += lines[1:-2]
                self._changed.set()
                pieces = self.answer(lines[0])
                if pieces is None:
                    return
                for place, piece in enumerate(pieces):
                    if place and not self.go_on.is_set():
                        assert await reader.read(1) == b""  # the client has left
                        return
                    writer.write(piece)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone.append(number)
            self._changed.set()
            writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for writer in self.writers.values():
                writer.close()


@asynccontextmanager
async def client(url: str, **options: Any) -> AsyncIterator[tuple[httpx2.AsyncClient, WarmTransport]]:
    transport = WarmTransport("the server", f"{url}/models", **options)
    async with httpx2.AsyncClient(transport=transport, base_url=url, timeout=None) as http:
        yield http, transport


def taken(response: httpx2.Response) -> Taken[Lane] | None:
    found: Taken[Lane] | None = response.extensions[TAKEN]
    return found


async def hung_up(lane: Lane) -> None:
    """Until the kernel here has heard of it."""
    heard = asyncio.Event()
    sock = lane._network.get_extra_info("socket")
    loop = asyncio.get_running_loop()
    number = socket.dup(sock.fileno())
    loop.add_reader(number, heard.set)
    await heard.wait()
    loop.remove_reader(number)
    socket.close(number)


def chunked(*parts: bytes) -> list[bytes]:
    """The head and the first part, then one part at a time."""
    pieces = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head + pieces[0], *pieces[1:], b"0\r\n\r\n"]


# -- over sockets


def test_a_request_finds_a_connection_that_was_used_before() -> None:
    async def body() -> None:
        server = Server()
        async with server.listening() as url, client(url) as (http, transport):
            await transport.pool.fill()
            response = await http.post("/ask", content=b"")
            assert response.json() == {}
            assert server.asked == [(1, "GET /models"), (1, "POST /ask")]
            found = taken(response)
            assert found is not None
            assert found.hit
            assert 0 < found.saved < 1
            assert transport.greeting == (200, "{}")

    real(body)


def test_what_was_read_to_its_end_keeps_its_connection() -> None:
    async def body() -> None:
        server = Server()
        async with server.listening() as url, client(url) as (http, transport):
            await transport.pool.fill()
            for _ in range(5):
                assert (await http.get("/ask")).status_code == 200
            assert [number for number, line in server.asked if line == "GET /ask"] == [1] * 5

    real(body)


def test_what_is_broken_off_costs_it_and_the_next_request_does_not_dial() -> None:
    async def body() -> None:
        server = Server(lambda line: chunked(b"one", b"two", b"three") if "ask" in line else [GOOD])
        async with server.listening() as url, client(url) as (http, transport):
            transport.pool.expect(1)
            await transport.pool.fill()
            for turn in range(5):
                async with http.stream("GET", "/ask") as response:
                    assert await anext(response.aiter_bytes()) == b"one"
                    found = taken(response)
                assert found is not None, f"turn {turn} had to dial"
                cut = [number for number, line in server.asked if "ask" in line][turn]
                await server.until(lambda cut=cut: cut in server.gone)  # it has noticed: it stops
                await transport.pool.fill()
            assert transport.pool.misses == 0

    real(body)


def test_closing_in_the_middle_waits_for_nothing() -> None:
    async def body() -> None:
        server = Server(lambda line: chunked(b"one", b"two") if "ask" in line else [GOOD])
        async with server.listening() as url, client(url) as (http, transport):
            await transport.pool.fill()
            request = http.build_request("GET", "/ask")
            response = await http.send(request, stream=True)
            closing = response.aclose()
            with pytest.raises(StopIteration):
                closing.send(None)  # done without once giving way to the loop
            await server.until(lambda: server.gone)

    real(body)


def test_a_cancelled_wait_for_the_first_byte_is_noticed_by_the_server() -> None:
    async def body() -> None:
        server = Server(lambda line: [b"", GOOD] if "ask" in line else [GOOD])
        async with server.listening() as url, client(url) as (http, transport):
            await transport.pool.fill()
            asking = asyncio.create_task(http.get("/ask"))
            await server.until(lambda: (1, "GET /ask") in server.asked)
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
            await server.until(lambda: 1 in server.gone)
            assert (await http.get("/models")).status_code == 200

    real(body)


def test_a_read_that_was_cancelled_never_gives_its_lane_back() -> None:
    """The SDK reads a body that it has stopped reading once more, to drain it: that is not its end."""

    async def body() -> None:
        server = Server(lambda line: chunked(b"one", b"two") if "ask" in line else [GOOD])
        async with server.listening() as url, client(url) as (http, transport):
            await transport.pool.fill()
            response = await http.send(http.build_request("GET", "/ask"), stream=True)
            stream = response.stream
            assert isinstance(stream, httpx2.AsyncByteStream)
            parts = aiter(stream)
            assert await anext(parts) == b"one"
            reading = asyncio.ensure_future(anext(parts))
            await asyncio.sleep(0)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
            assert [part async for part in stream] == []
            await response.aclose()
            await server.until(lambda: 1 in server.gone)
            assert transport.pool.idle <= 1

    real(body)


def test_a_body_can_be_drained_after_it_was_left() -> None:
    async def body() -> None:
        server = Server(lambda line: chunked(b"one", b"two", b"three") if "ask" in line else [GOOD])
        server.go_on.set()
        async with server.listening() as url, client(url) as (http, transport):
            await transport.pool.fill()
            response = await http.send(http.build_request("GET", "/ask"), stream=True)
            stream = response.stream
            assert isinstance(stream, httpx2.AsyncByteStream)
            async for part in stream:
                assert part == b"one"
                break
            assert b"".join([part async for part in stream]) == b"twothree"
            await response.aclose()
            await http.get("/models")
            assert [number for number, _ in server.asked if number != 2] == [1, 1, 1]

    real(body)


def test_a_connection_that_the_server_has_closed_is_not_used() -> None:
    """Idle connections are closed by servers as they please: vLLM after 5 s, llama.cpp too."""

    async def body() -> None:
        server = Server()
        async with server.listening() as url, client(url) as (http, transport):
            await transport.pool.fill()
            server.writers[1].close()
            await hung_up(transport.pool._idle[0].connection)
            response = await http.get("/ask")
            assert (response.status_code, taken(response)) == (200, None)
            assert transport.pool.died == 1

    real(body)


def test_a_server_that_keeps_nothing_open_is_not_dialled_in_vain() -> None:
    async def body() -> None:
        closing = GOOD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        server = Server(lambda line: [closing])
        async with server.listening() as url, client(url) as (http, transport):
            await transport.pool.fill()
            transport.pool._sweep()
            assert (transport.pool.idle, transport.pool.died) == (1, 0)
            for _ in range(3):
                assert (await http.get("/ask")).json() == {}
            await transport.pool.fill()

    real(body)


@pytest.mark.parametrize("status", [401, 404, 405, 500])
def test_any_status_warms(status: int) -> None:
    async def body() -> None:
        refusal = b'HTTP/1.1 %d No\r\ncontent-length: 17\r\n\r\n{"error": "nope"}' % status
        server = Server(lambda line: [refusal if "models" in line else GOOD])
        async with server.listening() as url, client(url) as (http, transport):
            await transport.pool.fill()
            assert transport.greeting == (status, '{"error": "nope"}')
            assert (await http.get("/ask")).status_code == 200
            assert server.connections <= 2

    real(body)


def test_the_key_goes_with_it_and_shows_nowhere() -> None:
    async def body() -> None:
        said: list[str] = []
        server = Server()
        headers = {"Authorization": "Bearer sk-secret"}
        async with server.listening() as url, client(url, headers=headers) as (_, transport):
            await transport.pool.fill()
            assert "authorization: bearer sk-secret" in [line.lower() for line in server.headers]
            said += [repr(transport), repr(transport.pool), str(transport.pool.figures())]
        for line in said:
            assert "sk-secret" not in line

    real(body)


def test_an_unreachable_server_is_named() -> None:
    async def body() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://user:pass@127.0.0.1:{unused.getsockname()[1]}"
            async with client(url) as (http, transport):
                with pytest.raises(LinkError, match=r"^the server cannot be reached \(ConnectError\)$"):
                    await transport.pool.fill()
                with pytest.raises(httpx2.ConnectError):
                    await http.get("/ask")
                assert transport.pool.misses == 1

    real(body)


def test_a_server_that_hangs_up_at_once() -> None:
    async def body() -> None:
        server = Server(lambda line: None)
        async with server.listening() as url, client(url) as (_, transport):
            with pytest.raises(LinkError, match="RemoteProtocolError"):
                await transport.pool.fill()

    real(body)


def test_a_server_that_speaks_no_http() -> None:
    async def body() -> None:
        server = Server(lambda line: [b"SSH-2.0-OpenSSH_9.6\r\n\r\n"])
        async with server.listening() as url, client(url) as (_, transport):
            with pytest.raises(LinkError, match="RemoteProtocolError"):
                await transport.pool.fill()

    real(body)


def test_an_answer_without_end_is_given_up() -> None:
    async def body() -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n"
        server = Server(lambda line: [head + bytes(2 * MOST_BODY)])
        async with server.listening() as url, client(url) as (_, transport):
            with pytest.raises(LinkError, match="has no end"):
                await transport.pool.fill()
            await server.until(lambda: server.gone)

    real(body)


def test_the_kernel_asks_idle_connections_for_life() -> None:
    async def body() -> None:
        server = Server()
        async with server.listening() as url, client(url) as (_, transport):
            await transport.pool.fill()
            network = transport.pool._idle[0].connection._network
            sock = network.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30

    real(body)


def test_closing_ends_all_connections() -> None:
    async def body() -> None:
        server = Server()
        async with server.listening() as url:
            async with client(url) as (http, transport):
                transport.pool.expect(2)
                await transport.pool.fill()
            assert transport.pool.idle == 0
            await server.until(lambda: len(server.gone) == 3)
            with pytest.raises(RuntimeError, match="closed"):
                await http.get("/ask")
            with pytest.raises(LinkError, match="closed"):
                await transport.handle_async_request(httpx2.Request("GET", url))

    real(body)


# -- proxies


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        proxy = Server()
        async with proxy.listening() as url:
            monkeypatch.setenv("http_proxy", url)
            monkeypatch.delenv("no_proxy", raising=False)
            monkeypatch.delenv("NO_PROXY", raising=False)
            async with client("http://models.example") as (http, transport):
                await transport.pool.fill()
                assert (await http.get("/ask")).status_code == 200
            assert {line for _, line in proxy.asked} == {
                "GET http://models.example/models",
                "GET http://models.example/ask",
            }

    real(body)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "inside.example"])
def test_no_proxy_stands_between_this_machine_and_itself(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    transport = dialler(f"http://{host}:8080/v1")()
    assert isinstance(transport, httpx2.AsyncHTTPTransport)
    assert type(transport._pool).__name__ == "AsyncConnectionPool"
    proxied = dialler("http://outside.example/v1")()
    assert isinstance(proxied, httpx2.AsyncHTTPTransport)
    assert type(proxied._pool).__name__ == "AsyncHTTPProxy"


# -- in memory


class Memory(httpx2.AsyncBaseTransport):
    """Answers after `delay` seconds, and at first after `handshake` more."""

    made: list[Memory]

    def __init__(self, handshake: float = 0.3, delay: float = 0.1) -> None:
        self.handshake, self.delay = handshake, delay
        self.asked: list[str] = []
        self.closed = False
        self.made.append(self)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request.url.path)
        await asyncio.sleep(self.delay + (self.handshake if len(self.asked) == 1 else 0.0))
        return httpx2.Response(200, content=b"{}")

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _forget() -> None:
    Memory.made = []


async def test_with_a_warm_lane_the_handshake_is_not_paid(virtual_time: VirtualTime) -> None:
    async with client("http://memory", make=Memory) as (http, transport):
        await transport.pool.fill()
        began = virtual_time.now
        await http.get("/ask")
        assert virtual_time.now - began == pytest.approx(0.1)


async def test_without_one_the_request_dials_itself(virtual_time: VirtualTime) -> None:
    """It does not wait for a lane's GET, which would cost it a round trip more."""
    async with client("http://memory", make=Memory) as (http, transport):
        response = await http.get("/ask")
        assert virtual_time.now == pytest.approx(0.4)
        assert taken(response) is None
        assert transport.pool.figures()["misses"] == 1
        assert [lane.asked for lane in Memory.made if "/ask" in lane.asked] == [["/ask"]]
        await asyncio.sleep(0)
        again = await http.get("/ask")  # and it is kept
        assert taken(again) is not None


async def test_a_get_that_hangs_leaves_the_requests_alone(virtual_time: VirtualTime) -> None:
    """A gateway without a list of models: nothing can be warmed, and everything works."""

    class Hanging(Memory):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path == "/models":
                await asyncio.Event().wait()
            return await super().handle_async_request(request)

    async with client("http://memory", make=Hanging) as (http, transport):
        with pytest.raises(LinkError, match="the server did not answer within 5 s"):
            await transport.pool.fill(20)
        assert virtual_time.now == WARM_TIMEOUT
        assert (await http.get("/ask")).status_code == 200
        assert (await http.get("/ask")).status_code == 200
        assert [lane.asked for lane in Memory.made if lane.asked] == [["/ask", "/ask"]]


async def test_an_idle_lane_is_replaced_before_anybody_closes_it(virtual_time: VirtualTime) -> None:
    async with client("http://memory", make=Memory) as (http, transport):
        await transport.pool.fill()
        await asyncio.sleep(MAX_IDLE + 5)
        assert [lane.closed for lane in Memory.made] == [True, False]
        response = await http.get("/ask")
        assert taken(response) is not None


async def test_a_lane_whose_request_fails_is_dropped(virtual_time: VirtualTime) -> None:
    class Failing(Memory):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path == "/ask":
                raise httpx2.ReadError("reset")
            return await super().handle_async_request(request)

    async with client("http://memory", make=Failing) as (http, transport):
        await transport.pool.fill()
        with pytest.raises(httpx2.ReadError):
            await http.get("/ask")
        await asyncio.sleep(0)
        assert Memory.made[0].closed
        await transport.pool.fill()
        assert transport.pool.idle == 1
