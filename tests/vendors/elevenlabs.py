"""A fake ElevenLabs: streaming text to speech over `multi-stream-input`, and over `stream-input`.

It speaks `spelled` audio and has the habits of the service that cost people calls: five contexts, some of
which may be phantoms; a slot that is free only after isFinal; text that is lost when its context is closed or
flushed at the wrong moment. The service's own mistakes and the network's are in `faults`; what clients get
wrong is in `wrongs`.

Stricter than the service: the first message of a context must be one blank, and `voice_settings` may not come
again even when they are the same. Chosen here, where sources differ or are silent: a message for a context
that is closed but not final is ignored, and a context that idles away ends with an error and without isFinal.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Container, Mapping
from typing import Any, Literal

from tests.vendors.speaking import Fault, Session, SpeakingVendor, Utterance
from tests.vendors.timing import sleep_until
from tests.vendors.voice import Part, Voice, to_format
from tests.vendors.wire import Asked, Refusal, VendorLink
from voiceflow.frames import AudioFormat

CONTEXTS = 5
"""Contexts that one connection may have, from their first message to their isFinal."""
SCHEDULE = (120, 160, 250, 290)
"""Characters that must have come before a generation starts by itself: the first, the second, and so on."""
IDLE, LONGEST_IDLE = 20.0, 180.0
"""Seconds without a message: by default, and the most that `inactivity_timeout` may ask for."""
FORMATS = {
    "ulaw_8000": AudioFormat("mulaw", 8000),
    "pcm_8000": AudioFormat("pcm16", 8000),
    "pcm_16000": AudioFormat("pcm16", 16_000),
}
MP3 = "mp3_44100_128"
"""What a client gets that does not say what it wants. The fake gives it a header and no sound."""
OTHER_SPELLING = {
    "contextId": "context_id",
    "isFinal": "is_final",
    "charDurationsMs": "charsDurationsMs",
}
"""Names of keys that were seen to change. All of it, or a part, as `spelling`."""
DEFAULT_CONTEXT = "default"


class FakeElevenLabs(SpeakingVendor):
    """As `SpeakingVendor`, and:

    late          audio messages that a context closed before its text was flushed may still send; None: all
                  of what was being generated. Text that was flushed is always spoken to its end.
    final_after   seconds from the last audio of a closed context to its isFinal
    flush_race    text flushed less than so many seconds before close_context gives silence
    flush_gap     text flushed less than so many seconds after the flush before it is lost
    idle_ends     what the inactivity timeout ends: "socket" (as seen) or "context" (as documented)
    alignments    False: none, whatever `sync_alignment` asks for
    unaligned     numbers of the audio messages of a context, from 0, whose alignment is null
    spelling      keys that are spelled in another way, see OTHER_SPELLING
    """

    paths = (
        "/v1/text-to-speech/{voice}/multi-stream-input",
        "/v1/text-to-speech/{voice}/stream-input",
    )

    def __init__(
        self,
        *,
        late: int | None = None,
        final_after: float = 0.05,
        flush_race: float = 0.002,
        flush_gap: float = 0.03,
        idle_ends: Literal["socket", "context"] = "socket",
        alignments: bool = True,
        unaligned: Container[int] = (),
        spelling: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.late = late
        self.final_after = final_after
        self.flush_race = flush_race
        self.flush_gap = flush_gap
        self.idle_ends = idle_ends
        self.alignments = alignments
        self.unaligned = unaligned
        self.spelling = spelling or {}
        self.peak_contexts = 0
        """The most that one connection had at once, phantoms included."""

    def admit(self, asked: Asked) -> Refusal | None:
        if self.key and asked.headers.get("xi-api-key") != self.key:
            return Refusal(401, _detail("invalid_api_key", "Invalid API key"))
        if asked.one("output_format", MP3) not in {*FORMATS, MP3}:
            return Refusal(400, _detail("invalid_output_format", "The fake does not speak that format"))
        if asked.one("model_id").startswith("eleven_v3"):
            return Refusal(400, _detail("unsupported_model", "This model cannot stream its input"))
        return None

    async def converse(self, link: VendorLink, asked: Asked) -> None:
        await _Connection(self, link, asked).run()


class _Connection(Session[FakeElevenLabs]):
    def __init__(self, vendor: FakeElevenLabs, link: VendorLink, asked: Asked) -> None:
        super().__init__(vendor, link, asked)
        self.several = asked.path.endswith("/multi-stream-input")
        self.automatic = asked.one("auto_mode") == "true"
        self.aligned = asked.one("sync_alignment") == "true"
        self.format = FORMATS.get(asked.one("output_format"))
        self.idle = min(float(asked.one("inactivity_timeout", str(IDLE))), LONGEST_IDLE)
        self.contexts: dict[str, _Context] = {}
        """Those whose isFinal has not gone out yet."""
        self.active = self.loop.time()
        self._closing = False

    async def opened(self) -> None:
        self.spawn(self._watch())

    async def hear(self, message: str | bytes) -> None:
        self.active = self.loop.time()
        if self._closing:
            self.vendor.wrong("a message after close_socket")
            return
        try:
            asked = json.loads(message)
            if not isinstance(asked, dict) or not isinstance(asked.get("text", ""), str):
                raise ValueError("not an object with a text")
        except ValueError:
            self.vendor.wrong("a message that is no JSON object")
            await self.refuse("invalid_message", "The message is not a valid JSON object.")
            return
        if asked.get("close_socket"):
            self._closing = True
            for context in self.contexts.values():
                context.close()
            self._let_go()
        else:
            await self._hear(asked)

    async def _hear(self, asked: dict[str, Any]) -> None:
        text, flush = asked.get("text"), asked.get("flush")
        name = asked.get("context_id") if self.several else None
        if self.several and name is None and text == "" and not flush:
            return  # keeps the socket alive, and needs no context
        name = name or DEFAULT_CONTEXT
        context = self.contexts.get(name)
        if asked.get("close_context"):
            if context is None:
                self.vendor.wrong(f"close_context for {name}, which is not open")
            else:
                context.close()
        elif context is None:
            await self._open(name, asked)
        elif "voice_settings" in asked:
            self.vendor.wrong(f"voice_settings after the first message of {name}")
            reason = "voice_settings field must be provided in the first message and then not change."
            await self.refuse("policy_violation", reason)
        else:
            context.hear(text or "")
            if not self.several and text == "":
                context.close(ends=True)
            elif flush:
                context.flush()

    async def _open(self, name: str, asked: dict[str, Any]) -> None:
        text = asked.get("text") or ""
        if len(self.contexts) >= CONTEXTS:
            self.vendor.wrong(f"{name} is one context too many")
            reason = f"Maximum simultaneous contexts per WebSocket connection exceeded ({CONTEXTS})."
            await self.refuse("max_active_conversations", reason)
            return
        if text not in ("", " "):
            self.vendor.wrong(f"{name} did not begin with a blank")
            await self.refuse("invalid_first_message", "The first text must be a single blank.")
            return
        context = self.contexts[name] = _Context(self, name, asked)
        self.vendor.peak_contexts = max(self.vendor.peak_contexts, len(self.contexts))
        self.spawn(context.voice.run())
        if text == "":
            context.utterance.phantom = True
            self.vendor.wrong(f"a flush or keepalive made {name}, which was not open")
        elif asked.get("flush"):
            context.flush()

    async def refuse(self, error: str, message: str) -> None:
        error = error or "quota_exceeded"
        message = message or "This request exceeds your quota."
        await self.send_json({"message": message, "error": error, "code": 1008})
        self.end(1008, message)

    async def fail(self, utterance: Utterance, fault: Fault) -> None:
        context = self.contexts[utterance.name]
        await self.broken(context, fault.error or "internal_error", fault.message or "Generation failed.")

    async def broken(self, context: _Context, error: str, message: str) -> None:
        """The context ends with an error and without isFinal; the connection goes on."""
        context.utterance.failed = error
        context.drop()
        del self.contexts[context.utterance.name]
        await self.send_json({"message": message, "error": error, "code": 1008}, context)
        self._let_go()

    async def final(self, context: _Context) -> None:
        context.utterance.finished = self.loop.time()
        del self.contexts[context.utterance.name]
        final: dict[str, Any] = {"isFinal": True} if self.several else {"audio": None, "isFinal": True}
        await self.send_json(final, context)
        self.vendor.tell("final", context.utterance.name)
        self._let_go()

    async def send_json(self, body: dict[str, Any], context: _Context | None = None) -> None:
        await self.send(self.spelled(body, context))

    def spelled(self, body: dict[str, Any], context: _Context | None) -> str:
        if context is not None and self.several:
            body["contextId"] = context.utterance.name
        return json.dumps(_respelled(body, self.vendor.spelling))

    def _let_go(self) -> None:
        if not self.contexts and (self._closing or not self.several):
            self.end(1000)

    async def _watch(self) -> None:
        """The inactivity timeout. Only what the client says is activity."""
        reason = f"No input came for {self.idle:g} seconds."
        while True:
            now = self.loop.time()
            if self.vendor.idle_ends == "context":
                waiting = [context for context in self.contexts.values() if not context.closing]
                for context in waiting:
                    if context.active + self.idle <= now:
                        await self.broken(context, "input_timeout_exceeded", reason)
                due = min((c.active for c in waiting if not c.closing), default=now) + self.idle
            elif self.active + self.idle <= now:
                await self.refuse("input_timeout_exceeded", reason)
                return
            else:
                due = self.active + self.idle
            await sleep_until(due)


class _Context:
    """One context: its text that is not generated yet, and its voice."""

    def __init__(self, connection: _Connection, name: str, first: dict[str, Any]) -> None:
        self.utterance = connection.begin(name)
        self.utterance.settings = first.get("voice_settings")
        self.voice = Voice(connection.vendor, self._emit)
        self.active = connection.loop.time()
        self.closing = False
        self._connection = connection
        self._vendor = connection.vendor
        self._now = connection.loop.time
        config = first.get("generation_config") or {}
        self._schedule = list(config.get("chunk_length_schedule") or SCHEDULE)
        self._buffer = ""
        self._flushed = -math.inf
        """When the last flush came."""
        self._unflushed = False
        """Text came after it."""
        self._messages = 0

    def hear(self, text: str) -> None:
        self.active = self._now()
        if not text.strip():
            return  # keeps it alive
        self.utterance.text += text
        if self.closing:
            self._vendor.wrong(f"text for {self.utterance.name}, which is closed")
            self.voice.forget(text, self.utterance)
            return
        self._unflushed = True
        self._buffer += text
        if self._connection.automatic:
            self._generate()
        elif len(self._buffer) >= self._schedule[0]:
            self._schedule = self._schedule[1:] or self._schedule
            self._generate()

    def flush(self) -> None:
        self.active = now = self._now()
        if self.closing:
            self._vendor.wrong(f"a flush for {self.utterance.name}, which is closed")
            return
        if now - self._flushed < self._vendor.flush_gap:
            self._vendor.wrong(f"{self.utterance.name} was flushed again too soon")
            self._discard()
        self._generate()
        self.utterance.flushes.append(now)
        self._flushed, self._unflushed = now, False

    def close(self, *, ends: bool = False) -> None:
        """`close_context`; with `ends` the end of stream of a single context, which loses nothing."""
        if self.closing:
            return
        self.closing = True
        self.utterance.closed = now = self._now()
        if ends:
            self._generate()
        elif now - self._flushed < self._vendor.flush_race:
            self.voice.cut(since=now - self._vendor.flush_race)
        elif self._unflushed and self._vendor.late is not None:
            self.voice.cut(self._vendor.late)
        self._discard()
        self.voice.then(self._finish)

    def drop(self) -> None:
        """Ends it without a word."""
        self.closing = True
        self.voice.stop()
        self._discard()

    def _discard(self) -> None:
        self.voice.forget(self._buffer, self.utterance)
        self._buffer = ""

    def _generate(self) -> None:
        if self._buffer:
            self.voice.say(self._buffer, self.utterance)
            self._buffer = ""

    async def _finish(self) -> None:
        await asyncio.sleep(self._vendor.final_after)
        self.voice.stop()
        await self._connection.final(self)

    async def _emit(self, part: Part) -> bool:
        connection, number = self._connection, self._messages
        self._messages += 1
        audio = b"ID3" + bytes(400) if connection.format is None else to_format(part.audio, connection.format)
        alignment = None
        if connection.aligned and self._vendor.alignments and number not in self._vendor.unaligned:
            alignment = _alignment(part)
        body: dict[str, Any] = {
            "audio": base64.b64encode(audio).decode(),
            "isFinal": None,
            "normalizedAlignment": alignment,
            "alignment": alignment,
        }
        return await connection.send_audio(connection.spelled(body, self), self.utterance, part.seconds)


def _alignment(part: Part) -> dict[str, list[Any]] | None:
    """Times are relative to the first sample of this message, not of the utterance."""
    if not part.characters:
        return None
    return {
        "chars": [character for character, _ in part.characters],
        "charStartTimesMs": [start for _, start in part.characters],
        "charDurationsMs": [round(part.length)] * len(part.characters),
    }


def _respelled(body: Any, spelling: Mapping[str, str]) -> Any:
    if not isinstance(body, dict):
        return body
    return {spelling.get(key, key): _respelled(value, spelling) for key, value in body.items()}


def _detail(status: str, message: str) -> str:
    return json.dumps({"detail": {"status": status, "message": message}})
