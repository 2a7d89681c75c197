"""SileroVAD and VADTurns on recordings of people, in virtual time; the batcher that calls share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from processors.play import Play
from processors.silero import SileroVAD
from processors.silero.model import SileroModel
from processors.turns import VADTurns
from voiceflow.assets import speech
from voiceflow.audio import encode, read_wav
from voiceflow.batching import Batcher
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.errors import DeclarationError, VoiceflowError
from voiceflow.frames import (
    PHONE,
    AgentFrame,
    AudioFormat,
    AudioIn,
    AudioOut,
    DraftEnd,
    DraftResumed,
    Interrupt,
    Prompt,
    ReplyEnd,
    Transcript,
    TurnEnd,
    TurnStart,
    VoiceStart,
    VoiceStop,
)
from voiceflow.line.codec import LineStarted
from voiceflow.services import Services
from voiceflow.testing import ScriptedLink, check_processor
from voiceflow.testing.line import MemoryCodec
from voiceflow.testing.rig import Rig

WIDE = AudioFormat("pcm16", 16_000)
FORWARD = "go_forward_ten_meters"
"""Voice from 0.30 to 2.18 s."""


def packets(
    samples: NDArray[np.int16], format: AudioFormat = PHONE, *, silence: float = 1.0
) -> list[AudioIn]:
    """Packets of 20 ms, with silence behind."""
    size = format.rate // 50
    rest = np.zeros(int(silence * format.rate) + -len(samples) % size, np.int16)
    whole = np.concatenate([samples, rest])
    pieces = range(0, len(whole) // size * size, size)
    return [AudioIn(encode(whole[at : at + size], format), at, format) for at in pieces]


async def speak(rig: Rig, frames: Iterable[AudioIn]) -> None:
    """As a line would: one packet every 20 ms."""
    for frame in frames:
        rig.push(frame)
        await asyncio.sleep(0.02)
    await rig.settled()


# -- evidence -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "begins", "ends"),
    [(FORWARD, 0.30, 2.18), ("ten_of_clubs", 0.19, 0.79), ("three_cards", 0.21, 2.97)],
)
async def test_where_a_voice_begins_and_ends(virtual_time, name, begins, ends):
    async with Rig(SileroVAD()) as rig:
        await speak(rig, packets(read_wav(speech(name))))
    evidence = [frame for frame in rig.out if isinstance(frame, VoiceStart | VoiceStop)]
    assert [type(frame) for frame in evidence] == [VoiceStart, VoiceStop] * (len(evidence) // 2)
    assert evidence[0].at / 8000 == pytest.approx(begins, abs=0.15)
    assert ends - 0.2 < evidence[-1].at / 8000 < ends + 0.4  # the network hears a sound die away
    for frame in evidence:
        assert frame.decided_at % 256 == 0
        assert frame.at <= frame.decided_at
        # Two windows of speech, or 0.2 s of silence, and the rounding to windows.
        assert frame.decided_at - frame.at < (0.15 if isinstance(frame, VoiceStart) else 0.3) * 8000


async def test_audio_is_not_delayed_by_the_network(virtual_time):
    frames = packets(read_wav(speech(FORWARD)))
    async with Rig(SileroVAD()) as rig:
        for frame in frames:
            rig.push(frame)
        assert rig.got(AudioIn) == frames  # before the network has seen anything
        await speak(rig, [])


@pytest.mark.parametrize("kind", ["silence", "hum", "clicks"])
async def test_what_is_no_voice(virtual_time, kind):
    time = np.arange(3 * 8000)
    samples = {
        "silence": np.zeros(len(time)),
        "hum": 3000 * np.sin(2 * np.pi * 50 * time / 8000),
        "clicks": np.where(time % 4000 == 0, 20_000, 0),
    }[kind].astype(np.int16)
    async with Rig(SileroVAD(), VADTurns()) as rig:
        await speak(rig, packets(samples))
    assert not rig.got(VoiceStart)
    assert not rig.got(TurnStart)


async def test_packets_that_were_lost(virtual_time):
    """0.3 s are lost within the voice: what follows is still judged at its own place."""
    frames = packets(read_wav(speech(FORWARD)))
    async with Rig(SileroVAD(), VADTurns()) as rig:
        await speak(rig, frames[:40] + frames[55:])
    assert rig.got(VoiceStart)[0].at / 8000 == pytest.approx(0.30, abs=0.15)
    assert rig.got(VoiceStop)[-1].at / 8000 == pytest.approx(2.18, abs=0.2)
    assert len(rig.got(TurnEnd)) == 1


async def test_silence_that_was_lost_ends_the_turn_all_the_same(virtual_time):
    """After the voice a whole second is missing: the sample index says that it has passed."""
    frames = packets(read_wav(speech(FORWARD)), silence=3.0)
    async with Rig(SileroVAD(), VADTurns()) as rig:
        await speak(rig, frames[:125])  # 0.32 s after the voice: not yet over
        assert not rig.got(TurnEnd)
        await speak(rig, frames[175:176])
        assert len(rig.got(TurnEnd)) == 1


# -- turns ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("silence", [0.4, 0.6, 1.0])
async def test_when_a_turn_begins_and_ends(virtual_time, silence):
    async with Rig(SileroVAD(), VADTurns(silence)) as rig:
        seen: list[tuple[type, int]] = []
        for frame in packets(read_wav(speech(FORWARD)), silence=1.5):
            before = len(rig.out)
            rig.push(frame)
            await asyncio.sleep(0.02)
            end = frame.at + frame.samples
            seen += [(type(f), end) for f in rig.out[before:] if isinstance(f, TurnStart | TurnEnd)]
        assert [kind for kind, _ in seen] == [TurnStart, TurnEnd]
        start, stop = rig.got(VoiceStart)[0], rig.got(VoiceStop)[-1]
        assert 0 <= seen[0][1] - start.decided_at <= 320
        assert 0 <= seen[1][1] - (stop.at + silence * 8000) <= 320
        assert len(rig.got(Prompt)) == 1


def test_turns_that_cannot_end():
    for silence in (0, -1):
        with pytest.raises(DeclarationError, match="silence"):
            VADTurns(silence)
    for eager in (0, -0.1, 0.6, 1.0):
        with pytest.raises(DeclarationError, match="less than silence"):
            VADTurns(0.6, eager=eager)
    with pytest.raises(DeclarationError, match="words"):
        VADTurns(words=-1)
    with pytest.raises(DeclarationError, match="threshold"):
        SileroVAD(start_threshold=0.3, stop_threshold=0.5)


# -- an end that is guessed -------------------------------------------------------------------------------


@pytest.mark.parametrize("eager", [0.25, 0.45])
async def test_when_a_draft_begins(virtual_time, eager):
    async with Rig(SileroVAD(), VADTurns(0.6, eager=eager)) as rig:
        seen: list[tuple[type, int]] = []
        for frame in packets(read_wav(speech(FORWARD)), silence=1.5):
            before = len(rig.out)
            rig.push(frame)
            await asyncio.sleep(0.02)
            end = frame.at + frame.samples
            seen += [(type(f), end) for f in rig.out[before:] if isinstance(f, DraftEnd | TurnEnd)]
        assert [kind for kind, _ in seen] == [DraftEnd, TurnEnd]
        stop = rig.got(VoiceStop)[-1]
        assert 0 <= seen[0][1] - max(stop.decided_at, stop.at + eager * 8000) <= 320
        assert 0 <= seen[1][1] - (stop.at + 0.6 * 8000) <= 320
        (prompt,) = rig.got(Prompt)
        assert prompt.reply.confirmed, "the draft is the answer"


class Script:
    """Evidence by hand: audio in packets of 20 ms, a voice that starts and stops, words."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.at = rig, 0

    async def audio(self, seconds: float) -> None:
        for _ in range(round(seconds * 50)):
            self.rig.push(AudioIn(b"\xff" * 160, self.at))
            self.at += 160
        await self.rig.settled()

    async def voice(self, seconds: float) -> None:
        """A voice of that length; that it is over is known 0.1 s later."""
        self.rig.push(VoiceStart(self.at))
        await self.audio(seconds)
        ended = self.at
        await self.audio(0.1)
        self.rig.push(VoiceStop(ended))

    async def words(self, text: str, *, final: bool = True) -> None:
        self.rig.push(Transcript(text, final))
        await self.rig.settled()

    def told(self) -> list[str]:
        """What the engine made of it: `start`, `draft: ...`, `resumed`, `end: ...`."""
        names = {TurnStart: "start", DraftEnd: "draft", DraftResumed: "resumed", TurnEnd: "end"}
        return [
            f"{names[type(frame)]}: {frame.text}"
            if isinstance(frame, DraftEnd | TurnEnd)
            else names[type(frame)]
            for frame in self.rig.out
            if type(frame) in names
        ]


