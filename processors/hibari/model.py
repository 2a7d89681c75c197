"""Hibari as it runs in the model process."""

from __future__ import annotations

from collections.abc import Iterator

RATE = 24_000
"""Hz that it speaks at."""
SEED = 1
"""Of the noise in its consonants: the same text sounds the same every time."""


class Hibari:
    """The network and its pronunciation rules, both inside the package hibari-tts: nothing is downloaded."""

    def __init__(self) -> None:
        from hibari import Hibari as Network

        self._network = Network(threads=1)
        for _ in self.speak("Hello."):  # the first words ever take 0.4 s: rules are loaded
            pass

    def speak(self, text: str, speed: float = 1.0) -> Iterator[bytes]:
        """Sentence by sentence, 16-bit samples at RATE."""
        import numpy as np

        for audio in self._network.stream(text, speed=speed, seed=SEED):
            yield np.clip(np.rint(audio * 32_767), -32_768, 32_767).astype(np.int16).tobytes()
