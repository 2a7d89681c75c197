"""A phone agent without any framework: one file, as one would write it after reading how such agents work.

aiohttp takes Twilio's stream and reads the model's tokens; `websockets` holds a connection to Flux and one
to ElevenLabs for as long as the call lasts. Flux's EndOfTurn starts a request to the model; a token that
ends in ".", "!" or "?" completes a sentence, which goes to the voice at once; what the voice says goes to
the caller as it comes. StartOfTurn cancels all of it.

It is what the frameworks are compared with, so it is quick and does nothing more than that: no pacing and
no marks (Twilio buffers), no ledger of what was heard, no timeouts, no second try, nothing about "3.50" or
"Dr.", no metrics. The first connection that breaks ends the call.

`python -m benchmarks.peers.bare_bot` prints its URL; vendors' addresses and keys come from the environment.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import signal
from typing import Any

import aiohttp
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.measure import default_loop, new_loop

GREETING = "Hi."
INSTRUCTIONS = "You answer the phone. Be brief."
CHUNK = 640
"""Bytes: the 80 ms that Deepgram advises to send at a time."""
FLUX = "/v2/listen?model=flux-general-en&encoding=mulaw&sample_rate=8000"
VOICE = (
    "/v1/text-to-speech/21m00Tcm4TlvDq8ikWAM/multi-stream-input?model_id=eleven_flash_v2_5"
    "&output_format=ulaw_8000&auto_mode=true&inactivity_timeout=180"
)


class Agent:
    """One call."""

    def __init__(
        self,
        twilio: web.WebSocketResponse,
        flux: ClientConnection,
        voice: ClientConnection,
        http: aiohttp.ClientSession,
    ) -> None:
        self.twilio, self.flux, self.voice, self.http = twilio, flux, voice, http
        self.sid = ""
        self.history: list[dict[str, str]] = [{"role": "system", "content": INSTRUCTIONS}]
        self.reply: asyncio.Task[None] | None = None
        self.context = ""
        """The ElevenLabs context whose audio the caller is to hear."""
        self.contexts = 0

    async def run(self) -> None:
        ears, mouth = asyncio.create_task(self.listen()), asyncio.create_task(self.speak())
        try:
            await self.hear()
        finally:
            for task in (ears, mouth, *([self.reply] if self.reply else [])):
                task.cancel()

    async def hear(self) -> None:
        """Twilio's audio to Flux."""
        audio = bytearray()
        async for message in self.twilio:
            event = json.loads(message.data)
            match event["event"]:
                case "start":
                    self.sid = event["streamSid"]
                    await self.open_context()
                    await self.say(GREETING)
                    await self.close_context()
                case "media":
                    audio += base64.b64decode(event["media"]["payload"])
                    if len(audio) >= CHUNK:
                        await self.flux.send(bytes(audio))
                        audio.clear()
                case "stop":
                    return

    async def listen(self) -> None:
        """Flux's word on whose turn it is."""
        async for message in self.flux:
            event = json.loads(message)
            match event.get("event"):
                case "StartOfTurn":
                    await self.interrupt()
                case "EndOfTurn":
                    self.reply = asyncio.create_task(self.answer(event["transcript"]))

    async def interrupt(self) -> None:
        cut, self.context = self.context, ""
        answering = self.reply is not None and self.reply.cancel()
        await self.twilio.send_str(json.dumps({"event": "clear", "streamSid": self.sid}))
        if answering:
            await self.voice.send(json.dumps({"context_id": cut, "close_context": True}))

    async def answer(self, text: str) -> None:
        """The model's tokens to the voice, sentence by sentence."""
        self.history.append({"role": "user", "content": text})
        body: dict[str, Any] = {"model": "gpt-4o-mini", "messages": self.history, "stream": True}
        url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
        await self.open_context()
        said = sentence = ""
        async with self.http.post(url, json=body) as response:
            async for line in response.content:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                choices = json.loads(line[6:])["choices"]
                token = choices[0]["delta"].get("content") if choices else None
                if token:
                    sentence += token
                    if token[-1] in ".!?":
                        await self.say(sentence)
                        said, sentence = said + sentence, ""
        if sentence:
            await self.say(sentence)
        self.history.append({"role": "assistant", "content": said + sentence})
        await self.close_context()

    async def open_context(self) -> None:
        self.contexts += 1
        self.context = f"c{self.contexts}"
        await self.voice.send(json.dumps({"text": " ", "context_id": self.context}))

    async def say(self, sentence: str) -> None:
        await self.voice.send(json.dumps({"text": sentence.strip() + " ", "context_id": self.context}))

    async def close_context(self) -> None:
        """No more text: the voice says what it has, and is done."""
        await self.voice.send(json.dumps({"context_id": self.context, "flush": True}))
        await asyncio.sleep(0.05)  # closed right after a flush, a context is sometimes silent
        await self.voice.send(json.dumps({"context_id": self.context, "close_context": True}))

    async def speak(self) -> None:
        """The voice's audio to Twilio."""
        async for message in self.voice:
            event = json.loads(message)
            if event.get("audio") and event.get("contextId") == self.context:
                media = {"event": "media", "streamSid": self.sid, "media": {"payload": event["audio"]}}
                await self.twilio.send_str(json.dumps(media))


async def handle(request: web.Request) -> web.StreamResponse:
    twilio = web.WebSocketResponse(compress=False)
    await twilio.prepare(request)
    async with (
        connect(
            os.environ["DEEPGRAM_BASE_URL"] + FLUX,
            additional_headers={"Authorization": f"Token {os.environ['DEEPGRAM_API_KEY']}"},
            compression=None,
            proxy=None,
        ) as flux,
        connect(
            os.environ["ELEVENLABS_BASE_URL"] + VOICE,
            additional_headers={"xi-api-key": os.environ["ELEVENLABS_API_KEY"]},
            compression=None,
            proxy=None,
            max_size=None,
        ) as voice,
    ):
        await Agent(twilio, flux, voice, request.app[HTTP]).run()
    return twilio


HTTP = web.AppKey("http", aiohttp.ClientSession)


async def serve() -> None:
    """Serves on a free port of 127.0.0.1 until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    async with aiohttp.ClientSession(
        headers=headers, connector=aiohttp.TCPConnector(keepalive_timeout=300)
    ) as http:
        app = web.Application()
        app[HTTP] = http
        app.add_routes([web.get("/", handle)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(f"ws://127.0.0.1:{runner.addresses[0][1]}/", flush=True)
        await stopped.wait()
        await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=lambda: new_loop(options.loop)) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
