"""The recorder in real calls, in virtual time: every turn's path, its parts, its owners."""

from __future__ import annotations

import asyncio

import pytest
from trace_calls import Aggregator, Breaks, Detector, Model, Turner, Voice, agent, phone, talker

from processors.play import Play
from processors.turns import VADTurns
from voiceflow.assets import speech
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.mouth import HeardText
from voiceflow.engine.processor import Processor, on
from voiceflow.frames import AudioOut, Prompt, ReplyEnd, Sentence, Token
from voiceflow.testing.line import MemoryCodec
from voiceflow.trace import recorder
from voiceflow.trace.path import Path, Step
from voiceflow.trace.recorder import BY_OUR_CLOCK, Event, Recorder

STEPS = [
    Step.END_OF_TURN,
    Step.FIRST_TOKEN,
    Step.FIRST_SENTENCE,
    Step.FIRST_AUDIO,
    Step.ON_THE_WIRE,
    Step.HEARD,
]


def parts(path: Path) -> dict[Step, tuple[str, float]]:
    return {part.step: (part.owner, part.seconds) for part in path.parts()}


def sums(path: Path) -> None:
    """The parts are the whole way from the first step to the ear, to the microsecond."""
    assert path.gap is not None
    assert path.since is not None
    assert sum(part.microseconds for part in path.parts()) == round(path.gap * 1e6)
    assert path.gap == pytest.approx(path.at[Step.HEARD] - path.at[path.since], abs=2e-6)
    assert all(part.microseconds >= 0 for part in path.parts())


async def test_every_part_of_a_turn(virtual_time):
    async with phone(*agent("Good morning. How can I help you?"), delay=0.03) as p:
        await p.carrier.speak(1.0)
        await asyncio.sleep(5.5)
    (path,) = p.paths
    sums(path)
    took = parts(path)
    assert list(took) == STEPS
    assert [owner for owner, _ in took.values()] == [
        "VADTurns",
        "Model",
        "Aggregator",
        "Voice",
        "LineSink",
        "line",
    ]
    # 0.4 s of silence, rounded up to a packet, from when the last of the voice came in.
    assert took[Step.END_OF_TURN][1] == pytest.approx(0.4, abs=0.0201)
    assert took[Step.FIRST_TOKEN][1] == pytest.approx(0.3)
    assert took[Step.FIRST_SENTENCE][1] == pytest.approx(0.01)  # the second word ends it
    assert took[Step.FIRST_AUDIO][1] == pytest.approx(0.15)
    assert took[Step.ON_THE_WIRE][1] == 0.0
    assert took[Step.HEARD][1] == pytest.approx(0.06)  # there and back again
    assert path.owner[Step.LAST_SPEECH] == "caller"
    assert path.at[Step.LAST_SPEECH] == pytest.approx(0.1 + 1.0 + 0.03, abs=0.041)
    assert (path.turn, path.draft, path.cut, path.lost) == (1, False, "", "")
    assert path.heard == "Good morning. How can I help you?"
    assert p.kinds() == [
        "line open", "caller speaks", "caller done", "first token", "first sentence", "more",
        "first audio", "on the wire", "heard", "said", "end",
    ]  # fmt: skip


async def test_events_say_how_long_each_step_took(virtual_time):
    async with phone(*agent("Good morning.")) as p:
        await p.carrier.speak(1.0)
        await asyncio.sleep(3)
    told = {event.kind: event for event in p.call.trace.events}
    (path,) = p.paths
    for part in path.parts()[1:]:
        event = told[part.step.value]
        assert event.figures["took"] == pytest.approx(part.seconds, abs=1e-6)
        assert event.owner == part.owner
    assert told["caller done"].figures["since_speech"] == pytest.approx(path.parts()[0].seconds, abs=1e-6)
    assert told["heard"].figures["since_speech"] == pytest.approx(path.gap, abs=1e-6)
    assert told["first sentence"].words == "Good morning."
    assert [event.at for event in p.call.trace.events] == sorted(event.at for event in p.call.trace.events)


async def test_a_chain_without_tokens(virtual_time):
    async with phone(Detector(), VADTurns(0.4), Play(speech("ten_of_clubs"), "Ten of clubs.")) as p:
        await p.carrier.speak(0.5)
        await asyncio.sleep(4)
    (path,) = p.paths
    sums(path)
    assert list(parts(path)) == [Step.END_OF_TURN, Step.FIRST_AUDIO, Step.ON_THE_WIRE, Step.HEARD]
    assert parts(path)[Step.FIRST_AUDIO] == ("Play", 0.0)
    assert path.heard == "Ten of clubs."


