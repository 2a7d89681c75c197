"""Moonshine Tiny as it runs in the model process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voiceflow.models import INSTALL, ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from voiceflow.audio import Samples

RATE = 16_000
"""Hz that the network hears at."""
WARMING = 4
"""Seconds of noise that are transcribed while it is loaded."""
FAINTEST = 33
"""Loudness (RMS of the loudest 0.1 s, of 32,768: -60 dB) under which nothing was said. On silence the network
says "You"."""


class Moonshine:
    """The network and its tokenizer, both inside the package moonshine-voice: nothing is downloaded."""

    def __init__(self) -> None:
        import numpy as np
        from moonshine_voice.moonshine_api import ModelArch
        from moonshine_voice.transcriber import Transcriber
        from moonshine_voice.utils import get_model_path

        path = get_model_path("tiny-en")
        if not (path / "encoder_model.ort").is_file():
            raise ModelError(f"this version of moonshine-voice has no model inside: {INSTALL}")
        # Its own detector of voices is switched off: the pipeline's has decided already what is speech.
        self._network = Transcriber(str(path), ModelArch.TINY, options={"vad_threshold": "0.0"})
        self._hear(np.random.default_rng(1).normal(0, 0.01, WARMING * RATE))  # the first takes twice as long

    def transcribe(self, audio: bytes, rate: int) -> str:
        """What is said in `audio`, 16-bit samples at `rate` Hz. Empty when nothing is loud enough."""
        import numpy as np

        from voiceflow.audio import resample

        samples = np.frombuffer(audio, np.int16)
        if _loudness(samples, rate // 10) < FAINTEST:
            return ""
        return self._hear(resample(samples, rate, RATE) / 32_768)

    def _hear(self, signal: NDArray[np.float64]) -> str:
        """What is said in a signal of -1 to 1 at RATE."""
        lines = self._network.transcribe_without_streaming(signal.tolist(), RATE).lines
        return " ".join(line.text.strip() for line in lines if line.text.strip())


def _loudness(samples: Samples, window: int) -> float:
    """RMS of the loudest window."""
    import numpy as np

    if not len(samples):
        return 0.0
    window = min(window, len(samples))
    whole = samples[: len(samples) // window * window].astype(np.float32).reshape(-1, window)
    return float(np.sqrt((whole**2).mean(axis=1)).max())
