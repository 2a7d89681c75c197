"""A Link: the one way to reach the other side, a vendor or a carrier. Three methods, so that a scripted
one (`voiceflow.testing.ScriptedLink`) can stand in for any socket."""

from __future__ import annotations

from typing import Protocol


class Link(Protocol):
    """A connection that carries messages.

    `send` and `receive` raise `LinkError` when the connection fails; `receive` returns None when the
    other side closed it, cleanly or not. `close` is idempotent, bounded in time and never raises.
    """

    @property
    def is_open(self) -> bool:
        """Whether it can still be used, as far as this side knows."""
        ...

    async def send(self, message: str | bytes) -> None:
        """Sends one message: `str` as text, `bytes` as binary."""
        ...

    async def receive(self) -> str | bytes | None:
        """The next message, or None when the connection is over."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes it, with a WebSocket close code where there is one."""
        ...
