"""`python -m tests.vendors.play STORY`: an example pipeline on fake vendors, a whole call, by one command."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer
from rich.console import Console
from rich.markup import escape

from processors.twilio.routes import VOICE
from processors.twilio.simulated.caller import SimulatedCaller, Speech
from tests.vendors import spelled
from tests.vendors.aura import FakeAura
from tests.vendors.elevenlabs import FakeElevenLabs
from tests.vendors.espeak import Espeak, find
from tests.vendors.flux import FakeFlux
from tests.vendors.openai import FakeOpenAI
from tests.vendors.server import DEEPGRAM_KEY, ELEVENLABS_KEY, OPENAI_KEY, Vendors, precise_loop
from tests.vendors.stories import STORIES, Story
from tests.vendors.twilio import FakeTwilio
from voiceflow.audio import decode
from voiceflow.frames import PHONE

LISTENS = 10.0
"""Seconds the caller waits for an answer before the next line."""
PAUSE = 0.8
"""Seconds of silence after which the caller speaks."""
READY = 40.0
"""Seconds the agent may take until it answers calls."""
LONGEST = 120.0
"""Seconds of the whole call."""

console = Console(highlight=False, soft_wrap=True)


def main(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(STORIES)}.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Writes both sides as a WAV, of a call that comes in.", show_default=False),
    ] = None,
    speak: Annotated[
        bool, typer.Option("--espeak/--buzz", help="Voices: espeak-ng if it is installed.")
    ] = True,
) -> None:
    """Plays an example of pipelines/ on fake vendors: no account, no key, real sockets.

      python -m tests.vendors.play appointment_desk --out call.wav

      python -m tests.vendors.play reminder

    The agent is `voiceflow run` or, for a reminder, `voiceflow call`, in a process of its own. What it prints
    is what you would see with real vendors.
    """
    if name not in STORIES:
        console.print(f"[red]error:[/red] there is no story {escape(name)}: {', '.join(STORIES)}")
        raise typer.Exit(2)
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        raise typer.Exit(runner.run(play(STORIES[name], out, find() if speak else None)))


async def play(story: Story, out: Path | None, program: str | None) -> int:
    """Plays it; 0 when it went to its end."""
    espeak = Espeak(program) if program else None
    speeches = []
    for line in story.lines:
        audio = await espeak(line) if espeak else spelled.spell(line)
        speeches.append(Speech(decode(audio, PHONE), PAUSE))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    agent = f"http://127.0.0.1:{port}"
    twilio = FakeTwilio(answers=speeches, line={"patience": 3.0, "listens": LISTENS, "linger": 5.0})
    flux = FakeFlux(
        key=DEEPGRAM_KEY,
        mode="energy" if espeak else "spelled",
        lines=list(story.lines),
        eot_silence=0.6 if espeak else 0.26,
    )
    async with Vendors(
        flux=flux,
        llm=FakeOpenAI(story.model, key=OPENAI_KEY, ttft=0.25, gap=0.02),
        elevenlabs=FakeElevenLabs(key=ELEVENLABS_KEY),
        aura=FakeAura(key=DEEPGRAM_KEY),
        twilio=twilio,
    ) as vendors:
        vendors.elevenlabs.synthesize = vendors.aura.synthesize = espeak
        environment = {**os.environ, **vendors.environment, "VOICEFLOW_PUBLIC_URL": agent}
        if story.parameters:
            given = [
                word for name, value in story.parameters.items() for word in ("--param", f"{name}={value}")
            ]
            await _command(environment, "call", str(story.file), "+12025550143", "--port", str(port), *given)
        else:
            serving = ["run", str(story.file), "--host", "127.0.0.1", "--port", str(port)]
            running = asyncio.create_task(_command(environment, *serving))
            try:
                await _ready(agent)
                caller = SimulatedCaller(
                    agent + VOICE,
                    auth_token=twilio.auth_token,
                    public_url=agent,
                    speeches=speeches,
                    patience=3.0,
                    listens=LISTENS,
                    linger=5.0,
                    longest=LONGEST,
                )
                await caller.run()
                if out is not None:
                    caller.report.write(out)
            finally:
                running.cancel()
                await asyncio.wait({running})
        return _verdict(story, vendors)


def _verdict(story: Story, vendors: Vendors) -> int:
    """Whether the model came to say the last words of the story."""
    said = [request.text for request in vendors.llm.requests]
    good = any(story.ends in text for text in said)
    style, word = ("green", "played to its end") if good else ("red", "it did not come to its end")
    console.print(f"\n[{style}]{word}[/{style}] [dim]({len(said)} requests to the model)[/dim]")
    return 0 if good else 1


async def _ready(agent: str) -> None:
    async with asyncio.timeout(READY), aiohttp.ClientSession() as web:
        while True:
            try:
                async with web.get(f"{agent}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.1)


async def _command(environment: Mapping[str, str], *words: str) -> None:
    """Runs `voiceflow` with these words, until it ends, is cancelled or takes LONGEST."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "voiceflow", *words, env=environment)
    try:
        async with asyncio.timeout(LONGEST):
            await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()


def run(arguments: list[Any] | None = None) -> None:
    app = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(main)
    app(arguments, prog_name="python -m tests.vendors.play")


if __name__ == "__main__":
    run()