async def test_a_voice_that_comes_back_takes_the_draft_with_it(virtual_time):
    async with Rig(VADTurns(0.6, eager=0.25)) as rig:
        script = Script(rig)
        await script.voice(0.5)
        await script.audio(0.3)
        assert script.told() == ["start", "draft: "]
        await script.voice(0.5)
        await script.audio(1.0)
        assert script.told() == ["start", "draft: ", "resumed", "draft: ", "end: "]
        dropped, kept = rig.got(Prompt)
        assert (dropped.reply.dead, dropped.reply.confirmed, kept.reply.confirmed) == (True, False, True)
        assert [frame.dead for frame in rig.got(Interrupt)] == [dropped.reply]


async def test_a_pause_shorter_than_eager_is_none(virtual_time):
    async with Rig(VADTurns(0.6, eager=0.25)) as rig:
        script = Script(rig)
        await script.voice(0.5)
        await script.audio(0.12)
        await script.voice(0.5)
        await script.audio(0.1)
        assert script.told() == ["start"]


async def test_an_end_that_is_known_late_needs_no_draft(virtual_time):
    """The detector was behind by a second: the turn is over in any case."""
    async with Rig(VADTurns(0.6, eager=0.25)) as rig:
        script = Script(rig)
        rig.push(VoiceStart(0))
        await script.audio(1.5)
        rig.push(VoiceStop(4000))
        await script.audio(0.02)
        assert script.told() == ["start", "end: "]


