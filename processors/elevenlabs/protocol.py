"""One `multi-stream-input` connection of ElevenLabs, without IO.

A key is a context. What makes the service tick, learnt the hard way by many:

- The first message of a context is a single blank, and the only one that may carry voice settings.
- A message about a context that is not open makes a phantom one, which takes one of the five places.
- A place is free again only when `isFinal` has come, some time after `close_context`.
- `flush` once, at the end; it never brings `isFinal` by itself. `close_context` right behind a flush may
  swallow the audio: it is sent REST seconds later, and once the last sentence has begun to sound, or when
  nothing has come for long.
- Audio of a context may still come after its close. Keys are spelled in two ways.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from processors.elevenlabs.alignment import Alignment, Said
from voiceflow.frames import AudioFormat
from voiceflow.line.codec import Wire
from voiceflow.speech import Audio, Finished, Ignored, Item, Send, Trouble

CONTEXTS = 5
"""Contexts a connection may have, phantom and closing ones included."""
REST = 0.25
"""Seconds between the flush and `close_context`, at least: 1 ms was seen to give silence."""
CLOSE_AFTER = 1.0
"""Seconds without audio after the flush when the context is closed all the same, if all has come."""
GIVE_UP_AFTER = 2.0
"""The same if something is missing: the service may have nothing to say for it, and then says isFinal."""
FINAL_TIMEOUT = 2.0
"""Seconds after `close_context` when the context counts as finished though no `isFinal` came."""
TAIL = 0.02
"""Seconds of silence that end a context whose last sentences are not known to have begun: their text has to
stand in the ledger."""
PERMANENT = (
    "quota",
    "api_key",
    "authoriz",
    "subscription",
    "payment",
    "policy",
    "voice_not_found",
)
"""Parts of errors that another connection would meet as well."""


@dataclass(slots=True)
class _Context:
    alignment: Alignment = field(default_factory=Alignment)
    ended_at: float | None = None
    closed_at: float | None = None
    heard_at: float = 0.0
    piece: int = 0
    """The one that audio came of."""
    dead: bool = False
    told: bool = False
    """It was reported as finished."""


class ElevenLabsProtocol:
    """`settings` are voice_settings as the service takes them; `format` is how it was asked to speak."""

    def __init__(self, format: AudioFormat, settings: Mapping[str, Any] | None = None) -> None:
        self._format = format
        self._settings = dict(settings or {})
        self._contexts: dict[str, _Context] = {}

    def room(self) -> bool:
        return len(self._contexts) < CONTEXTS

    def clean(self) -> bool:
        return not self._contexts

    def owes(self, key: str) -> bool:
        context = self._contexts.get(key)
        return context is not None and not context.told and not context.alignment.complete

    def done(self, key: str) -> int:
        context = self._contexts.get(key)
        return context.alignment.spoken if context is not None else 0

    def speak(self, key: str, text: str, now: float) -> Iterator[Item]:
        if key not in self._contexts:
            self._contexts[key] = _Context()
            opening: dict[str, Any] = {"text": " ", "context_id": key}
            if self._settings:
                opening["voice_settings"] = self._settings
            yield _send(opening, key)
        piece = text.strip() + " "
        self._contexts[key].alignment.add(piece)
        yield _send({"text": piece, "context_id": key}, key)

    def end(self, key: str, now: float) -> Iterator[Item]:
        self._contexts[key].ended_at = now
        yield _send({"context_id": key, "flush": True}, key)

    def cancel(self, key: str, now: float, *, reached: bool) -> Iterator[Item]:
        context = self._contexts.get(key)
        if context is None:
            return
        if not reached:
            del self._contexts[key]
            return
        context.dead = True
        if context.closed_at is None:
            yield self._close(key, context, now)

    def parse(self, message: Wire, now: float) -> Iterator[Item]:
        try:
            data = json.loads(message)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            yield Ignored("a message that is no JSON object")
            return
        if data.get("error") or ("code" in data and "message" in data):
            yield _trouble(data)
            return
        key = _either(data, "contextId", "context_id")
        context = self._contexts.get(key) if isinstance(key, str) else None
        if context is None:
            yield Ignored("a message about a context that is not open")
            return
        if isinstance(audio := data.get("audio"), str) and audio and not context.dead:
            yield from self._audio(key, context, audio, data, now)
        if _either(data, "isFinal", "is_final") is True:
            del self._contexts[key]
            if not context.dead and not context.told:
                yield from self._finished(key, context)

    def due(self, now: float) -> Iterator[Item]:
        for key, context in self._contexts.items():
            if context.dead or context.told or context.ended_at is None:
                continue
            complete = context.alignment.complete
            quiet = now - max(context.ended_at, context.heard_at)
            if context.closed_at is None:
                if self._may_close(context, now) or quiet > (CLOSE_AFTER if complete else GIVE_UP_AFTER):
                    yield self._close(key, context, now)
            elif complete and min(quiet, now - context.closed_at) > FINAL_TIMEOUT:
                context.told = True
                yield from self._finished(key, context)

    # -- inside

    def _audio(
        self, key: str, context: _Context, encoded: str, data: Mapping[str, Any], now: float
    ) -> Iterator[Item]:
        try:
            audio = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            yield Ignored("audio that is not base64")
            return
        context.heard_at = now
        width, rate = self._format.sample_bytes, self._format.rate
        cuts = context.alignment.chunk(len(audio) / width / rate, _alignment(data))
        edges = [min(len(audio), round(cut.start * rate) * width) for cut in cuts] + [len(audio)]
        for cut, begin, end in zip(cuts, edges, edges[1:], strict=False):
            if end > begin or cut.words:
                context.piece = cut.piece
                yield Audio(key, audio[begin:end], cut.piece, cut.piece, tuple(cut.words))
        if context.closed_at is None and self._may_close(context, now):
            yield self._close(key, context, now)

    def _finished(self, key: str, context: _Context) -> Iterator[Item]:
        alignment = context.alignment
        if not alignment.complete:
            yield Finished(key, alignment.spoken)
            return
        last = alignment.pieces - 1
        if context.piece < last:
            silence = self._format.silence * round(self._format.rate * TAIL)
            yield Audio(key, silence, last, last)
        yield Finished(key)

    def _may_close(self, context: _Context, now: float) -> bool:
        ended = context.ended_at is not None and now - context.ended_at >= REST
        return ended and context.alignment.last_begun

    def _close(self, key: str, context: _Context, now: float) -> Send:
        context.closed_at = now
        return _send({"context_id": key, "close_context": True}, key, closes=True)


def _send(message: Mapping[str, Any], key: str, *, closes: bool = False) -> Send:
    return Send(json.dumps(message, ensure_ascii=False), key, closes)


def _either(data: Mapping[str, Any], first: str, second: str) -> Any:
    found = data.get(first)
    return data.get(second) if found is None else found


def _alignment(data: Mapping[str, Any]) -> Said | None:
    """What the audio says, as far as the message tells."""
    for name in ("alignment", "normalizedAlignment", "normalized_alignment"):
        if not isinstance(found := data.get(name), dict):
            continue
        chars: Any = found.get("chars")
        starts = _numbers(_either(found, "charStartTimesMs", "charsStartTimesMs"))
        lengths = _numbers(_either(found, "charDurationsMs", "charsDurationsMs"))
        good = isinstance(chars, list) and all(isinstance(c, str) for c in chars)
        if good and len(chars) == len(starts) == len(lengths):
            return chars, starts, lengths
    return None


def _numbers(values: Any) -> list[float]:
    if isinstance(values, list) and all(isinstance(v, int | float) and abs(v) < 1e9 for v in values):
        return values
    return []


def _trouble(data: Mapping[str, Any]) -> Trouble:
    said = f"{data.get('error') or ''} {data.get('message') or ''}".strip()
    low = said.lower()
    advice = ""
    if "quota" in low:
        advice = ": the account has no characters left, see https://elevenlabs.io/app/subscription"
    elif "api_key" in low or "authoriz" in low:
        advice = ": ELEVENLABS_API_KEY is not valid, see https://elevenlabs.io/app/settings/api-keys"
    permanent = any(word in low for word in PERMANENT)
    return Trouble(" ".join(said.split())[:160] + advice, permanent)
