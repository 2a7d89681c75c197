"""The parts of FluxSTT that need no socket: the ring, what is sent next, whose sample it was, the clocks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.flux.feed import STOPPED, Feed
from processors.flux.hearing import Grew, Hearing, MayBeOver, Over, Started, WentOn
from processors.flux.liveness import ANSWER_LIMIT, LEAST, TRYING, VOICE_LIMIT, VOICE_PAUSE, Liveness, Trouble
from processors.flux.messages import TimedWord, TurnInfo
from processors.flux.ring import Ring
from processors.flux.timeline import KEPT, Timeline
from voiceflow.frames import PHONE, AudioFormat

PCM = AudioFormat("pcm16", 8000)
CYCLE = 251
"""A sample's byte says its index, modulo this; none is silence (0xFF)."""


def recorded(at: int, samples: int) -> bytes:
    return bytes((at + n) % CYCLE for n in range(samples))


# -- the ring ------------------------------------------------------------------------------------


class Model:
    """A ring as a dictionary."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.samples: dict[int, int] = {}
        self.begin = self.end = 0

    def append(self, audio: bytes, at: int) -> None:
        if at - self.end >= self.capacity:  # nothing of before is left, and no silence is made up
            self.samples, self.begin, self.end = {}, at, at
        for index in range(self.end, at):
            self.samples[index] = 0xFF
        for n, byte in enumerate(audio):
            if at + n >= self.end:
                self.samples[at + n] = byte
        self.end = max(self.end, at, at + len(audio))
        self.forget(self.end - self.capacity)

    def forget(self, position: int) -> None:
        self.begin = max(self.begin, min(position, self.end))
        self.samples = {index: byte for index, byte in self.samples.items() if index >= self.begin}


steps = st.one_of(
    st.tuples(st.just("append"), st.integers(-30, 150), st.integers(0, 60)),
    st.tuples(st.just("forget"), st.integers(-50, 250), st.just(0)),
)


@given(st.lists(steps, max_size=30))
def test_the_ring_is_a_bounded_array_by_index(actions):
    ring, model = Ring(100, PHONE), Model(100)
    for action, where, samples in actions:
        if action == "append":
            at = max(0, model.end + where)
            missing = ring.append(recorded(at, samples), at)
            assert missing == max(0, at - model.end)
            model.append(recorded(at, samples), at)
        else:
            ring.forget(model.begin + where)
            model.forget(model.begin + where)
        assert (ring.begin, ring.end) == (model.begin, model.end)
        kept = ring.read(ring.begin, 1000)
        assert list(kept) == [model.samples[index] for index in range(model.begin, model.end)]
        assert len(kept) <= 100


def test_samples_of_two_bytes():
    ring = Ring(4, PCM)
    ring.append(b"\1\0\2\0", 0)
    assert ring.append(b"\4\0", 3) == 1
    assert ring.read(0, 9) == b"\1\0\2\0\0\0\4\0"
    ring.append(b"\5\0", 4)
    assert (ring.begin, ring.end) == (1, 5)
    assert ring.read(2, 2) == b"\0\0\4\0"


# -- what is sent, and whose samples that was --------------------------------------------------------


packets = st.lists(
    st.tuples(
        st.sampled_from(["packet"] * 6 + ["wait", "lose", "late", "reconnect"]),
        st.integers(1, 200),
    ),
    max_size=120,
)


@given(packets)
def test_every_sample_that_was_sent_is_found_again(actions):
    """Whatever is lost, late, fed or sent again: the timeline leads from a byte sent to the sample it was."""
    feed, now, at = Feed(PHONE, 0.0), 0.0, 0
    sent = bytearray()

    def send() -> None:
        while (audio := feed.take(now)) is not None:
            assert len(audio) == feed.chunk
            sent.extend(audio)

    for action, amount in actions:
        match action:
            case "packet":
                now += 0.02
                feed.append(recorded(at, 160), at, now)
                at += 160
            case "wait":  # nothing comes
                for _ in range(amount):
                    now += 0.02
                    send()
            case "lose":
                at += amount * 40
            case "late":  # a burst of what was held up
                for _ in range(amount % 10):
                    feed.append(recorded(at, 160), at, now)
                    at += 160
            case "reconnect":
                feed.rewind(feed.position - amount * 50)
                sent.clear()
        send()
    assert feed.timeline.sent == len(sent)
    before = -1
    for n, byte in enumerate(sent):
        position = feed.timeline.position(n / 8000)
        assert before <= position <= feed.position
        before = position
        if byte != 0xFF:
            assert position % CYCLE == byte
    if actions:
        assert feed.timeline.position(math.inf) == feed.timeline.position(len(sent) / 8000) <= feed.position
    assert feed.dropped == 0 or any(action == "reconnect" for action, _ in actions)


@given(packets)
def test_nothing_is_left_out_and_nothing_comes_twice(actions):
    feed, now, at = Feed(PHONE, 0.0), 0.0, 0
    given_, sent = bytearray(), bytearray()
    for action, amount in actions:
        now += 0.02 * (amount if action == "wait" else 1)
        if action == "packet":
            feed.append(recorded(at, 160), at, now)
            given_ += recorded(at, 160)
            at += 160
        elif action == "lose":
            at += amount * 10
        while (audio := feed.take(now)) is not None:
            sent += audio
    now += 1
    while (audio := feed.take(now)) is not None:
        sent += audio
    assert sent.replace(b"\xff", b"") == given_


def test_silence_is_fed_in_real_time():
    feed = Feed(PHONE, 0.0)
    feed.append(recorded(0, 700), 0, 0.0)
    assert feed.take(0.0) == recorded(0, 640)
    assert feed.take(STOPPED - 0.01) is None
    assert feed.take(STOPPED) == recorded(640, 60) + b"\xff" * 580
    assert feed.take(STOPPED + 0.07) is None
    assert feed.take(STOPPED + 0.08) == b"\xff" * 640
    count = 0
    while feed.take(60.0) is not None:  # the machine slept
        count += 1
    assert count <= 14
    assert feed.silence_fed == 580 + 640 * (count + 1)


def test_late_timers_do_not_add_up():
    feed, now, fed = Feed(PHONE, 0.0), 0.0, 0
    while now < 10.0:
        now = max(now, feed.silence_due) + 0.013
        fed += feed.take(now) is not None
    assert fed == pytest.approx((10.0 - STOPPED) / 0.08, abs=2)


def test_what_was_not_sent_is_not_forgotten():
    feed = Feed(PHONE, 0.0)
    feed.append(recorded(0, 1280), 0, 0.0)
    assert feed.take(0.0) == recorded(0, 640)
    feed.forget(10**6)
    assert feed.take(0.0) == recorded(640, 640)
    assert feed.rewind(0) == 640


def test_silence_that_was_fed_stands_for_packets_that_were_lost():
    feed = Feed(PHONE, 0.0)
    feed.append(recorded(0, 640), 0, 0.0)
    assert feed.take(0.0) is not None
    for n in range(10):
        assert feed.take(0.5 + 0.08 * n) == b"\xff" * 640
    feed.append(recorded(7680, 640), 7680, 1.3)  # 7040 samples are missing, 6400 were fed
    assert feed.take(1.3) == b"\xff" * 640
    assert feed.take(1.3) == recorded(7680, 640)
    assert feed.timeline.position(0.5) == 640
    assert feed.timeline.position(1.0) == 8000


def test_what_has_to_go_before_it_was_sent_is_counted():
    feed = Feed(PHONE, 0.0)
    for n in range(31):
        feed.append(recorded(n * 8000, 8000), n * 8000, float(n))
    assert feed.dropped == 8000
    assert feed.position == feed.oldest == 8000
    feed.append(recorded(0, 160), 100 * 8000, 40.0)  # a gap that leaves nothing of before
    assert feed.dropped == 31 * 8000
    assert feed.position == feed.oldest == 100 * 8000


def test_the_timeline_is_bounded():
    timeline = Timeline(8000, 0)
    position = 0
    for _ in range(5000):
        timeline.audio(position, 10)
        timeline.silence(10)
        position += 10
    assert len(timeline._began) <= KEPT + 1
    assert timeline.position(99_995 / 8000) == position
    assert timeline.position(0) < position


# -- evidence --------------------------------------------------------------------------------------


class Told:
    """A hearing whose connection was sent the caller's audio from `start` on, sample for sample."""

    def __init__(self) -> None:
        self.hearing = Hearing(8000)
        self.connect(0)

    def connect(self, start: int) -> None:
        self.start = start
        self.timeline = Timeline(8000, start)
        self.timeline.audio(start, 100 * 8000)

    def tell(self, event: str, text: str = "", at: float = 0.0, words: tuple[TimedWord, ...] = (), **more):
        """`at` and the times of words are seconds of the caller's stream."""
        shift = self.start / 8000
        moved = tuple(TimedWord(word.text, word.start - shift, word.end - shift) for word in words)
        return self.hearing.take(TurnInfo(event, text, moved, at - shift, **more), self.timeline)


