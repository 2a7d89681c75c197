"""`voiceflow webhook`: a secret for webhooks, and those that were not delivered."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from voiceflow.cli.run import run_async
from voiceflow.errors import VoiceflowError
from voiceflow.webhook.endpoint import Endpoint
from voiceflow.webhook.post import attempt, post
from voiceflow.webhook.signature import new_secret
from voiceflow.webhook.spool import Kept, kept

app = typer.Typer(
    name="webhook", help="Secrets for webhooks, and those that were not delivered.", no_args_is_help=True
)


@app.command()
def secret() -> None:
    """Make a secret, for VOICEFLOW_WEBHOOK_SECRET here and where webhooks are received."""
    typer.echo(new_secret())


@app.command()
def resend(
    folder: Annotated[
        Path, typer.Argument(help="Where they are: the --webhook-spool or --trace-dir.", show_default=False)
    ],
    url: Annotated[
        str,
        typer.Option("--webhook", envvar="VOICEFLOW_WEBHOOK_URL", metavar="URL", help="Where to send it."),
    ] = "",
) -> None:
    """Send what could not be delivered, oldest first, and remove what was taken.

    It has the same webhook-id as before: a receiver that keeps those takes nothing twice. Ends with the first
    that gets no answer, or is told to come back later. Exit code 1 when something is left.
    """
    endpoint = Endpoint.of(url)
    if not folder.is_dir():
        raise VoiceflowError(f"there is no folder {folder}")
    run_async(_resend(folder, endpoint))


async def _resend(folder: Path, endpoint: Endpoint) -> None:
    console = Console(highlight=False, soft_wrap=True)
    sent = left = 0
    waiting = await asyncio.to_thread(list, kept(folder))
    for number, found in enumerate(waiting):
        if not isinstance(found, Kept):
            left += 1
            console.print(f"[yellow]passed over:[/yellow] {escape(str(found))}")
            continue
        tried = await attempt(post, endpoint, found.id, found.body, lambda: datetime.now(UTC))
        if not tried.problem:
            sent += 1
            await asyncio.to_thread(found.path.unlink, missing_ok=True)
            continue
        console.print(f"[red]call {escape(found.call)} not delivered:[/red] {escape(tried.problem)}")
        if not tried.final:
            left += len(waiting) - number
            break
        left += 1
    console.print(f"{sent} delivered to {escape(endpoint.host)}, {left} left in {escape(str(folder))}")
    if left:
        raise typer.Exit(1)
