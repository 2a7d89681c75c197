"""VADTurns: whose turn it is, decided by voice activity, with the words of a recogniser if there is one.

    voice ──▶ silence ─────── eager ────────────── silence ────────── silence + words
                                │                     │                     │
                         a draft is begun      the turn is over      it is over, whatever
                                               if its words are in   words are still missing

A voice that comes back before the turn is over takes all of it back.
"""

from __future__ import annotations

from voiceflow.engine.processor import Processor, tap
from voiceflow.errors import DeclarationError
from voiceflow.frames import PHONE, AudioIn, Transcript, TurnGuess, VoiceStart, VoiceStop


class VADTurns(Processor):
    """The turn's authority for chains whose recogniser does not end turns itself.

    silence   seconds without a voice that end a turn. 0.6 by default: pauses inside a sentence are mostly
              shorter; a shorter wait answers sooner and cuts off more people
    eager     seconds without a voice after which an answer is drafted, less than `silence`; None: never. The
              draft waits until the turn is over, and vanishes when the voice comes back
    words     seconds beyond `silence` that a turn may wait for its words
    finished, unfinished    what takes the place of `silence` when a detector before it in the chain guesses
              (TurnGuess) that the caller has finished, or that he has not: 0.3 and 1.0 suit `SmartTurn`

    A voice takes the floor at once, and with it interrupts the agent. All is counted in samples of the
    caller's audio, not in time, so evidence that comes late changes nothing; `silence` and `eager` include
    what the detector itself waited before it said VoiceStop, and cannot be shorter than that.

    The text of a turn is what a recogniser before it in the chain gives meanwhile; without one it is empty.
    A final Transcript is the next piece of it, others are that piece as far as it is known. With `words`, a
    turn is not over, nor an answer drafted, before a piece was final after the voice ended: for a recogniser
    that needs its time, 1.0 is a good bound. Words that come later still stand at the beginning of the next
    turn's text, so none is lost, and none interrupts the agent.

    DeclarationError for numbers out of range.
    """

    needs = (VoiceStart, VoiceStop)
    takes_turns = True

    def __init__(
        self,
        silence: float = 0.6,
        *,
        eager: float | None = None,
        words: float = 0.0,
        finished: float | None = None,
        unfinished: float | None = None,
    ) -> None:
        if silence <= 0:
            raise DeclarationError(
                f"VADTurns(silence={silence}): seconds of silence that end a turn, above 0"
            )
        if eager is not None and not 0 < eager < silence:
            raise DeclarationError(
                f"VADTurns(silence={silence}, eager={eager}): an answer is drafted before the turn is over, "
                "so eager is seconds above 0 and less than silence"
            )
        if words < 0:
            raise DeclarationError(
                f"VADTurns(words={words}): seconds that a turn may wait for its words, 0 or more"
            )
        sure = silence if finished is None else finished
        unsure = silence if unfinished is None else unfinished
        if not 0 < sure <= silence <= unsure:
            raise DeclarationError(
                f"VADTurns(silence={silence}, finished={finished}, unfinished={unfinished}): seconds above "
                "0, finished at most silence, unfinished at least silence"
            )
        self.silence, self.eager, self.words = silence, eager, words
        self.finished, self.unfinished = sure, unsure
        self._wait = silence
        """The silence that ends this turn."""
        self._rate = PHONE.rate
        self._heard = 0
        """How far the caller's audio has come, in samples."""
        self._voice_ended: int | None = None
        self._final_at = -1
        """How far it had come with the last final words."""
        self._pieces = _Pieces()
        self._draft: str | None = None
        """What is being answered in case that it was all."""

    @tap(VoiceStart)
    def voice(self, frame: VoiceStart) -> None:
        self._voice_ended = self._draft = None
        self.turns.started()  # in a turn that may be over: it goes on, and the draft is dropped

    @tap(VoiceStop)
    def quiet(self, frame: VoiceStop) -> None:
        self._voice_ended = frame.at
        self._wait = self.silence

    @tap(TurnGuess)
    def guessed(self, frame: TurnGuess) -> None:
        if frame.at == self._voice_ended:
            self._wait = self.finished if frame.probability >= 0.5 else self.unfinished
            self._judge(frame.at)

    @tap(AudioIn)
    def audio(self, frame: AudioIn) -> None:
        self._rate = frame.format.rate
        self._heard = frame.at + frame.samples
        if self._voice_ended is not None:
            self._judge(self._voice_ended)

    @tap(Transcript)
    def recognised(self, frame: Transcript) -> None:
        self._pieces.take(frame.text, frame.final)
        if frame.final:
            self._final_at = self._heard
        if self._voice_ended is not None:
            self._judge(self._voice_ended)

    def _judge(self, ended: int) -> None:
        """What the silence since the sample `ended` means by now."""
        silent, rate, text = self._heard - ended, self._rate, self._pieces.text
        known = not self.words or (self._final_at >= ended and not self._pieces.growing)
        if silent >= self._wait * rate and (known or silent >= (self._wait + self.words) * rate):
            self._voice_ended = self._draft = None
            self._pieces.over()
            self.turns.ended(text, last_voice=ended)
        elif self.eager is not None and silent >= self.eager * rate and known and text != self._draft:
            self._draft = text
            self.turns.may_be_over(text, last_voice=ended)


class _Pieces:
    """The text of one turn, from a recogniser that knows of no turns."""

    def __init__(self) -> None:
        self._final: list[str] = []  # what a caller says in one turn bounds it
        self._growing = ""
        self._before = 0
        """Words at the beginning of the growing piece that belong to the turn before."""

    @property
    def growing(self) -> bool:
        """There is a piece that is not final."""
        return bool(self._growing)

    @property
    def text(self) -> str:
        return " ".join(filter(None, (*self._final, self._growing)))

    def take(self, text: str, final: bool) -> None:
        if self._before:  # by number: words may be corrected until they are final
            text = " ".join(text.split()[self._before :])
        self._growing = "" if final else text
        if final:
            self._before = 0
            if text:
                self._final.append(text)

    def over(self) -> None:
        """The turn is over, with the text that there is."""
        self._before += len(self._growing.split())
        self._final.clear()
        self._growing = ""
