"""Recording: what is in the files, whatever happens to the call, the line and the disk."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loguru import logger

from processors.recording import Recording
from processors.recording.formats import to_vtt
from processors.recording.pauses import Pauses
from processors.recording.transcript import Entry
from processors.recording.wav import LEFT, LONGEST, RIGHT, StereoFile
from processors.recording.writing import BOUND, Disk
from processors.twilio.codec import TwilioCodec
from tests.recording_calls import (
    RATE,
    Network,
    TimedCodec,
    channels,
    loud,
    noise,
    recorded,
    transcript,
    where,
)
from voiceflow.audio import decode
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on
from voiceflow.errors import VoiceflowError
from voiceflow.frames import Dtmf, RecordingPause, RecordingResume
from voiceflow.services import Services
from voiceflow.testing import check_processor, run

ROOT = Path(__file__).parents[1]


# -- both channels -------------------------------------------------------------------------------


def test_both_sides_bit_for_bit_and_where_they_belong(tmp_path: Path):
    async def call() -> None:
        async with recorded(tmp_path, network=Network(out=0.05, back=0.04)) as phone:
            await asyncio.sleep(1.0)
            said = noise("the caller", 8000)
            at = phone.carrier.say(said)
            await asyncio.sleep(2.0)
            assert await phone.call.say("Good morning to you.") == "Good morning to you."
            ear = where(decode(phone.carrier.heard()), noise("Good morning to you.", 8000))
        left, right = phone.channels()
        assert np.array_equal(left[at : at + 8000], decode(said))
        assert loud(left) == [(at, at + 8000)]
        assert ear is not None
        begins = ear - round(0.09 * RATE)  # the round trip: the point of view is ours
        assert loud(right) == [(begins, begins + 8000)]
        assert np.array_equal(right[begins : begins + 8000], decode(noise("Good morning to you.", 8000)))

    run(call())


def test_what_was_cleared_before_it_played_is_not_there(tmp_path: Path):
    async def call() -> None:
        async with recorded(tmp_path) as phone:
            await asyncio.sleep(1.0)
            speaking = asyncio.create_task(phone.call.say("All of this takes more than two seconds."))
            await asyncio.sleep(0.533)
            phone.call.turns.started()
            assert (heard := await speaking).startswith("All of")
            await asyncio.sleep(1.0)
            truth = decode(phone.carrier.heard())
        _, right = phone.channels()
        assert loud(right) == [(8000, 8000 + 4264)] == loud(truth)
        (entry,) = phone.transcript()["entries"]
        assert entry == {
            "speaker": "agent",
            "start": 1.0,
            "end": 1.533,
            "text": heard,
            "cut": True,
            "estimated": True,
        }

    run(call())


def test_an_interrupt_while_the_first_audio_is_on_its_way(tmp_path: Path):
    async def call() -> None:
        async with recorded(tmp_path, network=Network(back=0.3)) as phone:
            await asyncio.sleep(1.0)
            speaking = asyncio.create_task(phone.call.say("Nobody hears this."))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            phone.call.turns.started()
            assert await speaking == ""
            await asyncio.sleep(1.0)
        assert loud(phone.channels()[1]) == []
        assert phone.transcript()["entries"] == []

    run(call())


def test_a_held_reply_is_silent_while_it_is_held(tmp_path: Path):
    async def call() -> None:
        async with recorded(tmp_path) as phone:
            await asyncio.sleep(1.0)
            speaking = asyncio.create_task(phone.call.say("This is held in its middle and goes on."))
            await asyncio.sleep(0.7)
            phone.call.turns.hold()
            await asyncio.sleep(0.5)
            phone.call.turns.unhold()
            await speaking
            truth = decode(phone.carrier.heard())
        _, right = phone.channels()
        assert len(loud(truth)) == 2
        assert loud(right) == loud(truth)
        assert np.array_equal(right[: len(truth)], truth[: len(right)])
        assert phone.said() == [("agent", "This is held in its middle and goes on.")]

    run(call())


def test_when_the_caller_hangs_up_what_was_on_its_way_is_not_there(tmp_path: Path):
    """As in the ledger: a mark has told the round trip, and nothing of the last of it was heard."""

    async def call() -> None:
        async with recorded(tmp_path, network=Network(out=0.2, back=0.2)) as phone:
            await asyncio.sleep(1.0)
            speaking = asyncio.create_task(phone.call.say("This is long enough to be cut off by a hang-up."))
            await asyncio.sleep(1.5)
            phone.carrier.link.send_now("stop")
            with pytest.raises(VoiceflowError):
                await asyncio.gather(phone.call.say("late"), speaking)
        _, right = phone.channels()
        ((start, end),) = loud(right)
        assert abs(end - start - round((1.5 - 0.4) * RATE)) <= 1
        entry = phone.transcript()["entries"][0]
        assert entry["cut"]
        assert entry["end"] - entry["start"] == pytest.approx(1.1, abs=0.002)

    run(call())


def test_a_call_in_which_the_agent_says_nothing(tmp_path: Path):
    async def call() -> None:
        async with recorded(tmp_path) as phone:
            at = phone.carrier.say(noise("hello", 4000))
            await asyncio.sleep(3.0)
        left, right = phone.channels()
        assert loud(left) == [(at, at + 4000)]
        assert not right.any()
        assert phone.figures() == {
            "recorded_seconds": len(left) / RATE,
            "recording_paused": 0.0,
            "recording_lost": 0.0,
        }

    run(call())


def test_lost_packets_are_silence_and_the_rest_stays_where_it_was(tmp_path: Path):
    async def call() -> None:
        network = Network(lost=lambda packet: 100 <= packet < 120)
        async with recorded(tmp_path, network=network) as phone:
            said = noise("a long speech", 5 * RATE)
            at = phone.carrier.say(said)
            await asyncio.sleep(5.5)
            truth = decode(bytes(phone.carrier.sent))
        left, _ = phone.channels()
        assert np.array_equal(left[: 5 * RATE], truth[: 5 * RATE])
        assert loud(left) == [(at, 16_000), (19_200, at + 5 * RATE)]

    run(call())


def test_a_greeting_before_there_is_any_audio_of_the_caller_s(tmp_path: Path):
    """The caller's audio begins 2.3 s after the line is open: the file begins with the call."""

    async def call() -> None:
        async with recorded(tmp_path, network=Network(lost=lambda packet: packet < 115)) as phone:
            phone.carrier._number = 0
            assert await phone.call.say("Welcome.") == "Welcome."
            await asyncio.sleep(4.0)
        left, right = phone.channels()
        assert loud(right) == [(0, 3200)]
        assert len(left) > 4 * RATE

    run(call())


