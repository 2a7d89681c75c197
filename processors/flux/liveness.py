"""Whether a connection is alive, and how long to go on trying when there is none. Pure: times are given."""

from __future__ import annotations

SEND_LIMIT = 2.0
"""Seconds a message of ours may take to be sent: the clock of bytes out."""
ANSWER_LIMIT = 3.0
"""Seconds in which some message must come while audio is sent: the clock of bytes in. Flux gives an Update
about every 0.25 s of audio. (A socket that stays open and answers pings, but says nothing more: seen.)"""
VOICE_LIMIT = 4.0
"""Seconds of voice in which a turn has to start: the clock of progress, when a detector tells of voice."""
VOICE_PAUSE = 30.0
"""Seconds between two replacements for that reason: noise may sound like a voice to a detector."""
HELD_UP = 0.5
"""Seconds between two checks; what is more was our own event loop's delay and proves nothing."""


class Liveness:
    """The three clocks of a link: bytes out, bytes in, progress while there is voice."""

    def __init__(self) -> None:
        self.longest = 0.0
        """The longest time that audio was sent and no message came, in seconds."""
        self.last_heard = 0.0
        """When the last message came; when the connection began, if none has."""
        self._checked = 0.0
        self._unanswered: float | None = None
        """Since when audio was sent that no message has followed."""
        self._speaking = False
        self._in_turn = False
        self._voice_since: float | None = None
        """Since when there is a voice and no turn."""
        self._replaced_at: float | None = None

    def opened(self, now: float) -> None:
        """A new connection begins."""
        self._checked = self.last_heard = now
        self._unanswered = None
        self._in_turn = False
        self._voice_since = now if self._speaking else None

    def sent(self, now: float) -> None:
        """Audio went out."""
        if self._unanswered is None:
            self._unanswered = now

    def received(self, now: float) -> None:
        """Any message came."""
        self.last_heard = now
        if self._unanswered is not None:
            self.longest = max(self.longest, now - self._unanswered)
            self._unanswered = None

    def voice(self, speaking: bool, now: float) -> None:
        """A detector heard a voice begin or stop."""
        self._speaking = speaking
        self._voice_since = now if speaking and not self._in_turn else None

    def turn(self, in_turn: bool, now: float) -> None:
        """The connection knows of a turn, or of none."""
        if in_turn != self._in_turn:
            self._in_turn = in_turn
            self._voice_since = now if self._speaking and not in_turn else None

    def check(self, now: float) -> str | None:
        """Why the connection has to be replaced; None while it need not be. To be asked at least every
        HELD_UP seconds while there is audio to send."""
        late = now - self._checked - HELD_UP
        self._checked = now
        if late > 0:
            if self._unanswered is not None:
                self._unanswered += late
            if self._voice_since is not None:
                self._voice_since += late
        if self._unanswered is not None and now - self._unanswered >= ANSWER_LIMIT:
            self.longest = max(self.longest, now - self._unanswered)
            return f"it said nothing for {ANSWER_LIMIT:g} s"
        if self._voice_since is None or now - self._voice_since < VOICE_LIMIT:
            return None
        if self._replaced_at is not None and now - self._replaced_at < VOICE_PAUSE:
            return None
        self._replaced_at = now
        return f"it heard nothing in {VOICE_LIMIT:g} s of voice"


BACKOFF = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Seconds before each try; the last for all further ones."""
TRYING = 10.0
"""Seconds without a connection that says anything, in all, after which a call cannot be saved any more."""
LEAST = 1.0
"""Seconds that a try needs to be worth it."""
WORKED = 1.0
"""Seconds for which a connection has to say something so that the next try comes soon again."""
HEALTHY = 3.0
"""Seconds after which the trouble counts as over."""
SERVER_ERRORS = 3
"""`Error` messages in a row after which another connection will not help either."""


class Trouble:
    """How often and how long to try. Begins without a connection."""

    def __init__(self, now: float) -> None:
        self._tries = 0
        self._errors = 0
        self._spent = 0.0
        self._down: float = now
        self._up: float | None = None

    def pause(self, now: float) -> float | None:
        """Seconds to wait before the next try; None when it is time to give up."""
        spare = self.left(now) - LEAST
        if spare <= 0:
            return None
        pause = BACKOFF[min(self._tries, len(BACKOFF) - 1)]
        self._tries += 1
        return min(pause, spare)

    def left(self, now: float) -> float:
        """Seconds that may still be spent without a connection."""
        return TRYING - self._spent - (now - self._down)

    def connected(self, now: float) -> None:
        """A try succeeded."""
        self._spent += now - self._down
        self._up = now

    def failed_again(self) -> bool:
        """Counts an `Error` message. Returns whether it was one too many since a healthy connection."""
        self._errors += 1
        return self._errors > SERVER_ERRORS

    def lost(self, last_heard: float) -> None:
        """The connection is over, if there was one; it said nothing after `last_heard`."""
        if self._up is None:
            return
        lasted = last_heard - self._up
        if lasted >= WORKED:
            self._tries = min(self._tries, 1)
        if lasted >= HEALTHY:
            self._tries = self._errors = 0
            self._spent = 0.0
        self._down, self._up = max(self._up, last_heard), None
