"""The model process as its parent sees it: started, talked to, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys

from voiceflow.models.model import ModelDied
from voiceflow.models.wire import Answer, Order, packed, read

RUN = "from voiceflow.models.worker import main; main()"
ENDING = 2.0
"""Seconds it may take to end by itself."""

BUFFERED = 1 << 20
"""Bytes of answers that are read ahead: 20 s of speech."""


class Child:
    """A running model process. `worked` once it has done something."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process, self._reader, self._writer = process, reader, writer

    @classmethod
    async def start(cls) -> Child:
        """Starts one. ModelDied when the system refuses."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = _spawn(theirs)  # some milliseconds; before the first call, or after a death
        except OSError as error:
            ours.close()
            raise ModelDied(f"no model process could be started: {error}") from error
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=BUFFERED)
        except BaseException:
            ours.close()
            process.kill()
            process.wait()
            raise
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, order: Order) -> None:
        """Never waits: one job is under way at a time, and its arguments are small. What cannot be sent is
        seen by `receive`."""
        self._writer.write(packed(order))

    async def receive(self) -> Answer:
        """The next answer. ModelDied, saying how, when there will be none."""
        try:
            return await read(self._reader)
        except (asyncio.IncompleteReadError, OSError):
            raise ModelDied(f"the model process died ({await self._ended()})") from None

    def kill(self) -> None:
        self._process.kill()

    async def close(self) -> None:
        """Ends it: by itself, or after ENDING seconds by force."""
        self._writer.close()
        await self._ended()

    async def _ended(self) -> str:
        """How it ended."""
        self._writer.close()
        try:
            code = await asyncio.to_thread(self._process.wait, ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = await asyncio.to_thread(self._process.wait)
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _spawn(connection: socket.socket) -> subprocess.Popen[bytes]:
    """Starts it with the same Python and the same places to import from; what it prints goes to stderr."""
    number = connection.fileno()
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", RUN, str(number)],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=2,
        pass_fds=(number,),
        start_new_session=True,
    )
