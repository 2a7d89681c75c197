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
    _check_stream_url(url)
    after = f" action={_attribute(action)}" if action is not None else ""
    status = f" statusCallback={_attribute(status_callback)}" if status_callback is not None else ""
    nouns = "".join(
        f"<Parameter name={_attribute(name)} value={_attribute(value)}/>"
        for name, value in parameters.items()
    )
    return _document(f"<Connect{after}><Stream url={_attribute(url)}{status}>{nouns}</Stream></Connect>")


def say(text: str) -> str:
    """Speaks `text` with Twilio's own voice; the call ends when it is spoken."""
    return _document(f"<Say>{_text(text)}</Say>")


def say_and_hangup(text: str) -> str:
    """Speaks `text`, then hangs up."""
    return _document(f"<Say>{_text(text)}</Say><Hangup/>")


def dial(number: str) -> str:
    """Connects the caller to `number`: digits with an optional plus sign, else ValueError."""
    if not _NUMBER.fullmatch(number):
        raise ValueError(f"{number!r} is no telephone number: write it like +12025550143")
    return _document(f"<Dial>{number}</Dial>")


def hangup() -> str:
    """Ends the call."""
    return _document("<Hangup/>")


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
