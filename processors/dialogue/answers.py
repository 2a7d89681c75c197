"""Yes and no, and giving up, in the words that people use for them on the phone."""

from __future__ import annotations

from processors.dialogue.words import list_of, texts_of

YES = frozenset(
    list_of(
        "yes yeah yep yup ya sure correct right exactly absolutely definitely certainly perfect okay ok fine "
        "great good alright indeed agreed please"
    )
)
NO = frozenset(list_of("no nope nah not don't doesn't isn't wasn't wrong incorrect never"))
YES_PHRASES = (
    "go ahead",
    "sounds good",
    "that works",
    "do it",
    "do that",
    "book it",
    "of course",
    "no problem",
)
UNSURE = ("not sure", "don't know", "do not know", "maybe")
CANCELS = (
    "never mind",
    "nevermind",
    "forget it",
    "forget about it",
    "cancel",
    "cancel that",
    "cancel it",
    "leave it",
    "stop this",
    "changed my mind",
    "don't want to book",
    "don't want it",
)
LONGEST = 8
"""Words of an answer: who says more than that says something else."""


def yes_or_no(text: str) -> bool | None:
    """True for yes, False for no, None for neither, for both, and for doubt: those are asked again."""
    said = f" {' '.join(texts_of(text))} "
    if len(said.split()) > LONGEST or _has(said, UNSURE):
        return None
    agreed = _has(said, YES_PHRASES)
    for phrase in YES_PHRASES:  # "no problem" is no no
        said = said.replace(f" {phrase} ", " ")
    words = set(said.split())
    denied = any(f" not {word} " in said or f"n't {word} " in said for word in YES)  # "that's not right"
    no = denied or bool(NO & words)
    yes = agreed or (not denied and bool((YES - {"please"}) & words)) or words == {"please"}
    return None if yes == no else yes


def cancels(text: str) -> bool:
    """The caller wants to leave what was begun."""
    words = texts_of(text)
    return len(words) <= LONGEST and _has(f" {' '.join(words)} ", CANCELS)


def _has(said: str, phrases: tuple[str, ...]) -> bool:
    return any(f" {phrase} " in said for phrase in phrases)
