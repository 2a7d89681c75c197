"""TimeLimit: a limit on the call's length that the caller hears of before, and a goodbye when it is reached.

seconds - warn            seconds                  + wait                   + GOODBYE_LIMIT
──┼─ next silence ──▶ line ──┼─ the reply ends ──────┼─ it is stopped ─────────┼─ over, whatever happens
                             └─ next silence ──▶ goodbye ──▶ hang-up
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.reply import Reply
from voiceflow.errors import DeclarationError
from voiceflow.frames import CallStart, TurnEnd

REASON = "the call reached its time limit"
GOODBYE_LIMIT = 15.0
"""Seconds that the goodbye may take, with the wait for a caller who does not stop talking."""


class TimeLimit(Processor):
    """Ends a call that goes on for too long, with notice. It stands anywhere behind the turn's authority.

    seconds
        How long a call may be, from the opening of the line.
    warn, line
        `line` is said at the first silence in the last `warn` seconds. Empty: no notice.
    goodbye
        Said at the first silence after the limit. Empty: none.
    wait
        Seconds that a reply which is being spoken at the limit has until it is stopped. What the caller says
        after the limit is not answered any more.

    The notice and the goodbye are spoken to their end, whatever the caller says meanwhile. At the latest
    `wait` + GOODBYE_LIMIT seconds after the limit the call is over.

    Raises DeclarationError for parameters that make no sense. That the call's own limit (`call.limit`) comes
    first is known only when it starts, and is logged.
    """

    wants = (TurnEnd,)
    alone = True

    def __init__(
        self,
        seconds: float = 600.0,
        warn: float = 60.0,
        line: str = "We have one minute left.",
        goodbye: str = "Our time is up. Goodbye!",
        wait: float = 5.0,
    ) -> None:
        if not 0 < seconds < float("inf"):
            raise DeclarationError(f"TimeLimit(seconds={seconds}): how long a call may be, above 0")
        if line and not 0 < warn < seconds:
            raise DeclarationError(
                f"TimeLimit(seconds={seconds:g}, warn={warn:g}): the notice comes `warn` seconds before the "
                f'limit, so give more than 0 and less than {seconds:g}, or line="" for no notice'
            )
        if not 0 <= wait < float("inf"):
            raise DeclarationError(f"TimeLimit(wait={wait}): seconds until a reply is stopped, 0 or more")
        self.seconds, self.warn, self.wait = seconds, warn, wait
        self.line, self.goodbye = line, goodbye
        self._reached = False
        self._notices = 0

    def figures(self) -> Mapping[str, float]:
        return {"notices": self._notices, "reached": self._reached}

    async def start(self) -> None:
        if self.seconds + self.wait > self.call.limit:
            self.call.log.warning(
                f"{self.name}: the call's own limit of {self.call.limit:g} s comes before the goodbye at "
                f"{self.seconds:g} s: give fewer seconds here, or raise the limit of calls"
            )

    @on(CallStart)
    def begin(self, start: CallStart) -> None:
        self.spawn(self._run(self.call.loop.time()), "clock")

    @tap(TurnEnd)
    def turn_over(self, turn: TurnEnd) -> None:
        """Behind the limit, the floor that a turn leaves is for the goodbye."""
        if self._reached:
            self.call.turns.stop(REASON)

    async def _run(self, began: float) -> None:
        loop = self.call.loop
        notice: asyncio.Task[None] | None = None
        if self.line:
            await asyncio.sleep(began + self.seconds - self.warn - loop.time())
            notice = self.spawn(self._give_notice(), "notice")
        await asyncio.sleep(began + self.seconds - loop.time())
        if notice is not None:
            notice.cancel()  # it never came to it
        self._reached = True
        stopping = loop.call_later(self.wait, self._stop, self.call.turns.live)
        try:
            async with asyncio.timeout(self.wait + GOODBYE_LIMIT):
                await self._say_goodbye()
        except TimeoutError:
            self.call.log.info(f"{self.name}: hung up although somebody was still speaking")
        finally:
            stopping.cancel()
        self.call.end(REASON)

    async def _give_notice(self) -> None:
        await self.call.say(self.line, interruptible=False)
        self._notices += 1

    async def _say_goodbye(self) -> None:
        if self.goodbye:
            await self.call.say(self.goodbye, interruptible=False)
        else:
            await self.call.turns.take_floor()

    def _stop(self, late: Reply | None) -> None:
        if late is not None and self.call.turns.live is late:
            self.call.turns.stop(REASON)
