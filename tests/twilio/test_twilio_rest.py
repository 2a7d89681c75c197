"""Twilio's REST API: what is sent, how answers are read, and what is said when it refuses."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from processors.twilio import api, rest
from processors.twilio.api import PhoneNumber, TwilioRefused, e164, place_call
from processors.twilio.rest import TwilioRest
from voiceflow.errors import DeclarationError, LinkError
from voiceflow.vendor import MissingKeys

ACCOUNT = "AC" + "a1" * 16
TOKEN = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
CALL = "CA" + "c3" * 16
NUMBER = "PN" + "d4" * 16
ME, YOU = "+12025550199", "+12025550143"
HOOK = "https://agent.example.com/twilio/voice"


class Api:
    """An API that answers what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: deque[tuple[int, Any]] = deque()
        self.asked: list[tuple[str, str, list[tuple[str, str]]]] = []
        self.authorization: list[str] = []
        self.hang = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        form = (
            list((await request.post()).items()) if request.method == "POST" else list(request.query.items())
        )
        self.asked.append((request.method, request.path, form))  # type: ignore[arg-type]
        kind, _, secret = request.headers.get("Authorization", "").partition(" ")
        self.authorization.append(f"{kind} {base64.b64decode(secret).decode()}")
        status, body = self.answers.popleft() if self.answers else (200, {"sid": CALL, "status": "queued"})
        if status == 0:
            await self.hang.wait()
        if 300 <= status < 400:
            return web.Response(status=status, headers={"Location": body})
        if isinstance(body, bytes):
            return web.Response(status=status, body=body)
        return web.json_response(body, status=status)


@asynccontextmanager
async def serving() -> AsyncIterator[Api]:
    fake = Api()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        fake.hang.set()
        await runner.cleanup()


