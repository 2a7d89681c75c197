"""A VAD-only phone bot in pipecat 1.14, and the time from Silero's decision to Twilio's `clear` on the wire.

The bot, in a process of its own: pipecat's single-client WebSocket server transport with its Twilio
serializer, 8 kHz throughout; `VADProcessor` with Silero; `UserTurnProcessor` with the VAD start strategy
(pipecat's own way to interrupt); a processor that plays 5 s of tone when the caller stops; the transport's
output. pipecat's documentation shows Twilio with its FastAPI transport; this one is built on the same base
classes, sends `clear` from the same place and needs no web framework. It does not read the `start` message,
so the stream's id is agreed beforehand.

The caller is `benchmarks.precise`, in this process. Which message completes the decision comes from
pipecat's own `SileroVADAnalyzer` over the same audio beforehand: it counts windows of audio, not the clock,
so it decides the same. The VAD's parameters are pipecat's defaults: confidence 0.7, start 0.2 s, stop 0.2
s, minimum volume 0.6.

In the time measured: the loopback, the bot's waking up, the WebSocket library, JSON and mu-law decoding, the
hops to the VAD, Silero on its thread (and the loudness measure that pipecat 1.14 takes with it), the turn's
start, the interruption through the rest of the chain, and the write of `clear`; not
the driver's own waking up, which is small (`benchmarks.precise`).

`--serve PORT` runs the bot alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import socket
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from benchmarks.clear_driver import RATE, STREAM_SID, Wire, caller_audio, report
from benchmarks.measure import default_loop, emit, environment, new_loop, noise
from benchmarks.peers.pipecat_session import SETUPS, Pass, peer, running
from benchmarks.precise import drive_precisely

# pipecat_session comes first: it silences the log before pipecat writes its banner.
# isort: split
from pipecat.audio.utils import create_stream_resampler, ulaw_to_pcm
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams, VADState
from pipecat.frames.frames import Frame, TTSAudioRawFrame, UserStoppedSpeakingFrame
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.server import (
    SingleClientWebsocketServerParams,
    SingleClientWebsocketServerTransport,
)
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_processor import UserTurnProcessor
from pipecat.turns.user_turn_strategies import UserTurnStrategies

ROOT = Path(__file__).resolve().parents[2]
READY = b"ready\n"
START_DEADLINE = 30.0
STOP_DEADLINE = 10.0
TONE = b"".join(
    struct.pack("<h", round(8000 * math.sin(2 * math.pi * 440 * number / RATE))) for number in range(5 * RATE)
)


class Answer(Pass):
    """Plays the tone when the caller stops."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, UserStoppedSpeakingFrame) and direction is FrameDirection.DOWNSTREAM:
            await self.push_frame(TTSAudioRawFrame(audio=TONE, sample_rate=RATE, num_channels=1))


async def serve(port: int, setup: str) -> None:
    """Run the bot on 127.0.0.1 until its one caller hangs up; prints "ready" when it listens."""
    serializer = TwilioFrameSerializer(
        STREAM_SID, params=TwilioFrameSerializer.InputParams(auto_hang_up=False)
    )
    transport = SingleClientWebsocketServerTransport(
        SingleClientWebsocketServerParams(
            serializer=serializer, audio_in_enabled=True, audio_out_enabled=True
        ),
        host="127.0.0.1",
        port=port,
    )
    hung_up = asyncio.Event()

    @transport.event_handler("on_websocket_ready")
    async def on_ready(_: object) -> None:
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()

    @transport.event_handler("on_client_disconnected")
    async def on_disconnected(*_: object) -> None:
        hung_up.set()

    turns = UserTurnProcessor(
        user_turn_strategies=UserTurnStrategies(
            start=[VADUserTurnStartStrategy()],
            stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=0.0, wait_for_transcript=False)],
        )
    )
    vad = VADProcessor(vad_analyzer=SileroVADAnalyzer(sample_rate=RATE))
    async with running([transport.input(), vad, turns, Answer(), transport.output()], setup):
        await hung_up.wait()


async def decisions(payloads: list[bytes]) -> list[int]:
    """Indices of the messages on which pipecat's Silero decides that the caller has begun to speak."""
    analyzer = SileroVADAnalyzer(sample_rate=RATE)
    analyzer.set_sample_rate(RATE)
    resampler = create_stream_resampler()
    found: list[int] = []
    speaking = False
    for index, payload in enumerate(payloads):
        state = await analyzer.analyze_audio(await ulaw_to_pcm(payload, RATE, RATE, resampler))
        if state is VADState.SPEAKING and not speaking:
            found.append(index)
            speaking = True
        elif state is VADState.QUIET:
            speaking = False
    await analyzer.cleanup()
    return found


def run(rounds: int = 30, setups: tuple[str, ...] = ("lean",), loop: str | None = None) -> dict[str, Any]:
    """`rounds` barge-ins over a real socket in real time, as a dict for JSON. 1.1 s a round, 37 s in all.

    `loop` is the bot's event loop, "asyncio" or "uvloop" (default: uvloop if there).
    """
    loop = loop or default_loop()
    payloads = caller_audio(rounds)
    deciding = asyncio.run(decisions(payloads))
    result: dict[str, Any] = {
        "benchmark": "vad_to_clear",
        "peer": peer(),
        "event_loop": loop,
        "rounds": rounds,
        "vad": VADParams().model_dump(),
        "setups": {},
    }
    for setup in setups:
        wire = asyncio.run(_call_bot(payloads, setup, loop))
        result["setups"][setup] = report(wire, deciding)
    return result


async def _call_bot(payloads: list[bytes], setup: str, loop: str) -> Wire:
    async with _bot(setup, loop) as url:
        return await asyncio.to_thread(drive_precisely, url, payloads)


@contextlib.asynccontextmanager
async def _bot(setup: str, loop: str) -> AsyncIterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--serve", str(port), "--setup", setup, "--loop", loop]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.peers.pipecat_vad_bot",
        *options,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_DEADLINE):
            line = await process.stdout.readline()
        if line != READY:
            raise RuntimeError(f"the bot did not start: {line!r}")
        yield f"ws://127.0.0.1:{port}/"
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_DEADLINE):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--setup", choices=list(SETUPS), default="lean")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    parser.add_argument("--serve", type=int, metavar="PORT", help="run the bot alone on 127.0.0.1")
    options = parser.parse_args()
    if options.serve is not None:
        with asyncio.Runner(loop_factory=lambda: new_loop(options.loop)) as runner:
            runner.run(serve(options.serve, options.setup))
        return
    result = run(options.rounds, (options.setup,), options.loop)
    emit({**result, "environment": environment(options.loop), "noise": noise(options.loop)})


if __name__ == "__main__":
    main()
