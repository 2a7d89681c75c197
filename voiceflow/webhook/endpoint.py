"""Where webhooks go, and what they are signed with: checked before a call is answered."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from voiceflow.errors import DeclarationError
from voiceflow.vendor import Key
from voiceflow.webhook.signature import MAKE, Secret

URL = "VOICEFLOW_WEBHOOK_URL"
SECRET = "VOICEFLOW_WEBHOOK_SECRET"


@dataclass(slots=True, frozen=True)
class Endpoint:
    """`host` is what is shown of the address: the rest of it may be as good as a password."""

    url: str = field(repr=False)
    host: str
    secrets: tuple[Secret, ...]
    """Each event is signed with all of them: the new one and the old, while one replaces the other."""

    @classmethod
    def of(cls, url: str | None = None, secret: str | None = None) -> Endpoint:
        """What is not given comes from VOICEFLOW_WEBHOOK_URL and VOICEFLOW_WEBHOOK_SECRET (several secrets
        are separated by spaces). DeclarationError, quoting neither, when one is missing or cannot be used."""
        given = (url if url is not None else os.environ.get(URL, "")).strip()
        if not given:
            raise DeclarationError(f"a webhook needs an address: give it, or set {URL}")
        host = _checked(given)
        key = Key.of(SECRET, secret, MAKE)
        if not key:
            raise DeclarationError(
                f"{SECRET} is not set: the receiver knows by it who sends. {MAKE}; put it into "
                ".env or the environment, here and where webhooks are received"
            )
        return cls(given, host, tuple(Secret.of(each) for each in key.value.split()))


def _checked(url: str) -> str:
    """The host and port of a usable address."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # a port that is no number, half an IPv6 address
        parts, host, port = urlsplit(""), "", None
    if parts.scheme not in ("https", "http") or not host or not url.isprintable() or " " in url:
        raise DeclarationError("the webhook's address is none: write it like https://example.com/calls")
    if parts.username is not None or parts.fragment:
        raise DeclarationError(
            "the webhook's address has a user name or a fragment in it: receivers know us by the signature"
        )
    if parts.scheme == "http" and not _loopback(host):
        raise DeclarationError(
            f"the webhook's address must be https:// ({host} is another machine, and what was said would be "
            "readable on the way)"
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port is not None else shown


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
