"""The rules that every processor keeps, and how each is read from what a bench recorded."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

from voiceflow.engine.processor import handler_for
from voiceflow.engine.reply import Reply
from voiceflow.errors import DeclarationError, VoiceflowError
from voiceflow.frames import AgentFrame, CallerFrame, Frame, ReplyEnd
from voiceflow.testing.bench import Bench, Note, Sound

DECLARES = "declares what it emits"
PASSES = "passes what it does not handle"
UNCHANGED = "changes no frame in place"
ORDER = "keeps order"
OWN_REPLY = "keeps frames with their reply"
AFRESH = "begins every reply afresh"
INTERRUPT = "survives an interrupt"
CALLER = "does not delay the caller"
STOPS = "stops cleanly"
NOTHING_LEFT = "leaves nothing behind"
SIDE_BY_SIDE = "works side by side"
NO_FAILURE = "does not fail"
RULES = (
    DECLARES, PASSES, UNCHANGED, ORDER, OWN_REPLY, AFRESH,
    INTERRUPT, CALLER, STOPS, NOTHING_LEFT, SIDE_BY_SIDE, NO_FAILURE,
)  # fmt: skip

Told = tuple[str, str | None, bytes | None]
"""What is compared of a frame: its type, its text and its audio."""


class NotConforming(VoiceflowError, AssertionError):
    """A processor breaks a rule. `str()` says which processor and rule, when, what was seen, what to do."""

    def __init__(self, processor: str, rule: str, seen: str, advice: str, when: str = "") -> None:
        self.processor = processor
        self.rule = rule
        lines = [f"{processor} breaks the rule that a processor {rule}"]
        lines += [f"  when   {when}"] if when else []
        super().__init__("\n".join([*lines, f"  seen   {seen}", f"  do     {advice}"]))


class Judge:
    """Reads one bench. Every method raises NotConforming or returns.

    `rule` stands for whatever is broken in a run that was disturbed on purpose, for the same frames gave
    nothing to complain of before; `when` says what the disturbance was.
    """

    def __init__(self, bench: Bench, patience: float, *, rule: str = "", when: str = "") -> None:
        self.bench = bench
        self.cls = type(bench.processor)
        self._patience = patience
        self._rule = rule
        self._when = when

    def failures(self) -> None:
        """Nothing raised, nothing was undeclared, stop() did what it should, nobody warned of it."""
        for failure in self.bench.failures:
            if failure.processor in (self.bench.above, self.bench.watch):
                raise failure.error
            rule = STOPS if failure.closing else NO_FAILURE
            advice = "catch what it can mend; anything else ends the call, by its name"
            if isinstance(failure.error, DeclarationError):
                rule = DECLARES
                advice = "`emits` lists what handlers give, `pushes` what a background task gives"
            seen = f"{failure.stage} raised {type(failure.error).__name__}: {failure.error}"
            self.broken(rule, seen, advice, failure.error)
        if self.bench.stop_trouble is not None:
            self.broken(
                STOPS,
                self.bench.stop_trouble,
                "stop() is also called when start() has not finished or never ran, and while handlers still "
                "work; bound what it waits for",
            )
        if self.bench.warnings:
            self.broken(
                NO_FAILURE,
                self.bench.warnings[0],
                "let CancelledError through, bound what `finally` waits for, and raise nothing there",
            )
        if self.bench.late:
            self.broken(
                NOTHING_LEFT,
                f"it pushed {show(self.bench.late[0])} after the call was over",
                "cancel timers in stop(); use self.spawn for tasks, which the call ends itself",
            )

    def frames(self) -> None:
        """What went in came out as the rules of order say."""
        self._unchanged()
        self._owned()
        self._passed()
        self._order()

    def reply_end(self, round_: int) -> None:
        """ReplyEnd came once, and last."""
        frames = self.bench.of_reply(round_)
        ends = [place for place, frame in enumerate(frames) if isinstance(frame, ReplyEnd)]
        assert self.bench.sample is not None
        if not ends and self.bench.sample.ends:
            self.broken(
                ORDER,
                f"no ReplyEnd came out in {self._patience:g} s",
                "pass ReplyEnd on, or give ReplyEnd() after the last frame of the reply; if it just takes "
                "longer, check_processor(..., patience=seconds)",
            )
        if len(ends) > 1:
            self.broken(ORDER, f"ReplyEnd came out {len(ends)} times", "give it once, after the last frame")
        if ends and ends[0] != len(frames) - 1:
            self.broken(
                ORDER,
                f"{show(frames[ends[0] + 1])} came out after ReplyEnd",
                "take ReplyEnd with @on(ReplyEnd) and give it after the last frame; what comes from a "
                "background task stands in `pushes`",
            )

    def same(self, rule: str, what: str, expected: Sequence[Told], got: Sequence[Told], advice: str) -> None:
        """`got` is what an undisturbed run gave."""
        if list(expected) != list(got):
            self.broken(rule, f"{what} {_difference(expected, got)}", advice)

    def cut_off(self) -> None:
        """Nothing of the interrupted reply came out."""
        bench = self.bench
        for frame in bench.out[bench.cut_from :] if bench.cut_off is not None else ():
            if isinstance(frame, AgentFrame) and frame.reply is bench.cut_off:
                self.broken(
                    INTERRUPT,
                    f"{show(frame)} of the dead reply came out after the Interrupt",
                    "report it: the engine has a bug",
                )

    def broken(self, rule: str, seen: str, advice: str, cause: BaseException | None = None) -> NoReturn:
        raise NotConforming(self.cls.__name__, self._rule or rule, seen, advice, self._when) from cause

    # -- inside

    def _unchanged(self) -> None:
        advice = "frames are shared: return dataclasses.replace(frame, ...) instead"
        for frame, before in self.bench.given:
            if not dataclasses.is_dataclass(frame):
                continue
            for name in [field.name for field in dataclasses.fields(frame) if field.compare]:
                was, now = getattr(before, name), getattr(frame, name)
                if was is not now:
                    seen = f"{type(frame).__name__}.{name} was {was!r} and became {now!r}"
                    self.broken(UNCHANGED, seen, advice)

    def _owned(self) -> None:
        if self.bench.watch.foreign:
            frame = self.bench.watch.foreign[0]
            self.broken(
                OWN_REPLY,
                f"{show(frame)} came out with {frame.reply!r}, which the TurnKeeper never opened",
                "give a frame the reply of the frame it comes from: Sentence(text, reply=token.reply)",
            )

    def _passed(self) -> None:
        came = Counter(map(id, self.bench.out))
        for frame, _ in self.bench.given:
            handled = handler_for(self.cls, type(frame), tap=False) is not None
            if handled or not isinstance(frame, CallerFrame | AgentFrame) or came[id(frame)] == 1:
                continue
            if isinstance(frame, AgentFrame) and frame.reply is self.bench.cut_off:
                continue
            if not came[id(frame)]:
                self.broken(
                    PASSES,
                    f"{show(frame)} did not come out in {self._patience:g} s",
                    "it waits behind a handler that does not end: bound what that awaits, and release locks "
                    "in `finally`; if it just takes longer, check_processor(..., patience=seconds)",
                )
            seen = f"{show(frame)} came out {came[id(frame)]} times, not once"
            self.broken(PASSES, seen, "a @tap only looks, the frame goes on by itself: do not push it again")

    def _order(self) -> None:
        places = {id(frame): place for place, (frame, _) in enumerate(self.bench.given)}
        latest: dict[Reply | None, tuple[int, Frame]] = {}
        for number, frame in enumerate(self.bench.out):
            if not isinstance(frame, CallerFrame | AgentFrame):
                continue
            place = places.get(id(frame))
            if place is None and not self._rule:  # rounds overlap in a run that was disturbed
                place = self._equal_to(frame, number)
            if place is None:
                continue
            stream = frame.reply if isinstance(frame, AgentFrame) else None
            before, earlier = latest.get(stream, (-1, frame))
            if place < before:
                self.broken(
                    ORDER,
                    f"{show(frame)} went in before {show(earlier)} and came out after it",
                    "give frames in the order of those they come from: one handler or one task for a stream",
                )
            latest[stream] = (place, frame)

    def _equal_to(self, frame: Frame, number: int) -> int | None:
        """The place of the frame of this round that equals the one which came out as `number`, if there
        is exactly one. Those that came out themselves are not meant: the other was made beside them."""
        rounds = self.bench.rounds
        here = sum(came <= number for _, came in rounds) - 1
        if here < 0:  # it came by itself, before anything went in
            return None
        end = rounds[here + 1][0] if here + 1 < len(rounds) else len(self.bench.given)
        given = self.bench.given[rounds[here][0] : end]
        out = {id(one) for one in self.bench.out}
        equal = [
            n
            for n, (one, _) in enumerate(given)
            if type(one) is type(frame) and id(one) not in out and _equal(one, frame)
        ]
        return rounds[here][0] + equal[0] if len(equal) == 1 else None


def told(frames: Sequence[Frame], *, types_only: bool = False) -> list[Told]:
    """What is compared of frames, marks left out. With `types_only` only types, repetitions left out."""
    found: list[Told] = []
    for frame in frames:
        if isinstance(frame, Note | Sound):
            continue
        now: Told = (type(frame).__name__, None, None)
        if not types_only:
            now = (now[0], getattr(frame, "text", None), getattr(frame, "audio", None))
        if not (types_only and found and found[-1] == now):
            found.append(now)
    return found


def show(frame: Frame) -> str:
    """A frame in a message: its type and what tells it apart."""
    if isinstance(frame, Note | Sound):
        kind = "an agent frame" if isinstance(frame, Note) else "a caller frame"
        return f"{kind} that it does not handle"
    return _show_told(told([frame])[0])


def _show_told(frame: Told) -> str:
    name, text, audio = frame
    return name + (f" {text!r}" if text else "") + (f" of {len(audio)} bytes" if audio is not None else "")


def _difference(expected: Sequence[Told], got: Sequence[Told]) -> str:
    for place, (wanted, came) in enumerate(zip(expected, got, strict=False), start=1):
        if wanted != came:
            other = " (with other audio)" if _show_told(wanted) == _show_told(came) else ""
            return f"had {_show_told(came)}{other} as frame {place} instead of {_show_told(wanted)}"
    if len(got) < len(expected):
        return f"ended after {len(got)} frames of {len(expected)}: no {_show_told(expected[len(got)])}"
    return f"had {len(got) - len(expected)} frames too many: {_show_told(got[len(expected)])}"


def _equal(one: Frame, other: Frame) -> bool:
    try:
        return bool(one == other)
    except ValueError:  # fields that are arrays
        return False
