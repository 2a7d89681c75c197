"""A thin client for Twilio's REST API. What is asked and how answers are read is in `api.py` beside it."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, Unpack
from urllib.parse import quote as escaped
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from processors.twilio.api import (
    ACCOUNT,
    Credentials,
    Options,
    PhoneNumber,
    PlacedCall,
    Request,
    TwilioRefused,
    address,
    hang_up_request,
    number_request,
    place_call,
    point_request,
    read_call,
    read_number,
    read_object,
    read_pointed,
    redirect_request,
    status_request,
)
from voiceflow.errors import DeclarationError, LinkError
from voiceflow.line.proxies import proxy_for
from voiceflow.vendor import TEMPORARY, MissingKeys

TIMEOUT = 10.0
"""Seconds one request may take, from the name's look-up to the last byte."""
MOST_ANSWER = 2**20
"""Bytes of an answer; fifty phone numbers are about 100 KiB."""
HANG_UP_PAUSES = (0.5, 2.0)
"""Seconds before the second and the third try to hang up."""
_OVER = (20404, 21220)
"""The call is not there any more; the call is not in progress."""
_CHECK = ": check the network, and TWILIO_BASE_URL if it is set"


class TwilioRest:
    """A client for one account: `async with TwilioRest() as twilio`. What is not given comes from the
    environment:

        account_sid           TWILIO_ACCOUNT_SID
        auth_token            TWILIO_AUTH_TOKEN
        api_key, api_secret   TWILIO_API_KEY and TWILIO_API_SECRET; they stand in for a token of the
                              environment
        base_url              TWILIO_BASE_URL; else api.twilio.com, or the host of TWILIO_REGION, TWILIO_EDGE

    MissingKeys says what is not there and where to get it. Every method raises TwilioRefused when Twilio says
    no, and LinkError when it cannot be asked or does not answer within `timeout` seconds.
    """

    def __init__(
        self,
        account_sid: str | None = None,
        auth_token: str | None = None,
        *,
        api_key: str | None = None,
        api_secret: str | None = None,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        credentials = Credentials.of(account_sid, auth_token, api_key, api_secret)
        if missing := [each for each in credentials.needed if not each]:
            raise MissingKeys(missing)
        self._account, self._user = credentials.account, credentials.user
        self._password = credentials.password
        if not self._account.value.startswith("AC"):
            raise DeclarationError(f"TWILIO_ACCOUNT_SID begins with AC: see {ACCOUNT}")
        self._base = address(base_url)
        self._timeout = timeout
        self._http: aiohttp.ClientSession | None = None
        self.host = urlsplit(self._base).netloc.rpartition("@")[2]
        self._proxy = proxy_for(self._base)

    def __repr__(self) -> str:
        return f"TwilioRest({self.host})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def place(self, to: str, from_: str, **options: Unpack[Options]) -> PlacedCall:
        """Places a call; `api.place_call` says with which options.

        Never tried twice: the telephone would ring twice. After a LinkError that is not TwilioRefused it may
        ring all the same.
        """
        return read_call(await self._send(place_call(to, from_, **options)))

    async def status(self, sid: str) -> PlacedCall:
        """How the call is doing."""
        return read_call(await self._send(status_request(sid)))

    async def hang_up(self, sid: str) -> None:
        """Ends a call that rings or is answered. One that is over already is a success. Three tries."""
        for pause in (*HANG_UP_PAUSES, None):
            try:
                await self._send(hang_up_request(sid))
            except LinkError as error:
                refused = error if isinstance(error, TwilioRefused) else None
                if refused is not None and (refused.code in _OVER or refused.status == 404):
                    return
                if pause is None or (refused is not None and refused.status not in TEMPORARY):
                    raise
                await asyncio.sleep(pause)
            else:
                return

    async def redirect(self, sid: str, twiml: str) -> PlacedCall:
        """Has a live call follow other TwiML from now on: `<Dial>` transfers it. Its stream ends."""
        return read_call(await self._send(redirect_request(sid, twiml)))

    async def find_number(self, number: str) -> PhoneNumber | None:
        """The account's number with these digits (E.164); None when it has no such number."""
        return read_number(await self._send(number_request(number)), number)

    async def point_number(self, number: PhoneNumber, url: str) -> PhoneNumber:
        """Has `url` asked when somebody calls `number`. The number as it is now."""
        return read_pointed(await self._send(point_request(number, url)))

    async def _send(self, request: Request) -> Mapping[str, Any]:
        if self._http is None:
            self._http = aiohttp.ClientSession()
        form = list(request.form)
        user = f"{self._user.value}:{self._password.value}"
        url = f"{self._base}/2010-04-01/Accounts/{escaped(self._account.value, '')}/{request.path}"
        body = bytearray()
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.request(
                    request.method,
                    URL(url, encoded=True),
                    params=form if request.method == "GET" else None,
                    data=aiohttp.FormData(form) if request.method == "POST" else None,
                    headers={"Authorization": "Basic " + b64encode(user.encode()).decode()},
                    proxy=self._proxy,
                    allow_redirects=False,  # the credentials go to the configured host and no other
                ) as response,
            ):
                async for chunk in response.content.iter_chunked(2**16):
                    body += chunk
                    if len(body) > MOST_ANSWER:
                        raise LinkError(f"{self.host} answers without end: is TWILIO_BASE_URL right?")
        except TimeoutError:
            perhaps = " (it may have acted all the same)" if request.method == "POST" else ""
            raise LinkError(
                f"{self.host} did not answer within {self._timeout:g} s{perhaps}{_CHECK}"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The error's own text may hold the request, credentials and all.
            raise LinkError(f"{self.host} cannot be reached ({type(error).__name__}){_CHECK}") from None
        text = body.decode(errors="replace")
        if response.status >= 300:
            raise TwilioRefused(self.host, response.status, text, self._password, self._user)
        return read_object(text)
