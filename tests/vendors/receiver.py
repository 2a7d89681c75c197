"""A fake receiver of webhooks, on real sockets. It checks signatures by itself, with the standard library and
nothing of ours, as the Standard Webhooks specification says.

    receiver = FakeReceiver(SECRET)
    receiver.script += [Reply(500), Hang(), Drop(), Reply(429, {"Retry-After": "7"})]    # then 204
    async with Serving(receiver) as serving:
        ... serving.url + PATH ...
        await receiver.until(2)                        # requests
        assert receiver.events() == [...]              # the bodies that it took
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

PATH = "/calls"
MOST_KEPT = 1000
"""Requests that are remembered; the oldest go first."""


@dataclass(slots=True, frozen=True)
class Reply:
    """An answer. `endless`: its body never ends."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    endless: bool = False


@dataclass(slots=True, frozen=True)
class Hang:
    """No answer, until the receiver is closed."""


@dataclass(slots=True, frozen=True)
class Drop:
    """The connection is closed without an answer; `after`: after it was taken, so that we cannot know."""

    after: bool = False


@dataclass(slots=True, frozen=True)
class Request:
    """What came. `at` on `loop.time()`."""

    at: float
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    genuine: bool
    """Whether it is signed with the secret, for this body."""
    taken: bool

    @property
    def id(self) -> str:
        return self.headers.get("webhook-id", "")

    @property
    def event(self) -> Any:
        return json.loads(self.body)


class FakeReceiver:
    """Does what is next in `script`, and takes what comes when that is empty."""

    def __init__(self, secret: str) -> None:
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self.script: deque[Reply | Hang | Drop] = deque()
        self.always: Reply | Hang | Drop = Reply()
        """What happens when the script is empty."""
        self.requests: deque[Request] = deque(maxlen=MOST_KEPT)
        self.strays: list[str] = []
        """Requests that are no POST to PATH."""
        self.open = 0
        """Requests that are not answered yet."""
        self.most_open = 0
        self._news = asyncio.Event()
        self._over = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        return [web.post(PATH, self._take), web.route("*", "/{rest:.*}", self._stray)]

    async def close(self) -> None:
        self._over.set()

    def events(self) -> list[Any]:
        """The bodies that it took, one for each id: it keeps those that it knows."""
        return [r.event for r in {r.id: r for r in self.requests if r.taken and r.genuine}.values()]

    async def until(self, requests: int, limit: float = 10.0) -> list[Request]:
        """Waits until so many have come."""
        async with asyncio.timeout(limit):
            while len(self.requests) < requests:
                self._news.clear()
                await self._news.wait()
        return list(self.requests)

    async def _take(self, request: web.Request) -> web.StreamResponse:
        doing = self.script.popleft() if self.script else self.always
        body = await request.content.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        taken = (isinstance(doing, Reply) and 200 <= doing.status < 300) or doing == Drop(after=True)
        at = asyncio.get_running_loop().time()
        self.requests.append(Request(at, headers, body, self._genuine(headers, body), taken))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self._news.set()
        try:
            return await self._answer(request, doing)
        finally:
            self.open -= 1

    async def _answer(self, request: web.Request, doing: Reply | Hang | Drop) -> web.StreamResponse:
        if isinstance(doing, Hang):
            await self._over.wait()
        if not isinstance(doing, Reply):
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if not doing.endless:
            return web.Response(status=doing.status, headers=doing.headers, body=doing.body)
        response = web.StreamResponse(status=doing.status, headers=doing.headers)
        await response.prepare(request)
        while not self._over.is_set():  # until the client has gone: write() raises then
            await response.write(b"x" * 65_536)
            await asyncio.sleep(0)
        return response

    async def _stray(self, request: web.Request) -> web.Response:
        self.strays.append(f"{request.method} {request.path}")
        return web.Response(status=404)

    def _genuine(self, headers: Mapping[str, str], body: bytes) -> bool:
        signed = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
        digest = base64.b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{digest}" in headers.get("webhook-signature", "").split(" ")
