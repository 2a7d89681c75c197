"""BargeIn: holds the agent at a voice, and asks a policy what it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from processors.barge_in.policy import Attempt, Verdict, backchannels, normalised
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.referee import Referee
from voiceflow.engine.reply import Reply, ReplyState
from voiceflow.engine.turns import Doubt, Floor
from voiceflow.errors import DeclarationError
from voiceflow.frames import Interrupt, Overlap, Transcript, VoiceStart, VoiceStop

Policy = Callable[[Attempt], Verdict]
SAME_VOICE = 1.5
"""Seconds after which words are not of the voice that the detector heard last: a recogniser is that late at
most."""
TAIL = 0.3
"""Seconds before its end from which on a reply is as good as over: who speaks then answers it."""
UNDECIDED = (Doubt.OPEN, Doubt.ASIDE)


class BargeIn(Processor, Referee):
    """Makes barge-in reversible. Stands anywhere after the recogniser and the detector of voice:

        voice ──▶ the agent is silent at once ──┬── words: an interruption ─────▶ as without BargeIn
                                                ├── words: a backchannel ───────▶ it goes on
                                                └── none within `window` ───────▶ it goes on

    policy      what a voice is, by its words and its place in the reply: `backchannels`, or a function of
                yours from an Attempt to a Verdict. It must not wait
    window      seconds for which words are waited for, from the decision that there is a voice. A recogniser
                needs 0.3 to 0.5 for the first
    hold        silence the agent meanwhile. False: it goes on until there are words
    most_holds  holds without a word in one reply; after that, noise does not hold that reply any more

    Without a detector of voice the first that the chain knows of a voice are its words, so there is nothing
    to hold for. Nothing is doubted while the agent is silent, or before its reply is heard. What was no turn
    leaves no TurnStart and nothing in the history. DeclarationError for numbers out of range.
    """

    needs = (Transcript,)
    wants = (VoiceStart,)
    alone = True

    def __init__(
        self,
        policy: Policy = backchannels,
        *,
        window: float = 0.6,
        hold: bool = True,
        most_holds: int = 3,
    ) -> None:
        if not callable(policy):
            raise DeclarationError(f"BargeIn(policy={policy!r}): a function from an Attempt to a Verdict")
        if window <= 0 or most_holds < 0:
            raise DeclarationError(
                f"BargeIn(window={window}, most_holds={most_holds}): seconds above 0, and a number of holds"
            )
        self.policy = policy
        self.window = window
        self.hold = hold
        self.most_holds = most_holds
        self.counted = dict.fromkeys(("holds", "resumed", "committed", "backchannels", "hold_ms"), 0.0)
        self._final: list[str] = []  # what is said in one voice bounds it
        self._growing = ""
        self._began = 0.0
        """When the voice was first told of, and when its words last changed."""
        self._changed = 0.0
        self._voice_from: int | None = None
        """The sample at which the detector heard the voice begin, and that at which it stopped."""
        self._voice_to: int | None = None
        self._probability: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._doubted: Reply | None = None
        self._held: Reply | None = None
        self._held_at = 0.0
        self._fruitless: tuple[Reply | None, int] = (None, 0)
        """Holds without a word in this reply."""

    async def start(self) -> None:
        self.call.turns.referee = self

    async def stop(self) -> None:
        self._no_timer()
        self._let_go()

    def figures(self) -> Mapping[str, float]:
        """Holds; those after which the agent went on; interruptions, and voices that were none; milliseconds
        of holding in all."""
        return {name: round(value, 1) for name, value in self.counted.items()}

    # -- what the keeper asks

    def doubts(self, reply: Reply) -> bool:
        if self._held is not reply and not self._is_worth_keeping():
            return False
        self._doubted = reply
        if self._timer is None:
            self._wait()
        return True

    def begins(self) -> None:
        if self._held is not None:  # the detector was first
            return
        self._final.clear()
        self._growing = ""
        self._probability = None
        self._began = self._changed = self.call.loop.time()
        rate, arrived = self.call.line.format.rate, self.call.line.arrived[0]
        if self._voice_to is not None and arrived - self._voice_to > SAME_VOICE * rate:
            self._voice_from = self._voice_to = None

    def judge(self, text: str, *, over: bool) -> Verdict:
        verdict = self._verdict(text or self.words(), speaking=not over)
        if over and verdict is Verdict.IGNORE:
            self.counted["backchannels"] += bool(text)
            self._let_go()
        return verdict

    def words(self) -> str:
        return " ".join(filter(None, (*self._final, self._growing)))

    # -- what the chain gives

    @tap(VoiceStart)
    def voice(self, frame: VoiceStart) -> None:
        self._voice_from, self._voice_to = frame.at, None
        turns = self.call.turns
        live = turns.live
        if not self.hold or live is None or live.state is not ReplyState.LIVE or turns.protected:
            return
        fruitless = self._fruitless[1] if self._fruitless[0] is live else 0
        if turns.state.floor is not Floor.FREE or fruitless >= self.most_holds:
            return
        if not self._is_worth_keeping():
            return
        if turns.state.doubt is Doubt.NONE:
            self.begins()
        self._hold(live)
        self._wait()

    @tap(VoiceStop)
    def quiet(self, frame: VoiceStop) -> None:
        self._voice_to = frame.at

    @on(Interrupt)
    def interrupted(self, frame: Interrupt) -> None:
        if frame.dead in (self._doubted, self._held):
            self.counted["committed"] += frame.dead is self._doubted and frame.reason == "barge-in"
            self._doubted = None
            self._let_go()

    @tap(Overlap)
    def overlap(self, frame: Overlap) -> None:
        self._probability = frame.probability
        if self.words():
            self._listen()

    @tap(Transcript)
    def heard(self, frame: Transcript) -> None:
        state = self.call.turns.state
        if state.floor is not Floor.FREE or state.live is None:
            return
        if state.doubt is Doubt.NONE and self._held is None:
            return  # what comes late, of a voice that is over
        if frame.text != self._growing:
            self._changed = self.call.loop.time()
        self._growing = "" if frame.final else frame.text
        if frame.final and frame.text:
            self._final.append(frame.text)
        if self.words():
            self._listen()

    # -- judging

    def _is_worth_keeping(self) -> bool:
        """Somebody hears the live reply, and there is more of it to hear."""
        place = self.call.turns.progress
        return place.begun and (place.left is None or place.left > TAIL)

    def _listen(self) -> None:
        """There are words, or there is more to know of them."""
        turns = self.call.turns
        doubt = turns.state.doubt
        if doubt is Doubt.KEPT or (doubt is Doubt.NONE and self._held is None):
            return
        match self._verdict(self.words(), speaking=self._speaking):
            case Verdict.INTERRUPT if doubt is not Doubt.NONE:
                self._commit()
            case Verdict.IGNORE:
                self._go_on()
            case _:  # until there is more to know, or until the authority says that it is a voice
                live = turns.live
                if self.hold and live is not None and live.state is ReplyState.LIVE and not turns.protected:
                    self._hold(live)
                self._wait()

    def _verdict(self, text: str, *, speaking: bool) -> Verdict:
        place = self.call.turns.progress
        attempt = Attempt(
            normalised(text),
            self._seconds(),
            speaking,
            place.heard,
            place.left,
            place.question,
            self._probability,
        )
        try:
            return self.policy(attempt)
        except Exception as error:  # the keeper asks for whoever ends the turn: the blame is not theirs
            self.fail(error)
            return Verdict.INTERRUPT

    @property
    def _speaking(self) -> bool:
        return self._voice_from is None or self._voice_to is None

    def _seconds(self) -> float:
        """How long the voice has lasted."""
        if self._voice_from is None:
            return self._changed - self._began
        rate = self.call.line.format.rate
        end = self._voice_to if self._voice_to is not None else self.call.line.arrived[0]
        return max(0.0, (end - self._voice_from) / rate)

    # -- what is done about it

    def _hold(self, live: Reply) -> None:
        self.call.turns.hold()
        if live.state is ReplyState.HELD:
            self.counted["holds"] += 1
            self._held, self._held_at = live, self.call.loop.time()

    def _wait(self) -> None:
        self._no_timer()
        self._timer = self.call.loop.call_later(self.window, self._waited)

    def _waited(self) -> None:
        """The window is over: what there is decides."""
        self._timer = None
        words, doubt = self.words(), self.call.turns.state.doubt
        if self._held is not None and not (words and self._changed >= self._held_at):
            reply, times = self._fruitless
            self._fruitless = (self._held, times + 1 if reply is self._held else 1)
        if words and doubt in UNDECIDED and self._verdict(words, speaking=False) is not Verdict.IGNORE:
            self._commit()
        else:
            self._go_on()

    def _commit(self) -> None:
        """The reply dies; or goes on for now, if it has come to what may not be interrupted."""
        self._no_timer()
        self.call.turns.confirm()
        self._let_go()

    def _go_on(self) -> None:
        held = self._held is not None
        self._let_go()
        self.call.turns.dismiss()
        if held:
            self.call.turns.unhold()

    def _let_go(self) -> None:
        """Nothing is waited for any more."""
        self._no_timer()
        if self._held is not None:
            self.counted["hold_ms"] += (self.call.loop.time() - self._held_at) * 1000
            self.counted["resumed"] += not self._held.dead
            self._held = None

    def _no_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
