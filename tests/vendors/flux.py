"""A fake Deepgram Flux: it recognises the audio it is really sent, and counts all time in that audio.

    FakeFlux()                             hears spelled.spell("hello there"), to the letter
    FakeFlux(mode="energy", lines=[...])   hears any voice, and takes it for the next of the lines
    FakeFlux(mode="script")                hears nothing: flux.say(turn_info("StartOfTurn", "Hello"))

Audio is heard in steps of 10 ms, so the same audio gives the same messages however it is cut into chunks. No
audio, no messages. What clients did wrong is in `wrongs`; what they were sent, in `log`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Literal

from tests.vendors import spelled
from tests.vendors.ears import Lines
from tests.vendors.flux_messages import GARBAGE, REASONS, UNKNOWN, refusal, turn_info
from tests.vendors.flux_session import HEARD, Sent, Session
from tests.vendors.flux_settings import Invalid, Settings
from tests.vendors.wire import NO_CODE, Asked, Refusal, SocketVendor, VendorLink
from voiceflow.testing import Break, Close

__all__ = ["GARBAGE", "NO_CODE", "UNKNOWN", "FakeFlux", "Sent", "Session", "refusal", "turn_info"]

KEPT = 100_000
"""Messages in the log, and mistakes of clients."""
LINES = ("Hello, is anybody there?", "I would like a table for two.", "Thank you, goodbye.")


class FakeFlux(SocketVendor):
    """What the real one does, by parameters; what goes wrong, by attributes that a test sets at any time.

    key              what `Authorization: Token ...` must say; "" takes any
    delay            seconds from the arrival of audio to the message about it
    eot_silence      seconds of silence in the audio after which the turn is over
    eager_silence    the same for EagerEndOfTurn, when the client has asked for it
    end_delay        seconds that EndOfTurn takes beyond `delay`
    word_times       whether words have their start and end
    configure_delay  seconds until a Configure is answered
    idle_limit       seconds without audio after which it hangs up (1011); None: never
    languages        what it detects with flux-general-multi
    character        samples of a spelled character
    """

    paths = ("/v2/listen",)

    def __init__(
        self,
        *,
        key: str = "",
        mode: Literal["spelled", "energy", "script"] = "spelled",
        lines: Sequence[str] = LINES,
        delay: float = 0.0,
        handshake: float = 0.0,
        eot_silence: float = 0.26,
        eager_silence: float = 0.12,
        end_delay: float = 0.0,
        word_times: bool = True,
        configure_delay: float = 0.05,
        idle_limit: float | None = None,
        languages: Sequence[str] = ("en",),
        character: int = spelled.CHARACTER,
    ) -> None:
        super().__init__(handshake=handshake)
        self.key, self.mode, self.delay = key, mode, delay
        self.eot_silence, self.eager_silence, self.end_delay = eot_silence, eager_silence, end_delay
        self.word_times = word_times
        self.configure_delay, self.idle_limit = configure_delay, idle_limit
        self.languages, self.character = tuple(languages), character
        self.lines = Lines(lines)
        # What goes wrong. The first four at so many seconds of a connection's audio, once, or with `repeat`
        # on every connection.
        self.error_after: float | None = None
        """Error, then a close."""
        self.drop_after: float | None = None
        """The connection breaks, without a close frame."""
        self.stall_after: float | None = None
        """It stays open and answers pings, and nothing more comes."""
        self.close_after: float | None = None
        """It is closed with `close_code`."""
        self.close_code = 1011
        self.repeat = False
        self.inject: Sequence[dict[str, Any] | str | bytes] = ()
        """Sent before every turn event: UNKNOWN, GARBAGE."""
        self.read_delay = 0.0
        """Seconds before each message of a client is read."""
        self.configures: deque[bool | None] = deque()
        """How the next Configures are answered: True, False, None for never. Judged when there is nothing."""
        # What happened.
        self.log: deque[Sent] = deque(maxlen=KEPT)
        self.wrongs: deque[tuple[float, str]] = deque(maxlen=KEPT)
        """What clients did that they should not, and when."""
        self.turns: list[str] = []
        """The transcripts of all turns that ended."""
        self.sessions: list[Session] = []
        """One for each of `connections`: chunks and audio received, Configures, settings."""

    @property
    def chunks(self) -> Counter[int]:
        """How many chunks of audio came, by their size in bytes."""
        return Counter(size for session in self.sessions for _, size in session.chunks)

    def messages(self, *kinds: str) -> list[dict[str, Any]]:
        """The messages that went out, by event or type; all but Updates when none is named."""
        sent = [entry.message for entry in self.log if isinstance(entry.message, dict)]
        named = [(message, message.get("event", message.get("type"))) for message in sent]
        return [message for message, kind in named if (kind in kinds if kinds else kind != "Update")]

    # -- to all live connections, now

    def say(self, message: dict[str, Any] | str | bytes) -> None:
        """Sends a message as it is; a dict gets the ids it lacks."""
        for session in self._live():
            session.put(message)

    def stall(self) -> None:
        """Nothing more comes; pings are answered."""
        for session in self._live():
            session.stall()

    def fail(self, code: str = "INTERNAL_SERVER_ERROR", close_code: int = 1011) -> None:
        """Error, then a close."""
        for session in self._live():
            session.fail(code, close_code)

    def shut(self, code: int = 1011, reason: str | None = None) -> None:
        """A close frame; NO_CODE for one without a code."""
        for session in self._live():
            session.put(Close(code, REASONS.get(code, "") if reason is None else reason))

    def drop(self) -> None:
        """The connection breaks, without a close frame."""
        for session in self._live():
            session.put(Break())

    def _live(self) -> list[Session]:
        return [session for session in self.sessions if session.asked.closed is None]

    # -- for the connections

    def admit(self, asked: Asked) -> Refusal | None:
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        if scheme != "Token" or not token or token != (self.key or token):
            return refusal(401)
        try:
            settings = Settings.of(asked.query)
        except Invalid as error:
            return refusal(error.status, error.reason)
        if self.mode == "spelled" and (settings.encoding not in HEARD or settings.rate != spelled.RATE):
            return refusal(400, "this fake reads spelled audio in mulaw or linear16, at 8000 Hz")
        return None

    async def converse(self, link: VendorLink, asked: Asked) -> None:
        session = Session(self, link, asked, len(self.sessions))
        self.sessions.append(session)
        await session.run()

    def wrong(self, what: str) -> None:
        self.wrongs.append((asyncio.get_running_loop().time(), what))
        self.tell("wrong", what)

    def strikes(self, fault: str, seconds: float) -> bool:
        """Whether one of the timed faults comes now; then it is used up."""
        at: float | None = getattr(self, fault)
        if at is None or seconds < at:
            return False
        if not self.repeat:
            setattr(self, fault, None)
        return True
