"""A caller over a real socket that times `clear`: the same work for voiceflow and for its peers.

It speaks Twilio Media Streams as Twilio does: `connected`, `start`, then one 160-byte mu-law `media`
message every 20 ms by absolute deadlines, `stop` at the end. Its caller talks for 0.5 s and is quiet for
0.6 s, again and again; the agent is expected to speak in the quiet and to be cut off when the caller talks.
Which message completes the VAD's decision is for the measured side to say (`decisions`), by running its own
VAD over the same audio beforehand: the audio, the windows and so the decision are the same in every run.

The time runs from just before the deciding message is given to the socket until `clear` has been read from
it.

The voice is made here: a gliding pulse train of 120 Hz through the three formants of an open vowel. Silero
(the 8 kHz model in pipecat 1.14) gives it a median probability of 0.97 and the quiet 0.01, and its onset is
known to the sample. Each round is shifted by 96 samples against Silero's windows of 256, so that every
alignment of message and window occurs within 8 rounds.

`mark` messages are not answered: nothing here plays audio.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import random
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.measure import summary

RATE = 8000
FRAME = 160
FRAME_SECONDS = FRAME / RATE
TALK_FRAMES = 25
QUIET_FRAMES = 30
ROUND_FRAMES = TALK_FRAMES + QUIET_FRAMES
STREAM_SID = "MZ00000000000000000000000000000001"
CALL_SID = "CA00000000000000000000000000000001"
FORMANTS = ((700.0, 110.0), (1220.0, 120.0), (2600.0, 160.0))  # centre and bandwidth in Hz
# The caller talks on for longer than this after the decision, so what an agent says within it is left over.
GHOST_SECONDS = 0.15
# A `clear` later than this after a decision answers something else.
PARTNER_SECONDS = TALK_FRAMES * FRAME_SECONDS
GRACE_SECONDS = 0.5
CONNECT_DEADLINE = 10.0


@dataclass
class Wire:
    """What went over the socket, in seconds of `perf_counter`. `sent_at` has one entry a media message."""

    sent_at: list[float] = field(default_factory=list)
    cleared_at: list[float] = field(default_factory=list)
    media_at: list[float] = field(default_factory=list)
    media_seconds: float = 0.0


def caller_audio(rounds: int) -> list[bytes]:
    """Mu-law payloads of 160 bytes: quiet, then `rounds` times talk and quiet. The same in every run."""
    noise = random.Random(1)
    quiet = bytes(_mulaw(round(noise.gauss(0, 10))) for _ in range(QUIET_FRAMES * FRAME))
    talk = bytes(_mulaw(sample) for sample in _vowel(TALK_FRAMES * FRAME))
    audio = quiet + (talk + quiet) * rounds
    return [audio[at : at + FRAME] for at in range(0, len(audio), FRAME)]


def talk_begins(round_number: int) -> int:
    """Index of the first message of that round's talk, from 0."""
    return QUIET_FRAMES + round_number * ROUND_FRAMES


async def drive(url: str, payloads: list[bytes], *, start: dict[str, Any] | None = None) -> Wire:
    """Send `payloads` to the media WebSocket at `url` in real time and note when what came back.

    `start` replaces fields of the `start` message's body (streamSid, callSid, customParameters). Raises
    aiohttp.ClientError or TimeoutError when the socket cannot be opened, ConnectionError when the far side
    closes it before the end.
    """
    wire = Wire()
    async with aiohttp.ClientSession() as session:
        async with asyncio.timeout(CONNECT_DEADLINE):
            socket = await session.ws_connect(url, max_msg_size=1 << 20)
        reader = asyncio.create_task(_read(socket, wire))
        try:
            await _send_call(socket, payloads, wire, reader, start or {})
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await socket.close()
    return wire


def report(wire: Wire, decisions: list[int]) -> dict[str, Any]:
    """Latency from each deciding message to the `clear` after it.

    `decisions`: message indices, one a round, rising. A `clear` belongs to the last decision, at most 0.5 s
    before it; what has no partner is counted (`missing`, `unexpected`), never guessed at. `onset_delay_ms`
    is the audio from the start of the talk to the end of the deciding message: the VAD's own delay, which
    no engine can take away.
    """
    waiting: dict[int, float] = {index: wire.sent_at[index] for index in decisions}
    latencies: list[float] = []
    unexpected = 0
    for cleared in wire.cleared_at:
        before = [index for index, sent in waiting.items() if sent <= cleared]
        if not before or cleared - waiting[before[-1]] > PARTNER_SECONDS:
            unexpected += 1
            continue
        latencies.append(cleared - waiting.pop(before[-1]))
    onsets = [(index + 1 - talk_begins(_round(index))) * FRAME_SECONDS for index in decisions]
    ghosts = [
        sum(cleared < at < cleared + GHOST_SECONDS for at in wire.media_at) for cleared in wire.cleared_at
    ]
    return {
        "decision_to_clear_ms": summary(latencies),
        "onset_delay_ms": summary(onsets),
        "decisions": len(decisions),
        "missing": len(waiting),
        "unexpected": unexpected,
        "clears_followed_by_media": sum(count > 0 for count in ghosts),
        "agent_audio_s": round(wire.media_seconds, 2),
        "pacing_lag_ms": summary(pacing_lags(wire.sent_at)),
    }


