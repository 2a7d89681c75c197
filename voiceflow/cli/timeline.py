"""A simulated call as text: one line per event, and both sides as bars on one time axis."""

from __future__ import annotations

from rich.text import Text

from processors.twilio.simulated.report import CallReport, Event, Samples
from voiceflow.frames import PHONE

BAR_WIDTH = 76
_LOOKS: dict[str, tuple[str, str]] = {
    "stream started": ("dim", "line open"),
    "caller speaks": ("cyan", "caller ▶ speaks"),
    "caller stops": ("cyan", "caller ■ stops"),
    "agent heard": ("green", "agent  ▶ is heard"),
    "agent silent": ("green", "agent  ■ silent"),
    "clear received": ("bold red", "agent  ✂ cut off"),
    "mark returned": ("dim", "mark returned"),
    "key pressed": ("cyan", "caller # presses"),
    "said": ("yellow", "Twilio says"),
    "dialled": ("yellow", "Twilio dials"),
    "fault": ("bold red", "fault"),
    "stream refused": ("bold red", "stream refused"),
    "stream closed by server": ("dim", "line closed by the server"),
    "hung up": ("dim", "hung up"),
}


class Timeline:
    """Turns events into lines, adding how long the other side took: what a listener would notice."""

    def __init__(self) -> None:
        self._caller_stopped: float | None = None
        self._caller_began: float | None = None

    def line(self, event: Event) -> Text:
        style, words = _LOOKS.get(event.kind, ("", event.kind))
        text = Text(f"{event.at:7.2f} s  ")
        text.append(words, style=style)
        if event.detail:
            text.append(f"  {event.detail}", style="dim")
        if note := self._delay(event):
            text.append(f"  ({note})", style="bold")
        return text

    def _delay(self, event: Event) -> str:
        match event.kind:
            case "caller speaks":
                self._caller_began, self._caller_stopped = event.at, None
            case "caller stops":
                self._caller_stopped = event.at
            case "agent heard" if self._caller_stopped is not None:
                waited, self._caller_stopped = event.at - self._caller_stopped, None
                return f"{waited:.2f} s after the caller stopped"
            case "clear received" if self._caller_began is not None:
                waited, self._caller_began = event.at - self._caller_began, None
                return f"{waited:.2f} s after the caller began"
        return ""


def bars(report: CallReport) -> Text:
    """The two sides of the call, as loud as they were, on one axis of seconds."""
    samples = max(len(report.caller_audio), len(report.agent_audio), 1)
    seconds = samples / PHONE.rate
    text = Text()
    text.append("caller ")
    text.append(_bar(report.caller_audio, samples), style="cyan")
    text.append("\nagent  ")
    text.append(_bar(report.agent_audio, samples), style="green")
    every = max(1, round(seconds / 8))
    axis = list(" " * (BAR_WIDTH + 8))
    for second in range(0, int(seconds) + 1, every):
        place = int(second / seconds * BAR_WIDTH)
        for offset, letter in enumerate(f"{second}s"):
            if place + offset < len(axis):
                axis[place + offset] = letter
    text.append("\n       " + "".join(axis).rstrip(), style="dim")
    return text


def _bar(audio: Samples, samples: int) -> str:
    """One character per column, by the column's loudness (root mean square, in steps of 6 dB)."""
    import numpy as np

    padded = np.zeros(samples, np.float64)
    padded[: len(audio)] = audio
    columns = np.array_split(padded, BAR_WIDTH)
    loudness = [float(np.sqrt(np.mean(column**2))) if len(column) else 0.0 for column in columns]
    steps = " ▁▂▃▄▅▆▇"
    levels = [0 if level < 60 else min(7, 1 + int(np.log2(level / 60))) for level in loudness]
    return "".join(steps[level] if level else "·" for level in levels)
