"""The file of a call: what is in it, what is never in it, how it is written and read back."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import stat
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from loguru import logger
from trace_calls import SECRET, Aggregator, Breaks, Model, Turner, Voice, phone, talker

from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.errors import VoiceflowError
from voiceflow.testing.line import MemoryCodec
from voiceflow.trace import folder as folder_module
from voiceflow.trace.background import Background
from voiceflow.trace.file import from_json, read, record_of, to_json, write_private
from voiceflow.trace.folder import TraceFolder, file_name
from voiceflow.trace.path import Step
from voiceflow.trace.redaction import MASK, Redaction
from voiceflow.trace.summary import leading_figures, middle, owners, spans, summary

STARTED = "2026-11-22T10:15:30.123+00:00"


@pytest.fixture
def logged():
    """What is logged during the test."""
    messages: list[str] = []
    logger.remove()
    sink = logger.add(lambda m: messages.append(f"{m.record['level'].name} {m.record['message']}"))
    yield messages
    logger.remove(sink)


async def conversation(**options) -> Call:
    """Greeting, an answer, one that is cut, a draft for nothing, and a hang-up in the middle of the last."""
    answers = (
        "It is open until seven.",
        "You can park behind the harbour, under the bridge.",
        "Wonderful news.",
    )
    async with phone(*talker(*answers), delay=0.02, **options) as p:
        await p.call.say("Harbour bakery.")
        p.turn("Will you be there Sunday", spoke=0.3)
        await asyncio.sleep(3)
        p.turn("Where can Rumpelstiltskin park")
        await asyncio.sleep(2)
        p.turns.started()
        p.turns.may_be_over("Thank")
        await asyncio.sleep(0.2)
        p.turns.resumed()
        p.turns.ended("Thanks a million")
        await asyncio.sleep(1.0)
    return p.call


# -- what is in it ----------------------------------------------------------------------------------------


async def test_everything_is_in_it_and_comes_back(virtual_time):
    call = await conversation()
    pools = {"Model connections": {"hits": 3, "saved_ms": 812.34567}}
    record = record_of(call, STARTED, pools=pools)
    text = to_json(record)
    assert from_json(text.encode()) == record
    data = json.loads(text)
    assert next(iter(data)) == "version"
    assert (data["version"], data["call"], data["started"]) == (1, "w0-7", STARTED)
    assert (data["caller"], data["called"]) == ("+12025550143", "+12025550199")
    assert data["chain"] == ["LineSource", "Turner", "Model", "Aggregator", "Voice", "LineSink"]
    assert data["outcome"] == {"reason": "the caller hung up"}
    assert data["pools"] == {"Model connections": {"hits": 3, "saved_ms": 812.346}}
    assert data["figures"]["underruns"] == 0
    assert [turn["turn"] for turn in data["turns"]] == [None, 1, 2, 3, 3]
    for turn, path in zip(record.turns, call.trace.paths, strict=True):
        assert sum(round(part.ms * 1000) for part in turn.parts) == sum(p.microseconds for p in path.parts())
        if turn.gap_ms is not None:
            assert sum(round(part.ms * 1000) for part in turn.parts) == round(turn.gap_ms * 1000)
    assert [(said.who, said.text, said.cut) for said in record.transcript] == [
        ("agent", "Harbour bakery.", False),
        ("caller", "Will you be there Sunday", False),
        ("agent", "It is open until seven.", False),
        ("caller", "Where can Rumpelstiltskin park", False),
        ("agent", "You can park behind the", True),
        ("caller", "Thanks a million", False),
        ("agent", "Wonderful", True),
    ]
    cut = record.turns[2]
    assert (cut.cut, cut.lost) == ("barge-in", "harbour, under the bridge.")
    assert record.turns[3].dropped


async def test_an_item_is_a_line(virtual_time):
    record = record_of(await conversation(), STARTED)
    lines = to_json(record).splitlines()
    items = [line for line in lines if line.startswith("  {")]
    assert len(items) == len(record.turns) + len(record.events) + len(record.transcript)
    for line in items:
        json.loads(line.rstrip(","))


async def test_a_call_with_nothing_in_it(virtual_time):
    call = Call(MemoryCodec())
    call.prepare(Pipeline(call.source(), Turner(), call.sink(), parts=True))
    await call.abandon("its stream never came")
    record = record_of(call, STARTED)
    assert from_json(to_json(record).encode()) == record
    assert (record.turns, record.transcript, record.outcome.reason) == ([], [], "its stream never came")


# -- what is never in it ----------------------------------------------------------------------------------


WORDS = (
    "Harbour bakery Will there Sunday until seven Where can Rumpelstiltskin park behind harbour under bridge "
    "Thank Thanks million Wonderful news"
)


def grep(text: str, words: str = WORDS) -> set[str]:
    """Which of the words are in a text, names of processors and fields aside."""
    plain = re.sub(r"[^a-z']+", " ", text.lower()).split()
    return {word.lower() for word in words.split() if len(word) > 3} & set(plain)


async def test_redacted_it_holds_no_word(virtual_time):
    def prepare(call: Call) -> None:
        call.on_start(lambda call: call.trace.note("Model", "no model knows 'Rumpelstiltskin' or a harbour"))

    call = await conversation(prepare=prepare, ends="the program: 'Thanks a million' was enough, park!")
    open_text = to_json(record_of(call, STARTED))
    assert {"rumpelstiltskin", "sunday", "bakery", "bridge", "wonderful"} <= grep(open_text)
    text = to_json(record_of(call, STARTED, redact=True))
    assert grep(text) == set()
    record = from_json(text.encode())
    assert record.redacted
    assert (record.caller, record.called) == ("…43", "…99")
    assert [turn.asked for turn in record.turns] == ["", "[5 words]", "[4 words]", "[1 word]", "[3 words]"]
    assert record.turns[2].heard == "[5 words]"
    assert record.turns[2].lost == "[4 words]"
    assert record.outcome.reason == f"the program: '{MASK} a {MASK}' was enough, {MASK}!"
    # And what is no word is as it was.
    for one, other in zip(record.turns, record_of(call, STARTED).turns, strict=True):
        assert (one.parts, one.gap_ms, one.over) == (other.parts, other.gap_ms, other.over)


async def test_a_call_that_died_quoting_people(virtual_time):
    chain = [Turner(), Breaks(), Model("Wonderful harbour."), Aggregator(), Voice()]
    async with phone(*chain, hang_up=False) as p:
        p.turn("one Rumpelstiltskin")
        await asyncio.sleep(2)
        p.turn("another Rumpelstiltskin")
        await asyncio.sleep(1)
    record = record_of(p.call, STARTED)
    assert record.outcome.fault == "Breaks failed in fail: ValueError: cannot bear 'another Rumpelstiltskin'"
    assert not record.outcome.normal
    assert (record.turns[0].gap_ms is None, record.turns[1].gap_ms) == (False, None)
    text = to_json(record_of(p.call, STARTED, redact=True))
    assert grep(text, "Rumpelstiltskin another cannot bear Wonderful harbour") == set()
    assert from_json(text.encode()).outcome.fault == "Breaks failed in fail: ValueError: [4 words]"


async def test_what_was_never_heard_is_not_quoted_either(virtual_time):
    """A vendor repeats the second sentence, and the reply is cut before there is any audio of it."""
    async with phone(*talker("One moment. Rumpelstiltskin knows.", between=0.001)) as p:
        p.turn("hello")
        await asyncio.sleep(0.32)
        p.call.trace.note("Voice", "refused: 'Rumpelstiltskin knows.' is too hard")
        p.turns.started()
        await asyncio.sleep(0.5)
    (path,) = p.paths
    assert (path.heard, path.lost) == ("", "")
    record = record_of(p.call, STARTED, redact=True)
    assert f"refused: '{MASK} {MASK}.' is too hard" in {event.detail for event in record.events}
    assert grep(to_json(record), "Rumpelstiltskin knows moment") == set()


async def test_a_key_is_never_in_it(virtual_time):
    def prepare(call: Call) -> None:
        call.on_start(lambda call: call.trace.note("Model", f"refused: Authorization: Bearer {SECRET}"))

    async with phone(*talker(), prepare=prepare, ends=f"bad key {SECRET}") as p:
        p.turn()
        await asyncio.sleep(1)
    for redact in (False, True):
        text = to_json(record_of(p.call, STARTED, redact=redact))
        assert SECRET not in text
        assert "***" in text


def test_redaction_of_other_texts():
    hide = Redaction(words=True, secrets=["", "hunter22"])
    assert hide.said("Book a table, it's for Ada's mother") == "[7 words]"
    assert hide.said("") == ""
    assert hide.other("connection lost: 400 (cannot book TABLE for Ada's)") == (
        f"connection lost: 400 (cannot {MASK} {MASK} for {MASK})"
    )
    assert hide.other("the caller hung up") == "the caller hung up"
    assert (
        hide.other("Model failed in answer: KeyError: 'x y'") == "Model failed in answer: KeyError: [2 words]"
    )
    assert hide.other("Model failed in answer: no credit left, hunter22 for a book") == (
        f"Model failed in answer: no credit left, *** for a {MASK}"
    )
    assert hide.number("+12025550143") == "…43"
    assert hide.number("client:ada") == "…"
    shown = Redaction(words=False, secrets=["hunter22"])
    assert shown.said("Book") == "Book"
    assert shown.other("failed with hunter22, hunter22") == "failed with ***, ***"
    assert shown.number("+12025550143") == "+12025550143"


def test_redaction_is_bounded(monkeypatch):
    monkeypatch.setattr("voiceflow.trace.redaction.WORDS_BOUND", 10)
    hide = Redaction(words=True)
    for number in range(100):
        hide.remember(f"word{number} twice{number}")
    assert len(hide._said) == 10
    assert hide.other("word99") == MASK


# -- reading ----------------------------------------------------------------------------------------------


BROKEN = [
    (b"", "is not JSON"),
    (b"{", "is not JSON"),
    (b"\xff\xfe", "is not JSON"),
    (b"[1]", "its version is None"),
    (b"3", "its version is None"),
    (b'{"a": 1}', "its version is None"),
    (b'{"version": "1"}', "its version is '1'"),
    (b'{"version": 2}', "a newer voiceflow wrote it"),
    (b'{"version": 1}', "call: Field required"),
    (b"[" * 100_000, "is not JSON"),
]


@pytest.mark.parametrize(("content", "words"), BROKEN)
def test_files_that_are_no_trace(tmp_path, content, words):
    file = tmp_path / "call.json"
    file.write_bytes(content)
    with pytest.raises(VoiceflowError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file} is no trace of a call: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


async def test_files_that_are_almost_one(virtual_time, tmp_path):
    good = json.loads(to_json(record_of(await conversation(), STARTED)))
    for change, words in (
        ({"turns": 3}, "turns: Input should be a valid"),
        (
            {"turns": [{**good["turns"][0], "parts": [{"step": "lunch", "owner": "x", "ms": 1}]}]},
            "turns.0.parts.0.step",
        ),
        ({"seconds": "12"}, "seconds: Input should be a valid number"),
        ({"seconds": 1e300}, "a number in it is beyond"),
        ({"figures": {"x": float("nan")}}, "a number in it is beyond"),
        ({"events": [{"at": float("inf"), "kind": "x"}]}, "a number in it is beyond"),
    ):
        file = tmp_path / "call.json"
        file.write_text(json.dumps({**good, **change}))
        with pytest.raises(VoiceflowError, match=re.escape(words)):
            read(file)
    file.write_text(json.dumps({**good, "added_later": [1]}))
    assert read(file).call == "w0-7", "what a later voiceflow of the same version adds is passed over"


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(VoiceflowError, match=r"nothing\.json cannot be read: No such file"):
        read(tmp_path / "nothing.json")
    with pytest.raises(VoiceflowError, match="cannot be read"):
        read(tmp_path)


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("voiceflow.trace.file.LARGEST", 1 << 20)
    (tmp_path / "large.json").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(VoiceflowError, match="it is larger than 1 MiB"):
        read(tmp_path / "large.json")


# -- writing ----------------------------------------------------------------------------------------------


def test_only_its_owner_can_read_it(tmp_path):
    file = tmp_path / "call.json"
    write_private(file, "half \ud800 a pair, and שלום")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text("utf-8") == "half ? a pair, and שלום"
    assert [path.name for path in tmp_path.iterdir()] == ["call.json"]


def test_all_of_it_or_nothing(tmp_path, monkeypatch):
    file = tmp_path / "call.json"
    file.write_text("before")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(file, "after")
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["call.json"]


def test_the_name_of_a_file():
    at = datetime(2026, 11, 22, 11, 15, 30, 123_456, timezone(timedelta(hours=1)))
    assert file_name("w0-1", at) == "20261122T101530.123Z-w0-1.json"
    assert file_name("../x/y", at) == "20261122T101530.123Z-.._x_y.json"


class Clock:
    """A clock on the wall that moves a second a call."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


