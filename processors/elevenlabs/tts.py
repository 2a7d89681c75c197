"""ElevenLabsTTS: ElevenLabs' voices, streamed into the call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from processors.elevenlabs.protocol import ElevenLabsProtocol
from voiceflow.errors import DeclarationError
from voiceflow.frames import AudioFormat
from voiceflow.speech import SpeechProtocol, TextToSpeech
from voiceflow.vendor import Key
from voiceflow.vendor import base_url as address

INACTIVITY = 180
"""Seconds without text after which the service gives a connection up; the most it allows (default 20)."""
RATES = {8000, 16000, 22050, 24000, 44100}


class ElevenLabsTTS(TextToSpeech):
    """Speaks Sentences with an ElevenLabs voice. Its alignments tell what a caller has heard, to one word.

    voice       the voice's id, from its page at elevenlabs.io (default: Rachel)
    model       eleven_flash_v2_5 (about 75 ms to the first audio), eleven_turbo_v2_5,
                eleven_multilingual_v2; eleven_v3 does not stream over this interface
    stability, similarity, style   voice settings from 0 to 1; None leaves the voice's own
    speed       0.7 to 1.2; None leaves the voice's own
    language    ISO 639-1, for the models that take it
    api_key     or ELEVENLABS_API_KEY
    base_url    or ELEVENLABS_BASE_URL: wss://api.elevenlabs.io, wss://api.us.elevenlabs.io,
                wss://api.eu.residency.elevenlabs.io
    spare       connections kept open for the next calls; an idle one costs nothing there
    """

    vendor = "ElevenLabs"
    max_idle: ClassVar[float] = INACTIVITY - 30.0

    def __init__(
        self,
        voice: str = "21m00Tcm4TlvDq8ikWAM",
        *,
        model: str = "eleven_flash_v2_5",
        stability: float | None = None,
        similarity: float | None = None,
        style: float | None = None,
        speed: float | None = None,
        language: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        spare: int = 1,
    ) -> None:
        super().__init__(spare=spare)
        if model == "eleven_v3":
            raise DeclarationError("ElevenLabs does not stream eleven_v3: use eleven_flash_v2_5")
        if speed is not None and not 0.7 <= speed <= 1.2:
            raise DeclarationError(f"ElevenLabs speaks at 0.7 to 1.2 times the voice's speed, not {speed:g}")
        for name, value in (("stability", stability), ("similarity", similarity), ("style", style)):
            if value is not None and not 0 <= value <= 1:
                raise DeclarationError(f"ElevenLabs' {name} goes from 0 to 1, not {value:g}")
        self.voice = voice
        self.model = model
        self.language = language
        settings: dict[str, Any] = {
            "stability": stability,
            "similarity_boost": similarity,
            "style": style,
            "speed": speed,
        }
        self.settings = {name: value for name, value in settings.items() if value is not None}
        self.key = Key.of("ELEVENLABS_API_KEY", api_key, "https://elevenlabs.io/app/settings/api-keys")
        self.keys = (self.key,)
        self._base = address("ELEVENLABS_BASE_URL", base_url, "wss://api.elevenlabs.io", web_socket=True)

    def url(self, format: AudioFormat) -> str:
        if format.rate not in (RATES if format.encoding == "pcm16" else {8000}):
            raise DeclarationError(f"ElevenLabs does not speak {format.encoding} at {format.rate} Hz")
        encoding = "ulaw" if format.encoding == "mulaw" else "pcm"
        query = {
            "model_id": self.model,
            "output_format": f"{encoding}_{format.rate}",
            "auto_mode": "true",
            "sync_alignment": "true",
            "inactivity_timeout": str(INACTIVITY),
        }
        if self.language:
            query["language_code"] = self.language
        voice = quote(self.voice, safe="")
        return f"{self._base}/v1/text-to-speech/{voice}/multi-stream-input?{urlencode(query)}"

    def headers(self) -> Mapping[str, str]:
        return {"xi-api-key": self.key.value}

    def protocol(self, format: AudioFormat) -> SpeechProtocol:
        return ElevenLabsProtocol(format, self.settings)
