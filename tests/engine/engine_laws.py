"""What must always hold, as code that asserts it: for the reducer and for the pump.

The property tests hand these laws random lives; `test_planted_defects.py` hands them broken engines and
sees them fail.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from voiceflow.engine import inbox, pump, turns
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.reply import Reply
from voiceflow.engine.turns import (
    Doubt,
    DoubtConfirmed,
    DoubtDismissed,
    DoubtDropped,
    EagerEnd,
    Floor,
    Hold,
    HoldAsked,
    HoldReleased,
    Judged,
    Kill,
    Open,
    Promote,
    ProtectionOver,
    Release,
    ReplyOver,
    ReplyStopped,
    Resumed,
    Retire,
    SayAsked,
    SpeechDoubted,
    SpeechEnded,
    SpeechKept,
    SpeechStarted,
    TurnBegan,
    TurnDrafted,
    TurnFinished,
    TurnResumed,
    Turns,
    WordsKept,
    joined,
)
from voiceflow.frames import AgentFrame, CallerFrame, ControlFrame, Frame, Interrupt, ReplyEnd
from voiceflow.testing.rig import Rig

# -- the reducer --------------------------------------------------------------------------------------

Reduce = Callable[[Turns, turns.Evidence], turns.Step]


@dataclass
class TurnsLaw:
    """Believes only actions: replays them as the TurnKeeper would and compares with the state."""

    replies: dict[int, str] = field(default_factory=dict)
    """Number -> draft, live, held or over."""
    turn: int = 0
    turn_open: bool = False
    doubt: Doubt = Doubt.NONE
    kept: str | None = None
    """What was said and not yet answered."""

    def alive(self, *states: str) -> list[int]:
        return [number for number, state in self.replies.items() if state in states]

    def copy(self) -> TurnsLaw:
        return replace(self, replies=dict(self.replies))

    def step(self, before: Turns, evidence: turns.Evidence, reduce: Reduce) -> Turns:
        after, actions = reduce(before, evidence)
        assert (after, actions) == reduce(before, evidence), "not a pure function"
        assert actions or after == before, f"{evidence} changed the state in silence"
        said = joined(before.kept, getattr(evidence, "text", ""))
        for action in actions:
            self._act(action, evidence, said)
        self._compare(after)
        self._promise(before, evidence, after, actions, said)
        return after

    def _act(self, action: turns.Action, evidence: turns.Evidence, said: str) -> None:
        match action:
            case TurnBegan(turn):
                assert not self.turn_open, "a turn began inside a turn"
                assert turn == self.turn + 1
                self.turn, self.turn_open, self.doubt = turn, True, Doubt.NONE
            case TurnDrafted(turn, text):
                assert self.turn_open
                assert turn == self.turn
                assert isinstance(evidence, EagerEnd)
                assert text == said
            case TurnResumed(turn):
                assert self.turn_open
                assert turn == self.turn
            case TurnFinished(turn, text):
                assert self.turn_open, "a turn finished twice, or never began"
                assert turn == self.turn
                assert text == (said if isinstance(evidence, SpeechEnded) else self.kept), "words were lost"
                self.turn_open, self.kept = False, None
            case Judged(doubt, text):
                assert doubt is not self.doubt
                assert not text or isinstance(evidence, DoubtDropped)
                self.doubt = doubt
            case WordsKept(text):
                assert self.doubt is Doubt.KEPT
                assert isinstance(evidence, SpeechEnded)
                self.doubt, self.kept = Doubt.NONE, joined(self.kept, text)
            case Open(number, draft, text, prompted):
                assert number == max(self.replies, default=0) + 1, "numbers count up"
                assert not self.alive("draft", "live", "held"), "Kill comes before Open"
                assert draft is self.turn_open, "a draft belongs to a turn that may be over"
                assert prompted is not isinstance(evidence, SayAsked)
                assert not prompted or text == said
                self.replies[number] = "draft" if draft else "live"
            case Promote(number):
                assert self.replies[number] == "draft"
                assert not self.alive("live", "held")
                assert not self.turn_open
                self.replies[number] = "live"
            case Kill(number, reason):
                assert self.replies[number] in ("draft", "live", "held"), "killed twice, or after its end"
                assert reason
                self.replies[number] = "over"
            case Hold(number):
                assert self.replies[number] == "live"
                self.replies[number] = "held"
            case Release(number):
                assert self.replies[number] == "held"
                self.replies[number] = "live"
            case Retire(number):
                assert self.replies[number] in ("live", "held")
                self.replies[number] = "over"
            case _:
                raise AssertionError(f"unknown action {action}")

    def _compare(self, state: Turns) -> None:
        assert self.alive("live", "held") == ([] if state.live is None else [state.live]), "rule 1"
        assert self.alive("draft") == ([] if state.draft is None else [state.draft]), "rule 1"
        assert self.turn_open is (state.floor is not Floor.FREE), "rule 5"
        assert state.floor is Floor.FREE or state.live is None, "rule 2"
        assert (state.draft is not None) is (state.floor is Floor.MAYBE_DONE), "rule 3"
        assert state.held is bool(self.alive("held")), "rule 4"
        assert not state.held or state.floor is Floor.FREE, "rule 4"
        assert state.turn == self.turn, "rule 6"
        assert state.last_reply == max(self.replies, default=0), "rule 6"
        assert state.draft is not None or not state.draft_text
        assert state.doubt is self.doubt
        doubted = state.doubt is not Doubt.NONE
        assert not doubted or (state.floor is Floor.FREE and state.live is not None), "rule 7"
        assert state.kept == self.kept
        assert state.kept is None or state.live is not None or state.floor is not Floor.FREE, "rule 8"
        kept = state.kept is not None or state.doubt is Doubt.KEPT
        assert not (kept and state.held), "what may not be interrupted is held"

    def _promise(
        self,
        before: Turns,
        evidence: turns.Evidence,
        after: Turns,
        actions: tuple[turns.Action, ...],
        said: str,
    ) -> None:
        """What each piece of evidence must lead to, in whatever state it comes."""
        untouched = (after.live, after.draft, after.floor) == (before.live, before.draft, before.floor)
        doubted = before.doubt is not Doubt.NONE
        match evidence:
            case SpeechStarted():
                assert after.floor is Floor.SPEAKING
                assert not self.alive("draft", "live", "held"), "somebody still talks over the caller"
            case SpeechDoubted():
                begins = before.live is None or before.kept is not None
                assert doubted or after.floor is (Floor.SPEAKING if begins else Floor.FREE)
            case SpeechKept():
                assert after.live == before.live, "it was not kept"
                assert after.doubt is Doubt.KEPT or after.floor is Floor.SPEAKING
            case DoubtConfirmed():
                assert untouched if not doubted else after.floor is Floor.SPEAKING
            case DoubtDismissed() | DoubtDropped():
                assert untouched
                assert after.held is (before.held and actions == ())
                assert not isinstance(evidence, DoubtDropped) or after.doubt is Doubt.NONE
                assert after.kept == before.kept
            case ProtectionOver():
                assert untouched or before.kept is not None
                assert after.kept is None or after.floor is not Floor.FREE
            case SpeechEnded() if before.doubt is Doubt.KEPT:
                assert untouched
                assert after.kept == said
            case SpeechEnded():
                assert after.floor is Floor.FREE
                assert after.live is not None, "the caller is not answered"
                promoted = Promote(after.live) in actions
                assert promoted or Open(after.live, False, said) in actions
                assert not promoted or before.draft_text == said, "the draft answers other words"
            case EagerEnd() if doubted:
                assert after == before
            case EagerEnd():
                assert after.floor is Floor.MAYBE_DONE
                assert after.draft_text == said
            case ReplyOver(number):
                assert actions[:1] == ((Retire(number),) if number == before.live else ())
                assert number != before.live or after.doubt is Doubt.NONE
            case ReplyStopped():
                assert after.live is None or before.kept is not None
                assert after.draft == before.draft
                assert after.floor is (Floor.SPEAKING if doubted else before.floor)
            case SayAsked():
                free = before.floor is Floor.FREE and before.live is None
                assert bool(actions) is free
            case Resumed():
                assert after.floor is not Floor.MAYBE_DONE
            case HoldAsked() | HoldReleased():
                assert untouched


def all_evidence(state: Turns) -> list[turns.Evidence]:
    """Everything that can happen in a state: two texts, and reply numbers right, stale and unheard-of."""
    numbers = {state.live, state.draft, state.last_reply, state.last_reply - 1, state.last_reply + 1, 0}
    return [
        SpeechStarted(),
        SpeechDoubted(),
        SpeechKept(),
        DoubtConfirmed(),
        DoubtDismissed(),
        DoubtDropped("a"),
        ProtectionOver(),
        EagerEnd("a"),
        EagerEnd("b"),
        EagerEnd(""),
        Resumed(),
        SpeechEnded("a"),
        SpeechEnded("b"),
        SpeechEnded(""),
        SayAsked(),
        HoldAsked(),
        HoldReleased(),
        *(ReplyOver(number) for number in sorted(n for n in numbers if n is not None)),
        ReplyStopped("the program"),
    ]


def shape(state: Turns) -> tuple[Any, ...]:
    """A state with its labels taken off. Two states of one shape behave alike (rule 6). Kept words are a
    label too: they stand before all that is said, in a draft as well."""
    live = None if state.live is None else state.last_reply - state.live
    draft = None if state.draft is None else state.last_reply - state.draft
    text = state.draft_text.removeprefix(state.kept or "").strip()
    return state.floor, live, state.held, draft, text, state.doubt, state.kept is not None


def explore_turns(reduce: Reduce = turns.reduce, *, depth: int = 50) -> tuple[int, int]:
    """Walks breadth first over every shape that can be reached. Returns (shapes, deepest new shape)."""
    seen = {shape(Turns())}
    edge = deque([(Turns(), TurnsLaw(), 0)])
    deepest = 0
    while edge:
        state, law, level = edge.popleft()
        for evidence in all_evidence(state):
            branch = law.copy()
            after = branch.step(state, evidence, reduce)
            if shape(after) not in seen and level < depth:
                seen.add(shape(after))
                deepest = max(deepest, level + 1)
                edge.append((after, branch, level + 1))
    return len(seen), deepest


# -- the pump -----------------------------------------------------------------------------------------

Seq = tuple[int, ...]


@dataclass(slots=True)
class A(AgentFrame):
    seq: Seq


@dataclass(slots=True)
class B(A):
    """A subclass, so that a handler of A takes it when there is none for B."""


@dataclass(slots=True)
class C(CallerFrame):
    seq: Seq
    stream: int = -1
    """The position it was pushed from. Streams keep their own order."""


@dataclass(slots=True)
class D(C):
    pass


@dataclass(slots=True)
class Ping(ControlFrame):
    number: int


OTHER: dict[type[Frame], type[Frame]] = {A: B, B: A, C: D, D: C}
PLAIN, GENERATOR, COROUTINE, ASYNC_GENERATOR = "def", "def yield", "async def", "async def yield"
KINDS = (PLAIN, GENERATOR, COROUTINE, ASYNC_GENERATOR)
OPS = ("pass", "copy", "turn", "drop", "push", "fan")


@dataclass(frozen=True)
class Behaviour:
    """One handler: its kind, what it does to a frame, how long it takes (virtual seconds)."""

    kind: str = PLAIN
    op: str = "pass"
    width: int = 2
    before: float = 0.0
    between: float = 0.0
    cleanup: float = 0.0
    stops_reply_at: int = -1
    """Asks the TurnKeeper to stop the live reply when it handles this frame of a reply."""

    def gives(self, frame_type: type[Frame], seq: Seq) -> list[tuple[type[Frame], Seq]]:
        """What it makes of a frame, in order. The model that the pump is compared with."""
        other = OTHER.get(frame_type, frame_type)
        if self.op == "turn":
            return [(other, seq)]
        if self.op == "drop":
            return [] if sum(seq) % 3 == 0 else [(frame_type, seq)]
        if self.op == "push":
            return [(other, (*seq, 0)), (frame_type, (*seq, 1))]
        if self.op == "fan" and self.kind in (GENERATOR, ASYNC_GENERATOR):
            return [(frame_type, (*seq, i)) for i in range(self.width)]
        return [(frame_type, seq)]


@dataclass(frozen=True)
class Block:
    """One processor of a chain. `handles` by frame type; `taps` look; `socket`: what it takes goes
    through a queue and a background task, as with a vendor's socket; `control`: it handles Interrupt and
    Ping, in line or not."""

    handles: tuple[tuple[type[Frame], Behaviour], ...] = ()
    taps: tuple[tuple[type[Frame], Behaviour], ...] = ()
    socket: float | None = None
    control: str | None = None
    mark: int = 256

    def behaviour(self, frame_type: type[Frame]) -> Behaviour | None:
        by_type = dict(self.handles)
        return next((by_type[t] for t in frame_type.__mro__ if t in by_type), None)

    def gives(self, frame_type: type[Frame], seq: Seq) -> list[tuple[type[Frame], Seq]]:
        if self.socket is not None and issubclass(frame_type, A):
            return [(B, seq)]
        behaviour = self.behaviour(frame_type)
        return [(frame_type, seq)] if behaviour is None else behaviour.gives(frame_type, seq)


def expected(blocks: tuple[Block, ...], frame_type: type[Frame], seq: Seq) -> list[tuple[type[Frame], Seq]]:
    """What a frame has become at the end of the chain."""
    wave = [(frame_type, seq)]
    for block in blocks:
        wave = [given for each in wave for given in block.gives(*each)]
    return wave


@dataclass
class Seen:
    """What the handlers and the ends of one run saw."""

    dead: list[str] = field(default_factory=list)
    """Handlers that were entered with a frame of a dead reply."""
    orders: dict[tuple[int, str, Any], list[Seq]] = field(default_factory=dict)
    """Per handler and stream: the sequence numbers in the order they came."""

    def enter(self, processor: Processor, method: str, frame: Frame) -> None:
        reply = getattr(frame, "reply", None)
        if reply is not None and reply.dead:
            self.dead.append(f"{processor.name}.{method} saw {frame!r}")
        stream = reply if reply is not None else getattr(frame, "stream", -1)
        if (seq := getattr(frame, "seq", None)) is not None:
            self.orders.setdefault((processor._index, method, stream), []).append(seq)


def build(block: Block, seen: Seen) -> Processor:
    """A processor that behaves like the block. It reports everything it sees to `seen`."""
    body: dict[str, Any] = {"emits": (A, B, C, D), "inbox_mark": block.mark}
    for frame_type, behaviour in block.handles:
        name = f"on_{frame_type.__name__}"
        body[name] = on(frame_type, stops=True)(_handler(name, behaviour, seen))
    for frame_type, behaviour in block.taps:
        name = f"tap_{frame_type.__name__}"
        body[name] = tap(frame_type)(_tapper(name, behaviour, seen))
    if block.control is not None:
        body["on_control"] = on(Interrupt, Ping)(_control(block.control))
    if block.socket is not None:
        body.update(_socket(block.socket, seen))
    return type("Block", (Processor,), body)()


def _make(frame: Frame, frame_type: type[Frame], seq: Seq) -> Frame:
    if issubclass(frame_type, C):
        assert isinstance(frame, C)
        return frame_type(seq, frame.stream)
    assert issubclass(frame_type, A)
    return frame_type(seq)


def _outs(self: Processor, behaviour: Behaviour, frame: Any) -> list[Frame]:
    """The frames a handler gives. For "push" all but the last are pushed instead."""
    if isinstance(frame, ReplyEnd) or behaviour.op == "pass":
        return [frame]
    outs = [_make(frame, t, s) for t, s in behaviour.gives(type(frame), frame.seq)]
    if behaviour.op == "push":
        for out in outs[:-1]:
            if isinstance(out, AgentFrame):
                out.reply = frame.reply
            self.push(out)
        return outs[-1:]
    return outs


def _stop(self: Processor, behaviour: Behaviour, frame: Any) -> None:
    if isinstance(frame, A) and frame.seq[0] == behaviour.stops_reply_at:
        self.call.turns.stop("a handler asked for it")


def _handler(name: str, b: Behaviour, seen: Seen) -> Callable[..., Any]:
    def plain(self: Processor, frame: Any) -> Any:
        seen.enter(self, name, frame)
        _stop(self, b, frame)
        outs = _outs(self, b, frame)
        return outs[0] if outs else None

    def generator(self: Processor, frame: Any) -> Iterator[Frame]:
        seen.enter(self, name, frame)
        _stop(self, b, frame)
        yield from _outs(self, b, frame)

    async def coroutine(self: Processor, frame: Any) -> Any:
        seen.enter(self, name, frame)
        try:
            if b.before:
                await asyncio.sleep(b.before)
            _stop(self, b, frame)
            outs = _outs(self, b, frame)
            return outs[0] if outs else None
        finally:
            if b.cleanup:
                await asyncio.sleep(b.cleanup)

    async def async_generator(self: Processor, frame: Any) -> AsyncIterator[Frame]:
        seen.enter(self, name, frame)
        try:
            if b.before:
                await asyncio.sleep(b.before)
            _stop(self, b, frame)
            for out in _outs(self, b, frame):
                yield out
                if b.between:
                    await asyncio.sleep(b.between)
        finally:
            if b.cleanup:
                await asyncio.sleep(b.cleanup)

    return dict(zip(KINDS, (plain, generator, coroutine, async_generator), strict=True))[b.kind]


def _tapper(name: str, b: Behaviour, seen: Seen) -> Callable[..., Any]:
    def plain(self: Processor, frame: Any) -> None:
        seen.enter(self, name, frame)

    async def coroutine(self: Processor, frame: Any) -> None:
        seen.enter(self, name, frame)
        try:
            if b.before:
                await asyncio.sleep(b.before)
        finally:
            if b.cleanup:
                await asyncio.sleep(b.cleanup)

    return coroutine if b.kind in (COROUTINE, ASYNC_GENERATOR) else plain


def _control(kind: str) -> Callable[..., Any]:
    def plain(self: Processor, frame: Any) -> Any:
        return A((0,))  # what a handler of a control frame gives is ignored

    async def coroutine(self: Processor, frame: Any) -> Any:
        await asyncio.sleep(0.05)
        return frame

    return coroutine if kind == COROUTINE else plain


def _socket(delay: float, seen: Seen) -> dict[str, Any]:
    """Agent frames go into a queue; a background task gives them again, ReplyEnd too."""

    async def start(self: Any) -> None:
        self.queue = asyncio.Queue()

        async def reader() -> None:
            while True:
                frame = await self.queue.get()
                if delay:
                    await asyncio.sleep(delay)
                out = frame if isinstance(frame, ReplyEnd) else B(frame.seq, reply=frame.reply)
                await self.put(out)

        self.spawn(reader(), "reader")

    def take(self: Any, frame: Any) -> None:
        seen.enter(self, "take", frame)
        self.queue.put_nowait(frame)

    return {
        "start": start,
        "take": on(A, ReplyEnd, stops=True)(take),
        "pushes": (B, ReplyEnd),
    }


@dataclass
class Life:
    """A random life of a chain: blocks, and a script of (wait, what, how many)."""

    blocks: tuple[Block, ...]
    script: tuple[tuple[float, str, int], ...]
    tick: int = 256
    turn: int = 64


@dataclass
class Record:
    """Everything that came out of a life."""

    blocks: tuple[Block, ...]
    seen: Seen
    pushed: dict[Reply, list[A | ReplyEnd]]
    caller: list[tuple[float, int, C]]
    """(when it was pushed, from which position, the frame)."""
    out: list[tuple[float, Frame]]
    up: list[Frame]
    killed: list[Reply]
    pings: int
    inboxes: list[Any]
    """Keys of the inboxes that were left when everything was quiet."""
    fault: str | None


async def live(life: Life, make_rig: Callable[..., Rig] = Rig) -> Record:
    """Runs a life in virtual time and records it. Nothing is asserted here."""
    seen = Seen()
    kept = pump.FRAMES_A_TICK, inbox.FRAMES_A_TURN
    pump.FRAMES_A_TICK, inbox.FRAMES_A_TURN = life.tick, life.turn
    try:
        return await _live(life, seen, make_rig)
    finally:
        pump.FRAMES_A_TICK, inbox.FRAMES_A_TURN = kept


async def _live(life: Life, seen: Seen, make_rig: Callable[..., Rig]) -> Record:
    loop = asyncio.get_running_loop()
    processors = [build(block, seen) for block in life.blocks]
    rig = make_rig(*processors)
    out: list[tuple[float, Frame]] = []
    keep = type(rig.below).keep

    class Watching(type(rig.below)):  # type: ignore[misc]
        @on(Frame, stops=True)
        def keep(self, frame: Frame) -> None:
            out.append((loop.time(), frame))
            seen.enter(self, "below", frame)
            keep(self, frame)

    rig.below = Watching()
    pushed: dict[Reply, list[A | ReplyEnd]] = {}
    ended: set[Reply] = set()
    caller: list[tuple[float, int, C]] = []
    killed: list[Reply] = []
    pings = 0
    async with rig:
        keeper = rig.above.turns
        watched = keeper._watch.action

        def watch(action: turns.Action) -> None:
            if isinstance(action, Kill):
                killed.append(keeper._replies[action.reply])
            watched(action)

        keeper._watch.action = watch  # type: ignore[method-assign]
        for wait, what, number in life.script:
            if wait:
                await asyncio.sleep(wait)
            reply = keeper.live or keeper._replies.get(keeper.state.draft or 0)
            if what == "speak" and reply is not None and reply not in ended:
                frames = pushed.setdefault(reply, [])
                for _ in range(number):
                    frame = (A if len(frames) % 3 else B)((len(frames),), reply=reply)
                    frames.append(frame)
                    rig.push(frame)
            elif what == "finish" and reply is not None and reply not in ended:
                ended.add(reply)
                end = ReplyEnd(reply=reply)
                pushed.setdefault(reply, []).append(end)
                rig.push(end)
            elif what == "caller":
                for _ in range(number):
                    frame = (C if len(caller) % 2 else D)((len(caller),))
                    caller.append((loop.time(), -1, frame))
                    rig.push(frame)
            elif what == "middle":
                at = number % len(processors)
                frame = C((len(caller),), at)
                caller.append((loop.time(), at, frame))
                processors[at].push(frame)
            elif what == "ping":
                pings += 1
                rig.push(Ping(pings))
            elif what in ("started", "resumed", "hold", "unhold"):
                getattr(keeper, what)()
            elif what in ("ended", "may_be_over"):
                getattr(keeper, what)("ab"[number % 2])
            elif what == "stop":
                keeper.stop("the test")
        await asyncio.sleep(1000.0)
        assert rig.call._pump is not None
        inboxes = [key for by_key in rig.call._pump._inboxes for key in by_key]
        fault = rig.fault
    return Record(life.blocks, seen, pushed, caller, out, rig.up, killed, pings, inboxes, fault)


def check_life(record: Record) -> None:
    """Every law of the pump, over one recorded life."""
    assert record.fault is None
    assert not record.seen.dead, "a frame of a dead reply was seen"
    for (index, method, _), order in record.seen.orders.items():
        assert order == sorted(order), f"{method} at {index} saw its frames out of order"
    _check_agent(record)
    _check_caller(record)
    _check_control(record)
    dead = [key for key in record.inboxes if key in record.killed]
    assert not dead, "an inbox outlived its reply"


def _check_agent(record: Record) -> None:
    got: dict[Reply | None, list[Any]] = {}
    for _, frame in record.out:
        if isinstance(frame, A | ReplyEnd):
            got.setdefault(frame.reply, []).append(_key(frame))
    assert set(got) <= set(record.pushed), "a frame came out with a reply that nobody pushed"
    for reply, frames in record.pushed.items():
        due: list[Any] = []
        for frame in frames:
            due += (
                [ReplyEnd] if isinstance(frame, ReplyEnd) else expected(record.blocks, type(frame), frame.seq)
            )
        came = got.get(reply, [])
        assert came == due[: len(came)], f"{reply} came out in another order"
        assert reply in record.killed or len(came) == len(due), f"{reply} lost frames"


def _key(frame: A | ReplyEnd) -> Any:
    return ReplyEnd if isinstance(frame, ReplyEnd) else (type(frame), frame.seq)


def _check_caller(record: Record) -> None:
    got: dict[int, list[Any]] = {}
    for _, frame in record.out:
        if isinstance(frame, C):
            got.setdefault(frame.stream, []).append((type(frame), frame.seq))
    due: dict[int, list[Any]] = {}
    for _, at, frame in record.caller:
        due.setdefault(at, []).extend(expected(record.blocks[at + 1 :], type(frame), frame.seq))
    for stream in {*got, *due}:
        assert got.get(stream, []) == due.get(stream, []), f"caller frames from {stream} lost or reordered"
    of_caller = [b for block in record.blocks for t, b in (*block.handles, *block.taps) if issubclass(t, C)]
    if not any(b.before or b.between or b.cleanup for b in of_caller):
        pushed_at = {(at, frame.seq[0]): when for when, at, frame in record.caller}
        for when, frame in record.out:
            if isinstance(frame, C):
                assert when == pushed_at[frame.stream, frame.seq[0]], "a caller frame was delayed"


def _check_control(record: Record) -> None:
    for end, frames in (("below", [f for _, f in record.out]), ("above", record.up)):
        dead = [frame.dead for frame in frames if isinstance(frame, Interrupt)]
        assert dead == record.killed, f"Interrupts {end}"  # above is the turn's authority: it sees its own
    pings = [f.number for _, f in record.out if isinstance(f, Ping)]
    assert pings == list(range(1, record.pings + 1)), "control frames lost or reordered"
