"""How Twilio asks a server what to do: signed requests for TwiML, and the upgrade to a WebSocket."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlencode, urljoin, urlsplit
from xml.etree import ElementTree

import aiohttp
from yarl import URL

from processors.twilio.signature import SIGNATURE_HEADER, sign
from processors.twilio.simulated import carrier
from processors.twilio.simulated.report import CallReport, HttpStep
from processors.twilio.simulated.stream import CLOSE_TIMEOUT, Socket
from voiceflow.errors import LinkError

MOST_TWIML = 64 * 1024
"""Bytes of a TwiML document; Twilio's own limit (error 11750)."""
MOST_MESSAGE = 8 * 2**20
"""Bytes of one WebSocket message of the server: ten minutes of audio in base64 fit."""
LONGEST_WORD = 16
"""Characters of a path's part that are still shown; 16 random bytes have 22."""


class Webhook:
    """The server as Twilio sees it: under `public_url`, while it is reached at the base of `url`.

    Without `token` nothing is signed. Requests and the upgrade are bounded by `timeout` seconds each.
    """

    def __init__(self, url: str, public_url: str, token: str, timeout: float, report: CallReport) -> None:
        parts = urlsplit(url)
        self._local = f"{parts.scheme}://{parts.netloc}"
        self._public = public_url.rstrip("/") or self._local
        self._token = token
        self._timeout = timeout
        self._report = report
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(ws_response_class=Socket)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def join(self, base: str, reference: str) -> str:
        """A URL in a document, relative to the document's own, as Twilio sees it."""
        return urljoin(_moved(base, self._local, self._public), reference)

    async def twiml(self, method: str, url: str, form: Mapping[str, str]) -> ElementTree.Element:
        """The <Response> at `url`. LinkError when there is none, within the timeout."""
        status, body = await self.request(method, url, form)
        if status >= 300:
            raise LinkError(f"{shown(url)} answered HTTP {status}, not TwiML")
        try:
            return _response(body)
        except ValueError as error:
            raise LinkError(f"{shown(url)} did not answer with TwiML: {error}") from None

    async def request(self, method: str, url: str, form: Mapping[str, str]) -> tuple[int, bytes]:
        """Sends `form`, signed; the status and the body. LinkError when no answer comes in time."""
        public = _moved(url, self._local, self._public)
        if method == "GET":
            public += ("&" if "?" in public else "?") + urlencode(form)
            form = {}
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._opened().request(
                    method,
                    URL(_moved(public, self._public, self._local), encoded=True),
                    data=form or None,
                    headers=self._signature(public, form),
                    allow_redirects=False,
                ) as response,
            ):
                body = bytearray()
                async for chunk in response.content.iter_chunked(MOST_TWIML):
                    body += chunk
                    if len(body) > MOST_TWIML:
                        break
        except TimeoutError:
            raise LinkError(f"{shown(url)} did not answer within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The error's own text may hold the whole URL, token and all.
            raise LinkError(f"{shown(url)} cannot be reached ({type(error).__name__})") from None
        self._report.http.append(HttpStep(method, shown(url), response.status))
        return response.status, bytes(body)

    async def upgrade(self, url: str) -> Socket:
        """A WebSocket to the URL of a <Stream>. Raises what aiohttp raises, and TimeoutError."""
        try:
            async with asyncio.timeout(self._timeout):
                socket = await self._opened().ws_connect(
                    URL(_moved(url, _websocket(self._public), _websocket(self._local)), encoded=True),
                    headers=self._signature(url, {}),
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
                    max_msg_size=MOST_MESSAGE,
                )
        except aiohttp.WSServerHandshakeError as error:
            self._report.http.append(HttpStep("GET", shown(url), error.status))
            raise
        self._report.http.append(HttpStep("GET", shown(url), 101))
        return cast(Socket, socket)

    def _signature(self, url: str, form: Mapping[str, str]) -> dict[str, str]:
        return {SIGNATURE_HEADER: sign(self._token, url, form)} if self._token else {}

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise LinkError("the simulated caller has not dialled: use `run` or `async with`")
        return self._session


def stream_fault(url: str, track: str) -> tuple[int, str] | None:
    """Why Twilio would not even try this <Stream>: error code and reason. ws:// is let through for
    loopback, where nothing but a test listens."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return carrier.MALFORMED_URL, "malformed URL"
    if not host:
        return carrier.MALFORMED_URL, "malformed URL"
    if parts.scheme != "wss" and not (parts.scheme == "ws" and _is_loopback(host)):
        return carrier.NOT_A_STREAM_URL, "the URL is not wss://"
    if parts.query:
        return carrier.UPGRADE_REFUSED, "the URL has a query string"
    if track != "inbound_track":
        return carrier.BAD_TRACK, "only inbound_track works with <Connect>"
    return None


def shown(url: str) -> str:
    """A URL for people and logs: no query, no credentials, no token. A token is what follows /ws/, and
    any other part of the path that is too long to be a word (the `action` may carry one)."""
    scheme, separator, rest = url.partition("://")
    host, *parts = re.split("[?#]", rest, maxsplit=1)[0].split("/")
    if "ws" in parts[:-1]:
        parts[parts.index("ws") + 1 :] = ["..."]
    shown = ["..." if len(part) > LONGEST_WORD else part for part in parts]
    return f"{scheme}{separator}" + "/".join([host.rpartition("@")[2], *shown])


def _response(body: bytes) -> ElementTree.Element:
    """The root of a TwiML document; ValueError when it is none."""
    if len(body) > MOST_TWIML:
        raise ValueError(f"the answer is longer than {MOST_TWIML} bytes")
    if not body.strip():
        raise ValueError("the answer is empty")
    if b"<!DOCTYPE" in body:  # TwiML has none, and it could define entities that expand without end
        raise ValueError("the answer has a DOCTYPE")
    try:
        root = ElementTree.fromstring(body)
    except (ElementTree.ParseError, LookupError) as error:
        raise ValueError(f"the answer is no XML ({error})") from None
    if root.tag != "Response":
        raise ValueError(f"the answer is <{root.tag[:20]}>, not <Response>")
    return root


def _moved(url: str, base: str, new: str) -> str:
    """`url` with `base` replaced by `new`, when it begins with it."""
    rest = url.removeprefix(base)
    return new + rest if rest != url and rest[:1] in ("", "/", "?") else url


def _websocket(base: str) -> str:
    """http:// as ws://, https:// as wss://."""
    return "ws" + base.removeprefix("http")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
