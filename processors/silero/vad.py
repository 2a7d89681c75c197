"""SileroVAD: evidence of voice, from the Silero network, on the phone's own 8 kHz."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from processors.silero.hysteresis import Hysteresis, Started, Stopped
from processors.silero.model import WINDOW, SileroModel, SileroState
from voiceflow.batching import Batcher
from voiceflow.engine.processor import Processor, tap
from voiceflow.errors import DeclarationError
from voiceflow.frames import AudioIn, VoiceStart, VoiceStop

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Piece = tuple[SileroState, NDArray[np.int16]]

STEP_SECONDS = 0.00015
"""What one window costs on one core, about: charged in virtual time."""


SMALL = 4
"""Windows that are judged on the event loop: to a thread and back takes longer. (Barge-in with ten other
calls, from the deciding packet to `clear`: 0.7 ms instead of 1.5.)"""
UNJUDGED = 1024
"""Windows that may wait for their judgement: half a minute, as after a long stall of the machine. Beyond that
the oldest are forgotten."""


class SileroVAD(Processor):
    """Says when somebody begins to speak and when they stop: VoiceStart and VoiceStop.

    start_threshold   0.5    probability from which a 32 ms window counts as voice
    stop_threshold    0.35   probability under which it counts as silence
    min_speech        0.064  seconds a voice must last before it is believed: two windows
    min_silence       0.2    seconds of silence before the voice is said to have stopped
    padding           0.03   seconds by which the start is put back

    Audio passes untouched and unhindered; the evidence comes a moment later and quotes the sample it speaks
    of. The network runs off the event loop, one session per process, windows of all calls batched.
    DeclarationError for parameters that cannot work.
    """

    needs = (AudioIn,)
    emits = (VoiceStart, VoiceStop)

    def __init__(
        self,
        *,
        start_threshold: float = 0.5,
        stop_threshold: float = 0.35,
        min_speech: float = 0.064,
        min_silence: float = 0.2,
        padding: float = 0.03,
    ) -> None:
        self._parameters: dict[str, Any] = {
            "start_threshold": start_threshold,
            "stop_threshold": stop_threshold,
            "min_speech": min_speech,
            "min_silence": min_silence,
            "padding": padding,
        }
        Hysteresis(**self._parameters)  # so that a wrong one is told before a call is answered
        self.probability = 0.0
        """Of the latest window."""
        self._filled = 0
        self._end = 0
        self._unjudged: deque[tuple[NDArray[np.int16], int]] = deque()  # bounded in `_judge`

    async def warm(self) -> None:
        await self.call.compute(SileroModel.shared, 0.0)

    async def start(self) -> None:
        import numpy as np

        rate = self.call.line.format.rate
        if rate not in WINDOW:
            raise DeclarationError(f"SileroVAD hears at 8000 or 16000 Hz, this line has {rate}")
        model = await self.call.compute(SileroModel.shared, 0.0)
        self._model = model
        self._state = model.state(rate)
        self._window = np.empty(WINDOW[rate], np.int16)
        self._hysteresis = Hysteresis(**self._parameters, window=WINDOW[rate], rate=rate)
        self._batcher = self.call.services.shared(
            ("silero", rate), lambda: Batcher(self.call.services, _steps, cost=STEP_SECONDS, small=SMALL)
        )

    @tap(AudioIn)
    def listen(self, frame: AudioIn) -> None:
        if frame.format.rate != self._state.rate:
            raise DeclarationError(
                f"SileroVAD was started for {self._state.rate} Hz and is given {frame.format.rate} Hz: "
                "one line has one rate"
            )
        if frame.at > self._end:  # packets were lost: begin a window anew
            self._filled = 0
        pcm, taken, size = frame.pcm, 0, len(self._window)
        while taken < len(pcm):
            fresh = min(size - self._filled, len(pcm) - taken)
            self._window[self._filled : self._filled + fresh] = pcm[taken : taken + fresh]
            self._filled += fresh
            taken += fresh
            if self._filled == size:
                self._filled = 0
                self._judge(self._window.copy(), frame.at + taken)
        self._end = frame.at + len(pcm)

    def _judge(self, window: NDArray[np.int16], end: int) -> None:
        """Has the window that ends before sample `end` judged, after those before it: each step needs the
        state that the last one left."""
        if len(self._unjudged) >= UNJUDGED:
            del self._unjudged[1]  # the first is being judged
        self._unjudged.append((window, end))
        if len(self._unjudged) == 1:
            self._batcher.submit((self._state, window), self._judged)

    def _judged(self, probability: float | None, error: Exception | None) -> None:
        _, end = self._unjudged.popleft()
        if probability is None:
            self.fail(error or RuntimeError("no probability"))
            return
        self.probability = probability
        match self._hysteresis.feed(probability, end):
            case Started(at):
                self.push(VoiceStart(at, decided_at=end))
            case Stopped(at):
                self.push(VoiceStop(at, decided_at=end))
        if self._hysteresis.take_reset():
            self._model.reset(self._state)
        if self._unjudged:
            self._batcher.submit((self._state, self._unjudged[0][0]), self._judged)


def _steps(pieces: Sequence[Piece]) -> list[float]:
    """One step of several calls' streams."""
    model = SileroModel.shared()
    return model.step_batch([state for state, _ in pieces], [window for _, window in pieces])
