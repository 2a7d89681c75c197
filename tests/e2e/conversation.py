"""A caller who spells, and an agent on fake vendors: over real sockets, or in memory.

    async with real(Vendors(...), pipeline) as phone: ...        Server, routes, webhook, WebSockets
    async with virtual(Vendors(...), pipeline) as phone: ...     the same call and vendors, in virtual time

Both give the same `Phone`, so one script is played in both worlds. What the caller's ear received is read
from the play-out of the simulated Twilio: `phone.ear()` is the text of all that was really played.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import aiohttp

from processors.twilio.codec import TwilioCodec
from processors.twilio.routes import VOICE, TwilioRoutes
from processors.twilio.simulated.caller import SimulatedCaller
from processors.twilio.simulated.carrier import CarrierCodec
from processors.twilio.simulated.handset import Handset
from processors.twilio.simulated.report import CallReport, Event, Kind
from processors.twilio.simulated.stream import Line, MediaStream, StreamClock
from tests.vendors import spelled
from tests.vendors.server import Vendors
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.line.codec import LineStarted
from voiceflow.record import CallResult
from voiceflow.server.listener import Listener, warm
from voiceflow.server.server import Server, Settings
from voiceflow.services import Services
from voiceflow.testing import pair
from voiceflow.testing.links import MemoryLink

Make = Callable[[Call], Pipeline]
LOOK = 0.02
"""Seconds between two looks at the call while a test waits for something."""


class Phone:
    """The caller's hand and ear."""

    def __init__(self, stream: MediaStream, handset: Handset, report: CallReport) -> None:
        self.stream, self.handset, self.report = stream, handset, report
        self.call: Call
        self.result: CallResult | None = None
        self._mark = 0

    # -- speaking

    def say(self, text: str) -> None:
        """Begins to say it now."""
        self.handset.speak(spelled.spell(text))

    async def said(self, text: str) -> None:
        """Says it to its end."""
        _, end = self.handset.speak(spelled.spell(text))
        await self.until(lambda: self.handset.position >= end, "the caller has spoken")

    def press(self, keys: str, gap: float = 0.2) -> None:
        """Begins to press keys now, one every `gap` seconds."""
        for number, key in enumerate(keys):
            self.handset.press(key, self.handset.position + int(number * gap * spelled.RATE))

    # -- hearing

    def played(self) -> bytes:
        """Mu-law of the agent, from the stream's start to this moment; what a clear threw away is silence."""
        self.stream._follow(self.stream._playout.advance(self.stream._sample()))
        return self.stream.tracks()[1]

    def ear(self) -> str:
        """All that was heard of the agent so far."""
        return spelled.read(self.played())

    async def hears(self, text: str, limit: float = 15.0) -> None:
        """Waits until the ear has received `text`; spaces do not count."""
        wanted = _squeezed(text)
        await self.until(lambda: wanted in _squeezed(self.ear()), f"{text!r} is heard", limit)

    async def hears_since(self, text: str, limit: float = 15.0) -> None:
        """Waits until the ear has received `text` after what the last wait ended with."""
        wanted = _squeezed(text)
        await self.until(lambda: wanted in _squeezed(self.ear())[self._mark :], f"{text!r} is heard", limit)
        heard = _squeezed(self.ear())
        self._mark = heard.index(wanted, self._mark) + len(wanted)

    async def agent_speaks(self, limit: float = 15.0) -> None:
        """Waits until the agent begins to be heard, once more than before."""
        begun = [e for e in self.report.events if e.kind == "agent heard"]
        await self.until(
            lambda: len([e for e in self.report.events if e.kind == "agent heard"]) > len(begun),
            "the agent speaks",
            limit,
        )

    def replies_heard(self) -> list[str]:
        """The ear's text, cut where the agent's sound began anew: a reply each, if it had no gap in it."""
        track = self.played()
        begins = [round(e.at * spelled.RATE) for e in self.report.events if e.kind == "agent heard"]
        edges = [*begins, len(track)]
        return [spelled.read(track[a:b]) for a, b in pairwise(edges)]

    async def quiet(self, seconds: float = 0.5, limit: float = 15.0) -> None:
        """Waits until the agent has been silent for so long."""
        rate = spelled.RATE
        await self.until(
            lambda: not self.played()[-int(seconds * rate) :].strip(b"\xff\x7f"), "the agent is silent", limit
        )

    async def until(self, true: Callable[[], object], what: str, limit: float = 15.0) -> None:
        try:
            async with asyncio.timeout(limit):
                while not true():  # noqa: ASYNC110 - the ear is a recording, not an event
                    await asyncio.sleep(LOOK)
        except TimeoutError:
            raise AssertionError(
                f"not within {limit:g} s: {what}. The ear has {self.ear()!r}, the history "
                f"{[(m.role, m.content) for m in self.call.history.messages]}, the fault is {self.call.fault}"
            ) from None

    # -- what the agent believes

    def said_by_agent(self) -> list[str]:
        return [m.content for m in self.call.history.messages if m.role == "assistant"]

    def said_by_caller(self) -> list[str]:
        return [m.content for m in self.call.history.messages if m.role == "user"]


