"""Twilio's side of the server: the webhook, the media WebSocket, and what the caller hears afterwards.

    POST /twilio/voice          a call came in → TwiML that connects it to the stream below
    GET  /twilio/ws/TOKEN       the media stream of one call, or the next one of a live call
    POST /twilio/after/TOKEN    the stream is over and the caller still there → hang up, or the fallback

Every request is checked against X-Twilio-Signature when an auth token is configured, the upgrade to a
WebSocket too, over the configured public URL: what a proxy says of itself is not believed.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from urllib.parse import parse_qsl
from weakref import WeakValueDictionary

import aiohttp
from aiohttp import web
from loguru import logger

from processors.twilio import twiml
from processors.twilio.codec import TwilioCodec
from processors.twilio.live import LiveCall
from processors.twilio.signature import SETTINGS_HEADER, SIGNATURE_HEADER, valid
from voiceflow.errors import VoiceflowError
from voiceflow.line.websocket import WebSocketLink
from voiceflow.server.admission import NotAdmitted
from voiceflow.server.server import BODY_LIMIT, Refused, Server

VOICE, STREAM, AFTER = "/twilio/voice", "/twilio/ws/", "/twilio/after/"
FORM = "application/x-www-form-urlencoded"
BODY_TIMEOUT = 5.0
"""Seconds a webhook's body may take to arrive."""
MOST_FIELDS = 1000
"""Fields of a form; Twilio sends about forty."""
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


