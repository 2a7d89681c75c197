"""Who may open the page, and who may talk.

    a server that only this machine reaches    no password; the Host header must name this machine, so
                                               that no stranger's page gets here by a name of its own
    any other                                  a password, then a cookie

Everything that does something, the socket too, must come from the page itself: its Origin must be the host
that was asked. Wrong passwords cost tokens of one small bucket, whoever sends them; who is in already needs
none.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from aiohttp import web
from loguru import logger

from voiceflow.errors import VoiceflowError
from voiceflow.server.listener import LOOPBACK

COOKIE = "voiceflow_dashboard"
SESSION_SECONDS = 12 * 3600.0
SESSIONS_BOUND = 64
"""Browsers that are logged in at the same time; the oldest is forgotten."""
SHORTEST = 8
"""Characters of a password."""
TRIES = 5
"""Wrong passwords in a row that are answered at once."""
TRY_SECONDS = 3.0
"""After which another is allowed."""
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "CF-Connecting-IP", "X-Real-IP")
"""Headers of a proxy: whoever comes through one is not on this machine."""


class Access:
    """`password` empty: for this machine only. `public_url` is where a proxy is reached, if there is one.

    VoiceflowError for a password that is too short to be one.
    """

    def __init__(
        self, *, password: str = "", public_url: str = "", clock: Callable[[], float] | None = None
    ) -> None:
        if password and len(password) < SHORTEST:
            raise VoiceflowError(
                f"the dashboard's password has {len(password)} characters: use at least {SHORTEST}"
            )
        self.wants_password = bool(password)
        self._password = _digest(password)
        self._public = urlsplit(public_url).netloc.lower()
        self._secure = public_url.startswith("https:")
        self._clock = clock or _loop_time
        self._sessions: OrderedDict[str, float] = OrderedDict()
        """Digests of the cookies, and until when they are good."""
        self._tries = float(TRIES)
        self._tried = 0.0

    def check(self, request: web.Request, *, acts: bool = False) -> None:
        """Raises HTTPForbidden for a request that must not come here, HTTPUnauthorized for one that has to
        log in first. `acts`: it does something, so it must come from the page."""
        self.check_place(request, acts=acts)
        if self.wants_password and not self.knows(request):
            raise web.HTTPUnauthorized(text="log in first")

    def check_place(self, request: web.Request, *, acts: bool = False) -> None:
        """The half of `check` that needs no login."""
        if not self.wants_password:
            if _hostname(request.host) not in LOOPBACK:
                raise _refused(
                    request, "its Host header names another machine: open http://127.0.0.1 or localhost"
                )
            if any(name in request.headers for name in FORWARDED):
                raise _refused(request, "it came through a proxy: that needs --dashboard with a password")
        if acts and not self._from_page(request):
            raise _refused(request, "it does not come from the page")

    def knows(self, request: web.Request) -> bool:
        """Whether the request has the cookie of somebody who logged in."""
        until = self._sessions.get(_digest(request.cookies.get(COOKIE, "")).hex(), 0.0)
        return self._clock() < until

    def log_in(self, given: str) -> tuple[str | None, float]:
        """A cookie for the right password. Without one: seconds after which to try again, 0 for at once."""
        now = self._clock()
        self._tries = min(float(TRIES), self._tries + (now - self._tried) / TRY_SECONDS)
        self._tried = now
        if self._tries < 1:
            return None, (1 - self._tries) * TRY_SECONDS
        if not hmac.compare_digest(_digest(given), self._password):
            self._tries -= 1
            logger.warning("dashboard: a wrong password")
            return None, 0.0
        cookie = secrets.token_urlsafe(32)
        self._sessions[_digest(cookie).hex()] = now + SESSION_SECONDS
        while len(self._sessions) > SESSIONS_BOUND:
            self._sessions.popitem(last=False)
        return cookie, 0.0

    def let_in(self, response: web.StreamResponse, cookie: str) -> None:
        """Gives a browser its cookie."""
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=int(SESSION_SECONDS),
            httponly=True,
            samesite="Strict",
            secure=self._secure,
        )

    def log_out(self, request: web.Request) -> None:
        """Forgets a browser."""
        self._sessions.pop(_digest(request.cookies.get(COOKIE, "")).hex(), None)

    def _from_page(self, request: web.Request) -> bool:
        """A proxy may have put its own name for us into Host; the browser's stands in Origin."""
        origin = urlsplit(request.headers.get("Origin", ""))
        if origin.scheme not in ("http", "https") or not origin.netloc:
            return False
        return origin.netloc.lower() in {request.host.lower(), self._public} - {""}


def dashboard(*, wanted: bool | None, password: str, host: str, public_url: str) -> Access | None:
    """Who may open the page of a server that listens on `host`; None when it is off. Unless somebody says
    what is `wanted`, it is on where only this machine comes: no other address, no public URL that leads here.

    VoiceflowError when it is wanted in public without a password.
    """
    elsewhere = bool(public_url) and _hostname(urlsplit(public_url).netloc) not in LOOPBACK
    private = host in LOOPBACK and not elsewhere
    if wanted is False or (wanted is None and not private):
        return None
    if not private and not password:
        raise VoiceflowError(
            "--dashboard would let whoever finds this server talk on your account: set a password with "
            "VOICEFLOW_DASHBOARD_PASSWORD"
        )
    return Access(password=password, public_url=public_url)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _digest(text: str) -> bytes:
    """So that what is compared has one length; cookies are kept as this only."""
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # half an IPv6 address
        return ""


def _refused(request: web.Request, why: str) -> web.HTTPForbidden:
    logger.warning(f"the page refused a request: {why}")
    return web.HTTPForbidden(text=why)
