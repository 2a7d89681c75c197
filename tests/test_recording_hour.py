"""An hour of virtual time, with everything that goes wrong on a line: both channels are where they belong."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest

from tests.recording_calls import RATE, Network, loud, noise, recorded
from voiceflow.audio import Samples, decode
from voiceflow.testing import VirtualTimeLoop, run

ALLOWED = RATE // 50
"""20 ms."""


@pytest.mark.parametrize("ppm", [100, -100])
def test_an_hour_later_both_channels_line_up(tmp_path: Path, ppm: int):
    """The caller's channel is what he said, sample for sample. The agent's is what the carrier played,
    earlier by the round trip, because the recording's point of view is the server's."""
    dice = random.Random(ppm)
    held = 0.0

    def late(packet: int) -> float:
        """Up to 30 ms always; every few minutes all packets of a second come at once."""
        nonlocal held
        now = packet * 0.1
        if dice.random() < 0.0005:
            held = now + 0.2 + dice.random()
        return max(0.0, held - now) + dice.random() * 0.03

    network = Network(
        out=0.06,
        back=0.05,
        late=late,
        lost=lambda packet: packet % 997 in (500, 501),
        speed=1 + ppm / 1e6,
        packet=800,
    )
    played: list[str] = []

    async def hour() -> None:
        async with recorded(tmp_path, network=network) as phone:
            turns = phone.call.turns
            await asyncio.sleep(1.0)
            for round_ in range(179):
                text = f"This is what the agent says in round {round_}, of an hour that is long."
                speaking = asyncio.create_task(phone.call.say(text))
                played.append(text)
                if round_ % 3 == 1:  # the caller barges in
                    await asyncio.sleep(0.5 + dice.random() * 2)
                    phone.carrier.say(noise(("barge", round_), 8000))
                    turns.started()
                    await speaking
                    await asyncio.sleep(1.2)
                    turns.ended(f"Barged in {round_}")
                else:
                    await speaking
                    phone.carrier.say(noise(("caller", round_), 4000), after=0.4)
                await asyncio.sleep(max(0.0, (round_ + 1) * 20.0 - asyncio.get_running_loop().time()))
            heard_by_caller, told_by_caller = phone.carrier.heard(), bytes(phone.carrier.sent)
        left, right = phone.channels()
        told = decode(told_by_caller)
        assert abs(len(left) - 179 * 20 * RATE) < RATE
        shared = min(len(left), len(told)) - RATE
        assert np.array_equal(left[:shared], told[:shared])

        truth = decode(heard_by_caller)
        round_trip = round((network.out + network.back) * RATE)
        ears, tapes = beginnings(truth), beginnings(right)
        for text in played:
            audio = noise(text, len(text) * 400)
            ear, tape = ears[key(decode(audio))], tapes[key(decode(audio))]
            assert abs(tape - (ear - round_trip)) <= ALLOWED, text
            heard, kept = whole(truth, ear, audio), whole(right, tape, audio)
            assert abs(heard - kept) <= ALLOWED, text  # cut at the same word, or not at all
        assert phone.result is not None
        assert phone.result.figures["interrupts"] == 60
        assert phone.figures()["recording_lost"] == 0

    run(hour(), loop=VirtualTimeLoop(wall_limit=120.0))


def key(samples: Samples) -> bytes:
    return samples[:40].tobytes()


def beginnings(track: Samples) -> dict[bytes, int]:
    """Where sound begins after silence, by its first samples."""
    return {key(track[start:end]): start for start, end in loud(track)}


def whole(track: Samples, at: int, audio: bytes) -> int:
    """How many samples of the audio stand there without a gap."""
    wanted = decode(audio)
    there = track[at : at + len(wanted)]
    differ = np.flatnonzero(there != wanted[: len(there)])
    return int(differ[0]) if len(differ) else len(there)
