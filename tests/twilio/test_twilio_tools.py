"""`transfer_call` and `send_digits`: whole calls with the full agent over real sockets, and a fake Twilio
whose REST API redirects them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from loguru import logger

from processors.elevenlabs import ElevenLabsTTS
from processors.flux import FluxSTT
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from processors.twilio import live, twiml
from processors.twilio.routes import AFTER, VOICE, TwilioRoutes
from processors.twilio.signature import SIGNATURE_HEADER, sign
from processors.twilio.simulated.caller import SimulatedCaller
from processors.twilio.tools import send_digits, transfer_call
from tests.e2e.agents import environment
from tests.vendors import spelled
from tests.vendors.openai import FakeOpenAI, ToolCall
from tests.vendors.server import OPENAI_KEY, Vendors
from tests.vendors.twilio import FakeTwilio, Problem
from voiceflow.call import Call
from voiceflow.declaration.check import check_keys
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.errors import DeclarationError, LinkError
from voiceflow.record import CallResult
from voiceflow.server.listener import Listener
from voiceflow.server.server import Server, Settings
from voiceflow.testing.line import MemoryCodec
from voiceflow.tools.tool import Effect, Tool
from voiceflow.tools.use import ToolUse, UseState
from voiceflow.vendor import MissingKeys

OURS = "+12025550199"
SALES, DOCTOR = "+12025550143", "+12025550144"
GREETING = "Hi."
Messages = list[dict[str, Any]]


class Talk:
    """One call: the caller's hand and ear, the agent's side, and the carrier's."""

    def __init__(self, caller: SimulatedCaller, twilio: FakeTwilio, server: Server, call: Call) -> None:
        self.caller, self.twilio, self.server, self.call = caller, twilio, server, call
        self.report = caller.report
        self.finished: asyncio.Future[CallResult] = asyncio.get_running_loop().create_future()
        server.finished = lambda call, result: self.finished.set_result(result)
        self._mark = 0

    async def said(self, text: str) -> None:
        handset = self.caller._handset
        _, end = handset.speak(spelled.spell(text))
        await self.until(lambda: handset.position >= end, "the caller has spoken")

    def ear(self) -> str:
        """All that was heard of the agent, over all streams."""
        stream = self.caller._call.stream
        played = [played for _, _, played in self.caller._call.tracks]
        if stream is not None:
            stream._follow(stream._playout.advance(stream._sample()))
            played.append(stream.tracks()[1])
        return "".join(spelled.read(b"".join(played)).split())

    async def hears(self, text: str) -> None:
        """Waits until the ear has received `text` after what the last wait ended with."""
        wanted = "".join(text.split())
        await self.until(lambda: wanted in self.ear()[self._mark :], f"{text!r} is heard")
        self._mark = self.ear().index(wanted, self._mark) + len(wanted)

    async def until(self, true: Callable[[], object], what: str, limit: float = 15.0) -> None:
        try:
            async with asyncio.timeout(limit):
                while not true():  # noqa: ASYNC110 - the ear is a recording, not an event
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(
                f"not within {limit:g} s: {what}. The ear has {self.ear()!r}, the history "
                f"{[(m.role, m.content) for m in self.call.history.messages]}, {self.report.events[-8:]}"
            ) from None

    async def result(self) -> CallResult:
        return await asyncio.wait_for(asyncio.shield(self.finished), 15)

    def uses(self) -> list[ToolUse]:
        return [entry for entry in self.call.history.messages if isinstance(entry, ToolUse)]

    @property
    def updates(self) -> list[dict[str, str]]:
        """What the REST API was asked to change."""
        (call,) = self.twilio._incoming.values()
        return call.updates

    def asked(self) -> list[str]:
        """The paths of the requests that the carrier made of us."""
        return [step.url.partition("/twilio/")[2] for step in self.report.http if "/twilio/" in step.url]


class Model:
    """Answers by what the caller said last, and by what came of the tools since."""

    def __init__(self, answers: dict[str, Any], after_tool: str | None = None) -> None:
        self.answers, self.after_tool = answers, after_tool
        self.results: list[str] = []

    def __call__(self, messages: Messages) -> Any:
        last = max(i for i, message in enumerate(messages) if message["role"] == "user")
        results = [message["content"] for message in messages[last:] if message["role"] == "tool"]
        if results and self.after_tool is not None:
            self.results += results
            return self.after_tool
        return self.answers[messages[last]["content"]]


