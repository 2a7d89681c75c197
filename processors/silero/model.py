"""Silero's neural network: from a window of samples to the probability that somebody is speaking.

    rate      window                context       one step, one core
    8 kHz     256 samples, 32 ms    32 samples    0.1 ms alone, 0.04 ms in a batch of 16
    16 kHz    512 samples, 32 ms    64 samples    0.12 ms alone

The network sees each window after the last samples of the one before (the context) and carries a
recurrent state from step to step. Given bare windows it scores 0.3-0.6 on speech at 8 kHz instead of
0.90-0.95 (at 16 kHz: 0.001), and it takes windows of any length without complaint: hence the checks here.

The session is shared by all calls of a process and may be used from several threads. What belongs to one
stream is its SileroState, which must not be in two steps at once. Nothing here waits or reads a clock;
importing this module loads neither numpy nor onnxruntime.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voiceflow.errors import VoiceflowError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODEL = Path(__file__).with_name("silero_vad.onnx")

WINDOW = {8_000: 256, 16_000: 512}
"""Samples in a window, by rate. The network knows no other rates and no other lengths."""

CONTEXT = {8_000: 32, 16_000: 64}
"""Samples of the window before that go in front of each window."""


class SileroState:
    """What the network remembers of one stream. Make it with `SileroModel.state()`."""

    __slots__ = ("hidden", "input", "rate")

    def __init__(self, rate: int = 8_000) -> None:
        import numpy as np

        if rate not in WINDOW:
            raise ValueError(f"Silero hears at 8000 or 16000 Hz, not at {rate}; resample the audio first")
        self.rate = rate
        self.hidden: NDArray[np.float32] = np.zeros((2, 1, 128), np.float32)
        self.input: NDArray[np.float32] = np.zeros((1, CONTEXT[rate] + WINDOW[rate]), np.float32)
        """Context and window as the network takes them, in [-1, 1). Its tail is the next context."""

    def reset(self) -> None:
        """Forgets everything, as at the start of a stream."""
        self.hidden.fill(0)
        self.input.fill(0)

    def check(self, window: NDArray[np.int16]) -> None:
        """ValueError if `window` is not what the network takes at this rate."""
        size = WINDOW[self.rate]
        if window.shape != (size,) or window.dtype != "int16":
            raise ValueError(
                f"a window at {self.rate} Hz is int16 of shape ({size},), "
                f"not {window.dtype} of shape {window.shape}"
            )

    def take(self, window: NDArray[np.int16]) -> None:
        """Puts a checked `window` behind the end of the one before."""
        import numpy as np

        context = CONTEXT[self.rate]
        self.input[:, :context] = self.input[:, -context:]
        np.multiply(window, 1 / 32_768, out=self.input[0, context:], casting="unsafe")


class SileroModel:
    """The loaded network. Use `SileroModel.shared()`: one session serves the whole process.

    VoiceflowError when the model file is missing or is not the one that SHA256SUMS beside it names.
    """

    _shared: SileroModel | None = None
    _lock = threading.Lock()

    def __init__(self, path: Path = MODEL) -> None:
        import numpy as np
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # A step is too small to split, and threads of its own would only fight those of other calls.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # The very bytes that were verified are loaded, not the file once more.
        self._session = onnxruntime.InferenceSession(
            _verified(path), options, providers=["CPUExecutionProvider"]
        )
        self._rates = {rate: np.array(rate, dtype=np.int64) for rate in WINDOW}

    @classmethod
    def shared(cls) -> SileroModel:
        """The one model of this process, loaded on first use (about 0.1 s): call it before the first call."""
        with cls._lock:
            if cls._shared is None:
                cls._shared = cls()
            return cls._shared

    def state(self, rate: int = 8_000) -> SileroState:
        """A new stream at `rate` Hz. ValueError for a rate other than 8000 and 16000."""
        return SileroState(rate)

    def step(self, state: SileroState, window: NDArray[np.int16]) -> float:
        """The probability of speech in `window` (int16, [256] at 8 kHz, [512] at 16 kHz), which follows
        the window of the step before. ValueError for another shape or dtype."""
        state.check(window)
        state.take(window)
        probability, state.hidden = self._run(state.input, state.hidden, state.rate)
        return float(probability[0, 0])

    def step_batch(self, states: Sequence[SileroState], windows: Sequence[NDArray[np.int16]]) -> list[float]:
        """One step of several streams in one run, the same as single steps and cheaper for each.

        ValueError, with no stream changed, when streams differ in rate, one occurs twice, or a window does
        not fit: a fault in one call must not disturb the others in its batch.
        """
        import numpy as np

        if not states:
            return []
        rate = states[0].rate
        if any(state.rate != rate for state in states):
            raise ValueError("the streams of one batch must have the same rate; batch each rate by itself")
        if len(set(map(id, states))) != len(states):
            raise ValueError("a stream may occur only once in a batch: its second window needs a second step")
        pairs = list(zip(states, windows, strict=True))
        for state, window in pairs:
            state.check(window)
        for state, window in pairs:
            state.take(window)
        probability, hidden = self._run(
            np.concatenate([state.input for state in states]),
            np.concatenate([state.hidden for state in states], axis=1),
            rate,
        )
        for index, state in enumerate(states):
            # Copied: a view would keep the whole batch alive for as long as one of its streams.
            state.hidden = hidden[:, index : index + 1].copy()
        return [float(each) for each in probability[:, 0]]

    def reset(self, state: SileroState) -> None:
        """Forgets the stream's past. Do it in quiet only: see `Hysteresis.take_reset`."""
        state.reset()

    def _run(
        self, batch: NDArray[np.float32], hidden: NDArray[np.float32], rate: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        # By name: exports of this network differ in the order of their inputs.
        feed = {"input": batch, "state": hidden, "sr": self._rates[rate]}
        probability, after = self._session.run(["output", "stateN"], feed)
        return probability, after


def _verified(path: Path) -> bytes:
    """The model's bytes, if they are those that SHA256SUMS names."""
    sums = path.with_name("SHA256SUMS")
    cure = "reinstall voiceflow-agents, or restore the file from the repository"
    try:
        data = path.read_bytes()
        expected = sums.read_text().splitlines()
    except OSError as error:
        raise VoiceflowError(f"the Silero model cannot be loaded: {error}; {cure}") from error
    found = hashlib.sha256(data).hexdigest()
    if f"{found}  {path.name}" not in expected:
        raise VoiceflowError(
            f"the Silero model {path} is damaged: its sha256, {found[:16]}..., is not in {sums.name}; {cure}"
        )
    return data
