"""The command line. The outermost layer: the only place in `voiceflow` that names a carrier."""

from __future__ import annotations

import sys

import typer

from voiceflow.cli import call, chat, demo, dial, doctor, environment, graph, number, run, trace, webhook
from voiceflow.errors import VoiceflowError
from voiceflow.version import __version__

app = typer.Typer(
    name="voiceflow",
    help="Phone agents as a chain of async processors.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run.run)
app.command()(call.call)
app.command()(number.number)
app.command()(dial.dial)
app.command()(demo.demo)
app.command()(chat.chat)
app.command()(graph.graph)
app.command()(trace.trace)
app.command()(doctor.doctor)
app.add_typer(webhook.app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"voiceflow {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def main() -> None:
    """The console script. Exit code 2 for what the user can mend, with one readable message."""
    try:
        environment.load(sys.argv[1:])  # before any option looks for its variable
        app()
    except VoiceflowError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2)
