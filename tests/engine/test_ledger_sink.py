"""The ledger and the paced sink: when audio goes out, what the caller heard of it, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from engine_calls import PACKET, RATE, phone
from hypothesis import example, given, settings
from hypothesis import strategies as st

from voiceflow.audio import encode
from voiceflow.engine.mouth import HeardText
from voiceflow.engine.processor import Processor, on
from voiceflow.engine.reply import Reply
from voiceflow.frames import AudioFormat, AudioOut, Heard, Prompt, ReplyEnd, Word
from voiceflow.line.ledger import Ledger
from voiceflow.line.pacing import Pacer
from voiceflow.line.quiet import pause
from voiceflow.testing import run

SECOND = b"\x01" * RATE


def numbered(packets: int, first: int = 0) -> bytes:
    """Audio in which each packet is known by its bytes (the first two; the rest is one of 251 values)."""
    return b"".join(
        (first + i).to_bytes(2, "big") + bytes([(first + i) % 251]) * (PACKET - 2) for i in range(packets)
    )


class HeardAbove(Processor):
    """Collects Heard on its way up."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []

    @on(Heard)
    def heard(self, frame: Heard) -> None:
        self.seen.append((frame.text, frame.final))


# -- the ledger alone: bookkeeping with given times


def ledger() -> tuple[Ledger, Reply]:
    return Ledger(RATE), Reply(1)


def test_position_follows_our_clock_through_gaps() -> None:
    book, reply = ledger()
    book.add(reply, 16000, "text")
    book.sent(reply, 8000, 10.0)
    book.sent(reply, 4000, 11.0)  # goes on without a gap
    book.sent(reply, 4000, 12.0)  # after half a second of silence
    times = [9.9, 10.0, 10.5, 11.25, 11.5, 11.9, 12.0, 12.25, 99.0]
    assert [book.position(reply, t) for t in times] == [
        0, 0, 4000, 10000, 12000, 12000, 12000, 14000, 16000,
    ]  # fmt: skip


def test_a_mark_confirms_at_most_what_was_sent() -> None:
    book, reply = ledger()
    book.add(reply, 16000)
    book.sent(reply, 8000, 10.0)
    book.confirm(reply, 99999)
    assert book.position(reply, 10.0) == 8000
    book.confirm(reply, 100)  # an older one comes late
    assert book.position(reply, 10.0) == 8000


def test_what_nobody_knows_is_nothing() -> None:
    book, reply = ledger()
    assert book.heard(reply, 5.0) == HeardText("", 0, False)
    assert (book.total(reply), book.given(reply), book.began(reply)) == (0, 0, False)
    book.confirm(reply, 5)
    book.rewind(reply, 5)
    book.forget(reply)
    book.end(reply)


def test_with_alignments_a_word_counts_when_it_was_heard_to_its_end() -> None:
    book, reply = ledger()
    book.add(reply, 8000, "Good morning", (Word("Good", 0.0, 0.4), Word("morning", 0.5, 0.9)))
    book.add(reply, 8000, "", (Word("sir", 0.1, 0.5),))  # counted from its own audio
    for samples, text in [(0, ""), (3199, ""), (3200, "Good"), (7199, "Good"), (7200, "Good morning"),
                          (11999, "Good morning"), (12000, "Good morning sir")]:  # fmt: skip
        assert book.text(reply, samples) == HeardText(text, samples, False)
    book.end(reply)
    assert book.text(reply, 16000).text == "Good morning", "the text as it was given, once all was heard"


def test_without_alignments_it_is_rounded_down_to_a_word_and_marked_estimated() -> None:
    book, reply = ledger()
    book.add(reply, 8000, "one two three")
    book.add(reply, 8000, "four five")
    book.end(reply)
    for part, text in [
        (0.0, ""),
        (0.2, ""),
        (3 / 13, "one"),
        (0.5, "one"),
        (7 / 13, "one two"),
        (0.99, "one two"),
    ]:
        samples = int(part * 8000 + 1e-6) + (part > 0)
        assert book.text(reply, samples) == HeardText(text, samples, samples > 0)
    assert book.text(reply, 8000) == HeardText("one two three", 8000, False), "whole stretches are certain"
    assert book.text(reply, 12000) == HeardText("one two three four", 12000, True)
    assert book.text(reply, 16000) == HeardText("one two three four five", 16000, False, complete=True)