async def test_an_authority_that_does_not_know_when_the_voice_ended(virtual_time):
    async with phone(*talker("Good.")) as p:
        p.turns.started()
        p.turns.ended("hello")
        await asyncio.sleep(2)
    (path,) = p.paths
    sums(path)
    assert path.since is Step.END_OF_TURN
    assert list(parts(path)) == STEPS[1:]
    heard = next(event for event in p.call.trace.events if event.kind == "heard")
    assert "since_speech" not in heard.figures
    assert heard.figures["since_turn"] == pytest.approx(path.gap, abs=1e-6)


# -- drafts ---------------------------------------------------------------------------------------------


async def test_a_draft_that_was_right(virtual_time):
    """It is ready before the turn is over: then only the end of the turn took time."""
    async with phone(*talker("Good morning.")) as p:
        p.turns.started()
        p.turns.may_be_over("hello", last_voice=p.call.line.arrived[0])
        await asyncio.sleep(1.0)  # the draft needs 0.46
        p.turns.ended("hello", last_voice=p.call.line.arrived[0] - 8000)
        await asyncio.sleep(3)
    (path,) = p.paths
    sums(path)
    took = {step: seconds for step, (_, seconds) in parts(path).items()}
    assert took[Step.END_OF_TURN] == pytest.approx(1.0, abs=0.021)
    assert (took[Step.FIRST_TOKEN], took[Step.FIRST_SENTENCE], took[Step.FIRST_AUDIO]) == (0.0, 0.0, 0.0)
    assert path.gap == pytest.approx(1.0, abs=0.021)
    assert (path.draft, path.dropped, path.asked) == (True, False, "hello")
    kinds = p.kinds()
    assert kinds.index("first audio") < kinds.index("caller done") < kinds.index("draft kept")
    first = next(event for event in p.call.trace.events if event.kind == "first token")
    assert first.figures == {"took": pytest.approx(0.3)}  # since the draft was begun; nobody waits yet


async def test_what_the_eager_end_told_still_holds(virtual_time):
    """The authority told at the eager end when the voice had ended, and not once more at the end."""
    async with phone(*talker("Good morning.")) as p:
        p.turns.started()
        p.turns.may_be_over("hello", last_voice=p.call.line.arrived[0] - 1600)
        await asyncio.sleep(0.3)
        p.turns.ended("hello")
        await asyncio.sleep(2)
        p.turns.started()
        p.turns.may_be_over("and", last_voice=p.call.line.arrived[0])
        p.turns.resumed()  # there was more voice: it does not hold any more
        p.turns.ended("and so on")
        await asyncio.sleep(2)
    one, _, two = p.paths
    assert parts(one)[Step.END_OF_TURN][1] == pytest.approx(0.5, abs=0.021)
    assert two.since is Step.END_OF_TURN


async def test_a_draft_that_was_half_ready(virtual_time):
    async with phone(*talker("Good morning.")) as p:
        p.turns.started()
        p.turns.may_be_over("hello")
        await asyncio.sleep(0.2)
        p.turns.ended("hello", last_voice=p.call.line.arrived[0] - 4000)
        await asyncio.sleep(3)
    (path,) = p.paths
    sums(path)
    took = {step: seconds for step, (_, seconds) in parts(path).items()}
    assert took[Step.END_OF_TURN] == pytest.approx(0.5, abs=0.021)
    assert took[Step.FIRST_TOKEN] == pytest.approx(0.1)  # of its 0.3 s, 0.2 were gone
    assert took[Step.FIRST_AUDIO] == pytest.approx(0.15)


async def test_a_draft_that_was_for_nothing(virtual_time):
    async with phone(*talker("Good.", "Good morning to you.")) as p:
        p.turns.started()
        p.turns.may_be_over("hello")
        await asyncio.sleep(1.0)
        p.turns.resumed()
        await asyncio.sleep(0.5)
        p.turns.ended("hello there")
        await asyncio.sleep(4)
    draft, answer = p.paths
    assert (draft.dropped, draft.gap, draft.cut, draft.heard) == (True, None, "the caller went on", "")
    assert draft.lost == "Good."
    assert (answer.dropped, answer.draft, answer.heard) == (False, False, "Good morning to you.")
    assert (draft.turn, answer.turn) == (1, 1)
    sums(answer)
    kinds = p.kinds()
    assert kinds.count("draft") == kinds.count("resumed") == kinds.count("draft dropped") == 1
    assert "cut" not in kinds


