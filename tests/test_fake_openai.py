"""The fake OpenAI server, asked by the real SDK: over a loopback socket, and in memory on a virtual clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from tests.vendors import http_connection
from tests.vendors import openai as vendor
from tests.vendors.completions import Scripted
from tests.vendors.openai import FakeOpenAI, Fault, ToolCall, tokens
from tests.vendors.reach import within
from voiceflow.testing import run
from voiceflow.testing.pytest_plugin import VirtualTime

KEY = "sk-fake-1234567890"
HI = [{"role": "user", "content": "Hi there."}]
Body = Callable[[openai.AsyncOpenAI], Awaitable[None]]

either = pytest.mark.parametrize("way", ["socket", "memory"])


def in_memory(fake: FakeOpenAI, **options: Any) -> openai.AsyncOpenAI:
    options = {"api_key": KEY, "max_retries": 0, **options}
    http = httpx2.AsyncClient(transport=fake.transport())
    return openai.AsyncOpenAI(base_url="http://fake/v1", http_client=http, **options)


@asynccontextmanager
async def serving(fake: FakeOpenAI, shutdown: float = 1.0, watch: bool = False) -> AsyncIterator[str]:
    """A real server on a loopback port; its base URL."""
    app = web.Application()
    app.add_routes(fake.routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown)
    await runner.setup()
    if watch:
        assert runner.server is not None
        fake.watch(runner.server)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def on_socket(base: str, **options: Any) -> openai.AsyncOpenAI:
    options = {"api_key": KEY, "max_retries": 0, **options}
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    return openai.AsyncOpenAI(base_url=base, http_client=http, **options)


def play(way: str, fake: FakeOpenAI, body: Body, **options: Any) -> None:
    """Runs `body` with a client of `fake`, on a real socket and clock, or in memory on a virtual one."""

    async def memory() -> None:
        async with in_memory(fake, **options) as client:
            await body(client)

    async def socket() -> None:
        async with serving(fake) as base, on_socket(base, **options) as client:
            await body(client)

    if way == "memory":
        run(memory())
    else:
        within(socket())


async def ask(client: openai.AsyncOpenAI, **parameters: Any) -> openai.AsyncStream[ChatCompletionChunk]:
    parameters = {"model": "gpt-4o-mini", "messages": HI, "stream": True, **parameters}
    stream: openai.AsyncStream[ChatCompletionChunk] = await client.chat.completions.create(**parameters)
    return stream


async def chunks(client: openai.AsyncOpenAI, **parameters: Any) -> list[ChatCompletionChunk]:
    async with await ask(client, **parameters) as stream:
        return [chunk async for chunk in stream]


def texts(found: list[ChatCompletionChunk]) -> list[str]:
    return [text for chunk in found for choice in chunk.choices if (text := choice.delta.content)]


async def heard(stream: openai.AsyncStream[ChatCompletionChunk], into: list[str]) -> None:
    async for chunk in stream:
        into += texts([chunk])


async def listen(client: openai.AsyncOpenAI, into: list[str]) -> None:
    async with await ask(client) as stream:
        await heard(stream, into)


async def raw(fake: FakeOpenAI, **parameters: Any) -> str:
    """The bytes of one response, as they came."""
    async with httpx2.AsyncClient(transport=fake.transport()) as http:
        body = {"model": "m", "messages": HI, "stream": True, **parameters}
        response = await http.post("http://fake/v1/chat/completions", json=body)
        return response.text


def quick(*replies: str, **options: Any) -> FakeOpenAI:
    return FakeOpenAI(replies or ("One, two, three.",), **{"ttft": 0.0, "gap": 0.0, **options})


# -- what it is ------------------------------------------------------------------------------------------


def test_the_sdk_is_still_what_is_imported_as_openai() -> None:
    assert vendor is not openai
    assert Path(str(openai.__file__)).parent.name == "openai"
    assert hasattr(openai, "AsyncOpenAI")


def test_tokens_look_like_those_of_a_tokenizer() -> None:
    assert tokens("Hello there, it's $3.50 - OK?") == (
        ["Hello", " there", ",", " it", "'s", " $", "3", ".", "50", " -", " OK", "?"]
    )
    assert tokens("an extraordinarily 12345\n\nlong  one") == (
        ["an", " extraordi", "narily", " ", "123", "45", "\n\n", "long", " ", " one"]
    )
    assert tokens("") == []


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text


# -- an answer that is well ------------------------------------------------------------------------------


@either
def test_a_conversation(way: str) -> None:
    fake = quick("Hello there, friend.", "And again.", key=KEY)

    async def body(client: openai.AsyncOpenAI) -> None:
        assert [model.id async for model in client.models.list()] == ["gpt-4o-mini"]
        found = await chunks(client, stream_options={"include_usage": True}, temperature=0.5)
        assert texts(found) == ["Hello", " there", ",", " friend", "."]
        assert [c.delta.role for chunk in found for c in chunk.choices if c.delta.role] == ["assistant"]
        assert [chunk.choices[0].finish_reason for chunk in found[:-1]] == [None] * 6 + ["stop"]
        assert found[-1].choices == []
        assert found[-1].usage is not None
        assert found[-1].usage.completion_tokens == 5
        assert found[-1].usage.prompt_tokens == 3
        assert {chunk.model for chunk in found} == {"gpt-4o-mini"}
        assert texts(await chunks(client)) == ["And", " again", "."]
        assert texts(await chunks(client))[0] == "Hello"

    play(way, fake, body)
    first, second, _ = fake.requests
    assert first.messages == HI
    assert first.parameters["temperature"] == 0.5
    assert "messages" not in first.parameters
    assert (first.status, first.authorized, first.how) == (200, True, "finished")
    assert [token for _, token in first.sent] == ["Hello", " there", ",", " friend", "."]
    assert first.ended is not None
    assert first.arrived <= first.sent[0][0] <= first.ended <= second.arrived
    (connection,) = fake.connections  # the warm one, used for everything
    chat = "POST /v1/chat/completions"
    assert list(connection.requests) == ["GET /v1/models", chat, chat, chat]
    assert connection is first.connection
    assert connection.closed is not None
    assert connection.opened <= first.arrived <= second.arrived <= connection.closed
    assert KEY not in repr(first)


@either
def test_a_reply_that_is_a_function(way: str) -> None:
    def reply(messages: list[dict[str, Any]]) -> vendor.Answer:
        return ["You ", "said", f" {messages[-1]['content']}"] if len(messages) == 1 else "Two of them."

    async def body(client: openai.AsyncOpenAI) -> None:
        assert texts(await chunks(client)) == ["You ", "said", " Hi there."]
        assert "".join(texts(await chunks(client, messages=HI * 2))) == "Two of them."

    play(way, FakeOpenAI(reply, ttft=0.0, gap=0.0), body)


def test_replies_as_somebody_types_them() -> None:
    reply = Scripted(['Let me see. hours({"day": 1})', "Until six (or so).", "bye()"])
    asked = [*HI]
    first = reply(asked)
    assert first == ("Let", " me", " see", ".", " ", ToolCall("hours", '{"day": 1}'))
    assert reply(asked) == first, "a draft that was dropped is answered again"
    asked += [{"role": "assistant", "content": None}, {"role": "tool", "content": "6"}]
    assert reply(asked) == "Until six (or so)."
    asked += [{"role": "assistant", "content": "Until six."}, *HI]
    assert reply(asked) == (ToolCall("bye"),)
    assert reply([*asked, {"role": "system", "content": "Are they there?"}]) == first
    assert reply(HI) == first, "another call begins anew"


def test_a_reply_that_raises_is_seen(virtual_time: VirtualTime) -> None:
    def reply(messages: list[dict[str, Any]]) -> str:
        raise ZeroDivisionError("the test's own fault")

    async def main() -> None:
        async with in_memory(FakeOpenAI(reply)) as client:
            with pytest.raises(ZeroDivisionError):
                await ask(client)

    virtual_time.run(main())


@either
def test_what_it_does_not_understand(way: str) -> None:
    async def body(client: openai.AsyncOpenAI) -> None:
        for name, value in (("stream", False), ("messages", []), ("messages", "hello")):
            with pytest.raises(openai.BadRequestError):
                await ask(client, **{name: value})

    fake = quick()
    play(way, fake, body)
    assert fake.requests == []


# -- time ------------------------------------------------------------------------------------------------


async def test_tokens_come_exactly_when_they_are_due(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(["a b c d e"], ttft=0.5, gap=0.25)
    async with in_memory(fake) as client:
        times = []
        async with await ask(client) as stream:
            async for chunk in stream:
                times += [(virtual_time.now, text) for text in texts([chunk])]
    assert times == [(0.5, "a"), (0.75, " b"), (1.0, " c"), (1.25, " d"), (1.5, " e")]
    assert fake.requests[0].sent == times
    assert fake.requests[0].ended == 1.5


async def test_a_slow_reader_shifts_nothing(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(["a b c d"], ttft=0.5, gap=0.25)
    async with in_memory(fake) as client, await ask(client) as stream:
        times = []
        async for chunk in stream:
            times += [virtual_time.now] * len(texts([chunk]))
            await asyncio.sleep(0.4 if len(times) == 1 else 0.0)
    assert times == [0.5, 0.9, 1.0, 1.25]
    assert [at for at, _ in fake.requests[0].sent] == [0.5, 0.75, 1.0, 1.25]


async def test_several_tokens_in_a_packet(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(["a b c d e"], ttft=0.5, gap=0.25, packet=2)
    async with in_memory(fake) as client:
        assert texts(await chunks(client)) == ["a", " b", " c", " d", " e"]
    assert [at for at, _ in fake.requests[0].sent] == [0.5, 0.5, 1.0, 1.0, 1.5]


async def test_the_handshake_is_paid_once_for_each_connection(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(["Yes."], ttft=0.5, gap=0.0, handshake=0.25)
    async with in_memory(fake) as client:
        await client.models.list()
        assert virtual_time.now == 0.25
        for _ in range(2):
            await chunks(client)
        assert virtual_time.now == 1.25
        async with await ask(client):
            pass  # cancelled: this connection is gone
        began = virtual_time.now
        await chunks(client)
        assert virtual_time.now == began + 0.75
    assert [connection.opened for connection in fake.connections] == [0.0, began]
    assert [asked.arrived for asked in fake.requests] == [0.25, 0.75, 1.25, began + 0.25]


async def test_a_fault_with_other_times_is_for_one_request(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(["a b"], ttft=0.5, gap=0.25)
    fake.faults += [None, Fault(ttft=3.0, gap=2.0)]
    async with in_memory(fake) as client:
        for _ in range(3):
            await chunks(client)
    took = [[at - asked.arrived for at, _ in asked.sent] for asked in fake.requests]
    assert took == [[0.5, 0.75], [3.0, 5.0], [0.5, 0.75]]


def test_the_handshake_on_a_socket_counts_from_the_opening() -> None:
    """A connection that was opened long enough ahead has it behind it."""
    fake = quick(handshake=0.05)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serving(fake, watch=True) as base:
            port = httpx2.URL(base).port
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert fake.connections == []  # nobody's yet
            await asyncio.sleep(0.06)
            asked = loop.time()
            writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            (connection,) = fake.connections
            assert connection.opened < asked
            writer.close()
            await fake.until(lambda: connection.closed is not None)

            began = loop.time()
            async with on_socket(base) as client:
                await chunks(client)
            assert fake.requests[0].arrived >= began + 0.05

    within(main())


# -- the client goes -------------------------------------------------------------------------------------


@either
@pytest.mark.parametrize("leave", ["close", "cancel"])
def test_a_cancelled_turn_is_seen_at_once(way: str, leave: str) -> None:
    """The next token would come in a minute: nothing but the connection tells the server."""
    fake = quick("a b c d")
    fake.faults += [Fault(then="stall", after=2), None]

    async def body(client: openai.AsyncOpenAI) -> None:
        if leave == "close":
            stream = await ask(client)
            got: list[str] = []
            async for chunk in stream:
                got += texts([chunk])
                if len(got) == 2:
                    break
            assert fake.requests[0].how == ""
            await stream.close()
        else:
            reading = asyncio.create_task(listen(client, []))
            await fake.until(lambda: fake.requests and len(fake.requests[0].sent) == 2)
            assert fake.requests[0].how == ""
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        await fake.until(lambda: fake.requests[0].how)
        assert len(await chunks(client)) > 4

    play(way, fake, body)
    asked, again = fake.requests
    assert (asked.how, asked.text) == ("left", "a b")
    assert asked.ended is not None
    assert asked.connection.closed is not None
    assert asked.ended <= asked.connection.closed <= again.arrived
    assert again.connection is not asked.connection
    assert len(fake.connections) == 2


@either
def test_leaving_before_the_first_token(way: str) -> None:
    fake = quick()
    fake.faults.append(Fault(then="stall"))

    async def body(client: openai.AsyncOpenAI) -> None:
        asking = asyncio.create_task(ask(client))
        await fake.until(lambda: fake.requests)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await fake.until(lambda: fake.requests[0].how == "left")
        assert fake.requests[0].connection.closed is not None

    play(way, fake, body)
    assert fake.requests[0].sent == []


async def test_when_it_noticed(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(["a b c d"], ttft=0.5, gap=10.0)
    async with in_memory(fake) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(chunks(client), 1.25)
        assert virtual_time.now == 1.25
        asked = fake.requests[0]
        assert (asked.how, asked.ended, asked.sent) == ("left", 1.25, [(0.5, "a")])
        assert asked.connection.closed == 1.25


async def test_who_only_stops_reading_is_served_to_the_end(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(["a b c d"], ttft=0.5, gap=0.5)
    async with in_memory(fake) as client:
        stream = await ask(client)
        async for _ in stream:
            break
        await asyncio.sleep(5)
        assert (fake.requests[0].how, fake.requests[0].ended) == ("finished", 2.0)
        await chunks(client)  # the unread response still holds its connection
        assert len(fake.connections) == 2
        await stream.close()


async def test_a_client_that_ends_takes_its_connections_along(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    fake.faults.append(Fault(then="stall", early=True))
    client = in_memory(fake)
    await ask(client)
    await chunks(client)
    await asyncio.sleep(1)
    await client.close()
    assert [connection.closed for connection in fake.connections] == [virtual_time.now] * 2
    assert [asked.how for asked in fake.requests] == ["left", "finished"]


# -- connections -----------------------------------------------------------------------------------------


@either
def test_two_at_once_need_two_connections(way: str) -> None:
    fake = quick()
    fake.faults.append(Fault(then="stall", after=1))

    async def body(client: openai.AsyncOpenAI) -> None:
        first = asyncio.create_task(listen(client, []))
        await fake.until(lambda: fake.requests and fake.requests[0].sent)
        await chunks(client)
        await chunks(client)
        first.cancel()
        await asyncio.wait({first})

    play(way, fake, body)
    assert [len(connection.requests) for connection in fake.connections] == [1, 2]
    assert [asked.connection.number for asked in fake.requests] == [1, 2, 2]


@either
def test_the_server_drops_an_idle_connection(way: str) -> None:
    fake = quick()

    async def body(client: openai.AsyncOpenAI) -> None:
        await chunks(client)
        fake.connections[0].drop()
        await fake.until(lambda: fake.connections[0].closed is not None)
        assert len(await chunks(client)) > 4
        assert fake.requests[1].connection is fake.connections[1]

    play(way, fake, body)
    assert [asked.how for asked in fake.requests] == ["finished", "finished"]


@either
def test_the_server_drops_a_connection_in_the_middle(way: str) -> None:
    fake = quick()
    fake.faults.append(Fault(then="stall", after=1))

    async def body(client: openai.AsyncOpenAI) -> None:
        async with await ask(client) as stream:
            reading = asyncio.create_task(heard(stream, []))
            await fake.until(lambda: fake.requests[0].sent)
            fake.connections[0].drop()
            with pytest.raises(openai.APIConnectionError):
                await reading

    play(way, fake, body)
    assert fake.requests[0].how == "dropped"
    assert fake.requests[0].ended is not None


def test_a_server_that_goes_down_answers_nobody_any_more() -> None:
    fake = quick()
    fake.faults.append(Fault(then="stall", after=1))

    async def main() -> None:
        async with serving(fake, shutdown=0.01) as base:
            client = on_socket(base)
            stream = await ask(client)
            await fake.until(lambda: fake.requests[0].sent)
        assert fake.requests[0].how in ("dropped", "left")
        assert fake.connections[0].closed is not None
        await stream.close()
        await client.close()

    within(main())


@either
def test_it_can_be_closed_under_its_clients(way: str) -> None:
    """Nothing of it runs any more then; who waited for an answer is told that the connection is gone."""
    fake = quick()
    fake.faults += [Fault(then="stall", after=1), Fault(then="stall")]

    async def body(client: openai.AsyncOpenAI) -> None:
        async with await ask(client) as stream:
            reading = [asyncio.create_task(heard(stream, [])), asyncio.create_task(chunks(client))]
            await fake.until(lambda: len(fake.requests) == 2 and fake.requests[0].sent)
            await fake.close()
            assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("FakeOpenAI")]
            assert [asked.how for asked in fake.requests] == ["dropped"] * 2
            for waiting in reading:
                with pytest.raises(openai.APIConnectionError):
                    await waiting
        assert len(await chunks(client)) > 1

    play(way, fake, body)


async def test_what_is_recorded_is_bounded(
    virtual_time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (vendor, http_connection):
        monkeypatch.setattr(module, "MOST_KEPT", 2)
    fake = quick("a", "b", "c")
    async with in_memory(fake) as client:
        for _ in range(3):
            await chunks(client)
    assert [asked.text for asked in fake.requests] == ["b", "c"]
    assert len(fake.connections[0].requests) == 2


# -- refusals --------------------------------------------------------------------------------------------

REFUSALS = {
    401: (openai.AuthenticationError, "invalid_api_key"),
    404: (openai.NotFoundError, "model_not_found"),
    429: (openai.RateLimitError, "rate_limit_exceeded"),
    500: (openai.InternalServerError, None),
    503: (openai.InternalServerError, None),
}


@either
def test_http_errors(way: str) -> None:
    fake = quick()
    fake.faults += [Fault(status=status, retry_after=7) for status in REFUSALS]

    async def body(client: openai.AsyncOpenAI) -> None:
        for status, (kind, code) in REFUSALS.items():
            with pytest.raises(kind) as caught:
                await ask(client)
            assert isinstance(caught.value, openai.APIStatusError)
            assert caught.value.status_code == status
            assert caught.value.code == code
            assert isinstance(caught.value.body, dict)
            assert set(caught.value.body) == {"message", "type", "param", "code"}
            assert caught.value.response.headers["retry-after"] == "7"
        assert texts(await chunks(client))[0] == "One"  # the refused took no reply

    play(way, fake, body)
    assert [asked.status for asked in fake.requests] == [*REFUSALS, 200]
    assert {asked.how for asked in fake.requests} == {"finished"}
    assert len(fake.connections) == 1


async def test_the_sdk_tries_again_after_retry_after(virtual_time: VirtualTime) -> None:
    fake = quick()
    fake.faults.append(Fault(status=429, retry_after=2))
    async with in_memory(fake, max_retries=1) as client:
        assert len(await chunks(client)) > 4
    assert [asked.arrived for asked in fake.requests] == [0.0, 2.0]


@either
def test_a_wrong_key(way: str) -> None:
    fake = quick(key=KEY)

    async def body(client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()
        with pytest.raises(openai.AuthenticationError) as caught:
            await ask(client)
        assert KEY not in str(caught.value)

    play(way, fake, body, api_key="sk-another")
    assert [(asked.authorized, asked.status) for asked in fake.requests] == [(False, 401)]


@either
def test_a_server_without_models(way: str) -> None:
    fake = quick(models_status=404)

    async def body(client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.NotFoundError):
            await client.models.list()
        await chunks(client)

    play(way, fake, body)
    assert len(fake.connections) == 1  # warm all the same


# -- streams that break ----------------------------------------------------------------------------------


@either
@pytest.mark.parametrize("after", [0, 2])
def test_silence(way: str, after: int) -> None:
    """Nothing comes any more, and the connection stays: only a deadline of the client's own helps."""
    fake = quick("a b c d")
    fake.faults.append(Fault(then="stall", after=after))

    async def body(client: openai.AsyncOpenAI) -> None:
        got: list[str] = []
        reading = asyncio.create_task(listen(client, got))
        await fake.until(lambda: fake.requests and len(fake.requests[0].sent) == after)
        while len(got) < after:  # noqa: ASYNC110 - what comes out of the SDK has no event
            await asyncio.sleep(0.001)
        done, _ = await asyncio.wait({reading}, timeout=0.05)
        assert not done
        assert got == ["a", " b"][:after]
        reading.cancel()
        await asyncio.wait({reading})
        await fake.until(lambda: fake.requests[0].how == "left")

    play(way, fake, body)
    assert len(fake.requests[0].sent) == after


