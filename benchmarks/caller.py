"""A caller who takes turns with a phone agent: talks, is quiet, listens, and may talk over the agent.

As Twilio does, it sends one packet of 160 mu-law bytes every 20 ms by absolute deadlines, plays what it
gets in the order in which it came, returns each mark when everything before it has been played, and all of
them at a `clear`. Times are taken around the system calls (`benchmarks.precise`).

The phase of the audio is fixed. Talk begins on a packet whose number is a multiple of four and lasts a
multiple of four packets, so with a silence of 0.24 s the packet that completes a turn is also the last one
of an 80 ms chunk, which is what Deepgram advises to send: whether a bot sends chunks or packets, none of
them has to wait for audio that is still to come.
"""

from __future__ import annotations

import base64
import json
import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from benchmarks.clear_driver import FRAME, FRAME_SECONDS, RATE, media_message, start_messages
from benchmarks.precise import Frames, text, upgrade

CHUNK_FRAMES = 4
"""Packets of 20 ms in the chunk of 80 ms that Flux likes best."""
TALK_FRAMES = 16
"""0.32 s: in its steps of 0.3 s a word, Flux hears the first one in the last chunk."""
PAUSE_SECONDS = 0.1
"""Quiet after the agent's last sound, before the caller talks again."""
PATIENCE_SECONDS = 3.0
"""How long an answer may take."""
GRACE_SECONDS = 0.2
QUIET = bytes([0xFF]) * FRAME
TONE = (bytes([0x90]) * 20 + bytes([0x10]) * 20) * (FRAME // 40)
"""A square wave of 200 Hz, as loud after any resampling."""


@dataclass(slots=True)
class Turn:
    """One turn of the caller. Times are `time.perf_counter`; None for what did not happen."""

    began: float
    """When its first packet was written."""
    last: float = math.nan
    """When the last packet with sound was."""
    deciding: float | None = None
    """When the packet was that completes the silence after it."""
    answered: float | None = None
    """When the first media message after that was read."""
    cleared: float | None = None
    """When `clear` was read, while or after the caller talked."""
    ghost: float = 0.0
    """Seconds of audio that came after that `clear`, until the turn was over."""


@dataclass(slots=True)
class Talk:
    """A call as the caller saw it."""

    dialled: float = math.nan
    """When `start` was written."""
    greeted: float | None = None
    """When the first media message was read."""
    turns: list[Turn] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    marks: int = 0
    audio: bytearray = field(default_factory=bytearray)
    """Mu-law that was read, also what a `clear` threw away: about 8 kB for each second of the agent's."""


@dataclass(slots=True, frozen=True)
class Script:
    """What the caller does.

    silence   Flux's, in seconds
    listen    seconds of each answer after which the caller talks over it; None: each is heard to its end
    greeted   the agent speaks first
    wait      chunks of 80 ms before the first turn, so that calls differ in phase for a bot that cuts the
              audio into blocks of its own
    pause     packets of quiet in the middle of each turn, after which as much is said again; 0: none
    """

    turns: int
    silence: float
    listen: float | None = None
    greeted: bool = True
    wait: int = 0
    pause: int = 0

    @property
    def packets(self) -> list[bool]:
        """One turn: which of its packets have sound."""
        talk = [True] * TALK_FRAMES
        return [*talk, *[False] * self.pause, *talk] if self.pause else talk


def converse(url: str, script: Script, start: dict[str, Any] | None = None) -> Talk:
    """Makes the call, blocking. An answer that does not come ends the call; it is missing then.

    Raises ConnectionError when the far side closes, or refuses the upgrade.
    """
    talk = Talk()
    connection = upgrade(url)
    try:
        line = Playout(talk)
        frames = Frames(connection, line.take)
        opening, sid = start_messages(start or {})
        for each in opening:
            talk.dialled = time.perf_counter()
            connection.sendall(text(each))
        connection.setblocking(False)
        caller = _Caller(script, talk, line)
        began = time.perf_counter()
        while not caller.done:
            number = len(talk.sent_at)
            message = text(media_message(number, TONE if caller.talks(number) else QUIET, sid))
            due = began + number * FRAME_SECONDS
            while time.perf_counter() < due:
                frames.wait(min(due, line.due))
                for name in line.played(time.perf_counter()):
                    connection.send(text(mark(name, sid)))
            talk.sent_at.append(time.perf_counter())
            connection.send(message)
            caller.sent(number, talk.sent_at[-1])
        frames.listen(time.perf_counter() + GRACE_SECONDS)
    finally:
        connection.close()
    return talk


class Playout:
    """Plays what the agent sends, as the carrier does."""

    def __init__(self, talk: Talk) -> None:
        self.plays_until = -math.inf
        self._talk = talk
        self._marks: deque[tuple[float, str]] = deque()
        """Marks and when what is before them has been played."""

    @property
    def due(self) -> float:
        """When the next mark is to be returned."""
        return self._marks[0][0] if self._marks else math.inf

    def take(self, at: float, event: dict[str, Any]) -> None:
        match event.get("event"):
            case "media":
                self._media(at, base64.b64decode(event["media"]["payload"]))
            case "mark":
                self._talk.marks += 1
                self._marks.append((max(at, self.plays_until), event["mark"]["name"]))
            case "clear":
                self.plays_until = at
                self._marks = deque((at, name) for _, name in self._marks)
                turn = self._talk.turns[-1] if self._talk.turns else None
                if turn is not None and turn.deciding is None and turn.cleared is None:
                    turn.cleared = at

    def played(self, now: float) -> list[str]:
        """The marks that are due."""
        names = []
        while self._marks and self._marks[0][0] <= now:
            names.append(self._marks.popleft()[1])
        return names

    def _media(self, at: float, audio: bytes) -> None:
        talk, seconds = self._talk, len(audio) / RATE
        talk.audio += audio
        self.plays_until = max(at, self.plays_until) + seconds
        if talk.greeted is None:
            talk.greeted = at
        turn = talk.turns[-1] if talk.turns else None
        if turn is None:
            return
        if turn.deciding is None:
            turn.ghost += seconds if turn.cleared is not None else 0.0
        elif turn.answered is None:
            turn.answered = at


class _Caller:
    """Decides, packet by packet, whether the caller talks."""

    def __init__(self, script: Script, talk: Talk, line: Playout) -> None:
        self.done = False
        self._script, self._talk, self._line = script, talk, line
        self._silence = round(script.silence / FRAME_SECONDS)
        self._left: deque[bool] = deque()
        """What is still to come of this turn; see `Script.packets`."""
        self._began = self._sounds = False
        """Whether this packet begins a turn, and has sound."""
        self._quiet = 0
        """Packets of quiet since the last sound."""

    def talks(self, number: int) -> bool:
        """Whether packet `number` has sound. Called once, in order."""
        self._began = not self._left and number % CHUNK_FRAMES == 0 and self._may_begin()
        if self._began:
            self._left.extend(self._script.packets)
        self._sounds = bool(self._left) and self._left.popleft()
        return self._sounds

    def sent(self, number: int, at: float) -> None:
        turns = self._talk.turns
        if self._began:
            turns.append(Turn(at))
        if self._sounds:
            self._quiet = 0
            turns[-1].last = at
        elif turns and turns[-1].deciding is None:
            self._quiet += 1
            if self._quiet == self._silence:
                turns[-1].deciding = at
        self.done = self._over(at)

    def _may_begin(self) -> bool:
        now, talk, script = time.perf_counter(), self._talk, self._script
        if len(talk.turns) == script.turns:
            return False
        if not talk.turns:
            heard = talk.greeted if script.greeted else talk.dialled
            pause = PAUSE_SECONDS + script.wait * CHUNK_FRAMES * FRAME_SECONDS
            return heard is not None and now >= max(heard, self._line.plays_until) + pause
        answered = talk.turns[-1].answered
        if answered is None:
            return False
        if script.listen is not None:
            return now >= answered + script.listen
        return now >= self._line.plays_until + PAUSE_SECONDS

    def _over(self, now: float) -> bool:
        talk = self._talk
        if not talk.turns:
            return self._script.greeted and talk.greeted is None and now > talk.dialled + PATIENCE_SECONDS
        turn = talk.turns[-1]
        if turn.answered is not None:
            heard = now >= self._line.plays_until or self._script.listen is not None
            return len(talk.turns) == self._script.turns and heard
        return turn.deciding is not None and now > turn.deciding + PATIENCE_SECONDS


def mark(name: str, sid: str) -> str:
    """The carrier's word that a mark was reached."""
    return json.dumps({"event": "mark", "streamSid": sid, "sequenceNumber": "1", "mark": {"name": name}})
