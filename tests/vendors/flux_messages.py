"""What Deepgram Flux says, and what it would never say."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from tests.vendors.wire import Refusal

UNKNOWN: tuple[dict[str, Any], ...] = (
    {"type": "SomethingNew", "detail": {"x": 1}},
    {"type": "TurnInfo", "event": "SpeakerChanged", "turn_index": 0, "transcript": "", "words": []},
)
"""For `FakeFlux.inject`: a type and an event that no client knows."""
GARBAGE: tuple[str | bytes, ...] = ('{"type":"TurnInfo","event', "null", "[]", '"StartOfTurn"', b"\x00\xff")
"""For `FakeFlux.inject`: what is no message at all."""
REASONS = {1008: "DATA-0000", 1011: "NET-0001"}
"""What Deepgram gives as the reason with a close code."""
REFUSALS = {
    400: ("Bad Request", "a parameter is not valid"),
    401: ("INVALID_AUTH", "Invalid credentials."),
    402: ("ASR_PAYMENT_REQUIRED", "Project does not have enough credits."),
    403: ("INSUFFICIENT_PERMISSIONS", "Project does not have access to the requested model."),
    429: ("TOO_MANY_REQUESTS", "Too many requests. Please try again later."),
    503: ("SERVICE_UNAVAILABLE", "The service is overloaded."),
}


def refusal(status: int, reason: str = "") -> Refusal:
    """How Deepgram refuses an upgrade: for `FakeFlux.refusals`."""
    code, usual = REFUSALS.get(status, ("ERROR", "refused"))
    request = str(uuid.UUID(int=status))
    body = {"err_code": code, "err_msg": reason or usual, "request_id": request}
    return Refusal(status, json.dumps(body), {"dg-error": reason or usual, "dg-request-id": request})


def turn_info(
    event: str,
    transcript: str = "",
    *,
    words: Sequence[dict[str, Any]] | None = None,
    turn_index: int = 0,
    start: float = 0.0,
    end: float = 0.0,
    confidence: float = 0.05,
    **more: Any,
) -> dict[str, Any]:
    """A TurnInfo as Flux sends it, but for its ids, which are filled in when it is sent. Seconds of audio."""
    if words is None:
        words = [{"word": word, "confidence": 0.99} for word in transcript.split()]
    if event == "EndOfTurn":
        more.setdefault("trigger", "model")
    return {
        "type": "TurnInfo",
        "event": event,
        "turn_index": turn_index,
        "audio_window_start": round(start, 4),
        "audio_window_end": round(end, 4),
        "transcript": transcript,
        "words": list(words),
        "end_of_turn_confidence": round(confidence, 4),
        **more,
    }
