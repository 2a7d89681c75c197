"""The record of a call: where it is in its life, how it ended, what was counted."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.pump import Pump


class Phase(enum.Enum):
    """Where a call is in its life."""

    NEW = "new"
    STARTING = "starting"
    LIVE = "live"
    CLOSING = "closing"
    OVER = "over"


@dataclass(slots=True)
class CallResult:
    """The record of a call that is over. Complete also when the call died."""

    id: str
    reason: str
    fault: str | None
    """What failed, naming the processor; None when the call ended as calls do."""
    seconds: float
    normal: bool = True
    """Whether it ended as calls do. If not, the caller is owed the fallback: a sentence, or a person."""
    figures: dict[str, float] = field(default_factory=dict)


def figures_of(pump: Pump | None, pipeline: Pipeline | None) -> dict[str, float]:
    """What the pump, the source and the sink have counted so far; what is not there is left out."""
    figures: dict[str, float] = {}
    if pump is not None:
        figures["dead_frames_dropped"] = pump.dropped
    if pipeline is not None and (source := pipeline.source) is not None:
        figures["packets_in"] = source.packets
        figures["line_faults"] = sum(source.faults.values())
    if pipeline is not None and (sink := pipeline.sink) is not None:
        figures["underruns"] = sink.pacer.underruns
        figures["underrun_seconds"] = round(sink.pacer.gap_seconds, 3)
        figures["marks_heard"] = sink.marks.heard
        figures["marks_cleared"] = sink.marks.cleared
        figures["clears"] = sink.clears
    for processor in pipeline.chain if pipeline is not None else ():
        figures.update({f"{processor.name}.{name}": value for name, value in processor.figures().items()})
    return figures
