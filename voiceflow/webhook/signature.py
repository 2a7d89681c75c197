"""Signatures by the Standard Webhooks specification 1.0.0 (standardwebhooks.com), symmetric scheme.

    webhook-id          names the event; the same on every try
    webhook-timestamp   seconds since 1970 of this try
    webhook-signature   "v1," and base64 of HMAC-SHA256(secret, id.timestamp.body); several, separated by
                        spaces, while a secret is being replaced by another

A secret is "whsec_" and base64 of 24 to 64 random bytes. The libraries of that project verify what is signed
here, in a dozen languages; `verify` does it in Python without another package.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from voiceflow.errors import DeclarationError, VoiceflowError

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes of a secret, by the specification."""
TOLERANCE = 300.0
"""Seconds that the two clocks may differ: what the specification's own libraries allow."""
SIGNATURES_BOUND = 16
"""Signatures of one request that are looked at; a sender has two while it replaces a secret."""


class WebhookRejected(VoiceflowError):
    """A request that is no webhook of ours, or an old one. Answer it with HTTP 400 or 401."""


@dataclass(slots=True, frozen=True)
class Secret:
    """What both sides know. Its bytes are in no repr, and so in no log and no error."""

    key: bytes = field(repr=False)

    @classmethod
    def of(cls, text: str) -> Secret:
        """From "whsec_..." or the base64 alone. DeclarationError, without quoting it, when it is none."""
        try:
            key = base64.b64decode(text.strip().removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise DeclarationError(f"a webhook secret is {PREFIX} and base64: {MAKE}") from None
        if not SHORTEST <= len(key) <= LONGEST:
            raise DeclarationError(
                f"a webhook secret has {SHORTEST} to {LONGEST} bytes, and this has {len(key)}: {MAKE}"
            )
        return cls(key)

    def sign(self, id: str, timestamp: int, body: bytes) -> str:
        """One signature, with its version."""
        digest = hmac.digest(self.key, _bytes(f"{id}.{timestamp}.") + body, "sha256")
        return "v1," + base64.b64encode(digest).decode()


MAKE = "`voiceflow webhook secret` makes one"


def new_secret() -> str:
    """A fresh secret of 32 random bytes, as it is written in .env."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def headers(known: Iterable[Secret], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """What is sent along with the body: a signature for each secret."""
    signatures = " ".join(secret.sign(id, timestamp, body) for secret in known)
    return {ID: id, TIMESTAMP: str(timestamp), SIGNATURE: signatures}


def verify(
    secret: str | Iterable[str],
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> str:
    """Whether a request comes from who knows the secret: returns its id, else raises WebhookRejected.

    `body` as it came, before anything has parsed it. `secret` may be several: the new and the old one.
    `tolerance` is in seconds, `now` in seconds since 1970 (by the system's clock when not given). The id is
    the same however often an event is sent: keep those of the last day, and pass over what comes twice.
    DeclarationError when the secret itself is none.
    """
    known = [Secret.of(each) for each in ([secret] if isinstance(secret, str) else secret)]
    if not known:
        raise DeclarationError(f"no webhook secret was given: {MAKE}")
    raw = _bytes(body) if isinstance(body, str) else body
    given = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in (ID, TIMESTAMP, SIGNATURE) if not given.get(name)]
    if missing:
        raise WebhookRejected(f"it has no {missing[0]}")
    id, stamp = given[ID], given[TIMESTAMP]
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise WebhookRejected(f"its {TIMESTAMP} is no number of seconds")
    age = (time.time() if now is None else now) - int(stamp)
    if not abs(age) <= tolerance:
        when = "old" if age > 0 else "in the future"
        raise WebhookRejected(f"it is {abs(age):.0f} s {when}: was it sent again, or is a clock wrong?")
    valid = False
    for signature in given[SIGNATURE].split()[:SIGNATURES_BOUND]:
        for each in known:  # all of them: the time it takes tells nothing
            valid |= hmac.compare_digest(each.sign(id, int(stamp), raw).encode(), _bytes(signature))
    if not valid:
        raise WebhookRejected("no signature of it is right: is the secret the same on both sides?")
    return id


def _bytes(text: str) -> bytes:
    """A server may hand over a header that was no UTF-8 as half surrogate pairs."""
    return text.encode("utf-8", "surrogatepass")
