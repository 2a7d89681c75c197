"""When a voice starts and stops, from the probabilities of one window after another. Pure arithmetic.

               p >= start            lasted min_speech
        QUIET ───────────▶ (start?) ──────────────────▶ SPEAKING      Started(where it began - padding)
          ▲                   │                          │    ▲
          │◀── p < stop ──────┘                 p < stop │    │ p >= start
          │                                              ▼    │
          └────────────── lasted min_silence ────────── (stop?)       Stopped(where it ended)

Between the two thresholds nothing changes: a tentative start goes on lasting, and so does a tentative end.
Positions are sample indices. A window counts from its first sample, so durations are rounded up to whole
windows: with windows of 32 ms, 64 ms are two windows and 200 ms are seven.
"""

from __future__ import annotations

from dataclasses import dataclass

from voiceflow.errors import DeclarationError

LONGEST = 10.0
"""Seconds. A longer duration is most likely a figure in milliseconds."""


@dataclass(slots=True, frozen=True)
class Started:
    """A voice began at sample `at`, padding included."""

    at: int


@dataclass(slots=True, frozen=True)
class Stopped:
    """The voice ended at sample `at`: the first sample of the silence that followed."""

    at: int


class Hysteresis:
    """One stream's decisions. Feed it every window in order.

    start_threshold   probability from which a window is taken for voice
    stop_threshold    probability under which it is taken for silence; below start_threshold, so that a
                      voice that wavers around one value does not start and stop all the time
    min_speech        seconds a voice must last before it is believed; more ignores clicks and coughs but
                      delays every start by as much
    min_silence       seconds of silence before the voice is said to have stopped; shorter ones are breaths
    padding           seconds by which `Started.at` is put back, to keep a soft first consonant
    window, rate      samples per window, samples per second

    DeclarationError, in plain words, for parameters that cannot work.
    """

    QUIET_BELOW = 0.1
    QUIET_WINDOWS = 5
    RESET_EVERY = 2.0
    """Seconds. At 8 kHz a long silence makes the network hard of hearing: two minutes of it, and the start of
    speech is decided up to 126 ms after its onset instead of 92 (three recordings, four alignments each).
    Zeroing its state now and then cures that, but in or just before speech it would cost the onset: so only
    in quiet, which is five windows under 0.1 in a row."""

    def __init__(
        self,
        *,
        start_threshold: float = 0.5,
        stop_threshold: float = 0.35,
        min_speech: float = 0.064,
        min_silence: float = 0.2,
        padding: float = 0.03,
        window: int = 256,
        rate: int = 8_000,
    ) -> None:
        _check_thresholds(start_threshold, stop_threshold)
        _check_seconds(min_speech=min_speech, min_silence=min_silence, padding=padding)
        _check_counts(window=window, rate=rate)
        self._start_threshold = start_threshold
        self._stop_threshold = stop_threshold
        self._min_speech = round(min_speech * rate)
        self._min_silence = round(min_silence * rate)
        self._padding = round(padding * rate)
        self._window = window
        self._reset_every = round(self.RESET_EVERY * rate)
        self.speaking = False
        """Between a Started and its Stopped."""
        self._change: int | None = None  # where a tentative start or end began
        self._end = 0  # how far the audio has come
        self._earliest = 0  # where the last voice ended: the next cannot have begun before
        self._quiet_windows = 0
        self._last_reset = 0

    def feed(self, probability: float, end: int) -> Started | Stopped | None:
        """The decision, if any, after the window that ends before sample `end` (exclusive).

        ValueError when the probability is not one or `end` does not rise.
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"a probability is between 0 and 1, not {probability}")
        if end <= self._end:
            raise ValueError(f"windows must come in order: one ended at {self._end}, now one at {end}")
        self._end = end
        self._quiet_windows = self._quiet_windows + 1 if probability < self.QUIET_BELOW else 0
        return self._in_speech(probability) if self.speaking else self._in_silence(probability)

    def _in_silence(self, probability: float) -> Started | None:
        if probability < self._stop_threshold:
            self._change = None
        elif self._change is None and probability >= self._start_threshold:
            self._change = self._window_start()
        if self._change is None or self._end - self._change < self._min_speech:
            return None
        at = max(self._change - self._padding, self._earliest)
        self.speaking, self._change = True, None
        return Started(at)

    def _in_speech(self, probability: float) -> Stopped | None:
        if probability >= self._start_threshold:
            self._change = None
        elif self._change is None and probability < self._stop_threshold:
            self._change = self._window_start()
        if self._change is None or self._end - self._change < self._min_silence:
            return None
        at = self._earliest = self._change
        self.speaking, self._change = False, None
        return Stopped(at)

    def _window_start(self) -> int:
        return max(self._end - self._window, 0)

    @property
    def quiet(self) -> bool:
        """Nobody speaks, nobody seems to begin, and the last five windows were all under 0.1."""
        return not self.speaking and self._change is None and self._quiet_windows >= self.QUIET_WINDOWS

    def take_reset(self) -> bool:
        """True when the network's state should be zeroed now: in quiet, at most once in two seconds of audio.

        Asking counts: after True the two seconds begin anew.
        """
        if not self.quiet or self._end - self._last_reset < self._reset_every:
            return False
        self._last_reset = self._end
        return True


def _check_thresholds(start: float, stop: float) -> None:
    if not 0 < start < 1:
        raise DeclarationError(f"start_threshold is a probability between 0 and 1, not {start}; try 0.5")
    if not 0 < stop <= start:
        raise DeclarationError(
            f"stop_threshold must be above 0 and at most start_threshold ({start}), not {stop}; "
            f"try {start * 0.7:.2f}"
        )


def _check_seconds(**durations: float) -> None:
    for name, seconds in durations.items():
        if not 0 <= seconds <= LONGEST:
            raise DeclarationError(
                f"{name} is in seconds, from 0 to {LONGEST:g}, not {seconds}; 200 ms is written 0.2"
            )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise DeclarationError(f"{name} is a number of samples, at least 1, not {count}")
