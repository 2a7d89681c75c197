"""IdlePrompts: asks a caller who has fallen silent whether he is there, says goodbye, and hangs up.

playback ends ─── 8 s ───▶ "Are you still there?" ─── 8 s ───▶ … ─── 8 s ───▶ goodbye ───▶ hang-up
      ▲                            │
      └── a turn, a key ◀──────────┘   at any point: everything begins anew
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.turns import Floor
from voiceflow.errors import DeclarationError
from voiceflow.frames import (
    CallStart,
    Dtmf,
    Heard,
    Interrupt,
    ToolEnd,
    ToolStart,
    Transcript,
    TurnEnd,
    TurnStart,
    VoiceStart,
    VoiceStop,
)
from voiceflow.tools.use import ToolUse

REASON = "the caller was silent"
NOISE = 3.0
"""Seconds by which a voice may put off what comes next, at least: words that began over the last syllable of
the goodbye are known as a turn within one."""
LINGER = 0.5
"""Seconds between the end of the goodbye and the hang-up."""


@dataclass(slots=True, frozen=True)
class Cue:
    """What the model is told to say, in place of words: `Cue("Ask in one sentence if they are there.")`."""

    text: str


def due(quiet_since: float, wait: float, voice: float | None) -> float:
    """When to speak, after `wait` seconds in which nobody did. `voice` is when a voice was last heard
    (infinite while one is): it starts the wait anew, but a noise can at most double it."""
    if voice is None or voice <= quiet_since:
        return quiet_since + wait
    return min(voice + wait, quiet_since + wait + max(wait, NOISE))


class IdlePrompts(Processor):
    """Speaks to a caller who has fallen silent. Put it behind the model, which tells of its tools' work.

    after
        Seconds of silence before each of `lines`, and before the goodbye: one number, or one for each, the
        last of which goes on. They count from the end of what the agent says, as the caller hears it, or
        the end of the caller's own turn, whichever is later; from the call's start when nobody has spoken.
    lines
        What is said, one after the other: a text is said as it is, a `Cue` tells the model what to say.
    goodbye
        What is said last. Heard to its end, the call is over. None: after the last of the lines nothing
        more is done.

    Nothing is said while a reply is prepared, spoken or held, while the caller has the floor, or while a tool
    runs. Words of the caller's or a key begin everything anew, also during the goodbye: then nobody hangs up.
    A voice that no words come of (VoiceStart, from a SileroVAD) puts the next line off, but not for ever.

    Raises DeclarationError for parameters that make no sense.
    """

    wants = (TurnStart, ToolStart)
    alone = True

    def __init__(
        self,
        after: float | Sequence[float] = 8.0,
        lines: Sequence[str | Cue] = ("Are you still there?", "I cannot hear you. Are you still there?"),
        goodbye: str | Cue | None = "I will hang up now. Goodbye!",
    ) -> None:
        waits = (after,) if isinstance(after, int | float) else tuple(after)
        if not waits or not all(isinstance(w, int | float) and 0 < w < float("inf") for w in waits):
            raise DeclarationError(f"IdlePrompts(after={after!r}): seconds of silence, each above 0")
        if isinstance(lines, str | Cue):
            raise DeclarationError(f"IdlePrompts(lines={lines!r}): several lines, as ({lines!r},)")
        said = [*lines, *([goodbye] if goodbye is not None else [])]
        if not all(isinstance(line, str | Cue) for line in said):
            raise DeclarationError(f"IdlePrompts: a line is a text, or Cue(...) for the model: {said!r}")
        if not said or not all(_text(line).strip() for line in said):
            raise DeclarationError("IdlePrompts: every line needs words, and there has to be one")
        self._said, self._hangs_up = said, goodbye is not None
        self._waits = [waits[min(step, len(waits) - 1)] for step in range(len(said))] + [LINGER]
        self._step = 0
        self._since = 0.0
        """The last sign of life that no turn or playback shows: a key, a tool's end, a line of ours."""
        self._voice: float | None = None
        self._tools: set[ToolUse] = set()  # those that run: each ends within its own limit
        self._timer: asyncio.TimerHandle | None = None
        self._speaking: asyncio.Task[None] | None = None
        self._started = False
        self._prompts = 0

    def figures(self) -> Mapping[str, float]:
        return {"idle_prompts": self._prompts}

    async def stop(self) -> None:
        self._started = False
        self._unset()

    # -- what happens on the line

    @on(CallStart)
    def begin(self, start: CallStart) -> None:
        self._started = True
        self._alive()

    @tap(Transcript)
    def words(self, frame: Transcript) -> None:
        """Also words that are no turn, like a "yes" over the question whether he is there."""
        if frame.text.strip():
            self._caller_is_there()

    @tap(TurnStart, Dtmf)
    def turn_or_key(self, frame: TurnStart | Dtmf) -> None:
        self._caller_is_there()

    @tap(TurnEnd)
    def turn_over(self, turn: TurnEnd) -> None:
        self._set()

    @tap(VoiceStart)
    def voice(self, frame: VoiceStart) -> None:
        self._voice = float("inf")
        self._set()

    @tap(VoiceStop)
    def quiet(self, frame: VoiceStop) -> None:
        self._voice = self.call.loop.time()
        self._set()

    @on(ToolStart)
    def tool_began(self, frame: ToolStart) -> None:
        self._tools.add(frame.use)

    @on(ToolEnd)
    def tool_ended(self, frame: ToolEnd) -> None:
        self._tools.discard(frame.use)
        self._alive()

    @on(Heard)
    def heard(self, heard: Heard) -> None:
        if heard.final:
            self._set()

    @on(Interrupt)
    def cut(self, interrupt: Interrupt) -> None:
        self._set()

    # -- the clock

    def _caller_is_there(self) -> None:
        self._step = 0
        if self._speaking is not None:  # what waits for the floor is not wanted any more
            self._speaking.cancel()
            self._speaking = None
        self._alive()

    def _alive(self) -> None:
        self._since = self.call.loop.time()
        self._set()

    def _quiet_since(self) -> float:
        return max(self._since, self.call.loop.time() - self.call.silence())

    def _set(self) -> None:
        """Sets the timer for the next line. Whether it may be said is asked when it rings; if not, the end of
        what is in its way sets it again."""
        self._unset()
        if self._started and self._step < len(self._said) + self._hangs_up:
            at = due(self._quiet_since(), self._waits[self._step], self._voice)
            self._timer = self.call.loop.call_at(at, self._ring, at)

    def _unset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self, at: float) -> None:
        self._timer = None
        turns = self.call.turns
        somebody = turns.state.floor is not Floor.FREE or turns.live is not None or self._speaking is not None
        if somebody or self._tools:
            return
        if due(self._quiet_since(), self._waits[self._step], self._voice) > at + 1e-6:
            self._set()  # the line was longer busy than was known when the timer was set
            return
        step, self._step = self._step, self._step + 1
        if step == len(self._said):
            self.call.end(REASON)
            return
        self._prompts += 1
        self._since = self.call.loop.time()
        self._speaking = self.spawn(self._speak(self._said[step]), "prompt")

    async def _speak(self, line: str | Cue) -> None:
        if isinstance(line, Cue):
            await self.call.prompt(line.text)
        else:
            await self.call.say(line)
        self._speaking = None
        self._set()


def _text(line: str | Cue) -> str:
    return line.text if isinstance(line, Cue) else line
