"""What is told about a call that is over: one JSON object, of a shape that is documented and versioned.

Times in the transcript are seconds since the call was announced, dates are UTC. A later voiceflow may tell
more: pass over fields that you do not know. `version` goes up when one of these changes its meaning.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from voiceflow.errors import VoiceflowError
from voiceflow.tools.use import ToolUse
from voiceflow.trace.file import CallRecord, record_of, redaction_of
from voiceflow.trace.recorder import EVENTS_BOUND, Outcome
from voiceflow.trace.redaction import Redaction
from voiceflow.trace.summary import summary
from voiceflow.version import __version__

if TYPE_CHECKING:
    from voiceflow.call import Call

VERSION = 1
TYPE = "call.ended"
TOOL_TEXT = 4_000
"""Characters of a tool's arguments and of its result that are told; a model reads about as much at once."""
LARGEST = 16 * 1024 * 1024
"""Bytes of an event that is read: an hour of talk takes about 200 KB."""


@dataclass(slots=True, frozen=True)
class Tool:
    """What a model had done. `seconds` is null for one that never ran, or had not finished."""

    name: str
    effect: str
    """read, commit or terminal."""
    state: str
    """done, failed, refused, cancelled or timed out; waiting or running if the call ended first."""
    arguments: str
    """As the model wrote them: JSON, if it made no mistake."""
    seconds: float | None = None


@dataclass(slots=True, frozen=True)
class Entry:
    """Something said or done. What the agent said is what was heard of it."""

    at: float
    role: str
    """caller, agent or tool."""
    text: str
    """The words; of a tool its result, in words for the model."""
    cut: bool = False
    """The caller interrupted it there."""
    estimated: bool = False
    """Where it was cut is not certain to the word."""
    tool: Tool | None = None
    """Only for a tool."""


@dataclass(slots=True, frozen=True)
class Ending:
    """`fault` names what failed, null when nothing did. Not `normal`: the caller was owed the fallback."""

    reason: str
    normal: bool
    fault: str | None = None


@dataclass(slots=True, frozen=True)
class Latency:
    """From the caller's last word until the answer was heard, in milliseconds; null when nothing was."""

    turns: int
    """Turns of the caller's."""
    heard: int
    """How many of them were answered, and the answer heard."""
    median_ms: float | None
    p90_ms: float | None
    since: str | None
    """What it is measured from: "last speech", or "end of turn" where the former is not known."""
    parts_ms: dict[str, float]
    """Medians of the parts, by the step that ends each."""


@dataclass(slots=True, frozen=True)
class EndedCall:
    """One call. `call` is our name for it, unique in its process; `carrier_call` the carrier's."""

    call: str
    carrier_call: str
    caller: str
    called: str
    parameters: dict[str, str]
    started: str
    ended: str
    seconds: float
    """From its announcement to its end."""
    connected: bool
    """Whether the carrier's stream came: the caller and the agent were in contact."""
    outcome: Ending
    transcript: list[Entry]
    truncated: bool
    """Whether the transcript has lost its beginning: after about 10,000 events."""
    interrupts: int
    latency: Latency
    figures: dict[str, float]
    """What was counted, as in the trace file."""
    redacted: bool
    """Words, arguments and parameters are replaced by their count, numbers by their last two digits."""
    voiceflow: str


@dataclass(slots=True, frozen=True)
class WebhookEvent:
    """The whole body. `id` is the webhook-id as well, `timestamp` when the call ended."""

    type: str
    version: int
    id: str
    timestamp: str
    data: EndedCall


