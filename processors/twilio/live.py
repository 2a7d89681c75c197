"""A live call of Twilio's, as its REST API can change it: what `call.carrier` is on such a line.

Twilio follows one TwiML document at a time. To do anything else with a call that is connected to a stream,
it is redirected to another document: the stream stops, what it had still to play is lost, and its `action`
is not asked. So the call lets its stream go before Twilio is asked for it:

    leave    <Dial>...                         the call has ended as soon as the stream has
    press    <Play digits> <Connect><Stream>   the call goes on, and after the keys over another stream

Source: twilio.com/docs/voice/tutorials/how-to-modify-calls-in-progress, /docs/voice/twiml/play#digits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from processors.twilio import twiml
from processors.twilio.api import TwilioRefused
from processors.twilio.codec import TwilioCodec
from processors.twilio.rest import TIMEOUT, TwilioRest
from voiceflow.call import Call
from voiceflow.errors import CallEnded, LinkError
from voiceflow.record import Phase
from voiceflow.server.server import START_TIMEOUT, Server

LEAVING = 5.0
"""Seconds after Twilio's answer within which the stream stops."""
WINDOW = 15.0
"""Seconds after the last key within which the next stream opens. Twilio connects within one."""
SECONDS = {"w": 0.5, "W": 1.0}
KEY = 0.5
"""Seconds that a key takes at most, the pause after it included."""


class LiveCall:
    """One call. `addresses(token)` are the URLs of a stream and of its `action`."""

    def __init__(self, server: Server, addresses: Callable[[str], tuple[str, str]]) -> None:
        self.token = ""
        """Of the stream that was promised last."""
        self._server = server
        self.addresses = addresses
        self._changing = asyncio.Lock()
        self._left: tuple[str, str] | None = None

    def then(self, token: str) -> str | None:
        """The TwiML that the call was redirected to when it had the stream with this token; None when it was
        not. Whoever asks for it is told once more."""
        return self._left[1] if self._left is not None and self._left[0] == token else None

    async def leave(self, call: Call, document: str) -> None:
        """Has Twilio follow `document` for good. Returns when the stream is over: who asked ends the call.
        TwilioRefused or LinkError when Twilio does not do it, and the call goes on; CallEnded."""
        async with self._changing:
            rest = self._rest(call)
            call.line.expect(TIMEOUT + 2 * LEAVING)
            await self._redirect(call, rest, self.token, document)

    async def press(self, call: Call, digits: str) -> None:
        """Presses keys towards whoever is on the phone; returns when they are heard again. Errors as `leave`,
        and ValueError for what are no keys."""
        within = WINDOW + sum(SECONDS.get(key, KEY) for key in twiml.checked_digits(digits))
        async with self._changing:
            rest = self._rest(call)
            before, stream = self.token, call.line.stream
            self.token = self._server.another(call, TwilioCodec(), within=TIMEOUT + LEAVING + within)
            document = twiml.press_and_connect(digits, *self.addresses(self.token))
            try:
                await self._redirect(call, rest, before, document)
            except LinkError:
                self.token = before
                raise
            if await _until(call, lambda: call.line.stream != stream, within + START_TIMEOUT):
                return
            if _gone(call):
                call.end(f"Twilio did not open the call's next stream within {within:g} s", normal=False)
            self._server.no_other(call)
            raise LinkError("Twilio did not connect the call again after the keys")

    def _rest(self, call: Call) -> TwilioRest:
        """The client that all calls of the process share. CallEnded, MissingKeys."""
        if call.phase is not Phase.LIVE:
            raise CallEnded("the call is over")
        return call.services.shared("twilio rest", TwilioRest)

    async def _redirect(self, call: Call, rest: TwilioRest, token: str, document: str) -> None:
        """Returns when the stream is over. An error that leaves open whether Twilio has acted is believed
        only if the stream goes on."""
        try:
            await rest.redirect(call.carrier_call, document)
        except LinkError as error:
            if isinstance(error, TwilioRefused) or not await _until(call, lambda: _gone(call), LEAVING):
                self._server.no_other(call)
                raise
        self._left = token, document
        await _until(call, lambda: _gone(call), LEAVING)


def _gone(call: Call) -> bool:
    return call.line.link is None


async def _until(call: Call, true: Callable[[], bool], seconds: float) -> bool:
    """Waits until `true` of the call's line; whether it is. CallEnded when the call ends before."""
    try:
        async with asyncio.timeout(seconds):
            while not true():
                if call.phase is not Phase.LIVE:
                    raise CallEnded("the call ended meanwhile")
                await call.line.changed()
    except TimeoutError:
        return False
    return True
