"""AuraTTS: Deepgram's voices, streamed into the call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import urlencode

from processors.aura.protocol import AuraProtocol
from voiceflow.errors import DeclarationError
from voiceflow.frames import AudioFormat
from voiceflow.speech import SpeechProtocol, TextToSpeech
from voiceflow.vendor import Key
from voiceflow.vendor import base_url as address

RATES = {"mulaw": {8000, 16000}, "pcm16": {8000, 16000, 24000, 32000, 48000}}


class AuraTTS(TextToSpeech):
    """Speaks Sentences with a Deepgram Aura voice.

    It gives no alignments. So what an interrupted caller has heard is known to the sentence (or to the short
    ones that were spoken as one, 150 characters at most), and inside one by its length: in proportion to the
    characters once all its audio has come, before that at 15 characters a second. For an even voice that is
    right to a word or two, and to a tenth of the sentence.

    model       the voice, such as aura-2-thalia-en
    speed       0.7 to 1.5; None leaves the voice's own
    api_key     or DEEPGRAM_API_KEY
    base_url    or DEEPGRAM_BASE_URL: wss://api.deepgram.com, wss://api.eu.deepgram.com
    spare       connections kept open for the next calls
    """

    vendor = "Deepgram Aura"
    max_idle: ClassVar[float] = 45.0

    def __init__(
        self,
        model: str = "aura-2-thalia-en",
        *,
        speed: float | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        spare: int = 1,
    ) -> None:
        super().__init__(spare=spare)
        if speed is not None and not 0.7 <= speed <= 1.5:
            raise DeclarationError(f"Aura speaks at 0.7 to 1.5 times the voice's speed, not {speed:g}")
        self.model = model
        self.speed = speed
        self.key = Key.of("DEEPGRAM_API_KEY", api_key, "https://console.deepgram.com")
        self.keys = (self.key,)
        self._base = address("DEEPGRAM_BASE_URL", base_url, "wss://api.deepgram.com", web_socket=True)

    def url(self, format: AudioFormat) -> str:
        if format.rate not in RATES.get(format.encoding, ()):
            raise DeclarationError(f"Aura does not speak {format.encoding} at {format.rate} Hz")
        encoding = "mulaw" if format.encoding == "mulaw" else "linear16"
        query = {"model": self.model, "encoding": encoding, "sample_rate": str(format.rate)}
        if self.speed is not None:
            query["speed"] = f"{self.speed:g}"
        return f"{self._base}/v1/speak?{urlencode(query)}"

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Token {self.key.value}"}

    def protocol(self, format: AudioFormat) -> SpeechProtocol:
        return AuraProtocol()