def event_of(call: Call, *, id: str, ended: datetime, redact: bool) -> WebhookEvent:
    """The event of a call whose trace is closed. Takes milliseconds: run it off the event loop."""
    trace = call.trace
    uses = [entry for entry in call.history.messages if isinstance(entry, ToolUse)]
    hide = redaction_of(call, words=redact)
    for event in trace.events:  # first: the outcome may quote what was said, or what a tool was given
        hide.remember(event.words)
    for path in trace.paths:
        hide.remember(f"{path.asked} {path.heard} {path.lost}")
    for use in uses:
        hide.remember(f"{use.requested.arguments} {use.content}")
    parameters = {name: hide.secretless(hide.said(str(value))) for name, value in call.parameters.items()}
    outcome = trace.outcome or Outcome("")
    started = _date(ended - timedelta(seconds=trace.seconds))
    record = record_of(call, started, redact=redact)
    transcript = [
        Entry(said.at, said.who, hide.secretless(said.text), said.cut, said.estimated)
        for said in record.transcript
    ]
    began = trace.began - (trace.now() - call.loop.time())  # tools are timed by the loop's clock
    transcript += [_use(use, began, record.seconds, hide) for use in uses]
    return WebhookEvent(
        TYPE,
        VERSION,
        id,
        _date(ended),
        EndedCall(
            call.id,
            call.carrier_call,
            record.caller,
            record.called,
            parameters,
            started,
            _date(ended),
            record.seconds,
            call.deadline is not None,
            Ending(
                hide.other(outcome.reason),
                outcome.normal,
                hide.other(outcome.fault) if outcome.fault is not None else None,
            ),
            sorted(transcript, key=lambda entry: entry.at),
            len(trace.events) >= EVENTS_BOUND,
            call.interrupts,
            _latency(record),
            _finite(record.figures),
            redact,
            __version__,
        ),
    )


def _use(use: ToolUse, began: float, end: float, hide: Redaction) -> Entry:
    """`began` is when the call did, on the loop's clock; `end` how long it was."""
    since = use.began if use.began is not None else use.ended
    at = min(end, max(0.0, since - began)) if since is not None else end
    took = use.ended - use.began if use.began is not None and use.ended is not None else None
    tool = Tool(
        use.requested.name,
        use.effect.value,
        use.state.value,
        _short(hide.secretless(hide.said(use.requested.arguments))),
        round(took, 3) if took is not None else None,
    )
    return Entry(round(at, 6), "tool", _short(hide.secretless(hide.said(use.content))), tool=tool)


def _latency(record: CallRecord) -> Latency:
    found = summary(record)
    return Latency(
        found.turns,
        found.heard,
        round(found.gap, 3) if found.gap is not None else None,
        round(found.p90, 3) if found.p90 is not None else None,
        found.since.value if found.since is not None else None,
        {step.value: round(ms, 3) for step, ms in found.parts.items()},
    )


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    """JSON has no other numbers."""
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _short(text: str) -> str:
    return text if len(text) <= TOOL_TEXT else text[:TOOL_TEXT] + "..."


def _date(at: datetime) -> str:
    return at.astimezone(UTC).isoformat("T", "milliseconds").replace("+00:00", "Z")


# -- as JSON ---------------------------------------------------------------------------------------------


def to_json(event: WebhookEvent) -> bytes:
    """The body that is signed and sent. Every field is in it, but `tool` only for a tool."""
    found: dict[str, Any] = dataclasses.asdict(event)
    for entry in found["data"]["transcript"]:
        if entry["tool"] is None:
            del entry["tool"]
    text = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")  # a vendor's text may hold half a surrogate pair


def read_event(body: bytes | str) -> WebhookEvent:
    """The event in a body, for a receiver in Python: after `verify`. VoiceflowError when it is none, or one
    of a newer version than this voiceflow knows."""
    from pydantic import TypeAdapter, ValidationError

    if len(body) > LARGEST:
        raise VoiceflowError(f"this is no webhook of ours: it is larger than {LARGEST >> 20} MiB")
    try:
        event = TypeAdapter(WebhookEvent).validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise VoiceflowError(f"this is no webhook of ours: {where}: {first['msg']}") from None
    if event.type != TYPE or event.version > VERSION:
        raise VoiceflowError(
            f"it is {event.type!r} in version {event.version}; this voiceflow reads {TYPE!r} in {VERSION}"
        )
    return event
