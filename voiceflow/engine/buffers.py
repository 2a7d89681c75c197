"""Every buffer has a bound, a name, a policy and a depth that can be read."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from typing import Protocol


class Policy(enum.Enum):
    """What happens to a buffer that passes its hard bound."""

    DROP_OLDEST = "drops the oldest"
    END_CALL = "ends the call"


@dataclass(slots=True, frozen=True)
class Depth:
    """One buffer, read at one moment. `depth`, `peak` and `bound` count what `unit` says."""

    name: str
    depth: int
    peak: int
    bound: int
    policy: Policy
    dropped: int = 0
    unit: str = "frames"


class Pressure(Protocol):
    """A buffer that a producer may have to wait for. `index` is the position of the processor it feeds:
    producers wait only for buffers further down the chain, so that no two can wait for each other, and only
    for those of their own `lane` (as the pump counts them), so that the caller never waits for the agent."""

    @property
    def index(self) -> int: ...

    @property
    def lane(self) -> int: ...

    async def relieved(self) -> None:
        """Returns once the buffer is below its mark, or gone."""
        ...


class Relief:
    """The waiting half of a buffer: producers wait here until it is below its mark again."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def wake(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
