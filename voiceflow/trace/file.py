"""The record of a call that is over, and the JSON file that keeps it.

Times are seconds since the call began, except where a name says `ms`. In the file each turn, each event and
each thing said is one line, so that `grep` and `jq` are good friends with it.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from voiceflow.errors import VoiceflowError
from voiceflow.trace.path import Path, Step
from voiceflow.trace.recorder import Event, Outcome
from voiceflow.trace.redaction import Redaction
from voiceflow.vendor import secrets
from voiceflow.version import __version__

if TYPE_CHECKING:
    from voiceflow.call import Call

VERSION = 1
"""Of the file's format. It goes up when a reader of an older one would misunderstand a newer one."""
GREATEST = 1e12
"""Numbers in a file: 30,000 years in seconds."""
LARGEST = 64 * 1024 * 1024
"""Bytes of a file that is read: an hour of talk takes about 1 MB."""


@dataclass(slots=True, frozen=True)
class Part:
    """One piece of a gap: the milliseconds that `owner` took until `step`."""

    step: Step
    owner: str
    ms: float


@dataclass(slots=True, frozen=True)
class TurnRecord:
    """One reply of the agent. `turn` is the caller's turn that it answers, null when it spoke by itself."""

    reply: int
    turn: int | None
    opened: float
    since: Step | None
    """What the gap is measured from: last speech, when the turn's authority knows when that was."""
    began: float | None
    """When that step was."""
    gap_ms: float | None
    """From that step until the caller heard it; null when nothing was heard."""
    parts: list[Part]
    draft: bool = False
    """It was begun before the turn was over; `dropped`: and for nothing."""
    dropped: bool = False
    asked: str = ""
    heard: str = ""
    lost: str = ""
    """What was ready to be heard when it was cut off."""
    estimated: bool = False
    cut: str = ""
    over: float | None = None
    saved_ms: float | None = None
    """By how much sooner it was heard because it was a draft; null when it was none."""

    @property
    def heard_at(self) -> float | None:
        """When the caller began to hear it."""
        return self.began + self.gap_ms / 1000 if self.began is not None and self.gap_ms is not None else None

    @property
    def answers(self) -> bool:
        """Whether it answers a turn of the caller's, rather than that the agent speaks by itself."""
        return self.turn is not None and not self.dropped


@dataclass(slots=True, frozen=True)
class Said:
    """What somebody said, as the other heard it. `who` is caller or agent."""

    at: float
    who: str
    text: str
    turn: int | None = None
    cut: bool = False
    estimated: bool = False


@dataclass(slots=True)
class CallRecord:
    """One call, from its announcement to its end."""

    call: str
    started: str
    """Date and time by the clock on the wall, ISO 8601."""
    seconds: float
    caller: str
    called: str
    chain: list[str]
    """The processors' names."""
    outcome: Outcome
    turns: list[TurnRecord]
    transcript: list[Said]
    events: list[Event]
    figures: dict[str, float] = field(default_factory=dict)
    pools: dict[str, dict[str, float]] = field(default_factory=dict)
    """Figures of what all calls of the process share."""
    redacted: bool = False
    voiceflow: str = __version__


# -- from a call ------------------------------------------------------------------------------------------


def record_of(
    call: Call,
    started: str,
    *,
    redact: bool = False,
    pools: Mapping[str, Mapping[str, float]] | None = None,
) -> CallRecord:
    """The record of a call whose trace is closed. It holds no key; with `redact`, nobody's words either."""
    trace = call.trace
    hide = redaction_of(call, words=redact)
    for event in trace.events:  # first: other texts may quote what is said later
        hide.remember(event.words)
    for path in trace.paths:
        hide.remember(f"{path.asked} {path.heard} {path.lost}")
    outcome = trace.outcome or Outcome("")
    return CallRecord(
        call.id,
        started,
        round(trace.seconds, 3),
        hide.number(call.caller),
        hide.number(call.called),
        list(call.chain),
        Outcome(
            hide.other(outcome.reason),
            hide.other(outcome.fault) if outcome.fault is not None else None,
            outcome.normal,
        ),
        [_turn(path, hide) for path in trace.paths],
        [_hidden(said, hide) for said in _transcript(call)],
        [_event(event, hide) for event in trace.events],
        {name: round(value, 3) for name, value in call.figures().items()},
        {name: {k: round(v, 3) for k, v in figures.items()} for name, figures in (pools or {}).items()},
        redact,
    )


