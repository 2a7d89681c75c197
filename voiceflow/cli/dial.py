"""`voiceflow dial`: a phone call without a phone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.markup import escape

from voiceflow.cli import checks
from voiceflow.cli.checks import seconds
from voiceflow.cli.logs import configure
from voiceflow.errors import LinkError, VoiceflowError
from voiceflow.frames import PHONE

if TYPE_CHECKING:
    from processors.twilio.simulated.report import CallReport, Samples
    from voiceflow.server.listener import Listener

console = Console(highlight=False, soft_wrap=True)

PAUSE = 3.0
"""Seconds between two speeches when `--after` does not say."""
QUIET = 33.0
"""Root mean square of a 20 ms packet that is silence at any rate: -60 dBFS."""
LONGEST_PAUSE = 600.0
KEY = 0.3
"""Seconds from one key to the next, as somebody types a number that he knows."""
KEYS = re.compile(r"(\d{1,3}(?:\.\d*)?):([0-9*#A-D]{1,64})")
FIRST = 0.5
"""Seconds before the first, where it does not depend on the agent."""
PATIENCE = 1.3
"""Seconds that the caller gives the agent to speak first."""
ANSWERING = 8.0
"""Seconds that the caller gives the agent to begin each further answer."""
MOMENT = 0.7
"""Seconds of silence after its first words, or after PATIENCE, in which the caller begins. More than an agent
pauses between two sentences, and about what people leave on the phone before they take the turn."""

UNSIGNED = "It seems to answer Twilio only: give its auth token, with --auth-token or TWILIO_AUTH_TOKEN."
SIGNED_WRONG = (
    "It seems not to take the signature: --auth-token and --public-url (TWILIO_AUTH_TOKEN, "
    "VOICEFLOW_PUBLIC_URL) must be the same here as there."
)
"""What to do about HTTP 403 from the webhook."""


def dial(
    target: Annotated[
        str, typer.Argument(help="A pipeline file, or the webhook's URL: http://127.0.0.1:8080/twilio/voice.")
    ],
    speech: Annotated[
        list[Path] | None,
        typer.Option(
            help="A WAV the caller says, without the silence at its ends. None: the caller says nothing.",
            show_default=False,
        ),
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            help="SECONDS:KEYS the caller presses so late in the call, as 9.5:4711#. May be given again.",
            show_default=False,
        ),
    ] = None,
    first: Annotated[
        float | None,
        typer.Option(
            help="Seconds to the first speech, whatever the agent does. Otherwise the caller lets the agent "
            "speak first, and begins when it is silent, or after 2 s when it says nothing.",
            show_default=False,
        ),
    ] = None,
    after: Annotated[
        list[float] | None,
        typer.Option(
            help="Seconds from the end of one speech to the next, one for each further --speech, whatever "
            "the agent does. Otherwise each comes when the agent has answered the one before.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Writes both sides: caller left, agent right.")] = None,
    delay: Annotated[
        float, typer.Option(min=0, callback=seconds, help="Network delay each way, in milliseconds.")
    ] = 0.0,
    linger: Annotated[
        float, typer.Option(min=0, callback=seconds, help="Hangs up after the agent was silent this long.")
    ] = 1.5,
    limit: Annotated[
        float, typer.Option(min=0, callback=seconds, help="Hangs up this long after the last speech anyway.")
    ] = 20.0,
    from_number: Annotated[str, typer.Option("--from", help="The caller's number.")] = "+12025550143",
    to_number: Annotated[str, typer.Option("--to", help="The number called.")] = "+12025550199",
    auth_token: Annotated[
        str, typer.Option(envvar="TWILIO_AUTH_TOKEN", help="Signs the requests as Twilio would.")
    ] = "",
    public_url: Annotated[
        str,
        typer.Option(
            envvar="VOICEFLOW_PUBLIC_URL", help="The server's --public-url, which is what is signed."
        ),
    ] = "",
    log_level: Annotated[str, typer.Option(help="For the agent, when TARGET is a file.")] = "WARNING",
) -> None:
    """Call an agent as a phone would, over real sockets, and see and hear what happens.

    A file is served just for this call; a URL is an agent that runs already.

      voiceflow dial pipelines/vad_only.py --speech hello.wav --out call.wav

      voiceflow dial http://127.0.0.1:8080 --speech a.wav --speech b.wav --after 1.5 --delay 40

      voiceflow dial http://127.0.0.1:8080 --speech a.wav --keys 9.5:4711# --linger 5

      voiceflow dial http://127.0.0.1:8080 --linger 30 --limit 60     [dim]a caller who is silent[/dim]
    """
    from voiceflow.cli.run import run_async

    configure(log_level)
    speech = speech or []
    listens = first is None and not after
    pauses = _pauses(
        len(speech), after or [], MOMENT if first is None else first, MOMENT if listens else PAUSE
    )
    public_url = checks.public_url(public_url)
    run_async(
        call_and_show(
            target,
            list(zip(speech, pauses, strict=True)),
            out,
            digits=_pressed(keys or []),
            patience=PATIENCE if first is None else None,
            listens=ANSWERING if listens else None,
            delay=delay / 1000,
            linger=linger,
            limit=limit,
            caller=from_number,
            called=to_number,
            auth_token=auth_token,
            public_url=public_url,
        )
    )


async def call_and_show(
    target: str,
    speeches: list[tuple[Path, float]],
    out: Path | None,
    *,
    digits: Sequence[tuple[float, str]] = (),
    patience: float | None = None,
    listens: float | None = None,
    delay: float = 0.0,
    linger: float = 1.5,
    limit: float = 20.0,
    caller: str = "+12025550143",
    called: str = "+12025550199",
    auth_token: str = "",
    public_url: str = "",
) -> None:
    """Calls `target`, says `speeches`, each so many seconds after the one before, and shows what happens.
    typer.Exit when the call fails."""
    from processors.twilio.routes import VOICE
    from processors.twilio.simulated.caller import SimulatedCaller, Speech
    from processors.twilio.simulated.report import Event
    from voiceflow.audio import read_wav
    from voiceflow.cli.timeline import Timeline

    if out is not None:
        checks.writable(out)
    spoken = [Speech(voiced(read_wav(path)), after) for path, after in speeches]
    timeline = Timeline()

    def show(event: Event) -> None:
        if event.kind != "mark returned":
            console.print(timeline.line(event))

    async with AsyncExitStack() as stack:
        if urlsplit(target).scheme in ("http", "https"):
            url = target if urlsplit(target).path.strip("/") else target.rstrip("/") + VOICE
        else:
            url = (await serve(Path(target), auth_token, stack)).url + VOICE
        phone = SimulatedCaller(
            url,
            auth_token=auth_token,
            public_url=public_url if url.startswith(target) else "",
            caller=caller,
            called=called,
            speeches=spoken,
            digits=digits,
            patience=patience,
            listens=listens,
            delay_in=delay,
            delay_out=delay,
            linger=linger,
            limit=limit,
            on_event=show,
        )
        try:
            await phone.run()
        except LinkError as error:
            console.print(f"[red]the call failed:[/red] {escape(str(error))}")
            if phone.report.http and phone.report.http[0].status == 403:
                console.print(SIGNED_WRONG if auth_token else UNSIGNED)
            elif not phone.report.http and url.startswith(target):
                console.print("Does an agent listen there? voiceflow run FILE, in another terminal.")
            raise typer.Exit(1) from None
        finally:
            if out is not None and phone.report.stream_sids:
                phone.report.write(out)
    summed_up(phone.report)


def summed_up(report: CallReport) -> None:
    """Both sides of a call that is over, and what was wrong with it."""
    from voiceflow.cli.timeline import bars

    console.print()
    console.print(bars(report))
    console.print(
        f"[dim]{report.media_messages} messages of audio received, {report.underruns} underruns, "
        f"{len(report.faults)} faults[/dim]"
    )
    for fault in report.faults:
        console.print(f"[red]Twilio would report {fault.code}:[/red] {escape(fault.detail)} (x{fault.count})")


def voiced(samples: Samples) -> Samples:
    """A recording without the silence at its ends, so that times are counted from the voice itself."""
    import numpy as np

    packet = PHONE.rate // 50
    packets = samples[: len(samples) // packet * packet].reshape(-1, packet).astype(np.float64)
    loudness = np.sqrt(np.mean(packets**2, axis=1))
    loud = np.flatnonzero(loudness > max(QUIET, loudness.max(initial=0.0) * 10 ** (-30 / 20)))
    return samples[loud[0] * packet : (loud[-1] + 1) * packet] if len(loud) else samples


async def serve(file: Path, auth_token: str, stack: AsyncExitStack) -> Listener:
    """Serves a pipeline file on a free port for one call."""
    from processors.twilio.codec import TwilioCodec
    from processors.twilio.routes import TwilioRoutes
    from voiceflow.server.listener import Listener, warm
    from voiceflow.server.loader import load
    from voiceflow.server.server import Server

    server = Server(load(file))
    stack.push_async_callback(server.close)  # also when what it shares cannot be warmed
    await warm(server.agent, TwilioCodec(), server)
    routes = TwilioRoutes(server, auth_token=auth_token)
    return await stack.enter_async_context(Listener(server, routes.routes(), host="127.0.0.1", port=0))


def _pressed(given: list[str]) -> list[tuple[float, str]]:
    """When each key is pressed, in seconds of the call."""
    pressed = []
    for each in given:
        if (read := KEYS.fullmatch(each)) is None:
            raise VoiceflowError(
                f"--keys {each}: give the second of the call and the keys, of 0-9 * # A-D, as in 9.5:4711#"
            )
        start = float(read[1])
        pressed += [(start + place * KEY, key) for place, key in enumerate(read[2])]
    return pressed


def _pauses(speeches: int, after: list[float], first: float = FIRST, then: float = PAUSE) -> list[float]:
    """The pause before each speech. `--after` is for the second, third, ... speech, `then` for the others."""
    if len(after) > max(0, speeches - 1):
        raise VoiceflowError(
            f"{len(after)} times --after for {speeches} times --speech: it is the pause between two "
            f"speeches, so there can be {max(0, speeches - 1)}"
        )
    for option, pauses in (("--first", [first]), ("--after", after)):
        if not all(0 <= pause <= LONGEST_PAUSE for pause in pauses):
            raise VoiceflowError(f"{option} is in seconds, from 0 to {LONGEST_PAUSE:g}")
    return [first, *after, *[then] * (speeches - 1 - len(after))][:speeches]
