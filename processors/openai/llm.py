"""ChatLLM: answers what the caller has said, with a language model that streams chat completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from processors.openai import chat
from processors.openai.failure import ModelFailed, Silent
from processors.openai.model import Address, Model, Target, targets_of
from processors.openai.rounds import Round
from processors.openai.spending import Account, Spending
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.errors import DeclarationError, LinkError, LinkRefused
from voiceflow.frames import CallStart, Prompt, ReplyEnd, Token, ToolEnd, ToolStart, TurnStart
from voiceflow.tools.desk import ToolDesk
from voiceflow.tools.tool import Tool

if TYPE_CHECKING:
    from processors.openai.completion import Completion
    from processors.openai.endpoint import Endpoint
    from voiceflow.http import Lane
    from voiceflow.pool import WarmPool


class ChatLLM(Processor):
    """Answers a Prompt with Tokens as the model gives them. Works with every server that speaks OpenAI's
    chat completions: see `base_url` and `Model`.

    A processor before it may change the Prompt: `instructions` are added to its own, `text` and `history` are
    what the model reads. The assistant's part of the history is what the caller has heard, from the ledger.

    model, instructions
        Which model (a name, or a Model), and how it should behave.
    tools
        Functions that the model may call: see `voiceflow.tools`. Those that it asks for in an answer are run,
        and it is asked again with their results, in the same reply.
    tool_rounds
        Requests of one reply at most. In the last the model may not call anything, and so has to answer.
    greeting
        Said as soon as the line is open, unless the caller speaks first.
    temperature, max_tokens, options
        Sampling; `options` are further fields of the request ("top_p", "reasoning_effort").
    api_key, base_url
        Else OPENAI_API_KEY and OPENAI_BASE_URL. A key is demanded only by OpenAI itself.
    first_token_timeout
        Seconds that one model may take until its first word. A caller who hears nothing says "hello?" after
        about four, and that is a new turn.
    patience
        Seconds from the Prompt within which some model must have begun, whatever fails meanwhile: the bound
        of the caller's silence, apart from the time that the voice needs. Anew after tools have run.
    token_timeout
        Seconds between two pieces of text. What was said before is still being spoken in the meantime.
    fallback
        Models asked in turn while nothing of the answer has come.
    sorry, unheard
        Said when no model could answer or one broke off, and when the caller's turn held no words.
    give_up_after
        So many replies in a row without an answer end the call, so that the carrier's fallback is heard.
    stream_options
        False for a server that refuses the field; then no usage is counted.
    alternate
        True for chat templates that insist on user and assistant in turn (Mistral's, Gemma's).

    Raises DeclarationError for a parameter that makes no sense, and before any call is answered LinkRefused
    when the server refuses the key. An error that a second try cannot mend is logged once in a call.
    """

    needs = (Prompt,)
    emits = (Token, ReplyEnd, ToolStart, ToolEnd)

    def __init__(
        self,
        model: str | Model = "gpt-4o-mini",
        *,
        instructions: str = "",
        tools: Sequence[Tool] = (),
        tool_rounds: int = 8,
        greeting: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
        options: Mapping[str, Any] | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        first_token_timeout: float = 4.0,
        patience: float = 6.0,
        token_timeout: float = 3.0,
        fallback: str | Model | Sequence[str | Model] = (),
        sorry: str = "I'm sorry, something went wrong. Could you say that again?",
        unheard: str = "Sorry, I did not catch that.",
        give_up_after: int = 3,
        stream_options: bool = True,
        alternate: bool = False,
    ) -> None:
        for name, value in (
            ("first_token_timeout", first_token_timeout),
            ("patience", patience),
            ("token_timeout", token_timeout),
            ("give_up_after", give_up_after),
            ("max_tokens", 1 if max_tokens is None else max_tokens),
        ):
            if not value > 0:
                raise DeclarationError(f"ChatLLM({name}={value}): it has to be above 0")
        if tool_rounds < 2:
            raise DeclarationError(
                f"ChatLLM(tool_rounds={tool_rounds}): 2 at least, one request that asks for a tool and one "
                "that has its result"
            )
        others = [fallback] if isinstance(fallback, str | Model) else list(fallback)
        self.targets = targets_of([model, *others], base_url, api_key, options or {})
        self.desk = ToolDesk(self, tools)
        self.tools = self.desk.tools
        self.tool_rounds = tool_rounds
        self.keys = (*(t.address.key for t in self.targets if t.address.official), *self.desk.keys)
        self._allow_for(self.desk.closing_limit)
        self.instructions, self.greeting = instructions, greeting
        self.temperature, self.max_tokens = temperature, max_tokens
        self.first_token_timeout, self.patience = first_token_timeout, patience
        self.token_timeout = token_timeout
        self.sorry, self.unheard = sorry, unheard
        self.give_up_after = give_up_after
        self.stream_options, self.alternate = stream_options, alternate
        self._spending = Spending()
        self._told: set[str] = set()
        self._failed_in_a_row = 0
        self._expecting = self._spoken_to = False
        self._greeting: asyncio.Task[None] | None = None

    # -- life

    async def warm(self) -> None:
        for address in self._addresses():
            try:
                await self._endpoint(address).warm()
            except LinkRefused:
                raise
            except LinkError as error:
                self.call.log.warning(f"{self.name}: {error}; calls are answered all the same")

    async def start(self) -> None:
        for address in self._addresses():
            self._endpoint(address).transport.pool.refill()
        self._pool().expect(1)
        self._expecting = True

    async def stop(self) -> None:
        if self._expecting:
            self._expecting = False
            self._pool().expect(-1)
        await self.desk.close()

    def figures(self) -> dict[str, float]:
        return {**self._spending.figures(), **self.desk.figures()}

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

    # -- answers

    @on(Prompt)
    async def answer(self, prompt: Prompt) -> AsyncIterator[Token | ReplyEnd]:
        if not (prompt.text.strip() or prompt.cue.strip()):
            yield Token(self.unheard)
            yield ReplyEnd()
            return
        reply = prompt.reply
        assert reply is not None
        account = self._spending.account(reply)
        tools = self.desk.offered(prompt)
        self._allow_for(max((tool.limit for tool in prompt.tools), default=0.0) + 1.0)
        earlier: list[chat.Earlier] = []  # tool_rounds at most
        current: Round | None = None
        spoke = over = False
        try:
            while True:
                last = len(earlier) + 1 == self.tool_rounds
                current = self._round(prompt, tools, earlier, account, last=last)
                async with aclosing(current.pieces()) as pieces:
                    async for text in pieces:
                        spoke = True
                        yield Token(text)
                if current.failure is not None or not current.requested:
                    break
                asked, current = current, None
                self._failed_in_a_row = 0
                self.spawn(asked.finish(), "the end of an answer")  # its connection is free while tools run
                ran = await self.desk.run(reply, asked.requested, tools)
                if ran.ends or not ran.uses:
                    break
                earlier.append(chat.Earlier(asked.said, tuple(ran.uses)))
            over = True
            if current is not None:
                if current.failure is not None:  # of a draft that is dropped it has failed nobody
                    await reply.until_live()
                if (sorry := self._ended(current, account, spoke=spoke)) is not None:
                    yield sorry
                yield ReplyEnd()
                await current.finish()
            else:
                yield ReplyEnd()
        finally:
            if current is not None:
                await current.close()
            if not over:
                account.add("cancelled")

    def _round(
        self,
        prompt: Prompt,
        tools: Sequence[Tool],
        earlier: Sequence[chat.Earlier],
        account: Account,
        *,
        last: bool,
    ) -> Round:
        def ask(place: int, until: float) -> Completion:
            assert prompt.reply is not None
            self.desk.answering(prompt.reply, [*prompt.history, *(u for each in earlier for u in each.uses)])
            messages = chat.messages(self.instructions, prompt, earlier, alternate=self.alternate)
            return self._ask(self.targets[place], messages, tools, until, last=last)

        return Round(
            ask,
            len(self.targets),
            self.call.loop.time() + self.patience,
            account=account,
            failed=self._tell,
            # Nine letters and digits: Mistral takes no other ids.
            new_id=lambda: f"{self.call.random.getrandbits(36):09x}",
        )

    def _ask(
        self,
        target: Target,
        messages: list[chat.Message],
        tools: Sequence[Tool],
        until: float,
        *,
        last: bool,
    ) -> Completion:
        from processors.openai.completion import Completion

        body = chat.body(
            target.model,
            messages,
            target.options,
            official=target.address.official,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            stream_options=self.stream_options,
            tools=tools,
            withheld=last,
        )
        first_by = min(self.call.loop.time() + self.first_token_timeout, until)
        return Completion(
            self._endpoint(target.address),
            target,
            body,
            first_by=first_by,
            gap=self.token_timeout,
            tools=bool(tools) and not last,
        )

    def _ended(self, round: Round, account: Account, *, spoke: bool) -> Token | None:
        """The last round of a reply is over: what is said instead of an answer, or of the rest of one.
        Raises the failure when it is one too many."""
        failure = round.failure
        if failure is None or (spoke and isinstance(failure, Silent)):  # after tools, all may have been said
            self._failed_in_a_row = 0
            if round.unusual:
                self.call.trace.note(self.name, round.unusual)
            return None
        account.add("failed")
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self.give_up_after:
            raise failure
        # A Token, not a Sentence: what the aggregator holds comes first, and the line break ends it.
        return Token(f"\n{self.sorry}" if spoke else self.sorry)

    def _tell(self, failure: ModelFailed) -> None:
        """Into the trace each time, into the log once."""
        said = str(failure)
        self.call.trace.note(self.name, said)
        if said not in self._told:
            self._told.add(said)
            log = self.call.log.bind(noted=True)
            log.log("WARNING" if failure.passing else "ERROR", f"{self.name}: {said}")

    def _allow_for(self, closing: float) -> None:
        """`stop` waits for what tools have begun to change, so many seconds at most."""
        self.stop_timeout = max(self.stop_timeout, closing + 1.0)

    # -- what all calls share

    def _addresses(self) -> list[Address]:
        return list(dict.fromkeys(target.address for target in self.targets))

    def _endpoint(self, address: Address) -> Endpoint:
        services = self.call.services

        def make() -> Endpoint:
            from processors.openai.endpoint import Endpoint

            return Endpoint(address, services.transport)

        return services.shared(("chat completions", address.url, address.key.value), make)

    def _pool(self) -> WarmPool[Lane]:
        return self._endpoint(self.targets[0].address).transport.pool
