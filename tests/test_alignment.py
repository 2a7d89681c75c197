"""From the characters that ElevenLabs says it spoke to sentences and words: any text, cut and altered."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors.elevenlabs.alignment import LOST, Alignment, Cut, Said
from voiceflow.frames import Word

SLOW = [HealthCheck.too_slow]
"""A machine with other work is no failure."""

CHARACTER = 0.06
"""Seconds of one, as the fake speaks."""


@dataclass
class Chunk:
    """A piece of audio, and what the service says of it, in milliseconds."""

    seconds: float
    chars: list[str] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    known: bool = True

    @property
    def said(self) -> Said | None:
        return (self.chars, self.starts, self.lengths) if self.known else None


@dataclass
class Heard:
    """What came out, on the clock of the whole context."""

    words: list[Word]
    edges: list[tuple[float, int]]
    """Where each piece begins."""
    cuts: list[Cut]


def sent(pieces: list[str]) -> str:
    """The text as it goes to the service."""
    return "".join(piece.strip() + " " for piece in pieces)


def chunks_of(
    text: str, at: list[float] | None = None, *, begin: float = 0.0, spoken: str = ""
) -> list[Chunk]:
    """The vendor's side: `spoken` (the text itself), cut into chunks at these times."""
    spoken = spoken or text
    end = begin + len(spoken) * CHARACTER
    edges = [0.0, *sorted(t for t in at or () if 0 < t < end), end]
    chunks = []
    for low, high in pairwise(edges):
        chunk = Chunk(high - low)
        for index, character in enumerate(spoken):
            start = begin + index * CHARACTER
            if low <= start < high:
                chunk.chars.append(character)
                chunk.starts.append((start - low) * 1000)
                chunk.lengths.append(CHARACTER * 1000)
        chunks.append(chunk)
    return chunks


def heard(alignment: Alignment, chunks: list[Chunk]) -> Heard:
    """Feeds the chunks, checks what holds for every one, and puts it all on one clock."""
    clock = 0.0
    out = Heard([], [], [])
    for chunk in chunks:
        cuts = alignment.chunk(chunk.seconds, chunk.said)
        assert cuts[0].start == 0.0, "all audio belongs to a piece"
        for cut in cuts:
            assert 0.0 <= cut.start <= chunk.seconds + 1e-9
            begin = clock + cut.start
            out.words += [Word(w.text, begin + w.start, begin + w.end) for w in cut.words]
            if not out.edges or cut.piece != out.edges[-1][1]:
                out.edges.append((begin, cut.piece))
            out.cuts.append(cut)
        assert [c.start for c in cuts] == sorted(c.start for c in cuts)
        clock += chunk.seconds
    told = [cut.piece for cut in out.cuts]
    assert told == sorted(told), "pieces only rise"
    for one, two in pairwise(out.words):
        assert one.start <= one.end + 1e-9
        assert one.end <= two.end + 1e-9
    return out


def aligned(pieces: list[str]) -> Alignment:
    alignment = Alignment()
    for piece in pieces:
        alignment.add(piece.strip() + " ")
    return alignment


letters = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "M"]), min_size=1, max_size=8)
blanks = st.sampled_from([" ", "  ", "\n", "\t ", "\u00a0"])
pieces_of_text = st.lists(
    st.lists(letters, min_size=1, max_size=6)
    .flatmap(
        lambda words: st.lists(blanks, min_size=len(words), max_size=len(words)).map(
            lambda gaps: "".join(w + g for w, g in zip(words, gaps, strict=True))
        )
    )
    .filter(lambda piece: bool(piece.strip())),
    min_size=1,
    max_size=5,
)
times = st.lists(st.floats(0, 20, allow_nan=False), max_size=8)


