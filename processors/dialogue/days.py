"""Days as callers name them, as seen from a given today: "tomorrow", "next Tuesday", "the third of May".

    a weekday       the next one after today; with "next", the one of next week (weeks begin on Monday)
    a date          the next one, today included, if no year is given
    "the third"     the next third of a month

What leaves open which day is meant ("next week", "3/5") is none. Whoever books reads the day back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from processors.dialogue.found import Found
from processors.dialogue.words import ORDINALS, TENS, cardinal, list_of, ordinal

WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
MONTHS = list_of("january february march april may june july august september october november december")
SHORT = {name[:3]: n for n, name in enumerate(MONTHS, 1)} | {"sept": 9}
AFTER_ORDINAL = frozenset(list_of("at on please then if works would is or and no not around about"))
"""What follows when "the first" is a day; in "the first time" it is none."""
PARTS_OF_DAY = [["in", "the", part] for part in ("morning", "afternoon", "evening")]
FAR = 366
"""Days ahead that "in N days" may go."""


def find_days(words: Sequence[str], today: date) -> list[Found[date]]:
    """All days that are named, in order, each with the words that name it."""
    found: list[Found[date]] = []
    at = 0
    while at < len(words):
        day = (
            _iso(words, at)
            or _relative(words, at, today)
            or _date(words, at, today)
            or _weekday(words, at, today)
            or _of_a_month(words, at, today)
        )
        if day is not None:
            found.append(day)
        number = ordinal(words, at) or cardinal(words, at) if day is None else None
        at = day.end if day is not None else number.end if number is not None else at + 1
    return found


def spoken_day(day: date) -> str:
    """ "Tuesday the third of May": as one says it, whatever comes after in the chain."""
    return (
        f"{WEEKDAYS[day.weekday()].capitalize()} the {_nth(day.day)} of {MONTHS[day.month - 1].capitalize()}"
    )


def _iso(words: Sequence[str], at: int) -> Found[date] | None:
    if len(words[at]) != 10:
        return None
    try:
        return Found(at, at + 1, date.fromisoformat(words[at]))
    except ValueError:
        return None


def _relative(words: Sequence[str], at: int, today: date) -> Found[date] | None:
    match words[at:]:
        case ["day", "after", "tomorrow", *_]:
            return Found(at, at + 3, today + timedelta(2))
        case ["today" | "tonight", *_]:
            return Found(at, at + 1, today)
        case ["tomorrow", *_]:
            return Found(at, at + 1, today + timedelta(1))
        case ["in" | "a", *_]:
            start = at + (words[at] == "in")
            count = cardinal(words, start)
            if count is None and words[start : start + 1] == ["a"]:
                count = cardinal(["1"], 0)
                assert count is not None
                count = count._replace(end=start + 1)
            if count is None or count.end >= len(words):
                return None
            unit = {"day": 1, "days": 1, "week": 7, "weeks": 7}.get(words[count.end], 0)
            end = count.end + 1
            if words[at] == "a":  # "a week from today", but not "twice a week"
                if words[end : end + 2] not in (["from", "today"], ["from", "now"]):
                    return None
                end += 2
            days = unit * count.value
            return Found(at, end, today + timedelta(days)) if 0 < days <= FAR else None
    return None


def _date(words: Sequence[str], at: int, today: date) -> Found[date] | None:
    """ "(the) third of May", "May (the) third", "3 May", "May 3 2027"; a weekday before it is taken along."""
    start = at
    if words[at] in WEEKDAYS:
        at += 1
    at += words[at : at + 1] == ["the"]
    if at >= len(words):
        return None
    if (month := _month(words[at])) is not None:
        place = at + 1 + (words[at + 1 : at + 2] == ["the"])
        day = ordinal(words, place) or cardinal(words, place)
        end = day.end if day is not None else at
    else:
        day = ordinal(words, at) or cardinal(words, at)
        if day is None:
            return None
        place = day.end + (words[day.end : day.end + 1] == ["of"])
        month = _month(words[place]) if place < len(words) else None
        end = place + 1
    if day is None or month is None:
        return None
    year = int(words[end]) if end < len(words) and words[end].isdecimal() and len(words[end]) == 4 else None
    named = _next_date(day.value, month, year, today)
    return Found(start, end + (year is not None), named) if named is not None else None


def _weekday(words: Sequence[str], at: int, today: date) -> Found[date] | None:
    word = words[at]
    if word not in WEEKDAYS:
        return None
    weekday = WEEKDAYS.index(word)
    before = words[at - 1] if at else ""
    days = (weekday - today.weekday() - 1) % 7 + 1
    if before == "next":
        days = 7 - today.weekday() + weekday
    # "Tuesday the third": the date says which Tuesday.
    if words[at + 1 : at + 2] == ["the"] and (day := ordinal(words, at + 2)) is not None:
        named = _next_of_a_month(day.value, today)
        return Found(at, day.end, named) if named is not None else None
    return Found(at, at + 1, today + timedelta(days))


def _of_a_month(words: Sequence[str], at: int, today: date) -> Found[date] | None:
    """ "the third" by itself."""
    if words[at] != "the" or (day := ordinal(words, at + 1)) is None:
        return None
    follows = words[day.end : day.end + 3]
    if follows and follows[0] not in AFTER_ORDINAL and follows not in PARTS_OF_DAY:
        return None
    named = _next_of_a_month(day.value, today)
    return Found(at, day.end, named) if named is not None else None


def _month(word: str) -> int | None:
    return MONTHS.index(word) + 1 if word in MONTHS else SHORT.get(word)


def _next_date(day: int, month: int, year: int | None, today: date) -> date | None:
    for candidate in [year] if year is not None else range(today.year, today.year + 9):  # a leap day
        try:
            named = date(candidate, month, day)
        except ValueError:
            continue
        if year is not None or named >= today:
            return named
    return None


def _next_of_a_month(day: int, today: date) -> date | None:
    for ahead in range(13):
        years, month = divmod(today.month - 1 + ahead, 12)
        try:
            named = date(today.year + years, month + 1, day)
        except ValueError:
            continue
        if named >= today:
            return named
    return None


def _nth(day: int) -> str:
    names = {n: word for word, n in ORDINALS.items()}
    if day in names:
        return names[day]
    tens = next(word for word, n in TENS.items() if n == day // 10 * 10)
    return f"{tens} {names[day % 10]}"