# -- replies that are cut off -----------------------------------------------------------------------------


async def test_a_reply_that_is_cut_before_its_first_audio(virtual_time):
    async with phone(*talker("Good.")) as p:
        p.turn()
        await asyncio.sleep(0.35)  # it has tokens by now
        p.turns.started()
        await asyncio.sleep(1)
    (path,) = p.paths
    assert (path.cut, path.gap, path.heard) == ("barge-in", None, "")
    assert list(parts(path)) == STEPS[:3]
    assert path.over == pytest.approx(path.opened + 0.35)
    assert "heard" not in p.kinds()


async def test_a_reply_that_is_cut_while_it_is_heard(virtual_time):
    async with phone(*talker("Good morning to you. And more.")) as p:
        p.turn()
        await asyncio.sleep(0.3 + 0.03 + 0.15 + 0.7)
        p.turns.started()
        await asyncio.sleep(1)
    (path,) = p.paths
    sums(path)
    assert path.cut == "barge-in"
    assert path.heard == "Good"  # 0.7 s of 1.2 s for twenty characters, rounded down to a word
    assert path.lost == "morning to you. And more."
    assert path.estimated
    cut = next(event for event in p.call.trace.events if event.kind == "cut")
    assert (cut.words, cut.detail) == ("Good", "barge-in")


@pytest.mark.parametrize("has_marks", [True, False])
async def test_a_line_that_has_not_told_yet_that_it_plays(virtual_time, has_marks):
    """Cut after 60 ms, when the first mark cannot be back: heard, by our own clock."""
    async with phone(*talker("Good."), has_marks=has_marks) as p:
        p.turn()
        await asyncio.sleep(0.3 + 0.15 + 0.06)
        p.turns.started()
        await asyncio.sleep(1)
    (path,) = p.paths
    sums(path)
    assert path.owner[Step.HEARD] == BY_OUR_CLOCK
    assert path.gap == pytest.approx(0.1 + 0.45, abs=0.021)


async def test_a_line_without_marks(virtual_time):
    async with phone(*talker("Good."), has_marks=False) as p:
        p.turn()
        await asyncio.sleep(2)
    (path,) = p.paths
    sums(path)
    assert path.owner[Step.HEARD] == BY_OUR_CLOCK
    assert path.at[Step.HEARD] == pytest.approx(path.at[Step.ON_THE_WIRE])
    assert path.cut == ""


async def test_a_carrier_that_returns_no_mark(virtual_time):
    """It promised to: the sink gives up after its grace, and the path is complete all the same."""
    async with phone(*talker("Good."), marks=False) as p:
        p.turn()
        await asyncio.sleep(5)
    (path,) = p.paths
    assert path.owner[Step.HEARD] == BY_OUR_CLOCK
    assert path.at[Step.HEARD] == pytest.approx(path.at[Step.ON_THE_WIRE])


async def test_a_reply_that_waits_and_goes_on(virtual_time):
    async with phone(*talker("Good morning to you.")) as p:
        p.turn()
        await asyncio.sleep(0.3 + 0.03 + 0.15 + 0.5)
        p.turns.hold()
        await asyncio.sleep(1)
        p.turns.unhold()
        await asyncio.sleep(3)
    (path,) = p.paths
    sums(path)
    assert path.heard == "Good morning to you."
    assert parts(path)[Step.HEARD][1] == pytest.approx(0.0, abs=1e-6)  # the first time counts
    kinds = p.kinds()
    assert kinds[kinds.index("held") :][:2] == ["held", "goes on"]


# -- what is no answer ------------------------------------------------------------------------------------


async def test_say(virtual_time):
    async with phone(*talker()) as p:
        assert await p.call.say("Hello there.") == "Hello there."
    (path,) = p.paths
    sums(path)
    assert path.turn is None
    assert path.since is Step.FIRST_SENTENCE
    assert path.owner[Step.FIRST_SENTENCE] == "program"
    assert list(parts(path)) == [Step.FIRST_AUDIO, Step.ON_THE_WIRE, Step.HEARD]
    heard = next(event for event in p.call.trace.events if event.kind == "heard")
    assert set(heard.figures) == {"took"}, "nobody waited for it"


