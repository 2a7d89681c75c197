"""deepgram-sdk's typed client on a link of ours.

All is the SDK's but one thing: TurnInfo, four times a second and the messenger of every barge-in, is read
from its JSON directly. The SDK takes 0.2 ms to build a model of it, a fifth of what a barge-in may take.

Importing this module imports the SDK, which takes 0.2 s and more: it is done in `warm()`, or at the latest in
`start()`. The client is given our link as its websocket, so that the connection, its deadlines and its end
are ours. (The SDK's own `connect` needs `websockets.legacy`, and its `transport_factory` is one for the whole
process.)
"""

from __future__ import annotations

import json
import math
import warnings
from typing import Any, TypeGuard, cast

from processors.flux.messages import (
    Configured,
    Connected,
    Failed,
    Message,
    Strange,
    TimedWord,
    TurnInfo,
    Warned,
)
from voiceflow.errors import LinkError
from voiceflow.line.link import Link

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports websockets.legacy for a type
    from deepgram.listen.v2.socket_client import AsyncV2SocketClient
    from deepgram.listen.v2.types import (
        ListenV2Configure,
        ListenV2ConfigureFailure,
        ListenV2ConfigureSuccess,
        ListenV2ConfigureThresholds,
        ListenV2Connected,
        ListenV2FatalError,
        ListenV2Warning,
    )

EVENTS = frozenset({"StartOfTurn", "Update", "EagerEndOfTurn", "TurnResumed", "EndOfTurn"})
THRESHOLDS = frozenset({"eot_threshold", "eager_eot_threshold", "eot_timeout_ms"})


class FluxClient:
    """Everything raises LinkError when the connection is over. No method is bounded in time."""

    def __init__(self, link: Link) -> None:
        self._socket = _Socket(link)
        self._client = AsyncV2SocketClient(websocket=cast(Any, self._socket))

    async def receive(self) -> Message:
        """The next message. What cannot be understood is a `Strange` one."""
        raw = await self._socket.receive()
        try:
            data = json.loads(raw) if isinstance(raw, str) else None
        except (ValueError, RecursionError):
            return Strange("text that is no JSON")
        if isinstance(data, dict) and data.get("type") == "TurnInfo":
            return _turn_info(data)
        self._socket.peeked = raw
        match await self._client.recv():
            case ListenV2Connected():
                return Connected()
            case ListenV2ConfigureSuccess():
                return Configured()
            case ListenV2ConfigureFailure(code=code, description=description):
                return Configured(
                    " ".join(filter(None, (_text(code), _text(description)))) or "no reason given"
                )
            case ListenV2Warning(code=code, description=description):
                return Warned(_text(code), _text(description))
            case ListenV2FatalError(code=code, description=description):
                return Failed(_text(code), _text(description))
            case bytes():
                return Strange("a binary message")
            case _:
                return Strange("a message of an unknown type")

    async def send_audio(self, audio: bytes) -> None:
        await self._client.send_media(audio)

    async def configure(self, changes: dict[str, Any]) -> None:
        """`changes` as they stand in Settings; what is not in there stays as it is."""
        sent: dict[str, Any] = {
            name: list(value) if isinstance(value, tuple) else value for name, value in changes.items()
        }
        thresholds = {name: sent.pop(name) for name in THRESHOLDS & sent.keys()}
        if thresholds:
            sent["thresholds"] = ListenV2ConfigureThresholds(**thresholds)
        await self._client.send_configure(ListenV2Configure(type="Configure", **sent))

    async def force_end_turn(self) -> None:
        await self._client.send_force_end_turn()

    async def close_stream(self) -> None:
        await self._client.send_close_stream()


class _Socket:
    """A link as the SDK wants a websocket."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.send = link.send
        self.peeked: str | bytes = ""
        """The message that the SDK is to read."""

    async def recv(self) -> str | bytes:
        return self.peeked

    async def receive(self) -> str | bytes:
        """The next message of the link. LinkError when there is none any more, with the reason if known."""
        message = await self._link.receive()
        if message is None:
            code, reason = getattr(self._link, "close_code", None), getattr(self._link, "close_reason", "")
            said = " ".join(str(part) for part in (code, reason) if part)
            raise LinkError(f"it was closed{f' ({said})' if said else ''}")
        return message


def _turn_info(info: dict[str, Any]) -> TurnInfo | Strange:
    """Nothing in it is certain to be there, or to be of its type."""
    event, end = info.get("event"), info.get("audio_window_end")
    if not isinstance(event, str) or event not in EVENTS:
        return Strange("an unknown event", str(event))
    return TurnInfo(
        event,
        _text(info.get("transcript")),
        _words(info.get("words")),
        end if _is_time(end) else math.inf,
        info.get("trigger") == "manual",
    )


def _words(words: object) -> tuple[TimedWord, ...]:
    """The words with their times; none unless all of them have some."""
    timed = []
    for word in words if isinstance(words, list) else ():
        if not isinstance(word, dict):
            return ()
        text, start, end = word.get("word"), word.get("start"), word.get("end")
        if not (isinstance(text, str) and _is_time(start) and _is_time(end)):
            return ()
        timed.append(TimedWord(text, start, end))
    return tuple(timed)


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
