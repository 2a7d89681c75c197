"""What is typed: lines of a terminal, a pipe or a file, read in a thread: a read cannot be cancelled."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import TextIO

from voiceflow.trace.text import plain

AHEAD = 16
"""Lines that are read before they are wanted."""
LONGEST = 4000
"""Letters of a line: what one says in five minutes. What is longer is cut."""
CHUNK = 65536


class Keyboard:
    """The lines of `stream`, printable and without spaces at their ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_terminal = stream.isatty()

    async def lines(self) -> AsyncIterator[str]:
        """Line after line until the stream ends. Given up, it leaves its thread to itself."""
        waiting: asyncio.Queue[str | None] = asyncio.Queue()  # bounded by `room`
        room = threading.Semaphore(AHEAD)
        loop = asyncio.get_running_loop()

        def put(line: str | None) -> None:
            room.acquire()
            loop.call_soon_threadsafe(waiting.put_nowait, line)

        def read() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody wants any more
                with suppress(OSError, ValueError):  # the terminal is gone
                    for line in self._read():
                        put(plain(line[:LONGEST]))
                put(None)

        # A daemon, and past Python's own buffer: that one would be locked at exit by a read that waits.
        threading.Thread(target=read, name="voiceflow keyboard", daemon=True).start()
        while (line := await waiting.get()) is not None:
            room.release()
            yield line

    def _read(self) -> Iterator[str]:
        try:
            file = self._stream.fileno()
        except (OSError, ValueError):  # a stream in memory
            yield from self._stream
            return
        left = b""
        while data := os.read(file, CHUNK):
            *whole, left = (left + data).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace")
            left = left[: 4 * LONGEST]  # a line that does not end
        if left:
            yield left.decode(errors="replace")
