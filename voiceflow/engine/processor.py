"""Processor: one building block of a pipeline, and the two decorators that say which frames it handles.

    class Shout(Processor):
        @on(Token)
        def shout(self, token: Token) -> Token:
            return replace(token, text=token.text.upper())

Three things to know:

1. A frame visits only the processors that handle its type; all others it passes at no cost.
2. What a handler returns goes on: the frame, another, several (`yield`), or nothing. `@tap(T)` only looks.
3. `def` looks, `async def` waits. A `def` or a plain generator runs in line, in microseconds. An `async
   def` or an async generator runs in the processor's own runner, in order, from a bounded inbox: one
   runner for the caller's frames, one for control frames and one for each reply, so that the caller never
   waits for the agent and a dead reply takes its runner with it.
"""

from __future__ import annotations

import asyncio
import dis
import enum
import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from voiceflow.errors import CallError, DeclarationError
from voiceflow.frames import AgentFrame, CallerFrame, ControlFrame, Frame

if TYPE_CHECKING:
    from voiceflow.call import Call
    from voiceflow.engine.keeper import TurnKeeper
    from voiceflow.engine.pump import Pump
    from voiceflow.tools.tool import Tool
    from voiceflow.vendor import Key

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)
_MARK = "__voiceflow_handles__"


class Kind(enum.IntEnum):
    """How a handler runs. The first two in line, the others in a runner."""

    PLAIN = 0
    GENERATOR = 1
    COROUTINE = 2
    ASYNC_GENERATOR = 3


@dataclass(slots=True, frozen=True)
class Handles:
    """What a decorator says about one method."""

    types: tuple[type[Frame], ...]
    tap: bool
    stops: bool = False
    method: str = ""
    kind: Kind = Kind.PLAIN


def on(*types: type[Frame], stops: bool = False) -> Callable[[H], H]:
    """Handles frames of these types and their subclasses; the most specific handler wins.

    What the method returns or yields goes on in the frame's place. A method that never returns a value
    is refused when the class is made, because a forgotten `return` would mute the call; say `stops=True`
    when the frame is meant to end here. Control frames cannot be stopped: a handler for them looks, and
    what it returns is ignored.

    Raises DeclarationError when used without a frame type.
    """
    return _mark(types, tap=False, stops=stops)


def tap(*types: type[Frame]) -> Callable[[H], H]:
    """Looks at frames of these types. The frame goes on at once, before an `async` tap has even begun."""
    return _mark(types, tap=True, stops=True)


def _mark(types: tuple[type[Frame], ...], *, tap: bool, stops: bool) -> Callable[[H], H]:
    word = "tap" if tap else "on"
    if not types or not all(isinstance(t, type) and issubclass(t, Frame) for t in types):
        raise DeclarationError(f"@{word} needs frame types: @{word}(Token)")

    def decorate(method: H) -> H:
        kind = _kind(method)
        name = getattr(method, "__qualname__", repr(method))
        if tap and kind in (Kind.GENERATOR, Kind.ASYNC_GENERATOR):
            raise DeclarationError(f"{name} yields, but @tap only looks: use @on, or self.push(frame)")
        control = all(issubclass(t, ControlFrame) for t in types)
        if not stops and not control and kind in (Kind.PLAIN, Kind.COROUTINE) and _returns_nothing(method):
            raise DeclarationError(
                f"{name} never returns a frame, so every {types[0].__name__} would end there: return it, "
                f"use @tap({types[0].__name__}) to look only, or say @on(..., stops=True)"
            )
        setattr(method, _MARK, (types, tap, stops))
        return method

    return decorate


def _kind(method: Handler) -> Kind:
    if inspect.isasyncgenfunction(method):
        return Kind.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(method):
        return Kind.COROUTINE
    return Kind.GENERATOR if inspect.isgeneratorfunction(method) else Kind.PLAIN


