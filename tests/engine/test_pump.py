"""The pump, the routes and the inboxes, by example."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest

from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine import pump as pump_module
from voiceflow.engine.buffers import Policy
from voiceflow.engine.mouth import HeardText
from voiceflow.engine.processor import Processor, handler_for, on, tap
from voiceflow.engine.routes import CALLER, Action
from voiceflow.errors import CallEnded, CallError, DeclarationError
from voiceflow.frames import (
    PHONE,
    AgentFrame,
    AudioIn,
    AudioOut,
    CallEnd,
    CallStart,
    ControlFrame,
    Dtmf,
    Fault,
    Frame,
    Interrupt,
    Prompt,
    ReplyEnd,
    Sentence,
    Token,
    Transcript,
    TurnStart,
)
from voiceflow.line.codec import LineStarted
from voiceflow.testing import run
from voiceflow.testing.line import MemoryCodec
from voiceflow.testing.links import ScriptedLink
from voiceflow.testing.rig import Rig


@dataclass(slots=True)
class Loud(Token):
    pass


@dataclass(slots=True)
class Louder(Loud):
    pass


def with_rig(*processors: Processor) -> Callable[[Callable[[Rig], Any]], None]:
    """Runs the decorated body at once, on a rig in virtual time."""

    def decorate(body: Callable[[Rig], Any]) -> None:
        async def main() -> None:
            async with Rig(*processors) as rig:
                await body(rig)

        run(main())

    return decorate


# -- routes


def test_the_most_specific_handler_wins_by_the_frames_mro() -> None:
    class Handles(Processor):
        @on(Token)
        def token(self, frame: Token) -> Token:
            return replace(frame, text="token")

        @on(Loud)
        def loud(self, frame: Loud) -> Loud:
            return replace(frame, text="loud")

        @on(Frame)
        def any(self, frame: Frame) -> Frame:
            return frame

    @with_rig(Handles())
    async def body(rig: Rig) -> None:
        reply = rig.reply()
        rig.push(Token("", reply=reply), Loud("", reply=reply), Louder("", reply=reply))
        rig.push(Sentence("sentence", reply=reply))
        assert rig.texts() == ["token", "loud", "loud", "sentence"]


def test_two_handlers_equally_near_are_refused() -> None:
    class Left(AgentFrame):
        __slots__ = ()

    class Right(AgentFrame):
        __slots__ = ()

    class Both(Left, Right):
        __slots__ = ()

    class Handles(Processor):
        @on(Left)
        def left(self, frame: Left) -> Left:
            return frame

        @on(Right)
        def right(self, frame: Right) -> Right:
            return frame

    with pytest.raises(DeclarationError, match="two handlers for Both, by Left and by Right"):
        handler_for(Handles, Both, tap=False)

    class Decided(Handles):
        @on(Both)
        def both(self, frame: Both) -> Both:
            return frame

    assert handler_for(Decided, Both, tap=False).method == "both"


def test_a_type_handled_twice_in_one_class_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(DeclarationError, match=r"handles Token twice: in one and in two"):

        class Twice(Processor):
            @on(Token)
            def one(self, frame: Token) -> Token:
                return frame

            @on(Sentence, Token)
            def two(self, frame: Token) -> Token:
                return frame


def test_a_frame_visits_only_who_handles_its_type() -> None:
    class Nothing(Processor):
        pass

    class Takes(Processor):
        @on(Token)
        def take(self, frame: Token) -> Token:
            return frame

        @tap(Token)
        def look(self, frame: Token) -> None:
            pass

    @with_rig(Nothing(), Takes(), Nothing())
    async def body(rig: Rig) -> None:
        stops = rig.call._pump.route(Token).stops()
        assert [(s.index, s.action) for s in stops] == [(2, Action.LOOK), (2, Action.CALL), (4, Action.CALL)]
        assert [s.index for s in rig.call._pump.route(Sentence).stops()] == [4]


def test_an_override_is_one_handler_and_a_subclass_adds_its_own() -> None:
    class Base(Processor):
        @on(Token)
        def take(self, frame: Token) -> Token:
            return replace(frame, text="base")

    class Override(Base):
        @on(Token)
        def take(self, frame: Token) -> Token:
            return replace(super().take(frame), text="override")

    class Other(Base):
        @on(Token)
        def other(self, frame: Token) -> Token:
            return replace(frame, text="other")

    for cls in (Override, Other):

        @with_rig(cls())
        async def body(rig: Rig, cls: type = cls) -> None:
            rig.push(Token("", reply=rig.reply()))
            assert rig.texts() == [cls.__name__.lower()]


# -- what the decorators refuse


def never_returns(self: Any, frame: Any) -> None:
    frame.text.upper()


def returns_none_twice(self: Any, frame: Any) -> None:
    if frame.text:
        return
    return


async def async_never_returns(self: Any, frame: Any) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("method", [never_returns, returns_none_twice, async_never_returns])
def test_a_forgotten_return_is_refused_unless_it_is_meant(method: Any) -> None:
    with pytest.raises(DeclarationError, match=r"never returns a frame, .*@tap\(Token\).*stops=True"):
        on(Token)(method)
    on(Token, stops=True)(method)
    on(Interrupt)(method)  # a control frame goes on whatever is returned


def test_returns_of_many_shapes_are_seen() -> None:
    def conditional(self: Any, frame: Any) -> Any:
        return frame if frame.text else None

    def late(self: Any, frame: Any) -> Any:
        if frame.text:
            return None
        return frame

    def tries(self: Any, frame: Any) -> Any:
        try:
            return frame
        finally:
            frame.text.upper()

    def matches(self: Any, frame: Any) -> Any:
        match frame.text:
            case "":
                return None
            case other:
                return [other]

    for method in (conditional, late, tries, matches, lambda self, frame: frame):
        on(Token)(method)


@pytest.mark.parametrize("decorator", [on, tap])
@pytest.mark.parametrize("types", [(), (int,), ("Token",), (Token, None)])
def test_decorators_need_frame_types(decorator: Any, types: tuple[Any, ...]) -> None:
    with pytest.raises(DeclarationError, match="needs frame types"):
        decorator(*types)


def test_a_tap_that_yields_is_refused() -> None:
    def looks(self: Any, frame: Any) -> Any:
        yield frame

    async def waits(self: Any, frame: Any) -> Any:
        yield frame

    for method in (looks, waits):
        with pytest.raises(DeclarationError, match="yields, but @tap only looks"):
            tap(Token)(method)


# -- what a handler gives


class Gives(Processor):
    """Gives what the test says."""

    emits = (Sentence,)

    def __init__(self, given: Any) -> None:
        self.given = given

    @on(Token)
    def give(self, frame: Token) -> Any:
        return self.given


class GivesLater(Gives):
    @on(Token)
    async def give(self, frame: Token) -> Any:
        return self.given


@pytest.mark.parametrize("cls", [Gives, GivesLater])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([Token("a")], "which is not a frame (to give several, yield them)"),
        ("text", "it gave 'text', which is not a frame"),
        (AudioOut(b""), "gave a AudioOut, which it does not declare: add AudioOut to its `emits`"),
        (Token, "which is not a frame"),
    ],
)
def test_what_may_not_be_given_ends_the_call_by_name(cls: type[Gives], given: Any, message: str) -> None:
    @with_rig(cls(given))
    async def body(rig: Rig) -> None:
        rig.push(Token("", reply=rig.reply()))
        await rig.settled()
        fault = rig.fault or ""
        assert fault.startswith(f"{cls.__name__} failed in give: ")
        assert message in fault


def test_frames_inherit_the_reply_of_the_handled_frame() -> None:
    @with_rig(Gives(Sentence("from a token")), GivesLater(None))
    async def body(rig: Rig) -> None:
        reply = rig.reply()
        rig.push(Token("", reply=reply))
        assert [f.reply for f in rig.got(Sentence)] == [reply]


def test_an_agent_frame_made_from_a_caller_frame_must_name_its_reply() -> None:
    class Answers(Processor):
        emits = (Token,)

        @on(Dtmf)
        def digit(self, frame: Dtmf) -> Token:
            return Token(frame.digit)

    @with_rig(Answers())
    async def body(rig: Rig) -> None:
        rig.push(Dtmf("5"))
        assert "a Token made from a Dtmf must name its reply" in (rig.fault or "")


def test_pushing_an_agent_frame_without_a_reply_or_undeclared_is_refused() -> None:
    class Pushes(Processor):
        emits = (Token,)

    @with_rig(Pushes())
    async def body(rig: Rig) -> None:
        [pushes] = rig.processors
        with pytest.raises(DeclarationError, match="pushed a Token without saying which reply"):
            pushes.push(Token(""))
        with pytest.raises(DeclarationError, match="gave a Sentence, which it does not declare"):
            pushes.push(Sentence("", reply=rig.reply()))
        pushes.push(Loud("a subclass is declared", reply=rig.reply()))
        assert rig.texts() == ["a subclass is declared"]


def test_a_processor_outside_of_a_pipeline_says_so() -> None:
    with pytest.raises(CallError, match="is not part of a pipeline"):
        Gives(None).push(Token(""))
    with pytest.raises(CallError, match="does not belong to a call yet"):
        _ = Gives(None).call


def test_one_instance_cannot_serve_two_calls() -> None:
    processor = Gives(None)

    async def main() -> None:
        async with Rig(processor):
            with pytest.raises(DeclarationError, match="already serves a call: make a new one inside"):
                Call(MemoryCodec()).prepare(Pipeline(processor, parts=True))

    run(main())


# -- order


def test_what_is_pushed_inside_a_handler_comes_before_what_it_returns() -> None:
    class Both(Processor):
        @on(Token)
        def both(self, frame: Token) -> Token:
            self.push(replace(frame, text=frame.text + " pushed"))
            return frame

    @with_rig(Both(), Both())
    async def body(rig: Rig) -> None:
        reply = rig.reply()
        rig.push(Token("a", reply=reply), Token("b", reply=reply))
        assert rig.texts() == [
            text
            for name in "ab"
            for text in (f"{name} pushed pushed", f"{name} pushed", f"{name} pushed", name)
        ]


class Waits(Processor):
    """An async processor that is busy with each Token for a second."""

    inbox_mark = 2
    inbox_bound = 10

    @on(Token)
    async def wait(self, frame: Token) -> Token:
        await asyncio.sleep(1)
        return frame


def test_a_frame_that_is_handled_in_line_does_not_overtake_what_waits_in_the_same_processor() -> None:
    """ReplyEnd with a `def` handler beside an `async def` for Token: it comes last all the same."""

    class Mixed(Waits):
        @on(ReplyEnd)
        def end(self, frame: ReplyEnd) -> ReplyEnd:
            return frame

        @on(Sentence)
        def sentence(self, frame: Sentence) -> Any:
            yield frame
            yield frame

    @with_rig(Mixed())
    async def body(rig: Rig) -> None:
        reply = rig.reply()
        rig.push(Token("a", reply=reply), Sentence("b", reply=reply), Token("c", reply=reply))
        rig.push(ReplyEnd(reply=reply))
        assert rig.out[1:] == []
        await asyncio.sleep(3)
        kinds = [type(f).__name__ for f in rig.out if isinstance(f, AgentFrame)]
        assert kinds == ["Token", "Sentence", "Sentence", "Token", "ReplyEnd"]


def test_a_frame_does_not_overtake_what_a_runner_has_given_but_a_tick_has_not_moved() -> None:
    """More frames than a tick moves: what the runner gave stands behind frames that are younger."""

    class Fans(Processor):
        emits = (Token, Sentence, AudioOut)

        @on(Prompt, stops=True)
        def fan(self, frame: Prompt) -> Any:
            yield Token("first")
            yield Sentence("second")
            yield from (AudioOut(b"") for _ in range(pump_module.FRAMES_A_TICK))
            yield Sentence("third")

    class AtOnce(Processor):
        @on(Token)
        async def at_once(self, frame: Token) -> Token:
            return frame

    @with_rig(Fans(), AtOnce())
    async def body(rig: Rig) -> None:
        rig.push(Prompt(reply=rig.reply()))
        await rig.settled()
        assert [text for text in rig.texts() if text] == ["first", "second", "third"]


def test_control_overtakes_caller_and_caller_overtakes_agent() -> None:
    seen: list[str] = []

    @dataclass(slots=True)
    class Ping(ControlFrame):
        pass

    class All(Processor):
        emits = (Ping, Transcript, Token, Sentence)

        @on(Sentence, stops=True)
        def burst(self, frame: Sentence) -> Any:
            yield Token("1")
            yield Token("2")
            yield Transcript("a")
            yield Ping()
            yield Transcript("b")
            yield Ping()

    class Sees(Processor):
        @tap(Ping, Transcript, Token)
        def see(self, frame: Any) -> None:
            seen.append(getattr(frame, "text", "ping"))

    @with_rig(All(), Sees())
    async def body(rig: Rig) -> None:
        rig.push(Sentence("", reply=rig.reply()))
        assert seen == ["ping", "ping", "a", "b"]  # the agent's follow a tick later: see Pump._drain
        await rig.settled()
        assert seen == ["ping", "ping", "a", "b", "1", "2"]


def test_a_flood_leaves_other_tasks_a_turn() -> None:
    class Floods(Processor):
        emits = (Token,)

        @on(Sentence, stops=True)
        def flood(self, frame: Sentence) -> Any:
            for _ in range(3000):
                yield Token("x")

    @with_rig(Floods())
    async def body(rig: Rig) -> None:
        rig.push(Sentence("", reply=rig.reply()))
        moved = []
        while not moved or moved[-1] < 3000:
            moved.append(len(rig.got(Token)))
            await asyncio.sleep(0)
        steps = [b - a for a, b in pairwise(moved)]
        assert moved[0] <= pump_module.FRAMES_A_TICK
        assert max(steps) <= pump_module.FRAMES_A_TICK
        rig.push(Dtmf("1"))
        assert rig.got(Dtmf)


def test_a_caller_frame_overtakes_a_flood_of_agent_frames() -> None:
    class Floods(Processor):
        emits = (Token,)

        @on(Sentence, stops=True)
        def flood(self, frame: Sentence) -> Any:
            for _ in range(3000):
                yield Token("x")

    @with_rig(Floods())
    async def body(rig: Rig) -> None:
        rig.push(Sentence("", reply=rig.reply()))
        rig.push(Dtmf("1"))
        await rig.settled(2)
        [digit] = rig.got(Dtmf)
        assert rig.out.index(digit) <= pump_module.FRAMES_A_TICK + 1


# -- bounds and back-pressure


def test_caller_audio_over_the_bound_drops_the_oldest_and_is_counted() -> None:
    class Slow(Processor):
        inbox_bound = 5

        @on(AudioIn, Dtmf)
        async def slow(self, frame: Any) -> Any:
            await asyncio.sleep(1)
            return frame

    @with_rig(Slow())
    async def body(rig: Rig) -> None:
        rig.push(Dtmf("1"))
        await rig.settled()  # the handler is busy with it
        rig.push(*(AudioIn(b"", at) for at in range(3)), Dtmf("2"), *(AudioIn(b"", at) for at in range(3, 8)))
        [depth] = [d for d in rig.call.depths() if "Slow inbox" in d.name]
        assert (depth.depth, depth.bound, depth.policy, depth.dropped) == (5, 5, Policy.DROP_OLDEST, 4)
        await asyncio.sleep(10)
        assert [f.at for f in rig.got(AudioIn)] == [4, 5, 6, 7]
        assert [f.digit for f in rig.got(Dtmf)] == ["1", "2"], "only audio is ever dropped"


def test_an_agent_inbox_over_its_bound_ends_the_call_naming_the_processor() -> None:
    faults: list[Fault] = []

    class Below(Processor):
        @on(Fault)
        def fault(self, frame: Fault) -> None:
            faults.append(frame)

    @with_rig(Waits(), Below())
    async def body(rig: Rig) -> None:
        reply = rig.reply()
        rig.push(*(Token(str(i), reply=reply) for i in range(11)))
        assert rig.fault == (
            "Waits failed in its inbox: Waits's inbox is full (10 frames): it handles frames slower "
            "than they come (the last was Token)"
        )
        assert [f.processor for f in faults] == ["Waits"], "others are told at once"


def test_a_generator_is_held_until_the_inbox_it_overfilled_is_below_its_mark() -> None:
    made: list[float] = []

    class Makes(Processor):
        emits = (Token,)

        @on(Sentence)
        async def make(self, frame: Sentence) -> AsyncIterator[Token]:
            for i in range(20):
                made.append(self.call.loop.time())
                yield Token(str(i))

    @with_rig(Makes(), Waits())
    async def body(rig: Rig) -> None:
        rig.push(Sentence("", reply=rig.reply()))
        await asyncio.sleep(1.5)
        assert len(made) <= 6
        await asyncio.sleep(30)
        assert len(rig.got(Token)) == 20
        assert rig.texts()[-1] == "19"
        assert max(d.peak for d in rig.call.depths() if "inbox" in d.name) <= 4


def test_a_held_generator_is_let_go_when_its_reply_dies() -> None:
    closed: list[float] = []

    class Makes(Processor):
        emits = (Token,)

        @on(Sentence)
        async def make(self, frame: Sentence) -> AsyncIterator[Token]:
            try:
                while True:
                    yield Token("x")
            finally:
                closed.append(self.call.loop.time())

    @with_rig(Makes(), Waits())
    async def body(rig: Rig) -> None:
        reply = rig.reply()
        rig.push(Sentence("", reply=reply))
        await asyncio.sleep(2.5)
        rig.kill(reply)
        await rig.settled()
        assert closed == [2.5]


def test_put_waits_and_push_does_not() -> None:
    class Reader(Processor):
        emits = (Token,)

    @with_rig(Reader(), Waits())
    async def body(rig: Rig) -> None:
        reader, reply = rig.processors[0], rig.reply()
        loop = asyncio.get_running_loop()
        for i in range(8):
            await reader.put(Token(str(i), reply=reply))
        waited = loop.time()
        assert 3.0 <= waited <= 6.0
        for i in range(3):
            reader.push(Token(str(8 + i), reply=reply))
        assert loop.time() == waited
        await asyncio.sleep(20)
        assert rig.texts() == [str(i) for i in range(11)]


def test_put_holds_who_floods_the_pump_itself() -> None:
    """All in line, each frame becomes many: no inbox fills, only the pump's own queue."""

    class Reader(Processor):
        emits = (Sentence,)

    class Fans(Processor):
        emits = (Token,)

        @on(Sentence)
        def fan(self, frame: Sentence) -> Any:
            for _ in range(1000):
                yield Token("x")

    @with_rig(Reader(), Fans())
    async def body(rig: Rig) -> None:
        reader, reply = rig.processors[0], rig.reply()
        peak = 0
        for _ in range(30):
            await reader.put(Sentence("", reply=reply))
            peak = max(peak, rig.call._pump.depths()[0].depth)
        await rig.settled()
        assert len(rig.got(Token)) == 30_000
        assert peak <= 2000