def test_a_stretch_whose_audio_is_still_coming_is_not_taken_for_all_of_it() -> None:
    book, reply = ledger()
    book.add(reply, 1600, "x" * 14 + " " + "y" * 15)  # 2 s at 15 characters a second; 0.2 s of it are here
    heard = book.text(reply, 1600)
    assert heard == HeardText("", 1600, True)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=5), st.integers(1, 9000)
        ),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_heard_text_only_grows_and_is_always_a_beginning(
    stretches: list[tuple[list[str], int]], aligned: bool
) -> None:
    book, reply = ledger()
    for words, samples in stretches:
        step = samples / RATE / len(words)
        given_words = [Word(w, i * step, (i + 1) * step) for i, w in enumerate(words)]
        book.add(reply, samples, " ".join(words), tuple(given_words) if aligned else ())
    book.end(reply)
    everything = [w for words, _ in stretches for w in words]
    edges = list(itertools.accumulate(samples for _, samples in stretches))
    before = 0
    for samples in range(0, edges[-1] + 1, 97):
        said = book.text(reply, samples).text.split()
        assert said == everything[: len(said)]
        assert len(said) >= before
        before = len(said)
        whole = sum(len(words) for (words, _), edge in zip(stretches, edges, strict=True) if edge <= samples)
        begun = sum(
            len(words) for (words, n), edge in zip(stretches, edges, strict=True) if edge - n < samples
        )
        assert whole <= len(said) <= begun
    assert book.text(reply, edges[-1]).text.split() == everything


# -- pacing


def test_a_pacer_needs_a_chunk_no_longer_than_its_lead() -> None:
    for lead, chunk in [(0.1, 0.2), (0.2, 0.0)]:
        with pytest.raises(ValueError, match="chunk"):
            Pacer(RATE, lead=lead, chunk=chunk)


def test_ten_minutes_go_out_by_absolute_deadlines() -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            begin = asyncio.get_running_loop().time()
            for i in range(600):
                p.speak(reply, SECOND, f"second {i}" if i == 0 else "", end=i == 599)
            await asyncio.sleep(603)
            chunks = [(at - begin, m) for at, m in p.carrier.wire if isinstance(m, bytes)]
            assert all(len(m) % PACKET == 0 for _, m in chunks)
            assert sum(len(m) for _, m in chunks) == 600 * RATE
            sent = 0.0
            for place, (at, m) in enumerate(chunks):
                assert at == pytest.approx(max(0.0, (place - 1) * 0.1), abs=1e-6), "exact, also after 10 min"
                lead = sent - at
                assert place < 2 or lead > 0.1 - 1e-6
                sent += len(m) / RATE
                assert sent - at < 0.2 + 1e-6
            assert p.sink.pacer.underruns == 0
            assert p.call.history.messages[-1].content == "second 0"
            kept = p.sink._queued
            assert not kept

    run(main())


def test_long_audio_is_not_kept_once_it_was_heard() -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            for _ in range(60):
                p.speak(reply, SECOND)
                await asyncio.sleep(1)
                assert len(p.sink._queued[reply].audio) < 12 * RATE

    run(main())


def test_the_last_packet_is_filled_up_with_silence() -> None:
    async def main() -> None:
        async with phone() as p:
            p.speak(p.answer(), b"\x01" * 500, "odd", end=True)
            await asyncio.sleep(1)
            assert p.carrier.audio == b"\x01" * 500 + b"\xff" * 140
            assert p.call.history.messages[-1].content == "odd"

    run(main())