def redaction_of(call: Call, *, words: bool) -> Redaction:
    """Hides the keys that the call's processors use and, if asked to, what was said."""
    chain = call._pipeline.chain if call._pipeline is not None else ()
    return Redaction(words=words, secrets=[*(key.value for p in chain for key in p.keys), *secrets()])


def _turn(path: Path, hide: Redaction) -> TurnRecord:
    parts = [Part(part.step, part.owner, part.microseconds / 1000) for part in path.parts()]
    gap = path.gap
    return TurnRecord(
        path.reply,
        path.turn,
        round(path.opened, 6),
        path.since,
        round(path.at[path.since], 6) if path.since is not None else None,
        round(gap * 1000, 3) if gap is not None else None,
        parts,
        path.draft,
        path.dropped,
        hide.said(path.asked),
        hide.said(path.heard),
        hide.said(path.lost),
        path.estimated,
        hide.other(path.cut),
        round(path.over, 6) if path.over is not None else None,
        round(path.saved * 1000, 3) if path.saved is not None else None,
    )


def _event(event: Event, hide: Redaction) -> Event:
    return dataclasses.replace(
        event,
        at=round(event.at, 6),
        words=hide.said(event.words),
        detail=hide.other(event.detail),
        figures={name: round(value, 6) for name, value in event.figures.items()},
    )


def _hidden(said: Said, hide: Redaction) -> Said:
    return dataclasses.replace(said, text=hide.said(said.text))


def _transcript(call: Call) -> list[Said]:
    trace = call.trace
    said = [Said(round(e.at, 6), "caller", e.words, e.turn) for e in trace.events if e.kind == "caller done"]
    for path in trace.paths:
        if path.heard:
            at = path.at.get(Step.HEARD, path.over or 0.0)
            said.append(Said(round(at, 6), "agent", path.heard, path.turn, bool(path.cut), path.estimated))
    return sorted(said, key=lambda each: each.at)


# -- to a file --------------------------------------------------------------------------------------------


def to_json(record: CallRecord) -> str:
    """The record as JSON, an item of each list on a line of its own. What is empty in an item is left out."""
    lines = [f' "version": {VERSION}']
    for each in dataclasses.fields(record):
        value = getattr(record, each.name)
        if isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
            text = "[\n  " + ",\n  ".join(_dumps(_fields(item)) for item in value) + "\n ]"
        else:
            text = _dumps(_fields(value) if dataclasses.is_dataclass(value) else value)
        lines.append(f" {_dumps(each.name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _fields(item: Any) -> dict[str, Any]:
    """A dataclass as a dict, without fields that have their default."""
    found = {}
    for each in dataclasses.fields(item):
        value = getattr(item, each.name)
        if each.default is not dataclasses.MISSING and value == each.default:
            continue
        if each.default_factory is not dataclasses.MISSING and value == each.default_factory():
            continue
        found[each.name] = value
    return found


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_simple)


def _simple(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else _fields(value)


def write_private(path: FilePath, text: str, *, sync: bool = True) -> None:
    """Writes a file that only its owner can read, all of it or nothing. Raises OSError.

    Not `sync`: without waiting for the disk, so that a power cut may lose it, but no kill of the process."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8", "replace"))  # a vendor's text may hold half a surrogate pair
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


# -- from a file ------------------------------------------------------------------------------------------


def read(path: FilePath) -> CallRecord:
    """The record in a file. VoiceflowError, naming the file, when there is none or it is no trace."""
    try:
        if path.stat().st_size > LARGEST:
            raise VoiceflowError(f"{path} is no trace of a call: it is larger than {LARGEST >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise VoiceflowError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return from_json(data)
    except ValueError as error:
        raise VoiceflowError(f"{path} is no trace of a call: {error}") from None


def from_json(data: bytes) -> CallRecord:
    """The record in a file's content. ValueError, in one line, when it is none."""
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import from_json as parse

    try:
        parsed = parse(data)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    version = parsed.get("version") if isinstance(parsed, dict) else None
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        raise ValueError(
            f"its version is {version!r}, and this voiceflow reads {VERSION}"
            + (": a newer voiceflow wrote it" if newer else "")
        )
    if not _drawable(parsed):
        raise ValueError(f"a number in it is beyond {GREATEST:g}, or is none")
    try:
        return TypeAdapter(CallRecord).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{where}: {first['msg']}") from None


def _drawable(value: Any) -> bool:
    """Whether all numbers are finite, and small enough to be drawn to scale."""
    if isinstance(value, dict):
        return all(map(_drawable, value.values()))
    if isinstance(value, list):
        return all(map(_drawable, value))
    return not isinstance(value, int | float) or abs(value) <= GREATEST  # false for nan
