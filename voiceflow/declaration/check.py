"""The declaration check: what a chain can be known to do wrong before a call is answered.

It reads only the classes: what they handle (`@on`, `@tap`), `needs`, `emits`, `pushes`, `takes_turns`. Where
they stand to each other: `places.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from voiceflow.declaration.places import BY_AUTHORITY, check_places, unseen
from voiceflow.engine.processor import Processor, handler_for
from voiceflow.errors import DeclarationError
from voiceflow.frames import (
    AgentFrame,
    CallEnd,
    CallStart,
    Fault,
    Frame,
    Interrupt,
    ReplyEnd,
    Sentence,
    Way,
)
from voiceflow.line.sink import LineSink
from voiceflow.line.source import LineSource
from voiceflow.vendor import MissingKeys

BY_ENGINE: tuple[type[Frame], ...] = (CallStart, CallEnd, Fault, Interrupt)
"""Made by the engine, seen everywhere."""
BY_PROGRAM: tuple[type[Frame], ...] = (Sentence, ReplyEnd)
"""Made by `call.say()` at the top of the chain. They count as made only where no processor speaks by itself:
between a language model and a voice they would hide that the sentence aggregator is missing."""


def check(chain: Sequence[Processor], *, parts: bool = False) -> list[str]:
    """Raises DeclarationError for the first thing that cannot work; returns what is only suspicious."""
    if not chain:
        raise DeclarationError("the pipeline is empty: Pipeline(call.source(), ..., call.sink())")
    if not parts:
        _check_ends(chain)
    _check_authority(chain)
    for index, processor in enumerate(chain):
        _check_reply_end(processor, last=index == len(chain) - 1)
        if not parts:
            _check_needs(chain, index)
    if not parts:
        check_places(chain)
    return _suspicions(chain)


def check_keys(chain: Sequence[Processor]) -> None:
    """Raises MissingKeys naming every key that the chain needs and nobody gave. Not part of `check`: a chain
    can be drawn and looked at without an account."""
    missing = {key.variable: key for processor in chain for key in processor.keys if not key}
    if missing:
        raise MissingKeys(list(missing.values()))


def _check_ends(chain: Sequence[Processor]) -> None:
    if not isinstance(chain[0], LineSource):
        raise DeclarationError(
            f"the pipeline begins with {_name(chain[0])}, so no call reaches it: put call.source() first"
        )
    if not isinstance(chain[-1], LineSink):
        raise DeclarationError(
            f"the pipeline ends with {_name(chain[-1])}, so the caller hears nothing: put call.sink() last"
        )
    for processor in chain[1:-1]:
        if isinstance(processor, LineSource | LineSink):
            end = "first" if isinstance(processor, LineSource) else "last"
            raise DeclarationError(
                f"{_name(processor)} stands in the middle of the pipeline: it belongs {end}"
            )


def _check_authority(chain: Sequence[Processor]) -> None:
    claims = [_name(p) for p in chain if p.takes_turns]
    if len(claims) > 1:
        raise DeclarationError(
            f"{' and '.join(claims)} both decide whose turn it is: keep one of them "
            "(a speech recogniser that ends turns itself needs no VADTurns)"
        )


def _check_reply_end(processor: Processor, *, last: bool) -> None:
    cls = type(processor)
    handled = handler_for(cls, ReplyEnd, tap=False)
    gives = any(issubclass(t, ReplyEnd) for t in (*cls.emits, *cls.pushes))
    if cls.pushes and not (handled and gives):
        raise DeclarationError(
            f"{_name(processor)} pushes {_names(cls.pushes)} from a background task, so ReplyEnd would "
            "overtake them: let it take ReplyEnd with @on(ReplyEnd, stops=True) and push ReplyEnd after its "
            "last output"
        )
    if handled is not None and handled.stops and not gives and not last:
        raise DeclarationError(
            f"{_name(processor)} takes ReplyEnd and never gives it again, so the reply would never be over: "
            "return it, or add ReplyEnd to its `emits` and push it after the last output"
        )


def _check_needs(chain: Sequence[Processor], index: int) -> None:
    processor = chain[index]
    cls = type(processor)
    for needed in cls.needs:
        if not _made(chain, index, needed):
            raise DeclarationError(_missing(chain, index, needed))
    handled = [t for h in cls.handles for t in h.types]
    if not cls.needs and handled and not any(_made(chain, index, t) for t in handled):
        raise DeclarationError(_missing(chain, index, handled[0]))


def _made(chain: Sequence[Processor], index: int, wanted: type[Frame]) -> bool:
    """Whether a frame of this type can reach the processor at `index`."""
    if not _speaks(chain[:index]) and (wanted in BY_PROGRAM or isinstance(chain[index], LineSink)):
        return True  # a chain that only listens, or says only what the program tells it to
    if wanted in (Frame, AgentFrame) or any(issubclass(t, wanted) for t in BY_ENGINE):
        return True
    if any(p.takes_turns for p in chain[:index]) and any(issubclass(t, wanted) for t in BY_AUTHORITY):
        return True
    makers = list(chain[:index]) if wanted.way is not Way.UP else []
    if wanted.way is not Way.DOWN:
        makers += chain[index + 1 :]
    return any(issubclass(t, wanted) for p in makers for t in (*type(p).emits, *type(p).pushes))


def _speaks(chain: Sequence[Processor]) -> bool:
    """Whether any of these processors makes agent frames."""
    return any(issubclass(t, AgentFrame) for p in chain for t in (*type(p).emits, *type(p).pushes))


def _missing(chain: Sequence[Processor], index: int, needed: type[Frame]) -> str:
    where = "downstream" if needed.way is Way.UP else "upstream"
    later = next((p for i, p in enumerate(chain) if i > index and needed in type(p).emits), None)
    message = f"{_name(chain[index])} needs {needed.__name__}, but nothing {where} of it makes any: "
    if later is not None and where == "upstream":
        return message + f"{_name(later)} does, so put it before {_name(chain[index])}"
    if needed in BY_AUTHORITY and (turner := next((p for p in chain[index:] if p.takes_turns), None)):
        return message + f"{_name(turner)} decides the turns, so put it before {_name(chain[index])}"
    what = needed.made_by or f"a processor whose `emits` has {needed.__name__}"
    return message + f"insert {what}" + (f" before {_name(chain[index])}" if where == "upstream" else "")


def _suspicions(chain: Sequence[Processor]) -> list[str]:
    """Frames that some processor makes and nobody takes, or takes and stands too early for."""
    found = []
    if isinstance(chain[-1], LineSink) and not _speaks(chain[:-1]):
        found.append("nothing in this chain speaks: the caller hears nothing")
    for index, processor in enumerate(chain):
        for made in dict.fromkeys(type(processor).emits):
            takers = chain[index + 1 :] if made.way is Way.DOWN else chain
            taken = any(
                issubclass(made, t) or issubclass(t, made)
                for p in takers
                for h in type(p).handles
                for t in h.types
            )
            if not taken and made.way is Way.DOWN and issubclass(made, AgentFrame):
                found.append(f"nothing after {_name(processor)} takes its {made.__name__}")
    return [*found, *unseen(chain)]


def _name(processor: Processor) -> str:
    return type(processor).__name__


def _names(types: Sequence[type[Frame]]) -> str:
    return ", ".join(t.__name__ for t in types)
