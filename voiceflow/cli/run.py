"""`voiceflow run`: answers the phone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from loguru import logger

from processors.browser.access import Access, dashboard
from processors.twilio.codec import TwilioCodec
from processors.twilio.routes import VOICE, TwilioRoutes
from voiceflow.call import Call
from voiceflow.cli import checks
from voiceflow.cli.checks import seconds
from voiceflow.cli.watching import Opened, Quiet, Redact, TraceDir, WebhookSpool, WebhookUrl, watching
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.errors import VoiceflowError
from voiceflow.server.listener import LOOPBACK, Listener, settle, until_stopped, warm
from voiceflow.server.loader import PipelineFile, load
from voiceflow.server.server import FALLBACK, Server, Settings

RELOAD_SECONDS = 0.5
"""How often `--reload` looks at the files."""

File = Annotated[
    Path, typer.Argument(help="A Python file with [b]def pipeline(call)[/b].", show_default=False)
]


def run(
    file: File,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 8080,
    host: Annotated[
        str,
        typer.Option(
            help="Which address to listen on. Loopback without an auth token, or when the public URL is "
            "on this machine; else all."
        ),
    ] = "",
    public_url: Annotated[
        str, typer.Option(envvar="VOICEFLOW_PUBLIC_URL", help="Where Twilio reaches it: https://HOST.")
    ] = "",
    auth_token: Annotated[
        str,
        typer.Option(
            envvar="TWILIO_AUTH_TOKEN", show_envvar=True, help="Verifies that requests are Twilio's."
        ),
    ] = "",
    max_calls: Annotated[
        int, typer.Option(min=1, help="Calls at the same time; more are refused, spoken.")
    ] = 50,
    drain: Annotated[
        float, typer.Option(min=0, callback=seconds, help="Seconds live calls may go on after SIGTERM.")
    ] = 60.0,
    call_limit: Annotated[
        float, typer.Option(min=1, callback=seconds, help="Seconds after which a call is ended.")
    ] = 3600.0,
    fallback: Annotated[str, typer.Option(help="What the caller hears when a call breaks.")] = FALLBACK,
    fallback_number: Annotated[
        str, typer.Option(help="Instead of the sentence: the number to connect the caller to.")
    ] = "",
    page: Annotated[
        bool | None,
        typer.Option(
            "--dashboard/--no-dashboard",
            show_default=False,
            help="The page to talk from a browser. Unless you say: where only this machine reaches it.",
        ),
    ] = None,
    page_password: Annotated[
        str,
        typer.Option(
            "--dashboard-password",
            envvar="VOICEFLOW_DASHBOARD_PASSWORD",
            show_envvar=True,
            help="Asked for by the page; needed where others reach it.",
        ),
    ] = "",
    reload: Annotated[bool, typer.Option("--reload", help="Loads the file again when it changes.")] = False,
    quiet: Quiet = False,
    trace_dir: TraceDir = None,
    redact: Redact = False,
    webhook: WebhookUrl = "",
    webhook_spool: WebhookSpool = None,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Answer the phone: every call gets a pipeline of its own.

    [dim]Try it here, then with a phone:[/dim]

      voiceflow run pipelines/vad_only.py

      voiceflow dial http://127.0.0.1:8080/twilio/voice --speech hello.wav

      voiceflow run pipelines/vad_only.py --trace-dir calls, then: voiceflow trace calls

      TWILIO_AUTH_TOKEN=... voiceflow run pipelines/vad_only.py --public-url https://agent.example.com
    """
    if not auth_token and host and host not in LOOPBACK:
        raise VoiceflowError(
            f"without an auth token anybody could call --host {host}: set TWILIO_AUTH_TOKEN "
            "(console.twilio.com, Account info), or leave --host away to listen on loopback only"
        )
    settings = Settings(
        public_url=checks.public_url(public_url) or None,
        max_calls=max_calls,
        drain=drain,
        call_limit=call_limit,
        fallback=fallback,
        fallback_number=fallback_number or None,
    )
    address = host or listen_on(settings.public_url or "", auth_token)
    access = dashboard(
        wanted=page, password=page_password, host=address, public_url=settings.public_url or ""
    )
    with watching(
        log_level,
        quiet=quiet,
        trace_dir=trace_dir,
        redact=redact,
        webhook=webhook,
        webhook_spool=webhook_spool,
    ) as opened:
        agent = ReloadingAgent(load(file)) if reload else load(file)
        run_async(_serve(agent, settings, opened, address, port, auth_token, access, redact))


