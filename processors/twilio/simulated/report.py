"""What happened on a simulated call, as the caller lived it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from voiceflow.audio import decode, write_wav
from voiceflow.frames import PHONE

Samples = NDArray[np.int16]

Kind = Literal[
    "stream started",
    "caller speaks",
    "caller stops",
    "key pressed",  # detail: the digit
    "agent heard",  # audio began to play; detail: the gap, when it was short enough to be a stutter
    "agent silent",  # the play-out buffer ran dry or was cleared
    "clear received",  # detail: how many ms of audio were thrown away
    "mark returned",  # detail: its name
    "said",  # Twilio's own voice; detail: the text of <Say>
    "digits heard",  # the keys that <Play digits> pressed towards them
    "redirected",  # the REST API had the call follow other TwiML
    "dialled",  # detail: the number of <Dial>
    "stream refused",  # the upgrade failed; detail: Twilio's error code and why
    "stream closed by server",  # detail: the close code
    "fault",  # detail: Twilio's warning about a message of the server
    "hung up",  # detail: who did
]

MOST_EVENTS = 20_000
STUTTER = 0.25
"""A pause in the agent's audio below this many seconds counts as an underrun, not as a pause."""


@dataclass(slots=True, frozen=True)
class Event:
    """`at` counts seconds from the start of the (first) stream; what comes before it has 0.0."""

    at: float
    kind: Kind
    detail: str = ""


@dataclass(slots=True)
class LineFault:
    """A warning or error that Twilio would have logged (twilio.com/docs/api/errors), `count` times."""

    code: int
    detail: str
    at: float
    count: int = 1


@dataclass(slots=True, frozen=True)
class HttpStep:
    """One request for TwiML, one status callback, or one upgrade. `url` does not show its token."""

    method: str
    url: str
    status: int


@dataclass(slots=True)
class CallReport:
    """One call. The two tracks share one sample clock: int16 at 8 kHz, sample 0 is the stream's start.

    `caller_audio` is what was sent, `agent_audio` what was really played: what a `clear` threw away is
    silence in it. Both are filled in when the call is over.
    """

    call_sid: str
    stream_sids: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    faults: list[LineFault] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    """Things that are no fault but worth a look, and how often they were seen."""
    http: list[HttpStep] = field(default_factory=list)
    bytes_received: int = 0
    """Bytes of mu-law in the server's media messages."""
    media_messages: int = 0
    underruns: int = 0
    """How often the agent's audio stopped for less than STUTTER seconds, without a `clear`."""
    discarded: int = 0
    """Samples that did not fit in Twilio's ten minutes."""
    caller_audio: Samples = field(default_factory=lambda: np.zeros(0, np.int16))
    agent_audio: Samples = field(default_factory=lambda: np.zeros(0, np.int16))

    def of(self, kind: Kind) -> list[Event]:
        """The events of one kind, in order."""
        return [event for event in self.events if event.kind == kind]

    @property
    def said(self) -> list[str]:
        """What Twilio's own voice said."""
        return [event.detail for event in self.of("said")]

    def write(self, path: Path | str) -> None:
        """Both sides as a stereo WAV at 8 kHz: the caller left, the agent right."""
        write_wav(path, [self.caller_audio, self.agent_audio], PHONE.rate)

    # -- for the caller that fills it in -------------------------------------------------------------

    def add(self, event: Event) -> bool:
        """Appends an event; False when there are too many."""
        if len(self.events) >= MOST_EVENTS:
            self.note("events left out of the timeline")
            return False
        self.events.append(event)
        return True

    def note(self, text: str) -> None:
        self.notes[text] = self.notes.get(text, 0) + 1

    def fault(self, code: int, detail: str, at: float) -> bool:
        """Counts a fault; True the first time, when Twilio would log it."""
        for known in self.faults:
            if (known.code, known.detail) == (code, detail):
                known.count += 1
                return False
        self.faults.append(LineFault(code, detail, at))
        return True


def track(parts: Sequence[tuple[int, bytes]]) -> Samples:
    """Stretches of mu-law at their first samples, on one track with silence between."""
    length = max((start + len(audio) for start, audio in parts), default=0)
    whole = bytearray(PHONE.silence * length)
    for start, audio in parts:
        whole[start : start + len(audio)] = audio
    return decode(bytes(whole), PHONE).copy()
