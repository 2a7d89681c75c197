"""What may not be interrupted: until when, and what happens then.

A stretch is protected from the moment in which it is next to be heard until its last sample was. The audio
decides, as the sink has it. Before there is any, a reply that the program has promised to protect is
protected for PROMISE seconds: the voice takes a moment, and a caller who speaks in it is kept too. So nothing
is protected for longer than its audio lasts, whatever a vendor does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from voiceflow.engine.mouth import Mouth
from voiceflow.engine.reply import Reply

PROMISE = 3.0
"""Seconds for which audio is waited for. A voice takes 0.1 to 0.6; after 3 s it counts as stalled."""
LOOK = 0.05
"""Seconds between two looks, while a voice is kept: audio that still comes moves the end."""
MARGIN = 0.02
"""Seconds after the end, so that the last sample counts as heard: a packet."""


class Protection:
    """One for a call. `over` is called once, after `watch`, when the reply may be interrupted."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, mouth: Mouth | None, over: Callable[[Reply], None]
    ) -> None:
        self._loop = loop
        self._mouth = mouth
        self._over = over
        self._promised: tuple[Reply, float] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def promise(self, reply: Reply) -> None:
        """The first that is said in this reply is protected."""
        self._promised = (reply, self._loop.time() + PROMISE)

    def until(self, reply: Reply) -> float | None:
        """When `reply` may be interrupted (`loop.time()`), as far as it is known; None when it may be now."""
        if self._mouth is None:
            return None
        until = self._mouth.protected(reply)
        if until is None and self._promised is not None and self._promised[0] is reply:
            if self._promised[1] > self._loop.time() and not self._mouth.progress(reply).queued:
                return self._promised[1]
            self._promised = None
        return until

    def watch(self, reply: Reply) -> None:
        """Has `over` called when `reply` may be interrupted again, unless all of it was heard by then: the
        line is about to tell that."""
        self.close()
        until = self.until(reply)
        if until is None:
            if self._mouth is None or self._mouth.progress(reply).left != 0.0:
                self._over(reply)
            return
        soon = min(until + MARGIN, self._loop.time() + LOOK)
        self._timer = self._loop.call_at(soon, self.watch, reply)

    def close(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
