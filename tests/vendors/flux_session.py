"""One connection to the fake Flux. `Turn`: whose turn it is; `Session`: the protocol."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.vendors.ears import Ear, EnergyEar, NoEar, SpelledEar, Word
from tests.vendors.flux_messages import REASONS, turn_info
from tests.vendors.flux_settings import RAW, Invalid, Settings
from tests.vendors.wire import NO_CODE, Asked, Due, VendorLink
from voiceflow.audio import Samples, decode, encode
from voiceflow.errors import LinkError
from voiceflow.frames import PHONE
from voiceflow.testing import Break, Close

if TYPE_CHECKING:
    from tests.vendors.flux import FakeFlux

STEP = 0.01
"""Seconds of audio that are heard at a time."""
UPDATE = 0.25
"""Seconds of audio between two Updates."""
HEARD = ("mulaw", "linear16")
"""The encodings that the fake can decode."""
KEPT_AUDIO = 600 * 8000
"""Bytes of a connection's audio: ten minutes of mu-law."""
KEPT = 100_000
"""Chunks whose sizes are kept."""

Item = dict[str, Any] | str | bytes | Close | Break


@dataclass(slots=True, frozen=True)
class Sent:
    """A message that went out. Times are `loop.time()`: when it went, and when it was to go."""

    at: float
    due: float
    connection: int
    message: Item


class Turn:
    """Whose turn it is, from what an ear hears. Positions are samples: there is no time but the audio's."""

    def __init__(self, flux: FakeFlux, ear: Ear, rate: int) -> None:
        self.ear = ear
        self.index = 0
        self.start = 0
        """Where the window of this turn begins: where the last one ended."""
        self.active = False
        """StartOfTurn was sent."""
        self._flux, self._rate = flux, rate
        self._eager: int | None = None
        """Where speech had ended when EagerEndOfTurn was sent, while that stands."""

    def events(self, settings: Settings) -> Iterator[tuple[str, dict[str, str]]]:
        """What the last step brought: the event, and the trigger of an EndOfTurn."""
        ear, rate = self.ear, self._rate
        silence = ear.position - ear.spoken_until
        eot, eager = round(self._flux.eot_silence * rate), round(self._flux.eager_silence * rate)
        wants_eager = settings.eager_eot_threshold is not None
        if silence >= (min(eot, eager) if wants_eager else eot):
            ear.pause()
        if not self.active and ear.words:
            self.active = True
            yield "StartOfTurn", {}
        if not self.active:
            return
        if self._eager is not None and ear.spoken_until > self._eager:
            self._eager = None
            yield "TurnResumed", {}
        if wants_eager and self._eager is None and silence >= eager:
            self._eager = ear.spoken_until
            yield "EagerEndOfTurn", {}
        if silence >= eot and settings.eot_threshold < 1.0:
            yield "EndOfTurn", {"trigger": "model"}
            self.end()
        elif silence >= settings.eot_timeout_ms * rate / 1000:
            ear.pause()
            yield "EndOfTurn", {"trigger": "timeout"}
            self.end()

    def end(self) -> None:
        self.ear.next_turn()
        self.index += 1
        self.start = self.ear.position
        self.active = False
        self._eager = None


