"""Links in memory: the other side of a connection in the hands of the test.

    link = ScriptedLink()                            # for the code under test
    link.peer.send('{"type": "Connected"}')          # what that code will receive
    assert await link.peer.receive() == "hello"      # what it sent
    link.peer.close(1011)                            # or link.peer.break_(): sudden death

    ScriptedLink.playing([(0.0, "one"), (0.5, b"two"), Close(1000)])
    link.on(lambda message: message == "ping", ["pong"])

Times are seconds of `loop.time()`, so in virtual time a slow peer costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from voiceflow.errors import BufferOverflowError, LinkError
from voiceflow.line.codec import Wire
from voiceflow.line.link import Link

BROKE = "the connection broke"
BOUND = 10_000
"""Messages each way: 200 s of 20 ms audio that nobody reads."""


@dataclass(slots=True, frozen=True)
class Close:
    """In a script: the peer closes the connection."""

    code: int = 1000
    reason: str = ""


@dataclass(slots=True, frozen=True)
class Break:
    """In a script: the connection dies without a word."""

    reason: str = BROKE


Item = str | bytes | Close | Break
Script = Iterable[tuple[float, Item] | Item]
"""Items with their times in seconds since the script began; one without goes with the item before it."""


class _Pipe:
    """One way: in flight for `delay` seconds, then waiting to be read; at most `bound` messages in both."""

    def __init__(self, name: str, bound: int, delay: float) -> None:
        self.name, self.bound, self.delay = name, bound, delay
        self.closed: Close | None = None
        self.broken: Break | None = None
        self.refused = False
        """Its reader has closed: messages that come now are lost."""
        self.taken: Callable[[Wire], bool] = lambda message: False
        """Sees each message as it arrives; True keeps it from `get`."""
        self._flying: deque[Wire | Close] = deque()
        self._waiting: deque[Wire] = deque()
        self._news = asyncio.Event()

    def put(self, item: Wire | Close) -> None:
        if not isinstance(item, Close) and len(self._flying) + len(self._waiting) >= self.bound:
            raise BufferOverflowError(
                self.name, self.bound, "nobody reads it; receive, or give a larger bound"
            )
        self._flying.append(item)
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self._land)
        else:
            self._land()

    async def get(self) -> Wire | None:
        while True:
            if self.broken is not None:
                raise LinkError(f"{self.name}: {self.broken.reason}")
            if self._waiting:
                return self._waiting.popleft()
            if self.closed is not None or self.refused:
                return None
            self._news.clear()
            await self._news.wait()

    def refuse(self) -> None:
        self.refused = True
        self._news.set()

    def break_(self, how: Break) -> None:
        self.broken = self.broken or how
        self._news.set()

    def _land(self) -> None:
        # Always the oldest, so in order also on a loop that runs equal timers in any order.
        item = self._flying.popleft()
        if self.broken:
            return
        if isinstance(item, Close):
            self.closed = item
        elif not self.refused and not self.taken(item):
            self._waiting.append(item)
        self._news.set()


class MemoryLink(Link):
    """One end of a connection in memory: made by `pair` and `ScriptedLink`.

    LinkError: `send` and `receive` after `break_`, and `send` after either side closed. BufferOverflowError:
    `send` while `bound` messages are on their way or unread at the other end.
    """

    def __init__(self, name: str, outgoing: _Pipe, incoming: _Pipe) -> None:
        self.name = name
        self.closed: Close | None = None
        """How this end closed the connection."""
        self._outgoing, self._incoming = outgoing, incoming
        self._sent: deque[tuple[float, Wire]] = deque(maxlen=outgoing.bound)

    @property
    def sent(self) -> list[tuple[float, Wire]]:
        """What this end sent and when (`loop.time()`): the newest `bound` messages."""
        return list(self._sent)

    @property
    def is_open(self) -> bool:
        return not (self.closed or self._incoming.closed or self._outgoing.broken)

    async def send(self, message: Wire) -> None:
        self.send_now(message)

    def send_at_once(self, message: Wire) -> bool:
        try:
            self.send_now(message)
        except (LinkError, BufferOverflowError):
            return False
        return True

    async def receive(self) -> Wire | None:
        return None if self.closed else await self._incoming.get()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.close_now(code, reason)

    def send_now(self, message: Wire) -> None:
        """`send` for code that cannot await; neither ever waits."""
        if not isinstance(message, str | bytes):
            raise TypeError(f"{self.name}: a message is str or bytes, not {type(message).__name__}")
        if self._outgoing.broken:
            raise LinkError(f"{self.name}: {self._outgoing.broken.reason}")
        if self.closed or self._incoming.closed:
            raise LinkError(
                f"{self.name}: send after {'this' if self.closed else 'the other'} side closed it"
            )
        self._outgoing.put(message)
        self._sent.append((asyncio.get_running_loop().time(), message))

    def close_now(self, code: int = 1000, reason: str = "") -> None:
        """`close` for code that cannot await."""
        if self.closed is None:
            self.closed = Close(code, reason)
            self._outgoing.put(self.closed)
            self._incoming.refuse()

    def break_(self, reason: str = BROKE) -> None:
        """Sudden death, both ways and at once: what is in flight or unread is lost."""
        self._outgoing.break_(Break(reason))
        self._incoming.break_(Break(reason))


class Peer:
    """The other side of a ScriptedLink. Nothing here waits, except `receive`.

    `send` and `close` are those of a Link without the await, and raise the same.
    """

    def __init__(self, end: MemoryLink) -> None:
        self._end = end
        self.send = end.send_now
        self.close = end.close_now
        self.break_ = end.break_

    @property
    def closed(self) -> Close | None:
        """How the link closed the connection, once that has arrived here."""
        return self._end._incoming.closed

    async def receive(self, timeout: float = 5.0) -> Wire | None:
        """The next message of the link that no reaction took, None at the end. TimeoutError.

        After its own `close` the peer can still read what had arrived before."""
        try:
            async with asyncio.timeout(timeout):
                return await self._end._incoming.get()
        except TimeoutError:
            raise TimeoutError(f"{self._end.name}: no message came in {timeout} s") from None

    def play(self, script: Script) -> None:
        """Gives the items at their times from now on; what comes after the end of the connection is lost."""
        self._play(_timed(script), asyncio.get_running_loop().time())

    def _play(self, items: deque[tuple[float, Item]], began: float) -> None:
        loop = asyncio.get_running_loop()
        while items and not (self._end.closed or self.closed or self._end._outgoing.broken):
            if began + items[0][0] > loop.time():
                loop.call_at(began + items[0][0], self._play, items, began)
                return
            match items.popleft()[1]:
                case Close(code, reason):
                    self.close(code, reason)
                case Break(reason):
                    self.break_(reason)
                case message:
                    self.send(message)


class ScriptedLink(MemoryLink):
    """A Link whose other side is `peer`: the test moves it, or a script and reactions do.

    Bounded at `bound` messages each way, by BufferOverflowError for the one who sends too many (a message
    that a reaction took does not count). `delay`: seconds that a message takes, the same each way.
    """

    def __init__(self, *, name: str = "link", bound: int = BOUND, delay: float = 0.0) -> None:
        outgoing, incoming = _Pipe(f"{name} to peer", bound, delay), _Pipe(f"peer to {name}", bound, delay)
        super().__init__(name, outgoing, incoming)
        self.peer = Peer(MemoryLink(f"{name}'s peer", incoming, outgoing))
        self._script: deque[tuple[float, Item]] = deque()
        self._reactions: list[Callable[[Wire], Script | None]] = []
        outgoing.taken = self._react

    @classmethod
    def playing(cls, script: Script, **options: Any) -> Self:
        """A link whose peer plays `script`, from the first time that anything is sent or received."""
        link = cls(**options)
        link._script = _timed(script)
        return link

    def on(self, match: Callable[[Wire], Any], replies: Script | None = None) -> Callable[[Wire], Any]:
        """Lets the peer answer what the link sends, as it arrives; the first reaction that takes it does.

        With `replies`: they are played for each message that `match` says True to. Without: `match` itself
        returns them, or None when the message is not its own; this form is a decorator too."""
        if replies is None:
            self._reactions.append(match)
        else:
            fixed = tuple(_timed(replies))
            self._reactions.append(lambda message: fixed if match(message) else None)
        return match

    async def send(self, message: Wire) -> None:
        self._begin()
        self.send_now(message)

    def send_at_once(self, message: Wire) -> bool:
        self._begin()
        return super().send_at_once(message)

    async def receive(self) -> Wire | None:
        self._begin()
        return await super().receive()

    def _begin(self) -> None:
        if self._script:
            script, self._script = self._script, deque()
            self.peer.play(script)

    def _react(self, message: Wire) -> bool:
        for reaction in self._reactions:
            if (replies := reaction(message)) is not None:
                self.peer.play(replies)
                return True
        return False


def pair(*, name: str = "pair", bound: int = BOUND, delay: float = 0.0) -> tuple[MemoryLink, MemoryLink]:
    """Two connected Links: what one sends, the other receives, `delay` seconds later."""
    there, back = (
        _Pipe(f"{name}, first to second", bound, delay),
        _Pipe(f"{name}, second to first", bound, delay),
    )
    return MemoryLink(f"{name}, first", there, back), MemoryLink(f"{name}, second", back, there)


def _timed(script: Script) -> deque[tuple[float, Item]]:
    """The script with a time for each item. ValueError when time goes back."""
    if isinstance(script, str | bytes):
        raise TypeError("a script is a list of items: one message goes in brackets")
    items: deque[tuple[float, Item]] = deque()
    for entry in script:
        before = items[-1][0] if items else 0.0
        at, item = entry if isinstance(entry, tuple) else (before, entry)
        if not at >= before:
            raise ValueError(f"{item!r} at {at} s comes after an item at {before} s: a script goes forward")
        items.append((at, item))
    return items
