"""Twilio's REST API, as much of it as a phone agent needs: what is asked and what comes back, sans-IO.

    POST Calls.json                      place          → {"sid": "CA...", "status": "queued", ...}
    GET  Calls/CA....json                status
    POST Calls/CA....json                hang_up, redirect
    GET  IncomingPhoneNumbers.json       find_number
    POST IncomingPhoneNumbers/PN....json point_number

All below /2010-04-01/Accounts/AC..., forms out and JSON back. `rest.py` beside this file sends them.

Sources: twilio.com/docs/voice/api/call-resource, /docs/phone-numbers/api/incomingphonenumber-resource,
/docs/global-infrastructure/understanding-twilio-regions, /docs/api/errors.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack
from urllib.parse import quote as escaped

from voiceflow.errors import DeclarationError, LinkError, LinkRefused
from voiceflow.vendor import Key, base_url, quote

MOST_TWIML = 4000
"""Characters of TwiML in a request (error 32018); a URL has no such limit."""

ACCOUNT = "console.twilio.com, Account info"
KEYS = "console.twilio.com, Account, API keys & tokens"
NUMBERS = "console.twilio.com, Phone Numbers"

Status = Literal["initiated", "ringing", "answered", "completed"]
Detection = Literal["Enable", "DetectMessageEnd"]
EVENTS: tuple[Status, ...] = ("initiated", "ringing", "answered", "completed")

ENDED = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
"""Call statuses after which nothing comes."""


# -- who asks --------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Credentials:
    """The account, and the user name and password of HTTP: its own token, or an API key and its secret."""

    account: Key
    user: Key
    password: Key

    @classmethod
    def of(
        cls,
        account_sid: str | None = None,
        auth_token: str | None = None,
        api_key: str | None = None,
        api_secret: str | None = None,
    ) -> Credentials:
        """Those that were given; what was not comes from the environment, and may be missing there. An API
        key stands in for a token of the environment."""
        account = Key.of("TWILIO_ACCOUNT_SID", account_sid, ACCOUNT)
        token = Key.of("TWILIO_AUTH_TOKEN", auth_token, ACCOUNT)
        key = Key.of("TWILIO_API_KEY", "" if auth_token else api_key, KEYS)
        secret = Key.of("TWILIO_API_SECRET", api_secret, KEYS)
        return cls(account, key, secret) if key else cls(account, account, token)

    @property
    def needed(self) -> tuple[Key, ...]:
        """What nothing works without."""
        return self.account, self.password


# -- what is asked, and what comes back ------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Request:
    """`path` is below the account's; `form` is the body of a POST and the query of a GET."""

    method: Literal["GET", "POST"]
    path: str
    form: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, frozen=True)
class PlacedCall:
    """A call as Twilio sees it. `status` is one of queued, initiated, ringing, in-progress and ENDED."""

    sid: str
    status: str
    seconds: int | None = None
    """How long it lasted; None before its end."""

    @property
    def ended(self) -> bool:
        return self.status in ENDED


@dataclass(slots=True, frozen=True)
class PhoneNumber:
    """A number of the account, and who is asked when somebody calls it.

    A trunk wins over an application, and both win over `voice_url`.
    """

    sid: str
    number: str
    voice_url: str = ""
    voice_method: str = "POST"
    application: str = ""
    trunk: str = ""
    voice: bool = True
    """Whether it can be called at all; some numbers only take messages."""

    @property
    def asked(self) -> str:
        """Who is asked when somebody calls it, in words."""
        if self.trunk:
            return f"the SIP trunk {self.trunk}"
        if self.application:
            return f"the TwiML application {self.application}"
        return f"{self.voice_url} ({self.voice_method})" if self.voice_url else "nobody"

    def points_to(self, url: str) -> bool:
        """Whether calls to it ask this URL, as `point_request` makes them."""
        asks = (self.voice_url, self.voice_method, self.application, self.trunk)
        return asks == (url, "POST", "", "")


