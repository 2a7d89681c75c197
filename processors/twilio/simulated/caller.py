"""A simulated caller: the other end of the wire, as Twilio would be. For tests, `dial` and `demo`.

    POST the webhook ── TwiML ──▶ Say, Pause, Dial, Redirect, Hangup, Reject
                           └────▶ Connect/Stream: a WebSocket, 20 ms frames in real time, a play-out clock
                                      └── ended by the server ──▶ `action`, or the next verb

`async with SimulatedCaller(url) as caller` gives a test an open line to act on; `await caller.run()` makes
a whole call of prepared speeches. What happened is in `caller.report`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from processors.twilio.simulated.call import TwilioCall
from processors.twilio.simulated.handset import Handset
from processors.twilio.simulated.report import CallReport, Event, Kind, Samples, track
from processors.twilio.simulated.stream import CLOSE_TIMEOUT, SEND_TIMEOUT, Line, MediaStream
from processors.twilio.simulated.webhook import Webhook
from voiceflow.audio import encode
from voiceflow.errors import LinkError
from voiceflow.frames import PHONE

LONGEST_GREETING = 30.0
"""Seconds into the call at which a caller who lets the agent speak first stops listening."""


@dataclass(slots=True, frozen=True)
class Speech:
    """Something the caller says: int16 at 8 kHz, `after` seconds after the end of the speech before it
    (the first: after the start of the stream, unless the caller has `patience`)."""

    samples: Samples
    after: float = 0.0


class SimulatedCaller:
    """One phone call to the webhook at `url`.

    auth_token      signs every request and the upgrade, as Twilio does
    public_url      the base under which the server believes to be known: it is what is signed, and URLs
                    in TwiML that begin with it are reached at the base of `url`
    call_sid, account_sid: Twilio's ids; random unless given
    direction, status: Direction, and CallStatus in the first request. A call that the agent has placed and
                    somebody answers has "outbound-api" and "in-progress"
    speeches        what the caller says; the call's clock decides when, whatever the agent does
    patience        for `run`: the caller lets the agent speak first, and gives it so many seconds to begin.
                    The first speech comes `after` the end of the agent's first words, or of these seconds,
                    and after LONGEST_GREETING anyway. None: the agent is not waited for
    listens         with `patience`, also before each further speech: it comes `after` the end of the agent's
                    answer, for which the agent is given so many seconds. None: the clock decides
    digits          (seconds, key) pairs on the same clock
    linger, limit   after the last speech `run` hangs up once the agent has been silent for `linger`
                    seconds, or after `limit`
    timeout         real seconds for each HTTP request and for the upgrade
    longest         seconds after which the call is broken off, whatever happens
    on_event        called with each event as it happens
    speed, delay_out, delay_in, announce, media, dial_answered, start_overrides: see `stream.Line` beside
                    this file

    Raises LinkError when the webhook refuses, does not answer or answers with something that is no TwiML,
    and after a refused upgrade, once the TwiML behind it has been followed. `report` is complete then too.
    """

    def __init__(
        self,
        url: str,
        *,
        auth_token: str = "",
        public_url: str = "",
        caller: str = "+12025550143",
        called: str = "+12025550199",
        call_sid: str = "",
        account_sid: str = "",
        direction: str = "inbound",
        status: str = "ringing",
        speeches: Sequence[Speech] = (),
        patience: float | None = None,
        listens: float | None = None,
        digits: Sequence[tuple[float, str]] = (),
        linger: float = 1.5,
        limit: float = 20.0,
        timeout: float = 10.0,
        longest: float = 900.0,
        on_event: Callable[[Event], None] | None = None,
        speed: float = 1.0,
        delay_out: float = 0.0,
        delay_in: float = 0.0,
        announce: bool = True,
        media: bool = True,
        dial_answered: bool = True,
        start_overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self.call_sid = call_sid or "CA" + secrets.token_hex(16)
        self.account_sid = account_sid or "AC" + secrets.token_hex(16)
        self.report = CallReport(self.call_sid)
        self._url = url
        self._linger, self._limit, self._longest = linger, limit, longest
        self._on_event = on_event
        self._line = Line(speed, delay_out, delay_in, announce, media, dial_answered, start_overrides or {})
        self._handset = Handset()
        self._spoken = 0
        self._speeches, self._patience, self._listens = tuple(speeches), patience, listens
        if patience is None:
            self._queue(self._speeches, 0.0)
        for at, digit in digits:
            self._handset.press(digit, round(at * PHONE.rate))
            self._spoken = max(self._spoken, round(at * PHONE.rate))
        form = {
            "CallSid": self.call_sid,
            "AccountSid": self.account_sid,
            "From": caller,
            "Caller": caller,
            "To": called,
            "Called": called,
            "Direction": direction,
            "CallStatus": status,
            "ApiVersion": "2010-04-01",
        }
        self._web = Webhook(url, public_url, auth_token, timeout, self.report)
        self._call = TwilioCall(self._web, form, self._handset, self.report, self._tell, self._line)
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._read = 0

    async def run(self) -> CallReport:
        """Makes the whole call and gives its report."""
        async with self:
            await self._listen()
        return self.report

    # -- dialling and hanging up ---------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Dials. Returns when the stream is open, or when the call is over without one."""
        await self._web.open()
        self._task = asyncio.create_task(self._call.run(self._url, self._longest))
        self._task.add_done_callback(lambda _: self._wake())
        try:
            while not (self._call.stream or self._task.done()):
                await self._news.wait()
            if self._task.done():
                self._task.result()
        except BaseException:
            await self._finish()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hangs up if nobody has, and raises what broke the call unless the body raises."""
        try:
            await self.hang_up()
        finally:
            await self._finish()
        if error is None and self._task is not None and not self._task.cancelled():
            self._task.result()

    def redirect(self, url: str) -> None:
        """Has the call follow the TwiML at `url` from now on, as an order to the REST API does. A stream
        that is open gets its `stop` first."""
        self._call.redirect(url)

    async def hang_up(self) -> None:
        """Sends `stop`, closes the stream, and returns when the call is over. Harmless afterwards."""
        await self._leave("the caller", MediaStream.hang_up)

    async def die(self) -> None:
        """Cuts the connection as a crash would: no `stop`, no close frame, no TwiML after it."""
        await self._leave("the line died", MediaStream.die)

    async def _leave(self, why: str, act: Callable[[MediaStream], None]) -> None:
        if self._task is None or self._task.done():
            return
        self._call.left = why
        if self._call.stream is not None:
            act(self._call.stream)
            delay = (self._line.delay_out + self._line.delay_in) / self._line.speed
            await asyncio.wait({self._task}, timeout=SEND_TIMEOUT + 2 * CLOSE_TIMEOUT + delay)
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _finish(self) -> None:
        """Leaves nothing running and completes the report."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.exception()  # looked at, so that asyncio does not call it lost
        await self._web.close()
        self.report.caller_audio = track([(offset, sent) for offset, sent, _ in self._call.tracks])
        self.report.agent_audio = track([(offset, played) for offset, _, played in self._call.tracks])

    # -- acting on the open line ---------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """The call has ended."""
        return self._task is not None and self._task.done()

    @property
    def now(self) -> float:
        """Seconds since the stream started; 0.0 before."""
        return self._call.now

    @property
    def stream_sid(self) -> str:
        """The stream that is open, or was last; empty before."""
        return self.report.stream_sids[-1] if self.report.stream_sids else ""

    @property
    def stream_url(self) -> str:
        """The last stream's URL as the TwiML says it, token and all."""
        return self._call.stream_url

    async def say(self, samples: Samples) -> None:
        """Speaks int16 at 8 kHz, behind what is being spoken, and returns when it was said."""
        if not self._line.media:
            raise ValueError("this caller was made with media=False: it cannot speak")
        _, end = self._handset.speak(encode(samples, PHONE))
        while self._handset.position < end:
            self._open_line()
            await self._news.wait()  # "caller stops" comes with the frame that holds the end

    def press(self, digit: str) -> None:
        """Presses a key, with the next frame."""
        self._open_line()
        self._handset.press(digit)

    def send_raw(self, message: str | bytes) -> None:
        """Sends anything at all over the stream: text for str, binary for bytes."""
        self._open_line().send(message)

    async def second_socket(self) -> int:
        """Tries to open another WebSocket on the URL of this call's stream, and closes it. The HTTP
        status of the answer: 101 when it was let in."""
        try:
            socket = await self._web.upgrade(self.stream_url)
        except aiohttp.WSServerHandshakeError as error:
            return error.status
        await socket.close()
        return 101

    async def wait_for(self, what: Kind | Callable[[Event], bool], timeout: float = 10.0) -> Event:
        """The next event that fits; each event is looked at once, so waiting twice gives the next one.

        LinkError after `timeout` real seconds, or when the call is over without it.
        """
        fits = what if callable(what) else lambda event: event.kind == what
        events = self.report.events
        try:
            async with asyncio.timeout(timeout):
                while True:
                    while self._read < len(events):
                        self._read += 1
                        if fits(events[self._read - 1]):
                            return events[self._read - 1]
                    if self.over:
                        raise LinkError(f"the call ended without it; the last events: {events[-5:]}")
                    await self._news.wait()
        except TimeoutError:
            raise LinkError(f"not seen within {timeout:g} s; the last events: {events[-5:]}") from None

    # -- inside --------------------------------------------------------------------------------------

    def _queue(self, speeches: Sequence[Speech], since: float) -> None:
        """Queues what is to be said, the first speech `after` second `since` of the call."""
        end = round(since * PHONE.rate)
        for speech in speeches:
            start = end + round(speech.after * PHONE.rate)
            _, end = self._handset.speak(encode(speech.samples, PHONE), start)
        self._spoken = max(self._spoken, end)

    async def _converse(self, patience: float) -> None:
        """Lets the agent speak first, then says what there is to say: all of it, or a speech at a time."""
        if self._listens is None:
            pause = self._speeches[0].after if self._speeches else 0.0
            self._queue(self._speeches, await self._heard_out(0.0, patience, pause))
            return
        said = 0.0
        for speech in self._speeches:
            silent = await self._heard_out(said, self._listens if said else patience, speech.after)
            self._queue([speech], silent)
            said = self._spoken / PHONE.rate
            while not self.over and self.now < said:
                await self._wait(said)

    async def _heard_out(self, since: float, patience: float, pause: float) -> float:
        """Waits until the agent has spoken after second `since` and been silent for `pause` seconds, or has
        not begun in `patience`. The second at which it fell silent."""
        silent = since + patience
        while not self.over:
            stream = self._call.stream
            if stream is not None and (
                stream.dry_at > since if since else bool(self.report.of("agent heard"))
            ):
                silent = min(stream.dry_at, since + LONGEST_GREETING)
            if self.now >= silent + pause:
                break
            await self._wait(silent + pause)
        return silent

    async def _listen(self) -> None:
        """Waits for the last speech and for the agent to fall silent after it."""
        if self._patience is not None:
            await self._converse(self._patience)
        spoken = self._spoken / PHONE.rate
        limit = spoken + self._limit
        while not self.over:
            until = limit
            if self._call.stream is not None and self._handset.position >= self._spoken:
                until = min(max(spoken, self._call.stream.dry_at) + self._linger, limit)
            if self.now >= until:
                return
            await self._wait(until)

    async def _wait(self, until: float) -> None:
        """Waits for news, or for second `until` of the call."""
        clock = self._call.clock
        try:
            async with asyncio.timeout_at(clock.when(until) if clock is not None else None):
                await self._news.wait()
        except TimeoutError:
            pass

    def _open_line(self) -> MediaStream:
        if self._call.stream is None:
            raise LinkError("no stream is open: the call is over, or Twilio's own voice speaks")
        return self._call.stream

    def _tell(self, kind: Kind, at: float, detail: str) -> None:
        event = Event(at, kind, detail)
        if self.report.add(event) and self._on_event is not None:
            self._on_event(event)
        self._wake()

    def _wake(self) -> None:
        # A new one each time, so that everybody who waits sees it and nobody has to reset it.
        news, self._news = self._news, asyncio.Event()
        news.set()
