"""Reading a call's line, stream after stream: most calls have one; a carrier that is sent elsewhere for a
moment comes back with another (see `Line.expect`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from voiceflow.errors import LineError, LinkError
from voiceflow.line.sink import LineSink
from voiceflow.line.source import LineSource


class LineOver(NamedTuple):
    """Why the last stream is over; not `normal` when it was lost."""

    reason: str
    normal: bool = True


async def read_streams(
    source: LineSource, sink: LineSink | None, note: Callable[[str, str], None]
) -> LineOver:
    """Reads until no other stream is to be expected. `note(owner, what)` is told of each change.

    Raises LineError when a stream breaks its protocol.
    """
    line = source.line
    while True:
        try:
            over = LineOver(await source.read(sink))
        except LinkError as error:
            over = LineOver(f"the line was lost: {error}", normal=False)
        if not line.expecting:
            return over
        note("line", "the carrier took the stream away")
        line.leave()
        if sink is not None:
            sink.line_gone()
        try:
            if not await line.next():
                return over
        except LineError as error:
            return LineOver(str(error), normal=False)
        note("line", "the call goes on over another stream")
        if sink is not None:
            sink.line_back()
