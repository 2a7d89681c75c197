"""What can go wrong at a language model, and that the caller hears something in a stated time all the same.

On a virtual clock, so deadlines hold to the last bit. Defaults: a first word within 4 s of one model, within
6 s of any, and 3 s between two pieces of text.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger

from processors.openai import ChatLLM, Model
from processors.openai.chat import Reading
from processors.openai.failure import PAUSE, Attempts, ModelFailed
from processors.sentences import SentenceAggregator
from tests.chat_calls import KEY, MEMORY, Desk, Script, finish, real, serving, sse
from tests.vendors.openai import FakeOpenAI, Fault, ToolCall
from voiceflow import Prompt, ReplyEnd, Sentence
from voiceflow.services import Services
from voiceflow.testing import Rig, run
from voiceflow.testing.pytest_plugin import VirtualTime

HELLO = "Hello there, how can I help you today?"
SORRY = "I'm sorry, something went wrong. Could you say that again?"
SECOND = Model("gpt-4o")


@contextmanager
def logged() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), format="{level} {message}", level=0)
    try:
        yield lines
    finally:
        logger.remove(sink)


def refused(status: int, message: str, **error: Any) -> httpx2.Response:
    return httpx2.Response(status, json={"error": {"message": message, **error}})


# -- silence


@pytest.mark.parametrize("early", [False, True], ids=["nothing", "headers"])
async def test_a_model_that_says_nothing(virtual_time: VirtualTime, early: bool) -> None:
    async with Desk(FakeOpenAI(usual=Fault(then="stall", early=early))) as desk:
        assert await desk.answered() == SORRY
        assert desk.times.ends == [4.0]
        (asked,) = desk.fake.requests
        await desk.fake.until(lambda: asked.how)
        assert (asked.how, asked.ended) == ("left", 4.0)
        assert desk.notes() == ["fake (gpt-4o-mini) gave no word in 4 s"]
        counted = desk.llm.figures()
        assert (counted["failed"], counted["cancelled"], counted["requests"]) == (1, 0, 1)


async def test_comments_and_thoughts_are_no_words(virtual_time: VirtualTime) -> None:
    """A connection that is alive and a model that thinks are silence to the caller."""
    thought = {"choices": [{"index": 0, "delta": {"content": None, "reasoning_content": "Hm."}}]}
    pieces: list[bytes | float] = []
    for _ in range(20):
        pieces += [0.5, b": ping\n\n", *sse(thought, done=False)]
    async with Desk(services=Services(transport=Script(pieces))) as desk:
        assert await desk.answered() == SORRY
        assert desk.times.ends == [4.0]


async def test_a_model_that_stops_in_the_middle(virtual_time: VirtualTime) -> None:
    async with Desk(FakeOpenAI(usual=Fault(then="stall", after=3))) as desk:
        assert await desk.answered() == f"Hello there,\n{SORRY}"
        last_word = desk.fake.requests[0].sent[-1][0]
        assert desk.times.ends == [last_word + 3.0]
        assert desk.fake.requests[0].how == "left"


async def test_what_was_begun_is_spoken_before_the_apology(virtual_time: VirtualTime) -> None:
    """The aggregator still holds words of the sentence that will never be finished."""
    fake = FakeOpenAI(["We are open. On Mondays we"], usual=Fault(then="stall", after=7))
    rig = Rig(ChatLLM(**MEMORY), SentenceAggregator(), services=Services(transport=fake.transport))
    async with rig:
        rig.push(Prompt("Are you open?", reply=rig.reply()))
        await asyncio.sleep(10)
        assert [sentence.text for sentence in rig.got(Sentence)] == [
            "We are open.",
            "On Mondays we",
            "I'm sorry, something went wrong.",
            "Could you say that again?",
        ]
        assert isinstance(rig.out[-1], ReplyEnd)


async def test_a_word_just_in_time_begins_the_next_deadline(virtual_time: VirtualTime) -> None:
    pieces = [3.99, *sse("One ", done=False), 2.99, *sse("two ", done=False), 2.99, *sse("three.", finish())]
    async with Desk(services=Services(transport=Script(pieces))) as desk:
        assert await desk.answered() == "One two three."


async def test_the_time_that_the_chain_takes_is_not_the_model_s(virtual_time: VirtualTime) -> None:
    """A token that is held back for ten seconds does not make the next one late."""
    pieces = [*sse("One ", done=False), 1.0, *sse("two.", finish())]
    async with Desk(services=Services(transport=Script(pieces))) as desk:
        frames = desk.llm.answer(Prompt("Hi", reply=desk.rig.reply()))
        assert (await anext(frames)).text == "One "
        await asyncio.sleep(10)
        assert (await anext(frames)).text == "two."
        assert isinstance(await anext(frames), ReplyEnd)
        await frames.aclose()


async def test_deadlines_are_parameters(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(usual=Fault(then="stall", after=1))
    fake.faults.append(Fault(then="stall"))
    options = {"first_token_timeout": 1.5, "token_timeout": 0.5, "sorry": "One moment."}
    async with Desk(fake, **options) as desk:
        assert await desk.answered() == "One moment."
        assert desk.times.ends == [1.5]
        assert await desk.answered() == "Hello\nOne moment."
        assert desk.times.ends[1] == 1.5 + 0.2 + 0.5


# -- the next model


async def test_the_next_model_answers_for_one_that_is_silent(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    fake.faults.append(Fault(then="stall"))
    async with Desk(fake, fallback="gpt-4o") as desk:
        assert await desk.answered() == HELLO
        assert desk.times.tokens[0][0] == 4.0 + 0.2
        assert [asked.parameters["model"] for asked in fake.requests] == ["gpt-4o-mini", "gpt-4o"]
        assert [asked.how for asked in fake.requests] == ["left", "finished"]
        assert desk.llm.figures()["fallbacks"] == 1


async def test_all_models_together_have_six_seconds(virtual_time: VirtualTime) -> None:
    async with Desk(FakeOpenAI(usual=Fault(then="stall")), fallback=["b", "c", "d"]) as desk:
        assert await desk.answered() == SORRY
        assert desk.times.ends == [6.0]
        assert [asked.parameters["model"] for asked in desk.fake.requests] == ["gpt-4o-mini", "b"]


async def test_a_model_that_is_overloaded_makes_room_at_once(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    fake.faults += [Fault(status=503), Fault(status=429)]
    async with Desk(fake, fallback=["b", "c"]) as desk:
        assert await desk.answered() == HELLO
        assert desk.times.tokens[0][0] == 0.2
        assert [asked.parameters["model"] for asked in fake.requests] == ["gpt-4o-mini", "b", "c"]


async def test_an_unknown_model_makes_room_too(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    fake.faults.append(Fault(status=404))
    async with Desk(fake, fallback=SECOND) as desk:
        assert await desk.answered() == HELLO


async def test_no_other_model_goes_on_with_what_was_begun(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    fake.faults.append(Fault(then="error", after=2))
    async with Desk(fake, fallback=SECOND) as desk:
        assert await desk.answered() == f"Hello there\n{SORRY}"
        assert len(fake.requests) == 1


def test_a_model_of_another_server() -> None:
    """Its own address, key and options; the first one's server is not there at all."""

    async def body() -> None:
        fake = FakeOpenAI(key="gsk-2", ttft=0.0, gap=0.0)
        async with serving() as nobody:
            pass
        async with serving(*fake.routes()) as url:
            second = Model("llama", base_url=url, api_key="gsk-2", options={"top_k": 1})
            options = {"seed": 1}
            desk = Desk(fake, services=Services(), base_url=nobody, fallback=second, options=options)
            async with desk:
                assert await desk.answered() == HELLO
                (asked,) = fake.requests
                assert asked.authorized
                assert (asked.parameters["top_k"], "seed" in asked.parameters) == (1, False)
                counted = desk.llm.figures()
                assert (counted["retries"], counted["fallbacks"], counted["failed"]) == (1, 1, 0)

    real(body)


