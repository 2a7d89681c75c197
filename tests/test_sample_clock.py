"""The sample clock: late packets, bursts, lost ones and clocks that drift move nothing that matters."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from voiceflow.line.sampleclock import WINDOW, SampleClock

RATE = 8000
PACKET = 160
DELAY = 0.04


def test_sample_zero_is_the_beginning_until_packets_come():
    clock = SampleClock(RATE)
    clock.begin(100.0)
    assert not clock.running
    assert clock.sample(101.0) == 8000
    assert clock.time(8000) == 101.0
    clock.arrived(PACKET, 100.05)
    assert clock.running
    clock.begin(0.0)  # too late to guess
    assert clock.sample(100.05) == PACKET


def test_a_late_packet_moves_nothing_and_a_timely_one_all_at_once():
    clock = SampleClock(RATE)
    clock.arrived(160, 5.3)
    assert clock.sample(5.3) == 160
    clock.arrived(320, 5.04)  # the first one was 280 ms late
    assert clock.sample(5.04) == 320
    clock.arrived(480, 9.0)
    assert clock.sample(5.04) == 320


def test_a_line_that_hangs_for_a_minute_is_no_reason_to_believe_the_late_packets():
    clock = SampleClock(RATE)
    for packet in range(1, 500):
        clock.arrived(packet * PACKET, packet * 0.02)
    for packet in range(500, 3500):  # all that was said meanwhile, at once
        clock.arrived(packet * PACKET, 70.0)
        assert clock.sample(8.0) == 64_000
    assert clock.sample(70.0) == 70 * RATE


def test_samples_that_are_lost_without_a_word_are_believed_after_the_window():
    clock = SampleClock(RATE)
    lost = 5000
    for packet in range(1, 2000):
        now = packet * 0.02
        clock.arrived(packet * PACKET - (lost if now > 20.0 else 0), now)
        expected = now * RATE - (lost if now > 20.0 + WINDOW else 0)
        assert abs(clock.sample(now) - expected) <= (lost if 20.0 < now < 20.0 + WINDOW + 1.1 else 1)
    assert clock.sample(40.0) == 40 * RATE - lost


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    ppm=st.floats(-100, 100),
    jitter=st.sampled_from(["none", "even", "bursts", "spikes"]),
    loss=st.sampled_from([0.0, 0.02, 0.3]),
)
def test_it_is_right_to_a_few_milliseconds(seed: int, ppm: float, jitter: str, loss: float):
    """Against a line whose every packet takes DELAY or longer, for two minutes, from the second second on."""
    dice = random.Random(seed)
    clock = SampleClock(RATE)
    speed = 1 + ppm / 1e6
    arrival = 0.0
    held = 0.0
    for packet in range(1, 6000):
        sent = packet * 0.02 / speed
        late = 0.0
        match jitter:
            case "even":
                late = dice.random() * 0.03
            case "bursts":
                if dice.random() < 0.005:
                    held = sent + dice.random() * 3.0
                late = max(0.0, held - sent)
            case "spikes":
                late = dice.random() ** 40
        arrival = max(arrival, sent + DELAY + late)
        if dice.random() < loss:
            continue
        clock.arrived(packet * PACKET, arrival)
        if sent > 2.0 and held < sent:
            true = (arrival - DELAY) * speed * RATE
            assert abs(clock.sample(arrival) - true) < 0.005 * RATE
            assert abs(clock.time(clock.sample(arrival)) - arrival) < 1e-3
