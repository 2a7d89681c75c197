"""One simulated call as Twilio runs it: asks the webhook, follows the TwiML, opens the streams."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import aiohttp

from processors.twilio.simulated import carrier
from processors.twilio.simulated.carrier import CarrierCodec
from processors.twilio.simulated.handset import Handset
from processors.twilio.simulated.report import CallReport, Kind
from processors.twilio.simulated.stream import Line, MediaStream, Socket, StreamClock
from processors.twilio.simulated.webhook import Webhook, shown, stream_fault
from voiceflow.errors import LinkError
from voiceflow.frames import PHONE

MOST_DOCUMENTS = 10
"""TwiML documents one call may go through before it counts as a circle."""
KEYS = {"w": 0.5, "W": 1.0}
KEY = 0.2
"""Seconds that <Play digits> takes for a key, its pause included, and for the signs that only wait."""

Tell = Callable[[Kind, float, str], None]


@dataclass(slots=True, frozen=True)
class Step:
    """Where the call goes on: the TwiML at `url`."""

    url: str
    method: str = "POST"


class TwilioCall:
    """`run` it once. `form` is what the first request carries; the further ones say "in-progress" as its
    CallStatus. `tell` hears of all events, in order.

    `left` says why the caller has left, and is set by whoever makes them leave: no TwiML is followed then.
    """

    def __init__(
        self,
        web: Webhook,
        form: Mapping[str, str],
        handset: Handset,
        report: CallReport,
        tell: Tell,
        line: Line,
    ) -> None:
        self.left = ""
        self.clock: StreamClock | None = None
        """The call's clock: that of the first stream, None before it."""
        self.stream: MediaStream | None = None
        """The stream that is open."""
        self.stream_url = ""
        """The last one's, as the TwiML says it, token and all."""
        self.tracks: list[tuple[int, bytes, bytes]] = []
        """Per stream that has ended: its offset in samples, what the caller sent, what was played."""
        self._web = web
        self._form = form
        self._handset = handset
        self._report = report
        self._tell = tell
        self._line = line
        self._refused: LinkError | None = None
        self._order: Step | None = None
        self._ordered = asyncio.Event()

    @property
    def now(self) -> float:
        """Seconds since the first stream started; 0.0 before."""
        return self.clock.now() if self.clock is not None else 0.0

    async def run(self, url: str, longest: float) -> None:
        """Dials and returns when the call is over, after at most `longest` seconds of the line's clock.

        LinkError when the webhook fails; when a stream was refused, at the end of the TwiML behind it.
        """
        by = "the caller"
        try:
            async with asyncio.timeout(longest / self._line.speed):
                await self._follow(Step(url))
            by = "TwiML"
        except TimeoutError:
            by = "the time limit"
            raise LinkError(f"the call did not end within {longest:g} s") from None
        except LinkError:
            by = "an error"
            raise
        finally:
            self._tell("hung up", self.now, self.left or by)
        if self._refused is not None:
            raise self._refused

    def redirect(self, url: str) -> None:
        """As the REST API does it: what is going on ends, a stream with its `stop`, and the TwiML at `url` is
        followed instead. No `action` is asked."""
        self._order = Step(url)
        self._ordered.set()
        if self.stream is not None:
            self.stream.hang_up()

    async def _follow(self, first: Step) -> None:
        step, form = first, self._form
        for _ in range(MOST_DOCUMENTS):
            document = await self._web.twiml(step.method, step.url, form)
            following = await self._perform(document, step.url)
            if self._order is not None and not self.left:
                following, self._order = self._order, None
                self._ordered.clear()
                self._tell("redirected", self.now, "")
            if following is None:
                return
            step, form = following, {**self._form, "CallStatus": "in-progress"}
        raise LinkError(f"the TwiML at {shown(first.url)} goes round in circles")

    async def _perform(self, document: Element, url: str) -> Step | None:
        """Follows one document. Where the call goes on, None when it is over."""
        for verb in document:
            if self._order is not None:
                return None
            text = "".join(verb.itertext()).strip()
            match verb.tag:
                case "Say":
                    self._tell("said", self.now, text)
                case "Pause":
                    await self._pause(_seconds(verb.get("length", "1")))
                case "Play" if (digits := verb.get("digits")) is not None:
                    self._tell("digits heard", self.now, digits)
                    await self._pause(sum(KEYS.get(key, KEY) for key in digits))
                case "Redirect":
                    return Step(self._web.join(url, text), verb.get("method", "POST"))
                case "Dial":
                    self._tell("dialled", self.now, text)
                    if self._line.dial_answered:
                        return None  # from here on the caller talks to somebody else
                case "Hangup" | "Reject":
                    return None
                case "Connect" if (noun := verb.find("Stream")) is not None:
                    await self._connect(noun, url)
                    if self.left or self._order is not None:
                        return None
                    if (action := verb.get("action")) is not None:
                        return Step(self._web.join(url, action), verb.get("method", "POST"))
                case _:
                    self._report.note(f"a verb that is not simulated: {verb.tag[:20]}")
        return None

    async def _pause(self, seconds: float) -> None:
        """Waits, unless the call is redirected."""
        try:
            async with asyncio.timeout(seconds / self._line.speed):
                await self._ordered.wait()
        except TimeoutError:
            pass

    # -- <Connect><Stream> ---------------------------------------------------------------------------

    async def _connect(self, noun: Element, base: str) -> None:
        """Opens the socket and lives the stream until one side ends it."""
        self.stream_url = noun.get("url", "")
        opened = await self._upgrade(noun)
        if isinstance(opened, Socket):
            await self._live(self._open_stream(opened, noun), noun, base)
            return
        code, reason = opened
        self._report.fault(code, reason, self.now)
        self._tell("stream refused", self.now, f"{code} {reason}")
        self._refused = LinkError(
            f"{shown(self.stream_url)} refused the stream: {reason} (Twilio error {code})"
        )
        await self._status(noun, base, "stream-error", f"{code} {reason}")

    async def _upgrade(self, noun: Element) -> Socket | tuple[int, str]:
        """The socket, or Twilio's error code and the reason."""
        if fault := stream_fault(self.stream_url, noun.get("track", "inbound_track")):
            return fault
        try:
            return await self._web.upgrade(self.stream_url)
        except aiohttp.WSServerHandshakeError as error:
            return carrier.UPGRADE_REFUSED, f"HTTP {error.status}"
        except TimeoutError:
            return carrier.CONNECT_TIMED_OUT, "no answer in time"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return carrier.CANNOT_CONNECT, type(error).__name__

    def _open_stream(self, socket: Socket, noun: Element) -> MediaStream:
        clock = StreamClock(self._line.speed)
        self.clock = self.clock or clock
        codec = CarrierCodec(
            stream="MZ" + secrets.token_hex(16),
            call=self._form["CallSid"],
            account=self._form["AccountSid"],
            parameters={item.get("name", ""): item.get("value", "") for item in noun.iter("Parameter")},
            start_overrides=self._line.start_overrides,
        )
        self._report.stream_sids.append(codec.stream)
        offset = round((clock.zero - self.clock.zero) * self._line.speed * PHONE.rate)
        return MediaStream(socket, codec, self._handset, self._report, self._tell, self._line, clock, offset)

    async def _live(self, stream: MediaStream, noun: Element, base: str) -> None:
        self.stream = stream
        if self._order is not None:  # it came while the socket was being opened
            stream.hang_up()
        self._tell("stream started", stream.offset / PHONE.rate, stream.codec.stream)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._status(noun, base, "stream-started"))
                ended_by = await stream.run()
        finally:
            self.stream = None
            self.tracks.append((stream.offset, *stream.tracks()))
        if ended_by == "broken":
            await self._status(noun, base, "stream-error", f"{carrier.CONNECTION_BROKE} connection broke")
        else:
            await self._status(noun, base, "stream-stopped")

    async def _status(self, noun: Element, base: str, event: str, error: str = "") -> None:
        """Tells the statusCallback of the <Stream>, if there is one; nothing depends on the answer."""
        if (callback := noun.get("statusCallback")) is None:
            return
        stream = self._report.stream_sids[-1] if self._report.stream_sids else ""
        form = {
            "AccountSid": self._form["AccountSid"],
            "CallSid": self._form["CallSid"],
            "StreamSid": stream,
            "StreamName": noun.get("name", stream),
            "StreamEvent": event,
            **({"StreamError": error} if error else {}),
        }
        try:
            method = noun.get("statusCallbackMethod", "POST")
            await self._web.request(method, self._web.join(base, callback), form)
        except LinkError:
            self._report.note("a status callback that failed")


def _seconds(length: str) -> float:
    """The length of a <Pause>: whole seconds, 1 when it cannot be read."""
    return float(length) if length.isdecimal() else 1.0
