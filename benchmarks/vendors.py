"""The vendors of the phone-agent benchmarks: the fakes of tests/vendors, in a process of their own.

Flux, the language model and ElevenLabs on one port of 127.0.0.1, with fixed delays, on an event loop whose
timers are late by 0.2 ms and not by a millisecond. `Fakes` starts that process and sets the delays;
`records` says what the vendors were sent, when, and when they answered. All times are seconds of the
machine's monotonic clock, which on Linux is also `time.perf_counter` of every other process: a moment in
the bot's life is known from both ends of its sockets.

Flux hears by loudness (the caller's voice here is a tone), so it can listen at any sample rate. It decides
on audio time, in steps of 10 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.vendors.elevenlabs import FORMATS, FakeElevenLabs
from tests.vendors.flux import FakeFlux
from tests.vendors.openai import Answer, Completion, FakeOpenAI, ToolCall
from tests.vendors.server import DEEPGRAM_KEY, ELEVENLABS_KEY, OPENAI_KEY, Serving, precise_loop
from voiceflow.frames import AudioFormat

ROOT = Path(__file__).resolve().parents[1]
START_DEADLINE = 30.0
STOP_DEADLINE = 10.0
SAID = "This is what the caller has said."


@dataclass(slots=True, frozen=True)
class Delays:
    """Seconds. `silence` is audio: what Flux waits for before it calls a turn over, and `eager` before it
    says that it may be, to who has asked for that; `end` is what the end takes beyond `flux`. `pace` is how
    many times faster than real time the voice comes, `tts_handshake` and `llm_handshake` what a new
    connection costs."""

    silence: float = 0.24
    eager: float = 0.24
    flux: float = 0.05
    end: float = 0.0
    first_token: float = 0.1
    gap: float = 0.01
    voice: float = 0.075
    pace: float = math.inf
    tts_handshake: float = 0.0
    llm_handshake: float = 0.0
    reply: tuple[str, ...] = ("I", " do", ".", " OK", "?")
    """The model's tokens: two sentences, so that whoever waits for what follows the first has to wait."""
    half: tuple[str, ...] = ()
    """Those with which it answers half a turn, when they are others."""
    tool: str = ""
    """The tool that the model calls, without a word, before it answers; empty: none."""

    @property
    def sentence(self) -> int:
        """Tokens up to the end of the first sentence."""
        return next(number for number, token in enumerate(self.reply, 1) if token[-1] in ".!?")

    @property
    def floor(self) -> float:
        """From the packet that completes the silence to the first audio, if everything else took no time."""
        return self.flux + self.first_token + (self.sentence - 1) * self.gap + self.voice


class Desk:
    """What the benchmarks ask of the fakes, beside their own routes."""

    def __init__(self, flux: FakeFlux, llm: FakeOpenAI, voice: FakeElevenLabs) -> None:
        self._flux, self._llm, self._voice = flux, llm, voice

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/bench/delays", self._delays), web.get("/bench/records", self._records)]

    async def _delays(self, request: web.Request) -> web.Response:
        delays = Delays(**await request.json())
        self._flux.eot_silence, self._flux.delay = delays.silence, delays.flux
        self._flux.eager_silence, self._flux.end_delay = delays.eager, delays.end
        self._llm.ttft, self._llm.gap = delays.first_token, delays.gap
        self._llm.reply = lambda messages: _answer(delays, messages)
        self._llm.handshake = delays.llm_handshake
        self._voice.delay, self._voice.pace = delays.voice, float(delays.pace)
        self._voice.handshake = delays.tts_handshake
        return web.Response()

    async def _records(self, request: web.Request) -> web.Response:
        since = float(request.query["since"])
        flux, llm, voice = self._flux, self._llm, self._voice
        turns = [
            {"at": sent.at, "due": sent.due, "event": sent.message["event"]}
            for sent in flux.log
            if sent.at >= since and isinstance(sent.message, dict) and "event" in sent.message
        ]
        chunks = [chunk for session in flux.sessions for chunk in session.chunks if chunk[0] >= since]
        body = {
            "turns": [turn for turn in turns if turn["event"] != "Update"],
            "chunks": chunks,
            "asked": [_asked(asked) for asked in llm.requests if asked.arrived >= since],
            "texts": [text for asked in voice.connections for text in _texts(asked.received, since)],
            "spoken": [
                {"opened": spoken.opened, "first": spoken.first_audio, "closed": spoken.closed}
                for spoken in voice.log
                if spoken.opened >= since
            ],
            "dialled": {
                "flux": [asked.at for asked in flux.connections if asked.at >= since],
                "llm": [each.opened for each in llm.connections if each.opened >= since],
                "tts": [asked.at for asked in voice.connections if asked.at >= since],
            },
            "wrongs": [what for fake in (flux, voice) for at, what in fake.wrongs if at >= since],
        }
        return web.json_response(body)