class Options(TypedDict, total=False):
    """What a call may be placed with besides the two numbers."""

    url: str
    """Where Twilio asks for TwiML, with POST, once it is answered."""
    twiml: str
    """The TwiML itself, instead of `url`; MOST_TWIML characters."""
    timeout: int
    """Seconds it may ring: 60 unless given, at most 600."""
    time_limit: int
    """Seconds the whole call may last."""
    status_callback: str
    """Where Twilio posts each change of `status_events` (all of EVENTS unless given)."""
    status_events: Sequence[Status]
    machine_detection: Detection
    """Whether a person or a machine answered. Without `machine_callback` the callee hears silence until
    Twilio has made up its mind; with it the verdict is posted there while the call goes on."""
    machine_callback: str


def e164(number: str) -> str:
    """A telephone number as Twilio wants it: +, country code, digits. Spaces, dots, dashes and brackets are
    left out. ValueError when it is none."""
    bare = re.sub(r"[\s().-]", "", number)
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", bare):
        raise ValueError(f"{number!r} is no telephone number: write it with country code, like +12025550143")
    return bare


def place_call(to: str, from_: str, **options: Unpack[Options]) -> Request:
    """A call to be placed. ValueError unless there is exactly one of `url` and `twiml`: of both, Twilio
    would silently drop the TwiML."""
    url, twiml = options.get("url", ""), options.get("twiml", "")
    if bool(url) == bool(twiml):
        raise ValueError("a call needs either url= or twiml=")
    form = [("To", to), ("From", from_)]
    form += [("Url", url), ("Method", "POST")] if url else [("Twiml", _short(twiml))]
    if "timeout" in options:
        form.append(("Timeout", str(options["timeout"])))
    if "time_limit" in options:
        form.append(("TimeLimit", str(options["time_limit"])))
    if "status_callback" in options:
        form.append(("StatusCallback", options["status_callback"]))
        form += [("StatusCallbackEvent", event) for event in options.get("status_events", EVENTS)]
    if "machine_detection" in options:
        form.append(("MachineDetection", options["machine_detection"]))
    if "machine_callback" in options:
        form += [("AsyncAmd", "true"), ("AsyncAmdStatusCallback", options["machine_callback"])]
    return Request("POST", "Calls.json", tuple(form))


def status_request(sid: str) -> Request:
    """Asks how a call is doing."""
    return Request("GET", f"Calls/{escaped(sid, '')}.json")


def hang_up_request(sid: str) -> Request:
    """Ends a call, whether it rings or is answered."""
    return Request("POST", f"Calls/{escaped(sid, '')}.json", (("Status", "completed"),))


def redirect_request(sid: str, twiml: str) -> Request:
    """Has a live call follow other TwiML. ValueError for more than MOST_TWIML characters of it."""
    return Request("POST", f"Calls/{escaped(sid, '')}.json", (("Twiml", _short(twiml)),))


def number_request(number: str) -> Request:
    """Asks for a number of the account. Twilio also gives numbers that only contain it: see `read_number`."""
    return Request("GET", "IncomingPhoneNumbers.json", (("PhoneNumber", number), ("PageSize", "50")))


def point_request(number: PhoneNumber, url: str) -> Request:
    """Has `url` asked, with POST, when somebody calls the number. What would win over it is removed."""
    form = [("VoiceUrl", url), ("VoiceMethod", "POST")]
    form += [("VoiceApplicationSid", "")] if number.application else []
    form += [("TrunkSid", "")] if number.trunk else []
    return Request("POST", f"IncomingPhoneNumbers/{escaped(number.sid, '')}.json", tuple(form))


def read_call(body: Mapping[str, Any]) -> PlacedCall:
    """LinkError when it describes no call."""
    sid, status = body.get("sid"), body.get("status")
    if not (isinstance(sid, str) and sid and isinstance(status, str) and status):
        raise LinkError("Twilio's answer describes no call: is TWILIO_BASE_URL right?")
    duration = str(body.get("duration"))  # a string of digits, or null before the end
    return PlacedCall(sid, status, int(duration) if duration.isdecimal() else None)


def read_number(body: Mapping[str, Any], number: str) -> PhoneNumber | None:
    """The number among those that Twilio found; None when it is not there."""
    found = body.get("incoming_phone_numbers")
    if not isinstance(found, list):
        raise LinkError("Twilio's answer lists no numbers: is TWILIO_BASE_URL right?")
    for each in found:
        if isinstance(each, dict) and each.get("phone_number") == number:
            return read_pointed(each)
    return None


