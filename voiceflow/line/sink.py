"""The sink: paces the agent's audio onto the line and keeps the ledger. The last processor of a pipeline.

One sink serves every carrier; what differs between them is in the codec. All of its work is done by
timers and calls, without a task of its own: audio comes in, what is due goes out, a timer waits for the rest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from voiceflow.engine.buffers import Depth, Policy, Relief
from voiceflow.engine.mouth import HeardText, Progress
from voiceflow.engine.processor import Processor, on
from voiceflow.engine.reply import Reply, ReplyState
from voiceflow.engine.routes import AGENT
from voiceflow.errors import BufferOverflowError
from voiceflow.frames import AudioOut, CallEnd, Cleared, Heard, ReplyEnd, Sent
from voiceflow.line.ledger import Ledger
from voiceflow.line.marks import Marks
from voiceflow.line.pacing import Pacer
from voiceflow.line.quiet import pause
from voiceflow.line.stream import Line

QUEUE_MARK_SECONDS = 30.0
"""Queued audio above which whoever makes it is held."""
QUEUE_BOUND_SECONDS = 600.0
"""Queued audio above which the call ends: ten minutes, what the carrier itself would buffer."""
MARK_GRACE = 2.0
"""Seconds after which a mark that should have come back is given up, and our own clock believed."""
BACK = 1.0
"""Seconds that a held reply goes back at most when the voice told no words: about three of them."""
QUESTION = 2.0
"""Seconds after a question in which it may be answered: people take 0.2 to 1."""
STALLED = 2.0
"""Seconds after which a protected stretch is over whose audio stopped coming."""


@dataclass(slots=True)
class _Outgoing:
    """The audio of one reply. Bytes before `cursor` were sent; they are kept until they are heard, so that
    a held reply can go on from where the caller heard it."""

    audio: bytearray = field(default_factory=bytearray)
    cursor: int = 0
    forgotten: int = 0
    """Samples that were dropped from the front of `audio` because they were heard."""
    edges: deque[int] = field(default_factory=deque)
    """Samples at which a stretch of text begins: a mark is sent there. As many as there are sentences."""
    ended: bool = False
    begun: bool = False
    closing: bool = False
    """All was sent; the last mark is on its way."""


class LineSink(Processor):
    """Plays AudioOut to the caller.

    `lead` and `chunk`, in seconds, say how much audio the carrier is given ahead of time and in which
    pieces; both are rounded to whole packets of the line (20 ms on the phone). Drafts wait here until
    they are confirmed. Underruns - the carrier's buffer ran dry inside a sentence - are counted.
    """

    needs = (AudioOut,)
    emits = (Heard, Sent, Cleared)

    def __init__(self, line: Line, *, lead: float = 0.2, chunk: float = 0.1) -> None:
        self.line = line
        self.pacer = Pacer(line.format.rate, lead=lead, chunk=chunk)
        self.ledger = Ledger(line.format.rate)
        self.marks = Marks()
        self.clears = 0
        self.round_trip = 0.0
        """Seconds to the carrier and back, by the mark that came back last."""
        self._queued: dict[Reply, _Outgoing] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._relief = Relief()
        self._peak = 0.0

    @property
    def index(self) -> int:
        """Its position in the chain, for whoever waits for its queue."""
        return self._index

    @property
    def lane(self) -> int:
        """Whose frames wait in its queue: the agent's."""
        return AGENT

    # -- frames

    @on(AudioOut, stops=True)
    def queue(self, frame: AudioOut) -> None:
        reply = frame.reply
        assert reply is not None
        out = self._queued.setdefault(reply, _Outgoing())
        samples = len(frame.audio) // self.line.format.sample_bytes
        if frame.text and self.ledger.total(reply):
            out.edges.append(self.ledger.total(reply))
        self.ledger.add(reply, samples, frame.text, frame.words, frame.protected)
        out.audio += frame.audio
        waiting = self._waiting_seconds()
        self._peak = max(self._peak, waiting)
        if waiting > QUEUE_MARK_SECONDS and self._pump is not None:
            self._pump.pressed[self] = None
            if waiting > QUEUE_BOUND_SECONDS:
                error = BufferOverflowError(
                    "the sink's queue", int(QUEUE_BOUND_SECONDS), "seconds of audio wait"
                )
                self._pump.fault(self, "queue", error)
        self._play()

    @on(ReplyEnd, stops=True)
    def end(self, frame: ReplyEnd) -> None:
        reply = frame.reply
        assert reply is not None
        self._queued.setdefault(reply, _Outgoing()).ended = True
        self.ledger.end(reply)
        self._play()

    @on(CallEnd)
    def over(self, frame: CallEnd) -> None:
        """What is still buffered will not be heard: for whoever follows Sent and Cleared."""
        self.push(Cleared(self._cut_at()))

    # -- what the engine asks of a Mouth

    def drop(self, reply: Reply) -> None:
        self._queued.pop(reply, None)
        self._discard(reply)
        self._relief.wake()

    def freeze(self, reply: Reply) -> HeardText:
        return self.ledger.heard(reply, self._cut_at())

    def clear(self, reply: Reply) -> None:
        if self.ledger.began(reply):
            self._clear_line()
        self.ledger.forget(reply)

    def hold(self, reply: Reply) -> None:
        """It goes on from the word that is being said, or, when the voice told no words, from a pause in the
        last second: repeated are a word at most, or a second."""
        out = self._queued.get(reply)
        if out is None:
            return
        self._cancel_timer()
        self._discard(reply)
        heard = self.ledger.position(reply, self._cut_at())
        if self.ledger.began(reply):
            self._clear_line()
        goes_on = self._goes_on(reply, out, heard)
        self.ledger.rewind(reply, goes_on, heard)
        out.cursor = (goes_on - out.forgotten) * self.line.format.sample_bytes
        out.edges = deque(self.ledger.edges(reply, goes_on))
        out.begun = out.closing = False

    def release(self, reply: Reply) -> None:
        self._play()

    def protected(self, reply: Reply) -> float | None:
        now = self._now()
        position = self.ledger.position(reply, now)
        found = self.ledger.protected(reply, position, round(self.pacer.lead * self.pacer.rate))
        if found is None:
            return None
        end, certain = found
        ends = now + (end - position) / self.pacer.rate if end > position else min(now, self.pacer.free_at)
        until = ends if certain else ends + STALLED
        return until if until > now else None

    def progress(self, reply: Reply) -> Progress:
        rate, ledger = self.pacer.rate, self.ledger
        position, total = ledger.position(reply, self._now()), ledger.total(reply)
        heard = ledger.text(reply, position).text
        before = ledger.text(reply, max(0, position - round(QUESTION * rate))).text
        return Progress(
            heard=position / rate,
            left=(total - position) / rate if ledger.ended(reply) else None,
            queued=total > 0,
            begun=ledger.began(reply),
            question="?" in heard[len(before) :],
        )

    # -- one stream after another

    def line_gone(self) -> None:
        """The stream is over before the call is: what the carrier had buffered is lost, and its marks."""
        self.marks.lose()
        if (live := self._live()) is not None:
            self.hold(live)

    def line_back(self) -> None:
        """Another stream has taken its place: it begins with what the caller has not heard."""
        if (live := self._live()) is not None:
            self.release(live)

    # -- marks

    def mark_returned(self, name: str) -> None:
        """A mark came back. It proves that its audio was heard only if we did not clear it first."""
        mark = self.marks.back(name)
        if mark is None:
            return
        reply, samples = mark.reply, mark.samples
        if reply.dead:
            return
        if (played := self.ledger.when(reply, samples)) is not None:
            self.round_trip = max(0.0, self._now() - played)
        self.ledger.confirm(reply, samples)
        if mark.first:  # the network's way back is in it: the caller heard it sooner by that
            self.call.trace.played(reply, samples / self.line.format.rate)
            return
        heard = self.ledger.text(reply, samples)
        out = self._queued.get(reply)
        if out is not None and out.ended and samples >= self.ledger.total(reply):
            self._finish(reply, heard)
        else:
            self.push(Heard(reply, heard.text, final=False, estimated=heard.estimated))

    # -- buffers

    def depth(self) -> Depth:
        waiting, bound = int(self._waiting_seconds() * 1000), int(QUEUE_BOUND_SECONDS * 1000)
        return Depth("sink queue", waiting, int(self._peak * 1000), bound, Policy.END_CALL, unit="ms")

    async def relieved(self) -> None:
        while self._waiting_seconds() > QUEUE_MARK_SECONDS and self._queued:
            await self._relief.wait()

    async def stop(self) -> None:
        self._cancel_timer()
        self._queued.clear()
        self._relief.wake()

    # -- playing

    def _now(self) -> float:
        return self.call.loop.time()

    def _cut_at(self) -> float:
        """When we cut off, our clock is right: the `clear` takes the same way as the audio did. When the
        caller hung up, he heard nothing of what was on its way to him then, nor while the news came here."""
        link = self.line.link
        gone = self.line.stopped or link is None or not link.is_open
        return self._now() - (self.round_trip if gone else 0.0)

    def _live(self) -> Reply | None:
        return next((r for r in self._queued if r.state is ReplyState.LIVE), None)

    def _waiting_seconds(self) -> float:
        waiting = sum(len(out.audio) - out.cursor for out in self._queued.values())
        return waiting / self.line.format.sample_bytes / self.pacer.rate

    def _play(self) -> None:
        """Sends whatever of the live reply is due, and sets the timer for what comes next."""
        self._cancel_timer()
        live = self._live()
        if live is None or self.line.link is None:
            return
        out = self._queued[live]
        now = self._now()
        while (due := self.pacer.due()) <= now + 1e-6:
            if not self._send_chunk(live, out, now):
                break
        left = len(out.audio) - out.cursor
        if left >= self.line.codec.frame_bytes or (left and out.ended):
            self._timer = self.call.loop.call_at(due, self._play)
        elif out.ended:
            self._await_last_mark(live, out, now)
        if self._waiting_seconds() <= QUEUE_MARK_SECONDS:
            self._relief.wake()

    def _send_chunk(self, reply: Reply, out: _Outgoing, now: float) -> bool:
        """Sends the next piece, in whole packets. False when there is nothing to send yet."""
        packet, width = self.line.codec.frame_bytes, self.line.format.sample_bytes
        wanted = max(packet, int(self.pacer.chunk * self.pacer.rate) * width // packet * packet)
        piece = bytes(out.audio[out.cursor : out.cursor + wanted])
        if len(piece) % packet:
            whole = len(piece) // packet * packet
            if out.ended and out.cursor + len(piece) == len(out.audio):
                padding = packet - len(piece) % packet
                piece += self.line.format.silence * (padding // width)
            else:
                piece = piece[:whole]
        if not piece:
            return False
        fresh = min(len(piece), len(out.audio) - out.cursor)
        self.line.send(self.line.codec.audio(piece), reply, fresh // width)
        # Silence before a new sentence is a pause: a tool ran, the model thought. Inside one it is a gap.
        sent = out.forgotten + out.cursor // width
        anew = bool(out.edges) and out.edges[0] - sent < packet // width
        begins = self.pacer.sent(len(piece) // width, now, goes_on=out.begun and not anew)
        self.ledger.sent(reply, fresh // width, begins)
        self.push(Sent(piece, begins, reply))
        out.cursor += fresh
        if not out.begun:
            out.begun = True
            self.call.trace.sent(reply, self.name, begins - now)
            self._send_mark(reply, out.forgotten + out.cursor // width, first=True)
        self._send_marks(reply, out)
        self._forget_heard(reply, out, now)
        return True

    def _send_marks(self, reply: Reply, out: _Outgoing) -> None:
        """A mark after the piece with which a stretch of text ends. It proves the whole piece."""
        sent = out.forgotten + out.cursor // self.line.format.sample_bytes
        passed = False
        while out.edges and out.edges[0] <= sent:
            out.edges.popleft()
            passed = True
        if passed:
            self._send_mark(reply, sent)

    def _send_mark(self, reply: Reply, samples: int, *, first: bool = False) -> None:
        if not self.line.codec.has_marks:
            return
        name = self.marks.new(reply, samples, first=first)
        self.line.send(self.line.codec.mark(name), reply)

    def _goes_on(self, reply: Reply, out: _Outgoing, heard: int) -> int:
        """From where a held reply goes on of which so much was heard. The last packet does not count: the
        carrier plays whole ones, and our clock is not exact to that."""
        width = self.line.format.sample_bytes
        sure = max(0, heard - self.line.codec.frame_bytes // width)
        goes_on = self.ledger.goes_on(reply, sure)
        if goes_on is None:
            first = max(self.ledger.begins(reply, sure), heard - round(BACK * self.pacer.rate), out.forgotten)
            last = out.audio[(first - out.forgotten) * width : (sure - out.forgotten) * width]
            goes_on = first + (pause(bytes(last), self.line.format) or 0)
        return max(goes_on, out.forgotten)

    def _forget_heard(self, reply: Reply, out: _Outgoing, now: float) -> None:
        """Drops audio that was heard, about every ten seconds, but for what a hold goes back to."""
        width = self.line.format.sample_bytes
        if out.cursor > 10 * self.pacer.rate * width:
            heard = self.ledger.position(reply, now)
            kept = max(0, heard - round(BACK * self.pacer.rate))
            word = self.ledger.goes_on(reply, kept)
            kept = kept if word is None else min(kept, word)
            done = min(max(0, kept - out.forgotten), out.cursor // width)
            del out.audio[: done * width]
            out.cursor -= done * width
            out.forgotten += done

    def _await_last_mark(self, reply: Reply, out: _Outgoing, now: float) -> None:
        """All is sent: the reply is over when its last mark is back, or by our clock when none comes."""
        total = self.ledger.total(reply)
        if total == 0:
            self._finish(reply, HeardText(complete=True))
            return
        if not out.closing:
            out.closing = True
            self._send_mark(reply, total)
        grace = MARK_GRACE if self.line.codec.has_marks else 0.0
        self._timer = self.call.loop.call_at(max(self.pacer.free_at, now) + grace, self._give_up_mark, reply)

    def _give_up_mark(self, reply: Reply) -> None:
        if reply in self._queued and not reply.dead:
            self._finish(reply, self.ledger.text(reply, self.ledger.total(reply)))

    def _finish(self, reply: Reply, heard: HeardText) -> None:
        """The caller has heard all of it."""
        self._cancel_timer()
        self._queued.pop(reply, None)
        self.ledger.forget(reply)
        self.call.history.agent_was_heard(heard.text, cut=False)
        self.push(Heard(reply, heard.text, final=True, estimated=heard.estimated))
        self.call.turns.played(reply, heard)
        self._play()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _discard(self, reply: Reply) -> None:
        """Takes back what waits for the socket: nobody can have heard that."""
        if lost := self.line.discard(reply):
            self.ledger.rewind(reply, self.ledger.given(reply) - lost)
            if not self.ledger.began(reply):
                self._line_is_clear()

    def _clear_line(self) -> None:
        """Empties the carrier's buffer. The marks that are out will come back and prove nothing."""
        self.marks.clear()
        self.line.send(self.line.codec.clear())
        self.clears += 1
        self._line_is_clear()

    def _line_is_clear(self) -> None:
        self.pacer.cleared(self._now())
        self.push(Cleared(self._cut_at()))
