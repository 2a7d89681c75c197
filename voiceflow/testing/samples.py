"""What a processor is tried with: a short scene of a phone call, or the frames that its author gives.

    the caller   audio, a voice, the turn's frames, a key
    the agent    Prompt, ToolStart, ToolEnd, Token, Sentence, AudioOut, ReplyEnd, each followed by 20 ms of
                 the caller's silence

Of the scene a processor gets what it handles or taps, in this order; own frame types are made from their
annotations. Every round of a run gets fresh copies that belong to that round: their reply, the positions
in the caller's audio and the numbers of the turns go on where the round before ended.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from voiceflow.declaration.check import BY_ENGINE
from voiceflow.declaration.places import BY_AUTHORITY
from voiceflow.engine.history import Message
from voiceflow.engine.processor import Processor, handler_for
from voiceflow.engine.reply import Reply
from voiceflow.errors import VoiceflowError
from voiceflow.frames import (
    AgentFrame,
    AudioIn,
    AudioOut,
    CallerFrame,
    DraftEnd,
    DraftResumed,
    Dtmf,
    Frame,
    Heard,
    Prompt,
    ReplyEnd,
    Sentence,
    Token,
    ToolEnd,
    ToolStart,
    Transcript,
    TurnEnd,
    TurnStart,
    VoiceStart,
    VoiceStop,
)
from voiceflow.tools.tool import Effect
from voiceflow.tools.use import Requested, ToolUse, UseState

Frames = Sequence[Frame] | Callable[[Reply], Sequence[Frame]]
"""Sample frames, or what makes them for a reply."""

SAMPLES = 160
"""20 ms at 8 kHz, as a carrier sends it."""
SILENCE = b"\xff" * SAMPLES
TONE = (b"\x80" * 10 + b"\x00" * 10) * 8
"""A square wave of 400 Hz at full scale, in mu-law."""
OWN_SAMPLES = 3
"""How many of each own frame type are made."""
FILLINGS: dict[str, Callable[[int], Any]] = {
    "str": lambda n: f"text {n}",
    "int": lambda n: n,
    "float": float,
    "bool": lambda n: n % 2 == 0,
    "bytes": lambda n: bytes([n]) * SAMPLES,
}
"""What a required field of an own frame is filled with, by the name of its annotation."""


def scene() -> list[Frame]:
    """One caller turn of 1.1 seconds and a reply of every kind of agent frame."""
    words = "My card is 4111 1111"
    sounds = _caller_audio()

    def audio(piece: bytes, count: int) -> Iterator[AudioIn]:
        for _ in range(count):
            yield AudioIn(piece, next(sounds))

    voice = 5 * SAMPLES
    frames: list[Frame] = [*audio(SILENCE, 5), *audio(TONE, 3)]
    frames += [VoiceStart(voice, voice + 3 * SAMPLES), TurnStart(1), *audio(TONE, 7), Transcript("My card")]
    frames += [DraftEnd(1, "My card"), DraftResumed(1), *audio(SILENCE, 5)]
    frames += [VoiceStop(voice + 10 * SAMPLES, voice + 15 * SAMPLES), *audio(SILENCE, 30)]
    frames += [Transcript(words, final=True), TurnEnd(1, words), Dtmf("5")]
    spoken: list[Frame] = [Prompt(words, (Message("user", words),))]
    use = ToolUse(Requested("1", "look_up", "{}"), Effect.READ, state=UseState.DONE, result="Found.")
    spoken += [ToolStart(use, Reply(0)), ToolEnd(use, Reply(0))]
    spoken += [Token(text) for text in ("Hello", " there.", " How", " are you?", " Bye")]
    spoken += [Sentence(text) for text in ("Hello there.", "How are you?", "Bye")]
    spoken += [Heard(Reply(0), "Hello there.")]
    spoken += [AudioOut(TONE * 5, "Hello there."), AudioOut(SILENCE * 5), AudioOut(TONE * 5, "Bye")]
    for frame in spoken:
        frames += [frame, *audio(SILENCE, 1)]
    return [*frames, ReplyEnd()]


def _caller_audio() -> Iterator[int]:
    """Positions of consecutive pieces."""
    at = 0
    while True:
        yield at
        at += SAMPLES


class Sample:
    """The frames that one processor class is tried with, made anew for every round.

    Raises VoiceflowError when it cannot make the frames itself and the author has to give some.
    """

    def __init__(self, cls: type[Processor], given: Frames | None = None) -> None:
        self.cls = cls
        if given is None:
            given = _defaults(cls)
        self._given: Frames = given if callable(given) else list(given)
        first = self._originals(Reply(0))
        audio = [frame.samples for frame in first if isinstance(frame, AudioIn)]
        turns = [frame.turn for frame in first if isinstance(frame, TurnStart | TurnEnd)]
        self._audio_samples, self._turns = sum(audio), max(turns, default=0)
        self.ends = any(isinstance(frame, ReplyEnd) for frame in first) or (
            originates(cls) and any(isinstance(frame, Prompt) for frame in first)
        )
        """Whether a reply made of these frames has to end."""

    def frames(self, round_: int, reply: Reply) -> list[Frame]:
        """Copies for a round, counted from 0."""
        made = []
        for original in self._originals(reply):
            frame = copy.copy(original)
            if isinstance(frame, AgentFrame):
                # A function was told the reply and may have stamped it; what stands in a list is replaced.
                frame.reply = (frame.reply or reply) if callable(self._given) else reply
            elif isinstance(frame, AudioIn | VoiceStart | VoiceStop):
                frame.at += round_ * self._audio_samples
                if not isinstance(frame, AudioIn):
                    frame.decided_at += round_ * self._audio_samples
            elif isinstance(frame, TurnStart | DraftEnd | DraftResumed | TurnEnd):
                frame.turn += round_ * self._turns
            elif isinstance(frame, Heard | ToolStart | ToolEnd):
                frame.of = reply
            made.append(frame)
        return made

    def _originals(self, reply: Reply) -> Sequence[Frame]:
        frames = list(self._given(reply) if callable(self._given) else self._given)
        for frame in frames:
            if not isinstance(frame, Frame):
                raise VoiceflowError(f"check_processor(frames=...) takes frames, not {frame!r}")
        has_end = any(isinstance(frame, ReplyEnd) for frame in frames)
        return frames if has_end or originates(self.cls) else [*frames, ReplyEnd()]


def originates(cls: type[Processor]) -> bool:
    """Whether it ends replies itself, as a language model does, rather than passing ReplyEnd on."""
    gives = any(issubclass(t, ReplyEnd) for t in (*cls.emits, *cls.pushes))
    return gives and handler_for(cls, ReplyEnd, tap=False) is None


def passed_by(cls: type[Processor]) -> list[Frame]:
    """The frames of the scene that the class does not handle: they have to come out as they are. A turn's
    authority makes turns of its own, so the scene's are left out."""
    strange: tuple[type[Frame], ...] = BY_AUTHORITY if cls.takes_turns else ()
    passed = [frame for frame in scene() if not isinstance(frame, strange)]
    return [frame for frame in passed if handler_for(cls, type(frame), tap=False) is None]


