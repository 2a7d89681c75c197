"""Times of day as callers say them: "half past ten", "ten thirty a.m.", "3 in the afternoon", "at ten".

A time without a.m. or p.m. is the one that lies between `earliest` and `latest`; if both or neither do, seven
to eleven is the morning and the rest the afternoon.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import time
from typing import NamedTuple

from processors.dialogue.found import Found
from processors.dialogue.words import SMALL, TENS, cardinal, list_of

BEFORE_HOUR = frozenset(list_of("at around about by until till from after before"))
"""What stands before an hour that is nothing but a number."""
NOT_HOURS = frozenset(list_of("day days week weeks month months year years hour hours minute minutes people"))
"""What a number counts that is no hour."""


class _Clock(NamedTuple):
    """What was said of it: `late` is True for p.m., False for a.m., None when it was not said."""

    hour: int
    minute: int
    end: int
    late: bool | None = None
    sure: bool = True
    """It is a time whatever stands around it."""


def find_times(
    words: Sequence[str],
    *,
    earliest: time = time(0),
    latest: time = time(23, 59),
    bare: bool = False,
) -> list[Found[time]]:
    """All times that are named, in order. `bare`: a number alone is one too, because that was asked."""
    found: list[Found[time]] = []
    at = 0
    while at < len(words):
        clock = _clock(words, at)
        if clock is not None and not clock.sure:
            counted = clock.end < len(words) and words[clock.end] in NOT_HOURS
            named = bare or (at > 0 and words[at - 1] in BEFORE_HOUR)
            clock = clock if named and not counted else None
        if clock is not None:
            found.append(Found(at, clock.end, _resolved(clock, earliest, latest)))
        at = clock.end if clock is not None else at + 1
    return found


def spoken_time(at: time) -> str:
    """ "half past two in the afternoon": as one says it, whatever comes after in the chain."""
    if at.minute == 0 and at.hour in (0, 12):
        return "noon" if at.hour else "midnight"
    hour = SMALL[(at.hour - 1) % 12 + 1]
    part = "in the morning" if at.hour < 12 else "in the afternoon" if at.hour < 18 else "in the evening"
    match at.minute:
        case 0:
            return f"{hour} {part}"
        case 15:
            return f"quarter past {hour} {part}"
        case 30:
            return f"half past {hour} {part}"
        case minute if minute < 10:
            return f"{hour} oh {SMALL[minute]} {part}"
        case minute if minute < 20:
            return f"{hour} {SMALL[minute]} {part}"
        case minute:
            tens = next(word for word, n in TENS.items() if n == minute // 10 * 10)
            return f"{hour} {tens}{f' {SMALL[minute % 10]}' if minute % 10 else ''} {part}"


def _clock(words: Sequence[str], at: int) -> _Clock | None:
    clock = _named(words, at) or _past_or_to(words, at) or _hour_first(words, at)
    if clock is None or clock.hour > 23 or clock.minute > 59:
        return None
    return _with_part_of_day(words, clock)


def _named(words: Sequence[str], at: int) -> _Clock | None:
    hour = {"noon": 12, "midday": 12, "midnight": 0}.get(words[at])
    return _Clock(hour, 0, at + 1, late=hour == 12) if hour is not None else None


def _past_or_to(words: Sequence[str], at: int) -> _Clock | None:
    """ "half past ten", "quarter to ten", "twenty past ten", and the British "half ten"."""
    start = at
    at += words[at : at + 1] == ["a"]
    if at >= len(words):
        return None
    minutes, end = {"half": 30, "quarter": 15}.get(words[at]), at + 1
    if minutes is None:
        count = cardinal(words, at)
        if count is None or not 0 < count.value < 60:
            return None
        minutes, end = count.value, count.end
        end += words[end : end + 1] in (["minutes"], ["minute"])
    side = words[end] if end < len(words) else ""
    british = words[at] == "half" and at == start
    hour = cardinal(words, end + 1) if side in ("past", "after", "to", "before", "of") else None
    if hour is None and british:
        hour, side = cardinal(words, end), "past"
    if hour is None or not 0 < hour.value < 13:
        return None
    if side in ("past", "after"):
        return _Clock(hour.value, minutes, hour.end)
    return _Clock((hour.value - 2) % 12 + 1, 60 - minutes, hour.end)


def _hour_first(words: Sequence[str], at: int) -> _Clock | None:
    """ "10:30", "ten thirty", "ten oh five", "ten o'clock", "ten"."""
    first = words[at]
    if len(first) > 3 and first[-3] in ":." and first[0].isdecimal():
        return _Clock(int(first[:-3]), int(first[-2:]), at + 1)
    hour = cardinal(words, at)
    if hour is None or hour.value > 23 or (first.isdecimal() and len(first) > 2):
        return None
    following = words[hour.end : hour.end + 2]
    if following[:1] in (["o'clock"], ["oclock"]):
        return _Clock(hour.value, 0, hour.end + 1)
    if following in (["o", "clock"], ["oh", "clock"]):
        return _Clock(hour.value, 0, hour.end + 2)
    if following[:1] in (["oh"], ["o"]) and (minute := cardinal(words, hour.end + 1)) is not None:
        return _Clock(hour.value, minute.value, minute.end) if minute.value < 10 else None
    minute = cardinal(words, hour.end)
    if minute is not None and 10 <= minute.value < 60 and hour.end == at + 1:
        return _Clock(hour.value, minute.value, minute.end)
    return _Clock(hour.value, 0, hour.end, sure=False)


def _with_part_of_day(words: Sequence[str], clock: _Clock) -> _Clock:
    match words[clock.end : clock.end + 3]:
        case ["am", *_]:
            return clock._replace(late=False, sure=True, end=clock.end + 1)
        case ["pm", *_]:
            return clock._replace(late=True, sure=True, end=clock.end + 1)
        case ["in", "the", ("morning" | "afternoon" | "evening") as part]:
            return clock._replace(late=part != "morning", sure=True, end=clock.end + 3)
        case ["at", "night", *_]:
            return clock._replace(late=True, sure=True, end=clock.end + 2)
    return clock


def _resolved(clock: _Clock, earliest: time, latest: time) -> time:
    hour, minute = clock.hour, clock.minute
    if hour > 12 or hour == 0:
        return time(hour, minute)
    morning, later = time(hour % 12, minute), time(hour % 12 + 12, minute)
    if clock.late is not None:
        return later if clock.late else morning
    fitting = [each for each in (morning, later) if earliest <= each <= latest]
    if len(fitting) == 1:
        return fitting[0]
    return morning if 7 <= hour < 12 else later
