"""Callers who fall silent, press keys, or talk for too long, and tools that take a while: whole calls with
the full agent, in virtual time and over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from processors.elevenlabs import ElevenLabsTTS
from processors.filler import Filler
from processors.flux import FluxSTT
from processors.idle import REASON as SILENT
from processors.idle import Cue, IdlePrompts
from processors.keypad import Keypad
from processors.keypad.keypad import STATE
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from processors.time_limit import REASON as LIMIT
from processors.time_limit import TimeLimit
from tests.e2e.agents import GREETING, environment
from tests.e2e.conversation import Make, Phone, real, virtual
from tests.vendors.openai import FakeOpenAI, ToolCall
from tests.vendors.server import OPENAI_KEY, Vendors
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor
from voiceflow.tools import Tool, ToolUse, end_call, tool

LINES = ("Are you still there?", "Can you hear me?")
BYE = "I will hang up now. Goodbye!"
VOICE = 0.3
"""Seconds that the voice may take from a line to its sound, and the line to tell that it was played."""

Script = Callable[[Phone], Awaitable[None]]


def agent(
    *,
    keys: Keypad | None = None,
    behind: Sequence[Processor] = (),
    filler: Filler | None = None,
    tools: Sequence[Tool] = (),
    greeting: str = GREETING,
) -> Pipeline | Any:
    """`make(call)`: the full agent with these in their places. For one call."""

    def make(call: Call) -> Pipeline:
        return Pipeline(
            call.source(),
            FluxSTT(),
            *([keys] if keys is not None else []),
            ChatLLM(instructions="You sell bread.", greeting=greeting, tools=tools),
            *behind,
            SentenceAggregator(),
            *([filler] if filler is not None else []),
            ElevenLabsTTS(),
            call.sink(),
        )

    return make


def model(answer: Any) -> Vendors:
    """Fakes with a model that answers with `answer(messages)`."""
    return Vendors(llm=FakeOpenAI(key=OPENAI_KEY, reply=answer, ttft=0.1, gap=0.01))


def last(messages: list[dict[str, Any]]) -> str:
    return str(messages[-1]["content"])


async def in_virtual_time(fakes: Vendors, make: Make, script: Script, **line: float) -> Phone:
    with environment(fakes):
        async with virtual(fakes, make, line=line) as phone:
            await script(phone)
    return phone


def over_sockets(fakes: Vendors, make: Callable[[], Make], script: Script) -> Phone:
    """`make` makes a pipeline function for each call: the warm-up is one too."""

    async def call() -> Phone:
        async with fakes:
            with environment(fakes):
                async with real(fakes, lambda call: make()(call)) as phone:
                    await script(phone)
        return phone

    return asyncio.run(asyncio.wait_for(call(), 60))


async def hung_up(phone: Phone, limit: float = 60.0) -> None:
    await phone.until(lambda: phone.stream.ended_by is not None, "the agent hangs up", limit)


def pauses(phone: Phone) -> list[float]:
    """How long the agent was silent before each time that it began to be heard again."""
    events = [e for e in phone.report.events if e.kind in ("agent heard", "agent silent")]
    return [
        after.at - before.at
        for before, after in pairwise(events)
        if (before.kind, after.kind) == ("agent silent", "agent heard")
    ]


def at(phone: Phone, kind: str) -> float:
    """When this happened last, in seconds of the call."""
    return max(e.at for e in phone.report.events if e.kind == kind)


def squeezed(text: str) -> str:
    return "".join(text.split())


# -- the caller falls silent


def check_silence(phone: Phone, wait: float, *said: str) -> None:
    assert phone.said_by_agent() == list(said)
    assert squeezed(phone.ear()) == squeezed("".join(said)), "heard to its end"
    assert len(pauses(phone)) == len(said) - 1
    for pause in pauses(phone):
        assert pause >= wait - 0.02, "counted from the end of playback"
    assert at(phone, "stream closed by server") >= at(phone, "agent silent")
    assert phone.result is not None
    assert phone.result.reason == SILENT
    assert phone.result.fault is None


@pytest.mark.parametrize("delay", [0.0, 0.15])
async def test_a_caller_who_falls_silent(virtual_time: None, delay: float) -> None:
    make = agent(behind=[IdlePrompts(8.0, LINES, BYE)])
    phone = await in_virtual_time(Vendors(), make, hung_up, delay_out=delay, delay_in=delay)
    check_silence(phone, 8.0, GREETING, *LINES, BYE)
    for pause in pauses(phone):
        assert pause == pytest.approx(8.0 + VOICE / 2, abs=VOICE / 2)


def test_a_caller_who_falls_silent_over_real_sockets() -> None:
    def make() -> Make:
        return agent(greeting="Hello.", behind=[IdlePrompts(0.6, ("There?",), "Bye, then!")])

    check_silence(over_sockets(Vendors(), make, hung_up), 0.6, "Hello.", "There?", "Bye, then!")


async def test_a_caller_who_answers_the_question_is_asked_anew_only_after_another_silence(
    virtual_time: None,
) -> None:
    async def script(phone: Phone) -> None:
        await phone.hears(LINES[0], 20)
        await phone.said("Yes, just a second.")
        await phone.hears_since("Take your time.")
        await phone.hears_since(LINES[0], 20)
        assert phone.said_by_agent()[:3] == [GREETING, LINES[0], "Take your time."]

    fakes = model(lambda messages: "Take your time.")
    phone = await in_virtual_time(fakes, agent(behind=[IdlePrompts(8.0, LINES, BYE)]), script)
    assert LINES[1] not in phone.said_by_agent()


async def test_a_caller_who_speaks_during_the_goodbye_is_not_hung_up_on(virtual_time: None) -> None:
    async def script(phone: Phone) -> None:
        await phone.hears("I will hang up now.", 60)
        await phone.said("Wait, wait!")
        await phone.hears_since("I am here.")
        assert phone.stream.ended_by is None
        assert phone.said_by_caller() == ["Wait, wait!"]
        assert BYE not in phone.said_by_agent()

    fakes = model(lambda messages: "I am here.")
    phone = await in_virtual_time(fakes, agent(behind=[IdlePrompts(3.0, LINES, BYE)]), script)
    assert phone.stream.ended_by == "caller"


async def test_the_model_finds_the_words_itself(virtual_time: None) -> None:
    def answer(messages: list[dict[str, Any]]) -> str:
        return "Hello? Anybody?" if "silent" in last(messages) else "?"

    idle = IdlePrompts(5.0, (Cue("The caller is silent. Ask if they are there."),), None)
    phone = await in_virtual_time(
        model(answer), agent(behind=[idle]), lambda phone: phone.hears("Hello? Anybody?", 20)
    )
    assert phone.said_by_agent()[0] == GREETING
    assert phone.said_by_caller() == []


# -- the caller presses keys

MENU = "For bread press one, for cakes press two, and for all other things stay on the line."


def answers_keys(messages: list[dict[str, Any]]) -> str:
    return "Two it is." if "pressed 2 #" in last(messages) or "pressed 2" in last(messages) else MENU


async def presses_during_the_menu(phone: Phone) -> None:
    await phone.hears(GREETING)
    await phone.said("Hello.")
    await phone.hears("For bread press one, for")
    phone.press("2#")
    await phone.hears_since("Two it is.")
    await phone.quiet(0.3)


def check_menu(phone: Phone) -> None:
    assert phone.said_by_caller() == ["Hello.", "(The caller pressed 2.)"]
    greeting, menu, answer = phone.said_by_agent()
    assert greeting == GREETING
    assert menu.startswith("For bread press one,")
    assert len(menu) < len(MENU) - 20, "the first key stopped it"
    assert answer == "Two it is."
    ear = squeezed(phone.ear())
    assert ear.startswith(squeezed(greeting + menu))
    assert ear.endswith(squeezed(answer))
    assert phone.result is not None
    assert phone.result.fault is None


async def test_keys_during_speech(virtual_time: None) -> None:
    check_menu(await in_virtual_time(model(answers_keys), agent(keys=Keypad()), presses_during_the_menu))


def test_keys_during_speech_over_real_sockets() -> None:
    check_menu(over_sockets(model(answers_keys), lambda: agent(keys=Keypad()), presses_during_the_menu))


def wants_a_pin(messages: list[dict[str, Any]]) -> Any:
    if messages[-1]["role"] == "tool" or "(The caller" in last(messages):
        return "Thank you."
    return ["Your pin, ", "please. ", ToolCall("collect_keys", '{"digits": 4}', "call_1")]


async def types_a_pin(phone: Phone) -> None:
    await phone.hears(GREETING)
    await phone.said("I want to pay.")
    await phone.hears("Your pin, please.")
    await phone.quiet(2.5)  # longer than a filler would wait
    phone.press("9753#")
    await phone.hears_since("Thank you.")
    await asyncio.sleep(3.0)


@pytest.mark.parametrize("secret", [False, True])
async def test_a_model_that_asks_for_keys(virtual_time: None, secret: bool) -> None:
    fakes = model(wants_a_pin)
    keys = Keypad(secret=secret)
    make = agent(keys=keys, tools=[keys.collect], filler=Filler(), behind=[IdlePrompts(2.0, LINES, BYE)])
    phone = await in_virtual_time(fakes, make, types_a_pin)
    assert phone.said_by_caller() == ["I want to pay."]
    (use,) = [entry for entry in phone.call.history.messages if isinstance(entry, ToolUse)]
    assert use.result == ("entered, 4 digits" if secret else "9 7 5 3")
    asked = [request.messages for request in fakes.llm.requests if request.messages]
    assert len(asked) == 2
    assert asked[1][-1]["content"] == use.result
    if secret:
        assert phone.call.state[STATE] == "9753"
        everything = str(asked) + str(vars(phone.call.trace))
        assert "9753" not in everything
        assert "9 7 5 3" not in everything
    assert squeezed(phone.ear()).startswith(squeezed(GREETING + "Your pin, please. Thank you."))


async def test_a_pin_typed_while_it_is_asked_for(virtual_time: None) -> None:
    async def script(phone: Phone) -> None:
        await phone.hears(GREETING)
        await phone.said("I want to pay.")
        await phone.hears("Your pin")
        phone.press("9753")
        await phone.hears_since("Thank you.")
        await asyncio.sleep(20.0)

    fakes = model(wants_a_pin)
    keys = Keypad()
    phone = await in_virtual_time(fakes, agent(keys=keys, tools=[keys.collect]), script)
    assert phone.said_by_caller() == ["I want to pay.", "(The caller pressed 9 7 5 3.)"]
    assert phone.said_by_agent()[-1] == "Thank you."
    assert phone.ear().count("Thank you.") == 1


# -- a limit on the call's length


def limited(seconds: float, warn: float) -> Make:
    return agent(behind=[TimeLimit(seconds, warn, "Nearly over.", "Time is up. Goodbye!")])


def check_limit(phone: Phone, seconds: float, warn: float) -> None:
    assert phone.said_by_agent() == [GREETING, "Nearly over.", "Time is up. Goodbye!"]
    assert squeezed(phone.ear()).endswith(squeezed("Nearly over. Time is up. Goodbye!"))
    assert at(phone, "stream closed by server") >= at(phone, "agent silent")
    assert phone.result is not None
    assert phone.result.reason == LIMIT
    heard = [e.at for e in phone.report.events if e.kind == "agent heard"]
    assert heard[-2] >= seconds - warn - 0.05
    assert heard[-1] >= seconds - 0.05


async def test_a_limit_on_the_call_s_length(virtual_time: None) -> None:
    phone = await in_virtual_time(Vendors(), limited(120.0, 60.0), lambda phone: hung_up(phone, 200.0))
    check_limit(phone, 120.0, 60.0)
    heard = [e.at for e in phone.report.events if e.kind == "agent heard"]
    assert heard[-2:] == [pytest.approx(60.0, abs=VOICE), pytest.approx(120.0, abs=VOICE)]


def test_a_limit_on_the_call_s_length_over_real_sockets() -> None:
    check_limit(over_sockets(Vendors(), lambda: limited(4.0, 1.6), hung_up), 4.0, 1.6)


async def test_a_caller_who_talks_over_the_last_goodbye_hears_all_of_it(virtual_time: None) -> None:
    async def script(phone: Phone) -> None:
        await phone.hears("Time is up.", 60.0)
        phone.say("No, no, no, wait, please.")
        await hung_up(phone)

    phone = await in_virtual_time(Vendors(), limited(20.0, 10.0), script)
    assert squeezed(phone.ear()).endswith(squeezed("Time is up. Goodbye!"))
    assert phone.result is not None
    assert phone.result.reason == LIMIT


# -- a tool that takes a while


def reserving(seconds: float) -> Tool:
    @tool(effect="commit")
    async def reserve(what: str) -> str:
        """Reserves something."""
        await asyncio.sleep(seconds)
        return f"{what} is reserved"

    return reserve


def reserves(messages: list[dict[str, Any]]) -> Any:
    if messages[-1]["role"] == "tool":
        return "It is reserved."
    return ["I will look. ", ToolCall("reserve", '{"what": "rye"}', "call_1")]


def orders(greeting: str) -> Script:
    async def script(phone: Phone) -> None:
        await phone.hears(greeting)
        await phone.said("One loaf, please.")
        await phone.hears("It is reserved.")
        await phone.quiet(0.5)

    return script


def check_filler(phone: Phone, greeting: str) -> None:
    assert phone.said_by_agent() == [greeting, "I will look. One moment, please. It is reserved."]
    assert squeezed(phone.ear()) == squeezed("".join(phone.said_by_agent()))
    assert phone.result is not None
    assert phone.result.figures["Filler.fillers"] == 1


async def test_a_filler_while_a_tool_runs(virtual_time: None) -> None:
    phone = await in_virtual_time(
        model(reserves), agent(filler=Filler(), tools=[reserving(4.0)]), orders(GREETING)
    )
    check_filler(phone, GREETING)
    events = [e for e in phone.report.events if e.kind in ("agent heard", "agent silent")]
    looked = events[2:4]
    assert [e.kind for e in looked] == ["agent heard", "agent silent"]
    assert events[4].at - looked[1].at == pytest.approx(1.5 + VOICE / 2, abs=VOICE / 2)


def test_a_filler_while_a_tool_runs_over_real_sockets() -> None:
    def make() -> Make:
        return agent(greeting="Hello.", filler=Filler(0.4), tools=[reserving(2.0)])

    check_filler(over_sockets(model(reserves), make, orders("Hello.")), "Hello.")


async def test_a_filler_is_interrupted_like_all_that_is_said(virtual_time: None) -> None:
    async def script(phone: Phone) -> None:
        await phone.hears(GREETING)
        await phone.said("One loaf, please.")
        await phone.hears("One moment,")
        await phone.said("Are you there?")
        await phone.hears_since("A little patience.")
        await phone.quiet(10.0)

    def answer(messages: list[dict[str, Any]]) -> Any:
        if last(messages) == "Are you there?":
            return "I am. A little patience."
        return reserves(messages)

    phone = await in_virtual_time(model(answer), agent(filler=Filler(), tools=[reserving(4.0)]), script)
    believed = phone.said_by_agent()
    assert believed[1].startswith("I will look. One moment,")
    assert squeezed(phone.ear()).startswith(squeezed(GREETING + believed[1]))
    assert phone.said_by_agent()[2:] == ["I am. A little patience."], "no other filler"


# -- the model hangs up


async def test_the_model_s_goodbye_is_heard_to_its_end(virtual_time: None) -> None:
    def answer(messages: list[dict[str, Any]]) -> Any:
        return ["Thank you for calling, ", "and goodbye. ", ToolCall("end_call", "{}", "call_1")]

    async def script(phone: Phone) -> None:
        await phone.hears(GREETING)
        await phone.said("That is all.")
        await hung_up(phone)

    phone = await in_virtual_time(
        model(answer), agent(tools=[end_call()], behind=[IdlePrompts(8.0, LINES, BYE)]), script
    )
    assert squeezed(phone.ear()).endswith(squeezed("Thank you for calling, and goodbye."))
    assert phone.said_by_agent()[-1] == "Thank you for calling, and goodbye."
    assert at(phone, "stream closed by server") >= at(phone, "agent silent")
    assert phone.result is not None
    assert phone.result.normal