@either
def test_silence_behind_the_header(way: str) -> None:
    fake = quick()
    fake.faults.append(Fault(then="stall", early=True))

    async def body(client: openai.AsyncOpenAI) -> None:
        stream = await ask(client)  # the header is there
        got: list[str] = []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(heard(stream, got), 0.05)
        assert got == []
        await stream.close()

    play(way, fake, body)


@either
@pytest.mark.parametrize("after", [0, 2, 99])
def test_an_error_in_the_middle(way: str, after: int) -> None:
    fake = quick("a b c d")
    fake.faults.append(Fault(then="error", after=after))

    async def body(client: openai.AsyncOpenAI) -> None:
        got: list[str] = []
        stream = await ask(client)
        with pytest.raises(openai.APIError, match="The server had an error") as caught:
            await heard(stream, got)
        assert not isinstance(caught.value, openai.APIStatusError | openai.APIConnectionError)
        assert got == ["a", " b", " c", " d"][:after]

    play(way, fake, body)
    assert fake.requests[0].how == "finished"


@either
@pytest.mark.parametrize("after", [0, 2])
def test_a_connection_that_drops(way: str, after: int) -> None:
    fake = quick("a b c d")
    fake.faults.append(Fault(then="drop", after=after))

    async def body(client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.APIConnectionError):
            await chunks(client)
        await fake.until(lambda: fake.connections[0].closed is not None)
        await chunks(client)

    play(way, fake, body)
    assert [asked.how for asked in fake.requests] == ["dropped", "finished"]
    assert len(fake.requests[0].sent) == after
    assert len(fake.connections) == 2


