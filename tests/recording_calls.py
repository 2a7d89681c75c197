"""A call that is recorded, in virtual time, and a carrier whose own play-out is the truth about it.

The carrier is Twilio's model of play-out behind a network: delays each way, late packets, lost packets, a
clock that runs at another speed. Each packet carries the carrier's time, as Twilio's do.
"""

from __future__ import annotations

import asyncio
import json
import random
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from processors.recording import Recording
from processors.twilio.simulated.playout import Playout
from voiceflow.audio import Samples, decode
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on
from voiceflow.frames import AudioOut, Prompt, ReplyEnd, Sentence
from voiceflow.line.codec import LineAudio, LineEvent, LineStarted, Wire
from voiceflow.record import CallResult
from voiceflow.services import Services
from voiceflow.testing.line import MemoryCodec
from voiceflow.testing.links import MemoryLink, pair

RATE = 8000


class TimedCodec(MemoryCodec):
    """Audio comes with the carrier's time in milliseconds, in its first eight bytes."""

    def parse(self, message: Wire) -> list[LineEvent]:
        if isinstance(message, bytes):
            return [LineAudio(message[8:], int.from_bytes(message[:8], "big"))]
        return super().parse(message)


def noise(seed: object, samples: int) -> bytes:
    """Mu-law that occurs nowhere else, and is nowhere silent."""
    return bytes(random.Random(repr(seed)).choices(range(0x20, 0x70), k=samples))


class Turner(Processor):
    """The turn's authority, moved by the test."""

    takes_turns = True


class Noisy(Processor):
    """Says a Sentence as noise of its own, 50 ms a character, in pieces of 300 ms. It has no answers."""

    emits = (AudioOut, ReplyEnd)

    @on(Prompt)
    def answer(self, prompt: Prompt) -> Iterator[ReplyEnd]:
        yield ReplyEnd()

    @on(Sentence)
    def speak(self, sentence: Sentence) -> Iterator[AudioOut]:
        audio = noise(sentence.text, len(sentence.text) * 400)
        text = sentence.text
        for begin in range(0, len(audio), 2400):
            yield AudioOut(audio[begin : begin + 2400], text)
            text = ""


@dataclass(slots=True)
class Network:
    """Seconds each way; `late(k)` more for packet k, whose order is kept; `lost(k)`: it never comes."""

    out: float = 0.0
    back: float = 0.0
    late: Callable[[int], float] = lambda packet: 0.0
    lost: Callable[[int], bool] = lambda packet: False
    speed: float = 1.0
    packet: int = 160


