"""The phone agent in pipecat 1.14: Flux, an OpenAI model, ElevenLabs, Twilio's serializer.

Assembled as pipecat's project generator does it for a phone line (`pipecat.cli`, cascade bot): transport,
STT, user aggregator, LLM, TTS, transport, assistant aggregator. Turns are Flux's, by the strategies that
its service recommends, with no VAD beside it. The set-up is "lean": observers, metrics and RTVI are off.

`--rates phone` is 8 kHz both ways, which the generator writes for a phone line. `--rates default` is what a
PipelineWorker does that is not told: 16 kHz in, 24 kHz out, resampled at both ends.

The transport is pipecat's single-client WebSocket server, which needs no web framework and sends from the
same base classes as the one in its documentation (see `pipecat_vad_bot`). It serves one call; then this
process builds the next pipeline, and prints its address again. The stream's id is agreed beforehand.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket

from benchmarks.clear_driver import STREAM_SID
from benchmarks.measure import default_loop, new_loop
from benchmarks.peers.pipecat_session import SETUPS, running

# pipecat_session comes first: it silences the log before pipecat writes its banner.
# isort: split
from pipecat.frames.frames import TTSSpeakFrame
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.services.deepgram.flux.stt import DeepgramFluxSTTService
from pipecat.services.elevenlabs.tts import ElevenLabsTTSService
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.transports.websocket.server import (
    SingleClientWebsocketServerParams,
    SingleClientWebsocketServerTransport,
)

GREETING = "Hi."
INSTRUCTIONS = "You answer the phone. Be brief."
VOICE = "21m00Tcm4TlvDq8ikWAM"


async def serve(port: int, setup: str, sample_rate: int | None) -> None:
    """One call. Prints the address when it can be made."""
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
    stt = DeepgramFluxSTTService(
        api_key=os.environ["DEEPGRAM_API_KEY"], url=os.environ["DEEPGRAM_BASE_URL"] + "/v2/listen"
    )
    llm = OpenAILLMService(
        api_key=os.environ["OPENAI_API_KEY"],
        base_url=os.environ["OPENAI_BASE_URL"],
        settings=OpenAILLMService.Settings(model="gpt-4o-mini", system_instruction=INSTRUCTIONS),
    )
    tts = ElevenLabsTTSService(
        api_key=os.environ["ELEVENLABS_API_KEY"],
        url=os.environ["ELEVENLABS_BASE_URL"],
        settings=ElevenLabsTTSService.Settings(voice=VOICE),
    )
    user, assistant = LLMContextAggregatorPair(LLMContext())
    chain = [transport.input(), stt, user, llm, tts, transport.output(), assistant]
    ready, called, hung_up = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @transport.event_handler("on_websocket_ready")
    async def on_ready(_: object) -> None:
        ready.set()

    @transport.event_handler("on_client_connected")
    async def on_connected(*_: object) -> None:
        called.set()

    @transport.event_handler("on_client_disconnected")
    async def on_disconnected(*_: object) -> None:
        hung_up.set()

    async with running(chain, setup, sample_rate=sample_rate) as worker:
        await ready.wait()
        print(f"ws://127.0.0.1:{port}/", flush=True)
        await called.wait()
        await worker.queue_frames([TTSSpeakFrame(GREETING)])
        await hung_up.wait()


async def serve_all(setup: str, sample_rate: int | None) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    while True:
        await serve(port, setup, sample_rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", choices=["phone", "default"], default="phone")
    parser.add_argument("--setup", choices=list(SETUPS), default="lean")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=lambda: new_loop(options.loop)) as runner:
        runner.run(serve_all(options.setup, 8000 if options.rates == "phone" else None))


if __name__ == "__main__":
    main()
