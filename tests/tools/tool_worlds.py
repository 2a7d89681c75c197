"""A call whose answerer has tools, each step of it in the hands of the test; and a small model of the rules.

The world is real: Call, TurnKeeper, sink, line, ToolDesk. Only the language model is a script: at the first
gate it asks for all three tools at once, says what came of it, and at the second it asks to end the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.engine.engine_calls import Phone, phone, settled
from voiceflow import AudioOut, Call, Processor, Prompt, Reply, ReplyEnd, Word, on, tool
from voiceflow.engine.reply import ReplyState
from voiceflow.engine.turns import Floor
from voiceflow.frames import ToolEnd, ToolStart
from voiceflow.tools import Requested, ToolDesk, ToolUse, UseState

LIMIT = 500.0
"""Seconds each tool may take: longer than a path."""
ASKS, AGAIN = "book it and hang up", "hello?"
BOOKED, YES, NEWS = "Booked, bye.", "Yes.", "By the way."
NAMES = ("look", "book", "end")


class Answerer(Processor):
    """The owner of a desk. Answers ASKS with tools, anything else with a word."""

    needs = (Prompt,)
    emits = (AudioOut, ReplyEnd, ToolStart, ToolEnd)

    def __init__(self) -> None:
        self.gate: asyncio.Future[None] | None = None
        self.gates: dict[str, asyncio.Future[None]] = {}
        """Of the functions that run."""
        self.began: list[str] = []
        self.cues: list[str] = []
        self.read: list[tuple[str, UseState]] = []
        """What later answers read of tools."""
        self.ends: list[bool] = []
        tools = [
            tool(effect=effect, limit=LIMIT, name=name)(getattr(self, f"_{name}"))
            for name, effect in zip(NAMES, ("read", "commit", "terminal"), strict=True)
        ]
        self.desk = ToolDesk(self, tools)
        self.stop_timeout = self.desk.closing_limit  # type: ignore[misc]

    async def stop(self) -> None:
        await self.desk.close()

    @on(Prompt)
    async def answer(self, prompt: Prompt) -> AsyncIterator[AudioOut | ReplyEnd]:
        reply = prompt.reply
        assert reply is not None
        self.desk.answering(reply, prompt.history)
        uses = [use for use in prompt.history if isinstance(use, ToolUse)]
        self.read += [(use.requested.name, use.state) for use in uses]
        self.cues += [prompt.cue] if prompt.cue else []
        if prompt.text == ASKS:
            await self._gate()
            await self._ask(reply, *NAMES)
            yield spoken(BOOKED)
            await self._gate()
            self.ends.append(await self._ask(reply, "end"))
        else:
            yield spoken(NEWS if prompt.cue else YES)
        yield ReplyEnd()

    async def _gate(self) -> None:
        self.gate = asyncio.get_running_loop().create_future()
        try:
            await self.gate
        finally:
            self.gate = None

    async def _ask(self, reply: Reply, *names: str) -> bool:
        requested = [Requested(f"{name}-1", name, "") for name in names]
        ran = await self.desk.run(reply, requested, self.desk.tools)
        assert all(use.state.over or ran.ends for use in ran.uses)
        return ran.ends

    async def _look(self) -> str:
        await self._function("look")
        return "found"

    async def _book(self, call: Call) -> str:
        live = call.turns.live
        assert live is not None
        assert live.state is ReplyState.LIVE
        await self._function("book")
        return "booked"

    async def _end(self, call: Call) -> None:
        assert call.turns.live is None
        assert call.turns.state.floor is Floor.FREE
        await self._function("end")
        call.end("hung up")

    async def _function(self, name: str) -> None:
        assert name not in self.gates
        self.began.append(name)
        self.gates[name] = asyncio.get_running_loop().create_future()
        try:
            await self.gates[name]
        finally:
            del self.gates[name]


def spoken(text: str) -> AudioOut:
    """0.1 s, of which the ledger knows when each word is said: also when more may follow."""
    words = text.split()
    each = 0.1 / len(words)
    aligned = tuple(Word(word, place * each, (place + 1) * each) for place, word in enumerate(words))
    return AudioOut(b"\x55" * 800, text, aligned)


@dataclass
class Answer:
    """A reply, as the model of the rules sees it."""

    kind: str
    state: str = "live"
    stage: str = "asked"
    uses: list[list[str]] = field(default_factory=list)
    """Name and state of each, in the order asked."""
    said: str = ""
    """Not heard yet."""
    heard: str = ""
    asking: bool = False
    """The gate is open, and the answerer has not come to it yet."""

    @property
    def alive(self) -> bool:
        return self.state in ("draft", "live")

    def use(self, name: str) -> list[str] | None:
        return next((use for use in reversed(self.uses) if use[0] == name), None)


class Rules:
    """What must be so after each step, by the rules at the top of desk.py and those of the turns."""

    def __init__(self) -> None:
        self.floor = "speaking"
        self.current: Answer | None = None
        self.history: list[list[str]] = []
        self.began: list[str] = []
        self.commit: list[str] | None = None
        self.commit_from: Answer | None = None
        self.terminal: list[str] | None = None
        self.teller: Answer | None = None
        """Whose being heard tells what came of the commit."""
        self.told = False
        self.tries = 0
        self.over = False
        self.done: dict[str, int] = {}

    # -- steps

    def enabled(self, bounds: dict[str, int]) -> list[str]:
        """What may happen next."""
        if self.over:
            return []
        now, floor = self.current, self.floor
        heard = now is not None and now.state == "live" and now.stage == "ended"
        can = {
            "draft": floor == "speaking",
            "resumed": floor == "maybe",
            "confirmed": floor != "free",
            "interrupt": floor == "free",
            "stopped": now is not None and now.state == "live",
            "ask": now is not None and now.alive and now.stage in ("gate 1", "gate 2") and not now.asking,
            "look ends": now is not None and now.alive and now.use("look") == ["look", "running"],
            "book ends": self.commit is not None and self.commit[1] == "running",
            "end ends": self.terminal is not None and self.terminal[1] == "running",
            "played": now is not None and now.state == "live" and bool(now.said or heard),
            "interrupt as it is heard": heard,
            "interrupt once it is heard": heard,
        }
        return [step for step, may in can.items() if may and self.done.get(step, 0) < bounds.get(step, 9)]

    def step(self, step: str) -> None:
        self.done[step] = self.done.get(step, 0) + 1
        now = self.current
        match step:
            case "draft":
                self.floor = "maybe"
                self._open("draft", first=not self._turns())
            case "resumed":
                self.floor = "speaking"
                self._kill()
            case "confirmed":
                self.history.append(["user", AGAIN if self._turns() else ASKS])
                if self.floor == "maybe":
                    assert now is not None
                    now.state = "live"
                    self.history += now.uses
                else:
                    self._open("live", first=self._turns() == 1)
                self.floor = "free"
            case "interrupt":
                self._kill()
                self.floor = "speaking"
            case "stopped":
                self._kill()
                self._set(self.terminal, "cancelled", "waiting")
            case "ask":
                assert now is not None
                now.asking = True
            case "look ends":
                assert now is not None
                self._set(now.use("look"), "done")
            case "book ends":
                self._set(self.commit, "done")
            case "end ends":
                self._set(self.terminal, "done")
                self.end()
            case "played" | "interrupt as it is heard" | "interrupt once it is heard":
                assert now is not None
                now.heard, now.said = f"{now.heard} {now.said}".strip(), ""
                if now.stage == "ended":
                    now.state = "over"
                    self._close(now)
                if step != "played":
                    self.floor = "speaking"
                    self._set(self.terminal, "cancelled", "waiting")

    def settle(self) -> None:
        """Everything that follows by itself has happened."""
        before = None
        while before != (before := self._shape()) and not self.over:
            self._follow()

    def end(self) -> None:
        """The call is over."""
        self.over = True
        self._kill()
        self._set(self.terminal, "cancelled", "waiting")

    # -- what follows by itself

    def _follow(self) -> None:
        now = self.current
        if now is not None and now.alive:
            self._answer(now)
            if now.state == "live" and now.stage == "ended" and not now.said:
                now.state = "over"  # all of it was heard when its end came
                self._close(now)
        if self.floor == "free" and (self.current is None or not self.current.alive):
            if self._untold():
                self.tries += 1
                self.current = self.teller = Answer("news", stage="ended", said=NEWS)
            elif self.terminal is not None and self.terminal[1] == "waiting":
                self._set(self.terminal, "running", "waiting")
                self.began.append("end")

    def _answer(self, now: Answer) -> None:
        if now.stage == "asked":
            now.stage, now.said = ("gate 1", "") if now.kind == "asks" else ("ended", YES)
        if now.asking:
            now.asking = False
            if now.stage == "gate 1":
                self._asked(now, ["look", "running"], ["book", "waiting"], ["end", "refused"])
                self.began.append("look")
                now.stage = "run 1"
            else:
                use = ["end", "waiting"]
                self._asked(now, use)
                self.terminal, now.stage = use, "ended"
        book = now.use("book")
        if book is not None and book[1] == "waiting" and now.state == "live":
            book[1] = "running"
            self.commit, self.commit_from = book, now
            self.began.append("book")
        if now.stage == "run 1" and all(use[1] in ("done", "refused") for use in now.uses):
            now.stage, now.said = "gate 2", BOOKED
            self.teller = now

    def _asked(self, now: Answer, *uses: list[str]) -> None:
        now.uses += uses
        if now.state == "live":
            self.history += uses

    def _open(self, state: str, *, first: bool) -> None:
        """An answer that is begun with the commit's result in view tells it."""
        self.current = Answer("asks" if first else "again", state)
        if self.commit is not None and self.commit[1] == "done":
            self.teller = self.current

    def _untold(self) -> bool:
        if self.commit is None or self.commit[1] != "done" or self.told or self.tries == 3:
            return False
        return not (self.commit_from is not None and self.commit_from.alive)

    def _kill(self) -> None:
        now = self.current
        if now is None or not now.alive:
            return
        now.state = "dead"
        for use in now.uses:
            if use[0] == "look":
                self._set(use, "cancelled", "running")
            else:
                self._set(use, "cancelled", "waiting")
        self._close(now)

    def _close(self, now: Answer) -> None:
        if now.heard:
            self.history.append(["assistant", now.heard])
        if now is self.teller and (now.heard or now.state == "over"):
            self.told = True

    def _set(self, use: list[str] | None, state: str, was: str = "running") -> None:
        if use is not None and use[1] == was:
            use[1] = state

    def _turns(self) -> int:
        return sum(1 for entry in self.history if entry[0] == "user")

    def _shape(self) -> str:
        return repr((self.floor, self.current, self.commit, self.terminal, self.tries, self.told))