class Session:
    """One connection. What it received may be read; `FakeFlux` has what a test does to it."""

    def __init__(self, flux: FakeFlux, link: VendorLink, asked: Asked, number: int) -> None:
        self.asked = asked
        self.settings = Settings.of(asked.query)
        self.chunks: deque[tuple[float, int]] = deque(maxlen=KEPT)
        """When each chunk of audio came, and its bytes."""
        self.audio = bytearray()
        """The audio that came, the last ten minutes."""
        self.configures: list[dict[str, Any]] = []
        self._flux, self._link, self._number = flux, link, number
        self._due: Due[tuple[float, Item]] = Due()
        self._request = str(uuid.UUID(int=number + 1))
        self._sequence = 0
        self._rate = self.settings.rate or PHONE.rate
        self._turn = Turn(flux, self._ear(), self._rate)
        self._step = round(STEP * self._rate) * RAW.get(self.settings.encoding, 1)
        self._rest = b""
        """Audio that makes no whole step yet."""
        self._next_update = UPDATE
        self._heard_at = asyncio.get_running_loop().time()
        """When the latest audio came."""
        self._unanswered = 0
        """Configures."""
        self._stalled = False
        self._finished = False
        """CloseStream came."""
        self._deaf = False
        """It is going to be closed: nothing is heard any more."""
        self._closing = False

    async def run(self) -> None:
        self.put({"type": "Connected"})
        try:
            async with asyncio.TaskGroup() as tasks:
                speaking = tasks.create_task(self._speak())
                watching = tasks.create_task(self._watch())
                await self._listen()
                watching.cancel()
                if not self._closing:  # which is bounded by the link
                    speaking.cancel()
        finally:
            self._due.clear()

    def put(self, item: Item, at: float = 0.0) -> None:
        """Sends it at `loop.time()` = `at`, or now."""
        if not self._stalled or isinstance(item, Close | Break):
            self._due.put((at, item), at)

    def stall(self) -> None:
        self._stalled = True
        self._due.clear()

    def fail(self, code: str, close_code: int, at: float = 0.0) -> None:
        unread = code == "UNPARSABLE_CLIENT_MESSAGE"
        why = "The message could not be understood." if unread else "The fake was told to fail."
        self.put({"type": "Error", "code": code, "description": why}, at)
        self.put(Close(close_code, REASONS.get(close_code, "")), at)

    # -- what comes in

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                if self._flux.read_delay:
                    await asyncio.sleep(self._flux.read_delay)
                message = await self._link.receive()
                if message is None:
                    return
                if self._finished:
                    self._flux.wrong("sent something after CloseStream")
                elif isinstance(message, str):
                    self._read(message, loop.time())
                elif not self._deaf:
                    self._heard_at = loop.time()
                    self._hear(message)
        except LinkError:
            return

    def _hear(self, audio: bytes) -> None:
        self.chunks.append((self._heard_at, len(audio)))
        self.audio += audio
        del self.audio[:-KEPT_AUDIO]
        if not audio:
            self._flux.wrong("sent an empty chunk of audio")
        if self._flux.mode != "script" and self.settings.encoding not in HEARD:
            self._end(Close(1008, REASONS[1008]))
        audio = self._rest + audio
        whole = len(audio) - len(audio) % self._step
        self._rest = audio[whole:]
        for at in range(0, whole, self._step):
            if self._deaf:
                return
            self._hear_step(audio[at : at + self._step])

    def _hear_step(self, step: bytes) -> None:
        turn = self._turn
        turn.ear.hear(step)
        seconds = turn.ear.position / self._rate
        if self._flux.mode != "script":
            happened = False
            for event, trigger in turn.events(self.settings):
                happened = True
                self._event(event, self._answer_at, **trigger)
            if seconds >= self._next_update:
                self._next_update += UPDATE
                if not happened:
                    self._event("Update", self._answer_at)
        if self._flux.strikes("stall_after", seconds):
            self._stalled = True
        if self._flux.strikes("error_after", seconds):
            self._deaf = True
            self.fail("INTERNAL_SERVER_ERROR", 1011, self._answer_at)
        if self._flux.strikes("close_after", seconds):
            self._end(Close(self._flux.close_code, REASONS.get(self._flux.close_code, "")))
        if self._flux.strikes("drop_after", seconds):
            self._end(Break())

    def _end(self, how: Close | Break) -> None:
        self._deaf = True
        self.put(how, self._answer_at)

    def _read(self, text: str, now: float) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        at = now + self._flux.delay
        match message.get("type") if isinstance(message, dict) else None:
            case "Configure":
                self._configure(message, now)
            case "ForceEndTurn" if self._turn.active:
                self._event("EndOfTurn", at, trigger="manual")
                self._turn.end()
            case "ForceEndTurn":
                warning = {"type": "Warning", "code": "FORCE_END_TURN_NO_ACTIVE_TURN"}
                self.put({**warning, "description": "There is no turn to end."}, at)
            case "CloseStream":
                self._turn.ear.pause()
                self._event("Update", at)
                self._finished = True
                self.put(Close(NO_CODE), at)
            case _:
                self._deaf = True
                self._flux.wrong(f"sent what Flux does not know: {text[:80]}")
                self.fail("UNPARSABLE_CLIENT_MESSAGE", 1008, at)

    def _configure(self, message: dict[str, Any], now: float) -> None:
        self.configures.append(message)
        if self._unanswered:
            self._flux.wrong("sent a Configure before the last one was answered")
        told = self._flux.configures.popleft() if self._flux.configures else True
        if told is None:
            return
        answer: dict[str, Any]
        try:
            if not told:
                raise Invalid("The fake was told to refuse it.")
            self.settings = self.settings.configured(message)
        except Invalid as error:
            answer = {"type": "ConfigureFailure", "code": "INVALID_CONFIGURE", "description": error.reason}
        else:
            answer = {"type": "ConfigureSuccess", **self.settings.shown()}
        self._unanswered += 1
        self.put(answer, now + self._flux.configure_delay)

    async def _watch(self) -> None:
        """Hangs up on a client that sends no audio."""
        loop = asyncio.get_running_loop()
        while (limit := self._flux.idle_limit) is not None:
            left = self._heard_at + limit - loop.time()
            if left <= 0:
                self.put(Close(1011, REASONS[1011]))
                return
            await asyncio.sleep(left)

    # -- what goes out

    @property
    def _answer_at(self) -> float:
        """When messages about the latest audio go out."""
        return self._heard_at + self._flux.delay

    def _event(self, event: str, at: float, **more: Any) -> None:
        settings, turn = self.settings, self._turn
        if event != "Update":
            for item in self._flux.inject:
                self.put(item, at)
        if settings.multi and turn.ear.words and self._flux.languages:
            more["languages"] = list(self._flux.languages)
        if settings.language_hints:
            more["languages_hinted"] = list(settings.language_hints)
        confidence = {"EagerEndOfTurn": settings.eager_eot_threshold or 0.0, "EndOfTurn": 0.3}.get(
            event, 0.05
        )
        if more.get("trigger") == "model":
            confidence = max(0.9, settings.eot_threshold)
        message = turn_info(
            event,
            " ".join(word.text for word in turn.ear.words),
            words=[self._word(word) for word in turn.ear.words],
            turn_index=turn.index,
            start=turn.start / self._rate,
            end=turn.ear.position / self._rate,
            confidence=confidence,
            **more,
        )
        self.put(message, at + self._flux.end_delay if event == "EndOfTurn" else at)

    def _word(self, word: Word) -> dict[str, Any]:
        said: dict[str, Any] = {"word": word.text, "confidence": 0.99}
        if self._flux.word_times:
            said |= {"start": round(word.start / self._rate, 4), "end": round(word.end / self._rate, 4)}
        return said

    async def _speak(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, item = await self._due.get()
            if isinstance(item, dict):
                item = self._stamped(item)
            now = loop.time()
            self._flux.log.append(Sent(now, due or now, self._number, item))
            try:
                if isinstance(item, Break):
                    self._link.break_()
                elif isinstance(item, Close):
                    self._closing = True
                    await self._link.close(item.code, item.reason)
                else:
                    await self._link.send(json.dumps(item) if isinstance(item, dict) else item)
            except LinkError:  # the client is gone
                return
            if isinstance(item, Close | Break):
                return

    def _stamped(self, message: dict[str, Any]) -> dict[str, Any]:
        ids: dict[str, Any] = {"sequence_id": self._sequence}
        self._sequence += 1
        if message.get("type") != "Error":
            ids["request_id"] = self._request
        if message.get("event") == "StartOfTurn":
            self._flux.tell("speech", "starts")
        elif message.get("event") == "EndOfTurn":
            self._flux.turns.append(message["transcript"])
            self._flux.tell("turn", message["transcript"])
        elif message.get("type") in ("ConfigureSuccess", "ConfigureFailure"):
            self._unanswered = max(0, self._unanswered - 1)
        return {**ids, **message}

    # -- hearing

    def _ear(self) -> Ear:
        mulaw = self.settings.encoding == "mulaw"
        if self._flux.mode == "spelled":
            return SpelledEar(self._flux.character, bytes if mulaw else _to_mulaw)
        if self._flux.mode == "energy" and self.settings.encoding in HEARD:
            return EnergyEar(decode if mulaw else _from_linear, self._rate, self._flux.lines)
        return NoEar(RAW.get(self.settings.encoding, 1))


def _from_linear(audio: bytes) -> Samples:
    return np.frombuffer(audio, "<i2").astype(np.int16, copy=False)


def _to_mulaw(audio: bytes) -> bytes:
    return encode(_from_linear(audio))