def calls(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name, json.dumps(arguments), f"call_{name}")


@asynccontextmanager
async def talk(
    tools: Callable[[], list[Tool]], model: Model, *, line: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Talk]:
    """The full agent with these tools, on the line with a caller who has heard its greeting."""
    made: list[Call] = []

    def make(call: Call) -> Pipeline:
        made.append(call)
        return Pipeline(
            call.source(),
            FluxSTT(),
            ChatLLM(instructions="You are the switchboard.", greeting=GREETING, tools=tools()),
            SentenceAggregator(),
            ElevenLabsTTS(),
            call.sink(),
        )

    twilio = FakeTwilio(numbers=(OURS,))
    llm = FakeOpenAI(key=OPENAI_KEY, reply=model, ttft=0.05, gap=0.005)
    async with Vendors(llm=llm, twilio=twilio) as fakes:
        with environment(fakes):
            server = Server(SimpleNamespace(make=make), Settings(**settings))
            routes = TwilioRoutes(server, auth_token=twilio.auth_token)
            async with Listener(server, routes.routes(), host="127.0.0.1", port=0) as listener:
                next(iter(twilio.numbers.values()))["voice_url"] = listener.url + VOICE
                async with twilio.caller(OURS, **(line or {})) as caller:
                    it = Talk(caller, twilio, server, made[-1])
                    await it.hears(GREETING)
                    yield it
                    await caller.hang_up()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="DEBUG", diagnose=False)
    yield lines
    logger.remove(sink)


