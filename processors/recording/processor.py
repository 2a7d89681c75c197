"""Recording: what both sides said, as a stereo WAV file with its transcript, written as the call runs.

    Pipeline(call.source(), ..., Recording("calls"), call.sink())

    20261122T101530.123Z-w0-1.wav               caller left, agent right, 16 bits, at the line's rate
    20261122T101530.123Z-w0-1.transcript.json   who said what and when, in seconds of the WAV file
    20261122T101530.123Z-w0-1.vtt               the same as subtitles

The time line is the caller's: sample n of his audio is sample n of the file, so lost packets are silence and
nothing drifts. The agent's audio stands where it played, by the ledger's times, translated by the sample
clock; what was cleared before it played is not there. The point of view is the server's: for the caller the
agent is later by the network's round trip.

The call never waits for the disk. Every TICK seconds what has come goes to a thread; when that is busy, it is
kept, and beyond a bound lost.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from processors.recording.formats import About
from processors.recording.pauses import Pauses
from processors.recording.placing import Piece, Placing
from processors.recording.transcript import Transcript as Record
from processors.recording.wav import LEFT, RIGHT
from processors.recording.writing import BOUND, Batch, Disk, Outcome, Writer
from voiceflow.audio import encode
from voiceflow.clock import is_virtual
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.errors import VoiceflowError
from voiceflow.frames import (
    AudioIn,
    CallStart,
    Cleared,
    Heard,
    RecordingPause,
    RecordingResume,
    Sent,
    Transcript,
    VoiceStart,
)
from voiceflow.line.sampleclock import SampleClock
from voiceflow.trace.file import write_private
from voiceflow.trace.folder import file_name
from voiceflow.trace.recorder import Event

TICK = 0.5
"""Seconds between two batches for the disk. With a piece's length (0.1 s) and the time until it settles
(0.25 s), what a killed process loses stays below a second."""
WORDS = 1.0
"""Seconds at least between two writings of the transcript, which is written as a whole."""
FIRST_AUDIO = 1.0
"""Seconds for which the agent's audio waits for the caller's first packet, which starts the sample clock."""
LEAD = 0.1
"""Seconds between the line's opening and the caller's first sample that are believed. Less than that is the
first packet's lateness; more, and the agent may have spoken before there was any audio of the caller's."""
EVIDENCE = 3.0
"""Seconds by which a recogniser's start of a turn may be later than the detector's start of the voice."""
LAST_BATCH = 4.0
"""Seconds that the end of a call waits for the disk."""


def _now() -> datetime:
    """The clock on the wall: a label for people. Nothing is ever measured with it."""
    return datetime.now(UTC)


class Recording(Processor):
    """Records the call. `path` is a folder, where each call gets files named by its start and id, or the name
    of a .wav file; a name that is taken gets a number. Only their owner can read the files.

    `paused`: nothing is recorded before `resume()`, as when the caller has to agree first.

    A folder that cannot be made or written to is a VoiceflowError before the first call; a disk that fails
    later costs the recording, once in the log, and never the call.
    """

    def __init__(self, path: str | Path, *, paused: bool = False, now: Callable[[], datetime] = _now) -> None:
        self.path = Path(path).expanduser()
        self._now = now
        self._pauses = Pauses()
        if paused:
            self._pauses.pause("", 0)
        self._opened: float | None = None
        """When the line was open (`loop.time()`)."""
        self._clock = SampleClock(1)
        self._lead = 0
        """Samples of the file before the caller's sample 0, when his audio began later than the call."""
        self._length = 0
        """Of the time line, in samples."""
        self._batch = Batch()
        self._with_disk: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._told_at = -math.inf
        self._voice: int | None = None
        """Where the caller's voice began, by a detector, in this turn."""
        self._frames = 0
        self._lost = 0
        self._complained = False

    # -- pauses, for tools and hooks

    @property
    def paused(self) -> bool:
        """Whether nothing is recorded now."""
        return self._pauses.since is not None

    def pause(self, why: str = "") -> None:
        """Records nothing until `resume` with the same reason: silence in both channels, and no words.

        Reasons are names: with two of them given, both have to be resumed; the same one twice is one.
        """
        if self._pauses.pause(why, self._here()) and self._opened is not None:
            self.call.trace.note(self.name, f"paused {why}".strip())

    def resume(self, why: str = "") -> None:
        """Takes a reason for a pause back. Nothing happens when it was not given."""
        if self._pauses.resume(why, self._here()) and self._opened is not None:
            self.call.trace.note(self.name, "goes on")

    @contextmanager
    def off(self, why: str = "off") -> Iterator[None]:
        """`with recording.off("card number"):` pauses for as long as the block runs, however it ends."""
        self.pause(why)
        try:
            yield
        finally:
            self.resume(why)

    # -- the call's life

    async def warm(self) -> None:
        folder = self.path.parent if self._is_file else self.path
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = folder / ".voiceflow-recording"
            write_private(probe, "")
            probe.unlink()
        except OSError as error:
            raise VoiceflowError(
                f"calls cannot be recorded in {folder}: {error.strerror}. Give Recording(...) a folder that "
                "can be written to, or the name of a .wav file in one"
            ) from None

    async def start(self) -> None:
        self.call.trace.listeners.append(self._told)

    @on(CallStart)
    def line_open(self, frame: CallStart) -> None:
        self._open()

    def _open(self) -> None:
        """The file begins: the line is open, or somebody speaks in the very instant in which it opens."""
        if self._opened is not None:
            return
        call, started = self.call, self._now()
        self._format = call.line.format
        self._opened = call.loop.time()
        self._clock = SampleClock(self._format.rate)
        self._clock.begin(self._opened)
        self._placing = Placing(self._clock, self._format.sample_bytes)
        self._words = Record(self._format.rate, lambda start, end: bool(self._pauses.within(start, end)))
        path = self.path if self._is_file else self.path / file_name(call.id, started, ".wav")
        label = started.isoformat("T", "milliseconds")
        about = About(call.id, label, call.caller, call.called, self._format.rate)
        self._writer = Writer(path, self._format, about)
        in_line = is_virtual(call.loop)
        self._disk = call.services.shared("recordings", partial(Disk, in_line=in_line))
        self._tick()

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._opened is None:
            return
        self._cut(self.call.loop.time())
        self._settle(math.inf)
        self._words.close(self._length)
        last = self._hand(last=True)
        try:
            async with asyncio.timeout(LAST_BATCH):
                await last
        except TimeoutError:
            self._complain("the disk is slow, and its end may be missing")

    def figures(self) -> Mapping[str, float]:
        rate = self._clock.rate
        paused = sum(end - start for start, end in self._pauses.within(0, self._length))
        return {
            "recorded_seconds": round(self._frames / rate, 3),
            "recording_paused": round(paused / rate, 3),
            "recording_lost": round(self._lost / rate, 3),
        }

    # -- audio

    @tap(AudioIn)
    def caller(self, frame: AudioIn) -> None:
        self._open()
        assert self._opened is not None
        end = frame.at + frame.samples
        known = self._clock.running
        samples, at = self.call.line.arrived
        if samples < end:  # it did not come over the line
            samples, at = end, self.call.loop.time()
        self._clock.arrived(samples, at)
        if not known:
            before = -self._clock.sample(self._opened)
            self._lead = before if before > LEAD * self._format.rate else 0
            self._placing.first = -self._lead
        audio = frame.audio
        if frame.format.encoding != self._format.encoding:  # a processor above works in another one
            audio = encode(frame.pcm, self._format)
        self._add(LEFT, frame.at + self._lead, audio)
        self._length = max(self._length, end + self._lead)

    @on(Sent)
    def agent(self, frame: Sent) -> None:
        self._open()
        self._placing.sent(Piece(frame.audio, frame.at, frame.of))

    @on(Cleared)
    def cleared(self, frame: Cleared) -> None:
        if self._opened is not None:
            self._cut(frame.at)

    @on(RecordingPause)
    def paused_by_frame(self, frame: RecordingPause) -> None:
        self.pause(frame.why)

    @on(RecordingResume)
    def resumed_by_frame(self, frame: RecordingResume) -> None:
        self.resume(frame.why)

    # -- words

    @tap(VoiceStart)
    def voice(self, frame: VoiceStart) -> None:
        if self._opened is None:
            return
        self._voice = at = frame.at + self._lead
        turn = self._words.turn_start
        if turn is not None and 0 < turn - at <= EVIDENCE * self._format.rate:
            self._words.turn_starts(at)

    @tap(Transcript)
    def words(self, frame: Transcript) -> None:
        if self._opened is not None:
            self._words.turn_words(frame.text)

    @on(Heard)
    def heard(self, frame: Heard) -> None:
        if self._opened is not None and not frame.final:
            self._words.heard(frame.of.number, frame.text, estimated=frame.estimated)

    def _told(self, event: Event) -> None:
        """By the trace: it knows of turns and replies wherever this stands in the chain."""
        if self._opened is None:
            return
        now = self.call.loop.time()
        match event.kind:
            case "caller speaks":
                here = self._here()
                recent = self._voice is not None and here - self._voice <= EVIDENCE * self._format.rate
                self._words.turn_began(self._voice if recent and self._voice is not None else here)
            case "caller done":
                end = self._sample(now - event.figures.get("since_speech", 0.0))
                self._words.turn_over(end, event.words)
                self._voice = None
            case "said" | "cut" if event.reply is not None:
                paths = self.call.trace.paths
                estimated = any(p.estimated for p in paths if p.reply == event.reply)
                self._words.heard(event.reply, event.words, estimated=estimated, cut=event.kind == "cut")

    # -- inside

    @property
    def _is_file(self) -> bool:
        return self.path.suffix.lower() == ".wav"

    def _sample(self, at: float) -> int:
        """The file's sample for an instant."""
        return self._clock.sample(at) + self._lead

    def _here(self) -> int:
        return self._sample(self.call.loop.time()) if self._opened is not None else 0

    def _add(self, channel: int, at: int, audio: bytes) -> None:
        """Audio that belongs at sample `at` of the file, without what falls into a pause."""
        width = self._format.sample_bytes
        samples = len(audio) // width
        if self._batch.waiting + samples > BOUND * self._format.rate:
            self._lost += samples
            self._complain("the disk is too slow")
            return
        for start, end in self._pauses.carve(max(at, 0), at + samples):
            self._batch.add(channel, start, audio[(start - at) * width : (end - at) * width], width)

    def _cut(self, at: float) -> None:
        """The agent's audio ends here: what was to play later is not heard."""
        over = self._placing.cleared(at)
        if over:
            end = self._placing.end + self._lead
            self._batch.silence(RIGHT, end, over)
            self._words.unplayed(end)

    def _settle(self, now: float) -> None:
        """Places what has played by `now`."""
        for start, piece in self._placing.settled(now):
            at = start + self._lead
            end = at + len(piece.audio) // self._format.sample_bytes
            self._add(RIGHT, at, piece.audio)
            self._length = max(self._length, end)
            if piece.of is not None:
                self._words.played(piece.of.number, at, end)

    def _tick(self) -> None:
        loop = self.call.loop
        self._timer = loop.call_at(loop.time() + TICK, self._tick)
        assert self._opened is not None
        if self._clock.running or loop.time() >= self._opened + FIRST_AUDIO:
            self._settle(loop.time())
        if self._with_disk is None or self._with_disk.done():
            self._hand()

    def _hand(self, *, last: bool = False) -> asyncio.Future[None]:
        """Gives the batch to the disk."""
        loop = self.call.loop
        batch, self._batch = self._batch, Batch()
        batch.last, batch.length = last, self._length
        if self._words.changed and (last or loop.time() >= self._told_at + WORDS):
            self._told_at = loop.time()
            batch.entries = self._words.entries()
        rate = self._format.rate
        batch.pauses = [
            (round(start / rate, 3), round(end / rate, 3))
            for start, end in self._pauses.within(0, self._length)
        ]
        self._with_disk = done = loop.create_future()

        def work() -> None:
            try:
                outcome = self._writer.write(batch)
            except Exception as error:
                outcome = Outcome(lost=batch.waiting, error=error)
            try:
                loop.call_soon_threadsafe(self._written, outcome, done)
            except RuntimeError:  # the loop is closed: the process ends
                pass

        if not self._disk.do(work):
            self._written(Outcome(self._frames, batch.waiting, OSError("too many batches wait")), done)
        return done

    def _written(self, outcome: Outcome, done: asyncio.Future[None]) -> None:
        self._frames = max(self._frames, outcome.frames)
        self._lost += outcome.lost
        if (error := outcome.error) is not None:
            self._complain(str(error.strerror if isinstance(error, OSError) and error.strerror else error))
        if not done.done():
            done.set_result(None)

    def _complain(self, why: str) -> None:
        """The first trouble with the disk is logged; all of it is counted."""
        if not self._complained:
            self._complained = True
            self.call.log.error(f"its recording in {self.path} is not complete: {why}")
