"""TextToSpeech: the processor that all voices share. A vendor adds an address, a key and a protocol.

What it promises, whatever the vendor:

1. A sentence is on its way to the vendor in the tick in which it comes, on a socket that is open already;
   later, only while AHEAD seconds of audio wait to be heard anyway.
2. An Interrupt drops what waits, tells the vendor to stop, and lets nothing of the reply through; the socket
   stays.
3. A connection that dies, stalls or refuses is replaced, and what the caller has not heard is said again.
   When there is nothing to hear of what is owed for PATIENCE seconds, the call ends, by name, and the caller
   hears the carrier's fallback.
4. ReplyEnd follows the last audio.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar

from voiceflow.engine.processor import Processor, on
from voiceflow.engine.reply import Reply, ReplyState
from voiceflow.errors import BufferOverflowError, LinkError, LinkRefused, VoiceflowError
from voiceflow.frames import AudioFormat, AudioOut, Interrupt, ReplyEnd, Sentence
from voiceflow.line.link import Link
from voiceflow.pool import WarmPool
from voiceflow.speech.connection import Connection
from voiceflow.speech.connections import DIAL_TIMEOUT, Connections, pool
from voiceflow.speech.outlet import Outlet
from voiceflow.speech.protocol import Audio, Finished, Ignored, Item, SpeechProtocol, Trouble
from voiceflow.speech.utterance import Utterance, pieces_of
from voiceflow.speech.waste import Waste
from voiceflow.vendor import TEMPORARY, Key, explained

AUDIO_TIMEOUT = 3.0
"""Seconds after which a connection counts as stalled that owes audio; the first takes 0.1 to 0.6."""
PATIENCE = 10.0
"""Seconds of silence while audio is owed, whatever is tried in them: three stalls, or two hosts that do not
answer. By an estimate: audio is taken to be heard from when it came."""
AGAIN = 2
"""How often PATIENCE begins anew while what had come before is said once more: 20 s of audio at most."""
PAUSES = (0.0, 0.2, 1.0)
"""Seconds before the first, the second, and every further connection that is tried for the same words."""
SHORT_LIFE = 5.0
"""Seconds. An idle connection that was closed sooner is not replaced before there is something to say."""
TICK = 0.1
"""Seconds between looks at the clock while something is spoken."""
AHEAD = 30.0
"""Seconds of audio that may wait here or be asked for, besides the 30 s that the sink queues, before the
vendor is given more text: what an Interrupt throws away was paid for."""
WAITING_BOUND = 1200.0
"""Seconds of audio above which the call ends. Only a vendor that says what nobody asked for comes to that."""
PIECES_BOUND = 4096
"""Pieces of one reply, hours of speech. Only a model that never ends comes to that: the call ends."""
KINDS = 20
"""Kinds of ignored messages that are logged, once each."""


class TextToSpeech(Processor, ABC):
    """Base of voices. A subclass gives `vendor`, sets `self.keys`, and makes `url`, `headers`, `protocol`."""

    needs = (Sentence,)
    pushes = (AudioOut,)
    emits = (ReplyEnd,)

    vendor: ClassVar[str]
    """Its name for errors and figures."""
    max_idle: ClassVar[float] = 60.0
    """Seconds an idle connection is kept warm: less than the vendor's own limit."""
    key: Key

    def __init__(self, *, spare: int = 1) -> None:
        self.spare = spare
        """Connections kept warm for the next calls, by the whole process."""
        self.counted = dict.fromkeys(
            ("characters", "cut", "reconnects", "late_ms", "ignored", "pool_hits", "pool_misses", "saved_ms"),
            0.0,
        )
        self._waste = Waste(self.counted)
        self._format = AudioFormat()
        self._utterances: dict[Reply, Utterance] = {}
        self._by_key: dict[str, Utterance] = {}
        self._lines = Connections(self._took, self.spawn, self._now)
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._kinds: set[str] = set()
        self._why = "no connection"
        """The latest trouble, for whoever has to end the call."""
        self._stopping = False

    # -- what a vendor gives

    @abstractmethod
    def url(self, format: AudioFormat) -> str:
        """Where to connect, for audio in this format. DeclarationError when the vendor cannot speak it."""

    @abstractmethod
    def headers(self) -> Mapping[str, str]:
        """The headers of the connection, the key among them."""

    @abstractmethod
    def protocol(self, format: AudioFormat) -> SpeechProtocol:
        """The protocol of a new connection."""

    # -- life

    async def warm(self) -> None:
        """Dials ahead before the first call, for DIAL_TIMEOUT + 1 seconds at most. VoiceflowError when the
        vendor refuses for good; what may pass is only logged."""
        try:
            await self._pool().fill(DIAL_TIMEOUT + 1.0)
        except LinkError as error:
            refusal = explained(error, self.vendor, self.key)
            if _for_good(refusal):
                raise refusal from None
            self.call.log.warning(f"{self.name}: no connection could be made ahead: {refusal}")

    async def start(self) -> None:
        self._format = self.call.line.format
        self._lines.pool = self._pool()
        self._connect_soon()

    async def stop(self) -> None:
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        for utterance in self._utterances.values():
            utterance.outlet.stop()
            self._waste.cut(utterance, self._format.rate)
        self._waste.close(self._format.rate)
        self._lines.close()

    def figures(self) -> Mapping[str, float]:
        return {name: round(value, 1) for name, value in self.counted.items()}

    # -- frames

    @on(Sentence, stops=True)
    def speak(self, frame: Sentence) -> None:
        assert frame.reply is not None
        if not (pieces := pieces_of(frame.text)):
            return
        utterance = self._utterances.get(frame.reply) or self._open(frame.reply)
        if not self._owed(utterance):
            utterance.heard(self._now())
        utterance.pieces.extend(pieces)
        utterance.protected.extend([frame.protected] * len(pieces))
        if len(utterance.pieces) > PIECES_BOUND:
            self.fail(BufferOverflowError("a reply's text", PIECES_BOUND, "the model never ends"))
            return
        self._advance(utterance)

    @on(ReplyEnd, stops=True)
    def finish(self, frame: ReplyEnd) -> None:
        assert frame.reply is not None
        utterance = self._utterances.get(frame.reply)
        if utterance is None:  # it had nothing to say
            self.push(ReplyEnd(reply=frame.reply))
            return
        utterance.ended = True
        self._advance(utterance)

    @on(Interrupt)
    def cut(self, frame: Interrupt) -> None:
        utterance = self._utterances.get(frame.dead)
        if utterance is not None:
            self._cancel(utterance)
        else:
            self._waste.dropped(frame.dead, self._format.rate)

    # -- utterances

    def _open(self, reply: Reply) -> Utterance:
        for old in [u for u in self._utterances.values() if u.reply.dead]:
            self._cancel(old)
        outlet = Outlet(self.spawn, self.put, lambda: self._advance(utterance), lambda: self._over(utterance))
        utterance = self._utterances[reply] = Utterance(reply, outlet)
        self._tick_soon()
        return utterance

    def _advance(self, utterance: Utterance) -> None:
        """Says what there is to say, as far as there is a connection and too much does not wait already."""
        if utterance.connection is None:
            if utterance.said < len(utterance.pieces):
                if not self._ahead(utterance):
                    self._assign(utterance)
            elif utterance.ended:
                utterance.outlet.finish()
            return
        key, connection = utterance.key, utterance.connection
        while utterance.said < len(utterance.pieces) and not self._ahead(utterance):
            text, now = utterance.pieces[utterance.said], self._now()
            if not connection.protocol.owes(key):
                utterance.owed_at = now
            utterance.said += 1
            self.counted["characters"] += len(text)
            utterance.characters += len(text)
            self._do(connection, connection.protocol.speak(key, text, now))
            if utterance.connection is not connection:
                return  # it was lost by that
        if utterance.ended and not utterance.closed and utterance.said == len(utterance.pieces):
            utterance.closed = True
            self._do(connection, connection.protocol.end(key, self._now()))

    def _assign(self, utterance: Utterance) -> None:
        """Gives an utterance a connection: the one that is there, or the next that can be had."""
        connection = self._lines.with_room()
        if connection is None:
            self._connect_soon()
            return
        utterance.assign(connection, self.call.new_id(f"r{utterance.reply.number}-"), self._now())
        self._by_key[utterance.key] = utterance
        self._advance(utterance)

    def _over(self, utterance: Utterance) -> None:
        self._forget(utterance)
        self._waste.spoken(utterance)
        self.push(ReplyEnd(reply=utterance.reply))

    def _cancel(self, utterance: Utterance) -> None:
        self.counted["cut"] += 1
        self._waste.cut(utterance, self._format.rate)
        self._forget(utterance)
        utterance.outlet.stop()
        if (connection := utterance.connection) is not None:
            reached = connection.drop(utterance.key)
            self._do(connection, connection.protocol.cancel(utterance.key, self._now(), reached=reached))

    def _forget(self, utterance: Utterance) -> None:
        self._utterances.pop(utterance.reply, None)
        self._by_key.pop(utterance.key, None)

    def _ahead(self, utterance: Utterance) -> bool:
        """Whether the vendor has enough to do for now."""
        return utterance.ahead(self._format.rate) >= AHEAD

    def _owed(self, utterance: Utterance) -> bool:
        """Whether there is something of it that has still to be spoken."""
        connection = utterance.connection
        if connection is not None and connection.protocol.owes(utterance.key):
            return True
        return utterance.said < len(utterance.pieces)

    def _now(self) -> float:
        return self.call.loop.time()

    # -- what comes

    def _do(self, connection: Connection, items: Iterable[Item]) -> None:
        for item in connection.queue(items):
            self._took(connection, item)

    def _took(self, connection: Connection, item: Item) -> None:
        """A connection's protocol said something that is not for the vendor."""
        match item:
            case Audio():
                self._hear(item)
            case Finished(key, spoken):
                self._finished(connection, key, spoken)
            case Trouble(reason, permanent):
                self._lost(connection, reason, permanent=permanent)
            case Ignored(kind):
                self.counted["ignored"] += 1
                if kind not in self._kinds and len(self._kinds) < KINDS:
                    self._kinds.add(kind)
                    self.call.log.warning(f"{self.name}: ignored {self._harmless(kind)}")

    def _hear(self, audio: Audio) -> None:
        utterance = self._by_key.get(audio.key)
        width, rate = self._format.sample_bytes, self._format.rate
        if utterance is None or utterance.reply.dead:
            self.counted["late_ms"] += len(audio.audio) / width / rate * 1000
            return
        now = utterance.owed_at = self._now()
        if seconds := utterance.take(audio, rate, width):
            utterance.heard(now, seconds)
            utterance.tries = 0
            if utterance.outlet.samples > WAITING_BOUND * rate:
                self.fail(BufferOverflowError("a voice's queue", int(WAITING_BOUND), "seconds of audio wait"))
        elif utterance.tries <= AGAIN:
            utterance.heard(now)

    def _finished(self, connection: Connection, key: str, spoken: int | None) -> None:
        """A key is over: with it the reply, or there is more to say under another key."""
        utterance = self._by_key.get(key)
        if utterance is not None:
            given = utterance.said
            done = given if spoken is None else utterance.first + spoken
            if done < given and done == utterance.missed:  # it was given twice
                if utterance.until < 0:
                    self._lost(connection, "it finished without a word", permanent=False)
                    return
                self.call.log.warning(f"{self.name}: {self.vendor} left out a part of what it was to say")
                done = given
            utterance.missed = done if done < given else -1
            del self._by_key[key]
            utterance.leave(done)
            self._advance(utterance)
        connection.forget(key)
        self._lines.release_unused(connection)

    # -- connections

    def _pool(self) -> WarmPool[Link]:
        format, services = self.call.line.format, self.call.services
        return pool(services, self.vendor, self.url(format), self.headers(), self.spare, self.max_idle)

    def _connect_soon(self) -> None:
        if self._connecting is None and not self._stopping:
            self._connecting = self.spawn(self._connect(), "connect")

    async def _connect(self) -> None:
        """Takes a connection from the pool, and speaks what waits for one. Goes on trying while something
        does: the clock ends that."""
        tries = max((u.tries - 1 for u in self._waiting() if u.tries), default=0)
        try:
            while True:
                if pause := PAUSES[min(tries, len(PAUSES) - 1)]:
                    await asyncio.sleep(pause)
                if await self._take():
                    return
                tries += 1
                if tries >= len(PAUSES) and not self._waiting():
                    return
        finally:
            self._connecting = None
            if self._lines.current is not None:
                for utterance in self._waiting():
                    self._advance(utterance)

    async def _take(self) -> bool:
        try:
            taken = await self._lines.pool.take()
        except LinkError as refused:
            error = explained(refused, self.vendor, self.key)
            if _for_good(error):
                raise error from None
            self._why = str(error)
            self.call.trace.note(self.name, f"no connection: {error}")
            return False
        self._lines.adopt(taken.connection, self.protocol(self._format))
        self.counted["pool_hits" if taken.hit else "pool_misses"] += 1
        self.counted["saved_ms"] += taken.saved * 1000
        return True

    def _waiting(self) -> list[Utterance]:
        """Those that have something to say and no connection."""
        return [u for u in self._utterances.values() if u.connection is None and u.said < len(u.pieces)]

    def _lost(self, connection: Connection, reason: str, *, permanent: bool) -> None:
        """A connection is of no use any more: what it had still to say goes to another."""
        if connection not in self._lines:
            return
        self._why = reason = self._harmless(reason)
        self._lines.release(connection, keep=False)
        if permanent:
            self.fail(VoiceflowError(f"{self.vendor}: {reason}"))
            return
        self.counted["reconnects"] += 1
        speaking = [u for u in self._utterances.values() if u.connection is connection]
        if speaking:
            self.call.trace.note(self.name, f"connection lost: {reason}")
        for utterance in speaking:
            del self._by_key[utterance.key]
            utterance.tries += 1
            utterance.leave(utterance.first + connection.protocol.done(utterance.key))
        for utterance in speaking:
            self._advance(utterance)
        if self._lines.current is None and self._now() - connection.since > SHORT_LIFE:
            self._connect_soon()

    def _harmless(self, said: str) -> str:
        """What a vendor said, without the key."""
        return said.replace(self.key.value, "***") if self.key else said

    # -- the clock

    def _tick_soon(self) -> None:
        if self._timer is None and not self._stopping:
            self._timer = self.call.loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._now()
        for connection in self._lines:
            self._do(connection, connection.protocol.due(now))
            self._lines.release_unused(connection)
        for utterance in list(self._utterances.values()):
            self._watch(utterance, now)
        if self._utterances or any(not c.protocol.clean() for c in self._lines):
            self._tick_soon()

    def _watch(self, utterance: Utterance, now: float) -> None:
        """Misses audio that is owed."""
        connection = utterance.connection
        if not self._owed(utterance):
            return
        if utterance.reply.state is ReplyState.DRAFT:  # nobody waits for it yet
            utterance.heard(now)
        if not utterance.outlet.samples and now - utterance.silent_at > PATIENCE:
            times = f", {utterance.tries} times in" if utterance.tries else " for"
            self.fail(LinkError(f"{self.vendor} could not speak{times} {PATIENCE:g} s: {self._why}"))
        elif connection is None or not connection.protocol.owes(utterance.key):
            return
        elif now - utterance.owed_at > AUDIO_TIMEOUT:
            self._lost(connection, f"no audio for {AUDIO_TIMEOUT:g} s", permanent=False)


def _for_good(error: LinkError) -> bool:
    """Whether trying again is of no use."""
    return isinstance(error, LinkRefused) and error.status not in TEMPORARY