def words(*texts: str, start: float) -> tuple[TimedWord, ...]:
    """One every half second, 0.4 s long."""
    return tuple(TimedWord(text, start + n / 2, start + n / 2 + 0.4) for n, text in enumerate(texts))


def test_a_turn_as_evidence():
    told = Told()
    assert told.tell("Update", at=1.0) is None
    hi = words("Hi", "there", start=2.0)
    assert told.tell("StartOfTurn", "Hi", 2.5, hi[:1]) == Started("Hi")
    assert told.tell("Update", "Hi there", 3.0, hi) == Grew("Hi there")
    assert told.tell("EagerEndOfTurn", "Hi there", 3.1, hi) == MayBeOver("Hi there", round(2.9 * 8000))
    assert told.tell("TurnResumed", "Hi there", 3.2, hi) == WentOn("Hi there")
    assert told.tell("EndOfTurn", "Hi there", 4.0, hi) == Over("Hi there", round(2.9 * 8000))
    assert told.hearing.replaced(0) == round(3.1 * 8000)  # 0.2 s after the last word


def test_without_times_the_voice_ended_where_the_detector_says_or_the_text_last_grew():
    told = Told()
    told.tell("StartOfTurn", "Hi", 2.5)
    told.tell("Update", "Hi there", 3.0)
    told.tell("Update", "Hi there", 3.25)
    assert told.tell("EagerEndOfTurn", "Hi there", 3.5) == MayBeOver("Hi there", 3 * 8000)
    told.hearing.voice_stopped = 22_000
    assert told.tell("EndOfTurn", "Hi there", 4.0) == Over("Hi there", 22_000)


