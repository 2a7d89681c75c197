"""The fake Twilio REST API, asked over real sockets; and calls that it really makes to a voiceflow server."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from processors.twilio.routes import VOICE, TwilioRoutes
from processors.twilio.signature import SIGNATURE_HEADER, valid
from processors.twilio.simulated.caller import Speech
from tests.vendors import twilio as vendor
from tests.vendors.reach import within
from tests.vendors.twilio import FakeTwilio, Outcome, PlacedCall, Problem
from voiceflow.audio import decode, encode
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.frames import AudioIn, AudioOut, Prompt, ReplyEnd
from voiceflow.server import admission
from voiceflow.server.listener import Listener
from voiceflow.server.server import Server, Settings

OURS, THEIRS = "+12025550199", "+12025550143"
QUICK = Outcome(queued=0.0, rings=0.0, lasts=30.0)
NEVER = "http://127.0.0.1:9/voice"
"""A webhook that is not asked."""


class Rest:
    """A client of the fake, with plain aiohttp."""

    def __init__(self, fake: FakeTwilio, http: aiohttp.ClientSession, base: str) -> None:
        self.fake, self.http, self.base = fake, http, base
        self.login = f"{fake.account_sid}:{fake.auth_token}"
        self.account = fake.account_sid

    async def ask(self, method: str, path: str, *fields: tuple[str, str]) -> tuple[int, dict[str, Any]]:
        url = f"{self.base}/2010-04-01/Accounts/{self.account}/{path}"
        headers = {"Authorization": "Basic " + b64encode(self.login.encode()).decode()} if self.login else {}
        body = {"params": fields} if method == "GET" else {"data": aiohttp.FormData(fields)}
        async with self.http.request(method, url, headers=headers, **body) as response:
            return response.status, await response.json()

    async def place(self, *fields: tuple[str, str], **more: str) -> PlacedCall:
        usual = {"To": THEIRS, "From": OURS, "Url": NEVER, **more}
        status, body = await self.ask("POST", "Calls.json", *usual.items(), *fields)
        assert status == 201, body
        return self.fake.calls[-1]

    async def update(self, call: PlacedCall, **fields: str) -> tuple[int, dict[str, Any]]:
        return await self.ask("POST", f"Calls/{call.sid}.json", *fields.items())

    async def status(self, call: PlacedCall) -> str:
        _, body = await self.ask("GET", f"Calls/{call.sid}.json")
        return str(body["status"])


@asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def play(fake: FakeTwilio, body: Callable[[Rest], Coroutine[Any, Any, None]]) -> None:
    """Runs `body` against the fake, bounded, and sees that it leaves no task behind."""

    async def main() -> None:
        async with serving(*fake.routes()) as base, aiohttp.ClientSession() as http:
            try:
                await body(Rest(fake, http, base))
            finally:
                await fake.close()

    within(main(), 20)


def statuses(call: PlacedCall) -> list[str]:
    return [status for _, status in call.history]


# -- who may ask -----------------------------------------------------------------------------------------


def test_credentials() -> None:
    fake = FakeTwilio(outcome=QUICK)
    fake.logins["SK" + "1" * 32] = "the-secret"

    async def body(rest: Rest) -> None:
        good = rest.login
        for login in ("", f"{fake.account_sid}:wrong", "AC1:" + fake.auth_token, f"{fake.account_sid}:"):
            rest.login = login
            status, answer = await rest.ask("GET", "IncomingPhoneNumbers.json")
            assert status == 401
            assert answer == {
                "code": 20003,
                "message": "Authenticate",
                "more_info": "https://www.twilio.com/docs/errors/20003",
                "status": 401,
            }
        for login in (good, f"SK{'1' * 32}:the-secret"):
            rest.login = login
            assert (await rest.ask("GET", "IncomingPhoneNumbers.json"))[0] == 200
        rest.account = "AC" + "9" * 32
        status, answer = await rest.ask("GET", "IncomingPhoneNumbers.json")
        assert (status, answer["code"]) == (404, 20404)

    play(fake, body)
    assert [asked.status for asked in fake.requests] == [401] * 4 + [200] * 2 + [404]
    assert fake.auth_token not in repr(fake.requests)
    assert fake.auth_token not in repr(fake)


# -- placing a call --------------------------------------------------------------------------------------


def test_a_call_is_placed_and_followed() -> None:
    fake = FakeTwilio(outcome=Outcome(queued=0.02, rings=0.02, lasts=0.02))

    async def body(rest: Rest) -> None:
        fields = [("To", THEIRS), ("From", OURS), ("Url", NEVER), ("StatusCallbackEvent", "ringing")]
        fields.append(("StatusCallbackEvent", "completed"))
        status, answer = await rest.ask("POST", "Calls.json", *fields)
        assert status == 201
        assert answer["status"] == "queued"
        assert answer["sid"].startswith("CA")
        assert len(answer["sid"]) == 34
        assert (answer["to"], answer["from"], answer["duration"]) == (THEIRS, OURS, None)
        (call,) = fake.calls
        assert call.sid == answer["sid"]
        assert call.form == fields
        await fake.until(lambda: call.over)
        status, answer = await rest.ask("GET", f"Calls/{call.sid}.json")
        assert (status, answer["status"], answer["duration"]) == (200, "completed", "0")

    play(fake, body)
    (call,) = fake.calls
    assert statuses(call) == ["queued", "ringing", "in-progress", "completed"]
    times = [at for at, _ in call.history]
    assert times == sorted(times)
    assert [(asked.method, asked.status) for asked in fake.requests] == [("POST", 201), ("GET", 200)]
    assert fake.requests[0].form == call.form


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"To": ""}, 21201),
        ({"To": "+1"}, 21211),
        ({"To": "hello"}, 21211),
        ({"From": ""}, 21213),
        ({"From": "+12025550000"}, 21210),
        ({"Url": ""}, 21205),
        ({"Url": "ftp://example.com/"}, 21205),
        ({"Url": "", "Twiml": "<Response>" + "x" * 4000}, 32018),
    ],
    ids=str,
)
def test_calls_that_are_refused(change: dict[str, str], code: int) -> None:
    fake = FakeTwilio(outcome=QUICK)

    async def body(rest: Rest) -> None:
        fields = {"To": THEIRS, "From": OURS, "Url": NEVER, **change}
        status, answer = await rest.ask("POST", "Calls.json", *fields.items())
        assert (status, answer["status"], answer["code"]) == (400, 400, code)

    play(fake, body)
    assert fake.calls == []


@pytest.mark.parametrize("to", ["client:ada", "sip:ada@example.com"])
def test_other_parties_than_numbers(to: str) -> None:
    fake = FakeTwilio(outcome=QUICK)

    async def body(rest: Rest) -> None:
        assert (await rest.place(To=to)).given("To") == to

    play(fake, body)


@pytest.mark.parametrize("end", ["busy", "no-answer", "failed"])
def test_calls_that_nobody_answers(end: Any) -> None:
    fake = FakeTwilio(outcome=QUICK)
    fake.outcomes += [Outcome(end, queued=0.0, rings=0.02), None]

    async def body(rest: Rest) -> None:
        call, other = await rest.place(), await rest.place()
        await fake.until(lambda: call.over and other.status == "in-progress")
        assert await rest.status(call) == end

    play(fake, body)
    assert statuses(fake.calls[0]) == ["queued", "ringing", end]


def test_the_timeout_of_the_request_ends_the_ringing() -> None:
    fake = FakeTwilio(outcome=Outcome(queued=0.0, rings=60.0))

    async def body(rest: Rest) -> None:
        call = await rest.place(Timeout="0")
        await fake.until(lambda: call.over)

    play(fake, body)
    assert statuses(fake.calls[0]) == ["queued", "ringing", "no-answer"]


def test_the_time_limit_of_the_request_ends_the_call() -> None:
    fake = FakeTwilio(outcome=QUICK)

    async def body(rest: Rest) -> None:
        call = await rest.place(TimeLimit="0")
        await fake.until(lambda: call.over)

    play(fake, body)
    assert statuses(fake.calls[0]) == ["queued", "ringing", "in-progress", "completed"]


def test_problems_of_the_service() -> None:
    fake = FakeTwilio(outcome=QUICK, delay=0.01)
    fake.problems += [vendor.TOO_MANY, None, Problem(503, 20503, "Service unavailable")]

    async def body(rest: Rest) -> None:
        for expected in ((429, 20429), (200, None), (503, 20503), (200, None)):
            status, answer = await rest.ask("GET", "IncomingPhoneNumbers.json")
            assert (status, answer.get("code")) == expected

    play(fake, body)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "MOST_KEPT", 2)
    fake = FakeTwilio(outcome=Outcome(queued=0.0, rings=0.0, lasts=0.0))

    async def body(rest: Rest) -> None:
        made = []
        for _ in range(3):
            made.append(await rest.place())
            await fake.until(lambda: made[-1].over and not fake._tasks)
        assert fake.calls == made[1:]
        assert (await rest.ask("GET", f"Calls/{made[0].sid}.json"))[0] == 404
        fake.outcome = QUICK
        await rest.place()
        await rest.place()
        status, answer = await rest.ask("POST", "Calls.json", ("To", THEIRS), ("From", OURS), ("Url", NEVER))
        assert (status, answer["code"]) == (429, 20429)

    play(fake, body)
    assert len(fake.requests) == 2


# -- status callbacks ------------------------------------------------------------------------------------


class Ear:
    """A server that hears status callbacks, and checks who signed them."""

    def __init__(self, fake: FakeTwilio, public: str = "") -> None:
        self.fake = fake
        self.public = public
        self.heard: list[dict[str, str]] = []
        self.base = ""

    async def hear(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        url = (self.public or self.base) + request.path_qs
        signature = request.headers.get(SIGNATURE_HEADER, "")
        if not valid(self.fake.auth_token, url, form, signature):
            raise web.HTTPForbidden
        self.heard.append(form or dict(request.query))
        return web.Response(status=204)

    @property
    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", "/status", self.hear)]


EVENTS = [("StatusCallbackEvent", event) for event in ("initiated", "ringing", "answered", "completed")]


def test_every_event_that_was_asked_for_is_told() -> None:
    fake = FakeTwilio(outcome=Outcome(queued=0.0, rings=0.0, lasts=0.0))
    ear = Ear(fake)

    async def body(rest: Rest) -> None:
        async with serving(*ear.routes) as ear.base:
            call = await rest.place(*EVENTS, StatusCallback=ear.base + "/status?x=1")
            await fake.until(lambda: len(fake.callbacks) == 4)
        assert {form["CallSid"] for form in ear.heard} == {call.sid}

    play(fake, body)
    assert [form["CallStatus"] for form in ear.heard] == ["initiated", "ringing", "in-progress", "completed"]
    assert [form["SequenceNumber"] for form in ear.heard] == ["0", "1", "2", "3"]
    assert ["CallDuration" in form for form in ear.heard] == [False, False, False, True]
    assert {(form["From"], form["To"], form["Direction"]) for form in ear.heard} == (
        {(OURS, THEIRS, "outbound-api")}
    )
    assert [callback.status for callback in fake.callbacks] == [204] * 4
    assert [callback.form for callback in fake.callbacks] == ear.heard


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_by_default_only_the_end_is_told(method: str) -> None:
    fake = FakeTwilio()
    fake.outcomes.append(Outcome("busy", queued=0.0, rings=0.0))
    ear = Ear(fake, public="https://agent.example")

    async def body(rest: Rest) -> None:
        async with serving(*ear.routes) as base:
            fake.reach["https://agent.example"] = base
            where = {"StatusCallback": "https://agent.example/status", "StatusCallbackMethod": method}
            await rest.place(**where)
            await fake.until(lambda: fake.callbacks)

    play(fake, body)
    assert [form["CallStatus"] for form in ear.heard] == ["busy"]


def test_a_callback_that_nobody_takes_does_not_hold_up_the_call() -> None:
    fake = FakeTwilio(outcome=Outcome(queued=0.0, rings=0.0, lasts=0.0))

    async def body(rest: Rest) -> None:
        async with serving() as gone:
            pass
        call = await rest.place(*EVENTS, StatusCallback=gone + "/status")
        await fake.until(lambda: call.over and len(fake.callbacks) == 4)

    play(fake, body)
    assert [callback.status for callback in fake.callbacks] == [0] * 4


# -- hanging up and redirecting --------------------------------------------------------------------------


def test_hanging_up_a_call_that_is_answered() -> None:
    fake = FakeTwilio(outcome=QUICK)

    async def body(rest: Rest) -> None:
        call = await rest.place()
        await fake.until(lambda: call.status == "in-progress")
        assert (await rest.update(call, Status="canceled"))[0] == 200  # only helps before the answer
        status, answer = await rest.update(call, Status="completed")
        assert (status, answer["sid"]) == (200, call.sid)
        await fake.until(lambda: call.over)
        assert call.updates == [{"Status": "canceled"}, {"Status": "completed"}]

    play(fake, body)
    assert statuses(fake.calls[0]) == ["queued", "ringing", "in-progress", "completed"]


@pytest.mark.parametrize("order", ["canceled", "completed"])
@pytest.mark.parametrize("phase", ["queued", "ringing"])
def test_hanging_up_before_the_answer(order: str, phase: str) -> None:
    slow = {"queued": 0.0, "rings": 30.0} if phase == "ringing" else {"queued": 30.0}
    fake = FakeTwilio(outcome=Outcome(**slow))  # type: ignore[arg-type]

    async def body(rest: Rest) -> None:
        call = await rest.place()
        await fake.until(lambda: call.status == phase)
        assert (await rest.update(call, Twiml="<Response/>"))[1]["code"] == 21220
        assert (await rest.update(call, Status=order))[0] == 200
        await fake.until(lambda: call.over)

    play(fake, body)
    assert statuses(fake.calls[0])[-2:] == [phase, "canceled"]


@pytest.mark.parametrize(
    ("ended", "hung_up", "redirected"),
    [
        (None, (404, 20404), (400, 21220)),
        (20404, (404, 20404), (404, 20404)),
        (21220, (400, 21220), (400, 21220)),
    ],
)
def test_orders_after_the_end(ended: Any, hung_up: tuple[int, int], redirected: tuple[int, int]) -> None:
    fake = FakeTwilio(outcome=Outcome(queued=0.0, rings=0.0, lasts=0.0), ended=ended)

    async def body(rest: Rest) -> None:
        call = await rest.place()
        await fake.until(lambda: call.over)
        status, answer = await rest.update(call, Status="completed")
        assert (status, answer["code"]) == hung_up
        status, answer = await rest.update(call, Twiml="<Response/>")
        assert (status, answer["code"]) == redirected
        assert await rest.status(call) == "completed"

    play(fake, body)


def test_orders_that_make_no_sense() -> None:
    fake = FakeTwilio(outcome=QUICK)

    async def body(rest: Rest) -> None:
        call = await rest.place()
        await fake.until(lambda: call.status == "in-progress")
        for wrong, code in (
            ({"Status": "busy"}, 20001),
            ({"Url": NEVER, "Twiml": "<Response/>"}, 20001),
            ({"Url": "nowhere"}, 21205),
            ({"Twiml": "x" * 4001}, 32018),
        ):
            status, answer = await rest.update(call, **wrong)
            assert (status, answer["code"]) == (400, code)
        for method in ("GET", "POST"):
            status, answer = await rest.ask(method, "Calls/CAnobody.json")
            assert (status, answer["code"]) == (404, 20404)
        assert call.updates == []

    play(fake, body)


# -- numbers ---------------------------------------------------------------------------------------------


def test_pointing_a_number() -> None:
    fake = FakeTwilio(numbers=[OURS, "+120255501990"])

    async def body(rest: Rest) -> None:
        with pytest.raises(LookupError):
            fake.caller(OURS)
        status, answer = await rest.ask("GET", "IncomingPhoneNumbers.json", ("PhoneNumber", OURS))
        assert status == 200
        first, second = answer["incoming_phone_numbers"]  # the other one contains it
        assert (first["phone_number"], second["phone_number"]) == (OURS, "+120255501990")
        assert (answer["page"], answer["page_size"], answer["next_page_uri"]) == (0, 50, None)
        assert (first["voice_url"], first["voice_method"]) == ("", "POST")
        assert first["sid"].startswith("PN")

        where = f"IncomingPhoneNumbers/{first['sid']}.json"
        new = [("VoiceUrl", "https://agent.example/twilio/voice"), ("VoiceMethod", "GET")]
        new.append(("StatusCallback", "https://agent.example/status"))
        status, answer = await rest.ask("POST", where, *new)
        assert status == 200
        assert answer == {
            **first,
            "voice_url": "https://agent.example/twilio/voice",
            "voice_method": "GET",
            "status_callback": "https://agent.example/status",
        }
        _, answer = await rest.ask("GET", "IncomingPhoneNumbers.json")
        assert answer["incoming_phone_numbers"][0]["voice_method"] == "GET"
        assert answer["incoming_phone_numbers"][1] == second

        status, answer = await rest.ask("POST", where, ("VoiceUrl", "nonsense"), ("VoiceMethod", "POST"))
        assert (status, answer["code"]) == (400, 21402)
        assert fake.numbers[first["sid"]]["voice_method"] == "GET"
        status, answer = await rest.ask("POST", "IncomingPhoneNumbers/PN1.json", new[0])
        assert (status, answer["code"]) == (404, 20404)
        _, answer = await rest.ask("GET", "IncomingPhoneNumbers.json", ("PhoneNumber", "+44"))
        assert answer["incoming_phone_numbers"] == []

    play(fake, body)


# -- calls that are really made --------------------------------------------------------------------------

TONE = encode(np.where(np.arange(1600) // 10 % 2, -8000, 8000).astype(np.int16))
"""200 ms of 400 Hz, no sample of it silent."""


class Ears(Processor):
    """Has the agent speak as soon as the caller has; remembers how much the caller said."""

    needs = (AudioIn,)
    takes_turns = True

    def __init__(self) -> None:
        self.voiced = 0

    @tap(AudioIn)
    def hear(self, frame: AudioIn) -> None:
        before = self.voiced
        self.voiced += len(frame.audio) - frame.audio.count(0xFF)
        if before < 800 <= self.voiced:
            self.turns.started()
            self.turns.ended("hello")


class Greeting(Processor):
    emits = (AudioOut, ReplyEnd)

    @on(Prompt)
    def greet(self, prompt: Prompt) -> Any:
        yield AudioOut(TONE, "Good morning.")
        yield ReplyEnd()


class Greeter:
    """The agent on the other end; keeps its calls and their ears."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.ears: list[Ears] = []

    def make(self, call: Call) -> Pipeline:
        self.calls.append(call)
        self.ears.append(Ears())
        return Pipeline(call.source(), self.ears[-1], Greeting(), call.sink())


