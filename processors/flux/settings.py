"""What may be asked of Flux: as the query of a connection, and as Configure during the call.

The ranges are those of Deepgram's Flux reference (configuration and Configure pages, 2026-07).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from voiceflow.errors import DeclarationError
from voiceflow.frames import AudioFormat

MULTILINGUAL = "flux-general-multi"
"""The one model that takes language hints; any other answers them with HTTP 400."""
RATES = (8000, 16000, 24000, 44100, 48000)
ENCODINGS = {"mulaw": "mulaw", "pcm16": "linear16"}
"""Our names of sample formats, and Deepgram's."""
RANGES = {"eot_threshold": (0.5, 1.0), "eager_eot_threshold": (0.3, 0.9), "eot_timeout_ms": (500, 60_000)}
DEFAULT_EOT_THRESHOLD = 0.7
"""What Flux takes when no eot_threshold is given; an eager threshold may not exceed it."""
KEYTERMS = 100
TAG_LENGTH = 128
REDACTIONS = ("numbers", "aggressive_numbers")


@dataclass(slots=True, frozen=True)
class Settings:
    """One connection's parameters; None leaves the choice to Flux. DeclarationError when they cannot work."""

    model: str = "flux-general-en"
    eot_threshold: float | None = None
    eager_eot_threshold: float | None = None
    eot_timeout_ms: int | None = None
    keyterms: tuple[str, ...] = ()
    language_hints: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    mip_opt_out: bool | None = None
    numerals: bool | None = None
    profanity_filter: bool | None = None
    redact: str | None = None

    def __post_init__(self) -> None:
        if not self.model.startswith("flux"):
            raise DeclarationError(f"FluxSTT(model={self.model!r}): no Flux model, such as flux-general-en")
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not low <= value <= high):
                raise DeclarationError(f"FluxSTT({name}={value!r}): from {low:g} to {high:g}")
        eot = DEFAULT_EOT_THRESHOLD if self.eot_threshold is None else self.eot_threshold
        if self.eager_eot_threshold is not None and self.eager_eot_threshold > eot:
            raise DeclarationError(
                f"FluxSTT(eager_eot_threshold={self.eager_eot_threshold!r}): at most eot_threshold, "
                f"which is {eot:g}"
            )
        if len(self.keyterms) > KEYTERMS:
            raise DeclarationError(f"FluxSTT(keyterms=...): {KEYTERMS} at most, not {len(self.keyterms)}")
        if self.language_hints and self.model != MULTILINGUAL:
            raise DeclarationError(f"FluxSTT(language_hints=...) needs model={MULTILINGUAL!r}")
        if any(len(tag) > TAG_LENGTH for tag in self.tags):
            raise DeclarationError(f"FluxSTT(tags=...): {TAG_LENGTH} characters each at most")
        if self.redact is not None and self.redact not in REDACTIONS:
            raise DeclarationError(f"FluxSTT(redact={self.redact!r}): one of {', '.join(REDACTIONS)}")

    def query(self, audio: AudioFormat) -> str:
        """The query of a connection for such audio. DeclarationError when Flux cannot hear it."""
        if audio.rate not in RATES or audio.encoding not in ENCODINGS:
            raise DeclarationError(
                f"FluxSTT hears mulaw and pcm16 at {', '.join(map(str, RATES))} Hz; this line has "
                f"{audio.encoding} at {audio.rate}"
            )
        asked: dict[str, Any] = {
            "model": self.model,
            "encoding": ENCODINGS[audio.encoding],
            "sample_rate": audio.rate,
            **{name: getattr(self, name) for name in RANGES},
            "keyterm": self.keyterms,
            "language_hint": self.language_hints,
            "tag": self.tags,
            "mip_opt_out": self.mip_opt_out,
            "numerals": self.numerals,
            "profanity_filter": self.profanity_filter,
            "redact": self.redact,
        }
        return urlencode({name: _written(value) for name, value in asked.items() if value is not None}, True)


def strings(name: str, given: Iterable[str]) -> tuple[str, ...]:
    """Several texts. DeclarationError for a single one, whose letters would be taken for them."""
    texts = tuple(given) if not isinstance(given, str) else ()
    if isinstance(given, str) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DeclarationError(f"FluxSTT({name}=...): a list of texts, such as [{'Twilio'!r}]")
    return texts


def _written(value: Any) -> Any:
    """A flag as Deepgram reads it."""
    return str(value).lower() if isinstance(value, bool) else value