# -- words from a recogniser without turns ------------------------------------------------------------------


async def test_the_words_of_a_turn_are_its_pieces(virtual_time):
    async with Rig(VADTurns(0.6)) as rig:
        script = Script(rig)
        rig.push(VoiceStart(0))
        await script.words("A table", final=False)
        await script.words("A table for two,")
        await script.words("")
        await script.words("at", final=False)
        await script.words("at eight.")
        await script.audio(0.5)
        rig.push(VoiceStop(script.at))
        await script.audio(1.0)
        await script.voice(0.5)
        await script.words("Thanks.")
        await script.audio(1.0)
        assert script.told() == ["start", "end: A table for two, at eight.", "start", "end: Thanks."]


async def test_a_turn_waits_for_its_words(virtual_time):
    async with Rig(VADTurns(0.6, words=1.0)) as rig:
        script = Script(rig)
        await script.voice(0.5)
        await script.audio(0.9)
        assert script.told() == ["start"], "over by the silence, but what was said is not known"
        await script.words("A table", final=False)
        assert script.told() == ["start"]
        await script.words("A table for two.")
        assert script.told() == ["start", "end: A table for two."], "with the words, not with the next packet"


async def test_a_turn_waits_no_longer_than_its_bound(virtual_time):
    async with Rig(VADTurns(0.6, words=1.0)) as rig:
        script = Script(rig)
        await script.voice(0.5)
        await script.words("A table", final=False)
        await script.audio(1.48)
        assert script.told() == ["start"]
        await script.audio(0.02)
        assert script.told() == ["start", "end: A table"]