class Mute(Processor):
    """Answers with nothing."""

    emits = (ReplyEnd,)

    @on(Prompt)
    def answer(self, prompt: Prompt) -> ReplyEnd:
        return ReplyEnd()


async def test_an_answer_without_a_sound(virtual_time):
    async with phone(Turner(), Mute()) as p:
        p.turn()
        await asyncio.sleep(0.5)
    (path,) = p.paths
    assert (path.gap, path.cut, path.over is None) == (None, "", False)
    assert [event.kind for event in p.call.trace.events][-2:] == ["said", "end"]


# -- replies together -------------------------------------------------------------------------------------


class Late(Processor):
    """Answers with audio; what it cannot give in time it gives to the dead reply, a second later."""

    emits = (AudioOut, ReplyEnd)

    @on(Prompt)
    async def answer(self, prompt: Prompt):
        self.call.loop.call_later(1.0, self.push, AudioOut(b"\x01" * 160, "late", reply=prompt.reply))
        await asyncio.sleep(0.2)
        yield AudioOut(b"\x01" * 8000, "early")
        yield ReplyEnd()


async def test_two_replies_at_once(virtual_time):
    """What is made late for a dead reply is no step of the one that lives."""
    async with phone(Turner(), Late()) as p:
        p.turn("one")
        await asyncio.sleep(0.1)
        p.turns.started()  # before its first audio
        await asyncio.sleep(0.85)
        p.turns.ended("two", last_voice=p.call.line.arrived[0])
        await asyncio.sleep(4)
    one, two = p.paths
    assert (one.cut, one.gap, Step.FIRST_AUDIO in one.at) == ("barge-in", None, False)
    sums(two)
    assert parts(two)[Step.FIRST_AUDIO][1] == pytest.approx(0.2)  # not 0.05
    assert (one.asked, two.asked) == ("one", "two")


class Filler(Processor):
    """Plays something at once, and lets the model think."""

    emits = (AudioOut,)

    @on(Prompt)
    def fill(self, prompt: Prompt):
        yield AudioOut(b"\x01" * 8000, "One moment.")
        yield prompt


async def test_what_came_after_the_first_audio_is_not_on_the_path(virtual_time):
    async with phone(Turner(), Filler(), Model("Good.", first=0.4), Aggregator(), Voice()) as p:
        p.turn()
        await asyncio.sleep(4)
    (path,) = p.paths
    sums(path)
    assert path.at[Step.FIRST_TOKEN] > path.at[Step.HEARD]
    assert list(parts(path)) == [Step.END_OF_TURN, Step.FIRST_AUDIO, Step.ON_THE_WIRE, Step.HEARD]
    assert path.gap == pytest.approx(0.1, abs=0.021)
    assert path.heard == "One moment. Good."


class Polite(Sentence):
    """A frame of a user's own."""


class Own(Processor):
    emits = (Polite,)

    @on(Token)
    def collect(self, token: Token) -> Polite:
        return Polite(token.text)


async def test_owners_are_named_as_in_errors(virtual_time):
    """Two of a class are told apart, and a subclass of a frame is the step of its base."""
    async with phone(Turner(), Model("Good."), Model("Never."), Own(), Voice()) as p:
        p.turn()
        await asyncio.sleep(2)
    (path,) = p.paths
    assert path.owner[Step.FIRST_TOKEN] == "Model#1"
    assert path.owner[Step.FIRST_SENTENCE] == "Own"
    assert p.call.chain == ("LineSource", "Turner", "Model#1", "Model#2", "Own", "Voice", "LineSink")


# -- the end ----------------------------------------------------------------------------------------------


async def test_a_call_that_ends_while_the_agent_speaks(virtual_time):
    async with phone(*talker("Good morning to you.")) as p:
        p.turn()
        await asyncio.sleep(0.3 + 0.03 + 0.15 + 0.7)
    (path,) = p.paths
    assert (path.heard, path.lost, path.cut) == ("Good", "morning to you.", "the caller hung up")
    trace = p.call.trace
    assert trace.outcome is not None
    assert (trace.outcome.reason, trace.outcome.fault, trace.outcome.normal) == (
        "the caller hung up",
        None,
        True,
    )
    assert [event.kind for event in trace.events][-2:] == ["cut", "end"]


