"""What the fake Twilio knows of calls: what was asked for, what became of it, and who was told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from processors.twilio.simulated.caller import SimulatedCaller
from processors.twilio.simulated.report import CallReport

MOST_ORDERS = 10
"""Orders that a call has not followed yet; more get 429."""
ENDED = ("completed", "busy", "no-answer", "failed", "canceled")

Form = list[tuple[str, str]]


@dataclass(slots=True, frozen=True)
class Outcome:
    """What becomes of a call, in seconds: `queued` before it rings, `rings` until it is answered, or until it
    turns out `busy`, `failed` or `no-answer`. The request's Timeout ends the ringing before that. A call that
    nobody is simulated for `lasts` so long."""

    end: Literal["completed", "busy", "no-answer", "failed"] = "completed"
    queued: float = 0.05
    rings: float = 0.2
    lasts: float = 1.0


@dataclass(slots=True, frozen=True)
class Asked:
    """One request. `form` is the body of a POST, the query of a GET; the credentials are not kept."""

    at: float
    method: str
    path: str
    form: Form
    status: int


@dataclass(slots=True, frozen=True)
class Callback:
    """One status callback. `status` is how it was answered, 0 for not at all."""

    at: float
    url: str
    form: dict[str, str]
    status: int


@dataclass(slots=True, eq=False)
class PlacedCall:
    """One call that was asked for. Times are `loop.time()`."""

    sid: str
    form: Form
    outcome: Outcome
    document: str = ""
    """Where its first TwiML is."""
    history: list[tuple[float, str]] = field(default_factory=list)
    """Each status with its time."""
    updates: list[dict[str, str]] = field(default_factory=list)
    reports: list[CallReport] = field(default_factory=list)
    """What happened on the line: one, when whoever picks up is simulated."""
    phone: SimulatedCaller | None = None
    """Somebody who has called one of the numbers, and follows orders themselves."""
    error: str = ""
    """Why the line could not be followed to its end: no TwiML, a stream that was refused."""
    orders: asyncio.Queue[str] = field(default_factory=lambda: asyncio.Queue(MOST_ORDERS))
    """Empty: hang up. Else the address of the TwiML to go on with."""
    posted: int = 0

    @property
    def status(self) -> str:
        return self.history[-1][1]

    @property
    def over(self) -> bool:
        return self.status in ENDED

    @property
    def seconds(self) -> int:
        """From the answer to the end, or until now."""
        answered = next((at for at, status in self.history if status == "in-progress"), None)
        end = self.history[-1][0] if self.over else asyncio.get_running_loop().time()
        return 0 if answered is None else round(end - answered)

    def given(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.form if key == name), default)

    def change(self, status: str) -> None:
        self.history.append((asyncio.get_running_loop().time(), status))

    async def ordered(self, within: float) -> str | None:
        """The next order, or None when there is none in that time."""
        try:
            async with asyncio.timeout(within):
                return await self.orders.get()
        except TimeoutError:
            return None
