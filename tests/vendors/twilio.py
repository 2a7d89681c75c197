"""A fake of Twilio's REST API that can really make the calls it is asked for.

    POST Calls.json                       a call: queued, ringing, then in-progress and completed, or busy,
                                          no-answer, failed; canceled when it was hung up before the answer
    GET, POST Calls/CA....json            how it is doing; hang up, redirect
    GET IncomingPhoneNumbers.json         the numbers of the account, and whom each asks
    POST IncomingPhoneNumbers/PN....json  has it ask somebody else

All below /2010-04-01/Accounts/AC.... With `answers`, whoever picks up is a SimulatedCaller, who asks the Url
of the call for TwiML, opens the stream and speaks. Without, a call is only a status that changes.

Sources: twilio.com/docs/voice/api/call-resource, /docs/phone-numbers/api/incomingphonenumber-resource,
/docs/api/errors, and the requests of Twilio's own Python library, 9.13.
"""

from __future__ import annotations

import asyncio
import binascii
import re
import secrets
from base64 import b64decode
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from aiohttp import web

from processors.twilio.simulated.caller import SimulatedCaller, Speech
from processors.twilio.twiml import CONTENT_TYPE
from tests.vendors.twilio_calls import Asked, Callback, Form, Outcome, PlacedCall
from tests.vendors.twilio_progress import DIRECTION, Progress

__all__ = ["TOO_MANY", "Asked", "Callback", "FakeTwilio", "Outcome", "PlacedCall", "Problem"]

BASE = "/2010-04-01/Accounts/{account}"
DOCUMENTS = "/fake-twilio/twiml/"
"""Where TwiML that came in a request can be fetched from, by whoever picks up."""
MOST_KEPT = 1000
"""Calls, requests and callbacks that are remembered; the oldest go first."""
MOST_TWIML = 4000
"""Characters of TwiML in a request."""
_PARTY = re.compile(r"\+?[1-9][0-9]{6,14}|(client|sip):\S+")