class TwilioRoutes:
    """The three routes, on a `voiceflow.server.server.Server`. Without `auth_token` nothing is verified: then
    the server must listen on loopback only, which `voiceflow run` sees to. VoiceflowError for a fallback
    number that cannot be dialled."""

    def __init__(self, server: Server, *, auth_token: str | None) -> None:
        self._server = server
        self._auth_token = auth_token or None
        self._live: WeakValueDictionary[str, LiveCall] = WeakValueDictionary()  # as long as their calls
        number = server.settings.fallback_number
        try:
            self._broken = twiml.dial(number) if number else twiml.say_and_hangup(server.settings.fallback)
        except ValueError as error:
            raise VoiceflowError(f"the fallback number cannot be dialled: {error}") from None

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(VOICE, self.voice),
            web.get(STREAM + "{token}", self.stream),
            web.post(AFTER + "{token}", self.after),
        ]

    async def voice(self, request: web.Request) -> web.Response:
        """A call came in."""
        form = await self._form(request)
        carrier_call = form.get("CallSid", "")
        if not carrier_call:
            raise _refusal(web.HTTPBadRequest, VOICE, "it names no CallSid")
        live = LiveCall(self._server, partial(_addresses, self._base(request)))
        try:
            live.token = self._server.offer(
                TwilioCodec(),
                carrier_call=carrier_call,
                caller=form.get("From", ""),
                called=form.get("To", ""),
                parameters={},
                carrier=live,
            )
        except Refused as refused:
            logger.warning(f"call refused: {refused}")
            broken = refused.spoken == self._server.settings.fallback
            return _twiml(self._broken if broken else twiml.say_and_hangup(refused.spoken))
        self._live[carrier_call] = live
        return _twiml(twiml.connect_stream(*live.addresses(live.token), {}))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The media stream of one call."""
        self._verify(request, "ws" + self._url(request).removeprefix("http"), {})
        socket = web.WebSocketResponse(max_msg_size=BODY_LIMIT, compress=False, autoping=True, timeout=2.0)
        if request.method != "GET" or not socket.can_prepare(request).ok:
            raise _refusal(web.HTTPUpgradeRequired, STREAM, "it does not open a WebSocket")
        try:
            promise = self._server.admission.claim(request.match_info["token"])
        except NotAdmitted as refused:
            kind = web.HTTPNotFound if refused.status == 404 else web.HTTPForbidden
            raise _refusal(kind, STREAM, str(refused)) from None
        try:
            await socket.prepare(request)
        except BaseException:
            self._server.give_up(promise, "its stream could not be opened")
            raise
        link = WebSocketLink(socket, request.transport)
        await (self._server.follow(promise, link) if promise.next else self._server.serve(promise, link))
        return socket

    async def after(self, request: web.Request) -> web.Response:
        """The stream is over and the caller is still there."""
        form = await self._form(request)
        token, carrier_call = request.match_info["token"], form.get("CallSid", "")
        result = self._server.outcome(token, carrier_call)
        live = self._live.get(carrier_call)
        if live is not None and (document := live.then(token)) is not None:
            return _twiml(document)  # it was redirected, after which Twilio should not have asked
        if result is not None and result.normal:
            return _twiml(twiml.hangup())
        logger.warning(
            "a caller gets the fallback: " + (result.reason if result else "the call is not known here")
        )
        return _twiml(self._broken)

    # -- inside

    async def _form(self, request: web.Request) -> dict[str, str]:
        """The body as a form, its signature verified. Read here, not by aiohttp, which would also take
        files, and any character set that Python knows."""
        where = _shown(request.path)
        if request.content_type != FORM or (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
            raise _refusal(web.HTTPUnsupportedMediaType, where, f"its body is not {FORM} in UTF-8")
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                body = await request.read()
            fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except web.HTTPRequestEntityTooLarge:
            raise _refusal(_TooLarge, where, f"its body is over {BODY_LIMIT // 1024} KiB") from None
        except TimeoutError:
            raise _refusal(
                web.HTTPRequestTimeout, where, f"its body did not come within {BODY_TIMEOUT:g} s"
            ) from None
        except (ValueError, web.RequestPayloadError, aiohttp.ClientError, ConnectionError):
            raise _refusal(web.HTTPBadRequest, where, "its body is not a form") from None
        self._verify(request, self._url(request), fields)
        return dict(fields)

    def _verify(self, request: web.Request, url: str, params: dict[str, str] | list[tuple[str, str]]) -> None:
        if self._auth_token is None:
            return
        signature = request.headers.get(SIGNATURE_HEADER, "")
        settings = request.headers.get(SETTINGS_HEADER, "")
        if not valid(self._auth_token, url, params, signature, settings=settings):
            what = "its X-Twilio-Signature is wrong" if signature else "it has no X-Twilio-Signature"
            hint = f" for {url.partition('/twilio/')[0]}: is --public-url what Twilio calls?"
            raise _refusal(web.HTTPForbidden, _shown(request.path), what, hint)

    def _base(self, request: web.Request) -> str:
        """Where Twilio reaches us, without a slash at the end."""
        if public := self._server.settings.public_url:
            return public.rstrip("/")
        if not _HOST.fullmatch(request.host):
            raise _refusal(web.HTTPBadRequest, _shown(request.path), "its Host header names no host")
        return f"http://{request.host}"

    def _url(self, request: web.Request) -> str:
        return self._base(request) + request.raw_path


def _addresses(base: str, token: str) -> tuple[str, str]:
    """The URLs of a stream and of its `action`."""
    return f"ws{base.removeprefix('http')}{STREAM}{token}", f"{base}{AFTER}{token}"


def _refusal(kind: type[web.HTTPException], path: str, reason: str, hint: str = "") -> web.HTTPException:
    """The answer to a request that is refused, and the one log line about it."""
    logger.warning(f"{path} refused: {reason}{hint}")
    return kind(text=reason)


class _TooLarge(web.HTTPClientError):
    """413 without the sizes that aiohttp's own wants to be told."""

    status_code = 413


def _twiml(document: str) -> web.Response:
    return web.Response(text=document, content_type=twiml.CONTENT_TYPE)


def _shown(path: str) -> str:
    """A route for the log, without its token."""
    return next((known for known in (STREAM, AFTER) if path.startswith(known)), VOICE)
