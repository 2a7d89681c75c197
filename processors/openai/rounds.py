"""A round: one request of a reply, asked again or elsewhere until a model answers it.

asked ──▶ words ──▶ finished: the reply is over
  ▲  │      │  └──▶ calls of tools ──▶ finished: they are run, and another round has their results
  │  └──────│────▶
  │         ▼
  └── broke off, or nothing came: once more, or the next model, while no word of this round is out
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING

from processors.openai.failure import Attempts, ModelFailed
from processors.openai.spending import Account
from voiceflow.tools.use import Requested

if TYPE_CHECKING:
    from processors.openai.completion import Completion

UNUSUAL = {
    "length": "the answer was cut at max_tokens",
    "content_filter": "the content filter cut the answer",
}
"""Ways in which an answer with words may end that are worth a note."""
FLUSH = "\n"
"""A line break ends a sentence: the aggregator lets go of what it holds."""


class Round:
    """`async for text in round.pieces()`, then `finish()`, or `close()` at any time.

    ask       makes the completion of the model at this place, which has to begin by that time
    models    how many there are
    until     `loop.time()` by which some model must have begun
    account   where its costs are put down
    failed    told of every failure, those that are made good included
    new_id    makes an id for a call that the server gave none
    """

    def __init__(
        self,
        ask: Callable[[int, float], Completion],
        models: int,
        until: float,
        *,
        account: Account,
        failed: Callable[[ModelFailed], None],
        new_id: Callable[[], str],
    ) -> None:
        self.said = ""
        """Without end only if the model's answer is: the voice has a bound for what it will speak."""
        self.requested: tuple[Requested, ...] = ()
        """What the model wants to be run. All of it was read, or there is nothing."""
        self.failure: ModelFailed | None = None
        """Why there is no answer, or half of one."""
        self.unusual = ""
        """What is worth a note about how it ended."""
        self._ask = ask
        self._attempts = Attempts(models, until)
        self._account, self._failed, self._new_id = account, failed, new_id
        self._completion: Completion | None = None

    async def pieces(self) -> AsyncGenerator[str, None]:
        """What is to be said, as it comes. Raises nothing: see `failure`."""
        attempts, loop = self._attempts, asyncio.get_running_loop()
        while True:
            place = attempts.place
            self._account.add("requests")
            completion = self._completion = self._ask(place, attempts.until)
            try:
                async for text in completion:
                    if text:
                        self.said += text
                        self._account.add("tokens")
                        yield text
                    elif self._unflushed:
                        self.said += FLUSH
                        yield FLUSH
            except ModelFailed as error:
                failure = error
            else:
                self._take(completion)
                if self.requested and self._unflushed:
                    yield FLUSH
                return
            await self.close()
            self._failed(failure)
            pause = None if self.said else attempts.after(failure, loop.time())
            if pause is None:
                self.failure = failure
                return
            self._account.add("retries" if attempts.place == place else "fallbacks")
            await asyncio.sleep(pause)

    async def finish(self) -> None:
        """Reads what comes after the last word, so that the connection is as good as new. Takes a second at
        most, and nearly always none."""
        try:
            if self._completion is not None:
                await self._completion.rest()
        finally:
            await self.close()

    async def close(self) -> None:
        """Has the server stop, if it has not finished. Waits for nothing."""
        completion, self._completion = self._completion, None
        if completion is None:
            return
        try:
            await completion.close()
        finally:
            self._count(completion)

    @property
    def _unflushed(self) -> bool:
        return bool(self.said) and not self.said.endswith(FLUSH)

    def _take(self, completion: Completion) -> None:
        reading = completion.reading
        if completion.tools:
            self.requested = reading.calls.requested(self._new_id)
        what = UNUSUAL.get(reading.finish, "")
        if reading.calls and not completion.tools:
            what = "the model wants to call a function, and may not"
        self.unusual = what and f"{completion.target.model}: {what}"

    def _count(self, completion: Completion) -> None:
        reading, connection = completion.reading, completion.connection
        self._account.add("prompt_tokens", reading.prompt_tokens)
        self._account.add("completion_tokens", reading.completion_tokens)
        if connection is not None:
            self._account.add("pool_hits")
            self._account.add("saved_ms", round(connection.saved * 1000, 1))
        elif completion.answered:
            self._account.add("pool_misses")