async def test_words_of_before_the_voice_ended_are_not_those_that_are_waited_for(virtual_time):
    async with Rig(VADTurns(0.6, words=1.0)) as rig:
        script = Script(rig)
        rig.push(VoiceStart(0))
        await script.audio(0.5)
        await script.words("A table")
        await script.audio(0.5)
        ended = script.at
        await script.audio(0.04)
        await script.words("for two.")  # quicker than the detector
        await script.audio(0.1)
        rig.push(VoiceStop(ended))
        await script.audio(0.44)
        assert script.told() == ["start"]
        await script.audio(0.02)
        assert script.told() == ["start", "end: A table for two."]


async def test_words_that_come_too_late_are_the_next_turn_s(virtual_time):
    """They are not lost, and they interrupt nobody."""
    async with Rig(VADTurns(0.6, words=0.4)) as rig:
        script = Script(rig)
        await script.voice(0.5)
        await script.audio(1.5)
        await script.words("A table for two.")
        await script.audio(0.5)
        assert script.told() == ["start", "end: "]
        await script.voice(0.5)
        await script.words("Hello?")
        await script.audio(1.0)
        assert script.told()[2:] == ["start", "end: A table for two. Hello?"]


async def test_words_that_were_counted_are_not_counted_again(virtual_time):
    """The turn was over with a piece that was not final. It is told again, corrected, with the next words."""
    async with Rig(VADTurns(0.6)) as rig:
        script = Script(rig)
        await script.voice(0.5)
        await script.words("a table fort", final=False)
        await script.audio(1.0)
        await script.words("A table for", final=False)
        await script.voice(0.5)
        await script.words("A table for two please.")
        await script.audio(1.0)
        assert script.told() == ["start", "end: a table fort", "start", "end: two please."]
        await script.voice(0.5)
        await script.words("One two three four.")
        await script.audio(1.0)
        assert script.told()[-1] == "end: One two three four."


async def test_a_draft_waits_for_the_words_and_follows_them(virtual_time):
    async with Rig(VADTurns(0.6, eager=0.25, words=1.0)) as rig:
        script = Script(rig)
        await script.voice(0.5)
        await script.audio(0.2)
        assert script.told() == ["start"], "there is nothing yet that could be answered"
        await script.words("A table.")
        assert script.told() == ["start", "draft: A table."]
        await script.words("For two.")
        assert script.told()[2:] == ["draft: A table. For two."]
        await script.audio(0.5)
        assert script.told()[3:] == ["end: A table. For two."]
        first, second = rig.got(Prompt)
        assert (first.reply.dead, first.reply.confirmed, second.reply.confirmed) == (True, False, True)


async def test_a_voice_that_comes_back_while_words_are_waited_for(virtual_time):
    async with Rig(VADTurns(0.6, words=1.0)) as rig:
        script = Script(rig)
        await script.voice(0.5)
        await script.audio(0.7)
        await script.voice(0.5)
        await script.words("A table for two.")
        await script.audio(0.48)
        assert script.told() == ["start"]
        await script.audio(0.1)
        assert script.told() == ["start", "end: A table for two."]


# -- other lines ----------------------------------------------------------------------------------------


async def test_a_line_of_16_khz(virtual_time):
    async with Rig(SileroVAD(), VADTurns(), format=WIDE) as rig:
        await speak(rig, packets(read_wav(speech(FORWARD), 16_000), WIDE))
    assert rig.got(VoiceStart)[0].at / 16_000 == pytest.approx(0.30, abs=0.15)
    assert rig.got(VoiceStop)[-1].at / 16_000 == pytest.approx(2.18, abs=0.2)
    assert len(rig.got(TurnEnd)) == 1


