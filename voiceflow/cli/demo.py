"""`voiceflow demo`: a whole call on this machine, with nobody's account and no network."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from voiceflow.cli import checks
from voiceflow.cli.dial import FIRST, call_and_show, serve, summed_up
from voiceflow.cli.logs import configure
from voiceflow.errors import DeclarationError, LinkError, VoiceflowError
from voiceflow.models import ModelError, ModelHost, need

if TYPE_CHECKING:
    from processors.twilio.simulated.report import Event
    from voiceflow.trace.file import CallRecord

console = Console(highlight=False, soft_wrap=True)

LONGEST = 180.0
"""Seconds after which the call is broken off, whatever happens; it takes about 55."""


def demo(
    out: Annotated[
        Path, typer.Option(help="Where the recording of the call goes; its trace, a page, beside it.")
    ] = Path("voiceflow-demo.wav"),
    vad_only: Annotated[
        bool, typer.Option("--vad-only", help="The short one: an agent that only hears whether one speaks.")
    ] = False,
) -> None:
    """Hear it: somebody calls a clinic's receptionist, interrupts it and books. No account, no network.

    The models come with [b]pip install 'voiceflow-agents\\[local]'[/b]; without them it is --vad-only.

      voiceflow demo

      voiceflow demo --vad-only --out short.wav
    """
    from voiceflow.cli.run import run_async

    configure("WARNING")
    checks.writable(out)
    if not vad_only:
        page = out.with_suffix(".html")
        if page == out or page.is_dir():
            raise VoiceflowError(f"--out {out}: the page {page} goes beside it; give the name of a WAV file")
        try:
            need("hibari", "the receptionist")
            need("moonshine_voice", "the receptionist")
        except DeclarationError as error:
            console.print(f"[yellow]{escape(str(error))}[/yellow]")
            console.print("[yellow]So this is the short demo, which needs no models.[/yellow]\n")
        else:
            try:
                run_async(_receptionist(out, page))
            except ModelError as error:
                raise VoiceflowError(f"{error}. The short demo needs no models: --vad-only") from None
            return
    run_async(_detector(out))


async def _detector(out: Path) -> None:
    """A recorded person calls the VAD-only agent, is answered, and interrupts it."""
    from pipelines import vad_only
    from voiceflow.assets import speech

    console.print("[bold]A person calls an agent[/bold] - over real sockets, in the protocol Twilio speaks.")
    console.print(
        "[dim]The caller is a recorded human voice. The agent listens with a voice detector only:[/dim]"
    )
    console.print(
        "[dim]it plays a recording when the caller stops, and stops when the caller speaks.[/dim]\n"
    )
    said = [(speech("go_forward_ten_meters"), FIRST), (speech("three_cards"), 2.5)]
    await call_and_show(str(vad_only.__file__), said, out, linger=1.0)
    console.print(f"\n[bold]Listen:[/bold] {escape(str(out))} [dim](caller left, agent right)[/dim]")
    console.print(
        "[bold]Next:[/bold]   voiceflow run pipelines/vad_only.py, and put your own processors in it"
    )


async def _receptionist(out: Path, page: Path) -> None:
    """The offline receptionist, called by a recorded person and a model's voice."""
    from pipelines import offline
    from processors.twilio.routes import VOICE
    from processors.twilio.simulated.caller import SimulatedCaller
    from voiceflow.cli.timeline import Timeline
    from voiceflow.cli.visitor import REMARKS, converse, speak
    from voiceflow.trace.folder import TraceFolder

    os.environ.pop("LOCAL_LLM", None)  # this one answers by itself, whatever .env says
    console.print("[bold]Somebody calls a clinic[/bold] - over real sockets, in the protocol Twilio speaks.")
    console.print(
        "[dim]The receptionist hears, thinks and speaks on this machine (pipelines/offline.py): no account,\n"
        "no network. The caller's first words are a recorded person's, who was not thinking of clinics;\n"
        "the others are spoken by the same synthetic voice as the receptionist's.[/dim]\n"
    )
    timeline, remarks = Timeline(), iter(REMARKS)

    def show(event: Event) -> None:
        if event.kind == "caller speaks" and (remark := next(remarks, None)) is not None:
            by = "recorded person" if remark.recording else "synthetic voice"
            event = replace(event, detail=f'"{remark.words}" - {by}')
        if event.kind != "mark returned":
            console.print(timeline.line(event))

    with tempfile.TemporaryDirectory(prefix="voiceflow-") as kept:
        traces = TraceFolder(Path(kept), redact=False)
        phone: SimulatedCaller | None = None
        try:
            async with AsyncExitStack() as stack:
                with _waiting("loading the models"):
                    listener = await serve(Path(offline.__file__), "", stack)
                listener.server.opened = traces.opened
                with _waiting("speaking the caller's words"):
                    host = ModelHost.of(listener.server.services)
                    sounds = [samples async for samples in speak(host)]
                console.print()
                phone = SimulatedCaller(listener.url + VOICE, longest=LONGEST, on_event=show)
                async with phone:
                    await converse(phone, sounds)
        except LinkError as error:
            console.print(f"[red]the call failed:[/red] {escape(str(error))}")
            raise typer.Exit(1) from None
        finally:
            traces.close()
            if phone is not None and phone.report.stream_sids:
                phone.report.write(out)
        record = _record(Path(kept))
    summed_up(phone.report)
    _draw(record, page)
    console.print(f"\n[bold]Listen:[/bold] {escape(str(out))} [dim](caller left, agent right)[/dim]")
    console.print(f"[bold]Look:[/bold]   {escape(str(page))} [dim](in a browser)[/dim]")
    console.print("[bold]Talk:[/bold]   voiceflow run pipelines/offline.py, and open the page that it names")
    console.print("[bold]Type:[/bold]   voiceflow chat pipelines/offline.py")


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Shows that something goes on; afterwards how long it took."""
    began = monotonic()
    with console.status(f"{what} ..."):
        yield
    console.print(f"[dim]{what}: {monotonic() - began:.1f} s[/dim]")


def _record(folder: Path) -> CallRecord:
    """The one call that was kept there."""
    from voiceflow.trace.file import read

    files = sorted(folder.glob("*.json"))
    if not files:
        raise VoiceflowError("the call left no trace: is the disk full?")
    return read(files[-1])


def _draw(record: CallRecord, page: Path) -> None:
    """The transcript and the waterfall, and the page with both."""
    from voiceflow.cli.trace import look_of, write_page
    from voiceflow.trace.waterfall import transcript, waterfall

    look = look_of(console)
    console.print(
        "\n[bold]What was said[/bold] [dim](as the agent understood it, and as the caller heard it)[/dim]"
    )
    for line in transcript(record, look):
        console.print(line)
    console.print("\n[bold]Where the time went[/bold]")
    for line in waterfall(record, look):
        console.print(line)
    write_page(record, page)