def test_put_on_a_call_that_is_over_says_so() -> None:
    class Reader(Processor):
        emits = (Token,)

    async def main() -> None:
        reader = Reader()
        async with Rig(reader):
            pass
        with pytest.raises(CallEnded):
            await reader.put(Dtmf("1"))
        reader.push(Token("", reply=Rig(Reader()).reply()))  # a straggler: dropped in silence

    run(main())


def test_a_caller_handler_is_not_held_by_an_agent_inbox_that_its_frame_filled() -> None:
    """The end of a turn makes the agent speak a lot at once: the caller's next frame does not wait for it."""

    class Answers(Processor):
        takes_turns = True
        emits = (Token,)

        @tap(Transcript)
        def transcript(self, frame: Transcript) -> None:
            reply = self.call.turns.live
            if reply is None:
                self.turns.ended(frame.text)
                for _ in range(8):
                    self.push(Token("much to say", reply=self.call.turns.live))

    class Listens(Processor):
        emits = (Transcript,)

        @on(AudioIn)
        async def listen(self, frame: AudioIn) -> AsyncIterator[Any]:
            yield Transcript(str(frame.at))
            yield frame

        async def reader(self) -> None:
            await self.put(Transcript("by put"))

    @with_rig(Listens(), Answers(), Waits())
    async def body(rig: Rig) -> None:
        rig.push(AudioIn(b"", 1), AudioIn(b"", 2))
        await rig.settled()
        assert [f.at for f in rig.got(AudioIn)] == [1, 2]
        await rig.processors[0].reader()
        assert asyncio.get_running_loop().time() == 0.0
        assert rig.got(Token) == []
        inboxes = [d for d in rig.call.depths() if "Waits inbox" in d.name]
        assert inboxes[0].depth > Waits.inbox_mark


