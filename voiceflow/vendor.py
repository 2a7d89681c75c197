"""What all vendors have in common: a key, an address, and the ways they say no.

Parameters win over the environment, the environment over the default:

    FluxSTT(api_key="...", base_url="wss://api.eu.deepgram.com")
    DEEPGRAM_API_KEY=...  DEEPGRAM_BASE_URL=...
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from voiceflow.errors import DeclarationError, LinkError, LinkRefused


@dataclass(slots=True, frozen=True)
class Key:
    """A secret, and where to get one. Its value is in no repr, and so in no log and no error."""

    variable: str
    """The environment variable that holds it."""
    where: str
    """Where to get one."""
    value: str = field(repr=False, default="")

    @classmethod
    def of(cls, variable: str, given: str | None, where: str) -> Key:
        """The key that was given, or the one in the environment. It may be missing: see `__bool__`."""
        return cls(variable, where, (given if given is not None else os.environ.get(variable, "")).strip())

    def __bool__(self) -> bool:
        return bool(self.value)


def base_url(variable: str, given: str | None, default: str, *, web_socket: bool = False) -> str:
    """A vendor's address without a slash at the end: `given`, or the environment's `variable`, or `default`.

    `http` and `ws` (and `https` and `wss`) may stand for each other: the variable serves both kinds of
    connection. Raises DeclarationError when it is no address.
    """
    url = (given if given is not None else os.environ.get(variable, "")).strip() or default
    scheme, _, rest = url.rstrip("/").partition("://")
    secure = {"https": True, "wss": True, "http": False, "ws": False}.get(scheme.lower())
    try:
        host = urlsplit(f"//{rest}").hostname
    except ValueError:  # as for http://[bad
        host = None
    if secure is None or not host:
        raise DeclarationError(f"{variable} is no address: it should look like {default}")
    return ("ws" if web_socket else "http") + ("s" if secure else "") + "://" + rest


def advice(status: int, vendor: str, key: Key) -> str:
    """What to do about an HTTP error of a vendor: one sentence, no secrets."""
    match status:
        case 400:
            return "it does not know one of the parameters: see what it says"
        case 401:
            return f"{key.variable} is not valid: get one at {key.where}"
        case 402:
            return f"the account at {vendor} has no credit left: top it up at {key.where}"
        case 403:
            return f"the account of {key.variable} may not use this model or voice: see {key.where}"
        case 404:
            return "there is no such model, voice or address: check its name and the base URL"
        case 429:
            return (
                f"too many requests or connections at once for this account: ask {vendor} for a higher limit"
            )
        case _ if status >= 500:
            return f"{vendor} has a problem of its own: try again, and see its status page"
        case _:
            return "see what it says"


TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP errors after which a second try may help. All others say that something has to be changed first."""


def explained(error: LinkError, vendor: str, key: Key) -> LinkError:
    """The same error, saying what to do about it. The vendor is quoted, shortened, without the key."""
    if not isinstance(error, LinkRefused):
        said = str(error)
        return LinkError(f"{vendor}: {said.replace(key.value, '***') if key else said}")
    said = error.headers.get("dg-error") or error.body
    quoted = quote(said, key)
    better = LinkRefused(error.host, error.status, error.body, error.headers)
    better.args = (f"{vendor} refused (HTTP {error.status}): {advice(error.status, vendor, key)}{quoted}",)
    return better


def quote(said: str, *keys: Key, limit: int = 160) -> str:
    """What a vendor said, fit for an error message: one line, shortened, without the keys."""
    for key in keys:
        if key:
            said = said.replace(key.value, "***")
    said = " ".join(said.split())
    if not said:
        return ""
    return f" ({said[:limit]}{'...' if len(said) > limit else ''})"


SECRET = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
"""How the names of environment variables end that hold secrets."""
SHORTEST = 8
"""Characters of a secret: less is a placeholder, and part of ordinary words."""


def secrets() -> list[str]:
    """What the environment holds under the name of a secret: for whoever shows texts of others."""
    return [value for name, value in os.environ.items() if name.endswith(SECRET) and len(value) >= SHORTEST]


class MissingKeys(DeclarationError):
    """Keys that a pipeline needs and nobody gave. Raised before any call is answered."""

    def __init__(self, missing: list[Key]) -> None:
        self.missing = missing
        lines = [f"{key.variable} is not set: get one at {key.where}" for key in missing]
        then = f"Put {'it' if len(lines) == 1 else 'them'} into .env or the environment (see .env.example)"
        super().__init__("\n".join([*lines, then]))
