"""`voiceflow doctor`: what is missing for a real call."""

from __future__ import annotations

import json
import platform
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import aiohttp
import typer
from aiohttp import web
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from voiceflow.cli import accounts, checks
from voiceflow.cli.accounts import Finding
from voiceflow.cli.run import run_async
from voiceflow.errors import LinkError, VoiceflowError
from voiceflow.vendor import Key

CLOCK_SKEW = 30.0
"""Seconds a clock may be wrong before TLS and signed tokens begin to fail."""
FETCH_TIMEOUT = 10.0
MOST_ANSWER = 4096


def doctor(
    file: Annotated[
        Path | None, typer.Argument(help="A pipeline file to check too.", show_default=False)
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port the agent will listen on.")] = 8080,
    public_url: Annotated[
        str, typer.Option(envvar="VOICEFLOW_PUBLIC_URL", help="Where Twilio is to reach it.")
    ] = "",
    auth_token: Annotated[str, typer.Option(envvar="TWILIO_AUTH_TOKEN", help="Not printed.")] = "",
    number: Annotated[
        str, typer.Option(envvar="TWILIO_NUMBER", help="The Twilio number that should be answered here.")
    ] = "",
) -> None:
    """Say what is missing for a real call: keys, vendors, the number, the public URL, the clock, the port.

    Exit code 1 when something is. Keys are never printed. Nothing is changed; a small server answers on PORT
    for a moment, so that the public URL can be seen to lead here.

      VOICEFLOW_PUBLIC_URL=https://agent.example.com voiceflow doctor
    """
    findings: list[Finding] = []

    async def examine() -> None:
        findings.extend(await _examine(file, port, public_url, auth_token, number))

    run_async(examine())
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        sign = {True: "[green]ok[/green]", False: "[red]missing[/red]", None: "[yellow]note[/yellow]"}[
            finding.ok
        ]
        table.add_row(sign, f"[bold]{finding.what}[/bold]", escape(finding.says))
        if finding.mend:
            table.add_row("", "", f"[dim]→ {escape(finding.mend)}[/dim]")
    Console(highlight=False).print(table)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


async def _examine(
    file: Path | None, port: int, public_url: str, auth_token: str, number: str
) -> list[Finding]:
    findings = [_python(), _uvloop(), _model(), accounts.env_files(file)]
    needed: dict[str, Key] = {}
    if file is not None:
        about, needed = _pipeline(file)
        findings += about
    try:
        webhook = checks.public_url(public_url)
    except VoiceflowError:  # `_public` says what is wrong with it
        webhook = ""
    findings += await accounts.keys(needed)
    findings.append(_token(auth_token))
    findings += await accounts.twilio(auth_token, number, webhook)
    nonce = secrets.token_hex(8)
    findings.append(await _port(port, nonce, findings, public_url))
    return findings


def _python() -> Finding:
    return Finding("Python", sys.version_info >= (3, 11), platform.python_version())


def _uvloop() -> Finding:
    try:
        found = version("uvloop")
    except PackageNotFoundError:
        return Finding("uvloop", None, "not there", "it makes the event loop faster: pip install uvloop")
    return Finding("uvloop", True, found)


def _model() -> Finding:
    from processors.silero.model import SileroModel

    try:
        SileroModel.shared()
    except VoiceflowError as error:
        return Finding("voice detector", False, str(error))
    return Finding("voice detector", True, "Silero, its checksum is right")


def _pipeline(file: Path) -> tuple[list[Finding], dict[str, Key]]:
    """Whether the file can be used, and which keys its processors need."""
    from processors.twilio.codec import TwilioCodec
    from voiceflow.call import Call
    from voiceflow.server.loader import load

    try:
        pipeline = load(file).make(Call(TwilioCodec()))
    except VoiceflowError as error:
        return [Finding("pipeline", False, str(error))], {}
    keys = {key.variable: key for processor in pipeline.chain for key in processor.keys}
    good = Finding("pipeline", True, f"{file}: {len(pipeline.chain)} processors")
    return [good, *(Finding("pipeline", None, warning) for warning in pipeline.warnings)], keys


def _token(token: str) -> Finding:
    where = "console.twilio.com, Account info, Auth Token; then TWILIO_AUTH_TOKEN=... in .env"
    if not token:
        return Finding("TWILIO_AUTH_TOKEN", False, "not set: requests cannot be verified", where)
    if len(token) != 32 or not all(c in "0123456789abcdef" for c in token.lower()):
        return Finding("TWILIO_AUTH_TOKEN", None, "set, but not 32 hexadecimal digits as Twilio's are", where)
    return Finding("TWILIO_AUTH_TOKEN", True, "set")


async def _port(port: int, nonce: str, findings: list[Finding], public_url: str) -> Finding:
    """Listens on the port, and while it does, looks whether the public URL leads there."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "doctor": nonce})

    app = web.Application()
    app.add_routes([web.get("/healthz", answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        finding = Finding(f"port {port}", True, "free")
        expected = nonce
    except OSError as error:
        finding = Finding(f"port {port}", None, f"in use ({error.strerror}): by the agent itself, perhaps")
        expected = ""
    try:
        findings.extend(await _public(public_url, port, expected))
    finally:
        await runner.cleanup()
    return finding


@dataclass(slots=True, frozen=True)
class Answer:
    """What a web address answered: the HTTP status, the beginning of the body, the header `Date`."""

    status: int
    body: bytes
    date: str


async def fetch(url: str) -> Answer:
    """Asks a web address, within FETCH_TIMEOUT. LinkError, naming the host, when nobody answers."""
    try:
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url) as response:
            body = await response.content.read(MOST_ANSWER)
            return Answer(response.status, body, response.headers.get("Date", ""))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        reason = "no answer" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
        host = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
        raise LinkError(f"{host} cannot be reached from here ({reason})") from None


async def _public(url: str, port: int, nonce: str) -> list[Finding]:
    if not url:
        how = f"a tunnel or a reverse proxy to port {port}, then --public-url or VOICEFLOW_PUBLIC_URL=https://..."
        return [Finding("public URL", False, "not set: Twilio cannot reach this machine", how)]
    try:
        url = checks.public_url(url)
    except VoiceflowError as error:
        return [Finding("public URL", False, str(error))]
    shown = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
    try:
        answer = await fetch(url + "/healthz")
    except LinkError as error:
        return [Finding("public URL", False, str(error))]
    try:
        body = json.loads(answer.body) if answer.status == 200 else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or body.get("status") != "ok" or (nonce and body.get("doctor") != nonce):
        hint = f"it must lead to 127.0.0.1:{port}"
        return [
            Finding(
                "public URL",
                False,
                f"{shown} answers (HTTP {answer.status}), but it is not this server",
                hint,
            )
        ]
    return [Finding("public URL", True, f"{shown} leads here"), _clock(answer.date, _now)]


def _now() -> float:
    # The wall clock is what is examined here.
    from datetime import UTC, datetime

    return datetime.now(UTC).timestamp()


def _clock(date: str, now: Callable[[], float]) -> Finding:
    try:
        skew = now() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return Finding("clock", None, "not checked: the public URL sends no date")
    if abs(skew) > CLOCK_SKEW:
        return Finding("clock", False, f"{skew:+.0f} s off", "set the machine's clock, with NTP for instance")
    return Finding("clock", True, "right")
