"""Delivers the events of calls that are over, beside the calls that go on.

    ended(call) ──▶ made, kept on disk ──▶ POST ──▶ taken: the file is removed
                    off the event loop       ▲ │
                                             └─┘ no answer, 429, 5xx ...: again, later, with the same id

Nobody waits for it: the call's end costs one task. Bounded in number, in time, and when the process stops.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from voiceflow.webhook.endpoint import Endpoint
from voiceflow.webhook.event import event_of, to_json
from voiceflow.webhook.post import Post, attempt, post
from voiceflow.webhook.retry import Retry
from voiceflow.webhook.spool import Spool

if TYPE_CHECKING:
    from loguru import Logger

    from voiceflow.call import Call

WAITING_BOUND = 1000
"""Events that wait to be taken, about 20 KB each. As many more are only kept on disk, then they are lost."""
AT_ONCE = 8
"""Tries at the same time."""
CLOSING = 10.0
"""Seconds for what is not delivered when the process stops."""
CLOSING_PAUSE = 1.0
"""Seconds between two tries then."""
CLEANING = 2.0
"""Seconds tries that are broken off may take to end."""


def _now() -> datetime:
    """The clock on the wall: what signatures and labels are dated by. Pauses are measured with the loop's."""
    return datetime.now(UTC)


@dataclass(slots=True)
class _Event:
    """One event on its way."""

    call: str
    id: str
    ended: datetime
    body: bytes
    chance: random.Random
    log: Logger
    path: Path | None = None
    """Its file, if it is kept."""


class WebhookDelivery:
    """One per process and address. `ended(call)` when a call is over; `close()` when no call is left.

    `spool`: a folder in which events are kept until they are taken; without one they are lost with the
    process. `send`, `retry` and `now` are for tests.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        redact: bool = False,
        spool: Spool | None = None,
        send: Post = post,
        retry: Retry | None = None,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self.endpoint = endpoint
        self.redact = redact
        self.spool = spool
        self.delivered = self.failed = self.retries = 0
        self._post = send
        self._retry = retry or Retry()
        self._now = now
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: WeakSet[Call] = WeakSet()
        self._making = asyncio.Semaphore(1)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._closing = asyncio.Event()

    @property
    def name(self) -> str:
        return f"webhook {self.endpoint.host}"

    def figures(self) -> dict[str, float]:
        return {
            "delivered": self.delivered,
            "failed": self.failed,
            "retries": self.retries,
            "waiting": len(self._tasks),
        }

    def ended(self, call: Call) -> None:
        """A call is over, and its trace is closed: an end hook of a call. Never waits. Of two hooks with the
        same settings, one in the pipeline file and one of the command line, the second does nothing."""
        if call in self._told:
            return
        self._told.add(call)
        waiting = len(self._tasks)
        if waiting >= (WAITING_BOUND if self.spool is None else 2 * WAITING_BOUND):
            self.failed += 1
            call.log.error(f"its webhook is lost: {waiting} wait for {self.endpoint.host}")
            return
        id = f"msg_{secrets.token_hex(16)}"  # not of the call's randomness: no two may ever be the same
        chance = random.Random(call.random.getrandbits(64))
        work = self._deliver(call, id, self._now(), chance, send=waiting < WAITING_BOUND)
        task = asyncio.get_running_loop().create_task(work, name=f"webhook {call.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Tries once more at once what waits, and gives all together CLOSING seconds."""
        self._closing.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING)
        if left := list(self._tasks):
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=CLEANING)

    # -- one event

    async def _deliver(
        self, call: Call, id: str, ended: datetime, chance: random.Random, *, send: bool
    ) -> None:
        log, path = call.log, None
        try:
            event = await self._make(call, id, ended, chance)
            del call  # what it holds is not needed while we wait
            path = event.path
            problem = await self._send(event) if send else f"{WAITING_BOUND} wait for {self.endpoint.host}"
        except asyncio.CancelledError:
            self._give_up(log, path, "the process stops")
            raise
        except Exception as error:  # a fault of ours must not pass unseen
            log.opt(exception=error).error("its webhook failed")
            problem = type(error).__name__
        if problem:
            self._give_up(log, path, problem)
            return
        self.delivered += 1
        log.debug(f"webhook delivered to {self.endpoint.host}")
        if path is not None:
            with suppress(OSError):
                await asyncio.to_thread(path.unlink)

    async def _make(self, call: Call, id: str, ended: datetime, chance: random.Random) -> _Event:
        """The event, and its file. One at a time: it is work for the interpreter, and calls go on."""
        make = partial(event_of, call, id=id, ended=ended, redact=self.redact)
        async with self._making:
            body = await asyncio.to_thread(lambda: to_json(make()))
            event = _Event(call.id, id, ended, body, chance, call.log)
            if self.spool is not None:
                try:
                    event.path = await asyncio.to_thread(self.spool.keep, id, call.id, ended, body)
                except OSError as error:
                    call.log.error(f"its webhook cannot be kept in {self.spool.path}: {error.strerror}")
        return event

    async def _send(self, event: _Event) -> str:
        """Tries until it is taken; returns why it was not, empty when it was."""
        tried = 0
        while True:
            async with self._room:
                last = await attempt(self._post, self.endpoint, event.id, event.body, self._now)
            tried += 1
            if not last.problem or last.final:
                return last.problem
            if tried >= self._retry.tries:
                return f"{last.problem}; it was tried {tried} times"
            if tried == 1:
                event.log.warning(f"webhook: {last.problem}; it is tried again")
            if not self._closing.is_set():
                await self._pause(max(last.asked, self._retry.pause(tried, event.chance)))
            else:
                await asyncio.sleep(CLOSING_PAUSE)
            if self._closing.is_set() and last.asked:  # for more time than there is
                return last.problem
            self.retries += 1

    async def _pause(self, seconds: float) -> None:
        """Waits, until the process stops at the latest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _give_up(self, log: Logger, path: Path | None, problem: str) -> None:
        self.failed += 1
        kept = f"it is kept: voiceflow webhook resend {path.parent}" if path is not None else "it is lost"
        log.error(f"its webhook was not delivered: {problem}; {kept}")
