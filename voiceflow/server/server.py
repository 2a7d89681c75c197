"""The server: takes calls from a carrier, gives each a pipeline of its own, ends them in good order.

It knows no carrier. A carrier (`processors/twilio/routes.py`) adds its routes and calls three methods:

    offer(codec, ...)      a call was announced: make its pipeline, start it   → a token, or Refused
    serve(promise, link)   its stream came: run the call to its end
    outcome(token, id)     what became of it, for what the caller hears next

and two more if it replaces the stream of a live call, which goes on:

    another(call, ...)     it will be asked to: let the stream go               → a token, or CallEnded
    follow(promise, link)  the new stream came: hand it over to the call
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from aiohttp import web
from loguru import logger

from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.errors import CallEnded, LineError, LinkError, VoiceflowError
from voiceflow.line.codec import Codec, LineIgnored, LineRefused, LineStarted
from voiceflow.line.link import Link
from voiceflow.record import CallResult, Phase
from voiceflow.server.admission import Admission, NotAdmitted, Outcome, Promise
from voiceflow.services import Services

START_TIMEOUT = 5.0
"""Seconds a stream may take to say which call it is."""
MESSAGES_BEFORE_START = 20
"""Messages a stream may send before it says so."""
CLOSING = "the server is shutting down"
FALLBACK = "I am sorry, something went wrong on our side. Please call again in a moment."
BODY_LIMIT = 64 * 1024
"""Bytes of a webhook's body, and of one message of a media stream."""


class Agent(Protocol):
    """What the server runs: a loaded pipeline file, or anything with the same method."""

    def make(self, call: Call) -> Pipeline:
        """A pipeline for this call. VoiceflowError when there is none."""
        ...


class Refused(VoiceflowError):
    """A call that is not taken. `spoken` is what the caller hears."""

    def __init__(self, reason: str, spoken: str) -> None:
        super().__init__(reason)
        self.spoken = spoken


@dataclass(slots=True)
class Settings:
    """How a server behaves. Times in seconds."""

    public_url: str | None = None
    """Where the carrier reaches it: https://host, with a path if the proxy needs one."""
    max_calls: int = 50
    """Calls at the same time, those that are about to begin included."""
    drain: float = 60.0
    """How long live calls may go on after the first signal to stop."""
    call_limit: float = 3600.0
    """After which a call is ended."""
    worker: str = "w0"
    """The name of this process in tokens."""
    fallback: str = FALLBACK
    """What the caller hears after a call that broke."""
    fallback_number: str | None = None
    """Instead of the sentence: whom the caller is connected to."""
    busy: str = "All our lines are busy right now. Please call again in a few minutes."
    closing: str = "We are just restarting. Please call again in a minute."
    seed: int | None = None
    """Makes each call's random numbers the same every time."""
    extra: dict[str, Any] = field(default_factory=dict)