def with_api(body: Callable[[Api, TwilioRest], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with serving() as fake:
            given = {"account_sid": ACCOUNT, "auth_token": TOKEN, "base_url": fake.url, **options}
            async with TwilioRest(**given) as twilio:
                await body(fake, twilio)

    asyncio.run(asyncio.wait_for(main(), 10))


def refusal(code: int, status: int = 400, message: str = "No.") -> tuple[int, dict[str, Any]]:
    return status, {"code": code, "message": message, "more_info": "https://...", "status": status}


# -- what is sent ---------------------------------------------------------------------------------------


def test_place():
    async def body(fake: Api, twilio: TwilioRest) -> None:
        fake.answers.append((201, {"sid": CALL, "status": "queued", "duration": None}))
        placed = await twilio.place(
            YOU,
            ME,
            url=HOOK,
            timeout=25,
            time_limit=600,
            status_callback="https://agent.example.com/status",
            machine_detection="Enable",
            machine_callback="https://agent.example.com/machine",
        )
        assert (placed.sid, placed.status, placed.seconds, placed.ended) == (CALL, "queued", None, False)
        method, path, form = fake.asked.pop()
        assert (method, path) == ("POST", f"/2010-04-01/Accounts/{ACCOUNT}/Calls.json")
        assert form == [
            ("To", YOU),
            ("From", ME),
            ("Url", HOOK),
            ("Method", "POST"),
            ("Timeout", "25"),
            ("TimeLimit", "600"),
            ("StatusCallback", "https://agent.example.com/status"),
            ("StatusCallbackEvent", "initiated"),
            ("StatusCallbackEvent", "ringing"),
            ("StatusCallbackEvent", "answered"),
            ("StatusCallbackEvent", "completed"),
            ("MachineDetection", "Enable"),
            ("AsyncAmd", "true"),
            ("AsyncAmdStatusCallback", "https://agent.example.com/machine"),
        ]
        assert fake.authorization == [f"Basic {ACCOUNT}:{TOKEN}"]

    with_api(body)


def test_a_call_follows_either_a_url_or_twiml():
    assert place_call(YOU, ME, twiml="<Response/>").form == (
        ("To", YOU),
        ("From", ME),
        ("Twiml", "<Response/>"),
    )
    for options in ({}, {"url": HOOK, "twiml": "<Response/>"}, {"twiml": "x" * 4001}):
        with pytest.raises(ValueError, match=r"either url= or twiml=|4000 are allowed"):
            place_call(YOU, ME, **options)  # type: ignore[arg-type]


def test_status_and_redirect():
    async def body(fake: Api, twilio: TwilioRest) -> None:
        fake.answers.append((200, {"sid": CALL, "status": "completed", "duration": "28"}))
        over = await twilio.status(CALL)
        assert (over.ended, over.seconds) == (True, 28)
        await twilio.redirect(CALL, "<Response><Dial>+12025550100</Dial></Response>")
        path = f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}.json"
        assert fake.asked == [
            ("GET", path, []),
            ("POST", path, [("Twiml", "<Response><Dial>+12025550100</Dial></Response>")]),
        ]
        with pytest.raises(ValueError, match="4000 are allowed"):
            await twilio.redirect(CALL, "x" * 4001)

    with_api(body)


@pytest.mark.parametrize("over", [refusal(20404, 404), refusal(21220), (404, b"gone"), (200, {"sid": CALL})])
def test_hanging_up_a_call_that_is_over_is_a_success(over):
    async def body(fake: Api, twilio: TwilioRest) -> None:
        fake.answers.append(over)
        await twilio.hang_up(CALL)
        assert fake.asked == [
            ("POST", f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}.json", [("Status", "completed")])
        ]

    with_api(body)


def test_hanging_up_is_tried_again_when_that_may_help(monkeypatch):
    monkeypatch.setattr(rest, "HANG_UP_PAUSES", (0.0, 0.0))

    async def body(fake: Api, twilio: TwilioRest) -> None:
        fake.answers.extend([(503, b""), refusal(20429, 429)])
        await twilio.hang_up(CALL)
        assert len(fake.asked) == 3
        fake.answers.extend([(500, b"")] * 3)
        with pytest.raises(TwilioRefused, match="a problem of its own"):
            await twilio.hang_up(CALL)
        assert len(fake.asked) == 6
        fake.answers.append(refusal(20003, 401))
        with pytest.raises(TwilioRefused, match="credentials are wrong"):
            await twilio.hang_up(CALL)
        assert len(fake.asked) == 7

    with_api(body)


def test_placing_is_never_tried_again():
    async def body(fake: Api, twilio: TwilioRest) -> None:
        fake.answers.append((503, b""))
        with pytest.raises(TwilioRefused):
            await twilio.place(YOU, ME, url=HOOK)
        assert len(fake.asked) == 1

    with_api(body)


def entry(number: str, **fields: Any) -> dict[str, Any]:
    bare = {"sid": NUMBER, "phone_number": number, "voice_url": "", "voice_method": "POST", "trunk_sid": None}
    return {**bare, "voice_application_sid": "", "capabilities": {"voice": True, "sms": True}, **fields}


def test_find_number_gives_the_very_number():
    """Twilio also finds numbers that merely contain the digits."""

    async def body(fake: Api, twilio: TwilioRest) -> None:
        longer = entry(ME + "1", voice_url="https://other.example.com")
        fake.answers.append((200, {"incoming_phone_numbers": [longer, entry(ME, voice_url=HOOK)]}))
        found = await twilio.find_number(ME)
        assert found == PhoneNumber(NUMBER, ME, HOOK)
        assert found.points_to(HOOK)
        fake.answers.append((200, {"incoming_phone_numbers": [longer]}))
        assert await twilio.find_number(ME) is None
        path = f"/2010-04-01/Accounts/{ACCOUNT}/IncomingPhoneNumbers.json"
        assert fake.asked[0] == ("GET", path, [("PhoneNumber", ME), ("PageSize", "50")])

    with_api(body)


def test_point_number_removes_what_would_win_over_the_url():
    async def body(fake: Api, twilio: TwilioRest) -> None:
        fake.answers.append((200, entry(ME, voice_url=HOOK)))
        plain = PhoneNumber(NUMBER, ME, "https://before.example.com", "GET")
        assert (await twilio.point_number(plain, HOOK)).points_to(HOOK)
        fake.answers.append((200, entry(ME, voice_url=HOOK, trunk_sid="TK1")))
        trunked = PhoneNumber(NUMBER, ME, application="AP1", trunk="TK1")
        after = await twilio.point_number(trunked, HOOK)
        assert not after.points_to(HOOK)
        assert after.asked == "the SIP trunk TK1"
        path = f"/2010-04-01/Accounts/{ACCOUNT}/IncomingPhoneNumbers/{NUMBER}.json"
        form = [("VoiceUrl", HOOK), ("VoiceMethod", "POST")]
        assert fake.asked == [
            ("POST", path, form),
            ("POST", path, [*form, ("VoiceApplicationSid", ""), ("TrunkSid", "")]),
        ]

    with_api(body)


@pytest.mark.parametrize(
    ("number", "points"),
    [
        (PhoneNumber(NUMBER, ME, HOOK), True),
        (PhoneNumber(NUMBER, ME, HOOK, "GET"), False),
        (PhoneNumber(NUMBER, ME, HOOK, application="AP1"), False),
        (PhoneNumber(NUMBER, ME, HOOK, trunk="TK1"), False),
        (PhoneNumber(NUMBER, ME), False),
    ],
)
def test_who_is_asked(number, points):
    assert number.points_to(HOOK) is points
    assert (HOOK in number.asked) is not bool(number.trunk or number.application or not number.voice_url)


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("+12025550143", "+12025550143"),
        ("+1 (202) 555-0143", "+12025550143"),
        ("+44.20.7946.0958", "+442079460958"),
        ("2025550143", None),
        ("+0202555014", None),
        ("+1", None),
        ("+1202555014312345", None),
        ("+1202555O143", None),
        ("", None),
    ],
)
def test_e164(given, number):
    if number is None:
        with pytest.raises(ValueError, match="with country code"):
            e164(given)
    else:
        assert e164(given) == number