async def test_a_file_of_every_call_however_it_ended(virtual_time, tmp_path, logged):
    folder = TraceFolder(tmp_path / "a" / "b", redact=False, now=Clock())
    await conversation(prepare=folder.opened)
    chain = [Turner(), Breaks(1), Model(), Aggregator(), Voice()]
    async with phone(*chain, prepare=folder.opened, hang_up=False) as p:
        p.turn("boom")
    call = Call(MemoryCodec(), id="w0-9")
    call.prepare(Pipeline(call.source(), Turner(), call.sink(), parts=True))
    folder.opened(call)
    await call.abandon("its stream never came")
    folder.close()
    names = sorted(path.name for path in folder.path.iterdir())
    assert names == [
        "20261122T100001.000Z-w0-7.json",
        "20261122T100002.000Z-w0-7.json",
        "20261122T100003.000Z-w0-9.json",
    ]
    whole, died, never = (read(folder.path / name) for name in names)
    assert whole.started == "2026-11-22T10:00:01.000+00:00"
    assert len(whole.turns) == 5
    assert died.outcome.fault == "Breaks failed in fail: ValueError: cannot bear 'boom'"
    assert never.outcome.reason == "its stream never came"
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert not [line for line in logged if "trace" in line]


async def test_a_call_whose_task_is_cancelled_is_kept_too(virtual_time, tmp_path):
    folder = TraceFolder(tmp_path, redact=False)
    call = Call(MemoryCodec())
    call.prepare(Pipeline(call.source(), Turner(), call.sink(), parts=True))
    folder.opened(call)
    from voiceflow.frames import PHONE
    from voiceflow.line.codec import LineStarted
    from voiceflow.testing import ScriptedLink

    running = asyncio.create_task(call.run(ScriptedLink(), LineStarted("s", "c", PHONE)))
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    folder.close()
    (file,) = tmp_path.glob("*.json")
    assert read(file).outcome.reason == "the server stopped"


