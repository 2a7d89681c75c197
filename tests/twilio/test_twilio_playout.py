"""The play-out buffer against a naive model that plays one sample at a time; and the handset."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from processors.twilio.simulated.handset import Handset
from processors.twilio.simulated.playout import MOST_MARKS, Played, Playout

FULL = 60
"""A small bound, so that random runs reach it."""


class Naive:
    """The same buffer, played sample by sample. What is queued is a byte of audio or the name of a mark."""

    def __init__(self) -> None:
        self.now = 0
        self.queue: deque[int | str] = deque()
        self.track = bytearray()
        self.marks: list[tuple[str, int]] = []
        self.thrown: list[int] = []
        self.lost = 0

    def play(self, at: int) -> None:
        while self.now < at:
            self._return_marks()
            self.track.append(int(self.queue.popleft()) if self.queue else 0xFF)
            self.now += 1
        self._return_marks()

    def audio(self, audio: bytes) -> None:
        room = FULL - self.samples()
        self.queue.extend(audio[:room])
        self.lost += len(audio) - len(audio[:room])

    def mark(self, name: str) -> None:
        self.queue.append(name)
        self._return_marks()

    def clear(self) -> None:
        self.thrown.append(self.samples())
        self.queue = deque(entry for entry in self.queue if isinstance(entry, str))
        self._return_marks()

    def samples(self) -> int:
        return sum(isinstance(entry, int) for entry in self.queue)

    def _return_marks(self) -> None:
        while self.queue and isinstance(self.queue[0], str):
            self.marks.append((str(self.queue.popleft()), self.now))


ACTS = st.lists(
    st.tuples(
        st.integers(-3, 30),
        st.one_of(
            st.binary(max_size=40), st.sampled_from(["a", "b", "c"]), st.just("clear"), st.just("wait")
        ),
    ),
    max_size=25,
)


def perform(acts: list[tuple[int, bytes | str]], playout: Playout, naive: Naive) -> list[Played]:
    events: list[Played] = []
    now = 0
    for wait, act in acts:
        at = now + wait  # sometimes in the past
        now = max(now, at)
        naive.play(now)
        if isinstance(act, bytes):
            naive.audio(act)
            events += playout.audio(at, act)
        elif act == "clear":
            naive.clear()
            events += playout.clear(at)
        elif act == "wait":
            events += playout.advance(at)
        else:
            naive.mark(act)
            events += playout.mark(at, act)
        assert playout.buffered == naive.samples()
    return events


@given(ACTS)
def test_it_plays_what_the_naive_model_plays(acts: list[tuple[int, bytes | str]]) -> None:
    playout, naive = Playout(FULL), Naive()
    events = perform(acts, playout, naive)
    assert playout.recording() == bytes(naive.track)
    assert [(event.name, event.at) for event in events if event.kind == "mark"] == naive.marks
    assert [event.samples for event in events if event.kind == "cleared"] == naive.thrown
    assert sum(event.samples for event in events if event.kind == "discarded") == naive.lost


@given(ACTS)
def test_heard_and_silent_take_turns_and_time_does_not_go_back(acts: list[tuple[int, bytes | str]]) -> None:
    playout = Playout(FULL)
    events = perform(acts, playout, Naive())
    events += playout.advance(10_000)
    turns = [event.kind for event in events if event.kind in ("heard", "silent")]
    assert turns == ["heard", "silent"] * (len(turns) // 2)
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert playout.due() is None


@given(ACTS)
def test_due_names_the_next_event(acts: list[tuple[int, bytes | str]]) -> None:
    playout = Playout(FULL)
    perform(acts, playout, Naive())
    while (due := playout.due()) is not None:
        assert playout.advance(due - 1) == []
        assert playout.advance(due) != []


@given(ACTS)
def test_every_mark_comes_back_once_and_in_order(acts: list[tuple[int, bytes | str]]) -> None:
    playout = Playout(FULL)
    named = [(wait, f"m{n}" if act in ("a", "b", "c") else act) for n, (wait, act) in enumerate(acts)]
    events = perform(named, playout, Naive())
    events += playout.advance(10_000)
    sent = [act for _, act in named if isinstance(act, str) and act.startswith("m")]
    assert [event.name for event in events if event.kind == "mark"] == sent


def test_a_mark_on_an_empty_buffer_comes_straight_back() -> None:
    assert Playout().mark(70, "m") == [Played("mark", 70, name="m")]


def test_audio_that_comes_as_the_last_sample_ends_leaves_no_gap() -> None:
    playout = Playout()
    assert playout.audio(100, b"\x01" * 10) == [Played("heard", 100, 100)]
    assert playout.audio(110, b"\x02" * 10) == []
    assert playout.advance(130) == [Played("silent", 120)]
    assert playout.audio(131, b"\x03") == [Played("heard", 131, 11)]


def test_clear_throws_away_what_was_not_played_and_returns_all_marks() -> None:
    playout = Playout()
    playout.audio(0, b"\x01" * 800)
    playout.mark(0, "first")
    playout.audio(0, b"\x02" * 800)
    playout.mark(0, "second")
    assert playout.clear(1000) == [
        Played("mark", 800, name="first"),
        Played("silent", 1000),
        Played("cleared", 1000, 600),
        Played("mark", 1000, name="second"),
    ]
    assert playout.clear(1001) == [Played("cleared", 1001, 0)]
    assert playout.recording() == b"\x01" * 800 + b"\x02" * 200 + b"\xff"


def test_ten_minutes_fit_and_no_more() -> None:
    playout = Playout()
    assert playout.audio(0, bytes(600 * 8000)) == [Played("heard", 0)]
    assert playout.audio(0, bytes(7)) == [Played("discarded", 0, 7)]
    assert playout.audio(5, bytes(7)) == [Played("discarded", 5, 2)]


def test_outstanding_marks_are_bounded() -> None:
    playout = Playout()
    playout.audio(0, b"\x01" * 10)
    for n in range(MOST_MARKS):
        assert playout.mark(0, str(n)) == []
    assert playout.mark(0, "more") == [Played("discarded", 0)]


# -- the handset -----------------------------------------------------------------------------------


def read_all(handset: Handset, frames: int) -> tuple[bytes, list[tuple[str, int]]]:
    sound = b""
    acts: list[tuple[str, int]] = []
    for frame in range(frames):
        audio, done = handset.read(frame * 160, 160)
        sound += audio
        acts += [(act.kind, act.at) for act in done]
    return sound, acts


def test_speech_is_where_it_was_put_whatever_the_frames() -> None:
    handset = Handset()
    assert handset.speak(b"\x01" * 200, at=100) == (100, 300)
    assert handset.speak(b"\x02" * 10, at=250) == (300, 310)  # never over the other
    handset.press("5", at=161)
    sound, acts = read_all(handset, 3)
    assert sound == b"\xff" * 100 + b"\x01" * 200 + b"\x02" * 10 + b"\xff" * 170
    assert acts == [
        ("caller speaks", 100),
        ("key pressed", 161),
        ("caller stops", 300),
        ("caller speaks", 300),
        ("caller stops", 310),
    ]


def test_what_is_said_while_nobody_listens_is_lost() -> None:
    handset = Handset()
    handset.speak(b"\x01" * 100)
    handset.speak(b"\x02" * 400)
    audio, acts = handset.read(320, 160)
    assert audio == b"\x02" * 160
    assert [act.kind for act in acts] == ["caller speaks", "caller stops", "caller speaks"]
    assert handset.speak(b"\x03" * 10) == (500, 510)


@given(st.lists(st.tuples(st.integers(0, 700), st.binary(min_size=1, max_size=300)), max_size=5))
def test_each_speech_is_read_exactly_once(speeches: list[tuple[int, bytes]]) -> None:
    handset = Handset()
    expected = bytearray(b"\xff" * 320 * 20)
    for at, audio in speeches:
        start, end = handset.speak(audio, at)
        expected[start:end] = audio
    assert read_all(handset, 40)[0] == bytes(expected)
