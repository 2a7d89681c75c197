"""`python -m tests.vendors`: all fake vendors, to try an agent by hand without an account."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from rich.console import Console
from rich.text import Text

from processors.twilio.simulated.caller import Speech
from tests.vendors.aura import FakeAura
from tests.vendors.elevenlabs import FakeElevenLabs
from tests.vendors.flux import FakeFlux
from tests.vendors.openai import FakeOpenAI
from tests.vendors.server import DEEPGRAM_KEY, ELEVENLABS_KEY, OPENAI_KEY, Vendors, precise_loop
from tests.vendors.twilio import FakeTwilio
from voiceflow.assets import speech
from voiceflow.audio import read_wav

MARK = "# Written by python -m tests.vendors: addresses and keys of fakes on this machine."
EOT_SILENCE = 0.6
"""Seconds: people pause within a sentence, and the fake does not understand what they say."""
LATEST = 20
"""Records that are looked at for news."""
COLOURS = {"twilio": "red", "flux": "cyan", "llm": "yellow", "elevenlabs": "green", "aura": "green"}

LINES = [
    "Hello, do you have a table for two tonight?",
    "At half past seven, please.",
    "My name is Ada Lovelace.",
    "No, that is all. Thank you, goodbye!",
]
REPLIES = [
    "Good evening! Let me see. Yes, we do have a table for two tonight. What time would suit you?",
    "Half past seven is free. Under what name shall I put it?",
    "Thank you, Ada. Your table for two is booked for half past seven. Is there anything else?",
    "You are welcome. We look forward to seeing you tonight. Goodbye!",
]

console = Console(highlight=False, soft_wrap=True)


def main(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 9100,
    env_file: Annotated[
        Path | None, typer.Option(help="Writes the variables there too, as a .env file.", show_default=False)
    ] = None,
    agent: Annotated[str, typer.Option(help="Where your agent will listen.")] = "http://127.0.0.1:8080",
    line: Annotated[
        list[str] | None,
        typer.Option(help="What Flux takes the caller's next speech for. May be given again."),
    ] = None,
    reply: Annotated[
        list[str] | None, typer.Option(help="What the model answers next. May be given again.")
    ] = None,
    spelled: Annotated[
        bool, typer.Option("--spelled", help="Flux reads spelled audio, as tests send it, not any voice.")
    ] = False,
    flux_delay: Annotated[float, typer.Option(min=0, help="From audio to what Flux says of it, ms.")] = 50,
    first_token: Annotated[float, typer.Option(min=0, help="From a prompt to its first token, ms.")] = 250,
    gap: Annotated[float, typer.Option(min=0, help="From one token to the next, ms.")] = 20,
    voice_delay: Annotated[float, typer.Option(min=0, help="From text to its first audio, ms.")] = 100,
    handshake: Annotated[float, typer.Option(min=0, help="For a new connection, ms.")] = 0,
    seconds: Annotated[
        float | None, typer.Option("--for", min=0, help="Stops by itself.", show_default=False)
    ] = None,
) -> None:
    """Fake Deepgram, OpenAI, ElevenLabs and Twilio, until Ctrl-C: try an agent without an account.

    [dim]In one terminal, then in two others:[/dim]

      python -m tests.vendors --env-file .env

      voiceflow run pipelines/phone_agent.py

      voiceflow dial http://127.0.0.1:8080 --speech voiceflow/assets/speech/three_cards.wav --out call.wav

    [dim]A slow model, and what is said:[/dim]

      python -m tests.vendors --first-token 900 --gap 60 --line "Are you open?" --reply "Until six."

    Any voice will do for the caller: Flux does not understand it, but takes it for the next line.

    The agent's voice is a buzz that spells its text. [b]voiceflow call[/b] works too: a person picks up.
    """
    if env_file is not None and env_file.exists() and MARK not in env_file.read_text(errors="replace"):
        console.print(f"[red]error:[/red] {env_file} was not written by this: give another name")
        raise typer.Exit(2)
    person = [Speech(read_wav(speech("three_cards")), 1.5), Speech(read_wav(speech("ten_of_clubs")), 6.0)]
    vendors = Vendors(
        flux=FakeFlux(
            key=DEEPGRAM_KEY,
            mode="spelled" if spelled else "energy",
            lines=line or LINES,
            delay=flux_delay / 1000,
            eot_silence=0.26 if spelled else EOT_SILENCE,
            handshake=handshake / 1000,
        ),
        llm=FakeOpenAI(
            reply or REPLIES,
            key=OPENAI_KEY,
            ttft=first_token / 1000,
            gap=gap / 1000,
            handshake=handshake / 1000,
        ),
        elevenlabs=FakeElevenLabs(key=ELEVENLABS_KEY, delay=voice_delay / 1000, handshake=handshake / 1000),
        aura=FakeAura(key=DEEPGRAM_KEY, delay=voice_delay / 1000, handshake=handshake / 1000),
        twilio=FakeTwilio(answers=person),
        port=port,
    )
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(_serve(vendors, agent, env_file, seconds))


async def _serve(vendors: Vendors, agent: str, env_file: Path | None, seconds: float | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    began = time.monotonic()

    def show(vendor: str, what: str, detail: str) -> None:
        text = Text.assemble(
            (f"{time.monotonic() - began:8.2f} s  ", "dim"),
            (f"{vendor:<11}", COLOURS[vendor]),
            (f"{what:<10} ", "bold"),
            " ".join(detail.split()),
        )
        console.print(text)

    vendors.watch(show)
    try:
        await vendors.__aenter__()
    except OSError as error:
        console.print(
            f"[red]error:[/red] port {vendors.port}: {error.strerror or error}. Choose another: --port"
        )
        raise typer.Exit(1) from None
    followers = [
        asyncio.create_task(_follow("llm", vendors.llm, lambda: _llm_news(vendors.llm), show)),
        asyncio.create_task(_follow("twilio", vendors.twilio, lambda: _twilio_news(vendors.twilio), show)),
    ]
    try:
        _announce({**vendors.environment, "VOICEFLOW_PUBLIC_URL": agent}, env_file)
        try:
            async with asyncio.timeout(seconds):
                await stopped.wait()
        except TimeoutError:
            pass
    finally:
        for follower in followers:
            follower.cancel()
        await asyncio.wait(followers)
        await vendors.__aexit__(None, None, None)


def _announce(environment: dict[str, str], env_file: Path | None) -> None:
    console.print("[bold]Fake vendors[/bold] - tell your agent, in its own terminal:\n")
    for name, value in environment.items():
        console.print(f"export {name}={value}", markup=False)
    if env_file is not None:
        lines = [MARK, *(f"{name}={value}" for name, value in environment.items())]
        env_file.write_text("\n".join(lines) + "\n")
        console.print(f"\n[dim]The same is in {env_file}.[/dim]")
    console.print("\n[dim]Ctrl-C stops them. What happens:[/dim]")


# -- the two that do not tell by themselves

News = Iterator[tuple[object, str, str]]
"""Records as (an identity, what, detail)."""


class Recording(Protocol):
    async def until(self, condition: Callable[[], object], timeout: float = ...) -> None: ...


async def _follow(
    name: str, fake: Recording, news: Callable[[], News], show: Callable[[str, str, str], None]
) -> None:
    """Shows each record once."""
    seen: deque[object] = deque(maxlen=10 * LATEST)
    while True:
        await fake.until(lambda: any(identity not in seen for identity, _, _ in news()), timeout=1e6)
        for identity, what, detail in news():
            if identity not in seen:
                seen.append(identity)
                show(name, what, detail)


def _llm_news(llm: FakeOpenAI) -> News:
    for connection in llm.connections[-LATEST:]:
        yield ("opened", connection.number), "connected", f"connection {connection.number}"
    for asked in llm.requests[-LATEST:]:
        asking = [message for message in asked.messages if message.get("role") == "user"]
        yield (
            ("asked", id(asked)),
            "prompt",
            str(asking[-1].get("content")) if asking else "(no user message)",
        )
        if asked.how:
            how = "" if asked.how == "finished" else f"  ({asked.how} after {len(asked.sent)} tokens)"
            answer = asked.text or f"HTTP {asked.status}"
            yield ("answered", id(asked)), "answered", answer + how


def _twilio_news(twilio: FakeTwilio) -> News:
    for request in list(twilio.requests)[-LATEST:]:
        if request.method == "GET" and request.status == 200:  # somebody looks how a call is doing
            continue
        path = request.path.rpartition("/")[2]
        yield ("request", id(request)), "request", f"{request.method} {path}: HTTP {request.status}"
    for call in twilio.calls[-LATEST:]:
        for at, status in call.history:
            error = f"  ({call.error})" if call.error and status == call.status else ""
            yield ("call", call.sid, at, status), "call", f"{call.given('To')} {status}{error}"


def run(arguments: list[Any] | None = None) -> None:
    app = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(main)
    app(arguments, prog_name="python -m tests.vendors")


if __name__ == "__main__":
    run()
