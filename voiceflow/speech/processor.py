"""TextToSpeech: the processor that all voices share. A vendor adds an address, a key and a protocol.

What it promises, whatever the vendor:

1. A sentence is on its way to the vendor in the tick in which it comes, on a socket that is open already.
2. An Interrupt drops what waits, tells the vendor to stop, and lets nothing of the reply through; the socket
   stays.
3. A connection that dies, stalls or refuses is replaced, and what the caller has not heard is said again;
   after TRIES the call ends, by name, and the caller hears the carrier's fallback.
4. ReplyEnd follows the last audio.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import ClassVar

from voiceflow.engine.processor import Processor, on
from voiceflow.engine.reply import Reply
from voiceflow.errors import LinkError, LinkRefused, VoiceflowError
from voiceflow.frames import AudioFormat, AudioOut, Interrupt, ReplyEnd, Sentence
from voiceflow.line.link import Link
from voiceflow.pool import WarmPool
from voiceflow.speech.connection import Connection
from voiceflow.speech.protocol import Audio, Finished, Ignored, Item, SpeechProtocol, Trouble
from voiceflow.speech.utterance import Utterance
from voiceflow.vendor import TEMPORARY, Key, explained

DIAL_TIMEOUT = 5.0
"""Seconds to open a connection; a handshake takes about 0.3."""
AUDIO_TIMEOUT = 3.0
"""Seconds without audio that is owed after which a connection counts as stalled; the first takes 0.1 to 0.6."""
TRIES = 3
"""Connections one reply may use up: at the worst the caller waits TRIES * AUDIO_TIMEOUT in silence."""
PAUSES = (0.0, 0.2, 1.0)
"""Seconds before each try."""
SHORT_LIFE = 5.0
"""Seconds. An idle connection that was closed sooner is not replaced before there is something to say."""
TICK = 0.1
"""Seconds between looks at the clock while something is spoken."""


class TextToSpeech(Processor):
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
        self._pool: WarmPool[Link] | None = None
        self._format = AudioFormat()
        self._utterances: dict[Reply, Utterance] = {}
        self._by_key: dict[str, Utterance] = {}
        self._connection: Connection | None = None
        self._connections: dict[Connection, tuple[asyncio.Task[None], ...]] = {}
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._number = 0
        self._kinds: set[str] = set()
        self._stopping = False

    # -- what a vendor gives

    def url(self, format: AudioFormat) -> str:
        """Where to connect, for audio in this format. DeclarationError when the vendor cannot speak it."""
        raise NotImplementedError

    def headers(self) -> Mapping[str, str]:
        """The headers of the connection, the key among them."""
        raise NotImplementedError

    def protocol(self, format: AudioFormat) -> SpeechProtocol:
        """The protocol of a new connection."""
        raise NotImplementedError

    # -- life

    async def warm(self) -> None:
        """Dials ahead before the first call. VoiceflowError when the vendor refuses for good."""
        pool = self._shared_pool()
        try:
            await pool.fill(DIAL_TIMEOUT + 1.0)
        except (LinkError, TimeoutError) as error:
            cause = pool.error if isinstance(pool.error, LinkError) else LinkError(str(error))
            refusal = explained(cause, self.vendor, self.key)
            if isinstance(refusal, LinkRefused) and refusal.status not in TEMPORARY:
                raise refusal from None
            self.call.log.warning(f"{self.name}: no connection could be made ahead: {refusal}")

    async def start(self) -> None:
        self._format = self.call.line.format
        self._pool = self._shared_pool()
        self._connect_soon()

    async def stop(self) -> None:
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._connections):
            self._release(connection, keep=connection.usable and connection.protocol.clean())

    def figures(self) -> Mapping[str, float]:
        return {name: round(value, 1) for name, value in self.counted.items()}

    # -- frames

    @on(Sentence, stops=True)
    def speak(self, frame: Sentence) -> None:
        assert frame.reply is not None
        if not frame.text.strip():
            return
        utterance = self._utterances.get(frame.reply) or self._open(frame.reply)
        utterance.pieces.append(frame.text)
        self.counted["characters"] += len(frame.text)
        if utterance.connection is not None:
            self._say(utterance, frame.text)
        elif utterance.tries == 0:
            self._assign(utterance)

    @on(ReplyEnd, stops=True)
    def finish(self, frame: ReplyEnd) -> None:
        assert frame.reply is not None
        utterance = self._utterances.get(frame.reply)
        if utterance is None:  # it had nothing to say
            self.push(ReplyEnd(reply=frame.reply))
            return
        utterance.ended = True
        if utterance.connection is not None:
            self._end(utterance)

    @on(Interrupt)
    def cut(self, frame: Interrupt) -> None:
        utterance = self._utterances.get(frame.dead)
        if utterance is not None:
            self._cancel(utterance)

    # -- utterances

    def _open(self, reply: Reply) -> Utterance:
        for old in [u for u in self._utterances.values() if u.reply.dead]:
            self._cancel(old)
        utterance = self._utterances[reply] = Utterance(reply, self._new_key(reply))
        self._by_key[utterance.key] = utterance
        self._tick_soon()
        return utterance

    def _new_key(self, reply: Reply) -> str:
        self._number += 1
        return f"r{reply.number}-{self._number}"

    def _assign(self, utterance: Utterance) -> None:
        """Gives an utterance a connection: the one that is there, or the next that can be had."""
        connection = self._connection
        if connection is not None and connection.usable and connection.protocol.room():
            utterance.connection = connection
            for text in utterance.pieces[utterance.first :]:
                self._say(utterance, text)
            if utterance.ended:
                self._end(utterance)
            return
        if connection is not None:
            self._retire(connection)
        self._connect_soon()

    def _say(self, utterance: Utterance, text: str) -> None:
        assert utterance.connection is not None
        now = utterance.active_at = self.call.loop.time()
        self._send(utterance.connection, utterance.connection.protocol.speak(utterance.key, text, now))

    def _end(self, utterance: Utterance) -> None:
        assert utterance.connection is not None
        now = utterance.active_at = self.call.loop.time()
        self._send(utterance.connection, utterance.connection.protocol.end(utterance.key, now))

    def _cancel(self, utterance: Utterance) -> None:
        self._forget(utterance)
        self.counted["cut"] += 1
        if (connection := utterance.connection) is not None:
            reached = connection.drop(utterance.key)
            now = self.call.loop.time()
            self._send(connection, connection.protocol.cancel(utterance.key, now, reached=reached))

    def _forget(self, utterance: Utterance) -> None:
        self._utterances.pop(utterance.reply, None)
        self._by_key.pop(utterance.key, None)

    # -- what comes

    def _send(self, connection: Connection, items: object) -> None:
        for item in connection.queue(items):  # type: ignore[arg-type]
            self._note(connection, item)

    async def _took(self, connection: Connection, item: Item) -> None:
        """Something came from a connection. Audio waits here while too much is queued downstream."""
        if not isinstance(item, Audio):
            return self._note(connection, item)
        utterance = self._by_key.get(item.key)
        width, rate = self._format.sample_bytes, self._format.rate
        if utterance is None or utterance.reply.dead:
            self.counted["late_ms"] += len(item.audio) / width / rate * 1000
            return None
        if (frame := utterance.frame(item, rate, width)) is not None:
            utterance.active_at = math.inf  # not the vendor's fault while too much is queued downstream
            await self.put(frame)
        utterance.active_at = self.call.loop.time()
        return None

    def _note(self, connection: Connection, item: Item) -> None:
        match item:
            case Finished(key):
                connection.forget(key)
                if (utterance := self._by_key.get(key)) is not None:
                    self._forget(utterance)
                    if not utterance.reply.dead:
                        self.push(ReplyEnd(reply=utterance.reply))
            case Trouble(reason, permanent):
                self._lost(connection, reason, permanent=permanent)
            case Ignored(kind):
                self.counted["ignored"] += 1
                if kind not in self._kinds and len(self._kinds) < 20:
                    self._kinds.add(kind)
                    self.call.log.warning(f"{self.name}: ignored {kind}")

    # -- connections

    def _shared_pool(self) -> WarmPool[Link]:
        format = self.call.line.format
        url, headers, services = self.url(format), dict(self.headers()), self.call.services

        def make() -> WarmPool[Link]:
            async def dial() -> Link:
                return await services.dial(url, headers=headers, timeout=DIAL_TIMEOUT)

            async def close(link: Link) -> None:
                await link.close()

            name = f"{self.vendor} voice"
            return WarmPool(name, dial, close, usable=_is_open, spare=self.spare, max_idle=self.max_idle)

        return services.shared((type(self).__name__, url, self.key.value), make)

    def _connect_soon(self) -> None:
        if self._connecting is None and not self._stopping:
            self._connecting = self.spawn(self._connect(), "connect")

    async def _connect(self) -> None:
        """Takes a connection from the pool, and speaks what waits for one."""
        assert self._pool is not None
        try:
            for pause in PAUSES:
                await asyncio.sleep(pause)
                try:
                    taken = await self._pool.take()
                except LinkError as refused:
                    error = explained(refused, self.vendor, self.key)
                    if isinstance(error, LinkRefused) and error.status not in TEMPORARY:
                        raise error from None
                    self.call.trace.note(self.name, f"no connection: {error}")
                else:
                    self._adopt(taken.connection)
                    self.counted["pool_hits" if taken.hit else "pool_misses"] += 1
                    self.counted["saved_ms"] += taken.saved * 1000
                    return
            raise error
        finally:
            self._connecting = None
            if self._connection is not None and self._connection.usable:
                self._speak_waiting()

    def _adopt(self, link: Link) -> None:
        connection = Connection(link, self.protocol(self._format), self._took, self.call.loop.time)
        self._connection = connection
        self._connections[connection] = (
            self.spawn(connection.write(), "writer"),
            self.spawn(connection.read(), "reader"),
        )

    def _speak_waiting(self) -> None:
        for utterance in list(self._utterances.values()):
            if utterance.connection is None:
                self._assign(utterance)

    def _lost(self, connection: Connection, reason: str, *, permanent: bool) -> None:
        """A connection is of no use any more: what it had still to say goes to another."""
        if connection not in self._connections:
            return
        self._release(connection, keep=False)
        if permanent:
            self.fail(VoiceflowError(f"{self.vendor}: {reason}"))
            return
        waiting = [u for u in self._utterances.values() if u.connection is connection]
        if waiting:
            self.call.trace.note(self.name, f"connection lost: {reason}")
        for utterance in waiting:
            utterance.connection = None
            del self._by_key[utterance.key]
            utterance.resume(self._new_key(utterance.reply))
            self._by_key[utterance.key] = utterance
            if utterance.tries >= TRIES:
                self.fail(LinkError(f"{self.vendor} could not speak, {TRIES} times: {reason}"))
                return
        self.counted["reconnects"] += 1
        if waiting or self.call.loop.time() - connection.since > SHORT_LIFE:
            self._connect_soon()

    def _retire(self, connection: Connection) -> None:
        """Nothing new is spoken on it; what it speaks it may finish."""
        connection.retired = True
        if self._connection is connection:
            self._connection = None
        if not any(u.connection is connection for u in self._utterances.values()):
            self._release(connection, keep=False)

    def _release(self, connection: Connection, *, keep: bool) -> None:
        """Ends its tasks; the link goes back to the pool or is closed."""
        connection.retired = True
        if self._connection is connection:
            self._connection = None
        current = asyncio.current_task()
        for task in self._connections.pop(connection, ()):
            if task is not current:
                task.cancel()
        if self._pool is not None:
            (self._pool.give if keep else self._pool.drop)(connection.link)

    # -- the clock

    def _tick_soon(self) -> None:
        if self._timer is None and not self._stopping:
            self._timer = self.call.loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self.call.loop.time()
        for connection in list(self._connections):
            self._send(connection, connection.protocol.due(now))
            if connection.retired and not any(u.connection is connection for u in self._utterances.values()):
                self._release(connection, keep=False)
        for utterance in list(self._utterances.values()):
            connection_ = utterance.connection
            if connection_ is None or now - utterance.active_at < AUDIO_TIMEOUT:
                continue
            if connection_.protocol.owes(utterance.key):
                self._lost(connection_, f"no audio for {AUDIO_TIMEOUT:g} s", permanent=False)
        if self._utterances or any(not c.protocol.clean() for c in self._connections):
            self._tick_soon()


def _is_open(link: Link) -> bool:
    return link.is_open