def test_a_rest_smaller_than_a_packet_waits_for_more_or_for_the_end() -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            p.speak(reply, b"\x01" * 100)
            await asyncio.sleep(1)
            assert p.carrier.audio == b""
            p.speak(reply, b"\x01" * 70)
            await asyncio.sleep(1)
            assert p.carrier.audio == b"\x01" * 160
            p.turner.push(ReplyEnd(reply=reply))
            await asyncio.sleep(1)
            assert p.carrier.audio == b"\x01" * 170 + b"\xff" * 150

    run(main())


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(0, 2500), max_size=25), st.lists(st.sampled_from([0.0, 0.05, 0.3]), min_size=25))
def test_odd_pieces_arrive_whole_and_in_order(sizes: list[int], waits: list[float]) -> None:
    async def main() -> None:
        async with phone() as p:
            reply, audio = p.answer(), numbered(400)
            at = 0
            for size, wait in zip(sizes, waits, strict=False):
                p.speak(reply, audio[at : at + size])
                at += size
                await asyncio.sleep(wait)
            p.turner.push(ReplyEnd(reply=reply))
            await asyncio.sleep(60)
            assert p.carrier.audio == audio[:at] + b"\xff" * (-at % PACKET)
            assert bytes(p.carrier.heard) == p.carrier.audio

    run(main())


def test_underruns_are_counted_with_their_length() -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            p.speak(reply, SECOND)
            await asyncio.sleep(1.5)
            p.speak(reply, SECOND)
            await asyncio.sleep(1.25)
            p.speak(reply, SECOND, end=True)
            await asyncio.sleep(3)
            assert p.sink.pacer.underruns == 2
            assert p.sink.pacer.gap_seconds == pytest.approx(0.75)
            p.speak(p.answer(), SECOND, end=True)
            await asyncio.sleep(3)
            assert p.sink.pacer.underruns == 2, "silence between two replies is none"
            assert p.call.figures()["underrun_seconds"] == 0.75

    run(main())


@pytest.mark.parametrize("packet_too_little", [0, 40])
def test_silence_between_two_sentences_is_a_pause_and_no_underrun(packet_too_little: int) -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            p.speak(reply, SECOND[packet_too_little:], "One moment.")
            await asyncio.sleep(1.5)
            p.speak(reply, SECOND, "Here it is.", end=True)
            await asyncio.sleep(3)
            assert p.sink.pacer.underruns == 0

    run(main())


# -- the end of a reply, and its marks


def test_a_reply_is_over_when_its_last_mark_comes_back() -> None:
    async def main() -> None:
        above = HeardAbove()
        async with phone(above, delay=0.2) as p:
            reply = p.answer()
            p.speak(reply, SECOND, "one")
            p.speak(reply, SECOND, "two", end=True)
            await asyncio.sleep(2.39)
            assert not reply.dead
            assert above.seen == [("one", False)] or above.seen[0][0].startswith("one")
            await asyncio.sleep(0.02)
            assert reply.dead
            assert above.seen[-1] == ("one two", True)
            assert p.turns.live is None
            assert [m.content for m in p.call.history.messages] == ["one two"]
            assert p.sink.marks.cleared == 0

    run(main())


def test_a_mark_that_comes_back_after_clear_proves_nothing() -> None:
    async def main() -> None:
        above = HeardAbove()
        async with phone(above, delay=0.1) as p:
            p.speak(p.answer(), b"\x01" * 1600, "one")
            p.speak(p.turns.live, b"\x01" * 8000, "two three four", end=True)
            await asyncio.sleep(0.15)
            p.turner.turns.started()
            await asyncio.sleep(2)
            assert (p.sink.marks.heard, p.sink.marks.cleared) == (0, 2), "first piece and stretch"
            assert above.seen == []
            assert p.call.history.messages == (), "0.15 s of 0.2 s: not a whole word"

    run(main())