def _defaults(cls: type[Processor]) -> list[Frame]:
    wanted = tuple(dict.fromkeys(t for h in cls.handles for t in h.types))
    frames = [frame for frame in scene() if isinstance(frame, wanted) and not isinstance(frame, ReplyEnd)]
    for own in wanted:
        if issubclass(own, (*BY_ENGINE, ReplyEnd)) or any(isinstance(frame, own) for frame in frames):
            continue
        if own not in (Frame, AgentFrame, CallerFrame):
            frames += [_make(own, cls, number) for number in range(1, OWN_SAMPLES + 1)]
    return frames if originates(cls) else [*frames, ReplyEnd()]


def _make(own: type[Frame], cls: type[Processor], number: int) -> Frame:
    """A frame of a type we do not know, its required fields filled by their annotations."""
    values: dict[str, Any] = {}
    fields: tuple[dataclasses.Field[Any], ...] = (
        dataclasses.fields(own) if dataclasses.is_dataclass(own) else ()
    )
    for field in fields:
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if not (required and field.init):
            continue
        # A name under `from __future__ import annotations`, else the class itself.
        filling = FILLINGS.get(getattr(field.type, "__name__", str(field.type)))
        if filling is None:
            raise _cannot_make(own, cls, f"it does not know what to put into `{field.name}`")
        values[field.name] = filling(number)
    make: Callable[..., Frame] = own
    try:
        return make(**values)
    except Exception as error:
        raise _cannot_make(own, cls, f"{type(error).__name__}: {error}") from error


def _cannot_make(own: type[Frame], cls: type[Processor], why: str) -> VoiceflowError:
    return VoiceflowError(
        f"check_processor cannot make a {own.__name__} to try {cls.__name__} with ({why}): "
        f"give sample frames yourself, check_processor(..., frames=[{own.__name__}(...), ...])"
    )
