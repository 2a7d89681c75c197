"""One connection to Flux: its two halves, its clocks, its end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from processors.flux.feed import Feed
from processors.flux.liveness import SEND_LIMIT, Liveness
from processors.flux.messages import Configured, Connected, Failed, Strange, TurnInfo, Warned
from voiceflow.errors import LinkError, VoiceflowError

if TYPE_CHECKING:
    from processors.flux.client import FluxClient
    from voiceflow.line.link import Link

BURST = 12
"""Chunks that are sent at once when there is audio of before: a second's worth, then BURST_PAUSE."""
BURST_PAUSE = 0.1
"""Seconds. So half a minute of audio is made up for in 3 s."""
UNANSWERED = 4
"""Configures without an answer, after which no further one is sent: Flux allows only a few."""
CODE_LENGTH = 60
"""Characters of a code that are shown."""
GOODBYE_LIMIT = 1.0
"""Seconds that saying CloseStream may take."""

HOPELESS = frozenset({"UNPARSABLE_CLIENT_MESSAGE"})
"""Codes of `Error` after which another connection would end in the same way."""
SERVERS_OWN = frozenset({"INTERNAL_SERVER_ERROR"})
"""Codes that are the server's own trouble: another connection may help."""


class Ended(LinkError):
    """Flux ended the connection with an `Error` message; `worth_another` when another one may help."""

    def __init__(self, code: str, description: str, *, began: bool) -> None:
        self.worth_another = code in SERVERS_OWN or (began and code not in HOPELESS)
        if code in SERVERS_OWN:
            advice = "it has a problem of its own: try again, and see https://status.deepgram.com"
        elif code in HOPELESS:
            advice = "it cannot read what we send: try another version of deepgram-sdk, and report it"
        else:
            advice = "see what it says, and https://developers.deepgram.com/docs/flux"
        super().__init__(
            f"Deepgram ended the connection with {code[:CODE_LENGTH] or 'an error'}{description}: {advice}"
        )


class Connection:
    """Sends what `feed` gives and passes on what Flux says; both never wait.

    take     is given every TurnInfo
    notice   is given what else is worth telling: what it was, a detail, and whether it was not understood
    quoted   makes a vendor's words fit for an error message
    ready    is set while all audio so far has been sent
    """

    def __init__(
        self,
        link: Link,
        client: FluxClient,
        *,
        feed: Feed,
        liveness: Liveness,
        take: Callable[[TurnInfo], None],
        notice: Callable[[str, str, bool], None],
        quoted: Callable[[str], str],
        ready: asyncio.Event,
    ) -> None:
        self.link = link
        self.wake = asyncio.Event()
        """To be set when the feed has a chunk."""
        self._client = client
        self._feed = feed
        self._liveness = liveness
        self._take = take
        self._notice = notice
        self._quoted = quoted
        self._ready = ready
        self._began = False
        """Flux has told about a turn, or about none."""
        self._unanswered: deque[asyncio.Future[Configured | None]] = deque()  # bounded by UNANSWERED

    async def greeted(self, limit: float) -> None:
        """Waits for Connected. LinkError when it does not come in `limit` seconds."""
        try:
            async with asyncio.timeout(limit):
                while not isinstance(message := await self._client.receive(), Connected):
                    self._dispatch(message)
        except TimeoutError:
            raise LinkError(f"it took the connection and was silent for {limit:g} s") from None

    async def converse(self) -> None:
        """Sends and receives until the connection fails or has to be replaced: LinkError says why."""
        loop = asyncio.get_running_loop()
        halves = [loop.create_task(self._send()), loop.create_task(self._receive())]
        try:
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ready.clear()
            for half in halves:
                half.cancel()
            await asyncio.wait(halves)
            for answer in self._unanswered:
                if not answer.done():
                    answer.set_result(None)
        errors = [
            error for half in halves if not half.cancelled() and (error := half.exception()) is not None
        ]
        raise errors[-1]  # what was received says more than that nothing could be sent

    async def configure(self, changes: dict[str, Any]) -> Configured | None:
        """Sends a Configure; its answer, or None when the connection ended before one came."""
        if len(self._unanswered) >= UNANSWERED:
            raise VoiceflowError(f"Flux has not answered the last {UNANSWERED} Configures")
        answer: asyncio.Future[Configured | None] = asyncio.get_running_loop().create_future()
        self._unanswered.append(answer)
        try:
            await self._client.configure(changes)
        except LinkError:
            return None
        return await answer

    async def force_end_turn(self) -> None:
        await self._client.force_end_turn()

    async def goodbye(self) -> None:
        """Says CloseStream, when that is still possible, and closes. Bounded in time."""
        try:
            async with asyncio.timeout(GOODBYE_LIMIT):
                await self._client.close_stream()
        except (LinkError, TimeoutError):
            pass  # it is gone already
        await self.link.close()

    async def _send(self) -> None:
        """Sends what the feed gives, and looks at the clocks while it does."""
        loop, feed, liveness = asyncio.get_running_loop(), self._feed, self._liveness
        burst = 0
        while True:
            audio = feed.take(loop.time())
            if audio is None:
                burst = 0
                self._ready.set()
                self.wake.clear()
                try:
                    async with asyncio.timeout_at(feed.silence_due):
                        await self.wake.wait()
                except TimeoutError:
                    pass  # it is time for silence
                continue
            try:
                async with asyncio.timeout(SEND_LIMIT):
                    await self._client.send_audio(audio)
            except TimeoutError:
                raise LinkError(f"it took no audio for {SEND_LIMIT:g} s") from None
            now = loop.time()
            liveness.sent(now)
            if (why := liveness.check(now)) is not None:
                raise LinkError(why)
            burst += 1
            if burst == BURST:
                burst = 0
                await asyncio.sleep(BURST_PAUSE)

    async def _receive(self) -> None:
        client, loop, liveness = self._client, asyncio.get_running_loop(), self._liveness
        while True:
            message = await client.receive()
            liveness.received(loop.time())
            if isinstance(message, TurnInfo):  # a barge-in passes through here: straight on
                self._began = True
                self._take(message)
            else:
                self._dispatch(message)

    def _dispatch(self, message: object) -> None:
        """Whatever is no TurnInfo."""
        match message:
            case Configured() if self._unanswered:
                answer = self._unanswered.popleft()
                if not answer.done():
                    answer.set_result(message)
            case Failed(code, description):
                raise Ended(code, self._quoted(description), began=self._began)
            case Warned(code, description):
                self._notice(f"the warning {code[:CODE_LENGTH]}", self._quoted(description), False)
            case Strange(kind, detail):
                self._notice(kind, self._quoted(detail), True)
            case _:
                self._notice(f"a message out of turn, {type(message).__name__}", "", True)
