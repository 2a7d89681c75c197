"""Messages between voiceflow and its model process: pickled, each behind its length.

Both ends are ours and nobody else can reach the socket, so pickle is safe here and quick: 100 kB of samples
take 20 us.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from dataclasses import dataclass
from typing import Any

from voiceflow.models.model import Model

_LENGTH = struct.Struct("!I")


@dataclass(slots=True, frozen=True)
class Load:
    """To the process: load this model."""

    number: int
    model: Model


@dataclass(slots=True, frozen=True)
class Run:
    """To the process: call this method of a model, which is loaded if it is not yet."""

    number: int
    model: Model
    method: str
    arguments: tuple[Any, ...]


@dataclass(slots=True, frozen=True)
class Cancel:
    """To the process: nobody wants this answer any more. It stops before the next piece."""

    number: int


@dataclass(slots=True, frozen=True)
class Piece:
    """From the process: an answer, or a piece of one."""

    number: int
    value: Any


@dataclass(slots=True, frozen=True)
class Done:
    """From the process: the answer is complete, or failed with this error."""

    number: int
    error: str | None = None


Order = Load | Run | Cancel
Answer = Piece | Done


def packed(message: Order | Answer) -> bytes:
    """A message as it travels."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


async def read(reader: asyncio.StreamReader) -> Answer:
    """The next answer. IncompleteReadError or OSError when the other side is gone."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    answer: Answer = pickle.loads(await reader.readexactly(length))
    return answer


def receive(connection: socket.socket) -> Order | None:
    """The next order, waited for without an event loop. None when the other side is gone."""
    if (head := _exactly(connection, _LENGTH.size)) is None:
        return None
    body = _exactly(connection, _LENGTH.unpack(head)[0])
    if body is None:
        return None
    order: Order = pickle.loads(body)
    return order


def _exactly(connection: socket.socket, count: int) -> bytearray | None:
    data = bytearray()
    while len(data) < count:
        try:
            fresh = connection.recv(min(count - len(data), 1 << 20))
        except OSError:
            return None
        if not fresh:
            return None
        data += fresh
    return data