def test_an_endless_in_line_generator_is_ended() -> None:
    class Endless(Processor):
        @on(Token)
        def endless(self, frame: Token) -> Any:
            while True:
                yield frame

    @with_rig(Endless())
    async def body(rig: Rig) -> None:
        rig.push(Token("", reply=rig.reply()))
        assert "Endless failed in endless" in (rig.fault or "")
        assert "makes frames without end" in (rig.fault or "")


# -- failures


class Breaks(Processor):
    """Raises where the test says. The caller's frames go on all the same until the call has ended."""

    emits = (Token,)

    def __init__(self, where: str) -> None:
        self.where = where

    def maybe(self, here: str) -> None:
        if here == self.where:
            raise ValueError("on purpose")

    async def start(self) -> None:
        self.maybe("start")
        if self.where == "background":
            self.spawn(self.background(), "reader")

    async def background(self) -> None:
        await asyncio.sleep(0)
        self.maybe("background")

    async def stop(self) -> None:
        self.maybe("stop")

    @on(Token)
    def plain(self, frame: Token) -> Token:
        self.maybe("plain")
        return frame

    @on(Sentence)
    def generator(self, frame: Sentence) -> Any:
        yield frame
        self.maybe("generator")

    @on(AudioOut)
    async def coroutine(self, frame: AudioOut) -> AudioOut:
        self.maybe("coroutine")
        return frame

    @on(ReplyEnd)
    async def async_generator(self, frame: ReplyEnd) -> AsyncIterator[ReplyEnd]:
        yield frame
        self.maybe("async_generator")

    @tap(Token)
    def look(self, frame: Token) -> None:
        self.maybe("look")

    @tap(Dtmf)
    async def async_look(self, frame: Dtmf) -> None:
        self.maybe("async_look")

    @on(CallStart)
    def control(self, frame: CallStart) -> None:
        self.maybe("control")

    @on(TurnStart)
    async def caller(self, frame: TurnStart) -> TurnStart:
        self.maybe("caller")
        return frame

    @on(Interrupt)
    async def async_control(self, frame: Interrupt) -> None:
        self.maybe("async_control")


