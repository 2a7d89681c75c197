"""The typed frames that flow through a pipeline.

The class of a frame says two things: which way it goes and in which lane.

    lane     way         on Interrupt              order             frames
    caller   downstream  never dropped             among themselves  AudioIn VoiceStart VoiceStop Transcript
                                                                     Overlap TurnGuess TurnStart DraftEnd
                                                                     DraftResumed TurnEnd Dtmf
    agent    downstream  dropped with their reply  within a reply    Prompt Token Sentence AudioOut ReplyEnd
    control  see class   not affected              overtake          Interrupt Heard Sent Cleared ToolStart
                                                                     ToolEnd CallStart CallEnd Fault
                                                                     RecordingPause RecordingResume

Frames are slots dataclasses, cheap to make and never changed after they are sent: use
`dataclasses.replace`. The one exception is the engine, which stamps `reply` on a frame that a handler
returned without one.
Your own frames subclass CallerFrame, AgentFrame or ControlFrame (with `@dataclass(slots=True)`).

Positions in the caller's audio are sample indices at the line's rate (8 kHz on the phone), counted from
the start of the stream: 8000 is one second into the call whatever the clock says.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from voiceflow.engine.history import Entry
    from voiceflow.engine.reply import Reply
    from voiceflow.tools.tool import Tool
    from voiceflow.tools.use import ToolUse


class Lane(enum.Enum):
    """The three streams that share a chain and never wait for each other."""

    CALLER = "caller"
    AGENT = "agent"
    CONTROL = "control"


class Way(enum.Enum):
    """Which way a frame travels from where it was made."""

    DOWN = "downstream"
    UP = "upstream"
    BOTH = "both ways"


@dataclass(slots=True, frozen=True)
class AudioFormat:
    """How mono samples are written: `encoding` is "mulaw" (1 byte each) or "pcm16" (2, little-endian)."""

    encoding: str = "mulaw"
    rate: int = 8000

    @property
    def sample_bytes(self) -> int:
        return 1 if self.encoding == "mulaw" else 2

    @property
    def silence(self) -> bytes:
        """One sample of silence: 0xFF in mu-law."""
        return b"\xff" if self.encoding == "mulaw" else b"\0\0"


PHONE = AudioFormat("mulaw", 8000)
"""What a phone line speaks: G.711 mu-law at 8 kHz, 160 bytes every 20 ms."""


class Frame:
    """The root of all frames. Subclass CallerFrame, AgentFrame or ControlFrame instead."""

    __slots__ = ()
    lane: ClassVar[Lane]
    way: ClassVar[Way] = Way.DOWN
    made_by: ClassVar[str] = ""
    """What to insert when a chain needs this frame and nothing makes it; read by the declaration check."""


class CallerFrame(Frame):
    """Something the caller did, or evidence of it. Never dropped, its handlers never cancelled."""

    __slots__ = ()
    lane = Lane.CALLER


class ControlFrame(Frame):
    """Something about the call itself. Overtakes whatever waits in the other lanes."""

    __slots__ = ()
    lane = Lane.CONTROL


@dataclass(slots=True)
class AgentFrame(Frame):
    """A piece of one reply. It dies with its reply: the pump drops it wherever it is found."""

    lane = Lane.AGENT
    reply: Reply | None = field(default=None, kw_only=True)


# -- the caller's lane ---------------------------------------------------------------------------


@dataclass(slots=True)
class AudioIn(CallerFrame):
    """Caller audio as it came from the line (20 ms on the phone). `at` is the index of its first sample."""

    made_by = "call.source() as the first processor"
    audio: bytes
    at: int
    format: AudioFormat = PHONE
    _pcm: NDArray[np.int16] | None = field(default=None, repr=False, compare=False)

    @property
    def samples(self) -> int:
        """How many samples it holds."""
        return len(self.audio) // self.format.sample_bytes

    @property
    def pcm(self) -> NDArray[np.int16]:
        """The samples as int16, decoded on first use and then kept: every processor shares one decoding."""
        if self._pcm is None:
            from voiceflow.audio import decode

            self._pcm = decode(self.audio, self.format)
        return self._pcm


@dataclass(slots=True)
class VoiceStart(CallerFrame):
    """Evidence: somebody began to speak at sample `at`, known when the audio had reached `decided_at`."""

    made_by = "a voice activity detector such as SileroVAD() after the source"
    at: int
    decided_at: int = 0


@dataclass(slots=True)
class VoiceStop(CallerFrame):
    """Evidence: the voice stopped at sample `at`, known when the audio had reached `decided_at`."""

    made_by = VoiceStart.made_by
    at: int
    decided_at: int = 0


@dataclass(slots=True)
class Transcript(CallerFrame):
    """What the caller has said so far in this turn. `final` when the recogniser will not change it."""

    made_by = "a speech recogniser such as FluxSTT()"
    text: str
    final: bool = False


@dataclass(slots=True)
class Overlap(CallerFrame):
    """Evidence: how likely it is (0 to 1) that the caller, who speaks while the agent does, wants the floor.
    From a detector of yours; `BargeIn` uses the latest."""

    made_by = "a detector of interruptions"
    probability: float


@dataclass(slots=True)
class TurnGuess(CallerFrame):
    """Evidence: how likely it is (0 to 1) that the caller, whose voice stopped at sample `at`, has finished.
    It shortens or lengthens the silence that `VADTurns` waits for."""

    made_by = "a detector of finished turns such as SmartTurn()"
    probability: float
    at: int


@dataclass(slots=True)
class TurnStart(CallerFrame):
    """The caller has the floor. Made only by the TurnKeeper."""

    made_by = "a turn authority such as VADTurns() after SileroVAD()"
    turn: int


@dataclass(slots=True)
class DraftEnd(CallerFrame):
    """The turn may be over (an eager end of turn); DraftResumed or TurnEnd follows."""

    made_by = TurnStart.made_by
    turn: int
    text: str = ""


@dataclass(slots=True)
class DraftResumed(CallerFrame):
    """The turn was not over after all."""

    made_by = TurnStart.made_by
    turn: int


@dataclass(slots=True)
class TurnEnd(CallerFrame):
    """The caller has finished: once per turn. The words are in the history already."""

    made_by = TurnStart.made_by
    turn: int
    text: str = ""


@dataclass(slots=True)
class Dtmf(CallerFrame):
    """The caller pressed a key: one of 0-9 * # A-D."""

    made_by = "call.source() as the first processor"
    digit: str


