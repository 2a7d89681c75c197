"""`python -m tests.vendors`: all fake vendors, to try an agent by hand without an account."""

from __future__ import annotations

import asyncio
import shlex
import signal
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.markup import escape

from processors.twilio.simulated.caller import Speech
from tests.vendors.aura import FakeAura
from tests.vendors.completions import Scripted
from tests.vendors.elevenlabs import FakeElevenLabs
from tests.vendors.espeak import Espeak, find
from tests.vendors.flux import FakeFlux
from tests.vendors.news import following
from tests.vendors.openai import FakeOpenAI
from tests.vendors.server import DEEPGRAM_KEY, ELEVENLABS_KEY, OPENAI_KEY, Vendors, precise_loop
from tests.vendors.twilio import FakeTwilio
from voiceflow.assets import speech
from voiceflow.audio import read_wav

ROOT = Path(__file__).resolve().parents[2]
MARK = "# Written by python -m tests.vendors: addresses and keys of fakes on this machine."
EOT_SILENCE = 0.6
"""Seconds: people pause within a sentence, and the fake does not understand what they say."""

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


def _url(agent: str) -> str:
    try:
        parts = urlsplit(agent)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        good = False
    if not good:
        raise typer.BadParameter("it is a URL, like http://127.0.0.1:8080")
    return agent


def main(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 9100,
    env_file: Annotated[
        Path | None, typer.Option(help="Writes the variables there too, as a .env file.", show_default=False)
    ] = None,
    agent: Annotated[
        str, typer.Option(help="Where your agent will listen.", callback=_url)
    ] = "http://127.0.0.1:8080",
    line: Annotated[
        list[str] | None,
        typer.Option(help="What Flux takes the caller's next speech for. May be given again."),
    ] = None,
    reply: Annotated[
        list[str] | None,
        typer.Option(
            help='What the model answers next: a text, or a tool, as [b]book({"day": "2026-11-23"})[/b], or '
            "both. May be given again."
        ),
    ] = None,
    spelled: Annotated[
        bool, typer.Option("--spelled", help="Flux reads spelled audio, as tests send it, not any voice.")
    ] = False,
    speak: Annotated[
        bool, typer.Option("--espeak/--buzz", help="The agent's voice: espeak-ng if it is installed.")
    ] = True,
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

    [dim]In one terminal, then in two others, in the same folder:[/dim]

      python -m tests.vendors --env-file .env

      voiceflow run pipelines/phone_agent.py --host 127.0.0.1

      voiceflow dial http://127.0.0.1:8080 --speech voiceflow/assets/speech/three_cards.wav --out call.wav

    The fakes' TWILIO_AUTH_TOKEN is no secret, and with one [b]run[/b] listens on all addresses: hence --host.

    [dim]A slow model, and what is said:[/dim]

      python -m tests.vendors --first-token 900 --gap 60 --line "Are you open?" --reply "Until six."

      python -m tests.vendors --reply 'Let me see. opening_hours({"day": "2026-11-23"})' --reply "Until six."

    Any voice will do for the caller: Flux does not understand it, but takes it for the next line.

    Without espeak-ng the agent's voice is a buzz that spells its text.

    [b]voiceflow call[/b] works too: a recorded person picks up.
    """
    if env_file is not None and (wrong := _unusable(env_file)):
        console.print(f"[red]error:[/red] {escape(str(env_file))} {wrong}")
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
            Scripted(reply or REPLIES),
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
    if speak and (program := find()):
        vendors.elevenlabs.synthesize = vendors.aura.synthesize = Espeak(program)
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(_serve(vendors, agent, env_file, seconds))


async def _serve(vendors: Vendors, agent: str, env_file: Path | None, seconds: float | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    try:
        await vendors.__aenter__()
    except OSError as error:
        console.print(
            f"[red]error:[/red] port {vendors.port}: {error.strerror or error}. Choose another: --port"
        )
        raise typer.Exit(1) from None
    try:
        _announce(vendors, agent, env_file)
        async with following(vendors, console):
            try:
                async with asyncio.timeout(seconds):
                    await stopped.wait()
            except TimeoutError:
                pass
    finally:
        await vendors.__aexit__(None, None, None)
    if env_file is not None:
        console.print(f"[dim]Stopped. {escape(str(env_file))} still names them: remove it.[/dim]")


def _announce(vendors: Vendors, agent: str, env_file: Path | None) -> None:
    environment = {**vendors.environment, "VOICEFLOW_PUBLIC_URL": agent}
    console.print("[bold]Fake vendors[/bold] - type this in each terminal that voiceflow runs in:\n")
    for name, value in environment.items():
        console.print(f"export {name}={value}", markup=False)
    if env_file is not None:
        lines = [MARK, *(f"{name}={value}" for name, value in environment.items())]
        try:
            env_file.write_text("\n".join(lines) + "\n")
        except OSError as error:
            console.print(f"\n[red]error:[/red] {escape(str(env_file))}: {error.strerror or error}")
            raise typer.Exit(1) from None
        read = ": voiceflow started in that folder reads it" if env_file.name == ".env" else ""
        console.print(f"\nThe same is in {escape(str(env_file))}{read}.")
    console.print("\n[bold]Then[/bold], in two terminals:\n")
    for command in _commands(agent, env_file):
        console.print(f"  {command}", markup=False)
    console.print(f"\n{_voice(vendors)}")
    console.print("\n[dim]Ctrl-C stops them. What happens, in seconds from now:[/dim]")


def _commands(agent: str, env_file: Path | None) -> list[str]:
    """What to type next. With the fakes' token, which everybody knows, an agent must not listen on all
    addresses, as it does with a token of yours."""
    here, port = Path.cwd(), str(urlsplit(agent).port or 8080)
    home = env_file.resolve().parent if env_file is not None and env_file.name == ".env" else here
    files = (ROOT / "pipelines/phone_agent.py", speech("three_cards"), speech("ten_of_clubs"))
    pipeline, *said = (str(path.relative_to(home) if path.is_relative_to(home) else path) for path in files)
    run_it = ["voiceflow", "run", pipeline, "--host", "127.0.0.1", "--port", port]
    dial = ["voiceflow", "dial", f"http://127.0.0.1:{port}"]
    for path in said:
        dial += ["--speech", path]
    commands = [run_it, [*dial, "--out", "call.wav"]]
    return [shlex.join(words) for words in ([["cd", str(home)]] if home != here else []) + commands]


def _voice(vendors: Vendors) -> str:
    if vendors.elevenlabs.synthesize is not None:
        return "The agent speaks with espeak-ng."
    why = "" if find() else ": espeak-ng is not installed"
    return f"The agent's voice is a buzz that spells its text{why}."


def _unusable(env_file: Path) -> str:
    """Why the variables cannot be written there; empty when they can."""
    if not env_file.parent.is_dir():
        return f"cannot be written: there is no folder {env_file.parent}"
    try:
        ours = not env_file.exists() or MARK in env_file.read_text(errors="replace")
    except OSError as error:
        return f"cannot be written: {error.strerror or error}"
    return "" if ours else "was not written by this: give another name"


def run(arguments: list[Any] | None = None) -> None:
    app = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(main)
    app(arguments, prog_name="python -m tests.vendors")


if __name__ == "__main__":
    run()
