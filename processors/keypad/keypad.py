"""Keypad: collects the keys that the caller presses, for whoever asks; the others become his words.

Dtmf ──▶ somebody collects ──▶ Entry          `await keys.read(...)`, or the tool `keys.collect`
    └──▶ nobody does ──▶ type-ahead ──pause──▶ "(The caller pressed 1 2.)"   a turn of its own, or
                             │                                              with the words of the next
                             └── the next who collects begins with them
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from processors.keypad.entry import KEYS, MOST, End, Entry, Wanted
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.reply import ReplyState
from voiceflow.engine.turns import Floor
from voiceflow.errors import CallEnded, DeclarationError, VoiceflowError
from voiceflow.frames import Dtmf, Heard, Interrupt, Prompt, TurnEnd
from voiceflow.tools.tool import ToolWithdrawn, tool

REASON = "the caller pressed a key"
LONGEST = 60.0
"""Seconds that collecting may take, whatever happens meanwhile."""
STATE = "keypad"
"""Where in `call.state` the keys of a secret entry are put."""


class KeypadBusy(VoiceflowError):
    """Keys are being collected already, and one key cannot belong to two entries."""


@dataclass(slots=True, eq=False)
class _Collection:
    wanted: Wanted
    timeout: float
    gap: float
    began: float
    done: asyncio.Future[Entry]
    keys: str = ""
    timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class Keypad(Processor):
    """Collects keys. Put it between the turn's authority and the model.

    timeout, gap
        Seconds of silence until the first key of an entry that somebody waits for, and between its keys.
    terminator
        The key that ends an entry; "" for none.
    pause
        Seconds after which keys that nobody asked for are what the caller said: "(The caller pressed 1 2.)"
        is a turn, or goes with the words that he is speaking then.
    interrupts
        The first key stops what the agent is saying, unless that is protected. A tool that collects goes on.
        False: keys wait until the agent has finished.
    secret
        The model, the history, the log and the trace are told only how many keys were pressed. The keys
        themselves are in `call.state["keypad"]`, for your tools; what is recorded of the line is not changed.

    At most 64 keys wait for somebody who wants them; more are counted as `keys_lost`. Raises DeclarationError
    for parameters that make no sense.
    """

    wants = (TurnEnd,)
    alone = True

    def __init__(
        self,
        *,
        timeout: float = 10.0,
        gap: float = 4.0,
        terminator: str = "#",
        pause: float = 1.5,
        interrupts: bool = True,
        secret: bool = False,
    ) -> None:
        for name, value in (("timeout", timeout), ("gap", gap), ("pause", pause)):
            if not 0 < value <= LONGEST:
                raise DeclarationError(f"Keypad({name}={value}): seconds, above 0 and {LONGEST:g} at most")
        self._usual = Wanted(terminator=terminator)
        self.timeout, self.gap, self.pause = timeout, gap, pause
        self.interrupts, self.secret = interrupts, secret
        self._collecting: _Collection | None = None
        self._ahead: deque[str] = deque(maxlen=MOST)
        """Keys that nobody asked for so far."""
        self._entries: list[str] = []  # MOST keys with those in `_ahead`, and one entry that was collected
        """Entries that nobody asked for, and that the model does not know yet."""
        self._timer: asyncio.TimerHandle | None = None
        self._habit: tuple[str, float] | None = None
        """A terminator that belongs to an entry which was full before it, and until when."""
        self._own = ""
        """The words of the turn that was made of keys."""
        self._counted = dict.fromkeys(("keys", "keys_lost", "entries"), 0.0)

    def figures(self) -> Mapping[str, float]:
        return dict(self._counted)

    async def stop(self) -> None:
        self._unset()
        if (collecting := self._collecting) is not None:
            collecting.stop()
            if not collecting.done.done():
                collecting.done.set_exception(CallEnded("the call ended before all keys were pressed"))

    # -- for those who want keys

    async def read(
        self,
        digits: int | tuple[int, int] | None = None,
        *,
        terminator: str | None = None,
        timeout: float | None = None,
        gap: float | None = None,
    ) -> Entry:
        """Waits for an entry of `digits` keys: exactly so many, (least, most), or None for any number.

        `timeout` and `gap` in seconds, as for the Keypad. The timeout begins when the agent has finished
        speaking. Over after 60 seconds at the latest. Keys that were pressed before and that the model does
        not know yet count. When the caller speaks a turn before any key, the entry ended with `End.WORDS`.

        Raises KeypadBusy while another entry is collected, CallEnded when the call ends first, and
        DeclarationError for what no caller could enter.
        """
        if self._collecting is not None:
            raise KeypadBusy("keys are being collected already: wait until that entry is complete")
        collecting = self._collecting = _Collection(
            Wanted.of(digits, self._usual.terminator if terminator is None else terminator),
            timeout if timeout is not None else self.timeout,
            gap if gap is not None else self.gap,
            self.call.loop.time(),
            self.call.loop.create_future(),
        )
        self._unset()
        try:
            while self._ahead and not collecting.done.done():
                self._take(collecting, self._ahead.popleft())
            self._await_key(collecting)
            return await collecting.done
        finally:
            collecting.stop()
            self._collecting = None
            if collecting.done.cancelled() or not collecting.done.done():  # whoever asked has given up
                self._ahead.extendleft(reversed(collecting.keys))
            self._follow_habit()
            self._await_pause()

    @tool(effect="commit", limit=LONGEST + 5.0, name="collect_keys")
    async def collect(
        self,
        digits: Annotated[int, Field(ge=1, le=MOST)] | None = None,
        end_key: Literal["#", "*", "none"] = "#",
        wait: Annotated[float, Field(ge=2.0, le=30.0)] = 10.0,
    ) -> str:
        """Wait for the caller to type digits on the phone's keypad. Ask for them in the same answer, first.

        digits: how many are expected; leave it out if that is not known
        end_key: the key with which the caller ends the entry
        wait: seconds to wait for the first key
        """
        asked_by = self.call.turns.live
        try:
            entry = await self.read(digits, terminator="" if end_key == "none" else end_key, timeout=wait)
        except CallEnded:
            raise ToolWithdrawn("The caller hung up before all keys were pressed.") from None
        if entry.ended is End.WORDS:
            raise ToolWithdrawn("The caller spoke instead of typing.")
        if asked_by is None or not asked_by.dead:
            return self._result(entry, digits)
        if not entry.keys:
            raise ToolWithdrawn("The caller did not type anything.")
        # The answer that was to have the result is gone: the keys are what the caller says next.
        self._entries.append(entry.keys)
        self._speak_for_caller()
        raise ToolWithdrawn("The caller typed while you were speaking: the keys follow as a message.")

    # -- frames

    @tap(Dtmf)
    def key(self, frame: Dtmf) -> None:
        if frame.digit not in KEYS:
            return
        self._counted["keys"] += 1
        self._interrupt()
        collecting = self._collecting
        if collecting is not None and not collecting.done.done():
            self._take(collecting, frame.digit)
            self._await_key(collecting)
        elif not self._is_habit(frame.digit):
            self._keep(frame.digit)

    @tap(TurnEnd)
    def turn_over(self, turn: TurnEnd) -> None:
        collecting = self._collecting
        spoken = bool(turn.text.strip()) and turn.text != self._own
        if collecting is not None and spoken and not (collecting.keys or collecting.done.done()):
            collecting.done.set_result(collecting.wanted.entry("", End.WORDS))

    @on(Prompt)
    def add(self, prompt: Prompt) -> Prompt:
        """What was typed while the caller was speaking goes with his words, once they are answered."""
        if not self._entries or prompt.cue:
            return prompt
        reply, taken = prompt.reply, len(self._entries)
        words = self._words(self._entries)
        assert reply is not None
        reply.when_live(lambda: self._was_added(taken, words))
        return replace(prompt, text=f"{prompt.text} {words}".strip())

    @on(Heard)
    def heard(self, heard: Heard) -> None:
        if heard.final and self._entries:
            self.call.loop.call_soon(self._speak_for_caller)

    @on(Interrupt)
    def cut(self, interrupt: Interrupt) -> None:
        if self._entries:
            self.call.loop.call_soon(self._speak_for_caller)

    # -- an entry that somebody wants

    def _take(self, collecting: _Collection, key: str) -> None:
        taken = collecting.wanted.take(collecting.keys, key)
        if isinstance(taken, str):
            collecting.keys = taken
        else:
            self._complete(collecting, taken)

    def _complete(self, collecting: _Collection, entry: Entry) -> None:
        collecting.stop()
        self._counted["entries"] += 1
        if entry.ended is End.FULL and collecting.wanted.terminator:
            self._habit = (collecting.wanted.terminator, self.call.loop.time() + collecting.gap)
        collecting.done.set_result(entry)

    def _await_key(self, collecting: _Collection) -> None:
        collecting.stop()
        if collecting.done.done():
            return
        loop = self.call.loop
        left = collecting.began + LONGEST - loop.time()
        wait = min(collecting.gap if collecting.keys else self._first_left(collecting), left)
        collecting.timer = loop.call_later(max(wait, 0.0), self._no_key, collecting)

    def _first_left(self, collecting: _Collection) -> float:
        """Seconds left for the first key: they count while nobody speaks."""
        silent = min(self.call.silence(), self.call.loop.time() - collecting.began)
        return collecting.timeout - silent

    def _no_key(self, collecting: _Collection) -> None:
        if collecting.done.done():
            return
        left = collecting.began + LONGEST - self.call.loop.time()
        if not collecting.keys and self._first_left(collecting) > 1e-6 and left > 1e-6:
            self._await_key(collecting)  # somebody spoke meanwhile
            return
        self._complete(collecting, collecting.wanted.entry(collecting.keys, End.TIMEOUT))

    def _result(self, entry: Entry, digits: int | None) -> str:
        if not entry.keys:
            return "The caller pressed no key."
        short = f" ({digits} were asked for)" if digits is not None and not entry.complete else ""
        if self.secret:
            self.call.state[STATE] = entry.keys
            return f"entered, {len(entry.keys)} digits{short}"
        return f"{entry.spoken}{short}"

    # -- keys that nobody wants so far

    def _keep(self, key: str) -> None:
        if len(self._ahead) + sum(map(len, self._entries)) >= MOST:
            self._counted["keys_lost"] += 1
            return
        self._ahead.append(key)
        if self._collecting is None:
            self._await_pause()
            if key == self._usual.terminator:
                self._paused()

    def _follow_habit(self) -> None:
        if self._ahead and self._is_habit(self._ahead[0]):
            self._ahead.popleft()

    def _is_habit(self, key: str) -> bool:
        """Whether it is the terminator of an entry that was full without it."""
        habit, self._habit = self._habit, None
        return habit is not None and key == habit[0] and self.call.loop.time() <= habit[1]

    def _await_pause(self) -> None:
        self._unset()
        if self._ahead:
            self._timer = self.call.loop.call_later(self.pause, self._paused)

    def _unset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _paused(self) -> None:
        """What was typed is an entry, and what the caller has to say."""
        self._unset()
        keys = "".join(self._ahead)
        self._ahead.clear()
        self._counted["entries"] += 1
        self._entries.append(keys.removesuffix(self._usual.terminator) or keys)
        self._speak_for_caller()

    def _speak_for_caller(self) -> None:
        """Begins and ends a turn, if the floor is free for that. Else the next Prompt takes the entries."""
        if not self._entries:
            return
        turns = self.call.turns
        if turns.state.floor is not Floor.FREE:
            return
        if turns.live is not None and not self.interrupts:
            return
        if turns.live is not None and not turns.protected:
            turns.stop(REASON)  # in doubt it gives the caller the floor
        if turns.state.floor is Floor.FREE:
            self._own = self._words(self._entries)
            self._forget(len(self._entries))
            turns.ended(self._own)

    def _was_added(self, taken: int, words: str) -> None:
        self._forget(taken)
        self.call.history.caller_said(words)

    def _forget(self, taken: int) -> None:
        if self.secret:
            self.call.state[STATE] = "".join(self._entries[:taken])
        del self._entries[:taken]

    def _words(self, entries: list[str]) -> str:
        if self.secret:
            return f"(The caller entered {sum(map(len, entries))} digits.)"
        return " ".join(f"(The caller pressed {' '.join(keys)}.)" for keys in entries)

    def _interrupt(self) -> None:
        turns = self.call.turns
        live = turns.live
        if not self.interrupts or live is None or turns.protected:
            return
        playing = turns.progress.begun and self.call.silence() == 0.0
        if live.state is ReplyState.HELD or playing:
            turns.stop(REASON)