class Server:
    """One worker process: its calls and their admission."""

    def __init__(
        self, agent: Agent, settings: Settings | None = None, *, services: Services | None = None
    ) -> None:
        self.agent = agent
        self.settings = settings or Settings()
        self.services = services or Services()
        self.draining = False
        self.calls: dict[Call, asyncio.Task[Any] | None] = {}
        self.admission = Admission(self.settings.worker, self._stream_never_came)
        self.served = 0
        self.opened: Callable[[Call], None] | None = None
        """Called with every call that has been prepared, before anything happens in it; must not raise."""
        self.finished: Callable[[Call, CallResult], None] | None = None
        """Called with every call that is over."""
        self._closing: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._numbered = 0

    # -- for a carrier's routes

    def offer(
        self,
        codec: Codec,
        *,
        carrier_call: str,
        caller: str,
        called: str,
        parameters: Mapping[str, str],
        carrier: object = None,
    ) -> str:
        """A call was announced: its pipeline is made and begins to start. Returns the stream's token.

        `carrier` becomes `call.carrier`, for tools of the carrier's own. Raises Refused, with what the caller
        is to hear, when draining, when full, and when the pipeline file cannot make a pipeline for this call.
        """
        if self.draining:
            raise Refused(CLOSING, self.settings.closing)
        if (before := self.admission.withdraw(carrier_call)) is not None:
            self._abandon(before, "the carrier announced it once more")
            self._release(before)
        if len(self.calls) >= self.settings.max_calls:
            raise Refused(f"all {self.settings.max_calls} lines are busy", self.settings.busy)
        self._numbered += 1
        call = Call(
            codec,
            id=f"{self.settings.worker}-{self._numbered}",
            caller=caller,
            called=called,
            parameters=parameters,
            services=self.services,
            limit=self.settings.call_limit,
            seed=self.settings.seed,
        )
        call.carrier_call = carrier_call
        call.carrier = carrier
        try:
            call.prepare(self.agent.make(call))
        except VoiceflowError as error:
            raise Refused(str(error), self.settings.fallback) from error
        if self.opened is not None:
            self.opened(call)
        self._hold(call)
        return self.admission.promise(call, carrier_call)

    async def serve(self, promise: Promise, link: Link) -> CallResult:
        """Runs the call behind a promise over its open socket, to its end."""
        call = promise.call
        self.calls[call] = asyncio.current_task()
        try:
            started = await self._await_start(promise, link)
        except (LineError, LinkError) as error:
            reason = f"its stream was refused: {error}"
            call.log.warning(f"stream refused: {error}")
            self.give_up(promise, reason)
            await link.close(1008, "refused")
            return CallResult(call.id, reason, None, 0.0, normal=False)
        except BaseException:
            self.give_up(promise, "its stream could not be opened")
            raise
        try:
            result = await call.run(link, started, decided=partial(self.admission.settle, promise))
        finally:
            self._release(call)
        self.served += 1
        if self.finished is not None:
            self.finished(call, result)
        return result

    def another(self, call: Call, codec: Codec, *, within: float) -> str:
        """The carrier will be asked to replace the stream of this live call by another, read by `codec`.

        Returns its token, good for `within` seconds: until then the end of the stream that the call has is
        not the call's. CallEnded when that is over.
        """
        if call.phase is not Phase.LIVE or call not in self.calls:
            raise CallEnded("the call is over")
        token = self.admission.promise_next(call, codec, within)
        call.line.expect(within + START_TIMEOUT)
        return token

    def no_other(self, call: Call) -> None:
        """The carrier does not replace the stream: the call keeps the one it has, or ends with it."""
        self.admission.take_back(call)
        call.line.unexpect()

    async def follow(self, promise: Promise, link: Link) -> None:
        """Hands the open socket over to the call that waits for another stream; returns when the call has
        left it. A stream that is refused ends the call: the carrier has given up the one before."""
        call = promise.call
        try:
            await call.follow(promise.codec, link, await self._await_start(promise, link))
        except (LineError, LinkError) as error:
            call.log.warning(f"stream refused: {error}")
            self.give_up(promise, f"its next stream was refused: {error}")
            await link.close(1008, "refused")
        except BaseException:
            self.give_up(promise, "its next stream could not be opened")
            raise

    def give_up(self, promise: Promise, reason: str) -> None:
        """Ends the call behind a claimed promise whose stream failed to open. Does not wait."""
        if promise.next:
            promise.call.end(reason, normal=False)
            return
        self.admission.settle(promise, reason, normal=False)
        self._abandon(promise.call, reason)

    def outcome(self, token: str, carrier_call: str) -> Outcome | None:
        """How a call ended; None when that is not known here."""
        return self.admission.outcome(token, carrier_call)

    # -- health

    def ready(self) -> str | None:
        """None when a call would be taken, else the reason why not."""
        if self.draining:
            return "draining"
        return "full" if len(self.calls) >= self.settings.max_calls else None

    def routes(self) -> list[web.RouteDef]:
        """`/healthz`: the process lives. `/readyz`: a call would be taken; 503 when not."""
        return [web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)]

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "calls": len(self.calls), "served": self.served})

    async def _readyz(self, request: web.Request) -> web.Response:
        reason = self.ready()
        body = {"ready": reason is None, "reason": reason, "calls": len(self.calls)}
        return web.json_response(body, status=200 if reason is None else 503)

    # -- the end

    async def drain(self) -> None:
        """Takes no new call; lets live ones finish for `settings.drain` seconds, then ends them.

        A call that was announced counts as live: its stream is on the way. Returns once the carrier had
        time to ask what comes after each call, so that nobody is left with an error message.
        """
        self.draining = True
        if self.calls:
            logger.info(f"draining: {len(self.calls)} calls may go on for {self.settings.drain:g} s")
        try:
            async with asyncio.timeout(self.settings.drain):
                await self._empty.wait()
        except TimeoutError:
            logger.warning(f"draining took too long: {len(self.calls)} calls are ended")
            await self.end_calls()
        await self.admission.all_asked()

    async def end_calls(self) -> None:
        """Ends every call now, and waits a bounded time until they are closed."""
        self.draining = True
        for call in self.admission.withdraw_all(CLOSING):
            self._abandon(call, CLOSING)
        for call in list(self.calls):
            call.end(CLOSING, normal=False)
        try:
            async with asyncio.timeout(20.0):
                await self._empty.wait()
        except TimeoutError:
            for task in self.calls.values():
                if task is not None:
                    task.cancel()
        await self.admission.all_asked()

    async def close(self) -> None:
        """Releases what the calls shared. After `drain` or `end_calls`."""
        if self._closing:
            await asyncio.wait(self._closing, timeout=10.0)
        await self.services.close()

    # -- inside

    def _hold(self, call: Call) -> None:
        self.calls[call] = None
        self._empty.clear()

    def _release(self, call: Call) -> None:
        self.calls.pop(call, None)
        if not self.calls:
            self._empty.set()

    def _stream_never_came(self, promise: Promise) -> None:
        call = promise.call
        if promise.next:
            call.end("the carrier could not open its next stream", normal=False)
            return
        call.log.warning("its stream never came: the call is given up")
        self._abandon(call, "its stream never came")

    def _abandon(self, call: Call, reason: str) -> None:
        async def close() -> None:
            try:
                await call.abandon(reason)
            finally:
                self._release(call)

        task = asyncio.get_running_loop().create_task(close(), name=f"abandon {call.id}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _await_start(self, promise: Promise, link: Link) -> LineStarted:
        """Reads until the stream says which call it is. LineError when it does not, or says another."""
        call, codec = promise.call, promise.codec
        ignored: set[str] = set()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                for _ in range(MESSAGES_BEFORE_START):
                    message = await link.receive()
                    if message is None:
                        raise LineError("it closed before it had started")
                    for event in codec.parse(message):
                        if isinstance(event, LineStarted):
                            if event.call != promise.carrier_call:
                                raise LineError("it names another call than the webhook did")
                            if event.format != call.line.format:
                                raise LineError(f"it carries {event.format}, not {call.line.format}")
                            return event
                        if isinstance(event, LineRefused):
                            raise LineError(event.reason)
                        if isinstance(event, LineIgnored) and event.kind not in ignored:
                            ignored.add(event.kind)
                            call.log.warning(f"line: ignored {event.kind} before the stream started")
        except TimeoutError:
            raise LineError(f"it did not start within {START_TIMEOUT:g} s") from None
        raise LineError(f"it sent {MESSAGES_BEFORE_START} messages and never started")


__all__ = ["Agent", "NotAdmitted", "Refused", "Server", "Settings"]