async def test_a_fault_comes_when_the_next_token_was_due(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(["a b c d"], ttft=0.5, gap=0.25)
    fake.faults += [Fault(then="drop", after=2), Fault(then="error")]
    async with in_memory(fake) as client:
        with pytest.raises(openai.APIConnectionError):
            await chunks(client)
        assert virtual_time.now == 1.0
        with pytest.raises(openai.APIError):
            await chunks(client)
        assert virtual_time.now == 1.5


# -- shapes ----------------------------------------------------------------------------------------------


@either
@pytest.mark.parametrize(
    "fault",
    [
        Fault(no_choices=True),
        Fault(blank="null"),
        Fault(blank="absent"),
        Fault(extras=True),
        Fault(crlf=True),
        Fault(comments=True),
        Fault(done=False),
        Fault(
            no_choices=True, blank="null", extras=True, crlf=True, comments=True, done=False, finish="length"
        ),
    ],
    ids=repr,
)
def test_odd_streams_that_are_right(way: str, fault: Fault) -> None:
    fake = quick("One, two, three.", "Next.")
    fake.faults.append(fault)

    async def body(client: openai.AsyncOpenAI) -> None:
        found = await chunks(client)
        assert "".join(texts(found)) == "One, two, three."
        assert found[-1].choices[0].finish_reason == (fault.finish or "stop")
        assert (found[0].choices == []) is fault.no_choices
        assert "".join(texts(await chunks(client))) == "Next."

    play(way, fake, body)


@either
@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_other_ends(way: str, finish: str) -> None:
    fake = quick()
    fake.faults.append(Fault(finish=finish))

    async def body(client: openai.AsyncOpenAI) -> None:
        found = await chunks(client)
        assert found[-1].choices[0].finish_reason == finish

    play(way, fake, body)


async def test_a_limit_of_tokens_is_obeyed(virtual_time: VirtualTime) -> None:
    async with in_memory(quick("a b c d")) as client:
        for name in ("max_tokens", "max_completion_tokens"):
            found = await chunks(client, **{name: 2})
            assert texts(found) == ["a", " b"]
            assert found[-1].choices[0].finish_reason == "length"
            assert (await chunks(client, **{name: 4}))[-1].choices[0].finish_reason == "stop"


async def test_the_bytes_of_an_ordinary_stream(virtual_time: VirtualTime) -> None:
    text = await raw(quick("Hi."))
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(event.startswith("data: ") for event in events)
    role, hi, stop, end = (json.loads(event.removeprefix("data: ")) for event in events)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [hi["choices"][0]["delta"], stop["choices"][0]["delta"]] == [{"content": "Hi"}, {"content": "."}]
    assert (end["choices"][0]["delta"], end["choices"][0]["finish_reason"]) == ({}, "stop")
    assert "usage" not in role


async def test_the_bytes_of_odd_streams(virtual_time: VirtualTime) -> None:
    fake = quick("Hi.")
    fake.faults += [Fault(crlf=True), Fault(comments=True), Fault(done=False), Fault(blank="null")]
    crlf = await raw(fake)
    assert crlf.count("\r\n\r\n") == crlf.count("\n") / 2 == 5
    assert (await raw(fake)).startswith(": processing\n\ndata: ")
    assert "[DONE]" not in await raw(fake)
    assert (await raw(fake)).count('"content": null') == 2


async def test_comments_keep_coming_while_nothing_is_said(virtual_time: VirtualTime) -> None:
    """Bytes that are no progress: a read timeout never fires."""
    fake = quick("Hi.")
    fake.faults.append(Fault(comments=True, then="stall", after=2))
    received: list[tuple[float, str]] = []

    async def read(http: httpx2.AsyncClient) -> None:
        body = {"model": "m", "messages": HI, "stream": True}
        async with http.stream("POST", "http://fake/v1/chat/completions", json=body) as response:
            async for data in response.aiter_text():
                received.append((virtual_time.now, data))  # noqa: PERF401 - it never comes to an end

    async with httpx2.AsyncClient(transport=fake.transport()) as http:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read(http), 3.5)
    comment = ": processing\n\n"
    assert [(at, data) for at, data in received if at > 0] == [(1.0, comment), (2.0, comment), (3.0, comment)]


