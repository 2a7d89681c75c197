"""Draws a checked chain as text: each processor, what it takes and gives, and the way of the frames."""

from __future__ import annotations

from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Handles, Kind, Processor
from voiceflow.frames import Frame, Way

_HOW = {Kind.PLAIN: "", Kind.GENERATOR: "", Kind.COROUTINE: " (waits)", Kind.ASYNC_GENERATOR: " (waits)"}


def draw(pipeline: Pipeline) -> str:
    """The chain from top to bottom.

    ● LineSource
    │   gives  AudioIn, Dtmf
    ▼
    ● SileroVAD
    │   looks  AudioIn (waits)
    │   gives  VoiceStart, VoiceStop
    ▼
    """
    lines: list[str] = []
    last = pipeline.chain[-1]
    for index, processor in enumerate(pipeline.chain):
        rail = "│" if processor is not last else " "
        badge = "   ◀ decides the turns" if index == pipeline.authority else ""
        lines.append(f"● {type(processor).__name__}{badge}")
        lines += [f"{rail}   {verb: <6} {names}" for verb, names in _facts(processor)]
        if processor is not last:
            lines.append("▼")
    return "\n".join(lines)


def _facts(processor: Processor) -> list[tuple[str, str]]:
    cls = type(processor)
    facts = [
        ("looks", ", ".join(_handled(h) for h in cls.handles if h.tap)),
        ("takes", ", ".join(_handled(h) for h in cls.handles if not h.tap)),
        ("gives", ", ".join(_given(t) for t in dict.fromkeys((*cls.emits, *cls.pushes)))),
    ]
    if processor.tools:
        facts.append(("tools", ", ".join(f"{t.name} ({t.effect.value})" for t in processor.tools)))
    if cls.takes_turns:
        facts.append(("makes", "TurnStart, DraftEnd, DraftResumed, TurnEnd, Prompt, Interrupt"))
    return [(verb, names) for verb, names in facts if names]


def _handled(handles: Handles) -> str:
    return ", ".join(t.__name__ for t in handles.types) + _HOW[handles.kind]


def _given(frame_type: type[Frame]) -> str:
    arrow = " ↑" if frame_type.way is Way.UP else ""
    return frame_type.__name__ + arrow
