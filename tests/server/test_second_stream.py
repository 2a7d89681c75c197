"""A second media stream for a live call: one token more, one socket more, the same call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from processors.twilio.codec import TwilioCodec
from processors.twilio.routes import AFTER, STREAM
from voiceflow.call import Call
from voiceflow.errors import CallEnded

TOKEN = "0123456789abcdef0123456789abcdef"
Socket = aiohttp.ClientWebSocketResponse


class Twilio:
    """A carrier that does everything by hand, with a call that is live."""

    def __init__(self, site: Any, wire: Any, first: Socket) -> None:
        self.site, self.wire, self.first = site, wire, first
        self.first_token: str = wire.token
        self.call: Call = site.agent.calls[-1]
        self.server = site.server

    def another(self, within: float = 5.0) -> str:
        """A token for another stream."""
        token: str = self.server.another(self.call, TwilioCodec(), within=within)
        return token

    async def stop(self, socket: Socket) -> None:
        """Stops a stream as Twilio does when it redirects the call."""
        stop = {"event": "stop", "streamSid": self.wire.stream_sid, "stop": {"callSid": self.wire.call_sid}}
        await socket.send_str(json.dumps(stop))
        await socket.close()

    async def open(self, token: str, *, stream: str = "MZ" + "8" * 32, **start: Any) -> Socket:
        self.wire.stream_sid = stream
        socket: Socket = await self.wire.open(STREAM + token)
        await socket.send_str(self.wire.start(**start))
        return socket

    async def after(self, token: str) -> str:
        """What Twilio is told when it asks what comes after a stream."""
        url, form = self.site.base + AFTER + token, {"CallSid": self.wire.call_sid}
        async with self.wire.http.post(url, data=form, headers=self.wire.headers(url, form)) as response:
            assert response.status == 200
            return await response.text()

    async def heard(self, socket: Socket, stream: str = "MZ" + "8" * 32) -> None:
        """The agent is heard on this stream, and speaks of no other."""
        async with asyncio.timeout(5):
            while True:
                message = json.loads((await socket.receive()).data)
                assert message["streamSid"] == stream
                if message["event"] == "media":
                    return

    async def over(self) -> tuple[str, bool]:
        """How the call ended."""
        await self.site.until(lambda: self.site.finished, "the call is over", 10.0)
        (result,) = self.site.finished
        return result.reason, result.normal


@pytest.fixture
def twilio(site: Any, wire: Any, babbling: Any) -> Callable[..., Any]:
    @asynccontextmanager
    async def live(**settings: Any) -> AsyncIterator[Twilio]:
        async with site(babbling, auth_token=TOKEN, **settings) as s, wire(s) as w:
            first = await w.started()
            for number in range(3):
                await first.send_str(w.media(number))
            t = Twilio(s, w, first)
            await s.until(lambda: t.call.phase.value == "live" and t.call.turns.live, "the agent answers")
            yield t

    return live


def test_the_call_goes_on(twilio: Any, run_it: Any, log: Any) -> None:
    async def main() -> None:
        async with twilio(max_calls=1) as t:
            reply = t.call.turns.live
            token = t.another()
            await t.stop(t.first)
            await t.site.until(lambda: t.call.line.link is None, "the first stream is left")
            assert list(t.server.calls) == [t.call]
            second = await t.open(token)
            await t.heard(second)
            assert t.call.turns.live is reply
            source = t.call._pipeline.source  # type: ignore[union-attr]
            before, packets = source.position, source.packets  # type: ignore[union-attr]
            await second.send_str(t.wire.media(0))
            await t.site.until(lambda: source.packets > packets, "the caller is heard")  # type: ignore[union-attr]
            assert source.position >= before + 160  # type: ignore[union-attr]
            assert source.faults == {}  # type: ignore[union-attr]
            await second.send_str(t.wire.media(1, streamSid="MZ" + "7" * 32))  # the old stream is no more
            await t.site.until(lambda: source.faults == {"wrong streamSid": 1}, "it is ignored")  # type: ignore[union-attr]
            assert log.warnings() == ["line: ignored wrong streamSid: 'media'"]
            await t.stop(second)
            assert await t.over() == ("Twilio stopped the stream", True)
            await t.site.empty()

    run_it(main())


def test_the_second_comes_before_the_first_has_stopped(twilio: Any, run_it: Any) -> None:
    async def main() -> None:
        async with twilio() as t:
            second = await t.open(t.another())
            assert await t.wire.closed(t.first) == 1000
            await t.heard(second)
            await t.stop(second)
            assert await t.over() == ("Twilio stopped the stream", True)

    run_it(main())


def test_one_after_the_other(twilio: Any, run_it: Any) -> None:
    async def main() -> None:
        async with twilio() as t:
            socket = t.first
            for number in range(3):
                token = t.another()
                await t.stop(socket)
                socket = await t.open(token, stream=f"MZ{number}")
                await t.heard(socket, f"MZ{number}")
            await t.site.until(lambda: t.site.connections == 2, "the sockets before are let go")
            await t.stop(socket)
            await t.over()

    run_it(main())


def test_it_never_comes(twilio: Any, run_it: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiceflow.server.server.START_TIMEOUT", 0.1)

    async def main() -> None:
        async with twilio() as t:
            token = t.another(within=0.2)
            await t.stop(t.first)
            reason, normal = await t.over()
            assert (reason, normal) == ("its next stream did not come within 0.3 s", False)
            assert await t.wire.refused(STREAM + token) == 403
            assert t.server.settings.fallback in await t.after(token)
            await t.site.empty()
            assert t.server.admission.waiting == 0

    run_it(main())


def test_a_call_of_somebody_else(twilio: Any, run_it: Any, log: Any) -> None:
    async def main() -> None:
        async with twilio() as t:
            token = t.another()
            await t.stop(t.first)
            other = await t.open(token, callSid="CA" + "6" * 32)
            assert await t.wire.closed(other) == 1008
            reason, normal = await t.over()
            assert not normal
            assert reason == ("its next stream was refused: it names another call than the webhook did")
            assert t.server.settings.fallback in await t.after(token)
            assert token not in log.text

    run_it(main())


def test_tokens_are_used_once(twilio: Any, run_it: Any, log: Any) -> None:
    async def main() -> None:
        async with twilio() as t:
            token = t.another()
            await t.stop(t.first)
            assert await t.wire.refused(STREAM + t.first_token) == 403
            second = await t.open(token)
            await t.heard(second)
            for used in (token, t.first_token, "w0.guessed"):
                assert await t.wire.refused(STREAM + used) == 403
            await t.heard(second)
            assert log.warnings()[0] == "/twilio/ws/ refused: its token was used already or has expired"
            await t.stop(second)
            assert await t.over() == ("Twilio stopped the stream", True)
            for used in (token, t.first_token):
                assert used not in log.text

    run_it(main())


def test_an_unsigned_second_stream(twilio: Any, run_it: Any) -> None:
    """It is refused, and the token is still good for whoever signs."""

    async def main() -> None:
        async with twilio() as t:
            token = t.another()
            await t.stop(t.first)
            assert await t.wire.refused(STREAM + token, headers={}) == 403
            await t.heard(await t.open(token))
            t.call.end("enough")
            await t.over()

    run_it(main())


def test_the_carrier_keeps_the_first(twilio: Any, run_it: Any) -> None:
    async def main() -> None:
        async with twilio() as t:
            token = t.another()
            t.server.no_other(t.call)
            assert await t.wire.refused(STREAM + token) == 403
            await t.heard(t.first, "MZ" + "7" * 32)
            await t.stop(t.first)
            assert await t.over() == ("Twilio stopped the stream", True)

    run_it(main())


def test_the_carrier_could_not_open_it(twilio: Any, run_it: Any) -> None:
    """It asks what comes next for a stream that it has not opened: nobody has to wait any longer."""

    async def main() -> None:
        async with twilio() as t:
            token = t.another(within=60.0)
            await t.stop(t.first)
            assert t.server.settings.fallback in await t.after(token)
            assert await t.over() == ("the carrier could not open its next stream", False)
            assert await t.wire.refused(STREAM + token) == 403

    run_it(main())


@pytest.mark.parametrize("normal", [True, False])
def test_the_call_ends_meanwhile(twilio: Any, run_it: Any, normal: bool) -> None:
    """Whatever token the carrier asks with, it is told the same."""

    async def main() -> None:
        async with twilio() as t:
            token = t.another()
            await t.stop(t.first)
            await t.site.until(lambda: t.call.line.link is None, "the first stream is left")
            t.call.end("enough", normal=normal)
            assert await t.over() == ("enough", normal)
            assert await t.wire.refused(STREAM + token) == 403
            for each in (token, t.first_token):
                answer = await t.after(each)
                assert ("<Say>" not in answer) is normal
                assert "<Hangup/>" in answer
            with pytest.raises(CallEnded):
                t.another()

    run_it(main())


def test_the_call_ends_on_its_second_stream(twilio: Any, run_it: Any) -> None:
    async def main() -> None:
        async with twilio() as t:
            token = t.another()
            await t.stop(t.first)
            second = await t.open(token)
            await t.heard(second)
            t.call.end("it broke", normal=False)
            assert await t.wire.closed(second) == 1000
            assert t.server.settings.fallback in await t.after(token)
            await t.site.until(lambda: t.site.connections <= 1, "no handler stays")

    run_it(main())


def test_the_second_breaks(twilio: Any, run_it: Any) -> None:
    async def main() -> None:
        async with twilio() as t:
            token = t.another()
            await t.stop(t.first)
            second = await t.open(token)
            await t.heard(second)
            second._response.connection.transport.abort()  # type: ignore[union-attr]
            reason, _ = await t.over()
            assert reason == "the carrier closed the stream" or reason.startswith("the line was lost")

    run_it(main())


async def _drain(t: Twilio) -> None:
    await t.server.drain()


async def _end(t: Twilio) -> None:
    await t.server.end_calls()


@pytest.mark.parametrize("stop", [_drain, _end])
def test_shutdown_while_it_is_awaited(
    twilio: Any, run_it: Any, stop: Callable[[Twilio], Awaitable[None]]
) -> None:
    async def main() -> None:
        async with twilio(drain=0.2) as t:
            token = t.another(within=60.0)
            await t.stop(t.first)
            await t.site.until(lambda: t.call.line.link is None, "the first stream is left")
            async with asyncio.timeout(5):
                await stop(t)
            assert await t.over() == ("the server is shutting down", False)
            assert t.server.settings.fallback in await t.after(token)
            assert t.server.admission.waiting == 0

    run_it(main())


def test_draining_lets_it_in(twilio: Any, run_it: Any) -> None:
    async def main() -> None:
        async with twilio(drain=20.0) as t:
            token = t.another()
            await t.stop(t.first)
            draining = asyncio.create_task(t.server.drain())
            await t.site.until(lambda: t.server.draining, "it drains")
            second = await t.open(token)
            await t.heard(second)
            assert not draining.done()
            await t.stop(second)
            await t.over()
            await draining

    run_it(main())


def test_announced_once_more(twilio: Any, run_it: Any) -> None:
    """A webhook for a call that is live makes another one; the live one keeps what it waits for."""

    async def main() -> None:
        async with twilio(max_calls=2) as t:
            token = t.another()
            await t.stop(t.first)
            await t.wire.announce()
            assert len(t.server.calls) == 2
            second = await t.open(token)
            await t.heard(second)
            t.call.end("enough")
            await t.over()

    run_it(main())
