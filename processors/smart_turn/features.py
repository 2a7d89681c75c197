"""What the network sees of a sound: a log-mel spectrogram as Whisper's (Radford et al. 2022, section 2.2).

    samples at 16 kHz ─▶ level evened out ─▶ windows of 25 ms every 10 ms ─▶ power ─▶ 80 mel bands ─▶ log

The mel scale is Slaney's (Auditory Toolbox, 1998): linear up to 1 kHz, above it 27 steps for each factor of
6.4; each band has unit area.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

RATE = 16_000
SECONDS = 8
WINDOW = 400
HOP = 160
BANDS = 80
DYNAMICS = 8.0
"""Orders of magnitude between the loudest point and what counts as silence."""

Signal = NDArray[np.float32]


def log_mel(sound: NDArray[np.floating]) -> Signal:
    """Features [80, 800] of the last 8 s of a sound at 16 kHz; what is missing is silence before it."""
    length = SECONDS * RATE
    signal = sound[-length:].astype(np.float32)
    signal = np.pad(signal, (length - len(signal), 0))
    signal = (signal - signal.mean()) / np.sqrt(signal.var() + 1e-7)
    padded = np.pad(signal.astype(np.float64), WINDOW // 2, mode="reflect")
    windows = sliding_window_view(padded, WINDOW)[: SECONDS * RATE : HOP]
    power = np.abs(np.fft.rfft(windows * _hann(), axis=1)) ** 2
    bands = np.log10(np.maximum(power @ _filters(), 1e-10))
    bands = np.maximum(bands, bands.max() - DYNAMICS)
    features: Signal = ((bands + 4.0) / 4.0).T.astype(np.float32)
    return features


@cache
def _hann() -> NDArray[np.float64]:
    return np.hanning(WINDOW + 1)[:-1]


@cache
def _filters() -> NDArray[np.float64]:
    """Triangles [201, 80] on the frequencies of the power spectrum."""
    edges = _hertz(np.linspace(0, _mel(RATE / 2), BANDS + 2))
    frequencies = np.linspace(0, RATE / 2, WINDOW // 2 + 1)[:, None]
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies - left) / (middle - left)
    falling = (right - frequencies) / (right - middle)
    area: NDArray[np.float64] = 2.0 / (right - left)
    return np.maximum(0, np.minimum(rising, falling)) * area


LINEAR = 200 / 3
"""Hertz for each mel up to 1 kHz, which is 15 mel."""
STEP = np.log(6.4) / 27


def _mel(hertz: float) -> float:
    """Above 1 kHz."""
    return 15 + float(np.log(hertz / 1000) / STEP)


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, mel * LINEAR, 1000 * np.exp(STEP * (mel - 15)))
