"""`end_call`, with which a model hangs up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from voiceflow.engine.turns import Floor
from voiceflow.errors import CallEnded, VoiceflowError
from voiceflow.tools.tool import Effect, Tool, ToolWithdrawn, tool

if TYPE_CHECKING:
    from voiceflow.call import Call

REASON = "the agent hung up"
WAIT = 10.0
"""Seconds that a farewell may take until it was heard."""


def end_call(*, farewell: str = "", wait: float = WAIT) -> Tool:
    """A tool that hangs up, once the caller has heard everything that was said.

    `farewell` is said before, if the model itself has said nothing to the caller's last words; if the
    caller answers it, the call goes on. `wait`: seconds that what is being said then may still take.
    """

    @tool(effect=Effect.TERMINAL, limit=2 * wait + 5.0)
    async def end_call(call: Call) -> None:
        """Hang up. Say goodbye to the caller first, in the same answer: it is heard before the call ends."""
        turn = call.turns.state.turn
        if farewell and not _answered(call):
            await _say(call, farewell, wait)
        await _heard(call, wait)
        state = call.turns.state
        if state.turn != turn or state.floor is not Floor.FREE:
            raise ToolWithdrawn("Not done: the caller spoke during the farewell.")
        call.end(REASON)

    return end_call


def _answered(call: Call) -> bool:
    """Whether the agent was heard to say something after the caller's last words."""
    roles = [entry.role for entry in call.history.messages if entry.role != "tool"]
    return bool(roles) and roles[-1] == "assistant"


async def _say(call: Call, farewell: str, wait: float) -> None:
    try:
        async with asyncio.timeout(wait):
            await call.say(farewell)
    except CallEnded:
        raise
    except (TimeoutError, VoiceflowError) as error:  # without a farewell it is still the end
        call.log.warning(f"the farewell was not said: {error or 'it took too long'}")


async def _heard(call: Call, wait: float) -> None:
    """Waits for what is still being said, or is said right after the farewell: what came of another tool."""
    if (live := call.turns.live) is not None:
        await asyncio.wait([call.turns.outcome(live)], timeout=wait)
        if call.turns.live is live:
            call.log.warning(f"hung up before the caller had heard everything: {wait:g} s were not enough")
