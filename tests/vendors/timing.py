"""Absolute times: whoever waits for them adds no delay to the next."""

from __future__ import annotations

import asyncio


async def sleep_until(when: float | None, unless: asyncio.Event | None = None) -> None:
    """Waits for a `loop.time()`, to the last bit, or for the event, if sooner. None: for ever."""
    if when is not None and when <= asyncio.get_running_loop().time():
        return
    try:
        async with asyncio.timeout_at(when):
            await (unless or asyncio.Event()).wait()
    except TimeoutError:
        pass