class World:
    """The same steps, taken in a real call."""

    def __init__(self, it: Phone, answerer: Answerer) -> None:
        self.phone, self.answerer, self.call = it, answerer, it.call
        self.turns = it.turner.turns
        self._seen: set[Reply] = set()
        self._cut_in = False

    async def step(self, step: str) -> None:
        """Takes a step. Nothing has come of it when this returns: see `settle`."""
        answerer = self.answerer
        words = AGAIN if any(entry.role == "user" for entry in self.call.history.messages) else ASKS
        match step:
            case "draft":
                self.turns.may_be_over(words)
            case "resumed":
                self.turns.resumed()
            case "confirmed":
                self.turns.ended(words)
            case "interrupt":
                self.turns.started()
            case "stopped":
                self.turns.stop("enough")
            case "ask":
                assert answerer.gate is not None
                answerer.gate.set_result(None)
            case "look ends" | "book ends" | "end ends":
                answerer.gates[step.split()[0]].set_result(None)
            case "played":
                await self._played()
            case "interrupt as it is heard":
                self._cut_in = True
                await self._played()
            case "interrupt once it is heard":
                live = self.call.turns.live
                assert live is not None
                self.call.turns.outcome(live).add_done_callback(lambda _: self.turns.started())
                await self._played()

    async def _played(self) -> None:
        """The live reply is over, or, if it is not to its end yet, what there is of it."""
        live = self.call.turns.live
        assert live is not None
        await asyncio.wait([self.call.turns.outcome(live)], timeout=5)

    async def settle(self) -> None:
        await settled(24)
        live = self.call.turns.live
        if live is not None and live not in self._seen:  # told before the desk, which asks later
            self._seen.add(live)
            self.call.turns.outcome(live).add_done_callback(self._was_heard)

    def _was_heard(self, _: object) -> None:
        if self._cut_in:
            self._cut_in = False
            self.turns.started()

    def check(self, rules: Rules, path: object) -> None:
        """What is, is what must be."""
        history = [
            [use.requested.name, use.state.value] if isinstance(use, ToolUse) else [use.role, use.content]
            for use in self.call.history.messages
        ]
        assert history == rules.history, (path, history, rules.history)
        assert self.answerer.began == rules.began, path
        now = rules.current
        running = sorted(
            use[0]
            for use in (now.use("look") if now is not None else None, rules.commit, rules.terminal)
            if use is not None and use[1] == "running"
        )
        assert sorted(self.answerer.gates) == running, path
        assert all(self.answerer.ends), path
        # No later answer is told that something still runs which is cancelled already.
        for name, state in self.answerer.read:
            assert state.over or (state is UseState.RUNNING and name != "look"), path
        assert len(self.answerer.cues) == rules.tries, path
        assert all("book: booked" in cue for cue in self.answerer.cues), path

    async def end(self, rules: Rules, path: object, *, wait: bool) -> bool:
        """The call ends now. What has begun and changes something goes on, and then ends as it should; if the
        test `waits`, at its limit. Whether there was such a thing."""
        rules.end()
        self.call.end("the test ends it")
        await self.settle()
        uses = [use for use in self.call.history.messages if isinstance(use, ToolUse)]
        begun = sorted(use.requested.name for use in uses if use.state is UseState.RUNNING)
        assert sorted(self.answerer.gates) == begun, path
        assert "look" not in begun, path
        for gate in self.answerer.gates.values() if not wait else ():
            gate.set_result(None)
        for use in (rules.commit, rules.terminal):
            if use is not None and use[1] == "running":
                use[1] = "timed out" if wait else "done"
        return bool(begun)

    def check_over(self, rules: Rules, path: object) -> None:
        """The call is over."""
        rules_say = [entry for entry in rules.history if entry[0] in NAMES]
        uses = [use for use in self.call.history.messages if isinstance(use, ToolUse)]
        assert [[use.requested.name, use.state.value] for use in uses] == rules_say, path
        assert self.answerer.began == rules.began, path
        assert not self.answerer.gates, path
        for use in uses:
            took = 0.0 if use.began is None or use.ended is None else use.ended - use.began
            assert took <= LIMIT, path
            assert (use.state is UseState.TIMED_OUT) == (took == LIMIT), path
        assert self.phone.result is not None
        assert self.phone.result.fault is None, path


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    answerer = Answerer()
    async with phone(answerer, **options) as it:
        made = World(it, answerer)
        made.turns.started()
        yield made