# -- pauses --------------------------------------------------------------------------------------


class Keys(Processor):
    """Pauses with `*`, goes on with `#`: by frames, from above."""

    emits = (RecordingPause, RecordingResume)

    @on(Dtmf)
    def key(self, frame: Dtmf) -> Dtmf:
        self.push(RecordingPause("keys") if frame.digit == "*" else RecordingResume("keys"))
        return frame


def test_a_pause_is_silence_and_its_words_are_left_out(tmp_path: Path):
    async def call() -> None:
        async with recorded(tmp_path, above=(Keys(),)) as phone:
            link, turns = phone.carrier.link, phone.call.turns
            await asyncio.sleep(1.0)
            phone.carrier.say(noise("all the time", 10 * RATE))
            turns.started()
            await asyncio.sleep(1.0)
            turns.ended("Hello, I would like to pay.")
            await asyncio.sleep(0.02)
            link.send_now("digit *")
            speaking = asyncio.create_task(phone.call.say("Your card number?"))
            await asyncio.sleep(0.5)
            assert phone.recording.paused
            await speaking
            turns.started()
            await asyncio.sleep(1.0)
            turns.ended("4111 1111 1111 1111")
            await asyncio.sleep(0.1)
            link.send_now("digit #")
            await asyncio.sleep(0.02)
            assert not phone.recording.paused
            assert await phone.call.say("Thank you.") == "Thank you."
        left, right = phone.channels()
        ((first, last),) = phone.transcript()["pauses"]
        assert (first, last) == (2.02, pytest.approx(4.0, abs=0.05))
        here = slice(round(first * RATE), round(last * RATE))
        assert not left[here].any()
        assert not right[here].any()
        assert left[here.start - 1] != 0
        assert left[here.stop] != 0
        ((start, end),) = loud(right)
        assert (start > here.stop, end - start) == (True, 4000)
        assert phone.said() == [
            ("caller", "Hello, I would like to pay."),
            ("agent", "[not recorded]"),
            ("caller", "[not recorded]"),
            ("agent", "Thank you."),
        ]
        assert phone.figures()["recording_paused"] == pytest.approx(last - first)

    run(call())
    for file in tmp_path.iterdir():
        assert b"4111" not in file.read_bytes()