def _answer(delays: Delays, messages: list[dict[str, Any]]) -> Answer:
    if delays.tool and messages[-1]["role"] != "tool":
        return [ToolCall(delays.tool, '{"day": "Monday"}')]
    if delays.half and messages[-1]["content"] == SAID:  # of a turn with a pause, half
        return delays.half
    return delays.reply


def _asked(asked: Completion) -> dict[str, Any]:
    return {
        "arrived": asked.arrived,
        "messages": [message.get("content") or "" for message in asked.messages],
        "tokens": [at for at, _ in asked.sent],
        "how": asked.how,
        "ended": asked.ended,
        "opened": asked.connection.opened,
    }


def _texts(received: list[tuple[float, str | bytes]], since: float) -> list[float]:
    """When text to be spoken came: not the blank that opens a context, nor what flushes or closes it."""
    return [at for at, message in received if at >= since and json.loads(message).get("text", "").strip()]


async def serve() -> None:
    """Serves until SIGTERM. stdout has one line: the URL."""
    FORMATS["pcm_24000"] = AudioFormat("pcm16", 24_000)  # what pipecat asks for by default
    flux = FakeFlux(mode="energy", lines=[SAID], key=DEEPGRAM_KEY)
    llm = FakeOpenAI(key=OPENAI_KEY)
    # Closing a context right after its flush silences the real service now and then, and pipecat 1.14 does
    # that at the end of every answer. Here it never does: there would be nothing to measure.
    voice = FakeElevenLabs(key=ELEVENLABS_KEY, chunk=0.1, flush_race=0.0)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with _Serving(flux, llm, voice, Desk(flux, llm, voice)) as serving:
        print(serving.url, flush=True)
        await stopped.wait()


class _Serving(Serving):
    def _started(self, runner: web.AppRunner) -> None:
        for fake in self.fakes:
            if isinstance(fake, FakeOpenAI) and runner.server is not None:
                fake.watch(runner.server)  # so that connections count from their TCP handshake


class Fakes:
    """The process, from outside: `with Fakes() as fakes`. RuntimeError when it does not start in 30 s."""

    def __init__(self) -> None:
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.vendors"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError("the fake vendors did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def environment(self) -> dict[str, str]:
        """What a bot's process has to be told."""
        web_socket = self.url.replace("http://", "ws://")
        return {
            **os.environ,
            "DEEPGRAM_BASE_URL": web_socket,
            "DEEPGRAM_API_KEY": DEEPGRAM_KEY,
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_KEY": OPENAI_KEY,
            "ELEVENLABS_BASE_URL": web_socket,
            "ELEVENLABS_API_KEY": ELEVENLABS_KEY,
        }

    def set(self, delays: Delays) -> None:
        """For everything that begins from now on."""
        self._ask("POST", "/bench/delays", json.dumps(asdict(delays)))

    def records(self, since: float) -> dict[str, Any]:
        """What happened since that time of the monotonic clock."""
        found: dict[str, Any] = json.loads(self._ask("GET", f"/bench/records?since={since!r}"))
        return found

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=START_DEADLINE)
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"{path}: HTTP {answer.status}")
            return answer.read()
        finally:
            connection.close()


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