@asynccontextmanager
async def answering(fake: FakeTwilio, public: str | None = None) -> AsyncIterator[tuple[Greeter, str]]:
    """A voiceflow server that checks every signature; the agent and its base URL."""
    agent = Greeter()
    server = Server(agent, Settings(public_url=public))
    routes = TwilioRoutes(server, auth_token=fake.auth_token)
    async with Listener(server, routes.routes(), host="127.0.0.1", port=0) as listener:
        if public:
            fake.reach[public] = listener.url
        yield agent, public or listener.url


def speech(seconds: float = 0.2) -> Speech:
    return Speech(decode((TONE * 5)[: round(seconds * 8000)]), 0.05)


@pytest.fixture(autouse=True)
def _nobody_asks_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was hung up on by REST never asks what comes next."""
    monkeypatch.setattr(admission, "QUESTION_WAIT", 0.05)


@pytest.mark.parametrize("public", [None, "https://agent.example"])
def test_an_outbound_call_from_end_to_end(public: str | None) -> None:
    fake = FakeTwilio(outcome=QUICK, answers=lambda call: [speech()], line={"linger": 0.1, "limit": 5.0})

    async def body(rest: Rest) -> None:
        async with answering(fake, public) as (agent, base):
            call = await rest.place(Url=base + VOICE, Twiml="<Response><Hangup/></Response>")
            await fake.until(lambda: call.over, 10)
            (talked,), (ears,) = agent.calls, agent.ears
            assert (talked.caller, talked.called) == (OURS, THEIRS)
            assert ears.voiced == 1600

    play(fake, body)
    (call,) = fake.calls
    assert statuses(call) == ["queued", "ringing", "in-progress", "completed"]
    assert call.error == ""
    (report,) = call.reports
    assert report.call_sid == call.sid
    assert report.http[0].status == 200
    assert report.faults == []
    assert report.bytes_received == len(TONE)
    assert report.of("hung up")[0].detail == "the caller"


def test_how_a_placed_call_asks_for_twiml() -> None:
    fake = FakeTwilio(outcome=QUICK, answers=())
    asked: list[dict[str, str]] = []

    async def twiml(request: web.Request) -> web.Response:
        asked.append({name: str(value) for name, value in (await request.post()).items()})
        body = "<Response/>" if len(asked) > 1 else "<Response><Redirect>/next</Redirect></Response>"
        return web.Response(text=body, content_type="text/xml")

    async def body(rest: Rest) -> None:
        async with serving(web.post("/voice", twiml), web.post("/next", twiml)) as base:
            call = await rest.place(Url=f"{base}/voice")
            await fake.until(lambda: call.over)

    play(fake, body)
    expected = {
        "CallSid": fake.calls[0].sid,
        "AccountSid": fake.account_sid,
        "Direction": "outbound-api",
        "CallStatus": "in-progress",
        "From": OURS,
        "To": THEIRS,
    }
    assert [form | expected for form in asked] == asked
    assert len(asked) == 2


def test_hanging_up_a_live_line() -> None:
    fake = FakeTwilio(outcome=QUICK, answers=(), line={"linger": 30.0, "limit": 30.0})

    async def body(rest: Rest) -> None:
        async with answering(fake) as (_, base):
            call = await rest.place(Url=base + VOICE)
            await fake.until(lambda: call.reports)
            async with asyncio.timeout(5):
                while not call.reports[0].stream_sids:  # noqa: ASYNC110 - the report has no event
                    await asyncio.sleep(0.002)
            await rest.update(call, Status="completed")
            await fake.until(lambda: call.over)
            assert await rest.status(call) == "completed"

    play(fake, body)
    assert fake.calls[0].error == ""


def test_redirecting_a_live_line() -> None:
    """The stream ends, and the same call goes on with other TwiML: a transfer, a goodbye."""
    fake = FakeTwilio(outcome=QUICK, answers=[speech()], line={"linger": 30.0, "limit": 30.0})

    async def body(rest: Rest) -> None:
        async with answering(fake) as (agent, base):
            call = await rest.place(Url=base + VOICE)
            async with asyncio.timeout(5):
                while not (call.reports and call.reports[0].of("agent heard")):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.002)
            twiml = "<Response><Say>Goodbye &amp; thanks.</Say><Dial>+12025550177</Dial></Response>"
            assert (await rest.update(call, Twiml=twiml))[0] == 200
            await fake.until(lambda: call.over, 10)
            assert len(agent.calls) == 1

    play(fake, body)
    (call,) = fake.calls
    assert call.error == ""
    (report,) = call.reports
    kinds = [event.kind for event in report.events]
    assert kinds.index("caller speaks") < kinds.index("redirected") < kinds.index("said")
    assert report.said == ["Goodbye & thanks."]
    assert report.of("dialled")[0].detail == "+12025550177"
    assert report.call_sid == call.sid


def test_twiml_in_the_request() -> None:
    fake = FakeTwilio(outcome=QUICK, answers=[speech()])

    async def body(rest: Rest) -> None:
        call = await rest.place(Url="", Twiml="<Response><Say>Your table is ready.</Say></Response>")
        await fake.until(lambda: call.over)

    play(fake, body)
    assert fake.calls[0].reports[0].said == ["Your table is ready."]


def test_a_webhook_that_is_not_there() -> None:
    fake = FakeTwilio(outcome=QUICK, answers=[speech()])

    async def body(rest: Rest) -> None:
        async with serving() as base:
            call = await rest.place(Url=base + VOICE)
            await fake.until(lambda: call.over)

    play(fake, body)
    (call,) = fake.calls
    assert call.status == "completed"
    assert "HTTP 404" in call.error


def test_a_number_that_was_pointed_here_is_answered() -> None:
    fake = FakeTwilio()

    async def body(rest: Rest) -> None:
        async with answering(fake, "https://agent.example") as (agent, base):
            (sid,) = fake.numbers
            await rest.ask("POST", f"IncomingPhoneNumbers/{sid}.json", ("VoiceUrl", base + VOICE))
            report = await fake.caller(OURS, speeches=[speech()], linger=0.1).run()
            assert report.bytes_received == len(TONE)
            assert agent.calls[0].called == OURS

    play(fake, body)


def test_answers_that_raise_are_seen_in_the_call() -> None:
    def answers(call: PlacedCall) -> list[Speech]:
        raise ZeroDivisionError("the test's own fault")

    fake = FakeTwilio(outcome=QUICK, answers=answers)

    async def body(rest: Rest) -> None:
        call = await rest.place()
        task = next(iter(fake._tasks))
        await fake.until(lambda: call.over)
        with pytest.raises(ZeroDivisionError):
            await task

    play(fake, body)
    assert fake.calls[0].status == "failed"
    assert "ZeroDivisionError" in fake.calls[0].error


def test_closing_cuts_calls() -> None:
    fake = FakeTwilio(outcome=QUICK, answers=[speech()], line={"linger": 30.0, "limit": 30.0})

    async def body(rest: Rest) -> None:
        async with answering(fake) as (_, base):
            call = await rest.place(Url=base + VOICE)
            async with asyncio.timeout(5):
                while not (call.reports and call.reports[0].stream_sids):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.002)
            await fake.close()
            assert call.over

    play(fake, body)
