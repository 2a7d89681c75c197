"""ChatLLM with tools: the loop of requests and calls in one reply, over memory and over sockets.

Every request that any fake here received is checked to be a conversation that a strict server takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from processors.openai import ChatLLM, Model
from processors.openai.endpoint import _repeats
from processors.sentences import SentenceAggregator
from tests.chat_calls import KEY, MEMORY, Desk, Script, finish, real, serving, sse
from tests.tool_talks import LOOK, SURE, TOOLS, all_valid, asking, look_up, results, talks, trouble, weather
from tests.vendors.completions import Answer
from tests.vendors.openai import FakeOpenAI, Fault, ToolCall
from voiceflow import Processor, Prompt, ReplyEnd, Sentence, on
from voiceflow.errors import DeclarationError
from voiceflow.frames import ToolEnd, ToolStart
from voiceflow.services import Services
from voiceflow.testing import Rig, check_processor
from voiceflow.testing.pytest_plugin import VirtualTime
from voiceflow.tools import UseState, tool
from voiceflow.vendor import Key

SORRY = "I'm sorry, something went wrong. Could you say that again?"


@pytest.fixture(autouse=True)
def checked() -> Iterator[None]:
    with all_valid():
        yield


# -- the loop


async def test_a_tool_s_result_streams_into_the_answer(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(talks([LOOK, ToolCall("look_up", '{"day": "Monday"}')], SURE), key=KEY)
    async with Desk(fake, tools=TOOLS) as desk:
        assert await desk.answered(text="When?") == f"{LOOK}\n{SURE}"
        first, second = fake.requests
        assert [each["function"]["name"] for each in first.parameters["tools"]] == [t.name for t in TOOLS]
        assert second.messages == [
            {"role": "user", "content": "When?"},
            {
                "role": "assistant",
                "content": LOOK,
                "tool_calls": [
                    {
                        "id": "call_chatcmpl-1_0",
                        "type": "function",
                        "function": {"name": "look_up", "arguments": '{"day": "Monday"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_chatcmpl-1_0", "content": "Monday: nine to five"},
        ]
        assert second.arrived == first.ended + 0.5  # nothing of ours in between
        assert [when for when, _ in desk.times.tokens[-len(second.sent) :]] == [at for at, _ in second.sent]
        assert len(desk.rig.got(ReplyEnd)) == 1
        assert [frame.use.state for frame in desk.rig.got(ToolEnd)] == [UseState.DONE]
        counted = desk.llm.figures()
        assert [counted[name] for name in ("requests", "tools", "failed", "cancelled")] == [2, 1, 0, 0]
        assert counted["completion_tokens"] == len(first.sent) + len(second.sent)


async def test_what_was_said_before_is_spoken_while_the_tool_runs(virtual_time: VirtualTime) -> None:
    """Also while its arguments still come, and though it does not end a sentence."""
    fake = FakeOpenAI(talks(["Let me", " see", ToolCall("look_up", '{"day": "Monday"}')], SURE), gap=0.1)
    llm = ChatLLM(tools=TOOLS, **MEMORY)
    spoken: list[tuple[float, str]] = []

    class Ear(Processor):
        @on(Sentence)
        def hear(self, sentence: Sentence) -> Sentence:
            spoken.append((self.call.loop.time(), sentence.text))
            return sentence

    async with Rig(llm, SentenceAggregator(), Ear(), services=Services(transport=fake.transport)) as rig:
        rig.push(Prompt("When?", reply=rig.reply()))
        await asyncio.sleep(10)
        (first, _) = fake.requests
        assert spoken[0] == (first.sent[2][0], "Let me see")  # with the first piece of the call
        assert spoken[1][1] == SURE
        assert first.ended is not None
        assert spoken[0][0] < first.ended


async def test_only_calls_and_no_words_are_an_answer_too(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(talks(asking(ToolCall("look_up", '{"day": "Monday"}')), SURE))
    async with Desk(fake, tools=TOOLS) as desk:
        assert await desk.answered() == SURE
        assert fake.requests[1].messages[1]["content"] is None
        assert desk.notes() == []


async def test_several_calls_in_one_turn_run_side_by_side(virtual_time: VirtualTime) -> None:
    calls = [ToolCall("look_up", '{"day": "Monday"}'), ToolCall("weather", '{"place": "Rome"}')]
    fake = FakeOpenAI(talks(asking(*calls, ToolCall("broken")), SURE))
    async with Desk(fake, tools=TOOLS) as desk:
        assert await desk.answered() == SURE
        first, second = fake.requests
        assert second.arrived == first.ended + 0.5
        assert len(second.messages[1]["tool_calls"]) == 3
        assert results(desk.fake.requests[1].messages) == [
            "Monday: nine to five",
            "Sun in Rome",
            "It failed: the books are closed",
        ]


@pytest.mark.parametrize("blank", ["null", "absent"])
async def test_fragments_without_an_index(virtual_time: VirtualTime, blank: Any) -> None:
    calls = [ToolCall("look_up", '{"day": "Monday"}'), ToolCall("weather", '{"place": "Rome"}')]
    fake = FakeOpenAI(talks(asking(*calls), SURE), usual=Fault(index=False, blank=blank, finish="stop"))
    async with Desk(fake, tools=TOOLS) as desk:
        assert await desk.answered() == SURE
        assert results(desk.fake.requests[1].messages) == ["Monday: nine to five", "Sun in Rome"]


async def test_a_server_that_gives_no_ids(virtual_time: VirtualTime) -> None:
    call = {"function": {"name": "look_up", "arguments": {"day": "Monday"}}}
    script = Script(sse(finish("stop", tool_calls=[call, call])), sse(SURE, finish()))
    async with Desk(services=Services(transport=script), tools=TOOLS) as desk:
        assert await desk.answered() == SURE
        assert trouble(script.asked[1]["messages"]) == ""
        ids = [each["id"] for each in script.asked[1]["messages"][1]["tool_calls"]]
        assert len(set(ids)) == 2
        assert all(len(id) == 9 and id.isalnum() for id in ids)


async def test_what_a_model_gets_wrong_is_told_to_it(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(
        talks(
            asking(
                ToolCall("fly_to", "{}"),
                ToolCall("look_up", '{"day": '),
                ToolCall("look_up", "{}"),
                ToolCall("not a name", "[1]"),
            ),
            asking(ToolCall("look_up", '{"day": "Monday"}')),
            SURE,
        )
    )
    async with Desk(fake, tools=TOOLS) as desk:
        assert await desk.answered() == SURE
        unknown, cut, missing, nameless = results(desk.fake.requests[1].messages)
        assert unknown == "There is no tool fly_to. There are: look_up, weather, broken, book."
        assert cut.startswith("The arguments are not valid JSON")
        assert missing == "The arguments are wrong:\nday: it is missing"
        assert nameless.startswith("There is no tool not a name")
        assert results(desk.fake.requests[2].messages)[-1] == "Monday: nine to five"
        states = [use.state for use in desk.rig.call.history.messages]
        assert states == [UseState.REFUSED] * 4 + [UseState.DONE]
        counted = desk.llm.figures()
        assert (counted["requests"], counted["tools"], counted["tools_refused"]) == (3, 5, 4)


async def test_the_rounds_come_to_an_end(virtual_time: VirtualTime) -> None:
    """In the last one the model may not call anything, and this one does all the same."""
    fake = FakeOpenAI(talks(asking(ToolCall("weather", '{"place": "Rome"}'), say="Hm. ")))
    async with Desk(fake, tools=TOOLS, tool_rounds=3) as desk:
        assert await desk.answered() == "Hm. \nHm. \nHm. "
        assert [asked.parameters.get("tool_choice") for asked in fake.requests] == [None, None, "none"]
        assert all("tools" in asked.parameters for asked in fake.requests)
        assert desk.llm.figures()["tools"] == 2
        assert desk.notes() == ["gpt-4o-mini: the model wants to call a function, and may not"]


async def test_there_are_eight_rounds(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(talks(asking(ToolCall("weather", '{"place": "Rome"}'))))
    async with Desk(fake, tools=TOOLS) as desk:
        assert await desk.answered() == SORRY
        assert len(fake.requests) == 8
        assert desk.notes()[-1].endswith("no words (tool_calls): it wants to call a function, and may not")


async def test_a_prompt_brings_tools_of_its_own(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(talks(asking(ToolCall("weather", '{"place": "Rome"}')), SURE, SURE))
    async with Desk(fake, tools=(look_up,)) as desk:
        assert await desk.answered(tools=(weather,)) == SURE
        assert results(desk.fake.requests[1].messages) == ["Sun in Rome"]
        await desk.answered()
        assert len(fake.requests[2].parameters["tools"]) == 1


async def test_nothing_left_to_say_after_a_tool(virtual_time: VirtualTime) -> None:
    """The model has said it all before it called the tool: no apology follows."""
    fake = FakeOpenAI(talks([LOOK, ToolCall("weather", '{"place": "Rome"}')], [], SURE))
    async with Desk(fake, tools=TOOLS) as desk:
        assert await desk.answered() == f"{LOOK}\n"
        assert desk.llm.figures()["failed"] == 0
    fake = FakeOpenAI(talks(asking(ToolCall("weather", '{"place": "Rome"}')), []))
    async with Desk(fake, tools=TOOLS) as desk:
        assert await desk.answered() == SORRY


async def test_a_cue_is_answered(virtual_time: VirtualTime) -> None:
    async with Desk() as desk:
        assert "Hello" in await desk.answered(text="", cue="Ask whether he is there.")
        assert desk.fake.requests[0].messages == [{"role": "system", "content": "Ask whether he is there."}]


async def test_templates_that_know_no_tools(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(talks([LOOK, ToolCall("look_up", '{"day": "Monday"}')], SURE))
    async with Desk(fake, tools=TOOLS, alternate=True) as desk:
        assert await desk.answered() == f"{LOOK}\n{SURE}"
        assert trouble(fake.requests[1].messages, alternate=True) == ""
        assert [m["role"] for m in fake.requests[1].messages] == ["user", "assistant", "user"]


# -- deadlines and failures


def part(index: int, id: str = "", name: str = "", arguments: str = "") -> dict[str, Any]:
    fragment = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
    return {"choices": [{"delta": {"tool_calls": [fragment]}}]}


CALLING, HALF, REST = part(0, "c", "look_up"), part(0, arguments='{"day": '), part(0, arguments='"Monday"}')
WHOLE = part(1, "d", "book", '{"day": "M"}')


async def test_each_request_has_its_own_deadlines(virtual_time: VirtualTime) -> None:
    """3.5 s to the first call, 5 s for the tool, and again 3.5 s: more than `patience`, and in time."""

    @tool(effect="read", limit=9.0)
    async def slow() -> str:
        """Slow."""
        await asyncio.sleep(5.0)
        return "done"

    fake = FakeOpenAI(talks(asking(ToolCall("slow")), SURE), ttft=3.5)
    async with Desk(fake, tools=[slow]) as desk:
        assert await desk.answered() == SURE


async def test_arguments_that_come_slowly_are_a_sign_of_life(virtual_time: VirtualTime) -> None:
    slow = [*sse(CALLING, done=False), 2.9, *sse(HALF, done=False), 2.9, *sse(REST, finish("tool_calls"))]
    async with Desk(services=Services(transport=Script(slow, sse(SURE, finish()))), tools=TOOLS) as desk:
        assert await desk.answered() == SURE


async def test_a_model_that_stops_in_the_middle_of_a_call(virtual_time: VirtualTime) -> None:
    stuck = [*sse(CALLING, HALF, done=False), 100.0]
    async with Desk(services=Services(transport=Script(stuck)), tools=TOOLS) as desk:
        assert await desk.answered() == SORRY
        assert desk.times.ends == [3.0]
        assert desk.rig.got(ToolStart) == []
        assert desk.rig.call.history.messages == ()


BROKEN_OFF = {
    "an error": sse(CALLING, HALF, {"object": "error", "message": "out of memory"}),
    "no reason": sse(CALLING, HALF, REST, WHOLE),
    "no end": sse(CALLING, HALF, done=False),
    "no JSON": [*sse(CALLING, WHOLE, done=False), b"data: <html>\n\n"],
    "too much": sse(CALLING, *[HALF] * 20_000),
}


@pytest.mark.parametrize("how", BROKEN_OFF)
async def test_of_calls_that_broke_off_none_is_run(virtual_time: VirtualTime, how: str) -> None:
    """They are asked for once more when nothing was said yet; else the caller hears that it went wrong."""
    again = Script(BROKEN_OFF[how], sse(SURE, finish()))
    async with Desk(services=Services(transport=again), tools=TOOLS) as desk:
        assert await desk.answered() == SURE
        assert desk.rig.got(ToolStart) == []
        assert again.asked[0] == again.asked[1]
        assert desk.llm.figures()["retries"] == 1
    spoken = Script([*sse("So. ", done=False), *BROKEN_OFF[how]], sse(SURE, finish()))
    async with Desk(services=Services(transport=spoken), tools=TOOLS) as desk:
        assert await desk.answered() == f"So. \n\n{SORRY}"
        assert desk.rig.got(ToolStart) == []


@pytest.mark.parametrize(("why", "advice"), [("length", "max_tokens"), ("content_filter", "filter")])
async def test_calls_that_were_cut_are_not_run(virtual_time: VirtualTime, why: str, advice: str) -> None:
    script = Script(sse(CALLING, HALF, finish(why)), sse(SURE, finish()))
    async with Desk(services=Services(transport=script), tools=TOOLS, fallback="other") as desk:
        assert await desk.answered() == SURE
        assert script.asked[1]["model"] == "other"
        assert desk.rig.got(ToolStart) == []
        assert advice in desk.notes()[0]


async def test_the_second_request_may_fall_back_too(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(talks([LOOK, ToolCall("look_up", '{"day": "Monday"}')], SURE))
    fake.faults += [None, Fault(status=503)]
    async with Desk(fake, tools=TOOLS, fallback=Model("other")) as desk:
        assert await desk.answered() == f"{LOOK}\n{SURE}"
        models = [asked.parameters["model"] for asked in fake.requests]
        assert models == ["gpt-4o-mini", "gpt-4o-mini", "other"]
        assert fake.requests[1].messages == fake.requests[2].messages
        assert desk.llm.figures()["tools"] == 1  # not run again


async def test_a_second_request_that_fails(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(talks([LOOK, ToolCall("look_up", '{"day": "Monday"}')], SURE))
    fake.faults += [None, Fault(status=401)]
    async with Desk(fake, tools=TOOLS) as desk:
        assert await desk.answered() == f"{LOOK}\n\n{SORRY}"
        assert len(desk.rig.got(ReplyEnd)) == 1


async def test_what_a_tool_was_called_with_is_not_quoted(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(talks(asking(ToolCall("look_up", '{"day": "card 4111 1111 Rose Street"}')), SURE))
    async with Desk(fake, tools=TOOLS) as desk:
        await desk.answered()
        asked = fake.requests[1].messages
    assert _repeats("Invalid: card 4111 1111", asked)
    assert _repeats("near 'rose street: nine to five'", asked)
    assert not _repeats("you have no credit left", asked)


# -- the connection


async def test_no_second_request_dials(virtual_time: VirtualTime) -> None:
    """Over handshakes of 300 ms: the connection of the first is free again while the tool runs."""
    fake = FakeOpenAI(talks(SURE, asking(ToolCall("look_up", '{"day": "Monday"}')), SURE), handshake=0.3)
    async with Desk(fake, tools=TOOLS) as desk:
        await asyncio.sleep(1)
        await desk.answered()
        await asyncio.sleep(1)
        dialled = len(fake.connections)
        await desk.answered()
        await asyncio.sleep(1)
        _, first, second = fake.requests
        assert second.arrived == pytest.approx(first.ended + 0.5)
        assert second.sent[0][0] == pytest.approx(second.arrived + 0.2)
        assert second.connection is first.connection
        assert len(fake.connections) == dialled
        figures = desk.llm._pool().figures()
        assert (figures["hits"], figures["misses"], figures["died"]) == (3, 0, 0)


async def test_a_stream_without_an_end_does_not_hold_the_tool_up(virtual_time: VirtualTime) -> None:
    call = {"index": 0, "id": "c", "function": {"name": "look_up", "arguments": '{"day": "Monday"}'}}
    script = Script([*sse(finish("tool_calls", tool_calls=[call]), done=False), 100.0], sse(SURE, finish()))
    async with Desk(services=Services(transport=script), tools=TOOLS) as desk:
        assert await desk.answered() == SURE
        assert desk.times.ends == [0.5]
        await asyncio.sleep(2)


def test_the_same_over_sockets() -> None:
    ran = asyncio.Event()

    @tool(effect="read")
    async def quick(day: str) -> str:
        """Quick."""
        ran.set()
        await asyncio.sleep(0.05)
        return f"{day} it is"

    async def body() -> None:
        quicks = [ToolCall("quick", '{"day": "Monday"}'), ToolCall("quick", '{"day": "Friday"}')]
        calls = asking(*quicks, say=LOOK)
        fake = FakeOpenAI(talks(SURE, calls, SURE), key=KEY, ttft=0.0, gap=0.0)
        async with (
            serving(*fake.routes()) as url,
            Desk(fake, services=Services(), base_url=url, tools=[quick]) as desk,
        ):
            pool = desk.llm._pool()
            await pool.fill()
            assert await desk.answered() == SURE
            await fake.until(lambda: len(fake.connections) == 3)  # the first turn's was replaced meanwhile
            await asyncio.gather(*pool._dials)
            dialled = pool.dialled
            assert await desk.answered() == f"{LOOK}\n{SURE}"
            assert results(desk.fake.requests[2].messages) == ["Monday it is", "Friday it is"]
            assert (pool.hits, pool.misses, pool.dialled) == (3, 0, dialled)
            assert {request.how for request in fake.requests} <= {"finished", ""}
            assert all(connection.closed is None for connection in fake.connections)

    real(body)
    assert ran.is_set()


# -- as a processor


def test_the_tools_keys_are_wanted() -> None:
    key = Key("BOOKING_KEY", "", "https://booking.example")

    @tool(effect="read", keys=[key])
    async def find() -> str:
        """Finds."""
        return ""

    assert key in ChatLLM(tools=[find], **MEMORY).keys


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tool_rounds": 1}, r"tool_rounds=1\): 2 at least"),
        ({"tools": [print]}, "is no tool"),
        ({"tools": [weather, weather]}, "two tools weather"),
    ],
)
def test_parameters_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        ChatLLM(**options)


def test_it_conforms() -> None:
    fakes: dict[asyncio.AbstractEventLoop, FakeOpenAI] = {}

    def answer(messages: list[dict[str, Any]]) -> Answer:
        if messages[-1]["role"] == "tool":
            return SURE
        return [LOOK, ToolCall("weather", '{"place": "Rome"}'), ToolCall("unknown")]

    def transport() -> Any:
        return fakes.setdefault(asyncio.get_running_loop(), FakeOpenAI(answer)).transport()

    report = check_processor(lambda: ChatLLM(tools=TOOLS, **MEMORY), services=Services(transport=transport))
    assert report.emitted["Token"] > 100
    assert report.never_seen == ()
