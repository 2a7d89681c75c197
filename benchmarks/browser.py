"""The browser's line in a real Chromium on this machine: how soon it talks, and how soon it is silent.

    talk_to_first_frame_ms    from the button being pressed until 20 ms of the microphone are in the chain
    clear_to_silence_ms       from `clear` arriving at the page until its loudspeaker is silent, by the clock
                              of the samples that it plays (AudioContext.getOutputTimestamp)

The microphone is Chromium's fake one, permitted beforehand, and its loudspeaker has no device: so neither has
the latency of hardware or drivers in it. Prints one JSON document; needs Chromium (VOICEFLOW_CHROMIUM names
one).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.chain import finish, target
from benchmarks.measure import default_loop, new_loop, summary
from processors.browser.access import Access
from processors.browser.codec import WIDEBAND
from processors.browser.routes import BrowserRoutes
from voiceflow.audio import encode
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.frames import AudioIn, AudioOut, Prompt, ReplyEnd
from voiceflow.server.listener import Listener
from voiceflow.server.server import Server

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "browser"))
from chromium import Chromium, Page, usable

FIRST_FRAME_AT_MOST_MS = 500.0
SILENCE_AT_MOST_MS = 100.0
EVERY = 60
"""Packets of 20 ms between two interruptions."""
TONE = encode((8000 * np.sin(np.arange(1600) * 2 * np.pi * 0.025)).astype(np.int16), WIDEBAND)


class Impatient(Processor):
    """Interrupts the agent again and again, whatever it hears."""

    needs = (AudioIn,)
    takes_turns = True

    def __init__(self) -> None:
        self.packets = 0
        self.first = 0.0

    @tap(AudioIn)
    def hear(self, frame: AudioIn) -> None:
        self.first = self.first or time.time()
        if self.packets % EVERY == 0:
            self.turns.started()
            self.turns.ended("go on")
        self.packets += 1


class Babble(Processor):
    """Speaks without end."""

    emits = (AudioOut, ReplyEnd)

    @on(Prompt)
    async def babble(self, prompt: Prompt) -> AsyncIterator[AudioOut | ReplyEnd]:
        for number in itertools.count():
            yield AudioOut(TONE, f"Word{number}.")
            await asyncio.sleep(0.05)
        yield ReplyEnd()


async def measure(talks: int, clears: int) -> dict[str, Any]:
    ears: list[Impatient] = []

    def make(call: Call) -> Pipeline:
        ears.append(Impatient())
        return Pipeline(call.source(), ears[-1], Babble(), call.sink())

    first: list[float] = []
    silent: list[float] = []
    underruns = 0
    server = Server(SimpleNamespace(make=make))
    routes = BrowserRoutes(server, Access())
    async with (
        Listener(server, routes.routes(), host="127.0.0.1", port=0) as listener,
        Chromium() as chromium,
    ):
        page = await chromium.open(listener.url + "/")
        for _ in range(talks):
            await page.until("document.body.dataset.state === 'idle'")
            figures = await one(page, clears)
            first.append(ears[-1].first - figures["pressed"] / 1000)
            silent += [ms / 1000 for ms in figures["clears"]]
            underruns += figures["underruns"]
    await routes.close()
    frame, silence = summary(first), summary(silent)
    return {
        "benchmark": "browser",
        "talk_to_first_frame_ms": frame,
        "clear_to_silence_ms": silence,
        "underruns": underruns,
        "targets": [
            target("talk to first frame, median", frame.get("median"), FIRST_FRAME_AT_MOST_MS, "ms"),
            target("clear to silence, p99", silence.get("p99"), SILENCE_AT_MOST_MS, "ms"),
        ],
    }


async def one(page: Page, clears: int) -> dict[str, Any]:
    """One talk, until it was interrupted so many times."""
    await page.click("#talk")
    await page.until("document.body.dataset.state === 'talking'")
    await page.until(f"window.voiceflow.figures.clears.length >= {clears}", timeout=60)
    figures: dict[str, Any] = await page.run("window.voiceflow.figures")
    await page.press("Escape")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--talks", type=int, default=20)
    parser.add_argument("--clears", type=int, default=5, help="in each talk")
    options = parser.parse_args()
    if not usable():
        parser.exit(
            1, "there is no Chromium: apt-get install chromium, or name one with VOICEFLOW_CHROMIUM\n"
        )
    with asyncio.Runner(loop_factory=lambda: new_loop(default_loop())) as runner:
        finish(runner.run(measure(options.talks, options.clears)))


if __name__ == "__main__":
    main()
