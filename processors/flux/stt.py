"""FluxSTT: Deepgram Flux as the turn's authority. This is the part that owns the socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from processors.flux.connection import GOODBYE_LIMIT, Connection, Ended
from processors.flux.feed import Feed
from processors.flux.hearing import Grew, Hearing, MayBeOver, Over, Started, WentOn
from processors.flux.liveness import TRYING, Liveness, Trouble
from processors.flux.messages import Configured, TurnInfo
from processors.flux.settings import Settings, strings
from voiceflow.engine.processor import Processor, tap
from voiceflow.errors import DeclarationError, LinkError, LinkRefused, VoiceflowError
from voiceflow.frames import AudioFormat, AudioIn, Transcript, VoiceStart, VoiceStop
from voiceflow.vendor import TEMPORARY, Key, base_url, explained, quote

ADDRESS = "wss://api.deepgram.com"
REGIONS = ("eu", "au", "in")
"""Regional endpoints, which take the same keys: wss://api.eu.deepgram.com and so on."""
CONSOLE = "https://console.deepgram.com"
CONNECT_LIMIT = 5.0
"""Seconds that one try to connect may take, and Connected after it."""
ASK_LIMIT = 5.0
"""Seconds until a ForceEndTurn is sent, or a Configure sent and answered."""

KINDS = 20
"""Kinds of strange messages and warnings that are logged."""


