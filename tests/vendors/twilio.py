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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from processors.twilio.signature import SIGNATURE_HEADER, sign
from processors.twilio.simulated.caller import SimulatedCaller, Speech
from processors.twilio.simulated.report import CallReport
from processors.twilio.twiml import CONTENT_TYPE
from voiceflow.errors import LinkError

BASE = "/2010-04-01/Accounts/{account}"
DOCUMENTS = "/fake-twilio/twiml/"
"""Where TwiML that came in a request can be fetched from, by whoever picks up."""
MOST_KEPT = 1000
"""Calls, requests and callbacks that are remembered; the oldest go first."""
MOST_TWIML = 4000
"""Characters of TwiML in a request."""
MOST_ORDERS = 10
CALLBACK_TIMEOUT = 5.0
"""Seconds the agent's server may take to answer a status callback."""
LEAVING = 10.0
"""Seconds a simulated caller may take to hang up."""

ENDED = ("completed", "busy", "no-answer", "failed", "canceled")
_PARTY = re.compile(r"\+?[1-9][0-9]{6,14}|(client|sip):\S+")

Form = list[tuple[str, str]]


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


@dataclass(slots=True, frozen=True)
class Outcome:
    """What becomes of a call, in seconds: `queued` before it rings, `rings` until it is answered, or until it
    turns out `busy`, `failed` or `no-answer`. The request's Timeout ends the ringing before that. A call that
    nobody is simulated for `lasts` so long."""

    end: Literal["completed", "busy", "no-answer", "failed"] = "completed"
    queued: float = 0.05
    rings: float = 0.2
    lasts: float = 1.0


@dataclass(slots=True, frozen=True)
class Asked:
    """One request. `form` is the body of a POST, the query of a GET; the credentials are not kept."""

    at: float
    method: str
    path: str
    form: Form
    status: int


@dataclass(slots=True, frozen=True)
class Callback:
    """One status callback. `status` is how it was answered, 0 for not at all."""

    at: float
    url: str
    form: dict[str, str]
    status: int


