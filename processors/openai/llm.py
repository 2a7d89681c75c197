"""ChatLLM: answers what the caller has said, with a language model that streams chat completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from processors.openai import chat
from processors.openai.failure import Attempts, ModelFailed
from processors.openai.model import Address, Model, Target, targets_of
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.errors import DeclarationError, LinkError, LinkRefused
from voiceflow.frames import CallStart, Prompt, ReplyEnd, Token, TurnStart

if TYPE_CHECKING:
    from processors.openai.completion import Completion
    from processors.openai.endpoint import Endpoint
    from voiceflow.http import Lane
    from voiceflow.pool import WarmPool

FIGURES = (
    "requests", "tokens", "cancelled", "failed", "retries", "fallbacks", "prompt_tokens", "completion_tokens",
    "pool_hits", "pool_misses", "saved_ms",
)  # fmt: skip
UNUSUAL = {
    "length": "the answer was cut at max_tokens",
    "content_filter": "the content filter cut the answer",
    "tool_calls": "the model asked for a function, which ChatLLM does not call yet",
}
"""Ways in which an answer with words may end that are worth a note."""


class ChatLLM(Processor):
    """Answers a Prompt with Tokens as the model gives them. Works with every server that speaks OpenAI's
    chat completions: see `base_url` and `Model`.

    A processor before it may change the Prompt: `instructions` are added to its own, `text` and `history` are
    what the model reads. The assistant's part of the history is what the caller has heard, from the ledger.

    model, instructions
        Which model (a name, or a Model), and how it should behave.
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
        of the caller's silence, apart from the time that the voice needs.
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
    emits = (Token, ReplyEnd)

    def __init__(
        self,
        model: str | Model = "gpt-4o-mini",
        *,
        instructions: str = "",
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
        others = [fallback] if isinstance(fallback, str | Model) else list(fallback)
        self.targets = targets_of([model, *others], base_url, api_key, options or {})
        self.keys = tuple(t.address.key for t in self.targets if t.address.official)
        self.instructions, self.greeting = instructions, greeting
        self.temperature, self.max_tokens = temperature, max_tokens
        self.first_token_timeout, self.patience = first_token_timeout, patience
        self.token_timeout = token_timeout
        self.sorry, self.unheard = sorry, unheard
        self.give_up_after = give_up_after
        self.stream_options, self.alternate = stream_options, alternate
        self._counted = dict.fromkeys(FIGURES, 0.0)
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

    def figures(self) -> dict[str, float]:
        return dict(self._counted)

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
        if not prompt.text.strip():
            yield Token(self.unheard)
            yield ReplyEnd()
            return
        counted, loop = self._counted, asyncio.get_running_loop()
        messages = chat.messages(self.instructions, prompt, alternate=self.alternate)
        attempts = Attempts(len(self.targets), loop.time() + self.patience)
        spoke = over = False
        try:
            while True:
                target = self.targets[attempts.place]
                completion = self._ask(target, messages, attempts.until)
                try:
                    async for text in completion:
                        spoke = True
                        counted["tokens"] += 1
                        yield Token(text)
                    over = True
                    self._well(completion, target)
                    yield ReplyEnd()
                    await completion.rest()
                    return
                except ModelFailed as error:
                    failure = error
                finally:
                    await completion.close()
                    self._count(completion)
                self._tell(failure)
                pause = None if spoke else attempts.after(failure, loop.time())
                if pause is None:
                    break
                again = self.targets[attempts.place] is target
                counted["retries" if again else "fallbacks"] += 1
                await asyncio.sleep(pause)
            over = True
            self._given_up(failure)
            # A Token, not a Sentence: what the aggregator holds comes first, and the line break ends it.
            yield Token(f"\n{self.sorry}" if spoke else self.sorry)
            yield ReplyEnd()
        finally:
            counted["cancelled"] += not over

    def _ask(self, target: Target, messages: list[dict[str, str]], until: float) -> Completion:
        from processors.openai.completion import Completion

        self._counted["requests"] += 1
        body = chat.body(
            target.model,
            messages,
            target.options,
            official=target.address.official,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            stream_options=self.stream_options,
        )
        first_by = min(asyncio.get_running_loop().time() + self.first_token_timeout, until)
        endpoint = self._endpoint(target.address)
        return Completion(endpoint, target, body, first_by=first_by, gap=self.token_timeout)

    def _well(self, completion: Completion, target: Target) -> None:
        self._failed_in_a_row = 0
        if (what := UNUSUAL.get(completion.reading.finish)) is not None:
            self.call.trace.note(self.name, f"{target.model}: {what}")

    def _given_up(self, failure: ModelFailed) -> None:
        """A reply without an answer, or with half of one. Raises when it is one too many."""
        self._counted["failed"] += 1
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self.give_up_after:
            raise failure

    def _tell(self, failure: ModelFailed) -> None:
        """Into the trace each time, into the log once."""
        said = str(failure)
        self.call.trace.note(self.name, said)
        if said not in self._told:
            self._told.add(said)
            log = self.call.log.bind(noted=True)
            log.log("WARNING" if failure.passing else "ERROR", f"{self.name}: {said}")

    def _count(self, completion: Completion) -> None:
        counted, reading, connection = self._counted, completion.reading, completion.connection
        counted["prompt_tokens"] += reading.prompt_tokens
        counted["completion_tokens"] += reading.completion_tokens
        if connection is not None:
            counted["pool_hits"] += 1
            counted["saved_ms"] += round(connection.saved * 1000, 1)
        elif completion.answered:
            counted["pool_misses"] += 1

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
