"""Where processors stand to each other: what is in the wrong place, or there twice.

It reads the classes (`wants`, `alone`, what they handle and make), and whose methods the tools are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from voiceflow.engine.processor import Processor, handler_for
from voiceflow.errors import DeclarationError
from voiceflow.frames import (
    AgentFrame,
    AudioOut,
    DraftEnd,
    DraftResumed,
    Frame,
    Prompt,
    Sentence,
    TurnEnd,
    TurnStart,
    Way,
)

BY_AUTHORITY: tuple[type[Frame], ...] = (TurnStart, DraftEnd, DraftResumed, TurnEnd, Prompt)
"""Made by the TurnKeeper at the position of the turn's authority."""


def check_places(chain: Sequence[Processor]) -> None:
    """Raises DeclarationError for the first processor that stands where it cannot do its work."""
    for index, processor in enumerate(chain):
        _check_alone(chain, processor)
        for wanted in type(processor).wants:
            _check_wanted(chain, index, wanted)
        _check_changed_prompts(chain, index)
        _check_tools(chain, processor)
    _check_spoken(chain)


def unseen(chain: Sequence[Processor]) -> Iterator[str]:
    """Processors that look for what is only made behind them, as somebody who comes too early."""
    for index, processor in enumerate(chain):
        late: dict[str, list[str]] = {}
        for frame in dict.fromkeys(t for handles in type(processor).handles for t in handles.types):
            if frame.way is Way.DOWN and not issubclass(frame, AgentFrame) and _before(chain, index, frame):
                late.setdefault(name_of(_before(chain, index, frame)[0]), []).append(frame.__name__)
        for maker, frames in late.items():
            yield (
                f"{name_of(processor)} stands before {maker} and does not see its {', '.join(frames)}: "
                f"put it behind {maker} if it should"
            )


def makes(processor: Processor, wanted: type[Frame]) -> bool:
    """Whether frames of this type come from this processor."""
    cls = type(processor)
    if cls.takes_turns and any(issubclass(t, wanted) for t in BY_AUTHORITY):
        return True
    return any(issubclass(t, wanted) for t in (*cls.emits, *cls.pushes))


def name_of(processor: Processor) -> str:
    return type(processor).__name__


def _before(chain: Sequence[Processor], index: int, wanted: type[Frame]) -> list[Processor]:
    """Those that make such frames, if the processor at `index` stands before all of them."""
    if any(makes(p, wanted) for p in chain[:index]):
        return []
    return [p for p in chain[index + 1 :] if makes(p, wanted)]


def _check_alone(chain: Sequence[Processor], processor: Processor) -> None:
    cls = next((c for c in type(processor).__mro__ if "alone" in vars(c)), Processor)
    if processor.alone and sum(isinstance(p, cls) for p in chain) > 1:
        raise DeclarationError(
            f"{cls.__name__} stands twice in the pipeline, and both would do the same work: keep one of them"
        )


def _check_wanted(chain: Sequence[Processor], index: int, wanted: type[Frame]) -> None:
    if makers := _before(chain, index, wanted):
        name, maker = name_of(chain[index]), name_of(makers[0])
        raise DeclarationError(
            f"{name} stands before {maker}, so it does not see its {wanted.__name__}: "
            f"put {name} behind {maker}"
        )


def _check_changed_prompts(chain: Sequence[Processor], index: int) -> None:
    """Who adds to a Prompt stands before who answers it."""
    processor = chain[index]
    adds = handler_for(type(processor), Prompt, tap=False) is not None and not _answers(processor)
    if not adds or any(map(_answers, chain[index + 1 :])):
        return
    if answerer := next(filter(_answers, chain[:index]), None):
        name, model = name_of(processor), name_of(answerer)
        raise DeclarationError(
            f"{name} takes Prompt, but stands behind {model}, which answers them: put {name} before {model}"
        )


def _answers(processor: Processor) -> bool:
    cls = type(processor)
    made = [t for t in (*cls.emits, *cls.pushes) if issubclass(t, AgentFrame) and t is not Prompt]
    return bool(made) and handler_for(cls, Prompt, tap=False) is not None


def _check_spoken(chain: Sequence[Processor]) -> None:
    """Behind who adds Sentences to those of others somebody has to speak them. (What makes them all alone is
    told as what nobody takes.)"""
    last = max((i for i, p in enumerate(chain) if _adds_sentences(p)), default=len(chain))
    if last == len(chain) or any(map(_speaks, chain[last:])):
        return
    name = name_of(chain[last])
    if voice := next(filter(_speaks, chain[:last]), None):
        raise DeclarationError(
            f"{name} stands behind {name_of(voice)}, so nobody speaks its Sentence: put {name} before "
            f"{name_of(voice)}"
        )
    raise DeclarationError(f"nobody speaks the Sentence of {name}: insert a text-to-speech behind it")


def _adds_sentences(processor: Processor) -> bool:
    takes = handler_for(type(processor), Sentence, tap=False) is not None
    return takes and makes(processor, Sentence) and not _answers(processor)  # a model may have a voice


def _speaks(processor: Processor) -> bool:
    """Whether it makes audio of Sentences or of its own, and does not just pass on that of others."""
    return makes(processor, AudioOut) and not _adds_sentences(processor)


def _check_tools(chain: Sequence[Processor], processor: Processor) -> None:
    """The method of a processor is of no use as a tool while that one has no call."""
    for tool in processor.tools:
        owner = getattr(tool.function, "__self__", None)
        if isinstance(owner, Processor) and not any(p is owner for p in chain):
            raise DeclarationError(
                f"{name_of(processor)} offers {tool.name}, a tool of a {name_of(owner)} that is not in the "
                f"pipeline: put that {name_of(owner)} into it"
            )
