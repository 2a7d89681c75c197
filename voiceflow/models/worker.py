"""What runs in the model process: one job after another, as its parent says.
It is given the descriptor of a socket that it has inherited, and ends when that does: it never outlives its
parent.
"""

from __future__ import annotations

import inspect
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from voiceflow.errors import VoiceflowError
from voiceflow.models.model import Model, ModelError
from voiceflow.models.wire import Answer, Cancel, Done, Load, Piece, Run, packed, receive

NICENESS = 5
"""When both want the same core, the process that carries the calls gets three quarters of it. More would
starve the models on a machine that does other things as well."""


class Models:
    """Models by name, each made when it is first asked for."""

    def __init__(self) -> None:
        self._loaded: dict[Model, Any] = {}

    def get(self, model: Model) -> Any:
        """A model. ModelError when it cannot be loaded."""
        if model not in self._loaded:
            with _explained(model):
                self._loaded[model] = model.load()
        return self._loaded[model]

    def run(self, model: Model, method: str, arguments: tuple[Any, ...]) -> Iterator[Any]:
        """The pieces of an answer: one, unless the method is a generator. ModelError when it fails."""
        loaded = self.get(model)
        with _explained(model):
            answer = getattr(loaded, method)(*arguments)
            yield from answer if inspect.isgenerator(answer) else (answer,)


@contextmanager
def _explained(model: Model) -> Iterator[None]:
    """Whatever a model raises is an error of ours that names it."""
    try:
        yield
    except VoiceflowError as error:
        raise ModelError(str(error)) from error
    except Exception as error:
        raise ModelError(f"{model.path} failed: {type(error).__name__}: {error}") from error


class Worker:
    """Serves one connection to its end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._models = Models()
        self._gone = False

    def serve(self) -> None:
        while not self._gone and (order := receive(self._connection)) is not None:
            if isinstance(order, Load | Run):
                self._do(order)

    def _do(self, job: Load | Run) -> None:
        error = None
        try:
            if isinstance(job, Load):
                self._models.get(job.model)
            else:
                for value in self._models.run(job.model, job.method, job.arguments):
                    self._send(Piece(job.number, value))
                    if self._cancelled(job.number):
                        break
        except ModelError as failure:
            error = str(failure)
        self._send(Done(job.number, error))

    def _cancelled(self, number: int) -> bool:
        """Whether the parent has said so meanwhile. While a job runs it says nothing else."""
        while not self._gone and select.select([self._connection], [], [], 0)[0]:
            order = receive(self._connection)
            self._gone = order is None
            if isinstance(order, Cancel) and order.number == number:
                return True
        return self._gone

    def _send(self, answer: Answer) -> None:
        try:
            self._connection.sendall(packed(answer))
        except OSError:
            self._gone = True


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    os.nice(NICENESS)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        Worker(connection).serve()
