"""What a client may ask of Deepgram Flux: the query of the upgrade, and Configure during the call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

MODELS = ("flux-general-en", "flux-general-multi")
RATES = (8000, 16000, 24000, 44100, 48000)
RAW = {"mulaw": 1, "alaw": 1, "linear16": 2, "linear32": 4}
"""Bytes of a sample."""
COMPRESSED = ("opus", "ogg-opus")
BOUNDS = {"eot_threshold": (0.5, 1.0), "eager_eot_threshold": (0.3, 0.9), "eot_timeout_ms": (500, 60_000)}
KEYTERMS = 100
KNOWN = {
    *("model", "encoding", "sample_rate", "keyterm", "language_hint", "tag", "redact"),
    *("mip_opt_out", "numerals", "profanity_filter"),
    *BOUNDS,
}


class Invalid(Exception):
    """The request is refused: HTTP status, reason."""

    def __init__(self, reason: str, status: int = 400) -> None:
        self.status = status
        self.reason = reason
        super().__init__(reason)


@dataclass(slots=True, frozen=True)
class Settings:
    """What one connection has asked for so far."""

    model: str
    encoding: str = ""
    """Empty for a container, which says itself what is in it."""
    rate: int = 0
    eot_threshold: float = 0.7
    eager_eot_threshold: float | None = None
    eot_timeout_ms: float = 5000
    keyterms: tuple[str, ...] = ()
    language_hints: tuple[str, ...] = ()
    numerals: bool = False

    @property
    def multi(self) -> bool:
        return self.model == "flux-general-multi"

    @property
    def thresholds(self) -> dict[str, float]:
        values = {name: getattr(self, name) for name in BOUNDS}
        return {name: value for name, value in values.items() if value is not None}

    def shown(self) -> dict[str, Any]:
        """As ConfigureSuccess says them."""
        return {
            "thresholds": self.thresholds,
            "keyterms": list(self.keyterms),
            "language_hints": list(self.language_hints),
            "numerals": self.numerals,
        }

    @classmethod
    def of(cls, query: Mapping[str, list[str]]) -> Settings:
        """Raises Invalid for what Flux would refuse, and for parameters of other Deepgram products."""
        if unknown := sorted(set(query) - KNOWN):
            raise Invalid(f"unknown parameter: {', '.join(unknown)}")
        for name, values in query.items():
            if len(values) > 1 and name not in ("keyterm", "language_hint", "tag"):
                raise Invalid(f"{name} is given twice")
        one = {name: values[0] for name, values in query.items()}
        if "model" not in one:
            raise Invalid("model is required")
        if one["model"] not in MODELS:
            raise Invalid(f"INSUFFICIENT_PERMISSIONS: no access to model {one['model']}", 403)
        if any(len(tag) > 128 for tag in query.get("tag", [])):
            raise Invalid("a tag has at most 128 characters")
        if one.get("redact", "numbers") not in ("numbers", "aggressive_numbers"):
            raise Invalid("redact is numbers or aggressive_numbers")
        flags = {name: _flag(name, one.get(name)) for name in ("mip_opt_out", "numerals", "profanity_filter")}
        encoding, rate = _format(one)
        return cls(
            one["model"],
            encoding,
            rate,
            keyterms=tuple(query.get("keyterm", ())),
            language_hints=tuple(query.get("language_hint", ())),
            numerals=flags["numerals"],
            **{name: _number(name, one[name]) for name in BOUNDS if name in one},
        )._checked()

    def configured(self, message: Mapping[str, Any]) -> Settings:
        """With a Configure message applied; what it leaves out stays. Raises Invalid: nothing is applied."""
        if unknown := sorted(set(message) - {"type", "thresholds", "keyterms", "language_hints", "numerals"}):
            raise Invalid(f"unknown field: {', '.join(unknown)}")
        changes: dict[str, Any] = {}
        thresholds = message.get("thresholds", {})
        if not isinstance(thresholds, dict) or set(thresholds) - set(BOUNDS):
            raise Invalid(f"thresholds may have {', '.join(BOUNDS)}")
        for name, value in thresholds.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise Invalid(f"{name} must be a number")
            changes[name] = value
        for name in ("keyterms", "language_hints"):
            if name in message:
                value = message[name]
                if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                    raise Invalid(f"{name} must be a list of strings")
                changes[name] = tuple(value)
        if "numerals" in message:
            if not isinstance(message["numerals"], bool):
                raise Invalid("numerals must be true or false")
            changes["numerals"] = message["numerals"]
        return replace(self, **changes)._checked()

    def _checked(self) -> Settings:
        for name, value in self.thresholds.items():
            low, high = BOUNDS[name]
            if not low <= value <= high:
                raise Invalid(f"{name} must be from {low:g} to {high:g}")
        if self.eager_eot_threshold is not None and self.eager_eot_threshold > self.eot_threshold:
            raise Invalid("eager_eot_threshold must not exceed eot_threshold")
        if len(self.keyterms) > KEYTERMS:
            raise Invalid(f"at most {KEYTERMS} keyterms")
        if self.language_hints and not self.multi:
            raise Invalid("language_hint needs the model flux-general-multi")
        return self


def _format(one: Mapping[str, str]) -> tuple[str, int]:
    encoding, rate = one.get("encoding", ""), one.get("sample_rate", "")
    if encoding and encoding not in (*RAW, *COMPRESSED):
        raise Invalid(f"unsupported encoding: {encoding}")
    if not encoding and rate:
        raise Invalid("sample_rate needs an encoding; leave out both for a container")
    if encoding in RAW and not rate:
        raise Invalid(f"{encoding} needs a sample_rate")
    if rate and (not rate.isdecimal() or int(rate) not in RATES):
        raise Invalid(f"unsupported sample_rate: {rate}")
    return encoding, int(rate or 0)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Invalid(f"{name} must be a number") from None


def _flag(name: str, text: str | None) -> bool:
    if text not in (None, "true", "false"):
        raise Invalid(f"{name} must be true or false")
    return text == "true"