@settings(deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
@given(pieces_of_text, times, st.floats(0, 0.5))
def test_it_is_exact_when_the_alignment_is_complete(pieces: list[str], at: list[float], begin: float) -> None:
    text = sent(pieces)
    alignment = aligned(pieces)
    out = heard(alignment, chunks_of(text, at, begin=begin))

    begins = [sum(len(p.strip()) + 1 for p in pieces[:n]) for n in range(len(pieces))]
    edges = [0.0, *(begin + position * CHARACTER for position in begins[1:])]
    words, index = [], 0
    for token in text.split():
        index = text.index(token, index)
        words.append((token, begin + index * CHARACTER, begin + (index + len(token)) * CHARACTER))
        index += len(token)
    assert [w.text for w in out.words] == [w[0] for w in words], "each word of the text, once, in order"
    assert [(w.start, w.end) for w in out.words] == [
        (pytest.approx(start), pytest.approx(end)) for _, start, end in words
    ]
    assert [piece for _, piece in out.edges] == list(range(len(pieces)))
    assert [start for start, _ in out.edges] == [pytest.approx(edge) for edge in edges]
    assert alignment.complete
    assert alignment.last_begun
    assert alignment.spoken == len(pieces)


@st.composite
def altered(draw: st.DrawFn) -> tuple[list[str], list[Chunk]]:
    """A text, and what a vendor makes of it on a bad day."""
    pieces = draw(pieces_of_text)
    spoken = list(sent(pieces))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(spoken)))
        gone = draw(st.integers(0, 6))
        spoken[place : place + gone] = draw(st.text(max_size=8))
    if draw(st.booleans()):
        spoken = list("".join(spoken).upper())
    chunks = chunks_of(sent(pieces), draw(times), spoken="".join(spoken) or "?")
    for number in draw(st.lists(st.integers(0, len(chunks) - 1), max_size=3)):
        match draw(st.integers(0, 3)):
            case 0:
                chunks[number] = Chunk(chunks[number].seconds, known=False)
            case 1:
                chunks[number].starts.reverse()
            case 2:
                chunks[number].lengths = [1e7] * len(chunks[number].chars)
            case 3:
                chunks[number].starts = [-500.0] * len(chunks[number].chars)
    return pieces, chunks


