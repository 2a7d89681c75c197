"""check_processor: the test that every processor must pass, ours and yours.

    def test_redact():
        check_processor(Redact)

    def test_speech():
        report = check_processor(lambda: MyTTS(voice="ada"), services=Services(dial=scripted_vendor))
        assert report.emitted["AudioOut"] > 0

It makes up to two hundred short calls in virtual time, each with a fresh processor, and raises NotConforming
at the first rule that is broken. A processor

    declares what it emits              every type that comes out is handled or stands in emits or pushes
    passes what it does not handle      the same object, once
    changes no frame in place           others may hold the same frame
    keeps order                         in the caller's lane and within a reply; ReplyEnd once, and last
    keeps frames with their reply       an agent frame belongs to a reply that the TurnKeeper opened
    begins every reply afresh           the same frames give the same reply again
    survives an interrupt               before each frame and in the middle of async work; the reply after
                                        it is the one that an undisturbed call gives, and the caller's frames
                                        come out as if nothing had been
    does not delay the caller           while it works on agent frames, the caller's pass as fast as without
    stops cleanly                       without a frame, without start(), in the middle of work, and when its
                                        vendor cannot be reached
    leaves nothing behind               no task and no frame after the call
    works side by side                  two at once in one process do not mix
    does not fail                       nothing it does ends the call
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from voiceflow.engine.processor import Processor
from voiceflow.engine.reply import Reply
from voiceflow.frames import AgentFrame, Frame
from voiceflow.services import Services
from voiceflow.testing import rules
from voiceflow.testing.bench import ENDED, SETTLED, Bench, Cut, Sound, StepLoop
from voiceflow.testing.rules import Judge, told
from voiceflow.testing.samples import Frames, Sample, passed_by
from voiceflow.testing.trials import Trials, silent, unreachable

CUTS_BEFORE_FRAMES = 30
"""Frames of the sample before which a reply is cut off; each at once and after SETTLED turns."""
CUTS_IN_WORK = 60
"""Moments in a reply's work at which it is cut off, spread evenly over all that there are."""
CUTS_WITHOUT_REPLIES = 4
"""The same for a processor that takes no agent frames: an Interrupt has nothing to cut off in it."""
STOPS_IN_WORK = 12
"""Moments at which the call is ended."""
TURNS_AT_AN_INSTANT = 30
"""Turns tried at one instant; what is busy for longer is tried no further."""

ROUNDING = 1e-6
"""Seconds by which equal times may differ."""

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Conformance:
    """What check_processor saw: `frames` came out in `calls` calls, `emitted` counts by type those that the
    processor made. `never_seen` are declared types that did not come out: give `frames` that make them."""

    processor: str
    rules: tuple[str, ...]
    calls: int
    frames: int
    emitted: Mapping[str, int]
    never_seen: tuple[str, ...]

    def __str__(self) -> str:
        made = ", ".join(f"{count} {name}" for name, count in self.emitted.items()) or "none of its own"
        missing = f"; declared but never seen: {', '.join(self.never_seen)}" if self.never_seen else ""
        return (
            f"{self.processor} keeps {len(self.rules)} rules in {self.calls} calls; "
            f"{self.frames} frames came out, of these it made {made}{missing}"
        )


def check_processor(
    make: Callable[[], Processor],
    *,
    frames: Frames | None = None,
    services: Services | None = None,
    stateful: bool = False,
    patience: float = 5.0,
) -> Conformance:
    """Tries the processors that `make` gives, a new one for each call, in virtual time.

    `frames` is one reply's worth of sample frames in the order they are given, all in one burst, or a
    function that makes them for a reply; agent frames get their reply here, and ReplyEnd is added when there
    is none. Without, every type that is handled gets its part of a short scene (see
    `voiceflow.testing.samples`). `services` brings scripted links to a processor that opens any.
    `stateful=True` is for one whose replies depend on earlier ones on purpose: then only the types of what
    comes out are compared. `patience` is how many virtual seconds a reply may take.

    Raises NotConforming, an AssertionError, for the first rule that is broken, and VoiceflowError when it
    lacks what it needs: frames it cannot make, a link it cannot script. Not from inside a running loop:
    call it in a plain `def` test.
    """
    __tracebackhide__ = True  # for pytest: the message says it all
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("check_processor runs event loops of its own: call it in a plain `def` test")
    return _Check(make, frames, services, stateful=stateful, patience=patience).check()


