"""Twilio's side of one Media Stream on a real socket: sends the caller's audio, plays the agent's.

Four tasks and no shared state but two queues: the talker ticks every 20 ms, the sender owns the writing,
the receiver the reading, and the player lives on the play-out clock. Every wait ends at an absolute
deadline of the stream's clock, so nothing drifts, and a fast clock is the same code with another speed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

from processors.twilio.simulated import carrier
from processors.twilio.simulated.carrier import FRAME_SAMPLES, CarrierCodec, Clear, Complaint, Mark, Play
from processors.twilio.simulated.handset import Handset
from processors.twilio.simulated.playout import Played, Playout
from processors.twilio.simulated.report import STUTTER, CallReport, Kind
from voiceflow.frames import PHONE

FRAME = FRAME_SAMPLES / PHONE.rate
SEND_TIMEOUT = 5.0
CLOSE_TIMEOUT = 2.0
MOST_WAITING = 20_000
"""Messages on their way, each direction: six minutes of 20 ms frames. The reader then stops reading."""

NO_CODE, NO_CLOSE_FRAME = 1005, 1006
"""What RFC 6455 7.4.1 calls a close frame without a code, and a connection lost without a frame."""

EndedBy = Literal["caller", "server", "broken", "died"]


@dataclass(slots=True, frozen=True)
class Line:
    """How the simulated line behaves.

    speed            a clock that runs so many times faster than real time
    delay_out/_in    seconds that messages need to the server and back; their order is kept
    announce         False: no `connected` and no `start`
    media            False: no caller audio, and no keys
    dial_answered    whether somebody picks up when TwiML dials; else its next verb follows
    start_overrides  fields that replace those of the `start` object, for a caller that lies
    """

    speed: float = 1.0
    delay_out: float = 0.0
    delay_in: float = 0.0
    announce: bool = True
    media: bool = True
    dial_answered: bool = True
    start_overrides: Mapping[str, Any] = field(default_factory=dict)


class Socket(aiohttp.ClientWebSocketResponse):
    """A client WebSocket that can also be cut like a cable."""

    def abort(self) -> None:
        """Drops the TCP connection: no close frame, nothing that waits is still sent."""
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()


class StreamClock:
    """Seconds since it was made, `speed` times as fast as the loop's clock."""

    def __init__(self, speed: float = 1.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._speed = speed
        self.zero = self._loop.time()

    def now(self) -> float:
        return (self._loop.time() - self.zero) * self._speed

    def when(self, at: float) -> float:
        """The loop's time at `at` seconds of this clock."""
        return self.zero + at / self._speed

    async def until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, self.when(at) - self._loop.time()))