# -- the agent's lane ----------------------------------------------------------------------------


@dataclass(slots=True)
class Prompt(AgentFrame):
    """What a reply answers: the history before this turn, and the caller's words. Who handles it, replies.

    `cue` stands in place of the caller's words when the program wants something said (`call.prompt`): what to
    say, in words for the model. `tools` are offered besides those that the model has anyway.
    """

    made_by = TurnStart.made_by
    text: str = ""
    history: tuple[Entry, ...] = ()
    instructions: str = ""
    tools: tuple[Tool, ...] = ()
    cue: str = ""


@dataclass(slots=True)
class Token(AgentFrame):
    """A piece of generated text, as the model gave it, spaces included."""

    made_by = "a processor that answers Prompt with Tokens (a language model)"
    text: str


@dataclass(slots=True)
class Sentence(AgentFrame):
    """Text that is ready to be spoken. `protected`: it may not be interrupted (a legal notice)."""

    made_by = "a sentence aggregator after the language model"
    text: str
    protected: bool = False


@dataclass(slots=True, frozen=True)
class Word:
    """When a word is spoken: seconds from the first sample of the AudioOut that carries it."""

    text: str
    start: float
    end: float


@dataclass(slots=True)
class AudioOut(AgentFrame):
    """Audio to play, in the line's format, any length (the sink cuts and paces it).

    `text` is what this audio begins to say: a new stretch of the ledger starts here. Leave it empty on
    the chunks that go on with the same stretch; " " begins a stretch without words, a sound. `words` are
    alignments, when the voice gives them.
    `protected`, on the chunk that begins a stretch: all of the stretch may not be interrupted.
    """

    made_by = "a processor that speaks (a text-to-speech) or plays a recording"
    audio: bytes
    text: str = ""
    words: tuple[Word, ...] = ()
    protected: bool = False


@dataclass(slots=True)
class ReplyEnd(AgentFrame):
    """Nothing more of this reply will come."""

    made_by = "whoever answers Prompt: it gives ReplyEnd() after its last frame"


# -- control -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Interrupt(ControlFrame):
    """A reply was cut off. When this is seen, nothing of that reply can pass any more.

    `heard` is what the caller heard of it, from the ledger.
    """

    way = Way.BOTH
    dead: Reply
    reason: str = "barge-in"
    heard: str = ""


@dataclass(slots=True)
class Heard(ControlFrame):
    """From the ledger: the caller has heard `text` of this reply so far; `final` once it is all played."""

    way = Way.UP
    of: Reply
    text: str
    final: bool = False
    estimated: bool = False


@dataclass(slots=True)
class Sent(ControlFrame):
    """From the sink: the line was given `audio` of the reply `of`, in its own format. It plays from `at`
    (`loop.time()`) on to its end, unless Cleared comes before that."""

    way = Way.UP
    audio: bytes
    at: float
    of: Reply | None = None


@dataclass(slots=True)
class Cleared(ControlFrame):
    """From the sink: what would have played after `at` (`loop.time()`) was thrown away."""

    way = Way.UP
    at: float


@dataclass(slots=True)
class RecordingPause(ControlFrame):
    """Nothing is recorded from now on, until a RecordingResume with the same `why`."""

    way = Way.BOTH
    why: str = ""


@dataclass(slots=True)
class RecordingResume(ControlFrame):
    """The reason `why` for a pause is gone; recording goes on when it was the last."""

    way = Way.BOTH
    why: str = ""


@dataclass(slots=True)
class ToolStart(ControlFrame):
    """A tool begins to run, for the reply `of`."""

    use: ToolUse
    of: Reply


@dataclass(slots=True)
class ToolEnd(ControlFrame):
    """It has ended, however: `use.state` says how."""

    use: ToolUse
    of: Reply


@dataclass(slots=True)
class CallStart(ControlFrame):
    """The line is open; every processor has started."""

    caller: str = ""
    called: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class CallEnd(ControlFrame):
    """The call is over; `stop()` follows."""

    reason: str = ""


@dataclass(slots=True)
class Fault(ControlFrame):
    """A processor failed and the call is about to end."""

    way = Way.BOTH
    processor: str
    reason: str