STAGES = {
    "start": "start",
    "background": "its task reader",
    "plain": "plain",
    "generator": "generator",
    "coroutine": "coroutine",
    "async_generator": "async_generator",
    "look": "look",
    "async_look": "async_look",
    "control": "control",
    "caller": "caller",
    "async_control": "async_control",
}


@pytest.mark.parametrize("where", STAGES)
def test_a_processor_that_raises_ends_its_call_by_name_and_no_other(where: str) -> None:
    told: list[Fault] = []

    class Told(Processor):
        @on(Fault)
        def told(self, frame: Fault) -> None:
            told.append(frame)

    async def main() -> None:
        other = Rig(Breaks("nowhere"))
        async with other, Rig(Breaks(where), Told()) as rig:
            for each in (other, rig):
                if each.call.fault is None:
                    reply = each.reply()
                    each.push(Dtmf("1"), Token("t", reply=reply), Sentence("s", reply=reply))
                    each.push(AudioOut(b"", reply=reply), ReplyEnd(reply=reply))
                    each.above.turns.ended()
                    each.above.turns.started()
                await each.settled()
            assert rig.fault == f"Breaks failed in {STAGES[where]}: ValueError: on purpose"
            assert [f.processor for f in told] == ["Breaks"]
            assert other.call.fault is None
            assert {type(f) for f in other.out} >= {Token, Sentence, AudioOut, ReplyEnd, Dtmf, Interrupt}
        assert rig.result.fault == rig.fault
        assert rig.result.reason == rig.fault
        assert not rig.result.normal
        assert other.result.normal

    run(main())