def test_an_end_without_words_is_none():
    told = Told()
    assert told.tell("EndOfTurn", "", 1.0) is None
    assert told.tell("EagerEndOfTurn", "", 1.0) is None
    assert not told.hearing.open
    assert told.tell("EndOfTurn", "Hi", 2.0) == Over("Hi", 16_000)  # its start went unnoticed


def test_where_to_begin_again():
    told = Told()
    assert told.hearing.replaced(0) == 0
    told.tell("Update", at=10.0)
    assert told.hearing.replaced(0) == 7 * 8000  # a long word may have begun
    told.hearing.voice = 6 * 8000
    told.tell("Update", at=12.0)
    assert told.hearing.replaced(0) == 7 * 8000  # the detector knows that one has
    told.hearing.voice = None
    told.tell("StartOfTurn", "Hi", 13.0, words("Hi", start=12.5))
    assert told.hearing.replaced(0) == 12 * 8000  # half a second before its first word
    told.tell("EndOfTurn", "Hi", 14.0, words("Hi", start=12.5), forced=True)
    assert told.hearing.replaced(0) == round(12.9 * 8000)  # forced: the next word may follow at once
    told.tell("Update", at=14.5)
    assert told.hearing.replaced(0) == round(12.9 * 8000)


def test_what_was_heard_before_is_not_told_again():
    told = Told()
    hi = words("Hi", "there", "my", "friend", start=2.0)
    told.tell("StartOfTurn", "Hi", 2.5, hi[:1])
    told.tell("Update", "Hi there my", 4.0, hi[:3])
    told.connect(told.hearing.replaced(0))
    assert told.tell("Update", at=2.25) is None
    assert told.tell("StartOfTurn", "Hi", 2.5, hi[:1]) is None
    assert told.tell("EagerEndOfTurn", "Hi", 2.6, hi[:1]) is None
    assert told.tell("TurnResumed", "Hi", 2.7, hi[:1]) is None
    assert told.tell("EndOfTurn", "Hi there", 3.2, hi[:2]) is None  # it is known that the caller went on
    assert told.tell("Update", at=3.3) is None
    assert told.tell("StartOfTurn", "my", 3.5, hi[2:3]) is None
    assert told.tell("Update", "my friend", 4.1, hi[2:]) == Grew("Hi there my friend")
    told.connect(told.hearing.replaced(0))  # again, and all of it
    assert told.start == round(1.5 * 8000)
    assert told.tell("StartOfTurn", "Hi", 2.5, hi[:1]) is None
    assert told.tell("EndOfTurn", "Hi there my friend", 4.5, hi) == Over(
        "Hi there my friend", round(3.9 * 8000)
    )


@pytest.mark.parametrize("texts", ["", "of another turn"])
def test_a_turn_of_which_a_new_connection_hears_nothing(texts):
    told = Told()
    told.tell("StartOfTurn", "Hi", 2.5, words("Hi", start=2.0))
    told.tell("Update", "Hi", 3.0, words("Hi", start=2.0))
    told.connect(told.hearing.replaced(0))
    assert told.tell("Update", texts, 2.9) is None
    assert told.tell("Update", texts, 3.1) is None  # now it has heard all
    assert told.tell("Update", texts, 5.0) is None
    assert told.tell("Update", texts, 5.2) == Over("Hi", round(2.4 * 8000))
    assert told.tell("Update", texts, 6.0) is None