# -- tool calls ------------------------------------------------------------------------------------------


@either
@pytest.mark.parametrize("index", [True, False])
def test_tool_calls_in_fragments(way: str, index: bool) -> None:
    arguments = ['{"day": "Tuesday", "seats": 4}', "{}"]

    def reply(messages: list[dict[str, Any]]) -> vendor.Answer:
        return ["One", " moment.", ToolCall("book", arguments[0]), ToolCall("hang_up", id="mine")]

    fake = FakeOpenAI(reply, ttft=0.0, gap=0.0, usual=Fault(index=index))

    async def body(client: openai.AsyncOpenAI) -> None:
        found = await chunks(client)
        assert texts(found) == ["One", " moment."]
        pieces = [piece for chunk in found for piece in chunk.choices[0].delta.tool_calls or ()]
        assert len(pieces) > 8
        ids: list[str] = []
        names: list[str] = []
        joined: list[str] = []
        for piece in pieces:
            assert piece.function is not None
            if piece.id:
                ids.append(piece.id)
                names.append(piece.function.name or "")
                joined.append("")
            assert piece.index == (len(ids) - 1 if index else None)
            joined[-1] += piece.function.arguments or ""
        assert names == ["book", "hang_up"]
        assert joined == arguments
        assert len(set(ids)) == 2
        assert ids[1] == "mine"
        assert found[-1].choices[0].finish_reason == "tool_calls"

    play(way, fake, body)