def test_nothing_before_the_caller_agrees(tmp_path: Path):
    async def call() -> None:
        async with recorded(tmp_path, paused=True) as phone:
            phone.carrier.say(noise("before and after", 3 * RATE))
            await asyncio.sleep(2.0)
            phone.recording.resume()
            await asyncio.sleep(2.0)
        left, _ = phone.channels()
        assert loud(left) == [(16_000, pytest.approx(24_160, abs=160))]

    run(call())


def test_off_ends_with_its_block_and_with_its_reason_only(tmp_path: Path):
    async def call() -> None:
        async with recorded(tmp_path) as phone:
            recording = phone.recording
            with recording.off("card"):
                with recording.off("a supervisor listens"):
                    assert recording.paused
                assert recording.paused
                recording.resume("nobody has asked for this")
                assert recording.paused
            assert not recording.paused
            with pytest.raises(ZeroDivisionError), recording.off("card"):
                raise ZeroDivisionError
            assert not recording.paused
            await asyncio.sleep(0.1)

    run(call())


def test_pauses_are_carved_out():
    pauses = Pauses()
    assert pauses.carve(0, 10) == [(0, 10)]
    pauses.pause("a", 3)
    assert pauses.carve(0, 10) == [(0, 3)]
    assert not pauses.resume("b", 4)
    assert pauses.resume("a", 5)
    pauses.pause("a", 7)
    pauses.pause("b", 8)
    assert not pauses.resume("a", 9)
    assert pauses.carve(0, 10) == [(0, 3), (5, 7)]
    assert pauses.resume("b", 9)
    assert pauses.carve(0, 10) == [(0, 3), (5, 7), (9, 10)]
    assert pauses.carve(3, 5) == []
    assert pauses.carve(10, 12) == [(10, 12)]
    assert pauses.within(4, 8) == [(3, 5), (7, 9)]


# -- the transcript ------------------------------------------------------------------------------


def test_a_call_that_dies_while_both_speak(tmp_path: Path):
    async def call() -> None:
        async with recorded(tmp_path) as phone:
            await asyncio.sleep(1.0)
            speaking = asyncio.create_task(phone.call.say("Shall I put you through?"))
            await asyncio.sleep(0.75)
            phone.call.end("the test pulls the plug")
            heard = await speaking
        (entry,) = phone.transcript()["entries"]
        assert "" < heard < "Shall I put you through?"
        assert (entry["text"], entry["cut"], entry["end"]) == (heard, True, pytest.approx(1.75))
        assert phone.transcript()["complete"]
        _, right = phone.channels()
        assert loud(right) == [(8000, 14_000)]

    run(call())


def test_subtitles_hold_whatever_was_said():
    entries = [
        Entry("agent", 0.0, 1.5, "Is 3 < 4 & 5 > 4 -->\n\nreally?"),
        Entry("caller", 3661.25, 3662.0, "<v Agent>Yes"),
    ]
    assert to_vtt(entries) == (
        "WEBVTT\n\n"
        "1\n00:00:00.000 --> 00:00:01.500\n<v Agent>Is 3 &lt; 4 &amp; 5 &gt; 4 --&gt; really?\n\n"
        "2\n01:01:01.250 --> 01:01:02.000\n<v Caller>&lt;v Agent&gt;Yes\n"
    )
    assert to_vtt([]) == "WEBVTT\n"


def test_the_transcript_is_there_while_the_call_runs(tmp_path: Path):
    async def call() -> None:
        async with recorded(tmp_path) as phone:
            await phone.call.say("Hello.")
            await asyncio.sleep(1.6)
            so_far = transcript(phone.wav)
            assert not so_far["complete"]
            assert [entry["text"] for entry in so_far["entries"]] == ["Hello."]
            assert "<v Agent>Hello." in phone.wav.with_suffix(".vtt").read_text()
        assert phone.transcript()["complete"]

    run(call())


# -- files ---------------------------------------------------------------------------------------


