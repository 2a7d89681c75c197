"""A measured caller's end of the media WebSocket: a raw socket, without an event loop of its own.

An asyncio driver adds its own work to what it measures: 0.2 to 0.4 ms between the kernel having a message and
the driver's code seeing it. Here a thread sleeps in `select`. (Polling was tried: a core that spins slows the
other one down on this kind of machine, and everything took longer.) The time of a message is taken right
before the system call that writes it, the time of `clear` right after the one that reads it.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from benchmarks.clear_driver import FRAME_SECONDS, GRACE_SECONDS, RATE, Wire, media_message, start_messages

CONNECT_DEADLINE = 10.0


def drive_precisely(url: str, payloads: list[bytes], *, start: dict[str, Any] | None = None) -> Wire:
    """`clear_driver.drive`, blocking: for as long as the audio lasts; run it in a thread or alone.

    Raises ConnectionError when the far side closes, or refuses the upgrade.
    """
    wire = Wire()

    def take(at: float, event: dict[str, Any]) -> None:
        if event.get("event") == "clear":
            wire.cleared_at.append(at)
        elif event.get("event") == "media":
            wire.media_at.append(at)
            wire.media_seconds += len(base64.b64decode(event["media"]["payload"])) / RATE

    connection = upgrade(url)
    try:
        stream = Frames(connection, take)
        opening, sid = start_messages(start or {})
        for message in opening:
            connection.sendall(text(message))
        messages = [text(media_message(number, payload, sid)) for number, payload in enumerate(payloads)]
        connection.setblocking(False)
        began = time.perf_counter()
        for number, message in enumerate(messages):
            due = began + number * FRAME_SECONDS
            stream.listen(due)
            wire.sent_at.append(time.perf_counter())
            connection.send(message)
        stream.listen(time.perf_counter() + GRACE_SECONDS)
    finally:
        connection.close()
    return wire


class Frames:
    """Reads the server's WebSocket frames (RFC 6455, unmasked, text). `take` gets when each was read, and its
    JSON."""

    def __init__(self, connection: socket.socket, take: Callable[[float, dict[str, Any]], None]) -> None:
        self._connection = connection
        self._take = take
        self._buffer = bytearray()

    def listen(self, until: float) -> None:
        """Sleeps until `until`, reading what comes."""
        while time.perf_counter() < until:
            self.wait(until)

    def wait(self, until: float) -> None:
        """Sleeps until `until` or until something came, and reads that."""
        left = max(0.0, until - time.perf_counter())
        if select.select([self._connection], [], [], left)[0]:
            self._read()

    def _read(self) -> None:
        try:
            data = self._connection.recv(65536)
        except BlockingIOError:
            return
        at = time.perf_counter()
        if not data:
            raise ConnectionError("the far side closed")
        self._buffer += data
        while (frame := self._frame()) is not None:
            opcode, payload = frame
            if opcode == 8:
                raise ConnectionError("the far side closed")
            if opcode == 9:
                self._connection.send(_masked(0x8A, payload))  # unanswered pings end the connection
            if opcode == 1:
                self._take(at, json.loads(payload))

    def _frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, begin = buffer[1] & 0x7F, 2
        if length == 126:
            length, begin = int.from_bytes(buffer[2:4]), 4
        elif length == 127:
            length, begin = int.from_bytes(buffer[2:10]), 10
        if len(buffer) < begin + length:
            return None
        opcode, payload = buffer[0] & 0x0F, bytes(buffer[begin : begin + length])
        del buffer[: begin + length]
        return opcode, payload


def upgrade(url: str) -> socket.socket:
    """A WebSocket at `url`, blocking. Raises OSError, and ConnectionError when it is refused."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=CONNECT_DEADLINE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = connection.recv(1)  # byte by byte, so that no frame is read with it
        if not data:
            raise ConnectionError("the far side closed before the upgrade")
        answer += data
    if b" 101 " not in answer.split(b"\r\n", 1)[0]:
        raise ConnectionError(f"the upgrade was refused: {answer.splitlines()[0].decode()}")
    return connection


def text(message: str) -> bytes:
    """A text message as a client's frame."""
    return _masked(0x81, message.encode())


def _masked(head: int, payload: bytes) -> bytes:
    """A masked frame; the mask is zero, which is allowed and leaves the payload as it is."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2)
    return bytes([head]) + length + bytes(4) + payload
