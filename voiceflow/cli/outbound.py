"""One outbound call, from its order to its end: the server that takes it, and how it goes at Twilio.

The status is polled. A status callback would have to find its way in through the tunnel, may come out of
order, and is not sent again when it is lost; a poll goes out as the call itself did. What matters most is
noticed here anyway - the webhook when somebody answers, the stream's end - and then Twilio is asked at once.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import typer
from aiohttp import web
from loguru import logger
from rich.console import Console
from rich.markup import escape

from processors.twilio.api import PlacedCall
from processors.twilio.rest import TwilioRest
from processors.twilio.routes import VOICE
from voiceflow.errors import LinkError
from voiceflow.line.codec import Codec
from voiceflow.line.link import Link
from voiceflow.record import CallResult
from voiceflow.server.admission import Promise
from voiceflow.server.server import Agent, Refused, Server, Settings

FIRST_POLL, LAST_POLL, GROWTH = 0.5, 5.0, 1.5
"""Seconds between two polls: from the first to the last, so many times longer each while nothing happens."""
TROUBLE = 30.0
"""Seconds without an answer from Twilio after which an unanswered call counts as lost."""
GRACE = 30.0
"""Seconds after its time is up that Twilio may take to end a call."""
CLOSING = 15.0
"""Seconds our side of the call may take to close after Twilio's."""

STATUS = {
    "queued": ("dim", "queued"),
    "initiated": ("dim", "dialled"),
    "ringing": ("cyan", "rings"),
    "in-progress": ("green", "answered"),
    "completed": ("dim", "ended"),
    "busy": ("yellow", "busy"),
    "no-answer": ("yellow", "not answered"),
    "canceled": ("yellow", "hung up before it was answered"),
    "failed": ("red", "failed: Twilio could not reach that number"),
}
"""Twilio's words for the state of a call, and ours."""

CLOCK = "(phone: seconds since Twilio was asked to call; the others: since somebody answered)"

console = Console(highlight=False, soft_wrap=True)


@dataclass(slots=True, frozen=True)
class Order:
    """What was asked for. Times in seconds."""

    to: str
    from_number: str
    public_url: str
    ring: int
    limit: float
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def longest(self) -> float:
        """After which the call must be over."""
        return self.ring + self.limit + GRACE


class Interrupted:
    """Whether SIGINT or SIGTERM came. `twice` is set by the second."""

    def __init__(self) -> None:
        self.once = False
        self.twice = asyncio.Event()


class OneCall(Server):
    """Takes the call that was placed, and no other: FILE was given parameters for this one."""

    def __init__(self, agent: Agent, settings: Settings, order: Order) -> None:
        super().__init__(agent, settings)
        self.order = order
        self.sid = ""
        """Twilio's id of the call, as soon as it is known."""
        self.nonce = secrets.token_hex(8)
        self.news = asyncio.Event()
        """Something has happened here that Twilio should be asked about."""
        self.streaming = False
        self.result: CallResult | None = None
        self._closed = asyncio.Event()

    def offer(
        self,
        codec: Codec,
        *,
        carrier_call: str,
        caller: str,
        called: str,
        parameters: Mapping[str, str],
        carrier: object = None,
    ) -> str:
        # Somebody may answer before the request that placed the call has been answered itself.
        ours = carrier_call == self.sid if self.sid else caller == self.order.from_number
        if not ours:
            raise Refused(
                "only the call that was placed is taken here: `voiceflow run` answers the phone",
                self.settings.closing,
            )
        self.news.set()
        parameters = {**parameters, **self.order.parameters}
        return super().offer(
            codec,
            carrier_call=carrier_call,
            caller=caller,
            called=called,
            parameters=parameters,
            carrier=carrier,
        )

    async def serve(self, promise: Promise, link: Link) -> CallResult:
        self.streaming = True
        try:
            self.result = await super().serve(promise, link)
        finally:
            self.streaming = False
            self._closed.set()
            self.news.set()
        return self.result

    async def closed(self) -> None:
        """Waits until our side of the call is closed too, a bounded time."""
        if self.streaming:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING):
                    await self._closed.wait()

    def routes(self) -> list[web.RouteDef]:
        return [*super().routes(), web.get(f"/healthz/{self.nonce}", self._here)]

    async def _here(self, request: web.Request) -> web.Response:
        return web.Response(text=self.nonce)


async def follow(twilio: TwilioRest, server: OneCall, interrupted: Interrupted) -> None:
    """Places the call and tells how it goes. typer.Exit(1) when it was not a conversation that ended well."""
    order, loop = server.order, asyncio.get_running_loop()
    began = heard = loop.time()
    deadline = began + order.longest
    # The agent's own limit ends a call with its goodbye; Twilio's comes a little later, in case it does not.
    placed = await twilio.place(
        order.to,
        order.from_number,
        url=order.public_url + VOICE,
        timeout=order.ring,
        time_limit=math.ceil(order.limit) + 5,
    )
    server.sid = placed.sid
    told, pause, hung_up = "", FIRST_POLL, False
    while True:
        if placed.status != told:
            _tell(placed, loop.time() - began, explain=not told)
            told, pause = placed.status, FIRST_POLL
        if placed.ended:
            break
        if (interrupted.once or loop.time() > deadline) and not hung_up:
            if not interrupted.once:
                console.print("[yellow]its time is up:[/yellow] hanging up")
            hung_up, deadline, pause = True, loop.time() + GRACE, FIRST_POLL
            try:
                await twilio.hang_up(placed.sid)
            except LinkError as error:
                raise LinkError(f"it could not be hung up and may go on: {error}") from None
        elif loop.time() > deadline:
            raise LinkError(f"Twilio did not end the call: see it at console.twilio.com, {placed.sid}")
        elif await _news(server.news, pause):
            pause = FIRST_POLL
        else:
            pause = min(LAST_POLL, pause * GROWTH)
        try:
            placed, heard = await twilio.status(placed.sid), loop.time()
        except LinkError as error:
            if loop.time() - heard > TROUBLE and not server.streaming:
                raise
            logger.warning(f"its status is not known: {error}")
    await server.closed()
    if problem := _problem(placed, server, interrupted.once):
        console.print(f"[red]no conversation:[/red] {escape(problem)}")
        raise typer.Exit(1)


def _tell(placed: PlacedCall, at: float, *, explain: bool) -> None:
    """`explain` says which clock this is: between these lines are the call's, which have its own."""
    style, words = STATUS.get(placed.status, ("", placed.status))
    lasted = f"  [dim]after {placed.seconds} s[/dim]" if placed.seconds is not None else ""
    clock = f"  [dim]{CLOCK}[/dim]" if explain else ""
    console.print(f"phone {at:7.2f} s  [{style or 'default'}]{escape(words)}[/]{lasted}{clock}")


def _problem(placed: PlacedCall, server: OneCall, interrupted: bool) -> str:
    """Why this was not a conversation that ended as calls do; empty when it was."""
    if placed.status != "completed":
        return STATUS.get(placed.status, ("", placed.status))[1]
    if server.result is not None:
        return "" if server.result.normal else server.result.reason
    if interrupted:
        return STATUS["canceled"][1]
    return (
        "Twilio opened no stream here. Its reason is at console.twilio.com, Monitor, Errors; "
        "docs/phone.md says what to do about each"
    )


async def _news(news: asyncio.Event, pause: float) -> bool:
    """Waits for something to happen here, but not longer than `pause` seconds. Whether it did."""
    with suppress(TimeoutError):
        async with asyncio.timeout(pause):
            await news.wait()
    happened = news.is_set()
    news.clear()
    return happened
