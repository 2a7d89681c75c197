"""What the TurnKeeper tells of the turns, into the trace."""

from __future__ import annotations

import asyncio

from voiceflow.engine.keeper import Watch
from voiceflow.engine.mouth import HeardText
from voiceflow.engine.reply import Reply
from voiceflow.engine.turns import Action, Kill, Open, Promote
from voiceflow.line.stream import Line
from voiceflow.trace.recorder import Recorder


class TurnWatch(Watch):
    """`authority` names the processor that decides the turns. Counts drafts, and the replies that were cut
    off."""

    def __init__(self, trace: Recorder, line: Line, loop: asyncio.AbstractEventLoop, authority: str) -> None:
        self.interrupts = 0
        self.drafts = 0
        self.drafts_kept = 0
        self.drafts_dropped = 0
        self._drafts: set[int] = set()
        """Replies that nobody has begun to hear: to drop one is no interrupt."""
        self._trace, self._line, self._loop, self._authority = trace, line, loop, authority

    def figures(self) -> dict[str, float]:
        """Drafts: begun, kept because the turn was over, dropped because it was not, or the call was."""
        return {
            "drafts": self.drafts,
            "drafts_kept": self.drafts_kept,
            "drafts_dropped": self.drafts_dropped,
        }

    def evidence(self, last_voice: int | None) -> None:
        """A sample of the caller's audio becomes a time: that of the latest packet, less the audio since."""
        spoke = None
        if last_voice is not None:
            samples, arrived = self._line.arrived
            age = self._loop.time() - arrived + (samples - last_voice) / self._line.format.rate
            spoke = self._trace.now() - max(0.0, age)
        self._trace.evidence(self._authority, spoke)

    def action(self, action: Action) -> None:
        match action:
            case Open(number, draft=True):
                self._drafts.add(number)
                self.drafts += 1
            case Promote(number):
                self._drafts.discard(number)
                self.drafts_kept += 1
            case Kill(number):
                self.interrupts += number not in self._drafts
                self._drafts.discard(number)
        self._trace.action(action)

    def over(self, reply: Reply, heard: HeardText) -> None:
        self.drafts_dropped += not reply.confirmed
        self._trace.over(reply, heard)
