"""MoonshineSTT: a recogniser that works on this machine, on what a voice detector says is speech.

voice  ──▶ keeps its audio ──▶ every 0.5 s, if the models have nothing else to do: Transcript
stop   ──▶ all of it to the model ──▶ Transcript(final=True), 50 to 150 ms later
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from voiceflow.engine.processor import Processor, tap
from voiceflow.frames import PHONE, AudioIn, Transcript, VoiceStart, VoiceStop
from voiceflow.models import Model, ModelError, ModelHost, Recent, Urgency, need

if TYPE_CHECKING:
    from voiceflow.audio import Samples

COST = 0.1
"""Seconds that a piece takes, about: charged in virtual time."""
BEFORE = 0.3
"""Seconds before a voice that are listened to as well, but not those of the voice before it: its first
consonant may be softer than the detector needs."""
QUIET = 2.0
"""Seconds of audio that are kept while nobody speaks. Evidence may come that late."""
LONGEST = 15.0
"""Seconds of one piece. Who speaks longer without a pause is transcribed in several."""
PARTIAL_EVERY = 0.5
"""Seconds of speech from one partial transcript to the next, at least."""
PARTIAL_LONGEST = 6.0
"""Seconds of a piece from which on there are no partial ones: each transcribes it from its beginning."""
DEADLINE = 10.0
"""Seconds after which the call ends that waits for its words."""


class MoonshineSTT(Processor):
    """Transcribes what a voice detector before it in the chain says is speech, English.

        SileroVAD(), MoonshineSTT(), VADTurns(words=1.0)

    Each stretch of voice becomes a final Transcript, also when no word was recognised in it, so that whoever
    waits for words (`VADTurns`) need not wait longer.

    partials   give transcripts of what has been said so far, at most every 0.5 s, while the model has
               nothing else to do. They are guesses that change; so there are none while the agent speaks, and
               no barge-in can come of them

    Needs `pip install 'voiceflow-agents[local]'`: DeclarationError without. When the model fails, the call
    ends, by name.
    """

    needs = (AudioIn, VoiceStart, VoiceStop)
    emits = (Transcript,)
    model: ClassVar[Model] = Model.of("processors.moonshine.model:Moonshine")
    package: ClassVar[str] = "moonshine_voice"

    def __init__(self, *, partials: bool = True) -> None:
        need(self.package, type(self).__name__)
        self.partials = partials
        self.counted = dict.fromkeys(("pieces", "partials", "heard_ms", "model_ms"), 0.0)
        self._audio = Recent()  # bounded in `listen`
        self._rate = PHONE.rate
        self._begin: int | None = None
        """The sample at which the piece begins that is being spoken."""
        self._done = 0
        """Where the voice before it ended."""
        self._partial_at = 0
        self._waiting: deque[Samples] = deque()  # what is said in DEADLINE, then the call has ended
        self._transcribing = self._guessing = False

    async def warm(self) -> None:
        await ModelHost.of(self.call.services).load(self.model)

    async def start(self) -> None:
        self._host = ModelHost.of(self.call.services)
        self._rate = self.call.line.format.rate

    def figures(self) -> Mapping[str, float]:
        return {name: round(value, 1) for name, value in self.counted.items()}

    # -- what the chain gives

    @tap(AudioIn)
    def listen(self, frame: AudioIn) -> None:
        audio, begin = self._audio, self._begin
        audio.add(frame)
        quiet = audio.heard - round(QUIET * self._rate)
        audio.forget(quiet if begin is None else min(begin, quiet))
        if begin is None:
            return
        if audio.heard - begin >= LONGEST * self._rate:
            self._finish(begin)
            self._begin = self._partial_at = audio.heard
        elif audio.heard - self._partial_at >= PARTIAL_EVERY * self._rate:
            self._guess(begin)

    @tap(VoiceStart)
    def voice(self, frame: VoiceStart) -> None:
        if self._begin is None:
            self._begin = max(self._done, frame.at - round(BEFORE * self._rate))
            self._partial_at = frame.at

    @tap(VoiceStop)
    def quiet(self, frame: VoiceStop) -> None:
        if self._begin is not None:
            self._finish(self._begin)
            self._begin, self._done = None, frame.at

    # -- the model

    def _finish(self, begin: int) -> None:
        """The piece that begins there is complete."""
        self._waiting.append(self._audio.since(begin))
        if not self._transcribing:
            self._transcribing = True
            self.spawn(self._transcribe(), "transcribe")

    async def _transcribe(self) -> None:
        while self._waiting:
            self.counted["pieces"] += 1
            text = await self._ask(self._waiting.popleft(), Urgency.NOW)
            self.push(Transcript(text, final=True))
        self._transcribing = False

    def _guess(self, begin: int) -> None:
        """A partial transcript of the piece that begins there, if it is a good moment."""
        heard = self._audio.heard
        long = heard - begin >= PARTIAL_LONGEST * self._rate
        if self.partials and not (long or self._guessing or self._transcribing) and self._may_guess():
            self._guessing, self._partial_at = True, heard
            self.spawn(self._partial(begin, self._audio.since(begin)), "partial")

    async def _partial(self, begin: int, audio: Samples) -> None:
        try:
            text = await self._ask(audio, Urgency.SOON)
        except ModelError as error:
            self.call.log.debug(f"{self.name}: no partial transcript: {error}")  # the final one will tell
            return
        finally:
            self._guessing = False
        if text and self._begin == begin and self.call.turns.live is None:
            self.counted["partials"] += 1
            self.push(Transcript(text))

    def _may_guess(self) -> bool:
        return self._host.idle and self.call.turns.live is None

    async def _ask(self, audio: Samples, urgency: Urgency) -> str:
        began = self.call.now()
        text: str = await self._host.ask(
            self.model,
            "transcribe",
            audio.tobytes(),
            self._rate,
            cost=COST,
            urgency=urgency,
            deadline=DEADLINE,
        )
        self.counted["model_ms"] += (self.call.now() - began) * 1000
        self.counted["heard_ms"] += len(audio) / self._rate * 1000
        return text
