"""ChatLLM: what it asks, how its tokens stream, what an interrupted turn costs, and what all calls share."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from aiohttp import web

from pipelines.knowledge import NOTES, Knowledge
from pipelines.knowledge import pipeline as knowledge
from processors.openai import ChatLLM, Model
from processors.twilio.codec import TwilioCodec
from tests.chat_calls import KEY, MEMORY, URL, Desk, Script, Shared, Times, finish, real, serving, sse
from tests.vendors.openai import FakeOpenAI, Fault
from voiceflow import Call, CallStart, Interrupt, Processor, Prompt, ReplyEnd, Sentence, Token, on
from voiceflow.declaration.check import check_keys
from voiceflow.engine.history import Message
from voiceflow.errors import DeclarationError, LinkRefused
from voiceflow.services import Services
from voiceflow.testing import Rig, check_processor
from voiceflow.testing.pytest_plugin import VirtualTime
from voiceflow.vendor import MissingKeys

HELLO = "Hello there, how can I help you today?"
OPENAI = "https://api.openai.com/v1"


# -- tokens


async def test_each_token_is_out_in_the_moment_it_was_made(virtual_time: VirtualTime) -> None:
    async with Desk() as desk:
        assert await desk.answered() == HELLO
        (asked,) = desk.fake.requests
        assert desk.times.tokens == asked.sent
        assert desk.times.ends == [asked.ended]
        assert asked.how == "finished"
        counted = desk.llm.figures()
        assert (counted["requests"], counted["tokens"], counted["failed"]) == (1, len(asked.sent), 0)


def test_a_token_is_out_before_the_next_is_made() -> None:
    """Over a socket: the server makes no token before the one before it has come out at the other end."""

    async def body() -> None:
        times: list[Times] = []

        async def complete(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            for number in range(5):
                await times[0].until(lambda number=number: len(times[0].tokens) == number)
                await response.write(sse(f"word{number} ", done=False)[0])
            await response.write(b"".join(sse(finish())))
            return response

        route = web.post("/v1/chat/completions", complete)
        async with serving(route) as url, Desk(services=Services(), base_url=url) as desk:
            times.append(desk.times)
            assert await desk.answered() == "word0 word1 word2 word3 word4 "

    real(body)


async def test_the_reply_ends_with_the_model_s_word_not_with_the_stream(virtual_time: VirtualTime) -> None:
    """What comes after finish_reason is usage: the last sentence does not wait for it."""
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
    script = Script([*sse("Yes.", finish(), done=False), 0.5, *sse(usage)])
    async with Desk(services=Services(transport=script)) as desk:
        began = desk.loop.time()
        assert await desk.answered() == "Yes."
        assert desk.times.ends == [began]
        await asyncio.sleep(0.6)
        counted = desk.llm.figures()
        assert (counted["prompt_tokens"], counted["completion_tokens"]) == (9, 4)


async def test_a_stream_that_does_not_end_after_the_last_word_is_closed(virtual_time: VirtualTime) -> None:
    endless = [*sse("Yes.", finish(), done=False), 1000.0]
    script = Script(endless, sse("No.", finish()))
    async with Desk(services=Services(transport=script)) as desk:
        assert await desk.answered() == "Yes."
        await asyncio.sleep(2)
        assert await desk.answered() == "No."
        assert desk.llm.figures()["cancelled"] == 0


async def test_line_breaks_before_the_first_word_are_left_out(virtual_time: VirtualTime) -> None:
    script = Script(sse("\n\n", " ", "So", "\n", "be it.", finish()))
    async with Desk(services=Services(transport=script)) as desk:
        assert await desk.answered() == "So\nbe it."


@pytest.mark.parametrize(
    "fault",
    [
        Fault(blank="null"),
        Fault(blank="absent"),
        Fault(no_choices=True),
        Fault(extras=True),
        Fault(crlf=True),
        Fault(comments=True, gap=0.7),
        Fault(done=False),
        Fault(early=True),
    ],
    ids=lambda fault: str(fault)[6:40],
)
async def test_every_server_s_manner_is_understood(virtual_time: VirtualTime, fault: Fault) -> None:
    async with Desk(FakeOpenAI(usual=fault)) as desk:
        assert await desk.answered() == HELLO


# -- what is asked


async def test_the_request(virtual_time: VirtualTime) -> None:
    history = [
        Message("assistant", "Good day!"),
        Message("user", "Hi"),
        Message("assistant", "You want", True),
    ]
    options = {"top_p": 0.5, "stop": ["###"]}
    desk = Desk(model="llama-3", instructions="Be brief.", temperature=0.2, max_tokens=99, options=options)
    async with desk:
        await desk.answered(text="Are you open?", history=history, instructions="It is Monday.")
        (asked,) = desk.fake.requests
        assert asked.messages == [
            {"role": "system", "content": "Be brief.\n\nIt is Monday."},
            {"role": "assistant", "content": "Good day!"},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "You want"},
            {"role": "user", "content": "Are you open?"},
        ]
        assert asked.parameters == {
            "model": "llama-3",
            "temperature": 0.2,
            "max_tokens": 99,
            "stream": True,
            "stream_options": {"include_usage": True},
            **options,
        }


async def test_little_is_asked_when_nothing_is_given(virtual_time: VirtualTime) -> None:
    async with Desk(stream_options=False) as desk:
        await desk.answered()
        (asked,) = desk.fake.requests
        assert asked.messages == [{"role": "user", "content": "Are you open?"}]
        assert asked.parameters == {"model": "gpt-4o-mini", "stream": True}
        assert desk.llm.figures()["completion_tokens"] == 0


async def test_openai_itself_is_asked_by_its_newer_names(virtual_time: VirtualTime) -> None:
    script = Script(sse("Yes.", finish()))
    async with Desk(services=Services(transport=script), base_url=OPENAI, max_tokens=99) as desk:
        await desk.answered()
        assert script.asked[0]["max_completion_tokens"] == 99
        assert "max_tokens" not in script.asked[0]
        (headers,) = script.headers
        assert headers["authorization"] == f"Bearer {KEY}"
        assert headers["accept-encoding"] == "identity"


async def test_a_strict_template_gets_user_and_assistant_in_turn(virtual_time: VirtualTime) -> None:
    history = [
        Message("assistant", "Good day!"),
        Message("assistant", "Are you there?"),
        Message("user", "Hi"),
        Message("user", "are you"),
    ]
    async with Desk(alternate=True, instructions="Be brief.") as desk:
        await desk.answered(text="open?", history=history)
        (asked,) = desk.fake.requests
        assert [message["role"] for message in asked.messages] == ["system", "user", "assistant", "user"]
        assert asked.messages[1]["content"] == "(The call begins.)"
        assert asked.messages[2]["content"] == "Good day! Are you there?"
        assert asked.messages[3]["content"] == "Hi are you open?"


async def test_a_turn_without_words_is_not_sent_to_the_model(virtual_time: VirtualTime) -> None:
    async with Desk() as desk:
        assert await desk.answered(text=" ") == "Sorry, I did not catch that."
        assert desk.fake.requests == []
        assert desk.llm.figures()["requests"] == 0


async def test_documents_of_a_processor_before_it(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    llm = ChatLLM(instructions="Be brief.", **MEMORY)
    async with Rig(Knowledge(NOTES), llm, services=Services(transport=fake.transport)) as rig:
        reply = rig.reply()
        rig.push(Prompt("Do you make wedding cakes?", instructions="It is Monday.", reply=reply))
        await fake.until(lambda: fake.requests)
        system = fake.requests[0].messages[0]["content"]
        assert system.startswith("Be brief.\n\nIt is Monday.\n\nWhat you know of this:\nBirthday and wedding")
        assert "Opening hours" not in system
        other = rig.reply()
        rig.push(Prompt("Hello?", reply=other))
        await fake.until(lambda: len(fake.requests) == 2)
        assert fake.requests[1].messages[0]["content"] == "Be brief."
        await asyncio.sleep(1)


def test_the_example_is_a_pipeline_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = knowledge(Call(TwilioCodec())).chain
    assert [type(p).__name__ for p in chain[2:5]] == ["Knowledge", "ChatLLM", "SentenceAggregator"]
    with pytest.raises(
        MissingKeys, match=r"OPENAI_API_KEY is not set: get one at https://platform\.openai\.com"
    ):
        check_keys(chain)
    for variable in ("OPENAI_API_KEY", "DEEPGRAM_API_KEY", "ELEVENLABS_API_KEY"):
        monkeypatch.setenv(variable, "something")
    check_keys(knowledge(Call(TwilioCodec())).chain)


# -- an interrupted turn


async def test_an_interrupt_stops_the_server(virtual_time: VirtualTime) -> None:
    async with Desk(FakeOpenAI(gap=0.1)) as desk:
        reply = desk.ask()
        await asyncio.sleep(0.45)
        cut = desk.loop.time()
        desk.rig.kill(reply)
        (asked,) = desk.fake.requests
        await desk.fake.until(lambda: asked.how)
        assert (asked.how, asked.ended) == ("left", cut)
        assert asked.text == "Hello there,"
        await asyncio.sleep(1)
        assert desk.text(reply) == "Hello there,"
        assert desk.rig.got(ReplyEnd) == []
        counted = desk.llm.figures()
        assert (counted["cancelled"], counted["failed"]) == (1, 0)


async def test_an_interrupt_before_the_first_token_too(virtual_time: VirtualTime) -> None:
    async with Desk() as desk:
        reply = desk.ask()
        await asyncio.sleep(0.1)
        desk.rig.kill(reply)
        (asked,) = desk.fake.requests
        await desk.fake.until(lambda: asked.how)
        assert (asked.how, asked.ended, asked.text) == ("left", 0.1, "")


def test_a_server_on_a_socket_notices(virtual_time: VirtualTime) -> None:
    async def body() -> None:
        fake = FakeOpenAI(key=KEY, ttft=0.0, gap=3600.0)
        async with serving(*fake.routes()) as url, Desk(fake, services=Services(), base_url=url) as desk:
            reply = desk.ask()
            await desk.times.until(lambda: desk.times.tokens)
            desk.rig.kill(reply)
            await fake.until(lambda: fake.requests[0].how)
            assert fake.requests[0].how == "left"

    real(body)


async def test_an_answer_that_is_held_back_stops_too(virtual_time: VirtualTime) -> None:
    """Interrupted while it waits for the chain rather than for the server."""
    async with Desk(FakeOpenAI(gap=1.0, packet=5)) as desk:
        frames = desk.llm.answer(Prompt("Hi", reply=desk.rig.reply()))
        assert (await anext(frames)).text == "Hello"
        await frames.aclose()
        (asked,) = desk.fake.requests
        await desk.fake.until(lambda: asked.how)
        assert asked.how == "left"


async def test_the_turn_after_an_interrupt_does_not_dial(virtual_time: VirtualTime) -> None:
    """Ten turns, each cut off, each over a handshake of 300 ms: every first token comes as if it were 0."""
    async with Desk(FakeOpenAI(handshake=0.3, gap=0.1)) as desk:
        await asyncio.sleep(1)
        for turn in range(10):
            began = desk.loop.time()
            reply = desk.ask()
            await desk.times.until(lambda reply=reply: desk.text(reply))
            assert desk.loop.time() - began == pytest.approx(0.2), f"turn {turn}"
            desk.rig.kill(reply)
            await asyncio.sleep(0.5)
        counted = desk.llm.figures()
        assert (counted["pool_hits"], counted["pool_misses"], counted["cancelled"]) == (10, 0, 10)
        assert counted["saved_ms"] == pytest.approx(3000.0)
        used = [number for request in desk.fake.requests for number in [request.connection.number]]
        assert len(set(used)) == 10
        assert all(request.connection.requests[0] == "GET /v1/models" for request in desk.fake.requests)


def test_the_same_over_sockets() -> None:
    async def body() -> None:
        fake = FakeOpenAI(key=KEY, ttft=0.0, gap=3600.0)
        async with serving(*fake.routes()) as url, Desk(fake, services=Services(), base_url=url) as desk:
            pool = desk.llm._pool()
            await pool.fill()
            for turn in range(5):
                reply = desk.ask()
                await desk.times.until(lambda reply=reply: desk.text(reply))
                desk.rig.kill(reply)
                await fake.until(lambda turn=turn: fake.requests[turn].how == "left")
                await pool.fill()
            assert (pool.hits, pool.misses) == (5, 0)
            used = [list(request.connection.requests) for request in fake.requests]
            assert used == [["GET /v1/models", "POST /v1/chat/completions"]] * 5

    real(body)


async def test_finished_turns_share_one_connection(virtual_time: VirtualTime) -> None:
    async with Desk(FakeOpenAI(handshake=0.3)) as desk:
        await asyncio.sleep(1)
        for _ in range(5):
            assert await desk.answered() == HELLO
            await asyncio.sleep(0.1)
        assert len({request.connection.number for request in desk.fake.requests}) == 1


async def test_a_first_turn_that_comes_at_once_dials_by_itself(virtual_time: VirtualTime) -> None:
    async with Desk(FakeOpenAI(handshake=0.3)) as desk:
        await desk.answered()
        assert desk.times.tokens[0][0] == pytest.approx(0.5)
        assert desk.llm.figures()["pool_misses"] == 1


# -- calls side by side


async def test_two_calls_share_the_connections(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(key=KEY, handshake=0.3)
    services = Shared(transport=fake.transport)
    async with Desk(fake, services=services) as one, Desk(fake, services=services) as other:
        pool = one.llm._pool()
        assert pool is other.llm._pool()
        assert pool.expected == 2
        await asyncio.sleep(1)
        assert len(fake.connections) == 3
        assert await asyncio.gather(one.answered(), other.answered()) == [HELLO, HELLO]
        assert (pool.hits, pool.misses) == (2, 0)
        assert services.figures()["chat completions at fake"]["hits"] == 2
    assert pool.expected == 0
    await services.really_close()
    assert [connection.closed is None for connection in fake.connections] == [False] * len(fake.connections)


async def test_other_keys_have_other_connections(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    services = Shared(transport=fake.transport)
    async with Desk(fake, services=services) as one, Desk(fake, services=services, api_key="sk-b") as other:
        assert one.llm._pool() is not other.llm._pool()
    await services.really_close()


# -- the greeting


async def test_the_greeting_comes_first(virtual_time: VirtualTime) -> None:
    async with Desk(greeting="Good day!") as desk:
        assert [sentence.text for sentence in desk.rig.got(Sentence)] == ["Good day!"]
        assert len(desk.rig.got(ReplyEnd)) == 1
        assert desk.fake.requests == []


class FirstWord(Processor):
    """The caller speaks in the moment the line opens."""

    takes_turns = True
    needs = ()
    seen: list[str]

    @on(CallStart)
    def speak(self, start: CallStart) -> None:
        self.turns.started()


async def test_who_speaks_first_is_not_greeted(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    llm = ChatLLM(greeting="Good day!", **MEMORY)
    caller = FirstWord()
    async with Rig(caller, llm, services=Services(transport=fake.transport)) as rig:
        await asyncio.sleep(0.5)
        caller.turns.ended("Hello?")
        await asyncio.sleep(2)
        assert "".join(token.text for token in rig.got(Token)) == HELLO
        live = rig.call.turns.live
        assert live is not None
        rig.call.turns.stop("it was heard")  # the floor is free again
        await asyncio.sleep(1)
        assert rig.got(Sentence) == []


async def test_a_barge_in_on_the_greeting_is_answered(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI()
    llm = ChatLLM(greeting="Good day!", **MEMORY)

    class Caller(FirstWord):
        @on(CallStart)
        def speak(self, start: CallStart) -> None: ...

    caller = Caller()
    async with Rig(caller, llm, services=Services(transport=fake.transport)) as rig:
        assert rig.texts() == ["Good day!"]
        caller.turns.started()
        assert len(rig.got(Interrupt)) == 1
        caller.turns.ended("Hello?")
        await asyncio.sleep(2)
        assert "".join(token.text for token in rig.got(Token)) == HELLO


# -- before the first call


async def test_warming_up_dials(virtual_time: VirtualTime) -> None:
    fake = FakeOpenAI(key=KEY, handshake=0.3)
    services = Shared(transport=fake.transport)
    async with Desk(fake, services=services) as desk:
        await desk.llm.warm()
        assert fake.connections[0].requests[0] == "GET /v1/models"
        assert virtual_time.now == pytest.approx(0.3)
    await services.really_close()


@pytest.mark.parametrize("status", [403, 404, 405, 500])
async def test_a_server_without_a_list_of_models_is_as_good(virtual_time: VirtualTime, status: int) -> None:
    async with Desk(FakeOpenAI(models_status=status)) as desk:
        await desk.llm.warm()
        assert await desk.answered() == HELLO
        assert desk.llm.figures()["pool_hits"] == 1


async def test_a_wrong_key_is_told_before_any_call(virtual_time: VirtualTime) -> None:
    wanted = (
        r"^fake refused \(HTTP 401\): OPENAI_API_KEY is not valid: get one at fake "
        r"\(.*Incorrect API key provided.*\)$"
    )
    async with Desk(FakeOpenAI(key="sk-another")) as desk:
        with pytest.raises(LinkRefused, match=wanted) as caught:
            await desk.llm.warm()
        assert KEY not in str(caught.value)


def test_a_restricted_key_may_not_list_models_and_is_good() -> None:
    async def body() -> None:
        async def models(request: web.Request) -> web.Response:
            message = "You have insufficient permissions for this operation. Missing scopes: api.model.read."
            return web.json_response({"error": {"message": message}}, status=401)

        route = web.get("/v1/models", models)
        async with serving(route) as url, Desk(services=Services(), base_url=url) as desk:
            await desk.llm.warm()

    real(body)


def test_a_server_that_is_not_there_yet_is_only_a_warning() -> None:
    async def body() -> None:
        async with serving() as url:
            pass
        async with Desk(services=Services(), base_url=url) as desk:
            await desk.llm.warm()

    real(body)


# -- keys and addresses


def test_only_openai_demands_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [key.variable for key in ChatLLM().keys] == ["OPENAI_API_KEY"]
    assert [bool(key) for key in ChatLLM().keys] == [False]
    assert [bool(key) for key in ChatLLM(api_key="sk-a").keys] == [True]
    assert ChatLLM(base_url="http://127.0.0.1:11434/v1").keys == ()
    assert ChatLLM(base_url="https://api.groq.com/openai/v1").keys == ()
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1/")
    assert ChatLLM().keys == ()
    assert ChatLLM().targets[0].address.url == "http://127.0.0.1:8000/v1"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    assert ChatLLM().targets[0].address.key.value == "sk-env"
    assert ChatLLM(api_key="sk-given").targets[0].address.key.value == "sk-given"


def test_one_vendor_is_never_shown_another_s_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    groq = "https://api.groq.com/openai/v1"
    llm = ChatLLM(
        fallback=["gpt-4o", Model("llama", base_url=groq), Model("llama", base_url=groq, api_key="gsk")]
    )
    assert [target.address.key.value for target in llm.targets] == ["sk-env", "sk-env", "", "gsk"]
    llm = ChatLLM("llama", base_url=groq, api_key="gsk", fallback=Model("gpt-4o", base_url=OPENAI))
    assert [target.address.key.value for target in llm.targets] == ["gsk", "sk-env"]
    assert [key.variable for key in llm.keys] == ["OPENAI_API_KEY"]
    llm = ChatLLM(fallback=Model("gpt-4o", api_key="sk-other"))
    assert [target.address.key.value for target in llm.targets] == ["sk-env", "sk-other"]


async def test_without_a_key_a_dummy_is_sent(virtual_time: VirtualTime) -> None:
    script = Script(sse("Yes.", finish()))
    async with Desk(services=Services(transport=script), api_key="") as desk:
        assert await desk.answered() == "Yes."
        assert script.headers[0]["authorization"] == "Bearer none"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": " "}, "needs the name of a model"),
        ({"patience": 0}, r"patience=0\): it has to be above 0"),
        ({"first_token_timeout": -1}, "first_token_timeout=-1"),
        ({"token_timeout": 0.0}, "token_timeout=0.0"),
        ({"give_up_after": 0}, "give_up_after=0"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"base_url": "nonsense"}, "OPENAI_BASE_URL is no address"),
        ({"fallback": Model("x", base_url="ftp://x")}, "the base_url of x is no address"),
    ],
)
def test_parameters_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        ChatLLM(**options)


def test_no_key_is_shown() -> None:
    secret = f"http://user:{KEY}@fake/v1"
    llm = ChatLLM(api_key=KEY, base_url=secret, fallback=Model("a", base_url=URL, api_key=f"{KEY}2"))
    shown = f"{llm.keys} {llm.targets} {Model('a', api_key=KEY)} {vars(llm)}"
    assert KEY not in shown


# -- as a processor


def test_it_conforms() -> None:
    fakes: dict[asyncio.AbstractEventLoop, FakeOpenAI] = {}

    def transport() -> Any:  # check_processor makes a loop for every call
        return fakes.setdefault(asyncio.get_running_loop(), FakeOpenAI(reply=[HELLO])).transport()

    report = check_processor(lambda: ChatLLM(**MEMORY), services=Services(transport=transport))
    assert report.emitted["Token"] > 100
    assert report.never_seen == ("ToolStart", "ToolEnd")  # it has no tools here


def test_the_example_s_own_processor_conforms() -> None:
    check_processor(lambda: Knowledge(NOTES))


def test_importing_it_imports_no_sdk() -> None:
    code = (
        "import sys, processors.openai as ours\n"
        "heavy = {'openai', 'httpx2', 'pydantic', 'deepgram'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import openai\n"
        "assert hasattr(openai, 'AsyncOpenAI') and openai is not ours"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