def listen_on(public_url: str, auth_token: str) -> str:
    """Where to listen when nobody says: on all addresses, if whoever comes can be told from Twilio and does
    not come from this machine anyway."""
    known_as = urlsplit(public_url).hostname
    if known_as == "::1":
        return known_as
    return LOOPBACK[0] if known_as in LOOPBACK or not auth_token else "0.0.0.0"


async def _serve(
    agent: PipelineFile | ReloadingAgent,
    settings: Settings,
    opened: Opened,
    host: str,
    port: int,
    auth_token: str,
    access: Access | None,
    redact: bool,
) -> None:
    server = Server(agent, settings)
    server.opened = opened
    async with serving(
        server, host=host, port=port, auth_token=auth_token, access=access, redact=redact
    ) as listener:
        public = settings.public_url or listener.url
        logger.info(f"answering calls: {public}{VOICE}  (listening on {listener.url})")
        if access is not None:
            logger.info(f"talk to it in a browser: {public}/")
        if not auth_token:
            logger.warning("no TWILIO_AUTH_TOKEN: requests are not verified, so it listens on loopback only")
        elif not settings.public_url:
            logger.warning(
                "no --public-url: only a simulated caller on this machine can call, because Twilio signs "
                "the https:// address that it uses"
            )
        reloading = asyncio.create_task(agent.watch(server)) if isinstance(agent, ReloadingAgent) else None
        try:
            await until_stopped(server)
        finally:
            if reloading is not None:
                reloading.cancel()


@asynccontextmanager
async def serving(
    server: Server,
    *,
    host: str,
    port: int,
    auth_token: str,
    access: Access | None = None,
    redact: bool = False,
) -> AsyncIterator[Listener]:
    """A warm server with Twilio's routes, and with `access` those of a browser, listening until the block
    ends. Raises as `warm` and Listener."""
    from processors.browser.routes import BrowserRoutes  # imports numpy

    await warm(server.agent, TwilioCodec(), server)
    settle()
    routes = TwilioRoutes(server, auth_token=auth_token).routes()
    browser = BrowserRoutes(server, access, redact=redact) if access is not None else None
    if browser is not None:
        routes += browser.routes()
    try:
        async with Listener(server, routes, host=host, port=port) as listener:
            yield listener
    finally:
        if browser is not None:
            await browser.close()


class ReloadingAgent:
    """A pipeline file that is loaded again when it changes. A file that does not load, or whose chain
    fails its check, leaves the old one."""

    def __init__(self, file: PipelineFile) -> None:
        self._file = file
        """What makes the pipelines."""
        self._latest = file
        """What is watched: the newest that could be loaded, usable or not."""

    def make(self, call: Call) -> Pipeline:
        return self._file.make(call)

    async def watch(self, server: Server) -> None:
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                if not self._latest.changed():
                    continue
                self._latest = self._latest.reload()
                await warm(self._latest, TwilioCodec(), server)
            except (VoiceflowError, OSError) as error:
                logger.error(f"not reloaded, the old one goes on: {error}")
            else:
                self._file = self._latest
                logger.info(f"reloaded {self._file.path}: the next call gets it")


def run_async(main: Coroutine[Any, Any, None]) -> None:
    """Runs on uvloop where it exists."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
