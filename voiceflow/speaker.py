"""What a call says by itself: when there is room for it, through the same chain as every answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.keeper import TurnKeeper
from voiceflow.engine.mouth import HeardText
from voiceflow.engine.pump import Pump
from voiceflow.engine.turns import Floor
from voiceflow.errors import DeclarationError
from voiceflow.frames import Prompt, ReplyEnd, Sentence


class Speaker:
    """One for a call; `Call.say`, `Call.prompt` and `Call.silence` say what is promised."""

    def __init__(self, pipeline: Pipeline, pump: Pump, turns: TurnKeeper) -> None:
        self._pipeline = pipeline
        self._pump = pump
        self._turns = turns

    async def say(self, text: str, *, interruptible: bool) -> HeardText:
        if not self._pipeline.handles(Sentence):
            raise DeclarationError(
                f"call.say() needs {Sentence.made_by} and a text-to-speech in the pipeline"
            )
        granted = await self._turns.take_floor()
        assert granted is not None, "it is wanted whenever the floor is free"
        reply, outcome = granted
        if not interruptible:
            self._turns.protect(reply)
        self._pump.inject(Sentence(text, protected=not interruptible, reply=reply), -1)
        self._pump.inject(ReplyEnd(reply=reply), -1)
        return await asyncio.shield(outcome)  # others may wait for the same outcome

    async def prompt(self, cue: str, wanted: Callable[[], bool]) -> HeardText:
        if not self._pipeline.handles(Prompt):
            raise DeclarationError("call.prompt() needs a processor that answers a Prompt: a language model")
        granted = await self._turns.take_floor(wanted)
        if granted is None:
            return HeardText()
        reply, outcome = granted
        self._turns.prompt(reply, cue)
        return await asyncio.shield(outcome)

    def silence(self) -> float:
        if self._turns.state.floor is not Floor.FREE:
            return 0.0
        sink = self._pipeline.sink
        played = sink.pacer.free_at if sink is not None else 0.0
        return max(0.0, self._pump.loop.time() - max(played, self._turns.quiet_since))