def test_names_and_who_may_read(tmp_path: Path):
    folder = tmp_path / "made" / "calls"

    async def call() -> None:
        for _ in range(2):  # the same start, the same call: a number keeps them apart
            async with recorded(folder, id="w0/1"):
                await asyncio.sleep(0.5)

    run(call())
    names = sorted(path.name for path in folder.iterdir())
    stem = "20261122T101530.123Z-w0_1"
    assert names == sorted(
        f"{stem}{number}{ending}" for number in ("", "-2") for ending in (".wav", ".vtt", ".transcript.json")
    )
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_file_of_one_s_own_is_never_overwritten(tmp_path: Path):
    mine = tmp_path / "call.wav"
    mine.write_bytes(b"mine")

    async def call() -> None:
        async with recorded(mine):  # type: ignore[arg-type]
            await asyncio.sleep(0.5)

    run(call())
    assert mine.read_bytes() == b"mine"
    assert len(channels(tmp_path / "call-2.wav")[0]) > 0
    assert transcript(tmp_path / "call-2.wav")["audio"] == "call-2.wav"


def test_two_calls_at_once(tmp_path: Path):
    async def one(id: str, services: Services) -> None:
        async with recorded(tmp_path, id=id, services=services) as phone:
            phone.carrier.say(noise(id, 4000))
            await asyncio.sleep(0.5)
            await phone.call.say(f"This is for {id}.")
        left, right = phone.channels()
        assert where(left, noise(id, 4000)) is not None
        assert where(right, noise(f"This is for {id}.", 400)) is not None
        assert phone.said() == [("agent", f"This is for {id}.")]

    async def calls() -> None:
        services = Services()
        await asyncio.gather(one("ada", services), one("bob", services))
        await services.close()

    run(calls())
    asyncio.run(calls())


def test_a_folder_that_cannot_be_used_is_told_before_the_first_call(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VoiceflowError, match=r"calls cannot be recorded in .*file"):
        asyncio.run(Recording(tmp_path / "file").warm())
    asyncio.run(Recording(tmp_path / "fine").warm())
    assert not list((tmp_path / "fine").iterdir())
    asyncio.run(Recording(tmp_path / "own" / "call.wav").warm())
    assert not list((tmp_path / "own").iterdir())


# -- the disk ------------------------------------------------------------------------------------


def test_a_disk_that_is_full_for_a_while_costs_that_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    really = os.pwrite
    full = False

    def pwrite(file: int, data: memoryview, at: int) -> int:
        if full:
            raise OSError(28, "No space left on device")
        return really(file, data[:1000], at)  # a system may take less than it is given

    monkeypatch.setattr(os, "pwrite", pwrite)

    async def call() -> None:
        nonlocal full
        async with recorded(tmp_path) as phone:
            at = phone.carrier.say(noise("all the time", 6 * RATE))
            await asyncio.sleep(2.01)
            full = True
            await asyncio.sleep(2.0)
            full = False
            await asyncio.sleep(2.0)
            truth = decode(noise("all the time", 6 * RATE))
        left, _ = phone.channels()
        (first, hole), (goes_on, last) = loud(left)
        assert abs(hole - 16_000) <= 160
        assert goes_on - hole == 16_000
        assert np.array_equal(left[goes_on:last], truth[goes_on - at : last - at])
        assert (first, phone.figures()["recording_lost"]) == (at, 2.0)
        assert phone.result is not None
        assert phone.result.fault is None

    lines: list[str] = []
    listening = logger.add(lambda line: lines.append(str(line)), format="{message}")
    try:
        run(call())
    finally:
        logger.remove(listening)
    assert sum("is not complete: No space left on device" in line for line in lines) == 1