def read_pointed(body: Mapping[str, Any]) -> PhoneNumber:
    """One number, as a change of it is answered."""
    capabilities = body.get("capabilities")
    return PhoneNumber(
        sid=_text(body, "sid"),
        number=_text(body, "phone_number"),
        voice_url=_text(body, "voice_url"),
        voice_method=_text(body, "voice_method") or "POST",
        application=_text(body, "voice_application_sid"),
        trunk=_text(body, "trunk_sid"),
        voice=not isinstance(capabilities, dict) or bool(capabilities.get("voice", True)),
    )


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""


def _short(twiml: str) -> str:
    if len(twiml) > MOST_TWIML:
        raise ValueError(f"TwiML of {len(twiml)} characters, {MOST_TWIML} are allowed: give a url instead")
    return twiml


# -- where, and what Twilio refuses ----------------------------------------------------------------------


def address(given: str | None = None) -> str:
    """The API's address: `given`, TWILIO_BASE_URL, or the host of TWILIO_REGION and TWILIO_EDGE."""
    region, edge = (os.environ.get(name, "").strip() for name in ("TWILIO_REGION", "TWILIO_EDGE"))
    for name, value in (("TWILIO_REGION", region), ("TWILIO_EDGE", edge)):
        if value and not re.fullmatch(r"[a-z0-9-]+", value):
            raise DeclarationError(f"{name}={value!r} is no name like ie1 or dublin")
    region = region or ("us1" if edge else "")  # an edge needs a region beside it
    host = ".".join(part for part in ("api", edge, region, "twilio", "com") if part)
    return base_url("TWILIO_BASE_URL", given, f"https://{host}")


_UNREACHABLE = "the number to call is not valid: write it with country code, like +12025550143"
_NOT_YOURS = f"the From number is not yours: use one of {NUMBERS} (TWILIO_NUMBER, --from)"
_TRIAL = f"a trial account calls verified numbers only: add it at {NUMBERS}, Verified Caller IDs, or upgrade"

ADVICE = {
    10001: "the account is not active: see console.twilio.com",
    10002: "a trial account cannot do this: upgrade it at console.twilio.com",
    20003: f"the credentials are wrong: compare TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN with {ACCOUNT} "
    "(tokens and keys belong to one region: TWILIO_REGION)",
    20008: f"these are test credentials: use the live ones, {ACCOUNT}",
    20404: "there is no such thing in this account and region",
    20429: "too many requests at once: wait a moment and try again",
    21205: "it cannot use the webhook's URL: check --public-url",
    21210: _NOT_YOURS,
    21211: _UNREACHABLE,
    21212: _NOT_YOURS,
    21214: "the number to call cannot be reached: check it",
    21215: "the account may not call that country: allow it at console.twilio.com, Voice, Settings, "
    "Geo permissions",
    21217: _UNREACHABLE,
    21219: _TRIAL,
    21220: "the call is over",
    21606: _NOT_YOURS,
    573002: f"a trial account calls from the number that it was given for this recipient: see {NUMBERS}",
    573005: _TRIAL,
}
"""What to do about the errors that a newcomer meets, by Twilio's code (twilio.com/docs/api/errors)."""

_OF_STATUS = {401: 20003, 404: 20404, 429: 20429}


class TwilioRefused(LinkRefused):
    """Twilio answered with an error. `code` is its own number for it, 0 when it gave none."""

    def __init__(self, host: str, status: int, body: str = "", *secrets: Key) -> None:
        super().__init__(host, status)  # the body is not kept: nobody knows what is in it
        said = read_object(body)
        given = said.get("code")
        self.code = given if type(given) is int else 0
        advice = ADVICE.get(self.code or _OF_STATUS.get(status, 0))
        where = f"error {self.code}" if self.code else f"HTTP {status}"
        if advice is None and status >= 500:
            advice = "it has a problem of its own: try again, and see status.twilio.com"
        elif advice is None:
            see = f"see twilio.com/docs/api/errors/{self.code}" if self.code else "is TWILIO_BASE_URL right?"
            advice = f"{see}{quote(_text(said, 'message'), *secrets)}"
        self.args = (f"Twilio refused ({where}): {advice}",)


def read_object(body: str) -> Mapping[str, Any]:
    """The JSON object in an answer; empty when it is none."""
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}
