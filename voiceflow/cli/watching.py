"""What whoever runs calls wants to see of them: logs, the console, and the traces that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from voiceflow.call import Call
from voiceflow.cli.console import LiveConsole, Screen
from voiceflow.cli.logs import configure
from voiceflow.trace.folder import TraceFolder
from voiceflow.trace.redaction import Redaction
from voiceflow.vendor import secrets
from voiceflow.webhook import Webhook

Quiet = Annotated[
    bool, typer.Option("--quiet", "--no-console", help="Does not print what happens in the calls.")
]
TraceDir = Annotated[
    Path | None,
    typer.Option(
        envvar="VOICEFLOW_TRACES",
        show_envvar=True,
        help="Keeps a JSON file of every call there, for [b]voiceflow trace[/b].",
    ),
]
Redact = Annotated[
    bool,
    typer.Option(
        "--redact",
        envvar="VOICEFLOW_REDACT",
        show_envvar=True,
        help="Hides what people say, and their numbers: on the console, in logs and in traces.",
    ),
]
WebhookUrl = Annotated[
    str,
    typer.Option(
        "--webhook",
        envvar="VOICEFLOW_WEBHOOK_URL",
        show_envvar=True,
        metavar="URL",
        help="Tells this address about each call that is over, signed with VOICEFLOW_WEBHOOK_SECRET.",
    ),
]
WebhookSpool = Annotated[
    Path | None,
    typer.Option(
        envvar="VOICEFLOW_WEBHOOK_SPOOL",
        show_envvar=True,
        help="Keeps there what the webhook has not taken yet. Without it: the folder of the traces.",
    ),
]

Opened = Callable[[Call], None]


@contextmanager
def watching(
    log_level: str,
    *,
    quiet: bool = False,
    trace_dir: Path | None = None,
    redact: bool = False,
    webhook: str = "",
    webhook_spool: Path | None = None,
) -> Iterator[Opened]:
    """`with watching(...) as opened`: give it to the server, `server.opened = opened`.

    Nothing that is watched ever waits for a terminal or a disk; leaving the block gives both a moment to take
    what is left; the webhook ends with the server's services. VoiceflowError when traces cannot be kept, when
    the webhook has no secret, or for a log level that does not exist.
    """
    screen = Screen()
    redaction = Redaction(words=redact, secrets=secrets())
    configure(log_level, redaction=redaction, write=screen.write, calls=quiet)
    folder: TraceFolder | None = None
    try:
        console = None if quiet else LiveConsole(screen, redact=redact)
        folder = TraceFolder(trace_dir, redact=redact) if trace_dir is not None else None
        spool = webhook_spool if webhook_spool is not None else trace_dir
        hook = Webhook(webhook, redact=redact, spool=spool) if webhook else None

        def opened(call: Call) -> None:
            if redact:  # for the logs
                call.trace.listeners.append(lambda event: redaction.remember(event.words))
            if console is not None:
                console.opened(call)
            if folder is not None:
                folder.opened(call)
            if hook is not None:
                call.on_end(hook)

        yield opened
    finally:
        if folder is not None:
            folder.close()
        screen.close()
        configure(log_level, redaction=redaction)