@pytest.mark.parametrize("has_marks", [True, False])
def test_a_mark_that_never_returns_is_given_up_and_no_marks_are_needed(has_marks: bool) -> None:
    async def main() -> None:
        async with phone(has_marks=has_marks, returns_marks=False) as p:
            reply = p.answer()
            p.speak(reply, SECOND, "one two", end=True)
            over = 3.0 if has_marks else 1.0  # its own second, and the grace of two
            await asyncio.sleep(over - 0.01)
            assert not reply.dead
            await asyncio.sleep(0.02)
            assert reply.dead
            assert [(m.content, m.cut) for m in p.call.history.messages] == [("one two", False)]
            sent_marks = [m for _, m in p.carrier.wire if isinstance(m, str)]
            assert bool(sent_marks) is has_marks

    run(main())


@pytest.mark.parametrize("text", ["", "never spoken"])
def test_a_reply_that_ends_without_audio_is_over_at_once(text: str) -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            if text:
                p.turner.push(AudioOut(b"", text, reply=reply))
            p.turner.push(ReplyEnd(reply=reply))
            assert reply.dead
            assert p.turns.live is None
            assert p.call.history.messages == ()
            await asyncio.sleep(1)
            assert p.carrier.wire == []

    run(main())


def test_the_history_is_cut_to_what_was_heard() -> None:
    async def main() -> None:
        async with phone() as p:
            words = tuple(Word(w, i * 0.5, i * 0.5 + 0.4) for i, w in enumerate(["a", "b", "c", "d"]))
            p.speak(p.answer(), SECOND * 2, "a b c d", words, end=True)
            await asyncio.sleep(0.95)
            p.turner.turns.started()
            assert [(m.role, m.content, m.cut) for m in p.call.history.messages] == [
                ("assistant", "a b", True)
            ]

    run(main())


def test_a_socket_that_took_nothing_means_that_nothing_was_heard() -> None:
    """The carrier does not read for a while: what never left is neither played nor said."""

    async def main() -> None:
        async with phone() as p:
            gate = asyncio.Event()
            send = p.link.send

            async def slow_send(message: Any) -> None:
                await gate.wait()
                await send(message)

            p.call.line.link.send = slow_send  # type: ignore[method-assign,union-attr]
            p.call.line.link.send_at_once = lambda message: False  # type: ignore[method-assign,union-attr]
            p.speak(p.answer(), SECOND * 3, "one two three", end=True)
            await asyncio.sleep(1.5)
            p.turner.turns.started()
            gate.set()
            await asyncio.sleep(3)
            heard = p.call.history.messages
            played = len(p.carrier.heard)
            assert played <= 800, "one piece was in the socket's hands already"
            assert heard == (), "nothing like a word was played"
            assert p.carrier.wire[-1][1] == "clear"

    run(main())


# -- drafts and holds


def test_a_draft_waits_until_it_is_confirmed_and_plays_at_once() -> None:
    async def main() -> None:
        async with phone() as p:
            p.turner.turns.started()
            p.turner.turns.may_be_over("yes")
            draft = p.turns._replies[p.turns.state.draft]
            p.speak(draft, SECOND, "prepared", end=True)
            await asyncio.sleep(0.7)
            assert p.carrier.wire == []
            confirmed = asyncio.get_running_loop().time()
            p.turner.turns.ended("yes")
            assert p.turns.live is draft
            await asyncio.sleep(2)
            assert p.carrier.wire[0][0] == confirmed
            assert p.sink.pacer.underruns == 0
            assert [m.content for m in p.call.history.messages] == ["yes", "prepared"]

    run(main())


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 100)), min_size=1, max_size=4),
    st.sampled_from([1, 7, 50]),
)
def test_a_held_reply_goes_on_where_it_was_heard_without_losing_or_repeating(
    holds: list[tuple[int, int]], piece: int
) -> None:
    """A packet is a word, and each hold comes just after one, which is said again: all is heard, in order."""

    async def main() -> None:
        async with phone() as p:
            audio = numbered(150)
            reply = p.answer()
            for begin in range(0, 150, piece):
                words = tuple(Word(f"w{i}", i * 0.02, (i + 1) * 0.02) for i in range(min(piece, 150 - begin)))
                p.speak(reply, audio[begin * PACKET : (begin + piece) * PACKET], f"s{begin}", words)
            p.turner.push(ReplyEnd(reply=reply))
            await asyncio.sleep(0.001)  # between two packets' ends
            for play, wait in holds:
                await asyncio.sleep(play * 0.02)
                p.turner.turns.hold()
                heard_at_hold = len(p.carrier.heard)
                await asyncio.sleep(wait * 0.02)
                assert len(p.carrier.heard) == heard_at_hold, "it is silent while it is held"
                p.turner.turns.unhold()
                await asyncio.sleep(0.001)
            await asyncio.sleep(20)
            heard = bytes(p.carrier.heard)
            packets = [int.from_bytes(heard[i : i + 2], "big") for i in range(0, len(heard), PACKET)]
            again = [(a, b) for a, b in itertools.pairwise(packets) if b != a + 1]
            assert all(b == a for a, b in again), "it went back by more than a word, or lost one"
            assert len(again) <= len(holds)
            assert list(dict.fromkeys(packets)) == list(range(150))
            assert reply.dead
            assert p.call.history.messages[-1].content.split()[-1] == f"s{(149 // piece) * piece}"

    run(main())