@dataclass(slots=True, eq=False)
class PlacedCall:
    """One call that was asked for. Times are `loop.time()`."""

    sid: str
    form: Form
    outcome: Outcome
    document: str = ""
    """Where its first TwiML is."""
    history: list[tuple[float, str]] = field(default_factory=list)
    """Each status with its time."""
    updates: list[dict[str, str]] = field(default_factory=list)
    reports: list[CallReport] = field(default_factory=list)
    """What happened on the line: one for each simulated caller, a new one after a redirect."""
    error: str = ""
    """Why the line could not be followed to its end: no TwiML, a stream that was refused."""
    orders: asyncio.Queue[str] = field(default_factory=lambda: asyncio.Queue(MOST_ORDERS))
    """Empty: hang up. Else the address of the TwiML to go on with."""
    posted: int = 0

    @property
    def status(self) -> str:
        return self.history[-1][1]

    @property
    def over(self) -> bool:
        return self.status in ENDED

    @property
    def seconds(self) -> int:
        """From the answer to the end, or until now."""
        answered = next((at for at, status in self.history if status == "in-progress"), None)
        end = self.history[-1][0] if self.over else asyncio.get_running_loop().time()
        return 0 if answered is None else round(end - answered)

    def given(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.form if key == name), default)

    def change(self, status: str) -> None:
        self.history.append((asyncio.get_running_loop().time(), status))

    async def ordered(self, within: float) -> str | None:
        """The next order, or None when there is none in that time."""
        try:
            async with asyncio.timeout(within):
                return await self.orders.get()
        except TimeoutError:
            return None


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
        """Somebody who calls one of the numbers: asks what its voice_url is now. LookupError."""
        asked = {each["phone_number"]: each["voice_url"] for each in self.numbers.values()}
        if not asked.get(number):
            raise LookupError(f"{number} asks nobody")
        url, public = self._found(asked[number])
        options = {"auth_token": self.auth_token, "public_url": public, "called": number, **options}
        return SimulatedCaller(url, **options)

    async def close(self) -> None:
        """Cuts the calls that are still on."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

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
            self._tell()
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
        task = asyncio.get_running_loop().create_task(self._live(call), name=f"FakeTwilio {call.sid}")
        self._tasks.add(task)
        task.add_done_callback(self._forget)
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
            call.orders.put_nowait("" if ends else url or self._publish(request, twiml))
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
        call = self._calls.get(request.match_info["sid"])
        if call is None:
            raise _not_found(request)
        return call

    def _shown(self, call: PlacedCall) -> dict[str, Any]:
        now = format_datetime(datetime.now(UTC))
        return {
            "sid": call.sid,
            "account_sid": self.account_sid,
            "to": call.given("To"),
            "from": call.given("From"),
            "status": call.status,
            "direction": "outbound-api",
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

    # -- the life of a call

    async def _live(self, call: PlacedCall) -> None:
        end = "canceled"
        try:
            end = await self._run(call)
        except Exception as error:  # a fault of the test's own
            call.error, end = repr(error), "failed"
            raise
        finally:
            call.change(end)
            self._tell()
        await self._post(call, "completed")

    async def _run(self, call: PlacedCall) -> str:
        """The status in which it ends."""
        outcome, timeout = call.outcome, float(call.given("Timeout", "60"))
        await self._post(call, "initiated")
        if await call.ordered(outcome.queued) is not None:
            return "canceled"
        call.change("ringing")
        await self._post(call, "ringing")
        if await call.ordered(min(outcome.rings, timeout)) is not None:
            return "canceled"
        if outcome.end != "completed" or outcome.rings > timeout:
            return outcome.end if outcome.rings <= timeout else "no-answer"
        call.change("in-progress")
        await self._post(call, "answered")
        limit = call.given("TimeLimit")
        try:
            async with asyncio.timeout(float(limit) if limit else None):
                await self._talk(call)
        except TimeoutError:
            pass
        return "completed"

    async def _talk(self, call: PlacedCall) -> None:
        document, first = call.document, True
        while document:
            if self.answers is None:
                document = await call.ordered(call.outcome.lasts) or ""
            else:
                answers = self.answers(call) if callable(self.answers) else self.answers
                document = await self._pick_up(call, document, answers if first else ())
            first = False

    async def _pick_up(self, call: PlacedCall, document: str, speeches: Sequence[Speech]) -> str:
        """A simulated caller on the line, until they or an order end it. What to go on with."""
        url, public = self._found(document)
        numbers = {"caller": call.given("From"), "called": call.given("To")}
        options = {"auth_token": self.auth_token, "public_url": public, **numbers, **self.line}
        phone = Callee(call.sid, self.account_sid, url, speeches=speeches, **options)
        call.reports.append(phone.report)
        talk = asyncio.create_task(phone.run())
        order = asyncio.create_task(call.orders.get())
        try:
            await asyncio.wait({talk, order}, return_when=asyncio.FIRST_COMPLETED)
            return order.result() if order.done() else ""
        finally:
            order.cancel()
            await phone.hang_up()
            await asyncio.wait({talk}, timeout=LEAVING)
            talk.cancel()
            await asyncio.wait({talk})
            if not talk.cancelled() and (error := talk.exception()) is not None:
                if not isinstance(error, LinkError):
                    raise error
                call.error = str(error)

    async def _post(self, call: PlacedCall, event: str) -> None:
        """Tells the call's StatusCallback, if it asked for this event."""
        wanted = [value for name, value in call.form if name == "StatusCallbackEvent"] or ["completed"]
        self._tell()
        if event not in wanted or not (url := call.given("StatusCallback")):
            return
        form = {
            "AccountSid": self.account_sid,
            "CallSid": call.sid,
            "CallStatus": "initiated" if event == "initiated" else call.status,
            "From": call.given("From"),
            "To": call.given("To"),
            "Direction": "outbound-api",
            "ApiVersion": "2010-04-01",
            "CallbackSource": "call-progress-events",
            "SequenceNumber": str(call.posted),
            "Timestamp": format_datetime(datetime.now(UTC)),
            **({"CallDuration": str(call.seconds)} if call.over else {}),
        }
        call.posted += 1
        method = call.given("StatusCallbackMethod", "POST")
        status = await self._send(method, url, form)
        self.callbacks.append(Callback(asyncio.get_running_loop().time(), url, form, status))
        self._tell()

    async def _send(self, method: str, url: str, form: dict[str, str]) -> int:
        """A signed request. The status of the answer; 0 when there is none."""
        if method == "GET":
            url += ("&" if "?" in url else "?") + urlencode(form)
        signature = sign(self.auth_token, url, {} if method == "GET" else form)
        where = URL(self._found(url)[0], encoded=True)
        body = None if method == "GET" else form
        try:
            async with (
                asyncio.timeout(CALLBACK_TIMEOUT),
                aiohttp.ClientSession() as http,
                http.request(method, where, data=body, headers={SIGNATURE_HEADER: signature}) as response,
            ):
                return response.status
        except (TimeoutError, aiohttp.ClientError, OSError):
            return 0

    def _found(self, url: str) -> tuple[str, str]:
        """Where an address is really found, and the public base that it has if it is moved."""
        for public, local in self.reach.items():
            if url.startswith(public):
                return local + url.removeprefix(public), public
        return url, ""

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Callee(SimulatedCaller):
    """Whoever picks up: the far end of a call that goes by the ids it was placed with."""

    def __init__(self, call_sid: str, account_sid: str, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.call_sid = self.report.call_sid = call_sid
        self.account_sid = account_sid
        ids = {"CallSid": call_sid, "AccountSid": account_sid, "Direction": "outbound-api"}
        self._call._form = {**self._call._form, **ids}


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