def test_a_stop_that_raises_is_logged_and_the_others_are_stopped(logged: list[str]) -> None:
    stopped: list[str] = []

    class Stops(Processor):
        async def stop(self) -> None:
            stopped.append(self.name)

    @with_rig(Stops(), Breaks("stop"), Stops())
    async def body(rig: Rig) -> None:
        pass

    assert stopped == ["Stops#1", "Stops#2"]
    assert any("Breaks: stop() failed: on purpose" in m for m in logged)


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_start_that_hangs_is_named_after_its_time(stubborn: bool) -> None:
    class Hangs(Processor):
        start_timeout = 3.0

        async def start(self) -> None:
            end = self.call.loop.time() + (5 if stubborn else 100)
            while self.call.loop.time() < end:
                try:
                    await asyncio.sleep(100 if not stubborn else 1)
                except asyncio.CancelledError:
                    if not stubborn:
                        raise

    async def main() -> None:
        call = Call(MemoryCodec())
        call.prepare(Pipeline(Hangs(), parts=True))
        loop = asyncio.get_running_loop()
        result = await call.run(ScriptedLink(), LineStarted("s", "c", PHONE))
        assert result.fault == "Hangs failed in start: TimeoutError: it was not ready after 3 s"
        # A stubborn one is left behind once the call has waited for it for 5 s more.
        assert loop.time() == pytest.approx(5.0 if stubborn else 3.0, abs=0.01)

    run(main())


