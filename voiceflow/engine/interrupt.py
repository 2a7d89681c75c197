"""Interrupt: one reply is silenced everywhere at the same instant.

The order is the whole point. After step 1 nothing of the reply can pass any more, so nothing can slip in
behind the `clear` of step 4; the clean-up of step 5 may then take its time, because nobody waits for it.

    1  the reply is dead           the pump drops its frames wherever they are
    2  the sink's queue dropped    what has not been sent never will be
    3  the ledger frozen           what was heard up to now is what was said
    4  clear written               the carrier throws away what it has buffered
    5  its runners detached        cancelled and reaped while fresh ones already serve the next reply
    6  history cut                 to what was heard
    7  Interrupt sent              both ways, for users' own handlers; what they return is ignored
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from voiceflow.engine.history import History
from voiceflow.engine.mouth import HeardText, Mouth
from voiceflow.engine.processor import Processor
from voiceflow.engine.pump import Pump
from voiceflow.engine.reply import Reply, ReplyState
from voiceflow.frames import Interrupt

Reap = Callable[[Processor, "asyncio.Task[None]"], None]


def interrupt(
    reply: Reply, reason: str, *, pump: Pump, mouth: Mouth | None, history: History, reap: Reap, origin: int
) -> HeardText:
    """Kills `reply`; returns what the caller heard of it. Runs in one go, without waiting for anything."""
    reply.become(ReplyState.DEAD)
    heard = HeardText()
    if mouth is not None:
        mouth.drop(reply)
        heard = mouth.freeze(reply)
        mouth.clear(reply)
    for processor, task in pump.detach(reply, cancel=True):
        reap(processor, task)
    history.agent_was_heard(heard.text, cut=not heard.complete)
    pump.inject(Interrupt(reply, reason, heard.text), origin)
    return heard
