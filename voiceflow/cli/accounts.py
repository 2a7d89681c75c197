"""What `doctor` finds out about accounts: keys by their presence, hosts by connecting, numbers by asking."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from processors.twilio.api import ACCOUNT, NUMBERS, PhoneNumber, address, e164
from processors.twilio.rest import TwilioRest
from processors.twilio.routes import VOICE
from voiceflow.cli import environment
from voiceflow.errors import VoiceflowError
from voiceflow.vendor import Key, base_url

CONNECT_TIMEOUT = 3.0
"""Seconds in which a vendor's host must answer; a caller would not wait longer either."""


@dataclass(slots=True)
class Finding:
    """One check: `ok` True, False (missing for a real call) or None (worth knowing)."""

    what: str
    ok: bool | None
    says: str
    mend: str = ""


@dataclass(slots=True, frozen=True)
class Vendor:
    key: str
    base: str
    default: str
    where: str


VENDORS = (
    Vendor(
        "DEEPGRAM_API_KEY", "DEEPGRAM_BASE_URL", "https://api.deepgram.com", "console.deepgram.com, API Keys"
    ),
    Vendor("OPENAI_API_KEY", "OPENAI_BASE_URL", "https://api.openai.com/v1", "platform.openai.com/api-keys"),
    Vendor(
        "ELEVENLABS_API_KEY",
        "ELEVENLABS_BASE_URL",
        "https://api.elevenlabs.io",
        "elevenlabs.io/app/settings/api-keys",
    ),
)


def env_files(file: Path | None) -> Finding:
    """Which .env files are read; their variables are counted, not shown."""
    found = environment.files([str(file)] if file is not None else [])
    if not found:
        return Finding(
            ".env", None, "none here: keys come from the environment", "cp .env.example .env, fill it in"
        )
    read = [environment.read(path) for path in found]
    says = ", ".join(
        f"{path} ({len(variables)} variables)" for path, (variables, _) in zip(found, read, strict=True)
    )
    wrong = [complaint for _, complaints in read for complaint in complaints]
    return Finding(".env", None if wrong else True, says, "; ".join(wrong))


async def keys(needed: Mapping[str, Key]) -> list[Finding]:
    """One finding per vendor, and one for each other key among `needed`: those that the pipeline asks for, by
    their variables. Only what the pipeline needs can be missing."""
    known = {vendor.key for vendor in VENDORS}
    others = [_key(key) for key in needed.values() if key.variable not in known]
    found = await asyncio.gather(*(_vendor(vendor, needed.get(vendor.key)) for vendor in VENDORS))
    return [*found, *others]


def _key(key: Key) -> Finding:
    says = "set" if key else "not set, and the pipeline needs it"
    return Finding(key.variable, bool(key), says, "" if key else f"get one at {key.where}")


async def _vendor(vendor: Vendor, needed: Key | None) -> Finding:
    try:
        url = base_url(vendor.base, None, vendor.default)
    except VoiceflowError as error:
        return Finding(vendor.base, False, str(error))
    if needed or os.environ.get(vendor.key, "").strip():  # a pipeline may bring its own key along
        return await _reached(vendor.key, url, vendor.base)
    host = urlsplit(url).netloc.rpartition("@")[2]
    says = "not set" if needed is None else "not set, and the pipeline needs it"
    return Finding(
        vendor.key,
        None if needed is None else False,
        f"{says}; {host} not checked: no key",
        f"get one at {vendor.where}",
    )


async def _reached(what: str, url: str, variable: str) -> Finding:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        await _connect(parts.hostname or "", parts.port, parts.scheme == "https")
    except (OSError, ValueError) as error:  # TimeoutError and ssl.SSLError are OSErrors
        reason = (
            f"no answer within {CONNECT_TIMEOUT:g} s"
            if isinstance(error, TimeoutError)
            else type(error).__name__
        )
        mend = f"check the network, and {variable} if it is set"
        return Finding(what, False, f"set, but {host} cannot be reached ({reason})", mend)
    return Finding(what, True, f"set; {host} answers in {(loop.time() - began) * 1000:.0f} ms")


async def _connect(host: str, port: int | None, secure: bool) -> None:
    """TCP, and TLS when `secure`, within CONNECT_TIMEOUT. Nothing is sent."""
    context = ssl.create_default_context() if secure else None
    async with asyncio.timeout(CONNECT_TIMEOUT):
        _, writer = await asyncio.open_connection(host, port or (443 if secure else 80), ssl=context)
    writer.close()
    with suppress(OSError):
        async with asyncio.timeout(1.0):
            await writer.wait_closed()


async def twilio(auth_token: str, number: str, public_url: str) -> list[Finding]:
    """Whether Twilio takes the credentials, and whom it asks when somebody calls `number`."""
    sid, own = "TWILIO_ACCOUNT_SID", Finding("TWILIO_NUMBER", None, "set, not checked")
    digits = ""
    try:
        digits = e164(number) if number else ""
        host = urlsplit(address()).netloc
    except (ValueError, VoiceflowError) as error:
        return [Finding("Twilio", False, str(error))]
    if not number:
        own = Finding("TWILIO_NUMBER", None, "not set", f"get one at {NUMBERS}")
    if not os.environ.get(sid, "").strip():
        says = f"not set: `voiceflow call` and `number` need it; {host} not checked: no key"
        return [Finding(sid, None, says, f"{ACCOUNT}, Account SID"), own]
    try:
        async with TwilioRest(auth_token=auth_token or None, timeout=CONNECT_TIMEOUT) as rest:
            found = await rest.find_number(digits or "+0")  # no number is +0, but the credentials are checked
    except VoiceflowError as error:
        return [Finding(sid, False, str(error)), own]
    accepted = Finding(sid, True, f"set; {host} takes it")
    return [accepted, _owned(digits, found, public_url) if digits else own]


def _owned(digits: str, found: PhoneNumber | None, public_url: str) -> Finding:
    what = "TWILIO_NUMBER"
    if found is None:
        return Finding(what, False, f"{digits} is no number of this account in this region", f"see {NUMBERS}")
    if not public_url:
        return Finding(what, None, f"set; calls to it ask {found.asked}")
    if found.points_to(public_url + VOICE):
        return Finding(what, True, "set; calls to it come here")
    return Finding(what, False, f"set, but calls to it ask {found.asked}", f"voiceflow number {digits}")
