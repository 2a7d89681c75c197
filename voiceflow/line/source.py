"""The source: the line's events become frames. The first processor of every pipeline."""

from __future__ import annotations

import asyncio

from voiceflow.engine.processor import Processor
from voiceflow.errors import LineError, LinkError
from voiceflow.frames import AudioIn, Dtmf
from voiceflow.line.codec import (
    LineAudio,
    LineDigit,
    LineEvent,
    LineIgnored,
    LineMark,
    LineRefused,
    LineStarted,
    LineStopped,
)
from voiceflow.line.sink import LineSink
from voiceflow.line.stream import Line

FAULTS_BOUND = 1000
"""Messages that break the protocol after which the stream is given up."""
SILENCE_LIMIT = 15.0
"""Seconds without any message after which the line counts as dead."""
SILENT = "the line is silent"
CLOCK_JUMP_MS = 100
"""How far the carrier's clock may run ahead of the samples we counted before we believe it."""


class LineSource(Processor):
    """Reads the line: AudioIn for every packet, Dtmf for every key; marks go to the sink's ledger.

    `at` of AudioIn counts samples since the first stream began. It follows the samples that came, and jumps
    ahead with the carrier's own clock where packets were lost, and with ours from one stream to the next.
    """

    emits = (AudioIn, Dtmf)

    def __init__(self, line: Line) -> None:
        self.line = line
        self.position = 0
        """Samples of caller audio so far."""
        self.packets = 0
        self._began = 0
        """Samples before this stream: its carrier counts from 0."""
        self.faults: dict[str, int] = {}
        """Messages that were ignored, by kind."""

    async def read(self, sink: LineSink | None) -> str:
        """Reads until the stream is over; returns why. Once more for a stream that follows it.

        Raises LineError when it breaks the protocol, LinkError when the connection is lost, or silent for
        SILENCE_LIMIT seconds: a carrier sends a packet every 20 ms, also when nobody speaks.
        """
        link = self.line.link
        assert link is not None, "read() runs after the line is open"
        loop = self.call.loop
        if self.packets:
            away = loop.time() - self.line.arrived[1]
            self.position += max(0, round(away * self.line.format.rate))
        self._began = self.position
        reader = asyncio.current_task(loop)
        watch: asyncio.TimerHandle | None = None
        messages = 0

        def check_silence(before: int) -> None:
            nonlocal watch
            assert reader is not None
            if messages == before:
                reader.cancel(SILENT)
            else:
                watch = loop.call_later(SILENCE_LIMIT, check_silence, messages)

        # One timer for many packets: a timeout around each `receive` would cost more than the packet.
        watch = loop.call_later(SILENCE_LIMIT, check_silence, messages)
        try:
            while True:
                message = await link.receive()
                messages += 1
                if message is None:
                    return "the carrier closed the stream"
                for event in self.line.codec.parse(message):
                    if (ended := self._take(event, sink)) is not None:
                        return ended
        except asyncio.CancelledError as cancelled:
            if cancelled.args == (SILENT,):
                raise LinkError(f"nothing came for {SILENCE_LIMIT:g} s") from None
            raise
        finally:
            watch.cancel()

    def _take(self, event: LineEvent, sink: LineSink | None) -> str | None:
        """One event. Returns why the stream is over, when it is."""
        match event:
            case LineAudio(audio, at_ms):
                rate = self.line.format.rate
                counted = (self.position - self._began) * 1000 // rate
                if at_ms is not None and at_ms - counted > CLOCK_JUMP_MS:
                    self.position = self._began + at_ms * rate // 1000
                frame = AudioIn(audio, self.position, self.line.format)
                self.position += frame.samples
                self.packets += 1
                self.line.arrived = (self.position, self.call.loop.time())
                self.push(frame)
            case LineMark(name):
                if sink is not None:
                    sink.mark_returned(name)
            case LineDigit(digit):
                self.push(Dtmf(digit))
            case LineStopped(reason):
                self.line.stopped = True
                return reason or "the caller hung up"
            case LineIgnored(kind, detail):
                self._ignore(kind, detail)
            case LineRefused(reason):
                raise LineError(reason)
            case LineStarted():
                self._ignore("second start", "")
        return None

    def _ignore(self, kind: str, detail: str) -> None:
        """Logs the first of its kind, counts the others."""
        if kind not in self.faults:
            self.call.log.warning(f"line: ignored {kind}" + (f": {detail}" if detail else ""))
        self.faults[kind] = self.faults.get(kind, 0) + 1
        if sum(self.faults.values()) >= FAULTS_BOUND:
            raise LineError(f"{FAULTS_BOUND} messages broke the protocol, the last with {kind}")
