"""One reply as it is spoken: its sentences, how far they have come, and what to say again after a failure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from voiceflow.engine.reply import Reply
from voiceflow.frames import AudioOut, Word
from voiceflow.speech.protocol import Audio

if TYPE_CHECKING:
    from voiceflow.speech.connection import Connection


@dataclass(slots=True, eq=False)
class Utterance:
    """Sentences `pieces`; of the one numbered `piece`, `samples` have been given to the line.

    When a connection dies, the piece it died in is spoken again on another one, and as much of it as was
    given already is skipped: the caller hears no word twice, and none is missing.
    """

    reply: Reply
    key: str
    pieces: list[str] = field(default_factory=list)
    ended: bool = False
    piece: int = -1
    samples: int = 0
    first: int = 0
    """The piece that is number 0 to the connection that speaks now."""
    skip: int = 0
    """Samples still to be left out."""
    tries: int = 0
    connection: Connection | None = None
    active_at: float = 0.0
    """When something of it was last sent or came."""

    def resume(self, key: str) -> list[str]:
        """What another connection has to say, under a new key."""
        self.key = key
        self.first = max(0, self.piece)
        self.skip = self.samples
        self.tries += 1
        return self.pieces[self.first :]

    def frame(self, audio: Audio, rate: int, width: int) -> AudioOut | None:
        """The frame for audio that came; None when all of it had come before."""
        data, words = audio.audio, audio.words
        piece, until = self.first + audio.piece, self.first + audio.until
        if piece < self.piece:
            return None
        if piece > self.piece:
            self.skip = 0
        if self.skip:
            out = min(self.skip, len(data) // width)
            self.skip -= out
            data = data[out * width :]
            gone = out / rate
            words = tuple(Word(w.text, w.start - gone, w.end - gone) for w in words if w.end > gone)
            if not data:
                return None
        text = ""
        if piece != self.piece:
            text = " ".join(self.pieces[piece : until + 1])
            self.piece, self.samples = piece, 0
        self.samples += len(data) // width
        return AudioOut(data, text, words, reply=self.reply)
