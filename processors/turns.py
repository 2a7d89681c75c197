"""VADTurns: whose turn it is, decided by voice activity alone."""

from __future__ import annotations

from voiceflow.engine.processor import Processor, tap
from voiceflow.errors import DeclarationError
from voiceflow.frames import AudioIn, VoiceStart, VoiceStop


class VADTurns(Processor):
    """The turn's authority for chains whose recogniser does not end turns itself.

    A voice takes the floor at once, and with it interrupts the agent. The turn is over when the voice has
    been gone for `silence` seconds of the caller's audio (0.6 by default: pauses inside a sentence are
    mostly shorter; a shorter wait answers sooner and cuts off more people). It counts samples, not time, so
    evidence that comes late changes nothing; `silence` includes what the detector itself waited before it
    said VoiceStop, and cannot be shorter than that.
    """

    needs = (VoiceStart, VoiceStop)
    takes_turns = True

    def __init__(self, silence: float = 0.6) -> None:
        if silence <= 0:
            raise DeclarationError(
                f"VADTurns(silence={silence}): seconds of silence that end a turn, above 0"
            )
        self.silence = silence
        self._voice_ended: int | None = None

    @tap(VoiceStart)
    def voice(self, frame: VoiceStart) -> None:
        self._voice_ended = None
        self.turns.started()

    @tap(VoiceStop)
    def quiet(self, frame: VoiceStop) -> None:
        self._voice_ended = frame.at

    @tap(AudioIn)
    def audio(self, frame: AudioIn) -> None:
        if self._voice_ended is None:
            return
        heard = frame.at + frame.samples - self._voice_ended
        if heard >= self.silence * frame.format.rate:
            ended, self._voice_ended = self._voice_ended, None
            self.turns.ended(last_voice=ended)