async def test_the_disk_is_not_touched_by_the_event_loop(virtual_time, tmp_path, monkeypatch):
    threads: list[threading.Thread] = []

    def spy(path: Path, text: str) -> None:
        threads.append(threading.current_thread())
        write_private(path, text)

    folder = TraceFolder(tmp_path, redact=False)
    monkeypatch.setattr(folder_module, "write_private", spy)
    await conversation(prepare=folder.opened)
    folder.close()
    assert [thread.name for thread in threads] == ["voiceflow traces"]
    assert len(list(tmp_path.glob("*.json"))) == 1


async def test_a_disk_that_fails_costs_the_file_and_nothing_else(virtual_time, tmp_path, monkeypatch, logged):
    folder = TraceFolder(tmp_path, redact=False)

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "write_private", full)
    async with phone(*talker(), prepare=folder.opened) as p:
        p.turn("Rumpelstiltskin")
        await asyncio.sleep(1)
    folder.close()
    assert p.result is not None
    assert p.result.fault is None
    told = [line for line in logged if line.startswith("ERROR")]
    assert told == [f"ERROR its trace could not be written to {tmp_path}: No space left on device"]
    assert list(tmp_path.iterdir()) == []


async def test_too_many_wait_for_the_disk(virtual_time, tmp_path, monkeypatch, logged):
    monkeypatch.setattr(folder_module, "WAITING_BOUND", 1)
    monkeypatch.setattr(folder_module, "CLOSING", 0.05)
    stuck = threading.Event()
    working = threading.Event()

    def hangs(path: Path, text: str) -> None:
        working.set()
        stuck.wait(10)

    folder = TraceFolder(tmp_path, redact=False)
    monkeypatch.setattr(folder_module, "write_private", hangs)
    async with phone(*talker(), prepare=folder.opened):
        pass
    assert working.wait(5)
    for _ in range(2):
        async with phone(*talker(), prepare=folder.opened):
            pass
    assert "ERROR its trace is lost: too many wait for the disk" in logged
    folder.close()
    assert [line for line in logged if "not all traces could be written" in line]
    stuck.set()


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VoiceflowError, match="traces cannot be kept in"):
        TraceFolder(tmp_path / "file" / "calls", redact=False)
    with pytest.raises(VoiceflowError, match="traces cannot be kept in"):
        TraceFolder(tmp_path / "file", redact=False)