# -- errors that pass


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_passes_is_asked_again_once(virtual_time: VirtualTime, status: int) -> None:
    fake = FakeOpenAI()
    fake.faults.append(Fault(status=status))
    with logged() as lines:
        async with Desk(fake) as desk:
            assert await desk.answered() == HELLO
            assert desk.times.tokens[0][0] == PAUSE + 0.2
            counted = desk.llm.figures()
            assert (counted["retries"], counted["requests"], counted["failed"]) == (1, 2, 0)
    assert [line.split()[0] for line in lines if f"HTTP {status}" in line] == ["WARNING"]


async def test_what_does_not_pass_is_given_up(virtual_time: VirtualTime) -> None:
    async with Desk(FakeOpenAI(usual=Fault(status=503))) as desk:
        assert await desk.answered() == SORRY
        assert (desk.times.ends, len(desk.fake.requests)) == ([PAUSE], 2)


async def test_the_server_may_say_when(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    fake.faults.append(Fault(status=429, retry_after=2))
    async with Desk(fake) as desk:
        assert await desk.answered() == HELLO
        assert desk.times.tokens[0][0] == 2.2


async def test_a_caller_does_not_wait_for_what_comes_too_late(virtual_time: VirtualTime) -> None:
    async with Desk(FakeOpenAI(usual=Fault(status=429, retry_after=20))) as desk:
        assert await desk.answered() == SORRY
        assert (desk.times.ends, len(desk.fake.requests)) == ([0.0], 1)


async def test_a_lost_connection_is_asked_again_at_once(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    fake.faults.append(Fault(then="drop", ttft=0.1))
    async with Desk(fake, fallback=SECOND) as desk:
        assert await desk.answered() == HELLO
        assert desk.times.tokens[0][0] == pytest.approx(0.1 + 0.2)
        assert {asked.parameters["model"] for asked in fake.requests} == {"gpt-4o-mini"}


async def test_lost_twice_the_next_model_is_asked(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    fake.faults += [Fault(then="drop"), Fault(then="drop")]
    async with Desk(fake, fallback=SECOND) as desk:
        assert await desk.answered() == HELLO
        assert [asked.parameters["model"] for asked in fake.requests] == ["gpt-4o-mini"] * 2 + ["gpt-4o"]


async def test_a_connection_lost_in_the_middle(virtual_time: VirtualTime) -> None:
    async with Desk(FakeOpenAI(usual=Fault(then="drop", after=2))) as desk:
        assert await desk.answered() == f"Hello there\n{SORRY}"
        assert desk.notes() == ["fake (gpt-4o-mini) cannot be reached, or broke off (RemoteProtocolError)"]


def test_a_connection_lost_in_the_middle_of_a_socket() -> None:
    async def body() -> None:
        fake = FakeOpenAI(ttft=0.0, gap=0.0)
        fake.faults += [Fault(then="drop", after=2), Fault(then="drop")]
        async with serving(*fake.routes()) as url, Desk(fake, services=Services(), base_url=url) as desk:
            assert await desk.answered() in (f"Hello there\n{SORRY}", SORRY)  # a reset may take words with it
            assert await desk.answered() == HELLO
            assert desk.llm.figures()["retries"] >= 1

    real(body)


def test_a_server_that_was_restarted_between_two_turns() -> None:
    async def body() -> None:
        fake = FakeOpenAI(ttft=0.0, gap=0.0)
        async with serving(*fake.routes()) as url, Desk(fake, services=Services(), base_url=url) as desk:
            for _ in range(3):
                assert await desk.answered() == HELLO
                await desk.llm._pool().fill()
                for connection in fake.connections:
                    connection.drop()
            assert desk.llm.figures()["failed"] == 0

    real(body)


async def test_an_error_object_instead_of_the_first_word(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    fake.faults.append(Fault(then="error"))
    async with Desk(fake) as desk:
        assert await desk.answered() == HELLO
        assert desk.llm.figures()["retries"] == 1
        (note,) = desk.notes()
        assert note.startswith("fake (gpt-4o-mini) broke off (The server had an error")


async def test_an_error_as_vllm_sends_it(virtual_time: VirtualTime) -> None:
    error = {"object": "error", "message": f"out of memory {KEY}", "code": 500}
    async with Desk(services=Services(transport=Script(sse("So", error)))) as desk:
        assert await desk.answered() == f"So\n{SORRY}"
        assert desk.notes() == ["fake (gpt-4o-mini) broke off (out of memory ***)"]


# -- errors that do not pass


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "it does not know one of the parameters: see what it says (This request cannot"),
        (401, "OPENAI_API_KEY is not valid: get one at fake (Incorrect API key provided.)"),
        (403, "the account of OPENAI_API_KEY may not use this model or voice"),
        (404, "there is no such model, voice or address: check its name and the base URL (The model does"),
    ],
)
async def test_what_has_to_be_changed_is_said_once(
    virtual_time: VirtualTime, status: int, advice: str
) -> None:
    with logged() as lines:
        async with Desk(FakeOpenAI(usual=Fault(status=status))) as desk:
            for _ in range(2):
                assert await desk.answered() == SORRY
            assert desk.times.ends == [0.0, 0.0]
            assert len(desk.fake.requests) == 2  # neither is tried again
            assert len(desk.notes()) == 2
    (said,) = [line for line in lines if line.startswith("ERROR")]
    assert said.startswith(f"ERROR ChatLLM: fake (gpt-4o-mini) refused (HTTP {status}): {advice}")
    assert desk.llm.figures()["failed"] == 2


async def test_an_account_without_credit_is_not_asked_again(virtual_time: VirtualTime) -> None:
    response = refused(429, "You exceeded your current quota.", code="insufficient_quota")
    async with Desk(services=Services(transport=Script(response))) as desk:
        assert await desk.answered() == SORRY
        assert "has no credit left: top it up" in desk.notes()[0]


# -- answers that are none


async def test_a_filter_that_leaves_nothing(virtual_time: VirtualTime) -> None:
    async with Desk(FakeOpenAI(usual=Fault(finish="content_filter"), reply=[[]])) as desk:
        assert await desk.answered() == SORRY
        (note,) = desk.notes()
        assert note.endswith("no words (content_filter): its content filter held the answer back")


async def test_a_filter_that_cuts_the_answer(virtual_time: VirtualTime) -> None:
    async with Desk(FakeOpenAI(usual=Fault(finish="content_filter"))) as desk:
        assert await desk.answered() == HELLO
        assert desk.notes() == ["gpt-4o-mini: the content filter cut the answer"]
        assert desk.llm.figures()["failed"] == 0


async def test_an_answer_cut_at_its_limit(virtual_time: VirtualTime) -> None:
    async with Desk(max_tokens=2) as desk:
        assert await desk.answered() == "Hello there"
        assert desk.notes() == ["gpt-4o-mini: the answer was cut at max_tokens"]


@pytest.mark.parametrize("index", [True, False])
async def test_calls_of_functions_are_passed_over(virtual_time: VirtualTime, index: bool) -> None:
    answer = ["Let me", " see.", ToolCall("book", '{"day": "Monday"}')]
    fake = FakeOpenAI(lambda messages: answer, usual=Fault(index=index, blank="null"))
    async with Desk(fake) as desk:
        assert await desk.answered() == "Let me see."
        del answer[:2]
        assert await desk.answered() == SORRY
        assert "wants to call a function" in desk.notes()[1]


async def test_the_next_model_may_have_words(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(lambda messages: [] if len(fake.requests) == 1 else HELLO)
    async with Desk(fake, fallback=SECOND) as desk:
        assert await desk.answered() == HELLO


async def test_a_stream_that_ends_without_a_reason(virtual_time: VirtualTime) -> None:
    script = Script(sse("Yes, ", "sir.", done=False), sse(done=True))
    async with Desk(services=Services(transport=script)) as desk:
        assert await desk.answered() == "Yes, sir."
        assert await desk.answered() == SORRY


async def test_what_is_no_json_is_an_error_like_others(virtual_time: VirtualTime) -> None:
    script = Script(
        [b"data: {nonsense\n\n"],
        [b"data: {}\n\ndata: \xff\xfe\n\n"],
        [*sse("So", done=False), b"data: <html>\n\n"],
    )
    async with Desk(services=Services(transport=script)) as desk:
        assert await desk.answered() == SORRY
        assert await desk.answered() == f"So\n{SORRY}"
        assert desk.notes()[0] == "fake (gpt-4o-mini) sent what cannot be understood (JSONDecodeError)"
        assert desk.notes()[1] == "fake (gpt-4o-mini) sent what cannot be understood (UnicodeDecodeError)"


async def test_a_page_of_html_is_no_answer(virtual_time: VirtualTime) -> None:
    """What a captive portal or a wrong base URL gives, with status 200."""
    async with Desk(services=Services(transport=Script([b"<html><body>Welcome</body></html>"]))) as desk:
        assert await desk.answered() == SORRY
        assert desk.notes() == ["fake (gpt-4o-mini) answered with no words (the stream ended)"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "content", "finish_reason", "usage", "object", "message", "index"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON)
def test_no_chunk_is_too_strange(chunk: object) -> None:
    reading = Reading()
    text = reading.feed(chunk)
    assert isinstance(text, str)
    assert isinstance(reading.finish, str)
    assert isinstance(reading.prompt_tokens, int)


# -- when nothing helps


async def test_three_replies_in_a_row_without_an_answer_end_the_call(virtual_time: VirtualTime) -> None:
    """The caller then hears the carrier's fallback, a sentence or a person, instead of apologies for ever."""
    async with Desk(FakeOpenAI(usual=Fault(status=401))) as desk:
        assert await desk.answered() == SORRY
        assert await desk.answered() == SORRY
        assert desk.rig.fault is None
        reply = desk.ask()
        await asyncio.sleep(1)
        assert desk.text(reply) == ""
        fault = str(desk.rig.fault)
        assert fault.startswith("ChatLLM failed in answer: fake (gpt-4o-mini) refused (HTTP 401)")


async def test_an_answer_in_between_forgives_all(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    async with Desk(fake) as desk:
        for _ in range(4):
            fake.faults += [Fault(status=401), Fault(status=401), None]
            assert [await desk.answered() for _ in range(3)] == [SORRY, SORRY, HELLO]


async def test_who_is_interrupted_has_not_failed(virtual_time: VirtualTime) -> None:
    async with Desk(FakeOpenAI(usual=Fault(then="stall"))) as desk:
        for _ in range(10):
            reply = desk.ask()
            await asyncio.sleep(1)
            desk.rig.kill(reply)
        await desk.rig.settled()
        counted = desk.llm.figures()
        assert (counted["cancelled"], counted["failed"]) == (10, 0)


async def test_how_many_is_a_parameter(virtual_time: VirtualTime) -> None:
    async with Desk(FakeOpenAI(usual=Fault(status=401)), give_up_after=1) as desk:
        desk.ask()
        await asyncio.sleep(1)
        assert "HTTP 401" in str(desk.rig.fault)


async def test_an_interrupt_in_the_pause_ends_it(virtual_time: VirtualTime) -> None:
    async with Desk(FakeOpenAI(usual=Fault(status=503))) as desk:
        reply = desk.ask()
        await asyncio.sleep(PAUSE / 2)
        desk.rig.kill(reply)
        await asyncio.sleep(10)
        assert len(desk.fake.requests) == 1
        assert desk.llm.figures()["cancelled"] == 1


def test_a_server_that_is_not_there() -> None:
    async def body() -> None:
        async with serving() as url:
            pass
        async with Desk(services=Services(), base_url=url) as desk:
            assert await desk.answered() == SORRY
            assert (
                desk.notes()
                == [f"{url[7:-3]} (gpt-4o-mini) cannot be reached, or broke off (ConnectError)"] * 2
            )  # tried again once

    real(body)


def test_nobody_asks_after_the_process_s_services_have_closed() -> None:
    async def main() -> None:
        async with Desk() as desk:
            await desk.rig.call.services.close()
            services, desk.rig.call.services = desk.rig.call.services, Services(transport=desk.fake.transport)
            endpoint = desk.llm._endpoint(desk.llm.targets[0].address)
            await endpoint.close()
            assert await desk.answered() == SORRY
            await services.close()

    run(main())


# -- which model next, as a pure function


@settings(deadline=None)
@given(st.integers(1, 4), st.lists(st.sampled_from([None, 0.0, PAUSE, 2.0]), max_size=20))
def test_attempts_come_to_an_end(models: int, failures: list[float | None]) -> None:
    attempts, now, asked = Attempts(models, 6.0), 0.0, [0]
    for pause in failures:
        wait = attempts.after(ModelFailed("no", retry_after=pause), now)
        if wait is None:
            break
        now += wait
        asked.append(attempts.place)
    assert now < 6.0
    assert asked == sorted(asked)
    assert all(asked.count(place) <= 2 for place in range(models))


# -- what is never said


ECHOES = (
    "Invalid value: 'my card is 4111 1111 and I live in Rose Street'",
    "input_value='...is 4111 1111', input_type=str",
    "4111",
)


@pytest.mark.parametrize("echo", ECHOES)
async def test_the_caller_s_words_are_not_quoted(virtual_time: VirtualTime, echo: str) -> None:
    with logged() as lines:
        async with Desk(services=Services(transport=Script(refused(422, echo)))) as desk:
            assert await desk.answered(text="My card is 4111 1111 and I live in Rose Street.") == SORRY
            lines += desk.notes()
    assert not [line for line in lines if "4111" in line or "Rose" in line]
    assert [line for line in lines if "HTTP 422" in line]


async def test_the_key_is_never_quoted(virtual_time: VirtualTime) -> None:
    message = f"Incorrect API key provided: {KEY}. You can find yours at the account page."
    scripts = [refused(401, message), refused(401, message), refused(401, message)]
    with logged() as lines:
        async with Desk(services=Services(transport=Script(*scripts))) as desk:
            await desk.answered()
            await desk.answered()
            desk.ask()
            await asyncio.sleep(1)
            lines += [*desk.notes(), str(desk.rig.fault), json.dumps(desk.llm.figures())]
    assert [line for line in lines if "Incorrect API key provided: ***." in line]
    assert not [line for line in lines if KEY in line]


def test_a_key_in_the_address_is_not_quoted_either() -> None:
    async def body() -> None:
        async def hang_up(request: web.Request) -> web.Response:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        with logged() as lines:
            async with serving(web.post("/v1/chat/completions", hang_up)) as url:
                secret = url.replace("http://", "http://user:hidden@")
                async with Desk(services=Services(), base_url=secret) as desk:
                    assert await desk.answered() == SORRY
                    lines += [*desk.notes(), *desk.rig.call.services.figures()]
        assert not [line for line in lines if "hidden" in line]

    real(body)
