"""`voiceflow call`: phones somebody and lets the agent speak with them.

    serve the file ── POST Calls.json ──▶ Twilio rings ── answered ──▶ POST /twilio/voice here, as for any
                   ◀── GET Calls/CA... ── its status, until it has ended

`outbound.py` beside this file does that; here is what is given on the command line, and the signals.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from processors.twilio.api import ACCOUNT, NUMBERS, TwilioRefused, address, e164
from processors.twilio.rest import TwilioRest
from voiceflow.cli import checks
from voiceflow.cli.checks import seconds
from voiceflow.cli.doctor import fetch
from voiceflow.cli.outbound import Interrupted, OneCall, Order, console, follow
from voiceflow.cli.run import File, listen_on, run_async, serving
from voiceflow.cli.watching import Quiet, Redact, TraceDir, WebhookSpool, WebhookUrl, watching
from voiceflow.errors import LinkError, VoiceflowError
from voiceflow.server.listener import LOOPBACK
from voiceflow.server.loader import load
from voiceflow.server.server import Settings
from voiceflow.vendor import TEMPORARY, Key, MissingKeys


def call(
    file: File,
    to: Annotated[str, typer.Argument(help="Whom to call, with country code: +12025550143.")],
    from_number: Annotated[
        str, typer.Option("--from", envvar="TWILIO_NUMBER", help="Your Twilio number, which they see.")
    ] = "",
    public_url: Annotated[
        str, typer.Option(envvar="VOICEFLOW_PUBLIC_URL", help="Where Twilio reaches it: https://HOST.")
    ] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 8080,
    host: Annotated[
        str,
        typer.Option(
            help="Which address to listen on. Loopback when the public URL is on this machine, else all."
        ),
    ] = "",
    ring: Annotated[int, typer.Option(min=1, max=600, help="Seconds to let it ring.")] = 60,
    limit: Annotated[
        float, typer.Option(min=1, max=86400, callback=seconds, help="Seconds after which it is ended.")
    ] = 3600.0,
    param: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for call.parameters; may be repeated.")
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Look first whether the public URL leads here, as it should.")
    ] = True,
    quiet: Quiet = False,
    trace_dir: TraceDir = None,
    redact: Redact = False,
    webhook: WebhookUrl = "",
    webhook_spool: WebhookSpool = None,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "WARNING",
) -> None:
    """Call somebody: their phone rings, and the agent in FILE speaks with them. Ctrl-C hangs up.

    Needs TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN. Exit code 0 when it was answered and ended as calls do,
    1 when not, 2 when nothing was dialled.

      voiceflow call pipelines/vad_only.py +12025550143 --param name=Ada
    """
    token = Key.of("TWILIO_AUTH_TOKEN", None, ACCOUNT)
    needed = (
        Key.of("TWILIO_ACCOUNT_SID", None, ACCOUNT),
        token,  # also when an API key makes the requests: Twilio signs its own with the token
        Key.of("TWILIO_NUMBER", from_number, f"{NUMBERS} (or give --from)"),
    )
    if missing := [key for key in needed if not key]:
        raise MissingKeys(missing)
    order = Order(
        _party(to), _party(from_number), _reachable(public_url), ring, limit, parameters_of(param or [])
    )
    settings = Settings(public_url=order.public_url, call_limit=limit)
    with watching(
        log_level,
        quiet=quiet,
        trace_dir=trace_dir,
        redact=redact,
        webhook=webhook,
        webhook_spool=webhook_spool,
    ) as opened:
        server = OneCall(load(file), settings, order)
        server.opened = opened
        address_here = host or listen_on(order.public_url, token.value)
        run_async(_call(server, address_here, port, token.value, check))


async def _call(server: OneCall, host: str, port: int, auth_token: str, check: bool) -> None:
    async with (
        TwilioRest() as twilio,
        serving(server, host=host, port=port, auth_token=auth_token) as listener,
    ):
        if check:
            await _leads_here(server.order.public_url, server.nonce, listener.port)
        with _interrupts(server.news) as interrupted:
            await _attend(twilio, server, interrupted)


async def _attend(twilio: TwilioRest, server: OneCall, interrupted: Interrupted) -> None:
    """Follows the call to its end, or until the second signal. typer.Exit when it did not end well."""
    following = asyncio.create_task(follow(twilio, server, interrupted), name="follow")
    hurry = asyncio.create_task(interrupted.twice.wait(), name="second signal")
    try:
        await asyncio.wait([following, hurry], return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
        else:
            console.print("[red]left at once:[/red] the phone may still be connected")
            raise typer.Exit(130)
    except LinkError as error:
        if isinstance(error, TwilioRefused) and error.status not in TEMPORARY and not server.sid:
            raise  # nothing was dialled: something is to be mended first
        console.print(f"[red]the call failed:[/red] {escape(str(error))}")
        raise typer.Exit(1) from None
    finally:
        for task in (following, hurry):
            task.cancel()
        await asyncio.gather(following, hurry, return_exceptions=True)


# -- signals -----------------------------------------------------------------------------------------------


@contextmanager
def _interrupts(news: asyncio.Event) -> Iterator[Interrupted]:
    """Notes signals inside the block, and sets `news`. After the second they do what they always do."""
    loop = asyncio.get_running_loop()
    interrupted = Interrupted()
    signals = (signal.SIGINT, signal.SIGTERM)

    def note() -> None:
        if interrupted.once:
            interrupted.twice.set()
            release()
            return
        console.print("hanging up; once more to leave at once")
        interrupted.once = True
        news.set()

    def release() -> None:
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, note)
    try:
        yield interrupted
    finally:
        release()


# -- what is given, checked before anything is dialled -------------------------------------------------------


def _party(given: str) -> str:
    """A telephone number, or an address of the form sip: or client:, which Twilio calls too."""
    if given.startswith(("sip:", "client:")) and not any(c.isspace() for c in given):
        return given
    try:
        return e164(given)
    except ValueError as error:
        raise VoiceflowError(str(error)) from None


def _reachable(given: str) -> str:
    """The public URL, as Twilio can use it. VoiceflowError when there is none.

    http:// on this machine is for a Twilio that runs here too, as in tests.
    """
    if not given:
        raise VoiceflowError(
            "--public-url (or VOICEFLOW_PUBLIC_URL) is needed: Twilio has to reach this machine. A tunnel "
            "gives one, for instance: cloudflared tunnel --url http://127.0.0.1:8080"
        )
    url = checks.public_url(given)
    if urlsplit(url).hostname in LOOPBACK and urlsplit(address()).hostname not in LOOPBACK:
        raise VoiceflowError(f"--public-url {url} is this machine's own address: Twilio cannot reach it")
    return url


def parameters_of(given: list[str]) -> dict[str, str]:
    """What `--param` says. VoiceflowError for what is not NAME=VALUE."""
    parameters: dict[str, str] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not (equals and name):
            raise VoiceflowError(f"--param {word!r}: write it like name=value")
        if name in parameters:
            raise VoiceflowError(f"--param {name} is given twice")
        parameters[name] = value
    return parameters


async def _leads_here(public_url: str, nonce: str, port: int) -> None:
    """VoiceflowError unless the public URL leads to this process: the phone would ring, and nobody speak."""
    try:
        answer = await fetch(f"{public_url}/healthz/{nonce}")
    except LinkError as error:
        problem = str(error)
    else:
        if answer.status == 200 and answer.body.strip() == nonce.encode():
            return
        problem = f"{public_url} answers (HTTP {answer.status}), but it is not this server"
    raise VoiceflowError(
        f"nothing was dialled: {problem}. It must lead to port {port} here. --no-check calls anyway, if only "
        "this machine cannot see it"
    )