@pytest.mark.parametrize("has_marks", [True, False])
def test_a_reply_that_is_held_near_its_end_is_not_over_by_itself(has_marks: bool) -> None:
    """All was sent and the last mark is on its way; the hold clears both. No timer may call it heard."""

    async def main() -> None:
        async with phone(has_marks=has_marks) as p:
            reply = p.answer()
            p.speak(reply, SECOND, "one two three four", end=True)
            await asyncio.sleep(0.85)
            p.turner.turns.hold()
            await asyncio.sleep(30)
            assert not reply.dead
            assert p.call.history.messages == ()
            p.turner.turns.unhold()
            await asyncio.sleep(5)
            assert reply.dead
            assert len(p.carrier.heard) >= RATE
            assert p.call.history.messages[-1].content == "one two three four"

    run(main())


def test_a_held_reply_that_the_caller_talks_over_is_cut_where_it_was_held() -> None:
    async def main() -> None:
        async with phone() as p:
            p.speak(p.answer(), SECOND * 2, "one two three four", end=True)
            await asyncio.sleep(1.01)
            p.turner.turns.hold()
            await asyncio.sleep(3)
            p.turner.turns.started()
            assert [(m.content, m.cut) for m in p.call.history.messages] == [("one two", True)]

    run(main())


def without_onsets(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """A word that had begun within the last packet is begun anew after the one before it: without those."""
    following = [*runs[1:], (len(runs) + 1, 0)]
    kept = [each for each, after in zip(runs, following, strict=False) if each[1] > PACKET or after > each]
    return [(n, sum(run for _, run in same)) for n, same in itertools.groupby(kept, lambda each: each[0])]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    lengths=st.lists(st.tuples(st.integers(160, 5000), st.integers(0, 900)), min_size=2, max_size=14),
    sentence=st.integers(1, 5),
    late=st.booleans(),
    holds=st.lists(st.tuples(st.floats(0.0, 1.5), st.floats(0.0, 0.8)), max_size=4),
    cut=st.floats(0.0, 2.5),
    delay=st.sampled_from([0.0, 0.08]),
)
@example([(160, 0), (4681, 0), (2000, 0)], 1, False, [(0.625, 0.0)], 1.0, 0.0)  # 119 samples into the third
def test_with_alignments_no_word_is_lost_and_the_text_is_what_the_ear_has(
    lengths: list[tuple[int, int]],
    sentence: int,
    late: bool,
    holds: list[tuple[float, float]],
    cut: float,
    delay: float,
) -> None:
    """Word n is a run of the byte n, so that the ear can tell how much of it there was. `late`: a word comes
    with its own audio only, in the nick of time."""

    async def main() -> None:
        async with phone(delay=delay) as p:
            reply = p.answer()

            async def feed() -> None:
                for n, (length, gap) in enumerate(lengths):
                    text = " ".join(f"w{i}" for i in range(n, min(n + sentence, len(lengths))))
                    begins = n % sentence == 0
                    word = (Word(f"w{n}", 0.0, length / RATE),)
                    p.speak(reply, bytes([n + 1]) * length + b"\xff" * gap, text if begins else "", word)
                    if late:
                        await asyncio.sleep(length / RATE)
                p.turner.push(ReplyEnd(reply=reply))

            feeding = asyncio.get_running_loop().create_task(feed())
            outcome = p.turns.outcome(reply)
            for play, wait in holds:
                await asyncio.sleep(play)
                p.turner.turns.hold()
                await asyncio.sleep(wait)
                p.turner.turns.unhold()
            await asyncio.sleep(cut)
            p.turner.turns.started()
            heard = await outcome
            await asyncio.sleep(3)
            await feeding
            ear = bytes(p.carrier.heard)
            runs = [(n, len(list(run))) for n, run in itertools.groupby(b for b in ear if b != 0xFF)]
            runs = without_onsets(runs)
            assert [n for n, _ in runs] == list(range(1, len(runs) + 1)), "in order, and each at most again"
            for (n, run), (length, _) in zip(runs, lengths, strict=False):
                assert run <= length * (1 + len(holds)) + PACKET
                assert run >= length or n == len(runs), "a word was lost, or a part of one"
            whole = [n for n, run in runs if run >= lengths[n - 1][0]]
            said = heard.text.split()
            assert said == [f"w{i}" for i in range(len(said))]
            # A packet that was being played when it was cut off has not been counted by the ear.
            assert len(whole) - bool(holds) <= len(said) <= len(whole) + 1
            if len(said) > len(whole):
                missing = lengths[len(whole)][0] - (runs[len(whole)][1] if len(runs) > len(whole) else 0)
                assert missing <= PACKET * (1 + len(holds))

    run(main())


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    holds=st.lists(st.tuples(st.floats(0.0, 1.5), st.floats(0.0, 0.8)), min_size=1, max_size=4),
    pauses=st.lists(st.integers(0, 2000), min_size=3, max_size=9),
)
def test_without_alignments_at_most_a_second_is_said_again(
    holds: list[tuple[float, float]], pauses: list[int]
) -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            for n, quiet in enumerate(pauses):
                p.speak(reply, bytes([n + 1]) * 4000 + b"\xff" * quiet, f"sentence {n}")
            p.turner.push(ReplyEnd(reply=reply))
            for play, wait in holds:
                await asyncio.sleep(play)
                p.turner.turns.hold()
                await asyncio.sleep(wait)
                before = len(p.carrier.heard)
                p.turner.turns.unhold()
                await asyncio.sleep(0)
                assert len(p.carrier.heard) == before
            await asyncio.sleep(30)
            assert reply.dead
            ear = bytes(p.carrier.heard)
            assert len(ear) <= sum(4000 + quiet for quiet in pauses) + len(holds) * RATE + PACKET
            runs = [n for n, _ in itertools.groupby(b for b in ear if b != 0xFF)]
            for n in range(len(pauses)):
                assert ear.count(bytes([n + 1])) >= 4000, "audio was lost"
            assert all(b - a in (1, -1, -2) for a, b in itertools.pairwise(runs)), "it went back too far"

    run(main())