async def _send_call(
    socket: aiohttp.ClientWebSocketResponse,
    payloads: list[bytes],
    wire: Wire,
    reader: asyncio.Task[None],
    start: dict[str, Any],
) -> None:
    opening, sid = start_messages(start)
    for message in opening:
        await socket.send_str(message)
    # Encoded before the clock starts: only the write is left to be done at its time.
    messages = [media_message(number, payload, sid) for number, payload in enumerate(payloads)]
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, message in enumerate(messages):
        await asyncio.sleep(max(0.0, began + number * FRAME_SECONDS - loop.time()))
        if reader.done():
            raise ConnectionError(f"the far side closed after {number} media messages")
        wire.sent_at.append(time.perf_counter())
        await socket.send_str(message)
    await asyncio.sleep(GRACE_SECONDS)
    number = str(len(messages) + 2)
    await socket.send_json({"event": "stop", "sequenceNumber": number, "streamSid": sid, "stop": {}})


async def _read(socket: aiohttp.ClientWebSocketResponse, wire: Wire) -> None:
    async for message in socket:
        at = time.perf_counter()
        if message.type is not aiohttp.WSMsgType.TEXT:
            continue
        event = json.loads(message.data)
        if event.get("event") == "clear":
            wire.cleared_at.append(at)
        elif event.get("event") == "media":
            wire.media_at.append(at)
            wire.media_seconds += len(base64.b64decode(event["media"]["payload"])) / RATE


def _round(index: int) -> int:
    return (index - QUIET_FRAMES) // ROUND_FRAMES


def start_messages(start: dict[str, Any]) -> tuple[list[str], str]:
    """What comes before the audio, and the streamSid in it."""
    body = {
        "streamSid": STREAM_SID,
        "callSid": CALL_SID,
        "accountSid": "AC00000000000000000000000000000001",
        "tracks": ["inbound"],
        "customParameters": {},
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        **start,
    }
    sid = body["streamSid"]
    opening = [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {"event": "start", "sequenceNumber": "1", "streamSid": sid, "start": body},
    ]
    return [json.dumps(message) for message in opening], sid


def media_message(number: int, payload: bytes, sid: str) -> str:
    """One message of caller audio."""
    return json.dumps(
        {
            "event": "media",
            "sequenceNumber": str(number + 2),
            "streamSid": sid,
            "media": {
                "track": "inbound",
                "chunk": str(number + 1),
                "timestamp": str(number * 20),
                "payload": base64.b64encode(payload).decode(),
            },
        }
    )


def pacing_lags(sent_at: list[float]) -> list[float]:
    # Against the earliest message's clock: how late this driver itself was.
    offsets = [at - number * FRAME_SECONDS for number, at in enumerate(sent_at)]
    return [offset - min(offsets) for offset in offsets]


def _vowel(samples: int) -> list[int]:
    """Source and filter: pulses of 120 Hz with a glide of 15 %, through one two-pole resonator a formant."""
    signal = []
    phase = 0.0
    for number in range(samples):
        step = 120.0 * (1 + 0.15 * math.sin(2 * math.pi * 2.2 * number / RATE)) / RATE
        signal.append(float(int(phase + step) > int(phase)))
        phase += step
    for centre, bandwidth in FORMANTS:
        radius = math.exp(-math.pi * bandwidth / RATE)
        first, second = 2 * radius * math.cos(2 * math.pi * centre / RATE), -radius * radius
        one_back = two_back = 0.0
        for number, sample in enumerate(signal):
            value = sample + first * one_back + second * two_back
            one_back, two_back = value, one_back
            signal[number] = value
    loud = [
        value * (0.6 + 0.4 * math.sin(2 * math.pi * 4 * number / RATE - math.pi / 2))
        for number, value in enumerate(signal)
    ]
    peak = max(abs(value) for value in loud)
    return [round(value / peak * 0.7 * 32767) for value in loud]


def _mulaw(sample: int) -> int:
    """One 16-bit sample to G.711 mu-law, clipped at 32635, bias 132."""
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), 32635) + 132
    exponent = magnitude.bit_length() - 8
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    return ~(sign | exponent << 4 | mantissa) & 0xFF
