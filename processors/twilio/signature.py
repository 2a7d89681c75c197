"""X-Twilio-Signature: proof that a webhook, or the upgrade to a WebSocket, comes from Twilio.

    base64(HMAC(auth token, URL + name1 + value1 + name2 + value2 ...))

The URL is the one Twilio used, query string included; the names of a form are sorted, and the values of a
repeated name are unique and sorted. The upgrade to a WebSocket is signed over the wss:// URL of the TwiML,
without parameters. Source: twilio.com/docs/usage/webhooks/webhooks-security, and the behaviour of Twilio's
own Python library (9.13.0), which the tests compare with by stored values.

Behind a proxy an application sees another scheme and host than Twilio did: build the URL from the
configured public URL, never from forwarded headers.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qs

SIGNATURE_HEADER = "X-Twilio-Signature"
SETTINGS_HEADER = "X-Twilio-Webhooks-Signature-Settings"
"""`key=...,algorithm=HMAC_SHA256`: sent only by accounts that sign with a shared key, whose secret then
stands in for the auth token."""

_HASHES = {"HMAC_SHA1": hashlib.sha1, "HMAC_SHA256": hashlib.sha256}
_DEFAULT_PORTS = {"http": "80", "ws": "80", "https": "443", "wss": "443"}

Params = Mapping[str, str | Iterable[str]] | Iterable[tuple[str, str]]
"""A form: a mapping (a multidict, or with lists for repeated names), or pairs."""


def sign(token: str, url: str, params: Params = (), *, settings: str = "") -> str:
    """The signature Twilio would send. ValueError for an empty token or an unknown algorithm."""
    return _sign(_key(token), url, _fields(params), _algorithm(settings))


def valid(
    token: str,
    url: str,
    params: Params,
    signature: str,
    *,
    body: bytes | None = None,
    settings: str = "",
) -> bool:
    """Whether `signature` was made with `token` for this request. Never raises on what a stranger sends.

    `params` is the decoded form; empty for GET, for JSON and for a WebSocket. `body` is the raw body of a
    request that is not a form: it is covered by the `bodySHA256` of its URL, and refused without one.
    `settings` is the value of SETTINGS_HEADER. ValueError for an empty token: anybody could sign with it.
    """
    key = _key(token)
    try:
        algorithm = _algorithm(settings)
    except ValueError:
        return False
    given = signature.encode("utf-8", "backslashreplace")
    fields = _fields(params if body is None else ())
    # All candidates are computed and compared, so that the time says nothing about which one matched.
    matches = False
    for candidate in _candidates(url):
        matches |= hmac.compare_digest(_sign(key, candidate, fields, algorithm).encode("ascii"), given)
    return matches & (body is None or _covers(url, body))


def _sign(key: bytes, url: str, fields: str, algorithm: str) -> str:
    text = (url + fields).encode("utf-8", "backslashreplace")
    return b64encode(hmac.new(key, text, _HASHES[algorithm]).digest()).decode("ascii")


def _key(token: str) -> bytes:
    if not token:
        raise ValueError("the auth token is empty: configure it, or do not check signatures")
    return token.encode("utf-8")


def _algorithm(settings: str) -> str:
    """The algorithm that SETTINGS_HEADER names; SHA-1 when it names none."""
    for part in settings.split(","):
        name, _, value = part.partition("=")
        if name.strip() == "algorithm" and value.strip():
            if value.strip().upper() not in _HASHES:
                raise ValueError(f"unknown signature algorithm {value.strip()[:20]!a}")
            return value.strip().upper()
    return "HMAC_SHA1"


def _fields(params: Params) -> str:
    """Names and values one after the other, in the order in which they are signed."""
    form: dict[str, set[str]] = {}
    for name, value in params.items() if isinstance(params, Mapping) else params:
        form.setdefault(name, set()).update((value,) if isinstance(value, str) else value)
    return "".join(name + value for name in sorted(form) for value in sorted(form[name]))


def _candidates(url: str) -> list[str]:
    """The spellings of one URL that Twilio is known to sign: with and without the port, and for a
    WebSocket with and without a slash at the end (reports disagree about which)."""
    scheme, separator, rest = url.partition("://")
    end = min((rest.index(mark) for mark in "/?#" if mark in rest), default=len(rest))
    host, path = rest[:end], rest[end:]
    bare, colon, port = host.rpartition(":")
    if not (colon and port.isdecimal()):  # no port; the colons of [::1] are no port either
        bare, port = host, _DEFAULT_PORTS.get(scheme.lower(), "")
    hosts = [bare, f"{bare}:{port}"] if port else [bare]
    websocket = scheme.lower() in ("ws", "wss") and "?" not in path
    paths = [path.rstrip("/"), path.rstrip("/") + "/"] if websocket else [path]
    return [f"{scheme}{separator}{host}{path}" for host in hosts for path in paths]


def _covers(url: str, body: bytes) -> bool:
    """Whether the URL carries the SHA-256 of this body."""
    query = url.partition("#")[0].partition("?")[2]
    named = parse_qs(query).get("bodySHA256", [""])[0]
    digest = hashlib.sha256(body).hexdigest()
    return hmac.compare_digest(digest.encode("ascii"), named.lower().encode("utf-8", "backslashreplace"))