def test_a_start_that_gives_up_by_itself_is_not_called_late() -> None:
    class GivesUp(Processor):
        async def start(self) -> None:
            async with asyncio.timeout(0.5):
                await asyncio.sleep(100)

    @with_rig(GivesUp())
    async def body(rig: Rig) -> None:
        assert (rig.fault or "").startswith("GivesUp failed in start: TimeoutError")
        assert "10 s" not in (rig.fault or "")


def test_a_stop_that_hangs_is_bounded_and_named(logged: list[str]) -> None:
    class Hangs(Processor):
        stop_timeout = 2.0

        async def stop(self) -> None:
            await asyncio.sleep(1e6)

    async def main() -> None:
        async with Rig(Hangs()):
            pass
        assert asyncio.get_running_loop().time() <= 2.1

    run(main())
    assert any("Hangs: stop() took more than 2 s" in m for m in logged)


def test_a_handler_that_swallows_its_cancellation_is_bounded_and_named(logged: list[str]) -> None:
    class Swallows(Processor):
        @on(Token)
        async def swallow(self, frame: Token) -> Token:
            end = self.call.loop.time() + 20
            while self.call.loop.time() < end:
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    pass
            return frame

    async def main() -> None:
        async with Rig(Swallows()) as rig:
            rig.push(Token("", reply=rig.reply()))
            await rig.settled()
        assert asyncio.get_running_loop().time() <= 5.1
        await asyncio.sleep(30)

    run(main())
    assert any("Swallows handler did not end within 5 s" in m for m in logged)