def test_words_whose_audio_is_gone_are_carried_over():
    told = Told()
    said = words("a", "b", "c", "d", "e", "f", start=2.0)
    told.tell("StartOfTurn", "a", 2.5, said[:1])
    told.tell("Update", "a b c d", 4.0, said[:4])
    told.connect(told.hearing.replaced(round(2.6 * 8000)))  # in the middle of b
    assert told.start == round(2.9 * 8000)
    assert told.tell("StartOfTurn", "c", 3.5, said[2:3]) is None
    assert told.tell("Update", "c d e", 4.5, said[2:5]) == Grew("a b c d e")
    told.connect(told.hearing.replaced(round(4.05 * 8000)))  # in the middle of e
    assert told.start == round(4.4 * 8000)
    assert told.tell("StartOfTurn", "f", 5.0, said[5:]) == Grew("a b c d e f")
    assert told.tell("EndOfTurn", "f", 5.5, said[5:]) == Over("a b c d e f", round(4.9 * 8000))
    assert told.tell("StartOfTurn", "next", 8.0) == Started("next")


# -- the clocks --------------------------------------------------------------------------------------


def watched(liveness: Liveness, since: float, until: float, *, answers: bool) -> str | None:
    """Audio goes out every 80 ms; what the clocks say first, and None when they say nothing."""
    now = since
    while now < until:
        now += 0.08
        liveness.sent(now)
        if answers:
            liveness.received(now)
        if (why := liveness.check(now)) is not None:
            return f"{now - since:.1f} s: {why}"
    return None


def test_a_link_that_says_nothing():
    liveness = Liveness()
    liveness.opened(100.0)
    assert watched(liveness, 100.0, 200.0, answers=True) is None
    assert liveness.longest == 0.0
    assert watched(liveness, 200.0, 210.0, answers=False) == "3.1 s: it said nothing for 3 s"
    assert liveness.longest == pytest.approx(ANSWER_LIMIT, abs=0.1)


def test_our_own_delay_proves_nothing():
    liveness = Liveness()
    liveness.opened(0.0)
    assert watched(liveness, 0.0, 1.0, answers=False) is None
    liveness.sent(60.0)  # the machine was held up for a minute: what came is still unread
    assert liveness.check(60.0) is None
    liveness.received(60.0)
    assert watched(liveness, 60.0, 70.0, answers=True) is None


def test_nothing_is_expected_while_nothing_is_sent():
    liveness = Liveness()
    liveness.opened(0.0)
    for n in range(100):
        assert liveness.check(n * 0.4) is None


def test_voice_without_a_turn():
    liveness = Liveness()
    liveness.opened(0.0)
    liveness.voice(True, 0.0)
    said = f"it heard nothing in {VOICE_LIMIT:g} s of voice"
    assert watched(liveness, 0.0, 20.0, answers=True) == f"4.0 s: {said}"
    liveness.opened(5.0)
    assert watched(liveness, 5.0, 4.0 + VOICE_PAUSE - 0.1, answers=True) is None
    assert said in (watched(liveness, 4.0 + VOICE_PAUSE, 60.0, answers=True) or "")


def test_voice_in_a_turn_is_as_it_should_be():
    liveness = Liveness()
    liveness.opened(0.0)
    liveness.voice(True, 0.0)
    liveness.turn(True, 1.0)
    assert watched(liveness, 1.0, 60.0, answers=True) is None
    liveness.turn(False, 60.0)  # the voice goes on, so a turn has to begin
    assert watched(liveness, 60.0, 63.9, answers=True) is None
    liveness.voice(False, 63.95)
    assert watched(liveness, 64.0, 99.0, answers=True) is None


def test_how_often_is_tried():
    trouble, now, pauses = Trouble(0.0), 0.0, []
    while (pause := trouble.pause(now)) is not None:
        pauses.append(pause)
        now += pause
    assert pauses == [0, 0.25, 0.5, 1, 2, 2, 2, 1.25]
    assert now == TRYING - LEAST


def test_a_connection_that_lasts_ends_the_trouble():
    trouble, now = Trouble(0.0), 0.0
    for _ in range(100):
        assert trouble.pause(now) == 0
        now += 5.0  # it takes that long to connect
        trouble.connected(now)
        now += 3.0
        assert not trouble.failed_again()
        trouble.lost(last_heard=now)


def test_time_in_which_a_connection_said_nothing_counts():
    trouble = Trouble(0.0)
    assert trouble.pause(0.0) == 0
    trouble.connected(1.0)
    trouble.lost(last_heard=1.0)
    assert trouble.left(8.0) == pytest.approx(2.0)
    assert trouble.pause(8.0) == 0.25


@pytest.mark.parametrize(("lasts", "tries"), [(0.5, 8), (1.5, 37)])
def test_connections_that_do_not_last_share_one_budget(lasts, tries):
    """One that has worked for a second is soon replaced, others later and later."""
    trouble, now, tried = Trouble(0.0), 0.0, 0
    while (pause := trouble.pause(now)) is not None:
        now += pause
        trouble.connected(now)
        now += lasts
        trouble.lost(last_heard=now)
        tried += 1
    assert tried == tries