def test_without_alignments_it_goes_on_from_the_last_pause() -> None:
    async def main() -> None:
        async with phone() as p:
            audio = b"\x01" * 6000 + b"\xff" * 800 + b"\x02" * 8000
            p.speak(p.answer(), audio, "one two three", end=True)
            await asyncio.sleep(1.2)  # 9600 samples: the pause was at 6000 to 6800
            p.turner.turns.hold()
            p.turner.turns.unhold()
            await asyncio.sleep(5)
            ear = bytes(p.carrier.heard)
            assert ear.count(b"\x01") == 6000
            assert 8000 + 2800 - PACKET <= ear.count(b"\x02") <= 8000 + 2800
            assert p.call.history.messages[-1].content == "one two three"

    run(main())


@pytest.mark.parametrize("encoding", ["mulaw", "pcm16"])
def test_the_quietest_place_is_found(encoding: str) -> None:
    format = AudioFormat(encoding, 8000)
    rng = random.Random(1)
    loud = encode(np.array([rng.randint(-9000, 9000) for _ in range(2000)], np.int16), format)
    faint = encode(np.array([rng.randint(-60, 60) for _ in range(480)], np.int16), format)
    assert 2000 < (pause(loud + faint + loud, format) or 0) < 2480
    assert pause(loud, format) is None
    assert pause(loud[:100], format) is None
    assert pause(b"", format) is None
    assert pause(loud + format.silence * 400, format) is not None