def test_a_clean_up_at_the_end_of_the_call_is_not_cut_short() -> None:
    cleaned: list[float] = []

    class Cleans(Processor):
        @on(Token)
        async def work(self, frame: Token) -> Token:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(0.3)
                cleaned.append(self.call.loop.time())
            return frame

    @with_rig(Cleans())
    async def body(rig: Rig) -> None:
        rig.push(Token("", reply=rig.reply()))
        await rig.settled()

    assert cleaned == [pytest.approx(0.3)]


def test_a_handler_of_callend_that_hangs_is_bounded_and_gone() -> None:
    class Hangs(Processor):
        @on(CallEnd)
        async def end(self, frame: CallEnd) -> None:
            await asyncio.sleep(1e6)

    async def main() -> None:
        async with Rig(Hangs()):
            pass
        assert asyncio.get_running_loop().time() <= 5.1

    run(main())  # Leak if its task is left


def test_a_handler_that_goes_on_after_its_reply_was_played_ends_with_the_call() -> None:
    class Lingers(Processor):
        @on(Token)
        async def work(self, frame: Token) -> AsyncIterator[Token]:
            yield frame
            await asyncio.sleep(1e6)

    async def main() -> None:
        async with Rig(Lingers()) as rig:
            rig.above.turns.ended()
            reply = rig.call.turns.live
            rig.push(Token("", reply=reply))
            await rig.settled()
            rig.call.turns.played(reply, HeardText())
            assert reply.dead

    run(main())


