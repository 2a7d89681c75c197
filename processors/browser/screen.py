"""What the page is shown of a live call, as JSON messages beside the audio.

    {"type": "event", "at", "kind", "owner", "turn", "reply", "words", "detail"}    as `trace.recorder.Event`
    {"type": "words", "text"}                  what the caller has said so far in this turn
    {"type": "heard", "reply", "text"}         how much of a reply has been heard, by the ledger
    {"type": "path", "reply", "turn", ...}     the parts of a turn's gap that are known by now
    {"type": "closing"}                        the call is ending; nothing is said any more
    {"type": "over", "reason", ...}            the last message: how it ended, where its recording is

A `Screen` stands in front of the sink of each call from a browser, put there by `checked.BrowserAgent`. It
only looks; keys of processors are in no message.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from processors.browser.link import PageLink
from voiceflow.call import Call
from voiceflow.engine.processor import Processor, tap
from voiceflow.engine.reply import Reply
from voiceflow.frames import Heard, Sent, Transcript
from voiceflow.line.sink import LineSink
from voiceflow.trace.file import redaction_of
from voiceflow.trace.path import Path
from voiceflow.trace.recorder import Event
from voiceflow.trace.text import plain

LOOK = 0.2
"""Seconds between two looks at how much of a reply has been heard: about a word."""
WORDS_BOUND = 4000
"""Characters of one text that are shown; a reply is rarely longer than 500."""


@dataclass(slots=True, eq=False)
class BrowserCall:
    """`call.carrier` of a call from a browser. `link` is its page, None before the page has opened it."""

    id: str
    """A name for addresses that nobody can guess."""
    link: PageLink | None = None
    waiting: list[dict[str, Any]] = field(default_factory=list)
    """What was told before there was a link; a call has few words before its line is open."""

    def tell(self, message: dict[str, Any]) -> None:
        if self.link is not None:
            self.link.tell(message)
        elif len(self.waiting) < 64:
            self.waiting.append(message)

    def opened(self, link: PageLink) -> None:
        """The page's socket is there."""
        self.link = link
        for message in self.waiting:
            link.tell(message)
        self.waiting.clear()


class Screen(Processor):
    """Tells the page of `to` what happens. `sink` says how much of a reply has been heard."""

    def __init__(self, to: BrowserCall, sink: LineSink) -> None:
        self._to = to
        self._sink = sink
        self._reply: Reply | None = None
        """The reply that is on the line."""
        self._heard = ""
        self._timer: asyncio.TimerHandle | None = None

    @tap(Transcript)
    def words(self, frame: Transcript) -> None:
        self._to.tell({"type": "words", "text": _text(frame.text)})

    @tap(Sent)
    def sent(self, frame: Sent) -> None:
        if frame.of is not None and frame.of is not self._reply:
            self._reply, self._heard = frame.of, ""
        if self._timer is None:
            self._look()

    @tap(Heard)
    def heard(self, frame: Heard) -> None:
        self._show(frame.of, frame.text)

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """Shows what has been heard by our clock, as long as there is a reply on the line."""
        reply, ledger = self._reply, self._sink.ledger
        self._timer = None
        if reply is None or reply.dead or not ledger.began(reply):
            return
        loop = self.call.loop
        self._show(reply, ledger.text(reply, ledger.position(reply, loop.time())).text)
        self._timer = loop.call_at(loop.time() + LOOK, self._look)

    def _show(self, reply: Reply, text: str) -> None:
        if reply is self._reply and len(text) > len(self._heard):
            self._heard = text
            self._to.tell({"type": "heard", "reply": reply.number, "text": _text(text)})


def follow(call: Call, to: BrowserCall) -> None:
    """Tells the page each event of a call that has been prepared, and the path of the reply it is about."""
    hide = redaction_of(call, words=False)

    def listen(event: Event) -> None:
        shown: dict[str, Any] = {"type": "event", "at": round(event.at, 3), "kind": event.kind}
        for name in ("owner", "turn", "reply"):
            if (value := getattr(event, name)) not in (None, ""):
                shown[name] = value
        if event.words:
            shown["words"] = _text(event.words)
        if event.detail:
            shown["detail"] = _text(hide.other(event.detail))
        to.tell(shown)
        path = _path(call, event.reply)
        if path is not None:
            to.tell(shown_path(path))

    call.trace.listeners.append(listen)


def shown_path(path: Path) -> dict[str, Any]:
    """The message about one reply's way to the caller."""
    gap = path.gap
    return {
        "type": "path",
        "reply": path.reply,
        "turn": path.turn,
        "parts": [
            {"step": part.step.value, "owner": part.owner, "ms": round(part.microseconds / 1000, 1)}
            for part in path.parts()
        ],
        "gap_ms": round(gap * 1000, 1) if gap is not None else None,
        "draft": path.draft,
        "dropped": path.dropped and path.over is not None,
        "cut": plain(path.cut),
        "lost": _text(path.lost),
        "over": path.over is not None,
    }


def _path(call: Call, reply: int | None) -> Path | None:
    """Of the latest replies: an event is about one that is live, or over just now."""
    if reply is None:
        return None
    for path, _ in zip(reversed(call.trace.paths), range(32), strict=False):
        if path.reply == reply:
            return path
    return None


def _text(text: str) -> str:
    return plain(text[:WORDS_BOUND])