def test_a_disk_that_is_full_from_the_start_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def pwrite(*args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)

    async def call() -> None:
        async with recorded(tmp_path) as phone:
            await asyncio.sleep(3.0)
            await phone.call.say("Nothing of this is kept.")
        assert phone.figures()["recorded_seconds"] == 0
        assert phone.figures()["recording_lost"] > 3.0

    run(call())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_hangs_never_holds_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a thread, on a real loop: what came while it hung is written afterwards."""
    hangs, hung = threading.Event(), threading.Event()
    really = StereoFile.flush

    def flush(self: StereoFile) -> None:
        hung.set()
        assert hangs.wait(20)
        really(self)

    monkeypatch.setattr(StereoFile, "flush", flush)

    async def call() -> None:
        async with recorded(tmp_path) as phone:
            loop = asyncio.get_running_loop()
            said = noise("meanwhile", 4000)
            at = phone.carrier.say(said)
            await asyncio.to_thread(hung.wait, 20)
            before = loop.time()
            await asyncio.sleep(0.7)
            assert loop.time() - before < 20
            hangs.set()
        left, _ = phone.channels()
        assert np.array_equal(left[at : at + 4000], decode(said))
        assert phone.figures()["recording_lost"] == 0

    asyncio.run(call())


def test_what_waits_for_a_disk_that_hangs_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A disk that never answers: the call ends all the same, and says what it lost."""
    monkeypatch.setattr(Disk, "do", lambda self, job: True)

    async def call() -> None:
        async with recorded(tmp_path) as phone:
            await asyncio.sleep(BOUND + 30.0)
            assert phone.recording._batch.waiting <= BOUND * RATE
            before = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - before < 6.0
        assert phone.figures()["recording_lost"] == pytest.approx(29.5, abs=1.0)

    run(call())


def test_a_wav_file_is_right_whatever_is_written_when(tmp_path: Path):
    file = StereoFile(tmp_path / "a.wav", RATE)
    assert channels(file.path)[0].size == 0
    file.write(RIGHT, 10, np.array([1, 2, 3], np.int16))
    file.flush()
    file.write(LEFT, 11, np.array([7, 8, 9, 10], np.int16))
    file.write(RIGHT, 12, np.array([-4], np.int16))
    assert channels(file.path)[0].size == 13  # not told yet
    file.extend(20)
    file.flush()
    left, right = channels(file.path)
    assert left.tolist() == [0] * 11 + [7, 8, 9, 10] + [0] * 5
    assert right.tolist() == [0] * 10 + [1, 2, -4] + [0] * 7
    with pytest.raises(OSError, match="4 GB"):
        file.write(LEFT, LONGEST, np.array([1], np.int16))
    file.close()


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.recording_calls import noise, recorded

async def call():
    async with recorded(Path(sys.argv[1])) as phone:
        phone.carrier.say(noise("the caller", 80_000))
        await phone.call.say("This is what was said before the end.")
        print("spoken", flush=True)
        await asyncio.sleep(60)

asyncio.run(call())
"""


def test_a_killed_process_leaves_all_but_the_last_second(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"spoken\n"
        time.sleep(1.5)  # real: what was spoken is older than a second then
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)
    (wav,) = tmp_path.glob("*.wav")
    left, right = channels(wav)
    at = where(left, noise("the caller", 80_000))
    assert at is not None
    assert np.array_equal(left[at:], decode(noise("the caller", 80_000))[: len(left) - at])
    spoken = noise("This is what was said before the end.", 37 * 400)
    begins = where(right, spoken)
    assert begins is not None
    assert np.array_equal(right[begins : begins + len(spoken)], decode(spoken))
    so_far = transcript(wav)
    assert not so_far["complete"]
    assert [entry["text"] for entry in so_far["entries"]] == ["This is what was said before the end."]


# -- the processor as such -----------------------------------------------------------------------


def test_it_conforms(tmp_path: Path):
    numbers: Iterator[int] = iter(range(100_000))
    check_processor(lambda: Recording(tmp_path / str(next(numbers))))


def test_a_call_that_was_never_answered_leaves_no_file(tmp_path: Path):
    async def call() -> None:
        call = Call(TimedCodec())
        call.prepare(Pipeline(call.source(), Recording(tmp_path), call.sink()))
        await asyncio.sleep(0.1)
        await call.abandon("the stream never came")
        await call.services.close()

    run(call())
    assert list(tmp_path.iterdir()) == []


def test_the_page():
    """docs/recording.md: its Python runs."""
    page = (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")
    chain, consent, card = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    for code, recordings in ((chain, 1), (consent, 1)):
        exec(code, names)
        call = Call(TwilioCodec())
        built = names["pipeline"](call)  # type: ignore[operator]
        assert built.warnings == []
        assert sum(isinstance(processor, Recording) for processor in built.chain) == recordings
    exec(card, names)
    assert RecordingPause in names["CardNumber"].emits  # type: ignore[attr-defined]
