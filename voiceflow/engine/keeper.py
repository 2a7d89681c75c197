"""The TurnKeeper: runs the reducer and does what it says.

It alone creates TurnStart, DraftEnd, DraftResumed, TurnEnd, Prompt, Interrupt and Replies. The turn's
authority reaches it as `self.turns`; the line tells it when a reply was played; `call.say` asks it for
the floor. It has no rules of its own: those are all in `voiceflow.engine.turns`. What it asks of others:

    a voice over a live reply    protection   may it be interrupted now?
                                 referee      is the voice believed, and when it ends, what was it?
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from voiceflow.engine import turns
from voiceflow.engine.history import History
from voiceflow.engine.interrupt import Reap, interrupt
from voiceflow.engine.mouth import HeardText, Mouth, Progress
from voiceflow.engine.protection import Protection
from voiceflow.engine.pump import Pump
from voiceflow.engine.referee import Referee, Verdict
from voiceflow.engine.reply import Reply, ReplyState
from voiceflow.errors import CallEnded
from voiceflow.frames import DraftEnd, DraftResumed, Prompt, TurnEnd, TurnStart

WAITING_BOUND = 64
"""How many `say` may wait for the floor."""
EVIDENCE_BOUND = 64
"""Evidence given by handlers while earlier evidence is still being acted upon; the oldest is dropped."""

Granted = tuple[Reply, "asyncio.Future[HeardText]"]
"""A reply to speak with, and the future of what was heard of it."""
Wanted = Callable[[], bool]
"""Asked in the instant in which the floor could be given: is there still something to say?"""


class Watch:
    """Looks on, for traces and figures. Every method may be overridden; none may raise."""

    def evidence(self, last_voice: int | None) -> None:
        """A turn is about to be over; the caller's voice ended at this sample, if that is known."""

    def action(self, action: turns.Action) -> None:
        """The reducer decided this, and it is about to be done."""

    def over(self, reply: Reply, heard: HeardText) -> None:
        """Nothing more will be heard of this reply."""


