"""HibariTTS: a voice that speaks on this machine, without a network and without an account."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, ClassVar

from processors.hibari.model import RATE
from voiceflow.engine.processor import Processor, on
from voiceflow.engine.reply import Reply
from voiceflow.errors import DeclarationError
from voiceflow.frames import AudioFormat, AudioOut, Interrupt, ReplyEnd, Sentence
from voiceflow.models import Model, ModelHost, Urgency, need
from voiceflow.speech.utterance import pieces_of

if TYPE_CHECKING:
    from voiceflow.audio import Samples

COST = 0.04
"""Seconds that a sentence takes, about: charged in virtual time."""
DEADLINE = 10.0
"""Seconds after which the call ends that waits for its next words to be spoken."""
STEP = 0.2
"""Seconds of speech that are resampled at a time, in 20 us, and handed on as one frame."""


class HibariTTS(Processor):
    """Speaks Sentences, English, with the one voice that is inside the package hibari-tts.

    speed   0.5 (slow) to 2 (fast)

    A sentence takes about 20 ms and 16 ms for each second of speech. It gives no alignments, so what an
    interrupted caller has heard is known to the sentence, and inside one by its length.

    It speaks ahead of the line as far as the sink takes it, 30 s. An Interrupt takes out of the queue what
    waits, and stops what is being spoken after the sentence it is at.

    Needs `pip install 'voiceflow-agents[local]'`: DeclarationError without. When the model fails the call
    ends, by name.
    """

    emits = (AudioOut,)
    model: ClassVar[Model] = Model.of("processors.hibari.model:Hibari")

    def __init__(self, speed: float = 1.0) -> None:
        if not 0.5 <= speed <= 2.0:
            raise DeclarationError(f"HibariTTS(speed={speed:g}): 0.5 (slow) to 2 (fast)")
        need("hibari", "HibariTTS")
        self.speed = speed
        self.counted = dict.fromkeys(("sentences", "characters", "spoken_ms"), 0.0)
        self._voices: dict[Reply, _Voice] = {}  # a live reply and a draft: the dead ones go with Interrupt

    async def warm(self) -> None:
        await ModelHost.of(self.call.services).load(self.model)
        _Voice(self.call.line.format)  # what it imports is slow the first time

    async def start(self) -> None:
        self._host = ModelHost.of(self.call.services)
        self._format = self.call.line.format

    def figures(self) -> Mapping[str, float]:
        return {name: round(value, 1) for name, value in self.counted.items()}

    @on(Sentence)
    async def speak(self, frame: Sentence) -> AsyncIterator[AudioOut]:
        assert frame.reply is not None
        for text in pieces_of(frame.text):
            first = frame.reply not in self._voices
            voice = self._voices.setdefault(frame.reply, _Voice(self._format))
            self.counted["sentences"] += 1
            self.counted["characters"] += len(text)
            answer = self._host.stream(
                self.model,
                "speak",
                text,
                self.speed,
                cost=COST,
                urgency=Urgency.NOW if first else Urgency.SOON,
                deadline=DEADLINE,
            )
            async with aclosing(answer) as spoken:
                begins = text
                async for pcm in spoken:
                    self.counted["spoken_ms"] += len(pcm) / 2 / RATE * 1000
                    for audio in voice.say(pcm):
                        yield AudioOut(audio, begins, protected=frame.protected and bool(begins))
                        begins = ""

    @on(ReplyEnd)
    async def finish(self, frame: ReplyEnd) -> AsyncIterator[AudioOut | ReplyEnd]:
        assert frame.reply is not None
        if (voice := self._voices.pop(frame.reply, None)) is not None and (rest := voice.rest()):
            yield AudioOut(rest)
        yield frame

    @on(Interrupt)
    def cut(self, frame: Interrupt) -> None:
        self._voices.pop(frame.dead, None)


class _Voice:
    """The speech of one reply in the line's format. The filter between the rates lasts from its first sample
    to its last, so there is no click where one piece follows another."""

    def __init__(self, format: AudioFormat) -> None:
        import soxr

        self._format = format
        self._filter = soxr.ResampleStream(RATE, format.rate, 1, dtype="int16")

    def say(self, pcm: bytes) -> Iterator[bytes]:
        """More of it, in frames."""
        import numpy as np

        samples, step = np.frombuffer(pcm, np.int16), math.ceil(STEP * RATE)
        for begin in range(0, len(samples), step):
            if audio := self._encoded(self._filter.resample_chunk(samples[begin : begin + step])):
                yield audio

    def rest(self) -> bytes:
        """What the filter still holds: some milliseconds."""
        import numpy as np

        return self._encoded(self._filter.resample_chunk(np.zeros(0, np.int16), last=True))

    def _encoded(self, samples: Samples) -> bytes:
        from voiceflow.audio import encode

        return encode(samples, self._format)