async def test_nothing_is_added_when_the_call_is_over(virtual_time):
    async with phone(*talker("Good morning to you.")) as p:
        p.turn()
        await asyncio.sleep(1)
    trace = p.call.trace
    reply = p.call.turns._replies.get(1)
    before = (list(trace.events), [(dict(path.at), path.over) for path in trace.paths], trace.seconds)
    trace.tell("note")
    trace.note("Voice", "reconnected")
    trace.over(reply or type("R", (), {"number": 1})(), HeardText("more", 9))  # type: ignore[arg-type]
    trace.close()
    await asyncio.sleep(1)
    assert (list(trace.events), [(dict(path.at), path.over) for path in trace.paths], trace.seconds) == before


async def test_a_call_that_dies(virtual_time):
    """A processor raises in the second turn: the first is complete, the second as far as it came."""
    chain = [Turner(), Breaks(), Model("Good."), Aggregator(), Voice()]
    async with phone(*chain, hang_up=False) as p:
        p.turn("one")
        await asyncio.sleep(2)
        p.turn("two")
        await asyncio.sleep(1)
    one, two = p.paths
    sums(one)
    assert (two.asked, two.gap) == ("two", None)
    assert two.over is not None
    outcome = p.call.trace.outcome
    assert outcome is not None
    assert outcome.fault == "Breaks failed in fail: ValueError: cannot bear 'two'"
    assert not outcome.normal
    assert two.cut == outcome.reason
    assert p.kinds()[-1] == "end"


async def test_a_call_whose_stream_never_came(virtual_time):
    call = Call(MemoryCodec())
    call.prepare(Pipeline(call.source(), Turner(), call.sink(), parts=True))
    await asyncio.sleep(3)
    await call.abandon("its stream never came")
    assert [(event.kind, event.detail) for event in call.trace.events] == [("end", "its stream never came")]
    assert call.trace.seconds == pytest.approx(3.0)


# -- bounds, and those who look on -------------------------------------------------------------------------


async def test_it_is_bounded(virtual_time, monkeypatch):
    monkeypatch.setattr(recorder, "EVENTS_BOUND", 50)
    monkeypatch.setattr(recorder, "PATHS_BOUND", 5)
    async with phone(*talker("Good.", first=0.001)) as p:
        for number in range(12):
            p.turn(f"turn {number}")
            await asyncio.sleep(0.6)
    trace = p.call.trace
    assert len(trace.events) == 50
    assert [path.asked for path in trace.paths] == [f"turn {number}" for number in range(7, 12)]
    assert trace.events[-1].kind == "end"
    assert (trace._live, trace._voiced, trace._plays) == ({}, {}, {})


async def test_a_listener_that_fails_disturbs_nobody(virtual_time):
    heard: list[Event] = []

    def breaks(event: Event) -> None:
        raise RuntimeError("no")

    def prepare(call: Call) -> None:
        call.trace.listeners += [breaks, heard.append]

    async with phone(*talker("Good."), prepare=prepare) as p:
        p.turn()
        await asyncio.sleep(2)
    assert p.result is not None
    assert p.result.fault is None
    assert heard == list(p.call.trace.events)
    notes = [event for event in heard if event.kind == "note"]
    assert [note.detail for note in notes] == ["a listener failed and is left out: RuntimeError"]


def test_notes_and_times():
    now = [100.0]
    trace = Recorder(lambda: now[0], str)
    now[0] = 101.5
    trace.note("Voice", "reconnected")
    (event,) = trace.events
    assert (event.at, event.kind, event.owner, event.detail) == (1.5, "note", "Voice", "reconnected")


def test_the_caller_spoke_last_when_the_call_began():
    """0.0 is a time like any other."""
    from voiceflow.engine import turns

    now = [5.0]
    trace = Recorder(lambda: now[0], str)
    trace.evidence("Turner", 5.0)
    now[0] = 6.0
    trace.action(turns.TurnFinished(1, "hi"))
    assert trace.events[0].figures == {"since_speech": 1.0}
    trace.evidence("Turner", 7.0)  # a clock that runs ahead
    trace.action(turns.TurnFinished(2, "hi"))
    assert trace.events[1].figures == {"since_speech": 0.0}
