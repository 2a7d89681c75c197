"""Twilio's side of the server: the webhook, the media WebSocket, and what the caller hears afterwards.

    POST /twilio/voice          a call came in → TwiML that connects it to the stream below
    GET  /twilio/ws/TOKEN       the media stream of one call
    POST /twilio/after/TOKEN    the stream is over and the caller still there → hang up, or the fallback

Every request is checked against X-Twilio-Signature when an auth token is configured, the upgrade to a
WebSocket too, over the configured public URL: what a proxy says of itself is not believed.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import web
from loguru import logger
from multidict import MultiMapping

from processors.twilio import twiml
from processors.twilio.codec import TwilioCodec
from processors.twilio.signature import SETTINGS_HEADER, SIGNATURE_HEADER, valid
from voiceflow.admission import NotAdmitted
from voiceflow.server import BODY_LIMIT, Refused, Server
from voiceflow.websocket import WebSocketLink

VOICE, STREAM, AFTER = "/twilio/voice", "/twilio/ws/", "/twilio/after/"


class TwilioRoutes:
    """The three routes, on a `voiceflow.server.Server`. Without `auth_token` nothing is verified: then the
    server must listen on loopback only, which `voiceflow run` sees to."""

    def __init__(self, server: Server, *, auth_token: str | None) -> None:
        self._server = server
        self._auth_token = auth_token or None

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(VOICE, self.voice),
            web.get(STREAM + "{token}", self.stream),
            web.post(AFTER + "{token}", self.after),
        ]

    async def voice(self, request: web.Request) -> web.Response:
        """A call came in."""
        form = await self._form(request)
        carrier_call = _text(form, "CallSid")
        if not carrier_call:
            logger.warning("webhook refused: it names no CallSid")
            raise web.HTTPBadRequest(text="CallSid is missing")
        try:
            token = self._server.offer(
                TwilioCodec(),
                carrier_call=carrier_call,
                caller=_text(form, "From"),
                called=_text(form, "To"),
                parameters={},
            )
        except Refused as refused:
            logger.warning(f"call refused: {refused}")
            return _twiml(self._fallback(refused.spoken))
        base = self._base(request)
        stream = f"ws{base.removeprefix('http')}{STREAM}{token}"
        return _twiml(twiml.connect_stream(stream, f"{base}{AFTER}{token}", {}))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The media stream of one call."""
        self._verify(request, "ws" + self._url(request).removeprefix("http"), {})
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise web.HTTPUpgradeRequired(text="this is a WebSocket")
        try:
            promise = self._server.admission.claim(request.match_info["token"])
        except NotAdmitted as refused:
            logger.warning(f"stream refused: {refused}")
            raise _refusal(refused) from None
        socket = web.WebSocketResponse(max_msg_size=BODY_LIMIT, compress=False, autoping=True, timeout=2.0)
        await socket.prepare(request)
        await self._server.serve(promise, WebSocketLink(socket))
        return socket

    async def after(self, request: web.Request) -> web.Response:
        """The stream is over and the caller is still there."""
        form = await self._form(request)
        result = self._server.outcome(request.match_info["token"], _text(form, "CallSid"))
        if result is not None and result.normal:
            return _twiml(twiml.hangup())
        logger.warning(
            "a caller gets the fallback: " + (result.reason if result else "the call is not known here")
        )
        return _twiml(self._fallback(self._server.settings.fallback))

    # -- inside

    def _fallback(self, spoken: str) -> str:
        settings = self._server.settings
        if spoken == settings.fallback and settings.fallback_number:
            return twiml.dial(settings.fallback_number)
        return twiml.say_and_hangup(spoken)

    async def _form(self, request: web.Request) -> MultiMapping[str]:
        """The body as a form, its signature verified."""
        try:
            form = await request.post()
        except ValueError:
            raise web.HTTPBadRequest(text="the body is not a form") from None
        texts = [(name, value) for name, value in form.items() if isinstance(value, str)]
        self._verify(request, self._url(request), texts)
        return form  # type: ignore[return-value]  # files are refused by _text

    def _verify(self, request: web.Request, url: str, params: dict[str, str] | list[tuple[str, str]]) -> None:
        if self._auth_token is None:
            return
        signature = request.headers.get(SIGNATURE_HEADER, "")
        settings = request.headers.get(SETTINGS_HEADER, "")
        if not valid(self._auth_token, url, params, signature, settings=settings):
            logger.warning(
                f"{request.method} {_shown(request.path)} refused: "
                + ("its X-Twilio-Signature is wrong" if signature else "it has no X-Twilio-Signature")
                + f" for {urlsplit(url).scheme}://{urlsplit(url).netloc}; is --public-url what Twilio calls?"
            )
            raise web.HTTPForbidden(text="the signature does not match")

    def _base(self, request: web.Request) -> str:
        """Where Twilio reaches us, without a slash at the end."""
        public = self._server.settings.public_url
        return public.rstrip("/") if public else f"http://{request.host}"

    def _url(self, request: web.Request) -> str:
        return self._base(request) + request.raw_path


def _text(form: MultiMapping[str], name: str) -> str:
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def _twiml(document: str) -> web.Response:
    return web.Response(text=document, content_type=twiml.CONTENT_TYPE)


def _refusal(refused: NotAdmitted) -> web.HTTPException:
    return (
        web.HTTPNotFound(text=str(refused)) if refused.status == 404 else web.HTTPForbidden(text=str(refused))
    )


def _shown(path: str) -> str:
    """A path for the log, without its token."""
    return next((known + "…" for known in (STREAM, AFTER) if path.startswith(known)), path[:60])