class TurnKeeper:
    """Takes evidence and keeps the one state of the call's turns. Only `take_floor` waits."""

    def __init__(
        self,
        pump: Pump,
        history: History,
        *,
        authority: int,
        mouth: Mouth | None,
        reap: Reap,
        watch: Watch,
    ) -> None:
        self._pump = pump
        self._history = history
        self._authority = authority
        self._mouth = mouth
        self._reap = reap
        self._watch = watch
        self._state = turns.Turns()
        self._replies: dict[int, Reply] = {}
        self._outcomes: dict[Reply, asyncio.Future[HeardText]] = {}
        self._waiting: deque[tuple[asyncio.Future[Granted | None], Wanted]] = deque(maxlen=WAITING_BOUND)
        self._evidence: deque[turns.Evidence] = deque(maxlen=EVIDENCE_BOUND)
        self._feeding = False
        self._closed = False
        self._past = history.messages
        self.referee = Referee()
        """Who judges a voice over the agent's. A processor puts itself here in `start`."""
        self._protection = Protection(pump.loop, mouth, self._unprotected)
        self.quiet_since = pump.loop.time()
        """When the caller was last known to have finished (`loop.time()`); the call's start before that."""

    # -- evidence from the turn's authority

    def started(self) -> None:
        """The caller took the floor. A live reply is interrupted before this returns, unless that is doubted
        or the reply is protected."""
        live = self.live
        if live is None or self._state.floor is not turns.Floor.FREE:
            self._feed(turns.SpeechStarted())
            return
        if self._state.doubt is turns.Doubt.NONE:
            self.referee.begins()
        if self._protection.until(live) is not None:
            self._keep(live)
        elif self.referee.doubts(live):
            self._feed(turns.SpeechDoubted())
        else:
            self._feed(turns.SpeechStarted())

    def may_be_over(self, text: str = "", *, last_voice: int | None = None) -> None:
        """An eager end of turn: a draft is prompted with `text`. `last_voice`: see `ended`."""
        if self._is_doubted():
            if self.referee.judge(text, over=False) is not Verdict.INTERRUPT:
                return
            self.confirm()
        self._watch.evidence(last_voice)
        self._feed(turns.EagerEnd(text))

    def resumed(self) -> None:
        """The eager end was wrong: the draft vanishes."""
        self._feed(turns.Resumed())

    def ended(self, text: str = "", *, last_voice: int | None = None) -> None:
        """The turn is over. A draft of the same text becomes the reply, otherwise a new one is prompted. One
        that was doubted, and is no turn by its words, vanishes.

        `last_voice`, when it is known, is the sample of the caller's audio at which the voice ended: what the
        trace measures the agent's answer from.
        """
        if self._is_doubted():
            text = text or self.referee.words()
            if self.referee.judge(text, over=True) is Verdict.IGNORE:
                self.drop(text)
                return
            self.confirm()
        self._watch.evidence(last_voice)
        self._feed(turns.SpeechEnded(text))

    def hold(self) -> None:
        """Maybe a barge-in: the live reply is silenced, but kept. Not when it may not be interrupted."""
        live = self.live
        if live is not None and self._protection.until(live) is None:
            self._feed(turns.HoldAsked())

    def unhold(self) -> None:
        """It was none: the held reply goes on."""
        self._feed(turns.HoldReleased())

    # -- evidence from the referee

    def confirm(self) -> None:
        """The voice that is doubted interrupts; its words are kept while that may not be."""
        live = self.live
        if live is not None and self._protection.until(live) is not None:
            self._keep(live)
        else:
            self._feed(turns.DoubtConfirmed())

    def dismiss(self) -> None:
        """It does not interrupt, so far: the reply goes on, if it was held."""
        self._feed(turns.DoubtDismissed())

    def drop(self, text: str = "") -> None:
        """It does not interrupt, and is over; `text` is what it said, for the trace."""
        self._feed(turns.DoubtDropped(text))

    # -- evidence from the line and the program

    def played(self, reply: Reply, heard: HeardText) -> None:
        """The line has played all of `reply`; the sink wrote it into the history."""
        if reply in self._outcomes:
            self._settle(reply, heard)
        self._feed(turns.ReplyOver(reply.number))

    def protect(self, reply: Reply) -> None:
        """What is said first in this reply will be protected: it counts from now on, before there is audio,
        but for 3 seconds at most."""
        self._protection.promise(reply)

    def stop(self, reason: str) -> None:
        """Stops the live reply as a barge-in would, without giving the caller the floor."""
        self._feed(turns.ReplyStopped(reason))

    async def take_floor(self, wanted: Wanted = lambda: True) -> Granted | None:
        """A live reply for the program's own words, as soon as nobody speaks; None when it is not `wanted`
        any more by then. CallEnded when that never comes."""
        given = await self._floor(wanted)
        while given is not None and given[0].dead:
            # Taken away again in the very tick in which it was given: nothing was said, so it is the next.
            given = await self._floor(wanted, first=True)
        return given

    async def _floor(self, wanted: Wanted, *, first: bool = False) -> Granted | None:
        if self._closed or len(self._waiting) == WAITING_BOUND:
            raise CallEnded("the call is over" if self._closed else f"{WAITING_BOUND} say() wait already")
        granted: asyncio.Future[Granted | None] = self._pump.loop.create_future()
        if first:
            self._waiting.appendleft((granted, wanted))
        else:
            self._waiting.append((granted, wanted))
        self._grant()
        try:
            return await granted
        except asyncio.CancelledError:
            # The floor may have been given, even taken away again, in the very tick it gave up waiting.
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                given = granted.result()
                if given is not None and given[0] is self.live:
                    self.stop("nobody was left to say it")
            raise

    def prompt(self, reply: Reply, cue: str) -> None:
        """Has the chain answer `cue` with a reply that `take_floor` gave."""
        self._pump.inject(Prompt(history=self._history.messages, cue=cue, reply=reply), self._authority)

    def outcome(self, reply: Reply) -> asyncio.Future[HeardText]:
        """The future of what is heard of a reply that is not over yet. KeyError when it is."""
        return self._outcomes[reply]

    @property
    def state(self) -> turns.Turns:
        """A snapshot: who has the floor, which replies there are."""
        return self._state

    @property
    def live(self) -> Reply | None:
        """The reply that is being prepared or spoken."""
        return self._replies.get(self._state.live) if self._state.live is not None else None

    @property
    def protected(self) -> bool:
        """Whether the live reply may not be interrupted now."""
        live = self.live
        return live is not None and self._protection.until(live) is not None

    @property
    def progress(self) -> Progress:
        """How far the caller has heard the live reply."""
        live = self.live
        return self._mouth.progress(live) if live is not None and self._mouth is not None else Progress()

    def close(self) -> None:
        """The call is over: every reply dies without an Interrupt, whoever waits is told."""
        self._closed = True
        self._protection.close()
        for reply in list(self._replies.values()):
            reply.become(ReplyState.DEAD)
            heard = self._mouth.freeze(reply) if self._mouth is not None else HeardText()
            self._history.agent_was_heard(heard.text, cut=not heard.complete)
            self._settle(reply, heard)
        self._replies.clear()
        self._history.caller_said(self._state.kept or "")
        while self._waiting:
            waiting, _ = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(CallEnded("the call ended before anything could be said"))

    # -- a voice over the agent's

    def _is_doubted(self) -> bool:
        """Whether somebody speaks over the agent and has no turn. An end without a start is a start too."""
        if self._state.floor is turns.Floor.FREE and self._state.doubt is turns.Doubt.NONE:
            self.started()
        return self._state.doubt is not turns.Doubt.NONE

    def _keep(self, live: Reply) -> None:
        self._feed(turns.SpeechKept())
        self._protection.watch(live)

    def _unprotected(self, reply: Reply) -> None:
        """The reply may be interrupted again. Who still speaks, and has said nothing before, is treated like
        anybody who begins to speak now."""
        if reply is not self.live:
            return
        if self._state.kept is not None:
            self._feed(turns.ProtectionOver())
        elif self._state.doubt is turns.Doubt.KEPT:
            if not self.referee.doubts(reply):
                self._feed(turns.SpeechStarted())
                return
            self._feed(turns.SpeechDoubted())
            words = self.referee.words()
            if words and self.referee.judge(words, over=False) is Verdict.INTERRUPT:
                self.confirm()

    # -- doing what the reducer says

    def _feed(self, evidence: turns.Evidence) -> None:
        self._evidence.append(evidence)
        if self._feeding:  # a handler of what we are sending gave evidence: it comes after
            return
        self._feeding = True
        try:
            while self._evidence and not self._closed:
                self._state, actions = turns.reduce(self._state, self._evidence.popleft())
                for action in actions:
                    self._watch.action(action)
                    self._do(action)
                if self._waiting:
                    self._grant()
        finally:
            self._feeding = False

    def _do(self, action: turns.Action) -> None:
        push, here = self._pump.inject, self._authority
        match action:
            case turns.TurnBegan(turn):
                push(TurnStart(turn), here)
            case turns.TurnDrafted(turn, text):
                push(DraftEnd(turn, text), here)
            case turns.TurnResumed(turn):
                push(DraftResumed(turn), here)
            case turns.TurnFinished(turn, text):
                self.quiet_since = self._pump.loop.time()
                self._past = self._history.messages
                self._history.caller_said(text)
                push(TurnEnd(turn, text), here)
            case turns.Open(number, draft, text, prompted):
                reply = Reply(number, ReplyState.DRAFT if draft else ReplyState.LIVE)
                self._replies[number] = reply
                self._outcomes[reply] = self._pump.loop.create_future()
                if prompted:
                    # The caller's words are in `text`, for a draft as for an answer: not in `history` too.
                    past = self._history.messages if draft else self._past
                    push(Prompt(text, past, reply=reply), here)
            case turns.Promote(number):
                self._replies[number].become(ReplyState.LIVE)
                if self._mouth is not None:
                    self._mouth.release(self._replies[number])
            case turns.Hold(number):
                self._replies[number].become(ReplyState.HELD)
                if self._mouth is not None:
                    self._mouth.hold(self._replies[number])
            case turns.Release(number):
                self._replies[number].become(ReplyState.LIVE)
                if self._mouth is not None:
                    self._mouth.release(self._replies[number])
            case turns.Kill(number, reason):
                reply = self._replies.pop(number)
                heard = interrupt(
                    reply,
                    reason,
                    pump=self._pump,
                    mouth=self._mouth,
                    history=self._history,
                    reap=self._reap,
                    origin=here,
                )
                self._settle(reply, heard)
            case turns.Retire(number):
                reply = self._replies.pop(number)
                reply.become(ReplyState.DEAD)
                self._pump.detach(reply, cancel=False)

    def _settle(self, reply: Reply, heard: HeardText) -> None:
        self._watch.over(reply, heard)
        outcome = self._outcomes.pop(reply, None)
        if outcome is not None and not outcome.done():
            outcome.set_result(heard)

    def _grant(self) -> None:
        """Gives the floor to the first that waits for it and still wants it, if it is free."""
        while self._waiting and self._waiting[0][0].done():  # it gave up waiting
            self._waiting.popleft()
        if not self._waiting:
            return
        state, actions = turns.reduce(self._state, turns.SayAsked())
        if not actions:
            return
        granted, wanted = self._waiting.popleft()
        if not wanted():
            granted.set_result(None)
            self._grant()
            return
        self._state = state
        for action in actions:
            self._watch.action(action)
            self._do(action)
            if isinstance(action, turns.Open):
                reply = self._replies[action.reply]
                granted.set_result((reply, self._outcomes[reply]))
