"""A Link: the one way to reach the other side, a vendor or a carrier. Three methods, so that a scripted
one (`voiceflow.testing.ScriptedLink`) can stand in for any socket."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

AT_ONCE = 16 * 1024
"""Bytes of a message that a socket with an empty buffer takes without waiting."""


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

    def send_at_once(self, message: str | bytes) -> bool:
        """Sends one message if that needs no waiting; False when it does, or fails: then nothing was sent.

        It is for what is urgent: through a task that writes, `clear` left 0.2 ms later.
        """
        ...

    async def receive(self) -> str | bytes | None:
        """The next message, or None when the connection is over."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes it, with a WebSocket close code where there is one."""
        ...


def at_once(sending: Coroutine[Any, Any, None]) -> bool:
    """Runs a WebSocket library's `send` without a task: it writes first, and then waits only if the socket's
    buffer is full, which whoever calls this has ruled out. False when it raised."""
    try:
        sending.send(None)
    except StopIteration:
        return True
    except Exception:
        return False
    finally:
        sending.close()
    return True