def test_audio_that_comes_during_a_hold_follows_what_was_held() -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            p.turner.turns.hold()  # before there is anything
            p.speak(reply, b"\x01" * 4000, "one", (Word("one", 0.0, 0.5),))
            await asyncio.sleep(1)
            assert p.carrier.wire == []
            p.turner.turns.unhold()
            await asyncio.sleep(0.25)
            p.turner.turns.hold()
            p.speak(reply, b"\x02" * 4000, "two", (Word("two", 0.0, 0.5),), end=True)
            p.turner.turns.hold()
            await asyncio.sleep(1)
            p.turner.turns.unhold()
            await asyncio.sleep(3)
            ear = bytes(p.carrier.heard)
            assert ear.count(b"\x01") == 4000 + 2000 - 80  # half a packet had not been counted
            assert ear.count(b"\x02") == 4000
            assert p.call.history.messages[-1].content == "one two"

    run(main())


def test_a_call_that_ends_while_a_reply_is_held_keeps_what_was_heard() -> None:
    async def main() -> None:
        async with phone() as p:
            words = tuple(Word(w, i * 0.5, i * 0.5 + 0.4) for i, w in enumerate(["a", "b", "c", "d"]))
            p.speak(p.answer(), SECOND * 2, "a b c d", words, end=True)
            await asyncio.sleep(1.2)
            p.turner.turns.hold()
            await asyncio.sleep(0.1)
            p.call.end("enough")
            await asyncio.sleep(0.1)
            assert [(m.content, m.cut) for m in p.call.history.messages] == [("a b", True)]

    run(main())


def test_a_long_reply_keeps_what_a_hold_goes_back_to() -> None:
    """A word of 3 s after 20 s: its beginning is still there."""

    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            p.speak(reply, SECOND * 20, "twenty", (Word("twenty", 0.0, 20.0),))
            p.speak(reply, b"\x02" * (3 * RATE), "long", (Word("long", 0.0, 3.0),))
            p.speak(reply, b"\x03" * RATE, "end", (Word("end", 0.0, 1.0),), end=True)
            await asyncio.sleep(22.9)
            p.turner.turns.hold()
            p.turner.turns.unhold()
            await asyncio.sleep(10)
            ear = bytes(p.carrier.heard)
            assert ear.count(b"\x02") == pytest.approx(3 * RATE + 2.9 * RATE, abs=PACKET)
            assert p.call.history.messages[-1].content == "twenty long end"

    run(main())


# -- what may not be interrupted


def guarded(p: Any, reply: Reply) -> float | None:
    until = p.sink.protected(reply)
    return None if until is None else until - asyncio.get_running_loop().time()


def test_a_protected_stretch_is_protected_while_it_is_heard() -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            p.speak(reply, SECOND, "before")
            p.turner.push(AudioOut(SECOND, "legal", protected=True, reply=reply))
            p.turner.push(AudioOut(SECOND, reply=reply))  # goes on with the same stretch
            p.turner.push(AudioOut(SECOND, "notice", protected=True, reply=reply))
            p.speak(reply, SECOND, "after", end=True)
            await asyncio.sleep(0.7)
            assert guarded(p, reply) is None
            await asyncio.sleep(0.2)
            assert guarded(p, reply) == pytest.approx(3.1, abs=1e-3), "a tenth of a second before it begins"
            await asyncio.sleep(3.0)
            assert guarded(p, reply) == pytest.approx(0.1, abs=1e-3)
            await asyncio.sleep(0.11)
            assert guarded(p, reply) is None
            assert p.sink.progress(reply).left == pytest.approx(0.99, abs=1e-3)

    run(main())


