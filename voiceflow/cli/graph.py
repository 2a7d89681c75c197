"""`voiceflow graph`: prints the checked chain."""

from __future__ import annotations

from typing import Annotated

import typer

from processors.twilio.codec import TwilioCodec
from voiceflow.call import Call
from voiceflow.cli.run import File
from voiceflow.declaration.drawing import draw
from voiceflow.server.loader import load


def graph(
    file: File,
    called: Annotated[
        str, typer.Option(help="The number called, for files that route by it.")
    ] = "+12025550100",
) -> None:
    """Check a pipeline file and print its chain: who takes and gives which frames, who decides the turns.

    Exit code 2, with the line and what to do, when the chain cannot work.

      voiceflow graph pipelines/vad_only.py
    """
    pipeline = load(file).make(Call(TwilioCodec(), caller="+12025550199", called=called))
    typer.echo(draw(pipeline))
    for warning in pipeline.warnings:
        typer.secho(f"note: {warning}", fg=typer.colors.YELLOW, err=True)