@pytest.mark.parametrize("way", ["in line", "async"])
def test_a_handler_that_raises_cancellation_by_itself_is_a_fault(way: str) -> None:
    """`future.result()` of a cancelled future: it must not look as if somebody had cancelled the reader."""

    class InLine(Processor):
        @on(Dtmf)
        def digit(self, frame: Dtmf) -> Dtmf:
            future = self.call.loop.create_future()
            future.cancel()
            future.result()
            return frame

    class Async(InLine):
        @on(Dtmf)
        async def digit(self, frame: Dtmf) -> Dtmf:
            return InLine.digit(self, frame)

    cls = InLine if way == "in line" else Async

    @with_rig(cls())
    async def body(rig: Rig) -> None:
        rig.push(Dtmf("1"), Dtmf("2"))
        await rig.settled()
        assert (rig.fault or "").startswith(f"{cls.__name__} failed in digit: RuntimeError: it ")


def test_a_tap_that_returns_a_frame_is_a_fault() -> None:
    class Looks(Processor):
        @tap(Token)
        def look(self, frame: Token) -> Any:
            return frame

    @with_rig(Looks())
    async def body(rig: Rig) -> None:
        rig.push(Token("", reply=rig.reply()))
        assert "Looks failed in look: TypeError: a @tap only looks, but it returned" in (rig.fault or "")


def test_every_buffer_can_be_read() -> None:
    @with_rig(Waits())
    async def body(rig: Rig) -> None:
        rig.push(*(Token(str(i), reply=rig.reply()) for i in range(3)))
        names = [d.name for d in rig.call.depths()]
        assert names[0] == "pump ready queue"
        assert "line outbox" in names
        assert any(name.startswith("Waits inbox") for name in names)
        assert all(d.depth <= d.bound for d in rig.call.depths())
        assert CALLER == 1
