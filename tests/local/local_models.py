"""Models without a network in them, for the model process: it finds this file on the tests' own path."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np

from processors.hibari.model import RATE


class Echo:
    """Answers what it is asked, and can go wrong in every way."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.count = 0

    def say(self, text: str) -> str:
        self.count += 1
        return f"{self.prefix}{text}"

    def where(self) -> int:
        return os.getpid()

    def niceness(self) -> int:
        return os.nice(0)

    def counted(self) -> int:
        return self.count

    def letters(self, text: str) -> Iterator[str]:
        yield from text

    def wait_for(self, path: str) -> str:
        """Answers once a file is there: the test says when."""
        while not os.path.exists(path):
            time.sleep(0.002)
        return "there"

    def pieces_until(self, path: str) -> Iterator[int]:
        """Goes on until a file is there, or nobody wants more."""
        number = 0
        while not os.path.exists(path):
            yield number
            number += 1
            time.sleep(0.002)

    def die(self) -> None:
        os.kill(os.getpid(), 9)

    def die_once(self, path: str) -> str:
        """Dies, but not the second time."""
        if not os.path.exists(path):
            open(path, "w").close()
            os.kill(os.getpid(), 9)
        return "the second time"

    def die_after_a_piece(self) -> Iterator[str]:
        yield "half of it"
        os.kill(os.getpid(), 9)

    def leave(self) -> None:
        os._exit(3)

    def fail(self) -> None:
        raise ValueError("this is no word")

    def print(self) -> str:
        print("a library that talks")
        return "printed"

    def threads(self) -> int:
        return threading.active_count()


class Broken:
    """Cannot be loaded."""

    def __init__(self) -> None:
        raise OSError("its file is gone")


class Ears:
    """Hears how long it was given something: `2.0 s`. Near silence it hears nothing."""

    def transcribe(self, audio: bytes, rate: int) -> str:
        samples = np.frombuffer(audio, np.int16)
        return f"{len(samples) / rate:.1f} s" if np.abs(samples).max(initial=0) > 100 else ""


class Mouth:
    """0.1 s of a tone for each word, sentence by sentence."""

    def speak(self, text: str, speed: float) -> Iterator[bytes]:
        for sentence in text.split(". "):
            samples = np.arange(round(len(sentence.split()) * RATE * 0.1 / speed))
            yield (8000 * np.sin(samples * 2 * np.pi * 440 / RATE)).astype(np.int16).tobytes()


class Guess:
    """Takes loud ends for unfinished."""

    def __init__(self, path: str) -> None:
        self.path = path

    def finished(self, audio: bytes, rate: int) -> float:
        samples = np.frombuffer(audio, np.int16)
        return 0.1 if np.abs(samples[-rate // 10 :]).max(initial=0) > 10_000 else 0.9
