"""Filler: a line or a sound for the caller who hears nothing because a tool is still at work.

the caller has spoken ── model ── tool runs ─── 1.5 s of silence ──▶ "One moment, please." ─── 8 s ──▶ …
                                      └───────── its end: no more of them ────────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voiceflow.engine.evidence import Doubt
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.reply import Reply, ReplyState
from voiceflow.errors import DeclarationError
from voiceflow.frames import AudioOut, Interrupt, ReplyEnd, Sentence, ToolEnd, ToolStart, TurnEnd
from voiceflow.tools.use import ToolUse

PAUSE = 1.0
"""Seconds between two fillers at least, whatever the policy says."""
LONGEST_SOUND = 5.0
"""Seconds. A sound is played to its end, and the answer waits for that."""
ROUNDING = 1e-6
"""Seconds that a clock may be short of its time."""
WORDLESS = " "
"""The text of audio that begins a stretch of its own, in which nothing is said."""

Policy = Callable[[float, int], float]
"""`fill(silent, said)`: the line has been silent for `silent` seconds, and `said` fillers were said in this
reply; gives the seconds that are left until the next one, 0 or less for now, infinity for none any more."""


def waits(after: float, again: float) -> Policy:
    """The first after `after` seconds of silence, each other after `again`."""
    return lambda silent, said: (again if said else after) - silent


@dataclass(slots=True, eq=False)
class _Wait:
    """One reply, and what of it is still at work."""

    spoke: float
    """When something to be heard went by last: it may be on its way to the line. Before that, when the
    caller's turn ended, or the reply was first seen."""
    tools: set[ToolUse] = field(default_factory=set)
    said: int = 0
    ended: bool = False
    timer: asyncio.TimerHandle | None = None
    held: bool = False
    """It is a draft, or held: looked at again when it is live."""

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Filler(Processor):
    """Says that it takes a moment, while a tool runs and the line is silent. Put it between the sentence
    aggregator and the voice.

    after, again
        Seconds of silence on the line before the first filler of a reply and before each other.
    lines
        What is said, one after the other and from the first again in the next reply. It belongs to the reply
        that waits, is interrupted with it and stands in the history like all that was heard.
    sound
        Played instead of the lines: the path of a WAV file, or bytes in the line's own format; 5 s at most.
    policy
        Instead of `after` and `again`: a function of the silence and of how many were said, see `Policy`.
    except_for
        Names of tools that are no reason to say anything: they wait for the caller himself.

    A draft and a held reply say nothing, nor does one whose text is complete, or over which the caller may be
    speaking. Raises DeclarationError for
    parameters that make no sense, and before any call is answered for a sound that cannot be read.
    """

    wants = (ToolStart, Sentence)
    emits = (Sentence, AudioOut)
    alone = True

    def __init__(
        self,
        after: float = 1.5,
        lines: Sequence[str] = ("One moment, please.", "I am still looking.", "Thank you for waiting."),
        *,
        sound: str | Path | bytes | None = None,
        again: float = 8.0,
        policy: Policy | None = None,
        except_for: Collection[str] = ("collect_keys",),
    ) -> None:
        if not all(isinstance(each, int | float) and each > 0 for each in (after, again)):
            raise DeclarationError(
                f"Filler(after={after!r}, again={again!r}): seconds of silence, above 0. "
                "What is said is given as lines=(...)"
            )
        if isinstance(lines, str) or isinstance(except_for, str):
            raise DeclarationError("Filler: lines and except_for take several texts, as in ('One moment.',)")
        if sound is None and not (lines and all(line.strip() for line in lines)):
            raise DeclarationError("Filler needs lines to say, each with words, or a sound")
        if isinstance(sound, str | Path) and not Path(sound).is_file():
            raise DeclarationError(f"Filler cannot find {sound}: give the path of a WAV file")
        self._fill = policy or waits(after, again)
        self._lines, self._sound = tuple(lines), sound
        self._except_for = frozenset(except_for)
        self._audio = b""
        self._said = 0
        self._asked: float | None = None
        """When the caller's turn ended that no reply was seen to answer yet."""
        # One live or held reply and one draft; what is dead is dropped when the next begins.
        self._waits: dict[Reply, _Wait] = {}

    async def warm(self) -> None:
        self._audio = await self.call.compute(self._read, 0.0)

    async def start(self) -> None:
        self._audio = self._read()

    async def stop(self) -> None:
        for wait in self._waits.values():
            wait.stop()
        self._waits.clear()

    def figures(self) -> Mapping[str, float]:
        return {"fillers": self._said}

    # -- frames

    @tap(TurnEnd)
    def asked(self, turn: TurnEnd) -> None:
        self._asked = self.call.loop.time()

    @on(ToolStart)
    def tool_began(self, frame: ToolStart) -> None:
        if frame.use.requested.name not in self._except_for and not frame.of.dead:
            self._of(frame.of).tools.add(frame.use)
            self._look(frame.of)

    @on(ToolEnd)
    def tool_ended(self, frame: ToolEnd) -> None:
        wait = self._waits.get(frame.of)
        if wait is not None:
            wait.tools.discard(frame.use)
            if not wait.tools:
                wait.stop()

    @on(Sentence, AudioOut)
    def spoken(self, frame: Sentence | AudioOut) -> Sentence | AudioOut:
        assert frame.reply is not None
        self._of(frame.reply).spoke = self.call.loop.time()
        return frame

    @on(ReplyEnd)
    def end(self, end: ReplyEnd) -> ReplyEnd:
        assert end.reply is not None
        wait = self._of(end.reply)
        wait.ended = True
        wait.stop()
        return end

    @on(Interrupt)
    def cut(self, interrupt: Interrupt) -> None:
        self._drop(interrupt.dead)

    # -- waiting

    def _of(self, reply: Reply) -> _Wait:
        wait = self._waits.get(reply)
        if wait is None:
            for dead in [known for known in self._waits if known.dead]:
                self._drop(dead)
            asked, self._asked = self._asked, None
            wait = self._waits[reply] = _Wait(asked if asked is not None else self.call.loop.time())
        return wait

    def _drop(self, reply: Reply) -> None:
        if (wait := self._waits.pop(reply, None)) is not None:
            wait.stop()

    def _look(self, reply: Reply) -> None:
        """Says a filler if it is time for one, and sets the timer for when it may be."""
        wait = self._waits.get(reply)
        if wait is None or wait.ended or reply.dead or not wait.tools:
            return
        wait.stop()
        if reply.state is not ReplyState.LIVE:
            if not wait.held:
                wait.held = True
                reply.when_live(lambda: self._go_on(reply))
            return
        try:
            left = self._left(wait)
            if left <= ROUNDING:
                self._speak(reply, wait)
                left = self._left(wait)
        except Exception as error:  # of a policy: we are in a callback
            self.fail(error)
            return
        if left < float("inf"):
            wait.timer = self.call.loop.call_later(left, self._look, reply)

    def _go_on(self, reply: Reply) -> None:
        if (wait := self._waits.get(reply)) is not None:
            wait.held = False
            self._look(reply)

    def _left(self, wait: _Wait) -> float:
        if self.call.turns.state.doubt is not Doubt.NONE:
            return PAUSE  # the caller may be speaking
        silent = min(self.call.silence(), self.call.loop.time() - wait.spoke)
        left = self._fill(silent, wait.said)
        return max(left, PAUSE - silent) if wait.said else left

    def _speak(self, reply: Reply, wait: _Wait) -> None:
        wait.said += 1
        wait.spoke = self.call.loop.time()
        if self._audio:
            self.push(AudioOut(self._audio, WORDLESS, reply=reply))
        else:
            self.push(Sentence(self._lines[(wait.said - 1) % len(self._lines)], reply=reply))
        self._said += 1

    def _read(self) -> bytes:
        format = self.call.line.format
        if self._sound is None:
            return b""
        if isinstance(self._sound, bytes):
            audio = self._sound
        else:
            from processors.play import recording

            audio = recording(Path(self._sound), format)
        seconds = len(audio) / format.sample_bytes / format.rate
        if not 0 < seconds <= LONGEST_SOUND:
            raise DeclarationError(
                f"Filler(sound=...): it lasts {seconds:.1f} s, and the answer waits for its end: "
                f"give one of {LONGEST_SOUND:g} s at most"
            )
        return audio