class Problem(Exception):
    """What Twilio answers instead: an HTTP status, its own number for the error, and words."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.status, self.code, self.message = status, code, message

    @property
    def body(self) -> dict[str, Any]:
        more = f"https://www.twilio.com/docs/errors/{self.code}"
        return {"code": self.code, "message": self.message, "more_info": more, "status": self.status}


TOO_MANY = Problem(429, 20429, "Too Many Requests")


class FakeTwilio:
    """One account with some numbers.

    outcome          what becomes of calls for which `outcomes` has nothing, or None
    answers          what the person says who picks up: speeches, or a function of the call that gives them
    line             other options of that SimulatedCaller: linger, limit, delay_in, ...
    reach            where public addresses of servers are really found: {"https://agent.example":
                     "http://127.0.0.1:8080"}. What is signed is the public one
    delay            seconds each request takes
    ended            the error for any order to a call that is over. Unless given, hanging up gets 20404 and
                     a redirect 21220: Twilio has been seen to give both

    `logins` are the user names and passwords it takes; an API key may be added to them.
    """

    def __init__(
        self,
        *,
        account_sid: str = "AC" + "0" * 32,
        auth_token: str = "fake-twilio-token",
        numbers: Sequence[str] = ("+12025550199",),
        outcome: Outcome | None = None,
        answers: Sequence[Speech] | Callable[[PlacedCall], Sequence[Speech]] | None = None,
        line: Mapping[str, Any] | None = None,
        reach: Mapping[str, str] | None = None,
        delay: float = 0.0,
        ended: Literal[20404, 21220] | None = None,
    ) -> None:
        self.account_sid = account_sid
        self.auth_token = auth_token
        self.logins = {account_sid: auth_token}
        self.outcome = outcome or Outcome()
        self.outcomes: deque[Outcome | None] = deque()
        """For the next calls, one each."""
        self.problems: deque[Problem | None] = deque()
        """For the next requests of any kind, one each; None lets one through."""
        self.answers = answers
        self.line = dict(line or {})
        self.reach = dict(reach or {})
        self.delay = delay
        self.ended = ended
        self.numbers = {each["sid"]: each for each in (_number(account_sid, number) for number in numbers)}
        """By their ids, as the API shows them; a test may change them."""
        self.requests: deque[Asked] = deque(maxlen=MOST_KEPT)
        self.callbacks: deque[Callback] = deque(maxlen=MOST_KEPT)
        self._calls: dict[str, PlacedCall] = {}
        self._incoming: dict[str, PlacedCall] = {}  # as many as the test makes
        self._documents: deque[tuple[str, str]] = deque(maxlen=MOST_KEPT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    @property
    def calls(self) -> list[PlacedCall]:
        """The calls that were asked for, in order."""
        return list(self._calls.values())

    async def until(self, condition: Callable[[], object], timeout: float = 5.0) -> None:
        """Waits until `condition` holds of what is recorded. TimeoutError."""
        async with asyncio.timeout(timeout):
            while not condition():
                await self._news.wait()

    def caller(self, number: str, **options: Any) -> SimulatedCaller:
        """Somebody who calls one of the numbers: asks what its voice_url is now. Their call can be redirected
        and hung up like one that was placed, though it is not among `calls`. LookupError."""
        asked = {each["phone_number"]: each["voice_url"] for each in self.numbers.values()}
        if not asked.get(number):
            raise LookupError(f"{number} asks nobody")
        url, public = self.found(asked[number])
        known = {"auth_token": self.auth_token, "account_sid": self.account_sid, "public_url": public}
        phone = SimulatedCaller(url, **{**known, "called": number, **options})
        call = PlacedCall(phone.call_sid, [("To", number)], self.outcome, phone=phone)
        call.change("in-progress")
        self._incoming[call.sid] = call
        return phone

    async def close(self) -> None:
        """Cuts the calls that are still on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- requests

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{BASE}/Calls.json", self._rest(self._place)),
            web.get(f"{BASE}/Calls/{{sid}}.json", self._rest(self._show)),
            web.post(f"{BASE}/Calls/{{sid}}.json", self._rest(self._update)),
            web.get(f"{BASE}/IncomingPhoneNumbers.json", self._rest(self._list_numbers)),
            web.post(f"{BASE}/IncomingPhoneNumbers/{{sid}}.json", self._rest(self._point)),
            web.route("*", DOCUMENTS + "{name}", self._document),
        ]

    def _rest(
        self, act: Callable[[web.Request, Form], tuple[int, dict[str, Any]]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            fields = request.query if request.method == "GET" else await request.post()
            form = [(name, str(value)) for name, value in fields.items()]
            await asyncio.sleep(self.delay)
            try:
                if self.problems and (problem := self.problems.popleft()) is not None:
                    raise problem
                self._admit(request)
                status, body = act(request, form)
            except Problem as problem:
                status, body = problem.status, problem.body
            now = asyncio.get_running_loop().time()
            self.requests.append(Asked(now, request.method, request.path, form, status))
            self.tell()
            return web.json_response(body, status=status)

        return handle

    def _admit(self, request: web.Request) -> None:
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        try:
            user, _, password = b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user = password = ""
        if scheme != "Basic" or not password or self.logins.get(user) != password:
            raise Problem(401, 20003, "Authenticate")
        if request.match_info["account"] != self.account_sid:
            raise _not_found(request)

    def _place(self, request: web.Request, form: Form) -> tuple[int, dict[str, Any]]:
        given = dict(form)
        to, from_, url, twiml = (given.get(name, "") for name in ("To", "From", "Url", "Twiml"))
        if not to:
            raise Problem(400, 21201, "No 'To' number is specified")
        if not from_:
            raise Problem(400, 21213, "No 'From' number is specified")
        if not _PARTY.fullmatch(to):
            raise Problem(400, 21211, f"The phone number you are attempting to call, {to}, is not valid.")
        if from_ not in (each["phone_number"] for each in self.numbers.values()):
            raise Problem(400, 21210, f"The source phone number provided, {from_}, is not yours.")
        if not _is_url(url) and (url or not twiml):
            raise Problem(400, 21205, f"Url is not a valid URL: {url}")
        if len(self._tasks) >= MOST_KEPT:
            raise TOO_MANY
        outcome = (self.outcomes.popleft() if self.outcomes else None) or self.outcome
        call = PlacedCall("CA" + secrets.token_hex(16), form, outcome)
        call.document = url or self._publish(request, twiml)
        call.change("queued")
        while len(self._calls) >= MOST_KEPT:
            del self._calls[next(sid for sid, each in self._calls.items() if each.over)]
        self._calls[call.sid] = call
        self._start(Progress(self, call).run(), call.sid)
        return 201, self._shown(call)

    def _show(self, request: web.Request, form: Form) -> tuple[int, dict[str, Any]]:
        return 200, self._shown(self._find(request))

    def _update(self, request: web.Request, form: Form) -> tuple[int, dict[str, Any]]:
        call, given = self._find(request), dict(form)
        status, url, twiml = (given.get(name, "") for name in ("Status", "Url", "Twiml"))
        if status not in ("", "completed", "canceled"):
            raise Problem(400, 20001, f"Status must be completed or canceled, not {status}")
        if url and twiml:
            raise Problem(400, 20001, "Only one of Url and Twiml can be given")
        if url and not _is_url(url):
            raise Problem(400, 21205, f"Url is not a valid URL: {url}")
        redirected = url or twiml
        if call.over and (self.ended or (20404 if status else 21220)) == 20404:
            raise _not_found(request)
        if call.over or (redirected and call.status != "in-progress"):
            raise Problem(400, 21220, "Call is not in-progress. Cannot redirect.")
        # "canceled" leaves a call alone that has been answered.
        ends = status == "completed" or (status == "canceled" and call.status != "in-progress")
        if ends or redirected:
            if call.orders.full():
                raise TOO_MANY
            document = "" if ends else url or self._publish(request, twiml)
            if call.phone is None:
                call.orders.put_nowait(document)
            elif document:
                call.phone.redirect(document)
            else:
                self._start(call.phone.hang_up(), call.sid)
        call.updates.append(given)
        return 200, self._shown(call)

    def _list_numbers(self, request: web.Request, form: Form) -> tuple[int, dict[str, Any]]:
        given = dict(form)
        asked = given.get("PhoneNumber", "")
        found = [each for each in self.numbers.values() if asked in each["phone_number"]]
        size = int(given.get("PageSize", "50"))
        pages = {"page": 0, "page_size": size, "start": 0, "end": max(0, len(found[:size]) - 1)}
        links = {"first_page_uri": request.path, "next_page_uri": None, "previous_page_uri": None}
        return 200, {"incoming_phone_numbers": found[:size], **pages, **links, "uri": request.path}

    def _point(self, request: web.Request, form: Form) -> tuple[int, dict[str, Any]]:
        number = self.numbers.get(request.match_info["sid"])
        if number is None:
            raise _not_found(request)
        for name, value in form:
            if name.endswith(("Url", "StatusCallback")) and value and not _is_url(value):
                raise Problem(400, 21402, f"{name} is not a valid URL: {value}")
        for name, value in form:
            if (key := re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()) in number:
                number[key] = value
        return 200, number

    def _find(self, request: web.Request) -> PlacedCall:
        sid = request.match_info["sid"]
        call = self._calls.get(sid) or self._incoming.get(sid)
        if call is None:
            raise _not_found(request)
        if call.phone is not None and call.phone.over and not call.over:
            call.change("completed")
        return call

    def _shown(self, call: PlacedCall) -> dict[str, Any]:
        now = format_datetime(datetime.now(UTC))
        return {
            "sid": call.sid,
            "account_sid": self.account_sid,
            "to": call.given("To"),
            "from": call.given("From"),
            "status": call.status,
            "direction": DIRECTION,
            "duration": str(call.seconds) if call.over else None,
            "date_created": now,
            "date_updated": now,
            "answered_by": None,
            "price": None,
            "price_unit": "USD",
            "api_version": "2010-04-01",
            "uri": f"{BASE.format(account=self.account_sid)}/Calls/{call.sid}.json",
        }

    # -- TwiML that came in a request

    def _publish(self, request: web.Request, twiml: str) -> str:
        """The address under which `twiml` can be fetched."""
        if len(twiml) > MOST_TWIML:
            raise Problem(400, 32018, f"Twiml is longer than {MOST_TWIML} characters")
        name = secrets.token_hex(8)
        self._documents.append((name, twiml))
        return f"{request.scheme}://{request.host}{DOCUMENTS}{name}"

    async def _document(self, request: web.Request) -> web.Response:
        for name, twiml in self._documents:
            if name == request.match_info["name"]:
                return web.Response(text=twiml, content_type=CONTENT_TYPE)
        raise web.HTTPNotFound

    # -- for the calls

    def found(self, url: str) -> tuple[str, str]:
        """Where an address is really found, and the public base that it has if it is moved."""
        for public, local in self.reach.items():
            if url.startswith(public):
                return local + url.removeprefix(public), public
        return url, ""

    def tell(self) -> None:
        """Wakes whoever waits in `until`."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _start(self, work: Coroutine[Any, Any, None], sid: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"FakeTwilio {sid}")
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.tell()


def _number(account: str, number: str) -> dict[str, Any]:
    return {
        "sid": "PN" + secrets.token_hex(16),
        "account_sid": account,
        "phone_number": number,
        "friendly_name": number,
        "capabilities": {"voice": True, "sms": True, "mms": False, "fax": False},
        "voice_url": "",
        "voice_method": "POST",
        "voice_fallback_url": "",
        "voice_fallback_method": "POST",
        "voice_application_sid": "",
        "trunk_sid": None,
        "status_callback": "",
        "status_callback_method": "POST",
    }


def _not_found(request: web.Request) -> Problem:
    return Problem(404, 20404, f"The requested resource {request.path} was not found")


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
