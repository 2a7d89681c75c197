"""Pipeline: a declared chain of processors. Checked when it is made, bound to one call when it runs."""

from __future__ import annotations

from voiceflow.declaration.check import check
from voiceflow.engine.processor import Processor, handler_for
from voiceflow.errors import DeclarationError
from voiceflow.frames import Frame
from voiceflow.line.sink import LineSink
from voiceflow.line.source import LineSource


class Pipeline:
    """`Pipeline(call.source(), SileroVAD(), VADTurns(), ..., call.sink())`.

    Raises DeclarationError when the chain cannot work: something is needed that nothing upstream makes,
    two processors claim the turn, ReplyEnd would get lost, the ends are missing or in the middle. The
    message says what to insert where. `parts=True` checks only that the types fit together, for a piece of
    a chain in a test, which need not have a source and a sink.
    """

    def __init__(self, *processors: Processor, parts: bool = False) -> None:
        for index, processor in enumerate(processors):
            if not isinstance(processor, Processor):
                made = f"{processor.__name__}()" if isinstance(processor, type) else "a Processor"
                raise DeclarationError(
                    f"position {index} of the pipeline is {processor!r}, not a processor: write {made}"
                )
        if len(set(map(id, processors))) != len(processors):
            raise DeclarationError("the same processor stands twice in the pipeline: make two of them")
        self.chain: tuple[Processor, ...] = processors
        self.warnings = check(processors, parts=parts)
        """What is suspicious but may be meant, one sentence each."""

    @property
    def source(self) -> LineSource | None:
        return next((p for p in self.chain if isinstance(p, LineSource)), None)

    @property
    def sink(self) -> LineSink | None:
        return next((p for p in self.chain if isinstance(p, LineSink)), None)

    @property
    def authority(self) -> int:
        """The position of the turn's authority; -1 when nobody claims it."""
        return next((i for i, p in enumerate(self.chain) if p.takes_turns), -1)

    def handles(self, frame_type: type[Frame]) -> bool:
        """Whether any processor takes frames of this type."""
        return any(handler_for(type(p), frame_type, tap=False) is not None for p in self.chain)

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(type(p).__name__ for p in self.chain)})"
