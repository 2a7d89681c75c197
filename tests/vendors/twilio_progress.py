"""One call that was asked for, from queued to its end; and what its StatusCallback is told on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from processors.twilio.signature import SIGNATURE_HEADER, sign
from processors.twilio.simulated.caller import SimulatedCaller, Speech
from tests.vendors.twilio_calls import Callback, PlacedCall
from voiceflow.errors import LinkError

if TYPE_CHECKING:
    from tests.vendors.twilio import FakeTwilio

CALLBACK_TIMEOUT = 5.0
"""Seconds the agent's server may take to answer a status callback."""
LEAVING = 10.0
"""Seconds a simulated caller may take to hang up."""
DIRECTION = "outbound-api"


class Progress:
    """`run` it once, as a task. Cancelled, it takes the simulated caller with it."""

    def __init__(self, twilio: FakeTwilio, call: PlacedCall) -> None:
        self._twilio = twilio
        self._call = call

    async def run(self) -> None:
        call, end = self._call, "canceled"
        try:
            end = await self._proceed()
        except Exception as error:  # a fault of the test's own
            call.error, end = repr(error), "failed"
            raise
        finally:
            call.change(end)
            self._twilio.tell()
        await self._post("completed")

    async def _proceed(self) -> str:
        """The status in which it ends."""
        call, outcome = self._call, self._call.outcome
        timeout, limit = float(call.given("Timeout", "60")), call.given("TimeLimit")
        await self._post("initiated")
        if await call.ordered(outcome.queued) is not None:
            return "canceled"
        call.change("ringing")
        await self._post("ringing")
        if await call.ordered(min(outcome.rings, timeout)) is not None:
            return "canceled"
        if outcome.end != "completed" or outcome.rings > timeout:
            return outcome.end if outcome.rings <= timeout else "no-answer"
        call.change("in-progress")
        await self._post("answered")
        try:
            async with asyncio.timeout(float(limit) if limit else None):
                await self._talk()
        except TimeoutError:
            pass
        return "completed"

    async def _talk(self) -> None:
        answers = self._twilio.answers
        speeches = answers(self._call) if callable(answers) else answers
        document = self._call.document
        if speeches is not None:
            await self._pick_up(document, speeches)
            return
        while document:
            document = await self._call.ordered(self._call.outcome.lasts) or ""

    async def _pick_up(self, document: str, speeches: Sequence[Speech]) -> None:
        """A simulated caller on the line, until they or an order end it."""
        call, twilio = self._call, self._twilio
        url, public = twilio.found(document)
        options: dict[str, Any] = {
            "call_sid": call.sid,
            "account_sid": twilio.account_sid,
            "direction": DIRECTION,
            "status": "in-progress",  # it is asked for TwiML only once somebody has picked up
            "caller": call.given("From"),
            "called": call.given("To"),
            "auth_token": twilio.auth_token,
            "public_url": public,
        }
        phone = SimulatedCaller(url, speeches=speeches, **{**options, **twilio.line})
        call.reports.append(phone.report)
        talk = asyncio.create_task(phone.run())
        follow = asyncio.create_task(_orders(call, phone))
        try:
            await asyncio.wait({talk, follow}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            follow.cancel()
            await phone.hang_up()
            await asyncio.wait({talk}, timeout=LEAVING)
            talk.cancel()
            await asyncio.wait({talk, follow})
            if not talk.cancelled() and (error := talk.exception()) is not None:
                if not isinstance(error, LinkError):
                    raise error
                call.error = str(error)

    async def _post(self, event: str) -> None:
        """Tells the call's StatusCallback, if it asked for this event."""
        call, twilio = self._call, self._twilio
        wanted = [value for name, value in call.form if name == "StatusCallbackEvent"] or ["completed"]
        twilio.tell()
        if event not in wanted or not (url := call.given("StatusCallback")):
            return
        form = {
            "AccountSid": twilio.account_sid,
            "CallSid": call.sid,
            "CallStatus": "initiated" if event == "initiated" else call.status,
            "From": call.given("From"),
            "To": call.given("To"),
            "Direction": DIRECTION,
            "ApiVersion": "2010-04-01",
            "CallbackSource": "call-progress-events",
            "SequenceNumber": str(call.posted),
            "Timestamp": format_datetime(datetime.now(UTC)),
            **({"CallDuration": str(call.seconds)} if call.over else {}),
        }
        call.posted += 1
        status = await self._send(call.given("StatusCallbackMethod", "POST"), url, form)
        twilio.callbacks.append(Callback(asyncio.get_running_loop().time(), url, form, status))
        twilio.tell()

    async def _send(self, method: str, url: str, form: dict[str, str]) -> int:
        """A signed request. The status of the answer; 0 when there is none."""
        if method == "GET":
            url += ("&" if "?" in url else "?") + urlencode(form)
        signature = sign(self._twilio.auth_token, url, {} if method == "GET" else form)
        where = URL(self._twilio.found(url)[0], encoded=True)
        body = None if method == "GET" else form
        try:
            async with (
                asyncio.timeout(CALLBACK_TIMEOUT),
                aiohttp.ClientSession() as http,
                http.request(method, where, data=body, headers={SIGNATURE_HEADER: signature}) as response,
            ):
                return response.status
        except (TimeoutError, aiohttp.ClientError, OSError):
            return 0


async def _orders(call: PlacedCall, phone: SimulatedCaller) -> None:
    """Has the call follow other TwiML whenever that is ordered; returns when it is to be hung up."""
    while url := await call.orders.get():
        phone.redirect(url)