def _returns_nothing(method: Handler) -> bool:
    """Whether the method returns, and every `return` of it gives None, read from its bytecode."""
    if not isinstance(method, FunctionType):
        return False
    returns = False
    before = None
    for instruction in dis.get_instructions(method):
        if instruction.opname == "RETURN_CONST":
            returns = True
            if instruction.argval is not None:
                return False
        elif instruction.opname == "RETURN_VALUE":
            returns = True
            # A return that is jumped to has another value to give: `return a if ok else None`.
            none = before is not None and before.opname == "LOAD_CONST" and before.argval is None
            if instruction.is_jump_target or not none:
                return False
        before = instruction
    return returns


class Processor:
    """The base of all building blocks. One instance serves one call: make it inside `pipeline(call)`."""

    needs: ClassVar[tuple[type[Frame], ...]] = ()
    """Frame types that must be made somewhere in the chain. Without it, one of the handled types must be."""
    wants: ClassVar[tuple[type[Frame], ...]] = ()
    """Frame types that it can do without. Whoever makes them, if anybody does, has to stand before it."""
    emits: ClassVar[tuple[type[Frame], ...]] = ()
    """Frame types that come out besides those that handlers take and pass on."""
    pushes: ClassVar[tuple[type[AgentFrame], ...]] = ()
    """Agent frames that come from a background task, as from a text-to-speech socket. A processor that
    has them must take ReplyEnd and give it again after its last output, or ReplyEnd would overtake it."""
    takes_turns: ClassVar[bool] = False
    """This processor is the turn's authority: it calls `self.turns`. One per pipeline."""
    alone: ClassVar[bool] = False
    """A second one of it in a chain is a mistake."""
    start_timeout: ClassVar[float] = 10.0
    """Seconds that `start` may take."""
    stop_timeout: float = 5.0
    """Seconds that `stop` may take, and that a cancelled handler's clean-up may take."""
    inbox_mark: ClassVar[int] = 256
    """Frames in an inbox above which whoever fills it is held."""
    inbox_bound: ClassVar[int] = 4096
    """Frames in an inbox above which the oldest caller audio is dropped, or the call ends."""

    keys: tuple[Key, ...] = ()
    """Secrets it cannot work without, set in `__init__`; a missing one is told before a call is answered."""

    tools: tuple[Tool, ...] = ()
    """What a model may call through it, set in `__init__`."""

    handles: ClassVar[tuple[Handles, ...]] = ()
    """What the class handles; collected from the decorators."""

    _call: Call | None = None
    _pump: Pump | None = None
    _index: int = -1

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.handles = tuple(_collect(cls))
        for given in (*cls.needs, *cls.wants, *cls.emits, *cls.pushes):
            if not (isinstance(given, type) and issubclass(given, Frame)):
                raise DeclarationError(
                    f"{cls.__name__}: needs, wants, emits and pushes list frame types, not {given!r}"
                )

    # -- what a subclass may override

    async def warm(self) -> None:
        """Runs once per process, before the first call, on an instance that serves none: load models here,
        import what is slow to import, fill pools (`self.call.services` is what all calls share)."""

    async def start(self) -> None:
        """Runs before the first frame: connect sockets here. All processors start at the same time."""

    async def stop(self) -> None:
        """Runs once when the call is over, also after a failed start."""

    def figures(self) -> Mapping[str, float]:
        """What it has counted in this call, for the call's record: `{"requests": 3}`."""
        return {}

    # -- what a subclass may use

    @property
    def name(self) -> str:
        """How errors and logs name it: the class, with `#2` when a chain has it twice."""
        twins = [p for p in self._pump.chain if type(p) is type(self)] if self._pump else []
        return type(self).__name__ + (f"#{twins.index(self) + 1}" if len(twins) > 1 else "")

    @property
    def call(self) -> Call:
        """The call it serves. CallError before it belongs to one."""
        if self._call is None:
            raise CallError(
                f"{type(self).__name__} does not belong to a call yet: use self.call from start() on"
            )
        return self._call

    @property
    def turns(self) -> TurnKeeper:
        """Where the turn's authority gives its evidence. DeclarationError for anybody else."""
        if not self.takes_turns:
            raise DeclarationError(
                f"{self.name} is not the turn's authority: set takes_turns = True on its class"
            )
        return self.call.turns

    def push(self, frame: Frame) -> None:
        """Sends a frame from here. Never waits; for what a background task or a tap produces.

        An agent frame must name its reply, and its type must stand in `pushes` or `emits`; otherwise
        DeclarationError. A frame of a dead reply is dropped in silence.
        """
        self._bound().push(frame, self._index)

    async def put(self, frame: Frame) -> None:
        """`push`, then waits until the inboxes it overfilled are below their mark: for socket readers."""
        await self._bound().put(frame, self._index)

    def spawn(self, work: Coroutine[Any, Any, None], name: str = "task") -> asyncio.Task[None]:
        """Runs `work` until it ends or the call does. If it raises, the call ends naming this processor."""
        return self.call.spawn(work, name=name, owner=self)

    def fail(self, error: Exception) -> None:
        """Ends the call, naming this processor: for what goes wrong in a callback, where raising reaches
        nobody."""
        self._bound().fault(self, "the background", error)

    # -- used by the engine

    def _bound(self) -> Pump:
        if self._pump is None:
            raise CallError(f"{type(self).__name__} is not part of a pipeline: it cannot push frames")
        return self._pump

    def _bind(self, call: Call, pump: Pump, index: int) -> None:
        if self._pump is not None:
            raise DeclarationError(
                f"this {type(self).__name__} already serves a call: make a new one inside pipeline(call)"
            )
        self._call, self._pump, self._index = call, pump, index