async def test_a_rate_the_network_does_not_know(virtual_time):
    async with Rig(SileroVAD(), format=AudioFormat("pcm16", 24_000)) as rig:
        assert rig.fault is not None
        assert "SileroVAD failed in start: SileroVAD hears at 8000 or 16000 Hz" in rig.fault
        assert "24000" in rig.fault


async def test_audio_of_another_rate_than_the_line_s(virtual_time):
    """Silero would take it without complaint and hear nothing."""
    async with Rig(SileroVAD()) as rig:
        await speak(rig, packets(np.zeros(1600, np.int16), WIDE, silence=0)[:1])
        assert rig.fault is not None
        assert "started for 8000 Hz and is given 16000 Hz" in rig.fault


# -- calls together -------------------------------------------------------------------------------------


async def test_two_calls_share_a_session_and_a_batcher(virtual_time, monkeypatch):
    """And hear what each would have heard alone."""
    names = (FORWARD, "three_cards")
    alone = []
    for name in names:
        async with Rig(SileroVAD()) as rig:
            await speak(rig, packets(read_wav(speech(name))))
        alone.append([f for f in rig.out if isinstance(f, VoiceStart | VoiceStop)])

    sizes: list[int] = []
    real = SileroModel.step_batch

    def spy(self, states, windows):
        sizes.append(len(states))
        return real(self, states, windows)

    monkeypatch.setattr(SileroModel, "step_batch", spy)
    services = Services()
    async with Rig(SileroVAD(), services=services) as one, Rig(SileroVAD(), services=services) as two:
        assert one.processors[0]._batcher is two.processors[0]._batcher
        assert list(services._shared) == [("silero", 8000)]
        rigs = (one, two)
        await asyncio.gather(
            *(speak(rig, packets(read_wav(speech(name)))) for rig, name in zip(rigs, names, strict=True))
        )
        together = [[f for f in rig.out if isinstance(f, VoiceStart | VoiceStop)] for rig in rigs]
    assert together == alone
    assert max(sizes) == 2
    assert sizes.count(2) > 50


async def test_a_call_that_ends_does_not_hold_up_the_other(virtual_time):
    services = Services()
    frames = packets(read_wav(speech(FORWARD)))
    async with Rig(SileroVAD(), services=services) as other:

        async def short() -> None:
            call = Call(MemoryCodec(), services=services)
            call.prepare(Pipeline(rig_source := call.source(), SileroVAD(), call.sink(), parts=True))
            link = ScriptedLink()
            running = asyncio.create_task(call.run(link, LineStarted("s", "c", PHONE)))
            for frame in frames[:60]:
                link.peer.send(frame.audio)
                await asyncio.sleep(0.02)
            assert rig_source.packets == 60
            link.peer.send(frames[60].audio)
            link.peer.break_()  # with a window on its way
            assert not (await running).normal

        await asyncio.gather(short(), speak(other, frames))
    assert len(other.got(VoiceStop)) == 1


# -- the batcher ----------------------------------------------------------------------------------------


