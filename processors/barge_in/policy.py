"""What a voice over the agent's is, by its words and its place: a pure function. English.

Listeners say "uh-huh" and "okay" to keep a speaker going, several times a minute, and mean to be talked past.
The same words are an answer once there was a question, or when the speaker is about to finish. So:

    words                           in the middle of a reply    after a question, or near its end
    none                            not an interruption         not an interruption
    only backchannels               not an interruption         an interruption: an answer
    a demand ("stop", "wait")       an interruption             an interruption
    anything else                   an interruption             an interruption
    the beginning of a backchannel  too early to tell           too early to tell

Many backchannels in a row, or a long voice, are somebody who wants to speak. A detector's probability, if
there is one, decides between these; a demand it cannot overrule, nor three words and more.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

from voiceflow.engine.referee import Verdict as Verdict

BACKCHANNELS = frozenset(
    {
        *(
            "uhhuh",
            "uh huh",
            "mhm",
            "mmhmm",
            "mm hmm",
            "mhmm",
            "mmhm",
            "mm",
            "mmm",
            "hm",
            "hmm",
            "hmhm",
            "mmmm",
        ),
        *("ah", "aha", "ahh", "oh", "ooh", "uh", "um", "er", "erm", "huh", "eh", "ha", "haha", "wow"),
        *("yeah", "yes", "yep", "yup", "yea", "ya", "ok", "okay", "okey", "kay", "right", "sure", "alright"),
        *("all right", "i see", "oh i see", "got it", "i got it", "gotcha", "i know", "i understand"),
        *("understood", "of course", "fine", "good", "great", "nice", "cool", "perfect", "exactly", "true"),
        *("thats right", "thats fine", "thats good", "sounds good", "makes sense", "that makes sense"),
        *("go on", "go ahead", "really", "indeed", "absolutely", "definitely", "totally", "no problem"),
        *("interesting", "oh okay", "oh really", "very good", "fair enough", "youre right", "i hear you"),
    }
)
"""What listeners say, normalised."""
DEMANDS = frozenset(
    {
        *(
            "stop",
            "wait",
            "no",
            "nope",
            "hold",
            "hang",
            "pause",
            "quiet",
            "enough",
            "sorry",
            "excuse",
            "pardon",
        ),
        *("hello", "what", "why", "who", "how", "but", "actually", "repeat", "again", "help", "operator"),
        *("human", "agent", "representative", "cancel", "slower", "louder", "listen", "question"),
    }
)
"""Words that always interrupt, unless they are part of a backchannel ("no problem")."""

NEAR_END = 1.0
"""Seconds before the end of a reply from which on a backchannel is an answer to it."""
MANY = 5
"""Backchannels in a row that are more than listening."""
LONG = 2.5
"""Seconds of voice that are more than a backchannel: those take 0.2 to 1."""
SURE = 0.8
"""Probability of an interruption from which on there needs to be no other sign."""
UNLIKELY = 0.2
"""Probability under which a word or two are not meant for the agent."""
SIDE_WORDS = 2
"""How many words that may be."""

_MARKS = re.compile(r"[^\w\s]|_")


@dataclass(slots=True, frozen=True)
class Attempt:
    """A voice over the agent's, as far as it is known."""

    words: tuple[str, ...] = ()
    """As `normalised` gives them."""
    seconds: float = 0.0
    """Of voice: by the detector in the chain, else until the words last changed."""
    speaking: bool = True
    """The voice goes on."""
    heard: float = 0.0
    """Seconds of the reply that were heard."""
    left: float | None = None
    """Seconds of it still to be heard; None while more may come."""
    question: bool = False
    """What was heard in the last two seconds ended a question."""
    probability: float | None = None
    """That the caller wants the floor, by a detector (`Overlap`)."""


def normalised(text: str) -> tuple[str, ...]:
    """The words of a text, in lower case and without marks: "Uh-huh, that's it." is uhhuh, thats, it."""
    return tuple(_MARKS.sub("", text.lower()).split())


def backchannels(attempt: Attempt, *, words: Set[str] = BACKCHANNELS, demands: Set[str] = DEMANDS) -> Verdict:
    """Whether it is an interruption. `words` are what listeners say, phrases too, and `demands` what always
    interrupts: both normalised, for other languages or tastes (`functools.partial`).

    More words that are no backchannels never make an interruption less of one.
    """
    if not attempt.words:
        return Verdict.WAIT if attempt.speaking else Verdict.IGNORE
    others, unfinished = _others(attempt.words, words)
    likely = attempt.probability
    if any(other in demands for other in others):
        return Verdict.INTERRUPT
    if likely is not None and likely >= SURE:
        return Verdict.INTERRUPT
    if likely is not None and likely <= UNLIKELY and len(others) <= SIDE_WORDS:
        return Verdict.IGNORE
    if others:
        return Verdict.WAIT if attempt.speaking and unfinished else Verdict.INTERRUPT
    answers = attempt.question or (attempt.left is not None and attempt.left <= NEAR_END)
    if answers or len(attempt.words) >= MANY or attempt.seconds >= LONG:
        return Verdict.INTERRUPT
    return Verdict.IGNORE


def _others(said: tuple[str, ...], phrases: Set[str]) -> tuple[list[str], bool]:
    """The words that are part of no phrase, taking the longest first; and whether all of them may be the
    beginning of one whose end is still to come."""
    longest = max((phrase.count(" ") + 1 for phrase in phrases), default=1)
    others: list[str] = []
    at = 0
    while at < len(said):
        for size in range(min(longest, len(said) - at), 0, -1):
            if " ".join(said[at : at + size]) in phrases:
                at += size
                break
        else:
            rest = " ".join(said[at:])
            if not others and any(phrase.startswith(rest + " ") for phrase in phrases):
                return list(said[at:]), True
            others.append(said[at])
            at += 1
    return others, False