# -- what Twilio refuses, and a network that does not work -----------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            refusal(20003, 401, f"Authenticate {TOKEN}"),
            ["20003", "credentials are wrong", "TWILIO_AUTH_TOKEN"],
        ),
        ((401, b""), ["HTTP 401", "console.twilio.com, Account info"]),
        (refusal(20008, 403), ["test credentials"]),
        (refusal(21211), ["21211", "with country code"]),
        (refusal(21214), ["21214", "cannot be reached"]),
        (refusal(21215), ["Geo permissions"]),
        (refusal(21219), ["21219", "trial account", "Verified Caller IDs"]),
        (refusal(21210), ["21210", "From number is not yours", "--from"]),
        (refusal(21606), ["21606", "From number is not yours"]),
        (refusal(20429, 429), ["20429", "too many requests"]),
        ((429, b"<html>"), ["HTTP 429", "too many requests"]),
        ((503, b"<html>"), ["HTTP 503", "status.twilio.com"]),
        ((404, b"<html>"), ["HTTP 404", "no such thing"]),
        ((302, "http://elsewhere.example.com/"), ["HTTP 302", "TWILIO_BASE_URL"]),
        (refusal(99999, 400, f"Odd: {TOKEN}\nthing"), ["docs/api/errors/99999", "(Odd: *** thing)"]),
        ((400, {"code": True, "message": 7}), ["HTTP 400", "TWILIO_BASE_URL"]),
        ((400, [1]), ["HTTP 400"]),
    ],
    ids=str,
)
def test_a_refusal_says_what_to_do(answer, words):
    async def body(fake: Api, twilio: TwilioRest) -> None:
        fake.answers.append(answer)
        with pytest.raises(TwilioRefused) as caught:
            await twilio.place(YOU, ME, url=HOOK)
        text = str(caught.value)
        for word in words:
            assert word in text
        assert "\n" not in text
        assert TOKEN not in text + repr(caught.value) + str(vars(caught.value))
        assert caught.value.status == answer[0]
        assert len(fake.asked) == 1

    with_api(body)


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("body", [b"<html>", b"[" * 100_000, b"", b"[]", b'{"sid": 7, "status": "queued"}'])
def test_an_answer_that_is_none(status, body):
    async def ask(fake: Api, twilio: TwilioRest) -> None:
        fake.answers.extend([(status, body)] * 2)
        with pytest.raises(LinkError, match="describes no call: is TWILIO_BASE_URL right"):
            await twilio.place(YOU, ME, url=HOOK)
        with pytest.raises(LinkError, match="lists no numbers"):
            await twilio.find_number(ME)

    with_api(ask)


def test_every_request_is_bounded(monkeypatch):
    monkeypatch.setattr(rest, "MOST_ANSWER", 1000)

    async def body(fake: Api, twilio: TwilioRest) -> None:
        fake.answers.append((0, b""))
        with pytest.raises(
            LinkError, match=r"did not answer within 0.1 s \(it may have acted all the same\)"
        ):
            await twilio.place(YOU, ME, url=HOOK)
        fake.answers.append((0, b""))
        with pytest.raises(LinkError, match=r"did not answer within 0.1 s: check the network"):
            await twilio.status(CALL)

    with_api(body, timeout=0.1)

    async def endless(fake: Api, twilio: TwilioRest) -> None:
        fake.answers.append((200, b"x" * 5000))
        with pytest.raises(LinkError, match="answers without end"):
            await twilio.status(CALL)

    with_api(endless)


