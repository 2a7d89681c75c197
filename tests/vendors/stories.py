"""What is said in the example pipelines when they are played on fake vendors: the caller's lines, and a model
that answers by rules. It calls tools as a language model would, and reads their results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from tests.vendors.completions import Answer, ToolCall

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"


@dataclass(slots=True, frozen=True)
class Story:
    """A call. `lines` are what the other side says, each once the agent has spoken; `parameters` come with an
    outbound call, which a story with parameters is. `ends` is what the agent says last."""

    file: Path
    lines: Sequence[str]
    model: Callable[[list[dict[str, Any]]], Answer]
    ends: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def _desk(messages: list[dict[str, Any]]) -> Answer:
    last = messages[-1]
    said = str(last["content"])
    if last["role"] == "tool":
        if said.startswith("["):
            return f"We have {' or '.join(_hour(each) for each in json.loads(said)[1:3])}. Which do you like?"
        return f"{said} Is there anything else?" if said.startswith("Booked") else f"I am sorry: {said}"
    if "check-up" in said:
        return "Let me look. ", ToolCall("free_times", json.dumps({"day": _workday()}))
    if "half past ten" in said:
        return f"Half past ten on {date.fromisoformat(_workday()):%A}. What is your name, please?"
    if "Ada" in said:
        booked = {"day": _workday(), "at": "10:30", "name": "Ada Lovelace"}
        return "One moment. ", ToolCall("book", json.dumps(booked))
    if "No" in said:
        return "Then we will see you. Goodbye!", ToolCall("end_call")
    return "I did not get that. What can I do for you?"


def _reminder(messages: list[dict[str, Any]]) -> Answer:
    last = messages[-1]
    if last["role"] == "tool":
        return "Thank you, then we will see you. Goodbye!", ToolCall("end_call")
    if "come" in str(last["content"]).lower():
        return (ToolCall("note_answer", json.dumps({"answer": "comes"})),)
    return "Sorry, will you come?"


def _workday() -> str:
    """The first weekday after today."""
    day = date.today() + timedelta(1)
    while day.weekday() > 4:
        day += timedelta(1)
    return day.isoformat()


def _hour(time: str) -> str:
    return {"09:00": "nine", "10:30": "half past ten", "14:00": "two", "15:30": "half past three"}[time[:5]]


STORIES = {
    "appointment_desk": Story(
        PIPELINES / "appointment_desk.py",
        (
            "Hello, I would like to come for a check-up.",
            "At half past ten, please.",
            "My name is Ada Lovelace.",
            "No, that is all. Thank you.",
        ),
        _desk,
        ends="Then we will see you. Goodbye!",
    ),
    "reminder": Story(
        PIPELINES / "reminder.py",
        ("Yes, I will come.",),
        _reminder,
        ends="Thank you, then we will see you. Goodbye!",
        parameters={"name": "Ada", "when": "on Tuesday at three"},
    ),
}
