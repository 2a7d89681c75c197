"""TwiML, the XML that tells Twilio what to do with a call: the few documents that an agent needs.

Source: twilio.com/docs/voice/twiml. Each function gives a whole document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit
from xml.sax.saxutils import escape, quoteattr

CONTENT_TYPE = "text/xml"

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold at all, escaped or not: control characters and lone surrogates."""
_NUMBER = re.compile(r"\+?[0-9]{2,15}")
DIGITS = re.compile(r"[0-9*#A-DwW]{1,32}")
"""Keys of a telephone, A to D included; `w` waits half a second, `W` one."""


def connect_stream(
    url: str,
    action: str | None,
    parameters: Mapping[str, str],
    status_callback: str | None = None,
) -> str:
    """Connects the call to a bidirectional Media Stream at `url` (ws or wss).

    Twilio asks `action` for more TwiML when the stream ends and the caller is still there; without one it
    hangs up. `parameters` arrive in the `start` message; keep them short. Twilio does not deliver a query
    string on `url` (error 31920), so ValueError is raised for one, as for anything but a ws or wss URL.
    """
    return _document(_connect(url, action, parameters, status_callback))


def press_and_connect(digits: str, url: str, action: str | None) -> str:
    """Presses keys towards whoever is on the phone, then connects the call to a stream as `connect_stream`
    does. ValueError for what is no DIGITS."""
    return _document(f"<Play digits={_attribute(checked_digits(digits))}/>{_connect(url, action, {})}")


def say(text: str) -> str:
    """Speaks `text` with Twilio's own voice; the call ends when it is spoken."""
    return _document(f"<Say>{_text(text)}</Say>")


def say_and_hangup(text: str) -> str:
    """Speaks `text`, then hangs up."""
    return _document(f"<Say>{_text(text)}</Say><Hangup/>")


def dial(number: str, *, caller_id: str = "", timeout: int | None = None, afterwards: str = "") -> str:
    """Connects the caller to `number`: digits with an optional plus sign, else ValueError.

    `caller_id` is the number that is shown there, one of the account's (unless given: the caller's own).
    Nobody answers within `timeout` seconds (30 unless given), or the other side hangs up: then Twilio's voice
    speaks `afterwards`, and the call ends.
    """
    attributes = f' callerId="{_number(caller_id)}"' if caller_id else ""
    attributes += f' timeout="{timeout}"' if timeout is not None else ""
    then = f"<Say>{_text(afterwards)}</Say><Hangup/>" if afterwards else ""
    return _document(f"<Dial{attributes}>{_number(number)}</Dial>{then}")


def hangup() -> str:
    """Ends the call."""
    return _document("<Hangup/>")


def checked_digits(digits: str) -> str:
    """What `press_and_connect` can press. ValueError for anything else; the message does not quote it, as it
    may be somebody's code."""
    if not DIGITS.fullmatch(digits):
        raise ValueError("these are no keys: up to 32 of 0-9, * and #, A-D; w waits half a second, W one")
    return digits


def _connect(
    url: str, action: str | None, parameters: Mapping[str, str], status_callback: str | None = None
) -> str:
    _check_stream_url(url)
    after = f" action={_attribute(action)}" if action is not None else ""
    status = f" statusCallback={_attribute(status_callback)}" if status_callback is not None else ""
    nouns = "".join(
        f"<Parameter name={_attribute(name)} value={_attribute(value)}/>"
        for name, value in parameters.items()
    )
    return f"<Connect{after}><Stream url={_attribute(url)}{status}>{nouns}</Stream></Connect>"


def _number(number: str) -> str:
    if not _NUMBER.fullmatch(number):
        raise ValueError(f"{number!r} is no telephone number: write it like +12025550143")
    return number


def _check_stream_url(url: str) -> None:
    # The path may carry a one-time token, so no message quotes it.
    parts = urlsplit(url)
    _ = parts.port  # raises ValueError when it is no number
    if parts.scheme not in ("ws", "wss"):
        raise ValueError(f"a stream needs a ws:// or wss:// URL, not {parts.scheme[:10]!r}")
    if not parts.hostname or re.search(r"\s", url):
        raise ValueError("a stream needs a URL with a host and without white space")
    if "?" in url or "#" in url:
        raise ValueError("Twilio drops the query string of a stream's URL: use the path, or parameters")


def _document(verbs: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{verbs}</Response>'


def _text(value: str) -> str:
    return escape(_NOT_XML.sub("", value))


def _attribute(value: str) -> str:
    return quoteattr(_NOT_XML.sub("", value))
