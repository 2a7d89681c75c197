"""Tools for a call on a Twilio line: `transfer_call` and `send_digits`.

    ChatLLM(tools=[transfer_call({"sales": "+12025550143", "doctor": "+12025550144"}), send_digits()])

Both change the live call by Twilio's REST API, so they need TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN (or an
API key, see `rest.TwilioRest`). On any other line they fail, and the conversation goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from processors.twilio import twiml
from processors.twilio.api import MOST_TWIML, Credentials, e164
from processors.twilio.live import KEY, LEAVING, WINDOW, LiveCall
from processors.twilio.rest import TIMEOUT
from voiceflow.call import Call
from voiceflow.errors import CallEnded, DeclarationError, LinkError
from voiceflow.server.server import START_TIMEOUT
from voiceflow.tools.tool import Effect, Tool, tool

AFTERWARDS = "There is nobody on that line just now. Goodbye."
"""Fits somebody who did not answer, and somebody who has hung up: Twilio goes on the same way after both."""
MOST_KEYS = 32
RING = (5, 600)
"""Seconds that <Dial> may let a telephone ring."""


def transfer_call(
    to: Mapping[str, str] | str | None = None,
    *,
    any_number: bool = False,
    caller_id: str = "",
    timeout: int = 30,
    afterwards: str = AFTERWARDS,
) -> Tool:
    """A tool that connects the caller to somebody else, once they have heard everything that was said.

    to
        Whom: telephone numbers with country code by the names from which the model chooses
        (`{"sales": "+12025550143"}`), or the only number there is.
    any_number
        The model may also give a number itself. Whoever talks it into that calls at your expense.
    caller_id
        The number shown there: one of your account's. Unless given, the caller's own.
    timeout
        Seconds it rings, 5 to 600.
    afterwards
        What Twilio's voice says to the caller when nobody answers, and also when the other side hangs up
        first; "" for nothing.

    The call ends for the agent as soon as Twilio has taken it; its result says so. When Twilio refuses, the
    model is told and the conversation goes on. DeclarationError for what is no telephone number.
    """
    if not RING[0] <= timeout <= RING[1]:
        raise DeclarationError(f"transfer_call(timeout={timeout!r}): it rings for {RING[0]} to {RING[1]} s")
    names, only = ({}, to) if isinstance(to, str) else (dict(to or {}), "")
    if not (names or only or any_number):
        raise DeclarationError('transfer_call() needs to know whom: transfer_call({"sales": "+1202..."})')
    if only and any_number:
        raise DeclarationError("transfer_call(any_number=True): give the number that is known a name")
    try:
        names = {name: e164(number) for name, number in names.items()}
        only = e164(only) if only else ""
        shown = e164(caller_id) if caller_id else ""
    except ValueError as error:
        raise DeclarationError(f"transfer_call(): {error}") from None

    def document(number: str) -> str:
        return twiml.dial(number, caller_id=shown, timeout=timeout, afterwards=afterwards)

    if len(document("+" + "0" * 15)) > MOST_TWIML:
        raise DeclarationError("transfer_call(afterwards=...) is too long: a sentence is enough")

    async def transfer(call: Call, number: str, whom: str) -> None:
        live = _live(call, "transfer_call")
        try:
            await live.leave(call, document(number))
        except LinkError as error:
            raise LinkError(f"the call was not transferred: {error}") from None
        call.end(f"transferred{whom}")

    terminal = tool(
        effect=Effect.TERMINAL,
        limit=TIMEOUT + 2 * LEAVING + 5.0,
        name="transfer_call",
        description="Connect the caller to somebody else and leave the call. Tell the caller so first, in "
        "the same answer: it is heard before it happens.",
        keys=Credentials.of().needed,
    )
    if any_number:

        async def anybody(call: Call, to: str) -> None:
            await transfer(call, names.get(to) or e164(to), f" to {to}" if to in names else "")

        known = f"one of {', '.join(names)}, or " if names else ""
        anybody.__doc__ = f"to: {known}a telephone number with country code, like +12025550143"
        return terminal(anybody)
    if only:

        async def somebody(call: Call) -> None:
            await transfer(call, only, "")

        return terminal(somebody)

    async def one_of(call: Call, to: str) -> None:
        await transfer(call, names[to], f" to {to}")

    one_of.__annotations__["to"] = Literal[tuple(names)]  # the names are not known before
    one_of.__doc__ = "to: whom the caller is connected to"
    return terminal(one_of)


def send_digits() -> Tool:
    """A tool that presses keys towards the other side: through the menus of a company that was called.

    Twilio takes the stream away for the keys and connects another: the agent hears and says nothing for about
    as long as they take, and what it was saying goes on after them. When Twilio refuses, the model is told.
    """

    @tool(
        effect=Effect.COMMIT,
        limit=TIMEOUT + LEAVING + WINDOW + START_TIMEOUT + MOST_KEYS * max(KEY, 1.0) + 5.0,
        keys=Credentials.of().needed,
    )
    async def send_digits(call: Call, digits: str) -> str:
        """Press keys on the telephone, as to choose from a menu or to enter a number.

        digits: the keys in order, up to 32: 0-9, * and #, A-D; w waits half a second, W a second
        """
        live = _live(call, "send_digits")
        try:
            await live.press(call, "".join(digits.split()))
        except LinkError as error:
            raise LinkError(f"the keys were not pressed: {error}") from None
        return "The keys were pressed. What the other side says to them comes next."

    return send_digits


def _live(call: Call, name: str) -> LiveCall:
    if not isinstance(call.carrier, LiveCall):
        raise LinkError(f"{name} works on a call that came over Twilio, and this one did not")
    if not call.carrier_call:
        raise CallEnded("the call has no stream yet")
    return call.carrier
