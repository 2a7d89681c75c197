"""What the command line is given, checked before anything is started."""

from __future__ import annotations

import math
from pathlib import Path
from urllib.parse import urlsplit

import typer

from voiceflow.errors import VoiceflowError
from voiceflow.server.listener import LOOPBACK


def seconds(value: float) -> float:
    """For options that are times: `nan` and `inf` are numbers to Python, but no times."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no length of time")
    return value


def public_url(given: str) -> str:
    """The public URL without a slash at its end. VoiceflowError for one that Twilio cannot use.

    The message does not quote a URL with a password in it.
    """
    if not given:
        return ""
    try:
        parts = urlsplit(given)
        usable = parts.scheme in ("https", "http") and parts.hostname and (parts.port or True)
    except ValueError:  # a port that is no number, half an IPv6 address
        parts, usable = urlsplit(""), False
    if "@" in given:
        raise VoiceflowError("--public-url has a user name or a password in it: write only https://HOST")
    if not usable or parts.query or parts.fragment or any(c.isspace() for c in given):
        raise VoiceflowError(f"--public-url {given!r} is no address: write it like https://agent.example.com")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise VoiceflowError(
            f"--public-url {given}: Twilio opens streams over TLS only, so it must be https://"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def writable(out: Path) -> None:
    """VoiceflowError when a file cannot be written there: better told before the call than after it."""
    if out.is_dir():
        raise VoiceflowError(f"--out {out} is a folder: give the name of a WAV file in it")
    if not out.absolute().parent.is_dir():
        raise VoiceflowError(f"--out {out}: there is no folder {out.parent}")
