"""The declaration check: each thing that cannot work is refused with what to insert where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from voiceflow.call import Call
from voiceflow.declaration.check import check
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.errors import DeclarationError
from voiceflow.frames import (
    AgentFrame,
    AudioOut,
    CallerFrame,
    ControlFrame,
    Frame,
    Heard,
    Interrupt,
    Prompt,
    ReplyEnd,
    Sentence,
    Token,
    Transcript,
    TurnEnd,
    VoiceStart,
    Way,
)
from voiceflow.testing.line import MemoryCodec


class Detector(Processor):
    emits = (VoiceStart,)


class Turner(Processor):
    needs = (VoiceStart,)
    takes_turns = True


class Recogniser(Processor):
    emits = (Transcript,)
    takes_turns = True


class Model(Processor):
    emits = (Token, ReplyEnd)

    @on(Prompt, stops=True)
    def answer(self, prompt: Prompt) -> None: ...


class Aggregator(Processor):
    emits = (Sentence,)

    @on(Token, stops=True)
    def token(self, token: Token) -> None: ...


class Voice(Processor):
    emits = (AudioOut,)

    @on(Sentence, stops=True)
    def speak(self, sentence: Sentence) -> None: ...


class Player(Processor):
    """Speaks by itself, so that chains below need not be whole."""

    emits = (AudioOut,)


def refuse(*middle: Processor, ends: bool = True) -> str:
    call = Call(MemoryCodec())
    chain = (call.source(), *middle, call.sink()) if ends else middle
    with pytest.raises(DeclarationError) as refused:
        Pipeline(*chain)
    return str(refused.value)


def accept(*middle: Processor) -> Pipeline:
    call = Call(MemoryCodec())
    return Pipeline(call.source(), *middle, call.sink())


def test_a_whole_chain_is_accepted() -> None:
    pipeline = accept(Detector(), Turner(), Model(), Aggregator(), Voice())
    assert pipeline.warnings == []
    assert pipeline.authority == 2
    assert (pipeline.source, pipeline.sink) == (pipeline.chain[0], pipeline.chain[-1])
    assert repr(pipeline) == "Pipeline(LineSource, Detector, Turner, Model, Aggregator, Voice, LineSink)"
    assert accept(Recogniser(), Model(), Aggregator(), Voice()).warnings == []


def test_what_is_not_a_processor_or_stands_there_twice() -> None:
    assert "position 1 of the pipeline is <class" in refuse(Model)  # type: ignore[arg-type]
    assert "not a processor: write Model()" in refuse(Model)  # type: ignore[arg-type]
    assert "write a Processor" in refuse("Model")  # type: ignore[arg-type]
    voice = Voice()
    assert "the same processor stands twice in the pipeline: make two of them" in refuse(voice, voice)


def test_the_ends() -> None:
    call = Call(MemoryCodec())
    with pytest.raises(DeclarationError, match="the pipeline is empty"):
        Pipeline()
    with pytest.raises(DeclarationError, match="begins with Detector, so no call reaches it"):
        Pipeline(Detector(), call.sink())
    with pytest.raises(DeclarationError, match="ends with Detector, so the caller hears nothing"):
        Pipeline(call.source(), Detector())
    assert "LineSource stands in the middle of the pipeline: it belongs first" in refuse(call.source())
    assert "LineSink stands in the middle of the pipeline: it belongs last" in refuse(call.sink())


def test_two_authorities() -> None:
    message = refuse(Detector(), Turner(), Recogniser())
    assert "Turner and Recogniser both decide whose turn it is: keep one of them" in message


def test_what_is_needed_and_made_nowhere() -> None:
    assert refuse(Turner()) == (
        "Turner needs VoiceStart, but nothing upstream of it makes any: insert a voice activity detector "
        "such as SileroVAD() after the source before Turner"
    )
    assert refuse(Detector(), Turner(), Model(), Voice()) == (
        "Voice needs Sentence, but nothing upstream of it makes any: insert a sentence aggregator after the "
        "language model before Voice"
    )
    assert refuse(Detector(), Model()).startswith(
        "Model needs Prompt, but nothing upstream of it makes any: insert a turn authority such as VADTurns()"
    )


def test_a_chain_that_never_speaks() -> None:
    """It may be meant, for a recorder; where something speaks, what is missing in between is told."""
    call = Call(MemoryCodec())
    assert Pipeline(call.source(), Detector(), Turner(), call.sink()).warnings == [
        "nothing in this chain speaks: the caller hears nothing"
    ]
    assert "LineSink needs AudioOut" in refuse(Detector(), Turner(), Model())


def test_what_is_made_too_late() -> None:
    assert refuse(Turner(), Detector()) == (
        "Turner needs VoiceStart, but nothing upstream of it makes any: Detector does, so put it "
        "before Turner"
    )
    assert refuse(Detector(), Model(), Turner()) == (
        "Model needs Prompt, but nothing upstream of it makes any: Turner decides the turns, so put it "
        "before Model"
    )


def test_a_frame_of_the_users_own_without_a_maker() -> None:
    @dataclass(slots=True)
    class Mood(CallerFrame):
        text: str

    class Uses(Processor):
        needs = (Mood,)

    class Hears(Processor):
        @tap(Mood)
        def look(self, frame: Mood) -> None: ...

    for processor in (Uses(), Hears()):
        assert f"{type(processor).__name__} needs Mood" in refuse(processor)
        assert "insert a processor whose `emits` has Mood" in refuse(processor)


def test_upstream_frames_are_looked_for_downstream() -> None:
    class Idle(Processor):
        @on(Heard)
        def heard(self, frame: Heard) -> None: ...

    accept(Player(), Idle())

    @dataclass(slots=True)
    class Backwards(ControlFrame):
        way = Way.UP

    class Wants(Processor):
        needs = (Backwards,)

    assert "Wants needs Backwards, but nothing downstream of it makes any" in refuse(Wants())


def test_what_the_engine_makes_is_there_for_everybody() -> None:
    class Everything(Processor):
        @tap(Frame)
        def any(self, frame: Frame) -> None: ...

    class Interrupted(Processor):
        @on(Interrupt)
        def interrupted(self, frame: Interrupt) -> None: ...

    class OfAgents(Processor):
        @on(AgentFrame)
        def agent(self, frame: AgentFrame) -> AgentFrame:
            return frame

    class Nothing(Processor):
        pass

    accept(Player(), Everything(), Interrupted(), OfAgents(), Nothing())


def test_one_of_several_handled_types_is_enough_unless_needs_says_more() -> None:
    class Either(Processor):
        @tap(Transcript, TurnEnd)
        def look(self, frame: Any) -> None: ...

    class Both(Either):
        needs = (Transcript, TurnEnd)

    accept(Player(), Detector(), Turner(), Either())
    assert "Both needs Transcript" in refuse(Detector(), Turner(), Both())


def test_reply_end_that_would_get_lost() -> None:
    class Eats(Processor):
        @on(ReplyEnd, stops=True)
        def end(self, frame: ReplyEnd) -> None: ...

    message = refuse(Recogniser(), Model(), Eats())
    assert message.startswith(
        "Eats takes ReplyEnd and never gives it again, so the reply would never be over"
    )

    class Gives(Eats):
        emits = (ReplyEnd,)

    accept(Recogniser(), Model(), Aggregator(), Voice(), Gives())


def test_reply_end_that_would_overtake_what_a_background_task_pushes() -> None:
    class Socket(Processor):
        pushes = (AudioOut,)

        @on(Sentence, stops=True)
        def speak(self, sentence: Sentence) -> None: ...

    message = refuse(Recogniser(), Model(), Aggregator(), Socket())
    assert "Socket pushes AudioOut from a background task, so ReplyEnd would overtake them" in message
    assert "@on(ReplyEnd, stops=True)" in message

    class Careful(Socket):
        pushes = (AudioOut, ReplyEnd)

        @on(ReplyEnd, stops=True)
        def end(self, frame: ReplyEnd) -> None: ...

    accept(Recogniser(), Model(), Aggregator(), Careful())


def test_what_nobody_takes_is_suspicious_only() -> None:
    assert accept(Recogniser(), Model(), Player()).warnings == ["nothing after Model takes its Token"]


def test_needs_emits_and_pushes_list_frame_types() -> None:
    for name in ("needs", "emits", "pushes"):
        with pytest.raises(DeclarationError, match="list frame types, not 'Token'"):
            type("Wrong", (Processor,), {name: ("Token",)})


def test_parts_of_a_chain_need_neither_ends_nor_makers() -> None:
    assert Pipeline(Aggregator(), Voice(), parts=True).authority == -1
    assert check([Voice()], parts=True) == ["nothing after Voice takes its AudioOut"]