def play(main: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await main
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left: {left}"

    asyncio.run(bounded())


def no_secrets(lines: list[str], it: Talk) -> None:
    text = "".join(lines) + "".join(use.result for use in it.uses())
    for secret in (it.twilio.auth_token, it.caller.stream_url.rpartition("/")[2]):
        assert secret not in text


# -- TwiML -----------------------------------------------------------------------------------------------


def test_the_documents() -> None:
    assert twiml.dial(SALES).endswith(f"<Response><Dial>{SALES}</Dial></Response>")
    document = twiml.dial(SALES, caller_id=OURS, timeout=9, afterwards="Gone & <lost>.")
    assert document.endswith(
        f'<Response><Dial callerId="{OURS}" timeout="9">{SALES}</Dial>'
        "<Say>Gone &amp; &lt;lost&gt;.</Say><Hangup/></Response>"
    )
    assert twiml.press_and_connect("1w#", "wss://a.example/ws/t", "https://a.example/after/t").endswith(
        '<Response><Play digits="1w#"/><Connect action="https://a.example/after/t">'
        '<Stream url="wss://a.example/ws/t"></Stream></Connect></Response>'
    )
    for wrong in ("", "1 2", "E", '1"', "1" * 33, "\u0661"):
        with pytest.raises(ValueError, match="no keys"):
            twiml.checked_digits(wrong)
    with pytest.raises(ValueError, match="no telephone number"):
        twiml.dial(SALES, caller_id="me")


# -- transfer_call ---------------------------------------------------------------------------------------


def to_sales() -> list[Tool]:
    return [transfer_call({"sales": SALES, "doctor": DOCTOR}, caller_id=OURS, timeout=20)]


def test_a_caller_is_transferred_once_they_have_heard_so(lines: list[str]) -> None:
    model = Model({"Sales.": ["I connect you to them.", calls("transfer_call", to="sales")]})

    async def main() -> None:
        async with talk(to_sales, model) as it:
            await it.said("Sales.")
            result = await it.result()
            assert (result.reason, result.normal, result.fault) == ("transferred to sales", True, None)
            await it.until(lambda: it.caller.over, "Twilio has dialled")
            assert it.ear().endswith("Iconnectyoutothem.")
            (dialled,) = it.report.of("dialled")
            assert dialled.detail == SALES
            assert it.report.said == []
            silent = it.report.of("agent silent")[-1]
            assert silent.at <= it.report.of("redirected")[0].at
            assert it.asked() == ["voice", "ws/..."]  # nobody asked what comes next
            (update,) = it.updates
            assert f'<Dial callerId="{OURS}" timeout="20">{SALES}</Dial><Say>' in update["Twiml"]
            assert it.uses()[0].state is UseState.DONE
            no_secrets(lines, it)
            assert not [line for line in lines if "WARNING" in line or "ERROR" in line]

    play(main())


def test_nobody_answers_there() -> None:
    model = Model({"Sales.": ["One moment.", calls("transfer_call", to="doctor")]})

    async def main() -> None:
        async with talk(to_sales, model, line={"dial_answered": False}) as it:
            await it.said("Sales.")
            await it.result()
            await it.until(lambda: it.caller.over, "the call is over")
            assert it.report.said == ["There is nobody on that line just now. Goodbye."]

    play(main())


def test_a_refused_transfer_is_told_and_the_call_goes_on(lines: list[str]) -> None:
    model = Model(
        {
            "Sales.": ["I connect you.", calls("transfer_call", to="sales")],
            "Thanks.": "Welcome.",
        },
        after_tool="Sorry.",
    )

    async def main() -> None:
        async with talk(to_sales, model) as it:
            it.twilio.problems.append(Problem(400, 21215, "Geo permission for token fake-twilio-token"))
            await it.said("Sales.")
            await it.hears("Sorry.")
            (use,) = it.uses()
            assert use.state is UseState.FAILED
            assert use.result.startswith(
                "It failed: the call was not transferred: Twilio refused (error 21215)"
            )
            await it.said("Thanks.")
            await it.hears("Welcome.")
            await it.caller.hang_up()
            result = await it.result()
            assert (result.reason, result.normal) == ("Twilio stopped the stream", True)
            no_secrets(lines, it)

    play(main())


def test_somebody_who_is_not_on_the_list_is_refused() -> None:
    model = Model({"Sales.": [calls("transfer_call", to="+19005550100")]}, after_tool="I cannot do that.")

    async def main() -> None:
        async with talk(to_sales, model) as it:
            await it.said("Sales.")
            await it.hears("I cannot do that.")
            assert it.uses()[0].state is UseState.REFUSED
            assert it.updates == []

    play(main())


def test_a_twilio_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have acted or not: what counts is whether the stream goes on."""
    monkeypatch.setattr(live, "LEAVING", 0.3)
    model = Model({"Sales.": [calls("transfer_call", to="sales")]}, after_tool="That did not work.")

    async def main(acts: bool) -> None:
        async with talk(to_sales, model) as it:
            rest = it.call.services.shared("twilio rest", live.TwilioRest)
            redirect = rest.redirect

            async def unsure(sid: str, document: str) -> Any:
                if acts:
                    await redirect(sid, document)
                raise LinkError("api.twilio.com did not answer within 10 s (it may have acted all the same)")

            monkeypatch.setattr(rest, "redirect", unsure)
            await it.said("Sales.")
            if acts:
                assert (await it.result()).reason == "transferred to sales"
                return
            await it.hears("That did not work.")
            assert not it.call.line.expecting
            await it.caller.hang_up()
            assert (await it.result()).reason == "Twilio stopped the stream"

    play(main(acts=True))
    play(main(acts=False))


def test_the_caller_hangs_up_while_twilio_is_asked() -> None:
    model = Model({"Sales.": [calls("transfer_call", to="sales")]}, after_tool="Hm.")

    async def main() -> None:
        async with talk(to_sales, model) as it:
            it.twilio.delay = 0.5
            await it.said("Sales.")
            await it.until(lambda: it.call.line.expecting, "Twilio is asked")
            await it.caller.hang_up()
            result = await it.result()
            assert (result.reason, result.normal) == ("Twilio stopped the stream", True)

    play(main())


def test_who_may_be_called() -> None:
    one = transfer_call({"sales": SALES, "the doctor": "+1 (202) 555-0144"})
    assert (one.name, one.effect) == ("transfer_call", Effect.TERMINAL)
    assert one.parameters["properties"]["to"]["enum"] == ["sales", "the doctor"]
    assert transfer_call(SALES).parameters["properties"] == {}
    anybody = transfer_call({"sales": SALES}, any_number=True).parameters["properties"]["to"]
    assert "enum" not in anybody
    assert "sales" in anybody["description"]
    for wrong in (
        lambda: transfer_call(),
        lambda: transfer_call({}),
        lambda: transfer_call("202"),
        lambda: transfer_call({"sales": "sales@example.com"}),
        lambda: transfer_call(SALES, any_number=True),
        lambda: transfer_call(SALES, caller_id="us"),
        lambda: transfer_call(SALES, timeout=1),
        lambda: transfer_call(SALES, afterwards="x" * 4000),
    ):
        with pytest.raises(DeclarationError):
            wrong()


def test_any_number() -> None:
    answer = [calls("transfer_call", to="+1 202 555 0177")]
    model = Model({"Mother.": answer, "Bob.": [calls("transfer_call", to="Bob")]}, "Which number?")

    async def main() -> None:
        async with talk(lambda: [transfer_call({"sales": SALES}, any_number=True)], model) as it:
            await it.said("Bob.")
            await it.hears("Which number?")
            assert "write it with country code" in it.uses()[0].result
            await it.said("Mother.")
            assert (await it.result()).reason == "transferred"  # a stranger's number is in no log
            await it.until(lambda: it.caller.over, "Twilio has dialled")
            assert it.report.of("dialled")[0].detail == "+12025550177"

    play(main())


# -- send_digits -----------------------------------------------------------------------------------------

PRESSING = "One moment, I press them for you now."


def keys() -> list[Tool]:
    return [send_digits()]


def pressing(digits: str = "1w2#", before: str = "") -> Model:
    answer = [*([before] if before else []), calls("send_digits", digits=digits)]
    return Model({"Press.": answer, "Hm?": "Still me."}, "Done.")


def test_keys_in_the_middle_of_a_conversation(lines: list[str]) -> None:
    async def main() -> None:
        model = pressing(before=PRESSING)
        async with talk(keys, model) as it:
            it.twilio.delay = 1.0  # so that the agent is in the middle of its sentence
            await it.said("Press.")
            await it.until(lambda: it.report.of("digits heard"), "the keys are pressed")
            (heard,) = it.report.of("digits heard")
            assert heard.detail == "1w2#"
            whole, begun = PRESSING.replace(" ", ""), it.ear().removeprefix(GREETING.replace(" ", ""))
            assert whole.startswith(begun)
            assert "Onemo" in begun
            assert begun != whole
            await it.hears("for you now.")
            await it.hears("Done.")
            rest = it.ear().removeprefix(GREETING.replace(" ", "") + begun).removesuffix("Done.")
            assert whole.endswith(rest)  # it went on where the caller had heard it, or a word before
            assert 0 <= len(begun) + len(rest) - len(whole) <= 10
            await it.said("Hm?")
            await it.hears("Still me.")
            assert model.results == ["The keys were pressed. What the other side says to them comes next."]
            assert it.asked() == ["voice", "ws/...", "ws/..."]
            assert it.report.faults == []  # nothing was sent in the name of the old stream
            assert len(it.server.calls) == 1
            await it.until(lambda: it.call.turns.live is None, "all of it was heard")
            said = [m.content for m in it.call.history.messages if m.role == "assistant"]
            assert " ".join(said) == f"{GREETING} {PRESSING} Done. Still me."
            await it.caller.hang_up()
            result = await it.result()
            assert (result.reason, result.normal, result.fault) == ("Twilio stopped the stream", True, None)
            no_secrets(lines, it)
            assert not [line for line in lines if "WARNING" in line or "ERROR" in line]

    play(main())


def test_keys_twice() -> None:
    model = Model(
        {"Press.": [calls("send_digits", digits="1"), calls("send_digits", digits="2")]},
        after_tool="Both.",
    )

    async def main() -> None:
        async with talk(keys, model) as it:
            await it.said("Press.")
            await it.hears("Both.")
            assert sorted(event.detail for event in it.report.of("digits heard")) == ["1", "2"]
            assert len(it.report.stream_sids) == 3
            assert [use.state for use in it.uses()] == [UseState.DONE] * 2

    play(main())


def test_what_are_no_keys() -> None:
    async def main() -> None:
        async with talk(keys, pressing('1"/><Dial>+19005550100</Dial>')) as it:
            await it.said("Press.")
            await it.hears("Done.")  # whatever the model makes of the refusal
            assert it.uses()[0].result.startswith("It failed: these are no keys")
            assert it.updates == []
            assert len(it.report.stream_sids) == 1

    play(main())


def test_keys_that_twilio_refuses() -> None:
    async def main() -> None:
        async with talk(keys, pressing()) as it:
            it.twilio.problems.append(Problem(500, 20500, "Internal Server Error"))
            await it.said("Press.")
            await it.hears("Done.")
            assert it.uses()[0].result.startswith("It failed: the keys were not pressed: Twilio refused")
            assert it.server.admission.waiting == 0
            await it.said("Hm?")
            await it.hears("Still me.")
            await it.caller.hang_up()
            assert (await it.result()).reason == "Twilio stopped the stream"

    play(main())


def test_the_caller_hangs_up_during_the_keys(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    """No other stream will come, and nobody says so: the call ends by itself."""
    monkeypatch.setattr(live, "WINDOW", 0.2)
    monkeypatch.setattr(live, "START_TIMEOUT", 0.2)

    async def main() -> None:
        async with talk(keys, pressing("1WW")) as it:
            await it.said("Press.")
            await it.until(lambda: it.report.of("digits heard"), "the keys are pressed")
            await it.caller.hang_up()
            result = await it.result()
            assert result.reason == "Twilio did not open the call's next stream within 2.7 s"
            assert not result.normal
            assert it.server.admission.waiting == 0
            no_secrets(lines, it)

    play(main())


def test_the_end_of_the_server_during_the_keys() -> None:
    async def main() -> None:
        async with talk(keys, pressing("1WWWW")) as it:
            await it.said("Press.")
            await it.until(lambda: it.report.of("digits heard"), "the keys are pressed")
            async with asyncio.timeout(4):
                await it.server.end_calls()
            result = await it.result()
            assert (result.reason, result.normal) == ("the server is shutting down", False)
            await it.caller.wait_for("stream refused")
            it.caller._call._refused = None  # the simulated carrier need not complain: it is right so
            await it.until(lambda: it.caller.over, "the caller is told")
            assert it.report.said == [it.server.settings.fallback]

    play(main())


# -- both ------------------------------------------------------------------------------------------------


async def asks_after(it: Talk, token: str) -> str:
    """What the carrier is told that asks what comes after a stream, though it was redirected."""
    url = it.caller._url.replace(VOICE, AFTER + token)
    form = {"CallSid": it.caller.call_sid}
    headers = {SIGNATURE_HEADER: sign(it.twilio.auth_token, url, form)}
    async with aiohttp.ClientSession() as http, http.post(url, data=form, headers=headers) as response:
        assert response.status == 200
        return await response.text()


def test_a_carrier_that_asks_what_comes_after_a_redirect() -> None:
    """Twilio does not. If it did, it would be told once more, and nobody would hear the fallback."""

    async def transferred() -> None:
        model = Model({"Sales.": [calls("transfer_call", to="sales")]})
        async with talk(to_sales, model) as it:
            first = it.caller.stream_url.rpartition("/")[2]
            await it.said("Sales.")
            await it.result()
            answer = await asks_after(it, first)
            assert SALES in answer or "<Response><Hangup/>" in answer
            assert it.server.settings.fallback not in answer

    async def pressed() -> None:
        async with talk(keys, pressing("1WW")) as it:
            first = it.caller.stream_url.rpartition("/")[2]
            await it.said("Press.")
            await it.until(lambda: it.report.of("digits heard"), "the keys are pressed")
            (update,) = it.updates
            assert await asks_after(it, first) == update["Twiml"]
            assert await asks_after(it, "w0.guessed") != update["Twiml"]
            await it.hears("Done.")

    play(transferred())
    play(pressed())


@pytest.mark.parametrize("make", [send_digits, lambda: transfer_call(SALES)])
def test_a_missing_key_is_told_before_any_call(
    make: Callable[[], Tool], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_API_KEY", "TWILIO_API_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0000")
    llm = ChatLLM(instructions="Hello.", tools=[make()])
    with pytest.raises(MissingKeys) as caught:
        check_keys([llm])
    assert [key.variable for key in caught.value.missing] == ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"]
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC1")
    monkeypatch.setenv("TWILIO_API_KEY", "SK1")
    monkeypatch.setenv("TWILIO_API_SECRET", "a-secret")
    check_keys([ChatLLM(instructions="Hello.", tools=[make()])])


def test_on_another_line() -> None:
    async def main() -> None:
        call = Call(MemoryCodec())
        with pytest.raises(LinkError, match="transfer_call works on a call that came over Twilio"):
            await transfer_call(SALES)(call)
        with pytest.raises(LinkError, match="send_digits works on a call that came over Twilio"):
            await send_digits()(call, "1")

    asyncio.run(main())


def test_the_tools_in_the_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/phone.md").read_text(encoding="utf-8")
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "transfer_call" in c)
    for name in ("OPENAI_API_KEY", "TWILIO_AUTH_TOKEN"):
        monkeypatch.setenv(name, "0123456789abcdef")
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC" + "0" * 32)
    names: dict[str, Any] = {}
    exec(code, names)
    llm = names["switchboard"]()
    check_keys([llm])
    assert [tool.name for tool in llm.desk.tools] == ["transfer_call", "send_digits"]
