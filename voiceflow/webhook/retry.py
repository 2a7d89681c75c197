"""When to try again, and when not: pure functions of how the last try went.

2xx                                         delivered
no connection, no answer, 408, 425, 429, 5xx   again, later; not before Retry-After
3xx                                         not followed: the address is to be changed
other 4xx                                   it will not be taken the next time either
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from voiceflow.vendor import TEMPORARY

RETRY_AFTER_MOST = 600.0
"""Seconds a receiver may ask us to wait."""


@dataclass(slots=True, frozen=True)
class Answer:
    """How a receiver has answered. `retry_after` is its header, as it came."""

    status: int
    retry_after: str = ""

    @property
    def taken(self) -> bool:
        return 200 <= self.status < 300

    @property
    def temporary(self) -> bool:
        """Whether another try may help."""
        return self.status in TEMPORARY or self.status >= 500


@dataclass(slots=True, frozen=True)
class Retry:
    """Pauses that grow, with jitter: 1, 3, 9, 27, 81, 243, 300 ... seconds, each times 0.5 to 1.

    Ten tries take between 11 and 21 minutes: a restart of the receiver, or a short outage. For what lasts
    longer there is the spool.
    """

    tries: int = 10
    first: float = 1.0
    growth: float = 3.0
    most: float = 300.0

    def pause(self, tried: int, chance: random.Random) -> float:
        """Seconds until the next try, after `tried` of them; at least half of what it is without jitter."""
        exact = min(self.most, self.first * self.growth ** min(tried - 1, 50))
        return exact * (0.5 + chance.random() / 2)


def retry_after(header: str, now: datetime) -> float:
    """Seconds that a Retry-After header asks for, RETRY_AFTER_MOST at most; 0 when there is none that can be
    read. It is a number of seconds or a date: RFC 9110, 10.2.3."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        return RETRY_AFTER_MOST if len(header) > 9 else min(RETRY_AFTER_MOST, float(header))
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return min(RETRY_AFTER_MOST, max(0.0, (at - now).total_seconds()))


def advice(status: int) -> str:
    """What to do about an answer that is final."""
    match status:
        case 401 | 403:
            return "it does not know us: is the secret the same on both sides?"
        case 404 | 405:
            return "there is nothing at this address that takes webhooks"
        case 410:
            return "it wants no more of them: take the webhook away"
        case 413:
            return "the call is too long for it: let it take larger bodies"
        case _ if 300 <= status < 400:
            return "it leads to another address: give that one"
        case _:
            return "see its log"
