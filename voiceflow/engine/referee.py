"""The referee: is it a barge-in when somebody speaks while the agent does?

The keeper asks it whenever the authority says that the caller took the floor over a reply that is being
heard. The plain one believes every voice. `processors.barge_in` brings one that listens to the words.
Stretches that may not be interrupted are not its business: see `voiceflow.engine.protection`.
"""

from __future__ import annotations

import enum

from voiceflow.engine.reply import Reply


class Verdict(enum.Enum):
    """What a voice over the agent's is."""

    INTERRUPT = "the caller wants the floor"
    WAIT = "it is too early to tell"
    IGNORE = "the caller listens, or nobody spoke"


class Referee:
    """Believes every voice. Installed as `call.turns.referee`; none of its methods may wait or raise."""

    def doubts(self, reply: Reply) -> bool:
        """A voice is said to have taken the floor while `reply` is live: is it doubted? True keeps the reply
        going until the referee calls `confirm`, `dismiss` or `drop` of the keeper, or the voice ends."""
        return False

    def begins(self) -> None:
        """A voice over the agent's begins: what was heard of an earlier one does not count."""

    def judge(self, text: str, *, over: bool) -> Verdict:
        """The authority has these words of a voice that is doubted or kept. `over`: the voice has ended, and
        anything but IGNORE makes it a turn."""
        return Verdict.INTERRUPT

    def words(self) -> str:
        """What was heard of the voice, for an authority that ends turns without their words."""
        return ""
