"""Admission: how a media stream finds the call that was promised to it.

The webhook makes the call and a one-time token that stands in the path of the stream's URL:

    w0.3rT…  ─── the worker that holds the call, a dot, 128 random bits

The token works once, only for the carrier's call it was made for, and only for a few seconds. Afterwards
it names the outcome, so that the carrier, when it asks what to do next, gets an answer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from voiceflow.call import Call
from voiceflow.errors import VoiceflowError

TOKEN_SECONDS = 30.0
"""How long a token waits for its stream. Carriers connect within a second; a cold network may need ten."""
OUTCOMES_KEPT = 1_000
"""Results of calls that are over, kept for the carrier's question what comes next: it asks at once."""
QUESTION_WAIT = 1.0
"""Seconds within which that question comes after a call's end, if it comes at all."""


class NotAdmitted(VoiceflowError):
    """A stream that gets no call. `str()` says why without the token; `status` is the HTTP answer."""

    def __init__(self, reason: str, status: int = 403) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True, frozen=True)
class Outcome:
    """How a call ended, as far as the caller is concerned. Not `normal`: he is owed the fallback."""

    reason: str
    normal: bool


@dataclass(slots=True)
class Promise:
    """A call that waits for its stream. `carrier_call` is the carrier's id of it."""

    token: str
    call: Call
    carrier_call: str
    expiry: asyncio.TimerHandle


class Admission:
    """The tokens of one worker. `expired(call)` is called for a call whose stream never came."""

    def __init__(self, worker: str, expired: Callable[[Call], None]) -> None:
        self.worker = worker
        self._expired = expired
        self._promised: dict[str, Promise] = {}
        self._outcomes: OrderedDict[str, tuple[str, Outcome | None]] = OrderedDict()
        self._unasked: dict[str, asyncio.TimerHandle] = {}  # bounded in time: each for QUESTION_WAIT
        self._all_asked = asyncio.Event()
        self._all_asked.set()

    def withdraw(self, carrier_call: str) -> Call | None:
        """Takes back the promise for one of the carrier's calls: it was announced once more."""
        for token, promise in self._promised.items():
            if promise.carrier_call == carrier_call:
                promise.expiry.cancel()
                self._remember(token, carrier_call, Outcome("it was announced once more", normal=False))
                del self._promised[token]
                return promise.call
        return None

    @property
    def waiting(self) -> int:
        """Calls that wait for their stream."""
        return len(self._promised)

    def promise(self, call: Call, carrier_call: str) -> str:
        """A token for the stream of `call`."""
        token = f"{self.worker}.{secrets.token_urlsafe(16)}"
        expiry = call.loop.call_later(TOKEN_SECONDS, self._expire, token)
        self._promised[token] = Promise(token, call, carrier_call, expiry)
        return token

    def claim(self, token: str) -> Promise:
        """The call behind a token, once. NotAdmitted for a token that is unknown, used, or too old."""
        worker = token.partition(".")[0]
        if worker != self.worker:
            raise NotAdmitted(f"its token belongs to worker {worker[:16]!a}, this is {self.worker}", 404)
        promise = self._promised.pop(token, None)
        if promise is None:
            used = token in self._outcomes
            raise NotAdmitted("its token was used already or has expired" if used else "its token is unknown")
        promise.expiry.cancel()
        self._remember(token, promise.carrier_call, None)
        return promise

    def settle(self, promise: Promise, reason: str, normal: bool) -> None:
        """Keeps how the call ends."""
        self._remember(promise.token, promise.carrier_call, Outcome(reason, normal))
        if promise.call.line.stopped:
            return
        if (before := self._unasked.pop(promise.token, None)) is not None:
            before.cancel()
        self._unasked[promise.token] = promise.call.loop.call_later(QUESTION_WAIT, self._ask, promise.token)
        self._all_asked.clear()

    def outcome(self, token: str, carrier_call: str) -> Outcome | None:
        """How the call behind a token ended; None when it is not known, or asked for another call."""
        of, result = self._outcomes.get(token, ("", None))
        if not secrets.compare_digest(of.encode(), carrier_call.encode()):
            return None
        self._ask(token)
        return result

    async def all_asked(self) -> None:
        """Waits until the carrier has asked about the calls that just ended; QUESTION_WAIT for each."""
        await self._all_asked.wait()

    def withdraw_all(self, reason: str) -> list[Call]:
        """Takes back every promise; returns the calls."""
        promises, self._promised = list(self._promised.values()), {}
        for promise in promises:
            promise.expiry.cancel()
            self._remember(promise.token, promise.carrier_call, Outcome(reason, normal=False))
        return [promise.call for promise in promises]

    def _ask(self, token: str) -> None:
        """The carrier has asked about this token, or will not any more."""
        if (timer := self._unasked.pop(token, None)) is not None:
            timer.cancel()
        if not self._unasked:
            self._all_asked.set()

    def _remember(self, token: str, carrier_call: str, result: Outcome | None) -> None:
        self._outcomes[token] = (carrier_call, result)
        while len(self._outcomes) > OUTCOMES_KEPT:
            self._outcomes.popitem(last=False)

    def _expire(self, token: str) -> None:
        promise = self._promised.pop(token, None)
        if promise is not None:
            self._remember(token, promise.carrier_call, Outcome("its stream came too late", normal=False))
            self._expired(promise.call)
