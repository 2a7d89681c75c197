"""The browser's side of the server: the page, the socket of a call, and what is kept of it.

    GET  /                            the page, or its login
    GET  /browser/NAME                its styles and scripts
    POST /browser/login, /logout      a password for a cookie, where one is wanted
    GET  /browser/state               JSON: the checked chain, and whether a call would be taken
    POST /browser/calls               a call is wanted → {"call", "token"}, or {"error"}
    GET  /browser/ws/TOKEN            its line: `codec.py`; the token works once
    GET  /browser/calls/ID/trace      the page of a call that is over; ID is random
    GET  /browser/calls/ID/audio      its recording

Who may ask is in `access.py`. A call from a browser is a call like any other: it counts against --max-calls,
is drained, traced, and reported to the webhook.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from loguru import logger

from processors.browser.access import Access
from processors.browser.checked import BrowserAgent, Checked
from processors.browser.codec import BrowserCodec
from processors.browser.link import PageLink
from processors.browser.screen import BrowserCall, follow
from processors.browser.shelf import Shelf
from voiceflow.call import Call
from voiceflow.line.websocket import WebSocketLink
from voiceflow.record import CallResult
from voiceflow.server.admission import NotAdmitted, Promise
from voiceflow.server.server import BODY_LIMIT, Refused, Server
from voiceflow.trace import page as trace_page

PAGE, STREAM, CALLS = "/", "/browser/ws/", "/browser/calls"
FILES = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
BODY_TIMEOUT = 5.0
"""Seconds that a request's body may take to arrive."""
CALLED_LENGTH = 40
"""Characters of the number that a caller says to have called."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "media-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-store",
}


class BrowserRoutes:
    """The routes above, on a `voiceflow.server.server.Server`, which makes its pipelines through them from
    now on. `close` when no call is left. `redact` as for traces: then nothing is recorded either."""

    def __init__(self, server: Server, access: Access, *, redact: bool = False) -> None:
        self._server = server
        self._access = access
        self._shelf = Shelf(redact=redact)
        self._checked = Checked(server, server.agent)
        server.agent = BrowserAgent(server.agent, self._shelf)
        self._boot = secrets.token_hex(8)
        """A name of this process: a page sees by it that the server was started again."""
        self._started: dict[Call, str] = {}  # of the calls that the server holds
        self._files = {path.name: path for path in FILES.iterdir() if path.suffix in TYPES}
        self._files["trace.css"] = trace_page.HERE / "page.css"

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(PAGE, self.page),
            web.post("/browser/login", self.login),
            web.post("/browser/logout", self.logout),
            web.get("/browser/state", self.state),
            web.post(CALLS, self.call),
            web.get(STREAM + "{token}", self.stream),
            web.get(CALLS + "/{id}/trace", self.trace),
            web.get(CALLS + "/{id}/audio", self.audio),
            web.get("/browser/{name}", self.file),
        ]

    async def close(self) -> None:
        """Removes what was kept."""
        await self._checked.close()
        await self._shelf.close()

    # -- the page

    async def page(self, request: web.Request) -> web.StreamResponse:
        """The page, or the login."""
        self._access.check_place(request)
        known = not self._access.wants_password or self._access.knows(request)
        return self._file("talk.html" if known else "login.html")

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Styles and scripts: the same for everybody."""
        self._access.check_place(request)
        name = request.match_info["name"]
        if name not in self._files or name.endswith(".html"):
            raise web.HTTPNotFound(text="there is no such file")
        return self._file(name)

    async def login(self, request: web.Request) -> web.Response:
        self._access.check_place(request, acts=True)
        if not self._access.wants_password:
            raise web.HTTPNotFound(text="no password is wanted here")
        given = (await _body(request)).get("password")
        cookie, wait = self._access.log_in(given if isinstance(given, str) else "")
        if cookie is None and wait:
            later = str(max(1, round(wait)))
            return _json({"error": f"Too many tries: wait {later} s."}, 429, {"Retry-After": later})
        if cookie is None:
            return _json({"error": "That is not the password."}, 403)
        response = _json({})
        self._access.let_in(response, cookie)
        return response

    async def logout(self, request: web.Request) -> web.Response:
        self._access.check(request, acts=True)
        self._access.log_out(request)
        return _json({})

    async def state(self, request: web.Request) -> web.Response:
        """What the page shows before a call. `quick`: only whether the server is there."""
        self._access.check(request)
        state: dict[str, Any] = {
            "boot": self._boot,
            "ready": self._server.ready(),
            "login": self._access.wants_password,
        }
        if "quick" not in request.query:
            state |= await self._checked.look(_called(request.query.get("called")))
        return _json(state)

    # -- a call

    async def call(self, request: web.Request) -> web.Response:
        """Somebody wants to talk."""
        self._access.check(request, acts=True)
        body = await _body(request)
        to = BrowserCall(secrets.token_urlsafe(16))
        try:
            token = self._server.offer(
                BrowserCodec(),
                carrier_call=to.id,
                caller="browser",
                called=_called(body.get("called")),
                parameters={},
                carrier=to,
            )
        except Refused as refused:
            logger.warning(f"call from a browser refused: {refused}")
            return _json({"error": str(refused)}, 503)
        call = next(call for call in self._server.calls if call.carrier is to)
        self._started[call] = datetime.now(UTC).isoformat("T", "milliseconds")
        call.on_end(lambda call: self._started.pop(call, None))
        follow(call, to)
        return _json({"call": to.id, "token": token})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The line of one call."""
        self._access.check(request, acts=True)
        socket = web.WebSocketResponse(max_msg_size=BODY_LIMIT, compress=False, autoping=True, timeout=2.0)
        if request.method != "GET" or not socket.can_prepare(request).ok:
            raise web.HTTPUpgradeRequired(text="it does not open a WebSocket")
        try:
            promise = self._server.admission.claim(request.match_info["token"])
        except NotAdmitted as refused:
            logger.warning(f"{STREAM} refused: {refused}")
            kind = web.HTTPNotFound if refused.status == 404 else web.HTTPForbidden
            raise kind(text=str(refused)) from None
        to = promise.call.carrier
        if not isinstance(to, BrowserCall):
            self._server.give_up(promise, "a browser opened its stream")
            raise web.HTTPForbidden(text="that token is not a page's")
        try:
            await socket.prepare(request)
        except BaseException:
            self._server.give_up(promise, "its stream could not be opened")
            raise
        await self._talk(promise, to, PageLink(WebSocketLink(socket, request.transport)))
        return socket

    async def _talk(self, promise: Promise, to: BrowserCall, link: PageLink) -> None:
        call = promise.call
        started = self._started.get(call, "")
        to.opened(link)
        writer = asyncio.create_task(link.write(), name=f"{call.id} page")
        try:
            result = await self._server.serve(promise, link)
            self._server.outcome(promise.token, promise.carrier_call)  # nobody asks here what comes next
            link.tell(await self._over(call, to, result, started))
        finally:
            await link.finish(writer)

    async def _over(self, call: Call, to: BrowserCall, result: CallResult, started: str) -> dict[str, Any]:
        """The last message: how the call ended, and what is kept of it."""
        message: dict[str, Any] = {
            "type": "over",
            "reason": result.fault or result.reason,
            "seconds": round(result.seconds, 1),
            "normal": result.normal,
            "fallback": "" if result.normal else self._server.settings.fallback,
        }
        if not call.trace.closed:  # its stream was refused: there was no call
            return message
        try:
            kept = await self._shelf.keep(to.id, call, started)
        except Exception as error:  # a full disk, a record that cannot be made: the call itself was fine
            call.log.error(f"the page's record of it is lost: {type(error).__name__}")
            return message
        message["trace"] = f"{CALLS}/{to.id}/trace"
        if kept.audio is not None:
            message["audio"] = f"{CALLS}/{to.id}/audio"
        return message

    # -- what is kept

    async def trace(self, request: web.Request) -> web.Response:
        """The page of a call that is over, with a policy of its own inside."""
        self._access.check(request)
        kept = self._shelf.get(request.match_info["id"])
        if kept is None:
            raise web.HTTPNotFound(text="that call is not kept any more")
        text = await asyncio.to_thread(trace_page.page, kept.record)
        headers = {**HEADERS, "Content-Security-Policy": "frame-ancestors 'none'"}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def audio(self, request: web.Request) -> web.StreamResponse:
        """The recording, caller left and agent right."""
        self._access.check(request)
        kept = self._shelf.get(request.match_info["id"])
        if kept is None or kept.audio is None or not kept.audio.is_file():
            raise web.HTTPNotFound(text="there is no recording of that call any more")
        name = f"{kept.record.call}.wav"
        headers = {
            **HEADERS,
            "Content-Disposition": f'inline; filename="{name}"',
            "Content-Type": "audio/wav",
        }
        return web.FileResponse(kept.audio, headers=headers)

    # -- inside

    def _file(self, name: str) -> web.Response:
        path = self._files[name]
        return web.Response(
            body=path.read_bytes(), content_type=TYPES[path.suffix], charset="utf-8", headers=HEADERS
        )


async def _body(request: web.Request) -> dict[str, Any]:
    """A small JSON object. HTTPBadRequest when it is none."""
    if request.content_type != "application/json":  # what no form of a stranger's page can send
        raise web.HTTPUnsupportedMediaType(text="its body is not application/json")
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            body = json.loads(await request.read())
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="its body did not come") from None
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(text="its body is not JSON") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="its body is not an object")
    return body


def _called(given: Any) -> str:
    """A number, or the name of one, as far as it is printable and short."""
    return given[:CALLED_LENGTH] if isinstance(given, str) and given.isprintable() else ""


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers={**HEADERS, **(headers or {})})
