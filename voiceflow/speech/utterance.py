"""One reply as it is spoken: its sentences, how far they have come, and what to say again after a failure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from voiceflow.engine.reply import Reply
from voiceflow.frames import AudioOut, Word
from voiceflow.line.ledger import CHARACTERS_A_SECOND
from voiceflow.speech.outlet import Outlet
from voiceflow.speech.protocol import Audio

if TYPE_CHECKING:
    from voiceflow.speech.connection import Connection

LONGEST = 300
"""Characters of one piece: about 20 s. A longer text is cut, so that the ledger knows where in it we are and
no vendor's limit is met."""


def pieces_of(text: str) -> list[str]:
    """What there is to speak of a text: nothing without a letter or a digit. Cut at the end of a sentence,
    else at a blank, where it is longer than LONGEST."""
    rest = text.encode(errors="replace").decode().strip()  # half an emoji cannot be sent
    pieces = []
    while rest:
        piece, rest = rest[: _cut(rest)].strip(), rest[_cut(rest) :].strip()
        if any(character.isalnum() for character in piece):
            pieces.append(piece)
    return pieces


def _cut(text: str) -> int:
    if len(text) <= LONGEST:
        return len(text)
    head = text[: LONGEST + 1]
    ends = max(head.rfind(stop, 0, LONGEST) for stop in (". ", "! ", "? ", "。"))
    return ends + 1 if ends > 0 else head.rfind(" ") if head.rfind(" ") > 0 else LONGEST


@dataclass(slots=True, eq=False)
class Utterance:
    """Sentences `pieces`, and the stretch of them, from `piece` to `until`, of which `samples` have come.

    When a connection dies, the stretch it died in is spoken again on another one, and as much of it as came
    before is skipped: the caller hears no word twice, and none is missing. (To the sample if the vendor says
    the same text in the same time, else to about a word.)
    """

    reply: Reply
    outlet: Outlet
    pieces: list[str] = field(default_factory=list)
    protected: list[bool] = field(default_factory=list)
    """Whether each piece may not be interrupted."""
    ended: bool = False
    """There will be no more pieces."""

    connection: Connection | None = None
    key: str = ""
    """Its name on that connection."""
    first: int = 0
    """The piece that is number 0 there."""
    said: int = 0
    """How many of all pieces some connection was given."""
    closed: bool = False
    """The connection was told that there will be no more."""

    piece: int = -1
    until: int = -1
    samples: int = 0
    skip: int = 0
    """Samples still to be left out."""
    part: bytes = b""
    """The first half of a sample whose second half comes with the next message."""

    characters: int = 0
    """Of text that some connection was given."""
    received: int = 0
    """Samples that came, without those that were left out."""

    missed: int = -1
    """The piece that its last connection finished before."""
    tries: int = 0
    """Connections it has used up since the last new audio."""
    owed_at: float = 0.0
    """When audio was last owed anew, or came: from then on the vendor is waited for."""
    silent_at: float = 0.0
    """When the caller will have heard all that came."""

    def assign(self, connection: Connection, key: str, now: float) -> None:
        """It is spoken on this connection from here on, from the piece `first`."""
        self.connection, self.key, self.closed, self.part = connection, key, False, b""
        self.said = self.first
        self.owed_at = now
        connection.keys.add(key)

    def leave(self, done: int) -> None:
        """It is spoken there no more; the first `done` pieces are done with. A stretch that is not becomes
        one piece, so that it is said again in the same breath."""
        self.connection = None
        if done > self.until:
            self.first, self.skip = done, 0
        else:
            stretch = slice(self.piece, self.until + 1)
            self.pieces[stretch] = [" ".join(self.pieces[stretch])]
            self.protected[stretch] = [any(self.protected[stretch])]
            self.first, self.until, self.skip = self.piece, self.piece, self.samples
        self.said = self.first

    def heard(self, now: float, seconds: float = 0.0) -> None:
        """So much more audio is there for the caller to hear."""
        self.silent_at = max(self.silent_at, now) + seconds

    def take(self, audio: Audio, rate: int, width: int) -> float:
        """Audio came. Returns how many seconds of it are new."""
        data, words = self._whole(audio.audio, width), audio.words
        piece, until = self.first + audio.piece, self.first + audio.until
        if piece > self.until:
            self.skip = 0
        if self.skip:
            out = min(self.skip, len(data) // width)
            self.skip -= out
            data, gone = data[out * width :], out / rate
            if not data:
                return 0.0
            words = tuple(Word(w.text, w.start - gone, w.end - gone) for w in words if w.end > gone)
        text, protected = "", False
        if until > self.until:
            text = " ".join(self.pieces[self.until + 1 : until + 1])
            protected = any(self.protected[self.until + 1 : until + 1])
            self.piece, self.until, self.samples = piece, until, 0
        if not (data or text or words):
            return 0.0
        samples = len(data) // width
        self.samples += samples
        self.received += samples
        self.outlet.add(AudioOut(data, text, words, protected, reply=self.reply), samples)
        return samples / rate

    def ahead(self, rate: int) -> float:
        """Seconds of audio that wait, and of text whose audio is not here yet."""
        asked = sum(len(piece) for piece in self.pieces[self.until + 1 : self.said])
        return self.outlet.samples / rate + asked / CHARACTERS_A_SECOND

    def _whole(self, data: bytes, width: int) -> bytes:
        """Whole samples: a vendor may cut its stream of 16-bit samples anywhere."""
        if not self.part and len(data) % width == 0:
            return data
        data = self.part + data
        self.part = data[len(data) - len(data) % width :]
        return data[: len(data) - len(self.part)]
