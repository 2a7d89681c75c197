"""SmartTurn: evidence of whether a caller who has fallen silent has finished, from how it sounded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from processors.smart_turn.model import find
from voiceflow.engine.processor import Processor, tap
from voiceflow.frames import PHONE, AudioIn, TurnGuess, VoiceStart, VoiceStop
from voiceflow.models import Model, ModelError, ModelHost, Recent

COST = 0.05
"""Seconds that a guess takes, about: charged in virtual time."""
LONGEST = 8.0
"""Seconds that the network hears."""
BEFORE = 0.5
"""Seconds before the turn's first voice that are heard as well."""
GAP = 1.5
"""Seconds of silence after which a voice begins a new turn, for what the network is to hear."""
DEADLINE = 0.5
"""Seconds after which a guess is of no use any more."""


class SmartTurn(Processor):
    """Says after each voice how likely it is that the caller has finished, about 50 ms after VoiceStop.

        SileroVAD(), SmartTurn(), VADTurns(0.6, finished=0.3, unfinished=1.0)

    It goes by melody and pace, not by words, and is right for about four of five turns at 16 kHz, and three
    of five on the phone: a reason to wait a little less or a little longer, no more. A guess that fails or
    comes late is left out.

    path   of smart-turn-v3.2-cpu.onnx; by default the one inside the package pipecat-ai, which is not
           imported. DeclarationError when there is none
    """

    needs = (AudioIn, VoiceStart, VoiceStop)
    emits = (TurnGuess,)

    def __init__(self, path: Path | str | None = None) -> None:
        self.model = Model.of("processors.smart_turn.model:SmartTurnModel", path=str(find(path)))
        self.counted = dict.fromkeys(("guesses", "finished", "model_ms"), 0.0)
        self._audio = Recent()  # bounded in `listen`
        self._rate = PHONE.rate
        self._begin: int | None = None
        """The sample at which the turn begins."""
        self._stopped = 0
        """That at which the last voice ended."""

    async def warm(self) -> None:
        await ModelHost.of(self.call.services).load(self.model)

    async def start(self) -> None:
        self._rate = self.call.line.format.rate

    def figures(self) -> Mapping[str, float]:
        return {name: round(value, 1) for name, value in self.counted.items()}

    @tap(AudioIn)
    def listen(self, frame: AudioIn) -> None:
        self._audio.add(frame)
        self._audio.forget(self._audio.heard - round(LONGEST * self._rate))

    @tap(VoiceStart)
    def voice(self, frame: VoiceStart) -> None:
        if self._begin is None or frame.at - self._stopped > GAP * self._rate:
            self._begin = frame.at - round(BEFORE * self._rate)

    @tap(VoiceStop)
    def quiet(self, frame: VoiceStop) -> None:
        self._stopped = frame.at
        self.spawn(self._guess(self._audio.since(self._begin or 0).tobytes(), frame.at), "guess")

    async def _guess(self, audio: bytes, stopped: int) -> None:
        began = self.call.now()
        host = ModelHost.of(self.call.services)
        try:
            probability: float = await host.ask(
                self.model, "finished", audio, self._rate, cost=COST, deadline=DEADLINE
            )
        except ModelError as error:
            self.call.log.debug(f"{self.name}: no guess: {error}")
            return
        self.counted["guesses"] += 1
        self.counted["finished"] += probability >= 0.5
        self.counted["model_ms"] += (self.call.now() - began) * 1000
        self.push(TurnGuess(probability, stopped))