def _collect(cls: type[Processor]) -> list[Handles]:
    """The handlers of a class. A subclass's handler replaces its base's for the same type; two in one
    class body are ambiguous."""
    found: dict[tuple[type[Frame], bool], str] = {}
    stopping: dict[str, bool] = {}
    for base in reversed(cls.__mro__):
        here: dict[tuple[type[Frame], bool], str] = {}
        for method, function in vars(base).items():
            overridden = [key for key, name in found.items() if name == method]
            if overridden and not hasattr(function, _MARK):
                raise DeclarationError(
                    f"{base.__name__}.{method} overrides a handler of {overridden[0][0].__name__} without a "
                    f"decorator, so it would never be called: write @on or @tap above it, or rename it"
                )
            for key in overridden:
                del found[key]
            if (mark := getattr(function, _MARK, None)) is None:
                continue
            types, is_tap, stops = mark
            for frame_type in types:
                key = (frame_type, is_tap)
                if key in here:
                    raise DeclarationError(
                        f"{cls.__name__} handles {frame_type.__name__} twice: in {here[key]} and in {method}"
                    )
                here[key] = method
                stopping[method] = stops
        found.update(here)
    methods: dict[tuple[str, bool], list[type[Frame]]] = {}
    for (frame_type, is_tap), method in found.items():
        methods.setdefault((method, is_tap), []).append(frame_type)
    return [
        Handles(tuple(types), is_tap, stopping[method], method, _kind(getattr(cls, method)))
        for (method, is_tap), types in methods.items()
    ]


def handler_for(cls: type[Processor], frame_type: type[Frame], *, tap: bool) -> Handles | None:
    """The handler of `cls` for a concrete frame type, by the frame's own MRO: the nearest type wins.

    Raises DeclarationError when two handlers are equally near (a frame with two handled bases, neither
    of which is the other's subclass).
    """
    by_type = {t: h for h in cls.handles if h.tap is tap for t in h.types}
    matching = [t for t in frame_type.__mro__ if t in by_type]
    if not matching:
        return None
    for other in matching[1:]:
        if not issubclass(matching[0], other) and by_type[other] is not by_type[matching[0]]:
            raise DeclarationError(
                f"{cls.__name__} has two handlers for {frame_type.__name__}, by {matching[0].__name__} and "
                f"by {other.__name__}: add one for {frame_type.__name__} itself"
            )
    return by_type[matching[0]]


__all__ = ["CallerFrame", "Handles", "Kind", "Processor", "handler_for", "on", "tap"]
