"""A fake Deepgram Aura: streaming text to speech over /v1/speak.

Its audio is binary and says nothing of what it belongs to: only the order tells. It speaks nothing before a
Flush, unless very much text has come; what is late comes before Cleared; it takes 20 Flush in a minute.

Not known of the service, and chosen here: the code of that Warning, the form of an Error, that a flush which
was cleared is never answered by Flushed, and that text without a Flush is lost at Close.
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from typing import Any

from tests.vendors.speaking import Fault, Session, SpeakingVendor, Utterance
from tests.vendors.timing import sleep_until
from tests.vendors.voice import Part, Voice, to_format
from tests.vendors.wire import Asked, Refusal, VendorLink
from voiceflow.frames import AudioFormat

ENCODINGS = {"mulaw": "mulaw", "linear16": "pcm16"}
"""Those the fake speaks, at any multiple of 8 kHz."""
WINDOW = 60.0
"""Seconds over which flushes and characters are counted."""


class FakeAura(SpeakingVendor):
    """As `SpeakingVendor`, and:

    enough                  characters that are spoken without a Flush, once so many are there
    late                    audio messages that a running generation may still send after Clear
    clear_after             seconds from the last of them to Cleared
    flushes                 Flush messages taken within 60 s; more give a Warning and are ignored
    characters_per_minute   more within 60 s close the connection (1008 DATA-0001); None: no such limit
    """

    paths = ("/v1/speak",)

    def __init__(
        self,
        *,
        enough: int = 500,
        late: int = 2,
        clear_after: float = 0.0,
        flushes: int = 20,
        characters_per_minute: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.enough = enough
        self.late = late
        self.clear_after = clear_after
        self.flushes = flushes
        self.characters_per_minute = characters_per_minute

    def admit(self, asked: Asked) -> Refusal | None:
        if self.key and asked.headers.get("authorization") != f"Token {self.key}":
            return _refusal(401, "INVALID_AUTH", "Invalid credentials.")
        if asked.one("encoding", "linear16") not in ENCODINGS or _rate(asked) % 8000:
            return _refusal(400, "UNSUPPORTED_AUDIO_FORMAT", "The fake does not speak that format.")
        return None

    async def converse(self, link: VendorLink, asked: Asked) -> None:
        await _Connection(self, link, asked).run()


class _Connection(Session[FakeAura]):
    def __init__(self, vendor: FakeAura, link: VendorLink, asked: Asked) -> None:
        super().__init__(vendor, link, asked)
        self.format = AudioFormat(ENCODINGS[asked.one("encoding", "linear16")], _rate(asked))
        self.voice = Voice(vendor, self._emit)
        self._utterance: Utterance | None = None
        """The one that text is added to, until a Flush ends it."""
        self._open: list[Utterance] = []
        """Those that are not finished, this one included."""
        self._begun = 0
        self._buffer = ""
        self._flushed = 0
        self._cleared = 0
        self._flushes: deque[float] = deque()
        self._received: deque[tuple[float, int]] = deque()
        self._closing = False

    async def opened(self) -> None:
        model = self.asked.one("model", "aura-2-thalia-en")
        await self._tell(
            "Metadata",
            request_id=str(uuid.UUID(int=len(self.vendor.connections))),
            model_name=model,
            model_version="2026-01-01.0",
            model_uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, model)),
        )
        self.spawn(self.voice.run())

    async def hear(self, message: str | bytes) -> None:
        if self._closing:
            self.vendor.wrong("a message after Close")
            return
        try:
            body = json.loads(message) if isinstance(message, str) else None
        except ValueError:
            body = None
        match body:
            case {"type": "Speak", "text": str(text)}:
                self._speak(text)
            case {"type": "Flush"}:
                await self._flush()
            case {"type": "Clear"}:
                self._clear()
            case {"type": "Close"}:
                self._closing = True
                self._discard()
                self.voice.then(self._goodbye, sticky=True)
            case _:
                self.vendor.wrong("a message that it does not understand")
                self.end(1003, "MESSAGE-0000: the message is no JSON that this service knows")

    def _speak(self, text: str) -> None:
        if not text:
            return
        if self._over_rate(len(text)):
            self.vendor.wrong("too many characters in a minute")
            self.end(1008, "DATA-0001: too many characters in a minute")
            return
        if self._utterance is None:
            self._utterance = self.begin(str(self._begun))
            self._begun += 1
            self._open.append(self._utterance)
        self._utterance.text += text
        self._buffer += text
        if len(self._buffer) >= self.vendor.enough:
            self._generate()

    async def _flush(self) -> None:
        now = self.loop.time()
        while self._flushes and self._flushes[0] <= now - WINDOW:
            self._flushes.popleft()
        if len(self._flushes) >= self.vendor.flushes:
            self.vendor.wrong("too many Flush in a minute")
            await self._tell("Warning", description="Too many Flush messages.", code="FLUSH_LIMIT")
            return
        self._flushes.append(now)
        self._generate()
        utterance, self._utterance = self._utterance, None
        if utterance is not None:
            utterance.flushes.append(now)

        async def flushed() -> None:
            number, self._flushed = self._flushed, self._flushed + 1
            self._finish([utterance] if utterance is not None else [])
            await self._tell("Flushed", sequence_id=number)

        self.voice.then(flushed)

    def _clear(self) -> None:
        cleared = [utterance for utterance in self._open if utterance.closed is None]
        for utterance in cleared:
            utterance.closed = self.loop.time()
        self.voice.cut(self.vendor.late)
        self._discard()
        self._utterance = None

        async def done() -> None:
            await sleep_until(self.loop.time() + self.vendor.clear_after)
            number, self._cleared = self._cleared, self._cleared + 1
            self._finish(cleared)
            await self._tell("Cleared", sequence_id=number)

        self.voice.then(done, sticky=True)

    def _finish(self, utterances: list[Utterance]) -> None:
        for utterance in utterances:
            utterance.finished = self.loop.time()
            self._open.remove(utterance)

    def _generate(self) -> None:
        if self._buffer and self._utterance is not None:
            self.voice.say(self._buffer, self._utterance)
            self._buffer = ""

    def _discard(self) -> None:
        if self._utterance is not None:
            self.voice.forget(self._buffer, self._utterance)
        self._buffer = ""

    async def _goodbye(self) -> None:
        self.end(1000)

    async def _emit(self, part: Part) -> bool:
        return await self.send_audio(to_format(part.audio, self.format), part.utterance, part.seconds)

    async def refuse(self, error: str, message: str) -> None:
        self.end(1008, f"{error or 'DATA-0001'}: {message or 'the request was refused'}")

    async def fail(self, utterance: Utterance, fault: Fault) -> None:
        """Nothing says which utterance an error belongs to, so the connection ends with it."""
        utterance.failed = fault.error or "NET-0000"
        description = fault.message or "The text could not be spoken."
        await self._tell("Error", description=description, code=utterance.failed)
        self.end(fault.code, f"{utterance.failed}: {description}")

    async def _tell(self, kind: str, **fields: Any) -> None:
        await self.send(json.dumps({"type": kind, **fields}))
        self.vendor.tell(kind)

    def _over_rate(self, characters: int) -> bool:
        limit, now = self.vendor.characters_per_minute, self.loop.time()
        if limit is None:
            return False
        self._received.append((now, characters))
        while self._received[0][0] <= now - WINDOW:
            self._received.popleft()
        return sum(count for _, count in self._received) > limit


def _rate(asked: Asked) -> int:
    default = "24000" if asked.one("encoding", "linear16") == "linear16" else "8000"
    return int(asked.one("sample_rate", default))


def _refusal(status: int, code: str, message: str) -> Refusal:
    return Refusal(status, json.dumps({"err_code": code, "err_msg": message}), {"dg-error": message})