class _Check:
    def __init__(
        self,
        make: Callable[[], Processor],
        frames: Frames | None,
        services: Services | None,
        *,
        stateful: bool,
        patience: float,
    ) -> None:
        self._trials = Trials(make, services, patience)
        self._run = self._trials.run
        self._frames = frames
        self._stateful = stateful
        self._patience = patience

    def check(self) -> Conformance:
        idle = self._run(_idle)[0]
        self._judge(idle).failures()
        cls = type(idle.processor)
        self._sample = self._trials.sample = Sample(cls, self._frames)
        usual, cuts = self._undisturbed()
        self._passing()
        self._interrupted(usual, cuts)
        self._caller_first()
        self._stopped(cuts)
        self._side_by_side(usual)
        seen = self._trials.emitted
        declared = dict.fromkeys((*cls.emits, *cls.pushes))
        return Conformance(
            cls.__name__,
            rules.RULES,
            self._trials.calls,
            self._trials.frames,
            {t.__name__: count for t, count in seen.items()},
            tuple(t.__name__ for t in declared if not any(issubclass(came, t) for came in seen)),
        )

    # -- the rules

    def _undisturbed(self) -> tuple[Bench, list[Cut]]:
        """Two replies one after the other; what they give is what all others are compared with. Also
        returns the moments in the first at which it can be cut."""
        loop = StepLoop()
        steps: list[tuple[float, int]] = []

        async def script(bench: Bench) -> None:
            loop.mark()
            await bench.play()
            await asyncio.sleep(self._patience)
            steps.extend(loop.steps)
            bench.retire()
            await bench.play()
            await asyncio.sleep(self._patience)

        bench = self._run(script, loop=loop)[0]
        judge = self._judge(bench)
        judge.failures()
        judge.frames()
        judge.reply_end(0)
        judge.reply_end(1)
        if not self._stateful:
            advice = (
                "forget a reply when its ReplyEnd has passed, and take random choices from self.call.random; "
                "if its replies depend on earlier ones on purpose, check_processor(..., stateful=True)"
            )
            first, second = (told(bench.of_reply(round_)) for round_ in (0, 1))
            judge.same(rules.AFRESH, "the second of two equal replies", first, second, advice)
        return bench, self._cuts(bench, steps)

    def _passing(self) -> None:
        """All frames that it does not handle, in a reply of their own."""

        async def script(bench: Bench) -> None:
            cls = type(bench.processor)
            bench.sample = Sample(cls, passed_by(cls))
            await bench.play()
            await asyncio.sleep(self._patience)

        judge = self._judge(self._run(script)[0])
        judge.failures()
        judge.frames()

    def _interrupted(self, usual: Bench, cuts: Sequence[Cut]) -> None:
        second = self._told(usual.of_reply(1 if self._stateful else 0))
        caller = _caller_lane(usual)

        async def script(bench: Bench, cut: Cut) -> None:
            await bench.play(cut, bench.interrupt)
            await bench.play()
            await asyncio.sleep(self._patience)

        for cut in cuts:
            bench = self._run(partial(script, cut=cut))[0]
            judge = self._judge(bench, rules.INTERRUPT, f"a reply was cut off {self._moment(cut, usual)}")
            judge.failures()
            judge.cut_off()
            judge.frames()
            advice = (
                "forget the dead reply: keep what belongs to a reply by `frame.reply`, or drop it in "
                "@on(Interrupt); stamp what a background task gives with the reply it was made for; release "
                "locks in `finally`"
            )
            got = self._told(bench.of_reply(1))
            judge.same(rules.INTERRUPT, "the reply after it", second, got, advice)
            judge.reply_end(1)
            if not self._stateful:
                advice = "an Interrupt is about the agent: let the caller's frames and what they hold alone"
                what = "what came out of the caller's frames"
                judge.same(rules.INTERRUPT, what, caller, _caller_lane(bench), advice)

    def _caller_first(self) -> None:
        async def script(bench: Bench, busy: bool) -> None:
            await bench.stream(busy=busy)
            await asyncio.sleep(self._patience)

        def caller(bench: Bench) -> list[tuple[Frame, float]]:
            return [(f, at) for f, at in bench.of_caller() if not self._stateful or isinstance(f, Sound)]

        alone, busy = (self._run(partial(script, busy=busy))[0] for busy in (False, True))
        self._judge(alone).failures()
        judge = self._judge(busy, when="agent frames and caller frames came at the same time")
        judge.failures()
        judge.frames()
        advice = (
            "a handler of caller frames shares nothing it has to wait for with a handler of agent frames: no "
            "lock, no queue, no connection that is busy; if what it does with the caller's frames depends on "
            "replies on purpose, check_processor(..., stateful=True)"
        )
        expected, got = (told([frame for frame, _ in caller(bench)]) for bench in (alone, busy))
        judge.same(rules.CALLER, "what came out of the caller's frames", expected, got, advice)
        for (frame, undelayed), (_, at) in zip(caller(alone), caller(busy), strict=False):
            if at > undelayed + ROUNDING:
                seen = f"{rules.show(frame)} came out {at - undelayed:.3f} s later than without agent frames"
                judge.broken(rules.CALLER, seen, advice)

    def _stopped(self, cuts: Sequence[Cut]) -> None:
        async def script(bench: Bench, cut: Cut) -> None:
            await bench.play(cut, partial(_end_twice, bench))

        scripted = self._trials.dial is not None
        abandoned = self._run(_abandon, enter=False, dial=silent if scripted else None)[0]
        self._judge(abandoned, rules.STOPS, "the call was given up before start() was done").failures()
        for cut in _spread(cuts, STOPS_IN_WORK):
            bench = self._run(partial(script, cut=cut))[0]
            when = f"the call was ended {self._moment(cut, bench)}"
            self._judge(bench, rules.STOPS, when).failures()
        if scripted:
            bench = self._run(Bench.play, dial=unreachable)[0]
            bench.forgive()  # it may end its call
            self._judge(bench, rules.STOPS, "its vendor could not be reached").failures()

    def _side_by_side(self, usual: Bench) -> None:
        async def script(*benches: Bench) -> None:
            for _ in range(2):
                await asyncio.gather(*(bench.play(slowly=True) for bench in benches))
                await asyncio.sleep(self._patience)
                for bench in benches:
                    bench.retire()

        for bench in self._run(script, benches=2):
            when = "two calls were made at the same time in one process"
            judge = self._judge(bench, rules.SIDE_BY_SIDE, when)
            judge.failures()
            advice = "keep state in the instance, from __init__ on, not in the class or the module"
            for round_ in (0, 1):
                expected, got = (told(b.of_reply(round_)) for b in (usual, bench))
                judge.same(rules.SIDE_BY_SIDE, "a reply", expected, got, advice)
            expected, got = _caller_lane(usual), _caller_lane(bench)
            judge.same(rules.SIDE_BY_SIDE, "what came out of the caller's frames", expected, got, advice)

    # -- moments

    def _cuts(self, usual: Bench, steps: Sequence[tuple[float, int]]) -> list[Cut]:
        frames = self._sample.frames(0, Reply(0))
        handled = {t for h in self._sample.cls.handles for t in h.types}
        agent = [n for n, frame in enumerate(frames) if isinstance(frame, AgentFrame)]
        if not any(issubclass(t, AgentFrame) or issubclass(AgentFrame, t) for t in handled):
            return [Cut(SETTLED, n) for n in _spread(range(len(frames) + 1), CUTS_WITHOUT_REPLIES)]
        before = sorted({0, *_spread(agent, CUTS_BEFORE_FRAMES), len(frames)})
        last = max(usual.times_of_reply(0), default=steps[-1][0])
        moments = [
            Cut(turns, at=at)
            for at, count in steps
            if at <= last
            for turns in range(min(count, TURNS_AT_AN_INSTANT))
        ]
        return [
            *(Cut(turns, n) for n in before for turns in (0, SETTLED)),
            *_spread(moments, CUTS_IN_WORK),
        ]

    def _moment(self, cut: Cut, usual: Bench) -> str:
        turns = f", then {cut.turns} more turns of the event loop" if cut.turns else ""
        if cut.before is None:
            return f"{cut.at - usual.began:.3f} s after its frames were given{turns}"
        frames = self._sample.frames(0, Reply(0))
        if cut.before == len(frames):
            return f"after all {len(frames)} frames of the sample{turns}"
        named = rules.show(frames[cut.before])
        return f"before frame {cut.before + 1} of {len(frames)} of the sample ({named}){turns}"

    def _judge(self, bench: Bench, rule: str = "", when: str = "") -> Judge:
        return Judge(bench, self._patience, rule=rule, when=when)

    def _told(self, frames: Sequence[Frame]) -> list[rules.Told]:
        return told(frames, types_only=self._stateful)


async def _idle(bench: Bench) -> None:
    _end_twice(bench)


async def _abandon(bench: Bench) -> None:
    await bench.abandoned()


def _caller_lane(bench: Bench) -> list[rules.Told]:
    """What came out of the caller's frames, type by type: how evidence lies between the audio it comes from
    is a matter of timing."""
    return sorted(told([frame for frame, _ in bench.of_caller()]), key=lambda frame: frame[0])


def _end_twice(bench: Bench) -> None:
    bench.call.end(ENDED)
    bench.call.end(ENDED)


def _spread(items: Sequence[T], limit: int) -> list[T]:
    """At most `limit` of them, the first and the last among them, at even distances."""
    if len(items) <= limit:
        return list(items)
    return [items[round(n * (len(items) - 1) / (limit - 1))] for n in range(limit)]