class FluxSTT(Processor):
    """Hears the caller through Deepgram Flux, which says when a turn begins, may be over, and is over.

    model                "flux-general-en", or "flux-general-multi" for several languages
    eot_threshold        0.5-1.0, how sure Flux is that a turn is over; its default is 0.7
    eager_eot_threshold  0.3-0.9, from which it may be over, so that an answer is drafted; without it, never
    eot_timeout_ms       500-60000, silence that ends a turn in any case; its default is 5000
    keyterms             words to expect, 100 at most
    language_hints       languages to expect; only with flux-general-multi
    tags, mip_opt_out, numerals, profanity_filter, redact: as in Deepgram's reference
    region               "eu", "au" or "in": a regional endpoint, instead of base_url
    base_url             or DEEPGRAM_BASE_URL; wss://api.deepgram.com by default
    api_key              or DEEPGRAM_API_KEY

    The audio goes out as the line gave it, 80 ms at a time. It is kept for half a minute, so that nothing
    said while a connection is made or replaced is lost: a new one is sent what the turn's beginning was. A
    connection that is dead, or silent while it is sent audio, is replaced; after 10 s of trying the call ends
    with an error that says what to do, at once when trying again cannot help.

    A voice activity detector before it in the chain is used, not needed: voice in which Flux hears nothing
    replaces the connection too.

    DeclarationError for values out of range, and at the start of a call whose audio Flux cannot hear.
    """

    needs = (AudioIn,)
    emits = (Transcript,)
    takes_turns = True

    def __init__(
        self,
        model: str = "flux-general-en",
        *,
        eot_threshold: float | None = None,
        eager_eot_threshold: float | None = None,
        eot_timeout_ms: int | None = None,
        keyterms: Iterable[str] = (),
        language_hints: Iterable[str] = (),
        tags: Iterable[str] = (),
        mip_opt_out: bool | None = None,
        numerals: bool | None = None,
        profanity_filter: bool | None = None,
        redact: str | None = None,
        region: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self.settings = Settings(
            model,
            eot_threshold,
            eager_eot_threshold,
            eot_timeout_ms,
            strings("keyterms", keyterms),
            strings("language_hints", language_hints),
            strings("tags", tags),
            mip_opt_out,
            numerals,
            profanity_filter,
            redact,
        )
        """As they are now; `configure` changes them."""
        self._base_url = _address(region, base_url)
        self._key = Key.of("DEEPGRAM_API_KEY", api_key, CONSOLE)
        self.keys = (self._key,)
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._closing: set[asyncio.Task[None]] = set()
        """Connections that are being closed."""
        self._ready = asyncio.Event()
        """The connection has been sent all audio so far."""
        self._over = False
        self._configuring = asyncio.Lock()
        self._liveness = Liveness()
        self._unknown = 0
        """Messages that meant nothing."""
        self._noticed: set[str] = set()
        """What was logged once."""
        self._shown = ""
        """The words of this turn that others were told."""
        self._connections = 0
        self._replayed = 0
        """Samples that were sent again."""

    async def warm(self) -> None:
        """Imports the SDK, and connects once: a key that is refused is told before a call is answered."""
        import processors.flux.client  # noqa: F401, what takes long is that it imports the SDK

        url, headers = self._endpoint(self.call.line.format)
        try:
            link = await self.call.services.dial(url, headers=headers, timeout=CONNECT_LIMIT)
        except LinkError as error:
            explanation = explained(error, "Deepgram", self._key)
            if isinstance(error, LinkRefused) and error.status not in TEMPORARY:
                raise explanation from None
            self.call.log.warning(f"{self.name}: {explanation}; calls are answered all the same")
        else:
            await link.close()

    async def start(self) -> None:
        from processors.flux.client import FluxClient

        self._make_client = FluxClient
        self._format = self.call.line.format
        self.settings.query(self._format)  # can Flux hear it?
        self._feed = Feed(self._format, self.call.loop.time())
        self._hearing = Hearing(self._format.rate)
        self._task = self.spawn(self._serve(), "connection")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=GOODBYE_LIMIT)
        connection, self._connection = self._connection, None
        self._over = True
        self._ready.set()  # whoever waits for a connection is told that none will come
        if connection is not None:
            self._closing.add(self.spawn(connection.goodbye(), "goodbye"))
        if self._closing:
            await asyncio.wait(self._closing)  # each is bounded in time

    def figures(self) -> Mapping[str, float]:
        """Connections after the first; messages; milliseconds of audio; seconds."""
        if self._task is None:
            return {}
        ms = 1000 / self._format.rate
        return {
            "reconnects": max(0, self._connections - 1),
            "unknown_messages": self._unknown,
            "audio_dropped_ms": round(self._feed.dropped * ms),
            "audio_replayed_ms": round(self._replayed * ms),
            "silence_fed_ms": round(self._feed.silence_fed * ms),
            "longest_quiet_s": round(self._liveness.longest, 3),
        }

    # -- what a pipeline may ask of it during a call

    async def configure(
        self,
        *,
        eot_threshold: float | None = None,
        eager_eot_threshold: float | None = None,
        eot_timeout_ms: int | None = None,
        keyterms: Iterable[str] | None = None,
        language_hints: Iterable[str] | None = None,
        numerals: bool | None = None,
    ) -> None:
        """Changes parameters; None leaves one as it is, an empty list clears. Later connections keep them.

        Raises VoiceflowError, and changes nothing, when Flux refuses, does not answer within 5 s or the call
        is over; DeclarationError (one of them) for values out of range.
        """
        given: dict[str, Any] = {
            "eot_threshold": eot_threshold,
            "eager_eot_threshold": eager_eot_threshold,
            "eot_timeout_ms": eot_timeout_ms,
            "keyterms": None if keyterms is None else strings("keyterms", keyterms),
            "language_hints": None if language_hints is None else strings("language_hints", language_hints),
            "numerals": numerals,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        async with self._configuring:
            changed = replace(self.settings, **changes)
            if not changes:
                return
            answer: Configured | None = None
            try:
                async with asyncio.timeout(ASK_LIMIT):
                    while answer is None:  # once more when a connection ends first
                        connection = await self._connected()
                        answer = await connection.configure(changes)
            except TimeoutError:
                raise VoiceflowError(f"Flux did not answer a Configure in {ASK_LIMIT:g} s") from None
            if answer.refusal is not None:
                raise VoiceflowError(
                    f"Flux refused a Configure{self._quoted(answer.refusal)}: nothing was changed"
                )
            self.settings = changed

    async def force_end_turn(self) -> None:
        """Ends the caller's turn now, with the words recognised so far; nothing happens when there is none.

        For a key pressed or a button released. All audio up to now, but for the last 80 ms, is sent before.
        VoiceflowError when there is no connection for 5 s, or the call is over.
        """
        try:
            async with asyncio.timeout(ASK_LIMIT):
                connection = await self._connected()
                await connection.force_end_turn()
        except TimeoutError:
            raise LinkError(f"there was no connection to Flux for {ASK_LIMIT:g} s") from None

    async def _connected(self) -> Connection:
        """The connection, once there is one that has been sent all audio so far."""
        while self._connection is None or not self._ready.is_set():
            if self._over:
                raise VoiceflowError("there is no connection to Flux any more: the call is over")
            await self._ready.wait()
        return self._connection

    # -- what the chain gives

    @tap(AudioIn)
    def listen(self, frame: AudioIn) -> None:
        if frame.format is not self._format and frame.format != self._format:
            raise DeclarationError(f"FluxSTT was started for {self._format} and is given {frame.format}")
        chunk = self._feed.append(frame.audio, frame.at, self.call.loop.time())
        if chunk and self._connection is not None:
            self._connection.wake.set()

    @tap(VoiceStart, VoiceStop)
    def voice(self, frame: VoiceStart | VoiceStop) -> None:
        speaking = isinstance(frame, VoiceStart)
        self._hearing.voice = frame.at if speaking else None
        if not speaking:
            self._hearing.voice_stopped = frame.at
        self._liveness.voice(speaking, self.call.loop.time())

    # -- connections, one after another

    async def _serve(self) -> None:
        """Keeps a connection until the call is over. Raises what ends the call."""
        loop = self.call.loop
        trouble = Trouble(loop.time())
        error: LinkError = LinkError("not tried")
        while (pause := trouble.pause(loop.time())) is not None:
            await asyncio.sleep(pause)
            try:
                connection = await self._connect(min(CONNECT_LIMIT, trouble.left(loop.time())))
                trouble.connected(loop.time())
                await self._converse(connection)
            except LinkRefused as refused:
                error = explained(refused, "Deepgram", self._key)
                if refused.status not in TEMPORARY:
                    raise error from None
            except Ended as ended:
                error = ended
                if not ended.worth_another or trouble.failed_again():
                    raise
            except LinkError as lost:
                error = LinkError(f"no connection to Deepgram{self._quoted(str(lost))}")
            trouble.lost(self._liveness.last_heard)
            self._drop(error)
        advice = "" if isinstance(error, LinkRefused | Ended) else "; check the network and DEEPGRAM_BASE_URL"
        raise LinkError(f"{error} (tried for {TRYING:g} s{advice})")

    async def _connect(self, limit: float) -> Connection:
        """One try, up to Connected. LinkError."""
        url, headers = self._endpoint(self._format)
        link = await self.call.services.dial(url, headers=headers, timeout=limit)
        self._connection = Connection(
            link,
            self._make_client(link),
            feed=self._feed,
            liveness=self._liveness,
            take=self._take,
            notice=self._notice,
            quoted=self._quoted,
            ready=self._ready,
        )
        await self._connection.greeted(CONNECT_LIMIT)
        return self._connection

    def _endpoint(self, format: AudioFormat) -> tuple[str, dict[str, str]]:
        """Where to connect, and with which headers."""
        url = f"{self._base_url}/v2/listen?{self.settings.query(format)}"
        return url, {"Authorization": f"Token {self._key.value}"}

    async def _converse(self, connection: Connection) -> None:
        again = self._feed.rewind(self._hearing.replaced(self._feed.oldest))
        self._connections += 1
        self._liveness.opened(self.call.loop.time())
        if self._connections > 1:
            seconds = again / self._format.rate
            self.call.trace.note(self.name, f"connected again, {seconds:.1f} s of audio are sent once more")
            self._replayed += again
        await connection.converse()

    def _drop(self, error: LinkError) -> None:
        """The connection is given up, or could not be made."""
        connection, self._connection = self._connection, None
        self.call.log.bind(noted=True).warning(f"{self.name}: {error}; connecting again")
        self.call.trace.note(self.name, f"connecting again: {error}")
        if connection is not None:  # a dead one may take its time to close
            closing = self.spawn(connection.link.close(), "closing a connection")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    # -- what Flux says

    def _take(self, info: TurnInfo) -> None:
        """Never waits: a barge-in passes through here."""
        hearing = self._hearing
        match hearing.take(info, self._feed.timeline):
            case Started(text):
                self.turns.started()
                self._show(text)
            case Grew(text):
                self._show(text)
            case MayBeOver(text, last_voice):
                self._show(text)
                self.turns.may_be_over(text, last_voice=last_voice)
            case WentOn(text):
                self.turns.resumed()
                self._show(text)
            case Over(text, last_voice):
                self._shown = ""
                self.push(Transcript(text, final=True))
                self.turns.ended(text, last_voice=last_voice)
        self._liveness.turn(hearing.confirmed, self.call.loop.time())
        self._feed.forget(hearing.replay_from)

    def _show(self, text: str) -> None:
        if text != self._shown:
            self._shown = text
            self.push(Transcript(text))

    def _notice(self, what: str, detail: str, unknown: bool) -> None:
        """Counts what meant nothing, logs the first of a kind."""
        self._unknown += unknown
        if what not in self._noticed and len(self._noticed) < KINDS:
            self._noticed.add(what)
            self.call.log.warning(f"{self.name}: Flux sent {what}{detail}")

    def _quoted(self, said: str) -> str:
        return quote(said, self._key)


def _address(region: str | None, given: str | None) -> str:
    if region is None:
        return base_url("DEEPGRAM_BASE_URL", given, ADDRESS, web_socket=True)
    if given is not None:
        raise DeclarationError("FluxSTT takes a region or a base_url, not both")
    if region not in REGIONS:
        raise DeclarationError(f"FluxSTT(region={region!r}): one of {', '.join(REGIONS)}, or leave it out")
    return f"wss://api.{region}.deepgram.com"