# -- one thread for what is slow --------------------------------------------------------------------------


def test_background_keeps_order_drops_and_counts():
    done: list[int] = []
    hold, begun = threading.Event(), threading.Event()
    background = Background("test", bound=3)

    def first() -> None:
        begun.set()
        hold.wait(10)

    assert background.do(first)
    assert begun.wait(5)
    assert [background.do(lambda n=n: done.append(n)) for n in range(5)] == [True, True, True, False, False]
    assert background.dropped == 2
    hold.set()
    assert background.close(5)
    assert done == [0, 1, 2]
    assert not background.do(lambda: done.append(9))


def test_background_goes_on_after_a_job_that_failed():
    done: list[int] = []
    background = Background("test", bound=10, pause=0.001)
    background.do(lambda: [][0])
    background.do(lambda: done.append(1))
    assert background.close(5)
    assert (done, background.failed) == ([1], 1)


def test_background_that_never_worked_starts_no_thread():
    before = threading.active_count()
    assert Background("test", bound=1).close(1)
    assert threading.active_count() == before


# -- summaries --------------------------------------------------------------------------------------------


async def test_summary(virtual_time):
    record = record_of(await conversation(), STARTED)
    found = summary(record)
    # The third was answered too, but the authority did not know when the voice had ended.
    assert (found.turns, found.heard, found.barge_ins, found.drafts_dropped) == (3, 2, 1, 1)
    assert [turn.since for turn in record.turns if turn.answers] == [
        Step.LAST_SPEECH, Step.LAST_SPEECH, Step.END_OF_TURN,
    ]  # fmt: skip
    one, two = sorted(turn.gap_ms or 0 for turn in record.turns if turn.since is Step.LAST_SPEECH)
    assert found.gap == (one + two) / 2
    assert found.p90 == pytest.approx(two - (two - one) / 10)
    assert found.since is Step.LAST_SPEECH
    assert owners(record)[Step.FIRST_AUDIO] == "Voice"
    assert leading_figures(record) == {"underruns": 0, "interrupts": 1}


