"""Where processors stand to each other: what cannot do its work there is refused, with where to put it."""

from __future__ import annotations

from typing import Any

import pytest

from processors.barge_in import BargeIn
from processors.filler import Filler
from processors.idle import IdlePrompts
from processors.keypad import Keypad
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from processors.time_limit import TimeLimit
from voiceflow.call import Call
from voiceflow.declaration.drawing import draw
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.errors import DeclarationError
from voiceflow.frames import (
    AudioOut,
    Prompt,
    ReplyEnd,
    Sentence,
    Token,
    ToolEnd,
    ToolStart,
    Transcript,
    VoiceStart,
    VoiceStop,
)
from voiceflow.testing.line import MemoryCodec


class Detector(Processor):
    emits = (VoiceStart, VoiceStop)


class Ears(Processor):
    emits = (Transcript,)
    takes_turns = True


class Model(Processor):
    emits = (Token, ReplyEnd, ToolStart, ToolEnd)

    @on(Prompt, stops=True)
    def answer(self, prompt: Prompt) -> None: ...


class Voice(Processor):
    emits = (AudioOut,)

    @on(Sentence, stops=True)
    def speak(self, sentence: Sentence) -> None: ...


class Adds(Processor):
    @on(Prompt)
    def add(self, prompt: Prompt) -> Prompt:
        return prompt


def pipeline(*middle: Processor) -> Pipeline:
    call = Call(MemoryCodec())
    return Pipeline(call.source(), *middle, call.sink())


def refuse(*middle: Processor) -> str:
    with pytest.raises(DeclarationError) as refused:
        pipeline(*middle)
    return str(refused.value)


def test_everything_in_its_place() -> None:
    whole = pipeline(
        *(Detector(), Ears(), BargeIn(), Keypad(), Adds(), Model(), IdlePrompts(), TimeLimit()),
        *(SentenceAggregator(), Filler(), Voice()),
    )
    assert whole.warnings == []


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (
            (Ears(), IdlePrompts(), Model(), SentenceAggregator(), Voice()),
            "IdlePrompts stands before Model, so it does not see its ToolStart: put IdlePrompts behind Model",
        ),
        (
            (Ears(), BargeIn(), Detector(), Model(), SentenceAggregator(), Voice()),
            "BargeIn stands before Detector, so it does not see its VoiceStart: put BargeIn behind Detector",
        ),
        (
            (Keypad(), Ears(), Model(), SentenceAggregator(), Voice()),
            "Keypad stands before Ears, so it does not see its TurnEnd: put Keypad behind Ears",
        ),
        (
            (TimeLimit(), Ears(), Model(), SentenceAggregator(), Voice()),
            "TimeLimit stands before Ears, so it does not see its TurnEnd: put TimeLimit behind Ears",
        ),
        (
            (Ears(), Filler(), Model(), SentenceAggregator(), Voice()),
            "Filler stands before Model, so it does not see its ToolStart: put Filler behind Model",
        ),
        (
            (Ears(), Model(), Filler(), SentenceAggregator(), Voice()),
            (
                "Filler stands before SentenceAggregator, so it does not see its Sentence: "
                "put Filler behind SentenceAggregator"
            ),
        ),
        (
            (Ears(), Model(), SentenceAggregator(), Voice(), Filler()),
            "Filler stands behind Voice, so nobody speaks its Sentence: put Filler before Voice",
        ),
        (
            (Ears(), Model(), SentenceAggregator(), Filler()),
            "nobody speaks the Sentence of Filler: insert a text-to-speech behind it",
        ),
        (
            (Ears(), Model(), Keypad(), SentenceAggregator(), Voice()),
            "Keypad takes Prompt, but stands behind Model, which answers them: put Keypad before Model",
        ),
        (
            (Ears(), Keypad(), Keypad(), Model(), SentenceAggregator(), Voice()),
            "Keypad stands twice in the pipeline, and both would do the same work: keep one of them",
        ),
    ],
)
def test_what_is_out_of_place(middle: tuple[Processor, ...], message: str) -> None:
    assert refuse(*middle) == message


def test_a_subclass_is_the_second_one_too() -> None:
    class Mine(Keypad):
        pass

    assert refuse(Ears(), Keypad(), Mine()).startswith("Keypad stands twice in the pipeline")


def test_where_there_is_no_maker_a_want_is_none() -> None:
    assert pipeline(Ears(), BargeIn(), Keypad()).warnings == [
        "nothing in this chain speaks: the caller hears nothing"
    ]
    pipeline(Ears(), IdlePrompts(), TimeLimit(), Voice())


def test_who_answers_some_prompts_may_stand_before_who_adds_to_the_others() -> None:
    class Answers(Adds):
        emits = (Token, ReplyEnd)

    pipeline(Ears(), Answers(), Adds(), Model(), SentenceAggregator(), Voice())
    assert refuse(Ears(), Answers(), Adds(), SentenceAggregator(), Voice()).startswith("Adds takes Prompt")
    pipeline(Ears(), Adds())  # nobody answers at all: turns are only listened to


def test_who_looks_for_what_is_made_behind_it_is_told_so() -> None:
    class Looks(Processor):
        @tap(Transcript, VoiceStart, VoiceStop)
        def look(self, frame: Any) -> None: ...

    chain = (Ears(), Looks(), Detector(), Model(), SentenceAggregator(), Voice())
    assert pipeline(*chain).warnings == [
        (
            "Looks stands before Detector and does not see its VoiceStart, VoiceStop: "
            "put it behind Detector if it should"
        )
    ]


def test_a_tool_of_a_processor_that_is_not_there() -> None:
    keys = Keypad()
    rest = (SentenceAggregator(), Voice())
    assert refuse(Ears(), ChatLLM(tools=[keys.collect]), *rest) == (
        "ChatLLM offers collect_keys, a tool of a Keypad that is not in the pipeline: put that Keypad into it"
    )
    chain = pipeline(Ears(), keys, ChatLLM(tools=[keys.collect]), *rest)
    assert "tools  collect_keys (commit)" in draw(chain)


def test_wants_list_frame_types() -> None:
    with pytest.raises(DeclarationError, match="list frame types, not 'Token'"):
        type("Wrong", (Processor,), {"wants": ("Token",)})
