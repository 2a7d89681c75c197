"""`voiceflow number`: who is asked when somebody calls a Twilio number."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.markup import escape

from processors.twilio.api import NUMBERS, PhoneNumber, e164
from processors.twilio.rest import TwilioRest
from processors.twilio.routes import VOICE
from voiceflow.cli import checks
from voiceflow.cli.run import run_async
from voiceflow.errors import VoiceflowError
from voiceflow.server.listener import LOOPBACK

console = Console(highlight=False, soft_wrap=True)


def number(
    number: Annotated[
        str,
        typer.Argument(envvar="TWILIO_NUMBER", help="A number of your Twilio account, like +12025550199."),
    ] = "",
    public_url: Annotated[
        str, typer.Option(envvar="VOICEFLOW_PUBLIC_URL", help="Where Twilio reaches the agent: https://HOST.")
    ] = "",
    voice_url: Annotated[
        str, typer.Option(help="Instead: the whole address to ask, for instance the one it had before.")
    ] = "",
    show: Annotated[bool, typer.Option("--show", help="Only show who is asked now.")] = False,
) -> None:
    """Point a Twilio number here: calls to it are answered by `voiceflow run`.

    Needs TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN (or TWILIO_API_KEY and TWILIO_API_SECRET).

      voiceflow number +12025550199 --public-url https://agent.example.com
    """
    if not number:
        raise VoiceflowError(f"which number? Give it, or set TWILIO_NUMBER: yours are at {NUMBERS}")
    try:
        digits = e164(number)
    except ValueError as error:
        raise VoiceflowError(str(error)) from None
    url = "" if show else _public("--voice-url", voice_url) if voice_url else _webhook(public_url)
    run_async(_number(digits, url))


async def _number(digits: str, url: str) -> None:
    async with TwilioRest() as twilio:
        before = await twilio.find_number(digits)
        if before is None:
            raise VoiceflowError(
                f"{digits} is no number of this account in this region: see {NUMBERS}, Manage, Active numbers"
            )
        if not before.voice:
            raise VoiceflowError(
                f"{digits} takes no voice calls: get one that does at {NUMBERS}, Buy a number"
            )
        if not url or before.points_to(url):
            console.print(
                f"{digits}  {escape(before.asked)}{'  [dim](nothing to change)[/dim]' if url else ''}"
            )
            return
        after = await twilio.point_number(before, url)
    console.print(
        f"{digits}  before  {escape(before.asked)}\n{' ' * len(digits)}  after   {escape(after.asked)}"
    )
    if not after.points_to(url):
        raise VoiceflowError(f"Twilio did not take it over: set it at {NUMBERS}, Manage, Active numbers")
    console.print(f"[dim]to undo:[/dim] {escape(_undo(before))}")


def _undo(before: PhoneNumber) -> str:
    if before.voice_url.startswith("https://") and before.points_to(before.voice_url):
        return f"voiceflow number {before.number} --voice-url {before.voice_url}"
    return f"set it back at {NUMBERS}, Manage, Active numbers, {before.number}, Voice Configuration"


def _webhook(public_url: str) -> str:
    if not public_url:
        raise VoiceflowError(
            "where should it point? Give --public-url https://HOST (or VOICEFLOW_PUBLIC_URL); "
            "--show only looks"
        )
    return _public("--public-url", checks.public_url(public_url)) + VOICE


def _public(option: str, url: str) -> str:
    """VoiceflowError unless Twilio can ask there without anybody listening in."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and parts.hostname and (parts.port or True)
    except ValueError:
        parts, usable = urlsplit(""), False
    if not usable or "@" in parts.netloc or any(c.isspace() for c in url):
        raise VoiceflowError(f"{option} must be an address that begins with https://")
    if parts.hostname in LOOPBACK:
        raise VoiceflowError(f"{option} {url} is this machine's own address: Twilio cannot reach it")
    return url
