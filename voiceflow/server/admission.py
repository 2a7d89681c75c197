"""Admission: how a media stream finds the call that was promised to it.

The webhook makes the call and a one-time token that stands in the path of the stream's URL:

    w0.3rT…  ─── the worker that holds the call, a dot, 128 random bits

The token works once, only for the carrier's call it was made for, and only for a few seconds. Afterwards
it names the outcome, so that the carrier, when it asks what to do next, gets an answer. A live call whose
carrier replaces the stream has a token for each of them, and all name the same outcome.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from voiceflow.call import Call
from voiceflow.errors import VoiceflowError
from voiceflow.line.codec import Codec

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
class Fate:
    """What became of a call, once that is known. Its tokens share it."""

    outcome: Outcome | None = None


@dataclass(slots=True)
class Promise:
    """A call that waits for its stream, or, if it is `next`, for another in place of the one it has.
    `carrier_call` is the carrier's id of it, `codec` what will read it."""

    token: str
    call: Call
    carrier_call: str
    codec: Codec
    expiry: asyncio.TimerHandle
    fate: Fate
    next: bool = False


class Admission:
    """The tokens of one worker. `never_came(promise)` is called when no stream will come for it any more; for
    one that was to follow another only when the carrier has said so: the call has its own time for that."""

    def __init__(self, worker: str, never_came: Callable[[Promise], None]) -> None:
        self.worker = worker
        self._never_came = never_came
        self._promised: dict[str, Promise] = {}
        self._fates: dict[Call, Fate] = {}  # of the calls that the server holds
        self._outcomes: OrderedDict[str, tuple[str, Fate]] = OrderedDict()
        self._unasked: dict[str, asyncio.TimerHandle] = {}  # bounded in time: each for QUESTION_WAIT
        self._all_asked = asyncio.Event()
        self._all_asked.set()

    def withdraw(self, carrier_call: str) -> Call | None:
        """Takes back the promise for one of the carrier's calls: it was announced once more."""
        for promise in self._promised.values():
            if promise.carrier_call == carrier_call and not promise.next:
                self._drop(promise, Outcome("it was announced once more", normal=False))
                return promise.call
        return None

    @property
    def waiting(self) -> int:
        """Streams that are waited for."""
        return len(self._promised)

    def promise(self, call: Call, carrier_call: str) -> str:
        """A token for the stream of `call`."""
        fate = self._fates[call] = Fate()
        return self._promise(call, carrier_call, call.line.codec, fate, TOKEN_SECONDS)

    def promise_next(self, call: Call, codec: Codec, seconds: float) -> str:
        """A token for another stream of a live call, good for `seconds`. KeyError when it is over."""
        return self._promise(call, call.carrier_call, codec, self._fates[call], seconds, next=True)

    def _promise(
        self, call: Call, carrier_call: str, codec: Codec, fate: Fate, seconds: float, *, next: bool = False
    ) -> str:
        token = f"{self.worker}.{secrets.token_urlsafe(16)}"
        expiry = call.loop.call_later(seconds, self._expire, token)
        self._promised[token] = Promise(token, call, carrier_call, codec, expiry, fate, next)
        return token

    def claim(self, token: str) -> Promise:
        """The call behind a token, once. NotAdmitted for a token that is unknown, used, or too old."""
        worker = token.partition(".")[0]
        if worker != self.worker:
            raise NotAdmitted(f"its token belongs to worker {worker[:16]!a}, this is {self.worker}", 404)
        promise = self._promised.get(token)
        if promise is None:
            used = token in self._outcomes
            raise NotAdmitted("its token was used already or has expired" if used else "its token is unknown")
        self._drop(promise)
        return promise

    def take_back(self, call: Call) -> None:
        """No other stream will come for a live call after all."""
        for promise in [each for each in self._promised.values() if each.call is call]:
            self._drop(promise)

    def settle(self, promise: Promise, reason: str, normal: bool) -> None:
        """Keeps how the call ends. No further stream of it is let in."""
        promise.fate.outcome = Outcome(reason, normal)
        self.take_back(promise.call)
        self._fates.pop(promise.call, None)
        if promise.call.line.stopped:
            return
        key = promise.carrier_call
        if (before := self._unasked.pop(key, None)) is not None:
            before.cancel()
        self._unasked[key] = promise.call.loop.call_later(QUESTION_WAIT, self._ask, key)
        self._all_asked.clear()

    def outcome(self, token: str, carrier_call: str) -> Outcome | None:
        """How the call behind a token ended; None when it is not known, or asked for another call.

        A carrier that asks about a stream which it has not opened will not open it any more.
        """
        promise = self._promised.get(token)
        if promise is not None and _same(promise.carrier_call, carrier_call):
            promise.expiry.cancel()
            self._drop(promise, Outcome("the carrier could not open its stream", normal=False))
            self._never_came(promise)
        of, fate = self._outcomes.get(token, ("", None))
        if fate is None or not _same(of, carrier_call):
            return None
        self._ask(carrier_call)
        return fate.outcome

    async def all_asked(self) -> None:
        """Waits until the carrier has asked about the calls that just ended; QUESTION_WAIT for each."""
        await self._all_asked.wait()

    def withdraw_all(self, reason: str) -> list[Call]:
        """Takes back every promise; returns the calls that have had no stream yet."""
        promises = list(self._promised.values())
        for promise in promises:
            self._drop(promise, None if promise.next else Outcome(reason, normal=False))
        return [promise.call for promise in promises if not promise.next]

    def _ask(self, carrier_call: str) -> None:
        """The carrier has asked about this call, or will not any more."""
        if (timer := self._unasked.pop(carrier_call, None)) is not None:
            timer.cancel()
        if not self._unasked:
            self._all_asked.set()

    def _drop(self, promise: Promise, outcome: Outcome | None = None) -> None:
        """Its token lets nobody in any more. With an `outcome` the call is given up."""
        promise.expiry.cancel()
        del self._promised[promise.token]
        if outcome is not None:
            promise.fate.outcome = outcome
            if not promise.next:
                self._fates.pop(promise.call, None)
        self._outcomes[promise.token] = (promise.carrier_call, promise.fate)
        while len(self._outcomes) > OUTCOMES_KEPT:
            self._outcomes.popitem(last=False)

    def _expire(self, token: str) -> None:
        if (promise := self._promised.get(token)) is None:
            return
        if promise.next:
            self._drop(promise)
        else:
            self._drop(promise, Outcome("its stream came too late", normal=False))
            self._never_came(promise)


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode(), other.encode())
