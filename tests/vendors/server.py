"""All fake vendors on one server on loopback, or in memory.

async with Vendors(flux=FakeFlux(delay=0.2)) as vendors:      # real sockets; the other fakes are usual ones
    os.environ.update(vendors.environment)

vendors = Vendors()                                           # virtual time: never entered
services = Services(dial=vendors.dial, transport=vendors.transport)
"""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import urlsplit
from weakref import WeakSet

from aiohttp import web
from aiohttp.typedefs import Handler

from tests.vendors.wire import SocketVendor
from voiceflow.errors import LinkRefused
from voiceflow.line.link import Link

if TYPE_CHECKING:
    from tests.vendors.aura import FakeAura
    from tests.vendors.elevenlabs import FakeElevenLabs
    from tests.vendors.flux import FakeFlux
    from tests.vendors.openai import FakeOpenAI, MemoryTransport
    from tests.vendors.twilio import FakeTwilio

DEEPGRAM_KEY = "fake-deepgram-key"
ELEVENLABS_KEY = "fake-elevenlabs-key"
OPENAI_KEY = "fake-openai-key"


class Fake(Protocol):
    """Whatever has routes for an aiohttp server."""

    def routes(self) -> list[web.RouteDef]: ...


class Serving:
    """`async with Serving(fake, ...) as serving`: a server on `serving.url`, port 0 being any free one.

    Leaving it closes every connection, and raises the first error that a WebSocket fake had by its own fault.
    """

    def __init__(self, *fakes: Fake, host: str = "127.0.0.1", port: int = 0) -> None:
        self.fakes = fakes
        self.host, self.port = host, port
        self.connected: Counter[str] = Counter()
        """TCP connections that a request came on, by its route: "/v2/listen"."""
        self._seen: dict[str, WeakSet[asyncio.BaseTransport]] = {}
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._count])
        for fake in self.fakes:
            app.add_routes(fake.routes())
        app.on_shutdown.append(self._close)
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port).start()
        self.port = self._runner.addresses[0][1]
        self._started(self._runner)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        sockets = [fake for fake in self.fakes if isinstance(fake, SocketVendor)]
        mistakes = [mistake for vendor in sockets for mistake in vendor.errors]
        if mistakes and error is None:
            raise mistakes[0]

    async def _close(self, app: web.Application) -> None:
        """Nothing new is let in any more: clients that dial again at once would keep it open for ever."""
        for fake in self.fakes:
            if (close := getattr(fake, "close", None)) is not None:
                await close()

    def _started(self, runner: web.AppRunner) -> None:
        """For a subclass."""

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if request.transport is not None and resource is not None:
            seen = self._seen.setdefault(resource.canonical, WeakSet())
            if request.transport not in seen:
                seen.add(request.transport)
                self.connected[resource.canonical] += 1
        return await handler(request)


class Vendors(Serving):
    """The five fakes. Those that are not given are usual ones, which take the keys of `environment` only."""

    def __init__(
        self,
        *,
        flux: FakeFlux | None = None,
        llm: FakeOpenAI | None = None,
        elevenlabs: FakeElevenLabs | None = None,
        aura: FakeAura | None = None,
        twilio: FakeTwilio | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        # Here, so that whoever serves one fake needs no other.
        from tests.vendors.aura import FakeAura
        from tests.vendors.elevenlabs import FakeElevenLabs
        from tests.vendors.flux import FakeFlux
        from tests.vendors.openai import FakeOpenAI
        from tests.vendors.twilio import FakeTwilio

        self.flux = flux or FakeFlux(key=DEEPGRAM_KEY)
        self.llm = llm or FakeOpenAI(key=OPENAI_KEY)
        self.elevenlabs = elevenlabs or FakeElevenLabs(key=ELEVENLABS_KEY)
        self.aura = aura or FakeAura(key=DEEPGRAM_KEY)
        self.twilio = twilio or FakeTwilio()
        super().__init__(self.twilio, self.flux, self.llm, self.elevenlabs, self.aura, host=host, port=port)

    @property
    def environment(self) -> dict[str, str]:
        """What an agent has to be told. Not entered, its addresses lead to `dial` and `transport` only."""
        socket = self.url.replace("http://", "ws://")
        return {
            "DEEPGRAM_BASE_URL": socket,
            "DEEPGRAM_API_KEY": self.flux.key or self.aura.key or DEEPGRAM_KEY,
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_KEY": self.llm.key or OPENAI_KEY,
            "ELEVENLABS_BASE_URL": socket,
            "ELEVENLABS_API_KEY": self.elevenlabs.key or ELEVENLABS_KEY,
            "TWILIO_BASE_URL": self.url,
            "TWILIO_ACCOUNT_SID": self.twilio.account_sid,
            "TWILIO_AUTH_TOKEN": self.twilio.auth_token,
            "TWILIO_NUMBER": next(each["phone_number"] for each in self.twilio.numbers.values()),
        }

    # -- in memory

    async def dial(self, url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
        """For `Services(dial=...)`: the fake that a WebSocket URL's path belongs to."""
        for vendor in (self.flux, self.elevenlabs, self.aura):
            if vendor.serves(urlsplit(url).path):
                return await vendor.dial(url, headers=headers, timeout=timeout)
        raise LinkRefused(urlsplit(url).netloc, 404, "no fake has this path")

    def transport(self) -> MemoryTransport:
        """For `Services(transport=...)`: the language model, for clients that are built on httpx2."""
        return self.llm.transport()

    # -- people who watch

    def watch(self, listener: Callable[[str, str, str], None]) -> None:
        """Calls `listener(vendor, what, detail)` for what happens."""
        named = {"flux": self.flux, "elevenlabs": self.elevenlabs, "aura": self.aura}
        for name, vendor in named.items():
            vendor.listener = lambda what, detail, name=name: listener(name, what, detail)

    async def _close(self, app: web.Application) -> None:
        """Nothing new is let in any more: clients that dial again at once would keep it open for ever."""
        for fake in self.fakes:
            if (close := getattr(fake, "close", None)) is not None:
                await close()

    def _started(self, runner: web.AppRunner) -> None:
        if (server := runner.server) is not None:
            self.llm.watch(server)


def precise_loop() -> asyncio.AbstractEventLoop:
    """An event loop for the fakes' own process: its timers are late by 0.2 ms, not by up to 1.3 ms.

    asyncio's usual selector, epoll, is given whole milliseconds, rounded up; uvloop's clock moves in them.
    `select` takes microseconds, and at most 1024 files.
    """
    return asyncio.SelectorEventLoop(selectors.SelectSelector())