def test_leading_figures_are_summed_over_processors():
    from voiceflow.trace.file import CallRecord, Outcome

    figures = {
        "underruns": 1.0,
        "STT.reconnects": 1.0,
        "TTS.reconnects": 2.0,
        "TTS.pool_hits": 3.0,
        "other": 9.0,
    }
    record = CallRecord("c", "", 1, "", "", [], Outcome(""), [], [], [], figures)
    assert leading_figures(record) == {"underruns": 1, "reconnects": 3, "pool hits": 3}


def test_middle():
    assert middle([]) == (None, None)
    assert middle([5.0]) == (5.0, 5.0)
    assert middle([1.0, 2.0, 3.0]) == (2.0, pytest.approx(2.8))


async def test_who_spoke_when(virtual_time):
    from trace_calls import agent

    async with phone(*agent("Good morning to you.")) as p:
        await p.carrier.speak(1.0)
        await asyncio.sleep(1.5)  # it speaks since about half a second
        await p.carrier.speak(0.5)
        await asyncio.sleep(0.1)
    caller, answer, again = spans(record_of(p.call, STARTED))
    assert (caller.who, answer.who, again.who) == ("caller", "agent", "caller")
    assert (caller.begin, caller.end) == (pytest.approx(0.12, abs=0.05), pytest.approx(1.1, abs=0.05))
    assert answer.cut
    assert answer.end == pytest.approx(again.begin, abs=0.01)
    assert again.end == pytest.approx(p.call.trace.seconds, abs=0.01), "still speaking when the call ended"
    assert summary(record_of(p.call, STARTED)).turns == 2
    assert caller.end < answer.begin < answer.end


def test_records_are_plain_data():
    """What `dataclasses.asdict` gives is what a reader of the file sees."""
    from voiceflow.trace.file import CallRecord

    assert all(field.type for field in dataclasses.fields(CallRecord))