def test_nobody_there():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{taken.getsockname()[1]}"

        async def main() -> None:
            async with TwilioRest(ACCOUNT, TOKEN, base_url=base) as twilio:
                with pytest.raises(LinkError, match="cannot be reached") as caught:
                    await twilio.place(YOU, ME, url=HOOK)
                assert TOKEN not in str(caught.value)
                assert caught.value.__cause__ is None

        asyncio.run(asyncio.wait_for(main(), 10))


def test_credentials_are_not_sent_elsewhere():
    async def main() -> None:
        async with serving() as other, serving() as fake:
            fake.answers.append((307, other.url))
            async with TwilioRest(ACCOUNT, TOKEN, base_url=fake.url) as twilio:
                with pytest.raises(TwilioRefused, match="HTTP 307"):
                    await twilio.place(YOU, ME, url=HOOK)
            assert other.asked == []

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "inside.example.com")

    async def body(fake: Api, twilio: TwilioRest) -> None:
        assert (await twilio.status(CALL)).sid == CALL

    with_api(body)
    assert TwilioRest(ACCOUNT, TOKEN)._proxy == "http://127.0.0.1:9"
    assert TwilioRest(ACCOUNT, TOKEN, base_url="http://localhost:1")._proxy is None
    assert TwilioRest(ACCOUNT, TOKEN, base_url="https://inside.example.com")._proxy is None


# -- who asks, and where ----------------------------------------------------------------------------------


def test_secrets_are_in_no_repr():
    twilio = TwilioRest(ACCOUNT, TOKEN)
    assert repr(twilio) == "TwilioRest(api.twilio.com)"
    assert TOKEN not in f"{vars(twilio)}"


@pytest.mark.parametrize(
    ("region", "edge", "host"),
    [
        ("", "", "api.twilio.com"),
        ("ie1", "dublin", "api.dublin.ie1.twilio.com"),
        ("", "ashburn", "api.ashburn.us1.twilio.com"),
        ("au1", "", "api.au1.twilio.com"),
    ],
)
def test_regions(monkeypatch, region, edge, host):
    monkeypatch.setenv("TWILIO_REGION", region)
    monkeypatch.setenv("TWILIO_EDGE", edge)
    assert api.address() == f"https://{host}"
    monkeypatch.setenv("TWILIO_BASE_URL", "http://127.0.0.1:8000/")
    assert api.address() == "http://127.0.0.1:8000"
    assert api.address("https://mine.example.com") == "https://mine.example.com"


@pytest.mark.parametrize(
    ("name", "value"), [("REGION", "ie1.evil.com/"), ("EDGE", "a b"), ("BASE_URL", "twilio")]
)
def test_a_place_that_is_none(monkeypatch, name, value):
    monkeypatch.setenv(f"TWILIO_{name}", value)
    with pytest.raises(DeclarationError, match=f"TWILIO_{name}"):
        api.address()


def test_what_is_not_given_comes_from_the_environment(monkeypatch):
    with pytest.raises(MissingKeys, match=r"(?s)TWILIO_ACCOUNT_SID is not set.*TWILIO_AUTH_TOKEN is not set"):
        TwilioRest()
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", ACCOUNT)
    monkeypatch.setenv("TWILIO_API_KEY", "SK1")
    with pytest.raises(MissingKeys, match=r"^TWILIO_API_SECRET is not set"):
        TwilioRest()
    monkeypatch.setenv("TWILIO_API_SECRET", "secret")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", TOKEN)

    async def main() -> None:
        async with serving() as fake:
            async with TwilioRest(base_url=fake.url) as twilio:
                await twilio.status(CALL)
            async with TwilioRest(auth_token=TOKEN, base_url=fake.url) as twilio:
                await twilio.status(CALL)
            assert fake.authorization == ["Basic SK1:secret", f"Basic {ACCOUNT}:{TOKEN}"]
            assert {path for _, path, _ in fake.asked} == {
                f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}.json"
            }

    asyncio.run(asyncio.wait_for(main(), 10))


def test_an_api_key_is_no_account():
    with pytest.raises(DeclarationError, match="TWILIO_ACCOUNT_SID begins with AC"):
        TwilioRest("SK" + "0" * 32, TOKEN)


def test_every_advice_is_one_sentence_that_could_be_printed():
    for code, advice in api.ADVICE.items():
        assert re.fullmatch(r"[^\n]+[^.\n]", advice), code
        assert json.dumps(advice).isascii()
