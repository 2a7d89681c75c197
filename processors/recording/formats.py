"""The transcript beside a recording: JSON for programs, WebVTT for players.

WebVTT: w3.org/TR/webvtt1. A cue's text may not hold `&`, `<` and `>` as they are, nor an empty line.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from processors.recording.transcript import Entry

VERSION = 1
"""Of the JSON file's format. It goes up when a reader of an older one would misunderstand a newer one."""


@dataclass(slots=True, frozen=True)
class About:
    """Which call it was; `started` by the clock on the wall, ISO 8601."""

    call: str
    started: str
    caller: str
    called: str
    rate: int


def to_json(
    about: About,
    audio: str,
    seconds: float,
    entries: Sequence[Entry],
    pauses: Sequence[tuple[float, float]],
    *,
    complete: bool,
) -> str:
    """An entry a line. `complete` is false as long as the call goes on, and for ever when it was killed."""
    head = {
        "version": VERSION,
        **dataclasses.asdict(about),
        "audio": audio,
        "seconds": round(seconds, 3),
        "complete": complete,
        "pauses": pauses,
    }
    lines = [f" {_dumps(name)}: {_dumps(value)}" for name, value in head.items()]
    said = ",\n  ".join(_dumps(dataclasses.asdict(entry)) for entry in entries)
    lines.append(f' "entries": [\n  {said}\n ]' if said else ' "entries": []')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def to_vtt(entries: Sequence[Entry]) -> str:
    """A cue for each entry, with a voice tag."""
    cues = [
        f"{number}\n{_clock(entry.start)} --> {_clock(entry.end)}\n"
        f"<v {entry.speaker.capitalize()}>{_escaped(entry.text)}\n"
        for number, entry in enumerate(entries, 1)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _clock(seconds: float) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def _escaped(text: str) -> str:
    plain = " ".join(text.split())
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