def _squeezed(text: str) -> str:
    return "".join(text.split())


@asynccontextmanager
async def real(
    vendors: Vendors,
    make: Make,
    *,
    line: Mapping[str, float] | None = None,
    settings: Settings | None = None,
) -> AsyncIterator[Phone]:
    """A call over real sockets: a server, its webhook, Twilio's side. The vendors are entered already."""
    calls: list[Call] = []
    finished: asyncio.Future[CallResult] = asyncio.get_running_loop().create_future()

    def keep(call: Call) -> Pipeline:
        if call.id != "warm-up":
            calls.append(call)
        return make(call)

    server = Server(SimpleNamespace(make=keep), settings or Settings())
    server.finished = lambda call, result: finished.set_result(result)
    await warm(server.agent, TwilioCodec(), server)
    routes = TwilioRoutes(server, auth_token=None)
    async with (
        Listener(server, routes.routes(), host="127.0.0.1", port=0) as listener,
        SimulatedCaller(listener.url + VOICE, limit=300.0, **dict(line or {})) as caller,  # type: ignore[arg-type]
    ):
        assert caller._call.stream is not None
        phone = Phone(caller._call.stream, caller._handset, caller.report)
        phone.call = calls[-1]
        try:
            yield phone
        finally:
            await caller.hang_up()
            phone.result = await asyncio.wait_for(finished, 20)


@asynccontextmanager
async def virtual(
    vendors: Vendors, make: Make, *, line: Mapping[str, float] | None = None, seed: int = 0
) -> AsyncIterator[Phone]:
    """The same in memory: the simulated Twilio talks to the call through a pair of links."""
    services = Services(dial=vendors.dial, transport=vendors.transport)
    ours, theirs = pair(name="twilio", bound=10_000)
    report = CallReport("CA0")

    def tell(kind: Kind, at: float, detail: str) -> None:
        report.add(Event(at, kind, detail))

    carrier = CarrierCodec(stream="MZ0", call="CA0", account="AC0", parameters={})
    handset = Handset()
    wire = Line(**dict(line or {}), announce=False)  # type: ignore[arg-type]
    call = Call(TwilioCodec(), id="virtual", services=services, seed=seed)
    list(call.line.codec.parse(carrier.start()))  # the codec learns the stream's name
    call.prepare(make(call))
    stream = MediaStream(_Socket(theirs), carrier, handset, report, tell, wire, StreamClock())  # type: ignore[arg-type]
    phone = Phone(stream, handset, report)
    phone.call = call
    running = asyncio.create_task(stream.run(), name="twilio")
    calling = asyncio.create_task(call.run(ours, LineStarted("MZ0", "CA0", call.line.format)), name="call")
    try:
        yield phone
    finally:
        stream.hang_up()
        phone.result = await calling
        await running
        await services.close()


class _Socket:
    """What a MediaStream wants of aiohttp's WebSocket, over a link in memory."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link

    @property
    def closed(self) -> bool:
        return not self._link.is_open

    async def send_str(self, message: str) -> None:
        if self._link.is_open:
            await self._link.send(message)

    async def send_bytes(self, message: bytes) -> None:
        await self._link.send(message)

    async def receive(self) -> Any:
        message = await self._link.receive()
        if message is None:
            return SimpleNamespace(type=aiohttp.WSMsgType.CLOSE, data=1000)
        kind = aiohttp.WSMsgType.TEXT if isinstance(message, str) else aiohttp.WSMsgType.BINARY
        return SimpleNamespace(type=kind, data=message)

    async def close(self) -> None:
        await self._link.close()

    def abort(self) -> None:
        self._link.close_now()