class Carrier:
    """The other end of the link. `said` is what the caller says, by its first sample."""

    def __init__(self, link: MemoryLink, network: Network) -> None:
        self.link, self.network = link, network
        self.playout = Playout()
        self.said: dict[int, bytes] = {}
        self.sent = bytearray()
        """All that the caller said, silence included, lost packets as silence."""
        self._loop = asyncio.get_running_loop()
        self._zero = self._loop.time()
        self._number = 0
        self._last = 0.0
        self._timer = self._loop.call_at(self._when(network.packet), self._talk)
        self._reader = asyncio.create_task(self._read(), name="carrier")

    def sample(self) -> int:
        """Its clock."""
        return int((self._loop.time() - self._zero) * RATE * self.network.speed + 1e-3)

    def say(self, audio: bytes, after: float = 0.0) -> int:
        """The caller says it, after so many seconds from now; its first sample."""
        at = max(self.sample() + int(after * RATE), len(self.sent) + self.network.packet)
        self.said[at] = audio
        return at

    def heard(self) -> bytes:
        """What it has played by now."""
        self.playout.advance(self.sample())
        return self.playout.recording()

    async def close(self) -> None:
        self._timer.cancel()
        self.link.close_now()
        await self._reader

    def _when(self, sample: int) -> float:
        return self._zero + sample / RATE / self.network.speed

    def _talk(self) -> None:
        start, samples = len(self.sent), self.network.packet
        packet = bytearray(b"\xff" * samples)
        for at, audio in list(self.said.items()):
            first, last = max(at, start), min(at + len(audio), start + samples)
            if first < last:
                packet[first - start : last - start] = audio[first - at : last - at]
            elif at + len(audio) <= start:
                del self.said[at]
        number, self._number = self._number, self._number + 1
        lost = self.network.lost(number)
        self.sent += b"\xff" * samples if lost else packet
        if not lost:
            message = (start * 1000 // RATE).to_bytes(8, "big") + packet
            self._deliver(message, self.network.late(number))
        self._timer = self._loop.call_at(self._when(len(self.sent) + samples), self._talk)

    def _deliver(self, message: Wire, late: float = 0.0) -> None:
        self._last = max(self._last, self._loop.time() + self.network.out + late)
        if self._last > self._loop.time():
            self._loop.call_at(self._last, self._send, message)
        else:
            self._send(message)

    def _send(self, message: Wire) -> None:
        if self.link.is_open:
            self.link.send_now(message)

    async def _read(self) -> None:
        while (message := await self.link.receive()) is not None:
            if self.network.back:
                self._loop.call_later(self.network.back, self._take, message)
            else:
                self._take(message)

    def _take(self, message: Wire) -> None:
        if isinstance(message, bytes):
            events = self.playout.audio(self.sample(), message)
        elif message == "clear":
            events = self.playout.clear(self.sample())
        else:
            events = self.playout.mark(self.sample(), message.removeprefix("mark "))
        self._follow(events)

    def _follow(self, events: Any) -> None:
        for event in events:
            if event.kind == "mark":
                self._deliver(f"mark {event.name}")
        if (due := self.playout.due()) is not None:
            self._loop.call_at(max(self._when(due), self._loop.time()), self._advance)

    def _advance(self) -> None:
        self._follow(self.playout.advance(self.sample()))


class Recorded:
    """A call that runs, and what was recorded of it."""

    def __init__(self, call: Call, carrier: Carrier, recording: Recording, folder: Path) -> None:
        self.call, self.carrier, self.recording, self.folder = call, carrier, recording, folder
        self.result: CallResult | None = None

    @property
    def wav(self) -> Path:
        (path,) = self.folder.glob(f"*-{self.call.id}.wav")
        return path

    def channels(self) -> tuple[Samples, Samples]:
        return channels(self.wav)

    def transcript(self) -> dict[str, Any]:
        return transcript(self.wav)

    def said(self) -> list[tuple[str, str]]:
        return [(entry["speaker"], entry["text"]) for entry in self.transcript()["entries"]]

    def figures(self) -> dict[str, float]:
        assert self.result is not None
        return {
            name.removeprefix("Recording."): value
            for name, value in self.result.figures.items()
            if name.startswith("Recording.")
        }


def channels(path: Path) -> tuple[Samples, Samples]:
    """Left and right, by the standard library's own reader."""
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, RATE)
        count = file.getnframes()
        data = file.readframes(count)
    assert len(data) == count * 4
    frames = np.frombuffer(data, "<i2").reshape(-1, 2)
    return frames[:, 0], frames[:, 1]


def transcript(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_suffix(".transcript.json").read_text())
    return found


def where(track: Samples, audio: bytes) -> int | None:
    """The sample at which some noise begins, found by its first 40 samples."""
    wanted = decode(audio)[:40]
    for at in np.flatnonzero(track == wanted[0]):
        if np.array_equal(track[at : at + len(wanted)], wanted):
            return int(at)
    return None


def loud(track: Samples) -> list[tuple[int, int]]:
    """The stretches that are not silent, from and to."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], (track != 0).astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


@asynccontextmanager
async def recorded(
    folder: Path,
    *,
    network: Network | None = None,
    id: str = "call",
    services: Services | None = None,
    above: tuple[Processor, ...] = (),
    **options: Any,
) -> AsyncIterator[Recorded]:
    """`async with recorded(tmp_path) as phone`: afterwards the call is over and its files are complete."""
    own = services or Services()
    ours, theirs = pair()
    call = Call(TimedCodec(), id=id, caller="+12025550143", called="+12025550199", services=own)
    options.setdefault("now", lambda: datetime(2026, 11, 22, 10, 15, 30, 123_000, UTC))
    recording = Recording(folder, **options)
    call.prepare(Pipeline(call.source(), *above, Turner(), Noisy(), recording, call.sink()))
    network = network or Network()
    carrier = Carrier(theirs, network)
    await asyncio.sleep(network.out)  # the stream's start takes the same way as its audio
    running = asyncio.create_task(call.run(ours, LineStarted("memory", id, call.line.format)), name="call")
    assert call._starting is not None
    await asyncio.wait([call._starting])
    phone = Recorded(call, carrier, recording, folder)
    try:
        yield phone
    finally:
        await carrier.close()
        phone.result = await running
        if services is None:
            await own.close()
