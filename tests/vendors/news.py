"""What happens at the fakes, a line each, for people who watch."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Protocol

from rich.console import Console
from rich.text import Text

from tests.vendors.openai import FakeOpenAI
from tests.vendors.server import Vendors
from tests.vendors.twilio import FakeTwilio

LATEST = 20
"""Records that are looked at for news."""
COLOURS = {"twilio": "red", "flux": "cyan", "llm": "yellow", "elevenlabs": "green", "aura": "green"}


@asynccontextmanager
async def following(vendors: Vendors, console: Console) -> AsyncIterator[None]:
    """Prints what happens while the block runs."""
    began = time.monotonic()

    def show(vendor: str, what: str, detail: str) -> None:
        text = Text.assemble(
            (f"{time.monotonic() - began:8.2f} s  ", "dim"),
            (f"{vendor:<11}", COLOURS[vendor]),
            (f"{what:<10} ", "bold"),
            " ".join(detail.split()),
        )
        console.print(text)

    vendors.watch(show)
    followers = [
        asyncio.create_task(_follow("llm", vendors.llm, lambda: _llm_news(vendors.llm), show)),
        asyncio.create_task(_follow("twilio", vendors.twilio, lambda: _twilio_news(vendors.twilio), show)),
    ]
    try:
        yield
    finally:
        for follower in followers:
            follower.cancel()
        await asyncio.wait(followers)


# -- the two that do not tell by themselves

News = Iterator[tuple[object, str, str]]
"""Records as (an identity, what, detail)."""


class Recording(Protocol):
    async def until(self, condition: Callable[[], object], timeout: float = ...) -> None: ...


async def _follow(
    name: str, fake: Recording, news: Callable[[], News], show: Callable[[str, str, str], None]
) -> None:
    """Shows each record once."""
    seen: deque[object] = deque(maxlen=10 * LATEST)
    while True:
        await fake.until(lambda: any(identity not in seen for identity, _, _ in news()), timeout=1e6)
        for identity, what, detail in news():
            if identity not in seen:
                seen.append(identity)
                show(name, what, detail)


def _llm_news(llm: FakeOpenAI) -> News:
    for connection in llm.connections[-LATEST:]:
        yield ("opened", connection.number), "connected", f"connection {connection.number}"
    for asked in llm.requests[-LATEST:]:
        asking = [message for message in asked.messages if message.get("role") == "user"]
        yield (
            ("asked", id(asked)),
            "prompt",
            str(asking[-1].get("content")) if asking else "(no user message)",
        )
        if asked.how:
            how = "" if asked.how == "finished" else f"  ({asked.how} after {len(asked.sent)} tokens)"
            answer = asked.text or f"HTTP {asked.status}"
            yield ("answered", id(asked)), "answered", answer + how


def _twilio_news(twilio: FakeTwilio) -> News:
    for request in list(twilio.requests)[-LATEST:]:
        if request.method == "GET" and request.status == 200:  # somebody looks how a call is doing
            continue
        path = request.path.rpartition("/")[2]
        yield ("request", id(request)), "request", f"{request.method} {path}: HTTP {request.status}"
    for call in twilio.calls[-LATEST:]:
        for at, status in call.history:
            error = f"  ({call.error})" if call.error and status == call.status else ""
            yield ("call", call.sid, at, status), "call", f"{call.given('To')} {status}{error}"
