"""Smart Turn v3.2 as it runs in the model process."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from voiceflow.errors import DeclarationError

FILE = "smart-turn-v3.2-cpu.onnx"
INSIDE = f"audio/turn/smart_turn/data/{FILE}"
"""Where it is inside the package pipecat."""
INSTALL = "pip install --no-deps pipecat-ai==1.14.0"


def find(path: Path | str | None) -> Path:
    """The network's file: `path`, or the one inside the package pipecat, which is not imported.

    DeclarationError, saying how to get it, when there is none.
    """
    if path is not None:
        if not Path(path).is_file():
            raise DeclarationError(f"SmartTurn cannot find {path}: give the path of {FILE}")
        return Path(path)
    spec = importlib.util.find_spec("pipecat")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (found := Path(folder) / INSIDE).is_file():
            return found
    raise DeclarationError(
        f"SmartTurn needs {FILE}, which is inside the package pipecat-ai (only that file is used): {INSTALL}"
    )


class SmartTurnModel:
    """The network. It hears the last 8 s of a turn, with about 0.2 s of silence behind it."""

    def __init__(self, path: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.finished(bytes(16_000), 8000)  # the first takes longer

    def finished(self, audio: bytes, rate: int) -> float:
        """How likely it is, 0 to 1, that who spoke has finished. `audio`: 16-bit samples at `rate` Hz."""
        import numpy as np

        from processors.smart_turn.features import RATE, log_mel
        from voiceflow.audio import resample

        samples = resample(np.frombuffer(audio, np.int16), rate, RATE)
        (probability,) = self._session.run(None, {"input_features": log_mel(samples / 32_768)[None]})
        return float(np.clip(probability.reshape(-1)[0], 0, 1))