class Work:
    """Doubles numbers; refuses -13. Remembers its batches and the threads they ran in."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        if -13 in items:
            raise ValueError("-13 is bad luck")
        self.batches.append(list(items))
        self.threads.add(threading.get_ident())
        return [2 * item for item in items]


async def test_what_comes_together_is_one_batch(virtual_time):
    work = Work()
    batcher = Batcher(Services(), work, cost=0.01, most=8)
    results = await asyncio.gather(*(batcher.result(n) for n in range(20)))
    assert results == [2 * n for n in range(20)]
    assert [len(batch) for batch in work.batches] == [8, 8, 4]
    assert virtual_time.now == pytest.approx(0.03)
    assert await batcher.result(1) == 2  # and it starts again after a pause


async def test_an_error_reaches_only_its_own_piece(virtual_time):
    work = Work()
    batcher = Batcher(Services(), work, cost=0.01)
    results = await asyncio.gather(*(batcher.result(n) for n in (1, -13, 3, -13, 5)), return_exceptions=True)
    assert [str(each) for each in results] == ["2", "-13 is bad luck", "6", "-13 is bad luck", "10"]
    with pytest.raises(ValueError, match="bad luck"):
        await batcher.result(-13)
    assert await batcher.result(4) == 8


async def test_work_that_gives_too_little(virtual_time):
    """Told as an error, not left waiting for ever."""
    batcher: Batcher[int, int] = Batcher(Services(), lambda items: [1], cost=0.01)
    async with asyncio.timeout(5):
        assert await batcher.result(1) == 1
        wrong: Batcher[int, int] = Batcher(Services(), lambda items: [], cost=0.01)
        results = await asyncio.gather(wrong.result(1), wrong.result(2), return_exceptions=True)
    assert all("0 results for 1 pieces" in str(each) for each in results)


async def test_who_gives_up_waiting_disturbs_nobody(virtual_time):
    work = Work()
    batcher = Batcher(Services(), work, cost=0.01)
    tasks = [asyncio.create_task(batcher.result(n)) for n in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0.005)
    tasks[2].cancel()  # its batch is being computed
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [results[0], results[3]] == [0, 6]
    assert isinstance(results[1], asyncio.CancelledError)
    assert isinstance(results[2], asyncio.CancelledError)


async def test_too_many_pieces(virtual_time, monkeypatch):
    monkeypatch.setattr("voiceflow.batching.WAITING_BOUND", 4)
    batcher = Batcher(Services(), Work(), cost=0.01, most=1)
    tasks = [asyncio.create_task(batcher.result(n)) for n in range(5)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[:4] == [0, 2, 4, 6]
    assert isinstance(results[4], OverflowError)


def test_live_batches_off_the_loop():
    """Large ones go to the pool; `close` ends it, and nothing is left."""

    async def main() -> None:
        services, work = Services(), Work()
        batcher = Batcher(services, work, cost=0.0)
        assert await asyncio.gather(*(batcher.result(n) for n in range(100))) == [2 * n for n in range(100)]
        assert threading.get_ident() not in work.threads
        await services.close()
        await services.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


# -- Play, and the test that every processor must pass ---------------------------------------------------


async def test_play_answers_with_all_of_the_recording(virtual_time):
    async with Rig(Play(speech("answer"), text="Hello there.")) as rig:
        reply = rig.reply()
        rig.push(Prompt("hi", reply=reply))
        await asyncio.sleep(0.1)
    pieces = rig.got(AudioOut)
    assert b"".join(piece.audio for piece in pieces) == encode(read_wav(speech("answer")))
    assert [piece.text for piece in pieces if piece.text] == ["Hello there."]
    assert isinstance([frame for frame in rig.out if isinstance(frame, AgentFrame)][-1], ReplyEnd)


def test_play_tells_early_what_it_cannot_play(tmp_path: Path):
    with pytest.raises(DeclarationError, match=r"nothing\.wav"):
        Play(tmp_path / "nothing.wav")
    no_wav = tmp_path / "no.wav"
    no_wav.write_text("not a recording")

    async def main() -> None:
        play = Play(no_wav)
        play._call = Call(MemoryCodec())
        with pytest.raises(VoiceflowError, match=r"no\.wav"):
            await play.warm()
        await play._call.services.close()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_they_conform():
    voice = packets(read_wav(speech("ten_of_clubs")), silence=0.5)
    report = check_processor(SileroVAD, frames=voice)
    assert report.emitted["VoiceStart"] > 0
    check_processor(VADTurns)
    check_processor(lambda: VADTurns(0.5, eager=0.25, words=1.0))
    report = check_processor(lambda: Play(speech("ten_of_clubs"), text="Ten of clubs."))
    assert report.emitted["AudioOut"] > 0