@settings(max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
@given(altered())
def test_whatever_the_service_says_pieces_rise_and_words_are_told_once(
    case: tuple[list[str], list[Chunk]],
) -> None:
    pieces, chunks = case
    alignment = aligned(pieces)
    out = heard(alignment, chunks)
    all_words = sent(pieces).split()
    assert [w.text for w in out.words] == all_words[: len(out.words)], (
        "a beginning of the text, each word once"
    )
    assert out.cuts[-1].piece < len(pieces)
    assert alignment.spoken <= len(pieces)


@settings(deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
@given(
    st.lists(st.text(max_size=3), max_size=20),
    st.lists(st.floats(), max_size=20),
    st.lists(st.floats(), max_size=20),
    st.floats(0, 10),
)
def test_it_never_raises(chars: list[str], starts: list[float], lengths: list[float], seconds: float) -> None:
    alignment = aligned(["Hello there.", "How are you?"])
    heard(alignment, [Chunk(seconds, chars, starts, lengths)] * 3)
    assert Alignment().chunk(seconds, (chars, starts, lengths))[0].piece == 0


@settings(deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
@given(pieces_of_text, times, st.lists(st.integers(1, 6), max_size=3))
def test_text_may_come_while_it_is_spoken(pieces: list[str], at: list[float], gaps: list[int]) -> None:
    """A piece that is added late changes nothing for what was spoken before it."""
    whole = heard(aligned(pieces), chunks_of(sent(pieces), at))
    alignment, late = Alignment(), list(pieces)
    out, done = [], 0
    for chunk in chunks_of(sent(pieces), at):
        done += len(chunk.chars)
        while late and len(alignment._text) < done:
            alignment.add(late.pop(0).strip() + " ")
        out += [w.text for cut in alignment.chunk(chunk.seconds, chunk.said) for w in cut.words]
    assert out == [w.text for w in whole.words]


LONG = "we open at seven in the morning and close at six in the evening every day but Monday"


@pytest.mark.parametrize(
    ("pieces", "spoken"),
    [
        (["It costs $5 today.", "Anything else?"], "It costs five dollars today. Anything else? "),
        (
            ["Call 555-0134 now.", "Goodbye then."],
            "Call five five five zero one three four now. Goodbye then. ",
        ),
        (["Don't go yet.", "Stay here."], "Don\u2019t go yet. Stay here. "),
        (["One\u2026 two.", "And three."], "One... two. And three. "),
        (["Hello there.", "How are you?"], " Hello there.  How are you?"),
        (["STREET no. 4 is ours.", "Come in."], "street number four is ours. Come in. "),
    ],
)
def test_a_normalised_text_is_found_again(pieces: list[str], spoken: str) -> None:
    """What lies between is within a word; after it, it is exact again."""
    alignment = aligned(pieces)
    out = heard(alignment, chunks_of(sent(pieces), [0.5, 1.1, 1.9], spoken=spoken))
    assert [w.text for w in out.words] == sent(pieces).split()
    begins = spoken.index(pieces[1].split()[0]) * CHARACTER
    at, piece = out.edges[-1]
    assert piece == 1
    assert at == pytest.approx(begins, abs=CHARACTER * 1.01)
    assert alignment.complete


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_chunk_without_characters_is_bridged(missing: int) -> None:
    text = LONG + " "
    chunks = chunks_of(text, [0.5 * n for n in range(1, 20)])
    for number in range(3, 3 + missing):
        chunks[number] = Chunk(chunks[number].seconds, known=False)
    alignment = aligned([LONG])
    out = heard(alignment, chunks)
    assert [w.text for w in out.words] == LONG.split()
    for word, start in zip(out.words, starts_of(LONG), strict=True):
        within = 1.7 <= start + 1e-9 < 2.0 + 0.5 * missing
        assert word.start == pytest.approx(start, abs=0.25 if within else 0.07), word
    assert alignment.complete


def starts_of(text: str) -> list[float]:
    found, index = [], 0
    for word in text.split():
        index = text.index(word, index)
        found.append(index * CHARACTER)
        index += len(word)
    return found


def test_without_any_alignment_the_pace_tells_the_sentence() -> None:
    pieces = ["This is the first sentence.", "This is the second one.", "And a third one to end with."]
    alignment = aligned(pieces)
    text = sent(pieces)
    out = heard(alignment, [Chunk(0.25, known=False) for _ in range(int(len(text) * CHARACTER / 0.25) + 1)])
    assert [piece for _, piece in out.edges] == [0, 1, 2]
    for (at, _), begin in zip(out.edges[1:], (text.index("This", 3), text.index("And")), strict=True):
        assert at == pytest.approx(begin * CHARACTER, rel=0.2)
    assert alignment.complete


def test_half_of_it_is_not_complete() -> None:
    alignment = aligned(["This is the first sentence.", "This is the second one."])
    assert not alignment.complete
    text = sent(["This is the first sentence.", "This is the second one."])
    heard(alignment, chunks_of(text, [1.2])[:1])
    assert not alignment.complete
    assert not alignment.last_begun
    assert alignment.spoken == 0
    heard(alignment, [Chunk(0.3, known=False)])
    assert not alignment.complete, "0.3 s is too short for the rest at any pace"


def test_it_is_lost_no_longer_than_it_has_to_be() -> None:
    """Fully altered characters: sentences pass by at the pace, and it is found again behind them."""
    pieces = [LONG, LONG, "That is all I know.", "Would you like to order something now?"]
    text, altered = sent(pieces), 2 * (len(LONG) + 1)
    assert altered > LOST
    spoken = "x" * altered + text[altered:]
    out = heard(aligned(pieces), chunks_of(text, [0.5 * n for n in range(1, 40)], spoken=spoken))
    assert [piece for _, piece in out.edges] == [0, 1, 2, 3]
    assert out.edges[1][0] == pytest.approx(altered / 2 * CHARACTER, rel=0.3)
    assert out.edges[2][0] == pytest.approx(altered * CHARACTER, rel=0.2)
    assert out.edges[3][0] == pytest.approx(text.index("Would") * CHARACTER)