def test_a_protected_stretch_whose_audio_stops_coming_is_over_soon() -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            p.turner.push(AudioOut(SECOND, "legal notice", protected=True, reply=reply))
            await asyncio.sleep(1.5)
            assert guarded(p, reply) == pytest.approx(1.5)
            await asyncio.sleep(1.6)
            assert guarded(p, reply) is None

    run(main())


# -- back-pressure


def test_who_makes_audio_faster_than_it_plays_is_held() -> None:
    async def main() -> None:
        made: list[float] = []

        class Floods(Processor):
            emits = (AudioOut, ReplyEnd)

            @on(Prompt)
            async def flood(self, prompt: Prompt) -> AsyncIterator[Any]:
                for _ in range(100):
                    made.append(self.call.loop.time())
                    yield AudioOut(SECOND)
                yield ReplyEnd()

        async with phone(Floods()) as p:
            p.turner.turns.ended()
            begin = asyncio.get_running_loop().time()
            await asyncio.sleep(50)
            ahead = len(made) - (asyncio.get_running_loop().time() - begin)
            assert 29 <= ahead <= 33
            p.turner.turns.stop("enough")
            await asyncio.sleep(1)
            assert not p.sink._relief._waiters
            assert p.sink.depth().depth == 0

    run(main())


def test_ten_minutes_of_queued_audio_end_the_call_by_name() -> None:
    async def main() -> None:
        async with phone() as p:
            reply = p.answer()
            for _ in range(602):
                p.speak(reply, SECOND)
            await asyncio.sleep(1)
            assert p.call.fault is not None
            assert "LineSink" in p.call.fault
            assert "the sink's queue is full" in p.call.fault

    run(main())


# -- the ledger against the carrier's own clock


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    pieces=st.lists(
        st.tuples(st.integers(1, 6000), st.sampled_from([0.0, 0.0, 0.01, 0.2, 0.9])), min_size=1, max_size=12
    ),
    cut=st.floats(0.0, 4.0),
    delay=st.sampled_from([0.0, 0.03, 0.15]),
    lead=st.sampled_from([0.2, 0.1, 0.4]),
    hold=st.booleans(),
)
def test_what_the_carrier_played_is_what_the_ledger_says(
    pieces: list[tuple[int, float]], cut: float, delay: float, lead: float, hold: bool
) -> None:
    """Audio and `clear` take the same way, so the delay of the network does not matter."""

    async def main() -> None:
        async with phone(delay=delay, lead=lead) as p:
            reply = p.answer()
            loop = asyncio.get_running_loop()
            outcome = p.turns.outcome(reply)

            async def feed() -> None:
                for samples, wait in pieces:
                    p.speak(reply, b"\x01" * samples, "some words")
                    await asyncio.sleep(wait)
                p.turner.push(ReplyEnd(reply=reply))

            feeding = loop.create_task(feed())
            if hold:
                await asyncio.sleep(cut / 2)
                p.turner.turns.hold()
                await asyncio.sleep(0.5)
                p.turner.turns.unhold()
            await asyncio.sleep(cut)
            p.turner.turns.started()
            await feeding
            heard = await outcome
            await asyncio.sleep(10)
            # A packet counts as played at its end there, a sample at a time here. Without alignments a hold
            # goes back by a second at most, which is heard again.
            slack = PACKET * (2 if hold else 1) + 2
            repeated = RATE if hold else 0
            padded = -heard.samples % PACKET
            assert -slack - padded <= len(p.carrier.heard) - heard.samples <= slack + repeated + padded

    run(main())
