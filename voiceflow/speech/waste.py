"""What was spoken for nothing: of drafts that never became a reply."""

from __future__ import annotations

from voiceflow.engine.reply import Reply
from voiceflow.speech.utterance import Utterance


class Waste:
    """Adds up, in `counted`, what was spent on drafts that were dropped:

    wasted_characters   given to the vendor
    wasted_ms           milliseconds of audio that had come of them
    """

    def __init__(self, counted: dict[str, float]) -> None:
        self._counted = counted
        counted.update(wasted_characters=0.0, wasted_ms=0.0)
        self._spoken: Utterance | None = None
        """A draft whose every word was spoken; there is one draft at a time."""

    def spoken(self, utterance: Utterance) -> None:
        """All of it was spoken. Of a draft it will be known later whether for nothing."""
        if not utterance.reply.confirmed:
            self._spoken = utterance

    def cut(self, utterance: Utterance, rate: int) -> None:
        """It will not be spoken to its end."""
        if not utterance.reply.confirmed:
            self._counted["wasted_characters"] += utterance.characters
            self._counted["wasted_ms"] += utterance.received / rate * 1000

    def dropped(self, reply: Reply, rate: int) -> None:
        """A reply is dead that is not being spoken any more, or not yet."""
        if self._spoken is not None and self._spoken.reply is reply:
            spoken, self._spoken = self._spoken, None
            self.cut(spoken, rate)

    def close(self, rate: int) -> None:
        """The call is over, and with it the draft that may be waiting."""
        if self._spoken is not None:
            self.dropped(self._spoken.reply, rate)