class MediaStream:
    """One stream from `connected` to its end. `run` it once.

    `offset` is where its clock starts on the call's clock, in samples; the handset and what it tells are
    on the call's.
    """

    def __init__(
        self,
        socket: Socket,
        codec: CarrierCodec,
        handset: Handset,
        report: CallReport,
        tell: Callable[[Kind, float, str], None],
        line: Line,
        clock: StreamClock,
        offset: int = 0,
    ) -> None:
        self.codec = codec
        self.offset = offset
        self.ended_by: EndedBy | None = None
        self._socket = socket
        self._handset = handset
        self._report = report
        self._tell = tell
        self._line = line
        self._clock = clock
        self._playout = Playout()
        self._ran_dry = False
        self._sent = bytearray()
        self._over = asyncio.Event()
        # None asks the sender to hang up; an int is the close code with which the server went.
        self._outbox: asyncio.Queue[tuple[float, str | bytes | None]] = asyncio.Queue(MOST_WAITING)
        self._inbox: asyncio.Queue[tuple[float, str | bytes | int]] = asyncio.Queue(MOST_WAITING)

    async def run(self) -> EndedBy:
        """Runs until one side ends the stream; the socket is closed then."""
        if self._line.announce:
            self.send(self.codec.connected())
            self.send(self.codec.start())
        try:
            async with asyncio.TaskGroup() as group:
                works = [self._talk(), self._deliver(), self._receive(), self._play()]
                tasks = [group.create_task(work) for work in works]
                await self._over.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self._follow(event for event in self._playout.clear(self._sample()) if event.kind == "silent")
            if self.ended_by != "died":
                await self._socket.close()
        return self.ended_by or "broken"

    def send(self, message: str | bytes) -> None:
        """Puts a message on its way: text for str, binary for bytes."""
        self._put(message)

    def hang_up(self) -> None:
        """Sends `stop` behind what is on its way, then closes."""
        self._put(self.codec.stop())
        self._put(None)

    def die(self) -> None:
        """Cuts the connection at once."""
        self._socket.abort()
        self._end("died")

    @property
    def dry_at(self) -> float:
        """When the agent's audio runs out, or ran out, in seconds of the call."""
        return (self._playout.end + self.offset) / PHONE.rate

    def tracks(self) -> tuple[bytes, bytes]:
        """What the caller sent and what was played, mu-law from the stream's start on."""
        return bytes(self._sent), self._playout.recording()

    # -- the four tasks ----------------------------------------------------------------------------

    async def _talk(self) -> None:
        frame = 0
        while self._line.media:
            # Twilio can send 20 ms of sound only when they are over.
            await self._clock.until((frame + 1) * FRAME)
            audio, acts = self._handset.read(self.offset + frame * FRAME_SAMPLES, FRAME_SAMPLES)
            for act in acts:
                if act.digit:
                    self.send(self.codec.dtmf(act.digit))
                self._tell(act.kind, act.at / PHONE.rate, act.digit)
            self._sent += audio
            self.send(self.codec.media(audio, frame))
            frame += 1

    async def _deliver(self) -> None:
        while True:
            at, message = await self._outbox.get()
            if at > self._clock.now():
                await self._clock.until(at)
            if message is None:
                return self._end("caller")
            try:
                async with asyncio.timeout(SEND_TIMEOUT):
                    if isinstance(message, str):
                        await self._socket.send_str(message)
                    else:
                        await self._socket.send_bytes(message)
            except (aiohttp.ClientError, OSError):  # TimeoutError is an OSError
                # A server that went away tells so in what it sent last: let the receiver find it.
                if not self._socket.closed:
                    await asyncio.sleep(CLOSE_TIMEOUT)
                    self._end("broken")
                return None

    async def _receive(self) -> None:
        while True:
            message = await self._socket.receive()
            at = self._clock.now() + self._line.delay_in
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                await self._inbox.put((at, message.data))
                continue
            # aiohttp reports a connection that ends without a close frame as a clean end: trust the frame.
            closed = message.type is aiohttp.WSMsgType.CLOSE
            return await self._inbox.put((at, (message.data or NO_CODE) if closed else NO_CLOSE_FRAME))

    async def _play(self) -> None:
        arrived: tuple[float, str | bytes | int] | None = None
        while True:
            due = self._playout.due()
            wake = None if due is None else due / PHONE.rate
            if arrived is None:
                try:
                    async with asyncio.timeout_at(None if wake is None else self._clock.when(wake)):
                        arrived = await self._inbox.get()
                except TimeoutError:
                    pass
            else:
                await self._clock.until(arrived[0] if wake is None else min(wake, arrived[0]))
            # A timer may fire 1e-10 s before its time, and in virtual time the clock stands still then.
            now = self._clock.now() + 1e-9
            if arrived is not None and arrived[0] <= now:
                self._take(*arrived)
                arrived = None
            self._follow(self._playout.advance(self._sample()))

    # -- what they share ---------------------------------------------------------------------------

    def _put(self, message: str | bytes | None) -> None:
        try:
            self._outbox.put_nowait((self._clock.now() + self._line.delay_out, message))
        except asyncio.QueueFull:
            self._end("broken")

    def _end(self, by: EndedBy, detail: str = "") -> None:
        if self._over.is_set():
            return
        self.ended_by = by
        self._over.set()
        if by == "broken":
            self._complain(carrier.CONNECTION_BROKE, "the connection broke")
        if by in ("broken", "server"):
            self._tell("stream closed by server", self._at(self._sample()), detail)

    def _sample(self) -> int:
        # A timer may fire 1e-10 s before its sample, and in virtual time the clock stands still then.
        return int(self._clock.now() * PHONE.rate + 1e-3)

    def _at(self, sample: int) -> float:
        return (sample + self.offset) / PHONE.rate

    def _take(self, at: float, message: str | bytes | int) -> None:
        """One message of the server, at the moment it reaches Twilio."""
        if isinstance(message, int):
            return self._end("broken" if message == NO_CLOSE_FRAME else "server", f"code {message}")
        sample = int(at * PHONE.rate)
        match self.codec.read(message):
            case Play(audio):
                self._report.media_messages += 1
                self._report.bytes_received += len(audio)
                if not audio or len(audio) % FRAME_SAMPLES:
                    self._report.note("media that is no multiple of 160 bytes")
                self._follow(self._playout.audio(sample, audio))
            case Mark(name):
                self._follow(self._playout.mark(sample, name))
            case Clear():
                self._follow(self._playout.clear(sample))
            case Complaint(code, detail):
                self._complain(code, detail)
        return None

    def _complain(self, code: int, detail: str) -> None:
        at = self._at(self._sample())
        if self._report.fault(code, detail, at):
            self._tell("fault", at, f"{code} {detail}")

    def _follow(self, events: Iterable[Played]) -> None:
        for event in events:
            at = self._at(event.at)
            match event.kind:
                case "heard":
                    self._tell("agent heard", at, self._gap(event.samples))
                case "silent":
                    self._ran_dry = True
                    self._tell("agent silent", at, "")
                case "cleared":
                    self._ran_dry = False
                    self._tell("clear received", at, f"{event.samples * 1000 // PHONE.rate} ms thrown away")
                case "mark":
                    self.send(self.codec.mark(event.name))
                    self._tell("mark returned", at, event.name)
                case "discarded":
                    self._report.discarded += event.samples
                    self._complain(carrier.AUDIO_DISCARDED, "audio beyond ten minutes discarded")

    def _gap(self, samples: int) -> str:
        """What to say about the silence before audio: empty unless it was an underrun."""
        if not self._ran_dry or samples >= STUTTER * PHONE.rate:
            return ""
        self._report.underruns += 1
        return f"after a gap of {samples * 1000 // PHONE.rate} ms"
