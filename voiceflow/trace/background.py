"""One thread for what may be slow: a paused terminal, a busy disk. Calls never wait for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Background:
    """Does jobs in order, in a thread of its own that starts with the first one.

    `bound` jobs may wait; more are dropped and counted. After a job has woken it, it waits `pause` seconds
    before it works: events come in bursts, just when a call has something to do, and the interpreter runs one
    thread at a time.
    """

    def __init__(self, name: str, *, bound: int, pause: float = 0.0) -> None:
        self.name = name
        self.bound = bound
        self.pause = pause
        self.dropped = 0
        self.failed = 0
        """Jobs that raised."""
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], None]) -> bool:
        """Hands over a job; False when it was dropped. Never waits."""
        if self._closing.is_set() or self._jobs.qsize() >= self.bound:
            self.dropped += 1
            return False
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
            self._thread.start()
        return True

    def close(self, timeout: float) -> bool:
        """Takes no more jobs and waits for those that are there; False when that took too long."""
        self._closing.set()
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return True

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            self._closing.wait(self.pause)
            while job is not None:
                try:
                    job()
                except Exception:
                    self.failed += 1
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            else:
                return
