"""Text to speech on this machine: Hibari, English. `from processors.hibari import HibariTTS`."""

from processors.hibari.tts import HibariTTS

__all__ = ["HibariTTS"]
