"""One try: a POST over the network, bounded in time, and what its answer means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import aiohttp
from yarl import URL

from voiceflow.errors import LinkError
from voiceflow.line.proxies import proxy_for
from voiceflow.version import __version__
from voiceflow.webhook.endpoint import Endpoint
from voiceflow.webhook.retry import Answer, advice, retry_after
from voiceflow.webhook.signature import headers

TIMEOUT = 15.0
"""Seconds for one try, from the name's look-up to the answer's headers; 15 to 30 are advised."""

OURS = {"Content-Type": "application/json", "User-Agent": f"voiceflow/{__version__}"}

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[Answer]]
"""`await post(url, headers, body)`. LinkError when there was no answer."""


async def post(url: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """The live one. By the proxy of the environment; redirects are not followed, and of the answer's body
    nothing is read: what has not come with the headers ends with the connection.

    A connection each: minutes lie between two calls, and an idle one may be dead by then.
    """
    try:
        async with (
            asyncio.timeout(TIMEOUT),
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),  # ours counts
            ) as http,
            http.post(
                URL(url, encoded=True),
                data=body,
                headers={**OURS, **headers},
                proxy=proxy_for(url),
                allow_redirects=False,
            ) as response,
        ):
            return Answer(response.status, response.headers.get("Retry-After", ""))
    except TimeoutError:
        raise LinkError(f"it did not answer within {TIMEOUT:g} s") from None
    except Exception as error:
        # Whatever it is: its text, or a traceback with variables, may hold the address and what was said.
        raise LinkError(f"it cannot be reached ({type(error).__name__})") from None


@dataclass(slots=True, frozen=True)
class Tried:
    """How a try went. `problem` is empty when the event was taken; `final` when no other try would help;
    `asked` are the seconds that the receiver wants to be left alone."""

    problem: str = ""
    final: bool = False
    asked: float = 0.0


async def attempt(send: Post, endpoint: Endpoint, id: str, body: bytes, now: Callable[[], datetime]) -> Tried:
    """One try. Signed anew, as a receiver looks at how old a signature is. Quotes nothing of the answer: a
    receiver may repeat what it was sent."""
    signed = headers(endpoint.secrets, id, int(now().timestamp()), body)
    try:
        answer = await send(endpoint.url, signed, body)
    except LinkError as error:
        return Tried(f"{endpoint.host}: {error}")
    if answer.taken:
        return Tried()
    problem = f"{endpoint.host} answered HTTP {answer.status}"
    if answer.temporary:
        return Tried(problem, asked=retry_after(answer.retry_after, now()))
    return Tried(f"{problem}: {advice(answer.status)}", final=True)
