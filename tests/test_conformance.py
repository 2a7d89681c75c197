"""check_processor: processors that conform pass, and for every rule one that breaks it is caught by name."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conformance_cases import (
    BROKEN,
    Count,
    Counting,
    Everything,
    Forgetful,
    Idle,
    IgnoresCancel,
    Model,
    PushesAfterTheEnd,
    RaisesWhenCancelled,
    Recogniser,
    Redact,
    Sentences,
    Slowly,
    SocketTTS,
    speaking,
)

from processors.play import Play
from processors.silero.vad import SileroVAD
from processors.turns import VADTurns
from voiceflow.audio import encode, read_wav, write_wav
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.reply import Reply
from voiceflow.errors import VoiceflowError
from voiceflow.frames import (
    AgentFrame,
    AudioIn,
    CallerFrame,
    ControlFrame,
    Dtmf,
    Frame,
    Heard,
    Interrupt,
    Sentence,
    Token,
    TurnEnd,
)
from voiceflow.testing import NotConforming, Rig, check_processor
from voiceflow.testing import conformance as conformance_module
from voiceflow.testing.rules import RULES

SPEECH = Path(__file__).parents[1] / "voiceflow" / "assets" / "speech" / "ten_of_clubs.wav"


@pytest.mark.parametrize(
    "make", [Redact, Sentences, Slowly, Model, Count, Everything, Idle, Recogniser, VADTurns]
)
def test_processors_that_conform(make):
    report = check_processor(make)
    assert report.processor == make.__name__
    assert report.rules == RULES
    assert report.calls > 5
    assert report.frames > 0
    assert report.never_seen == ()


def test_a_text_to_speech_with_a_socket_conforms():
    report = check_processor(SocketTTS, services=speaking())
    assert set(report.emitted) == {"AudioOut", "ReplyEnd"}
    assert report.emitted["AudioOut"] > 2 * report.calls
    assert report.calls > 30  # it has been cut off in the middle of its work, many times


def test_play_conforms(tmp_path: Path):
    write_wav(tmp_path / "hello.wav", [np.arange(0, 12_000, dtype=np.int16)])
    report = check_processor(lambda: Play(tmp_path / "hello.wav", "Hello there."))
    assert report.emitted["ReplyEnd"] > 2
    assert report.never_seen == ()


def test_silero_conforms_and_hears_a_voice():
    speech = read_wav(SPEECH)[:9600]
    heard = encode(np.concatenate([speech, np.zeros(6400, np.int16)]))
    frames = [AudioIn(heard[at : at + 160], at) for at in range(0, len(heard), 160)]
    report = check_processor(SileroVAD, frames=frames)
    assert report.never_seen == ()


def test_a_stateful_processor_says_so():
    with pytest.raises(NotConforming, match=r"begins every reply afresh(.|\n)*stateful=True"):
        check_processor(Counting)
    assert check_processor(Counting, stateful=True).emitted["Sentence"] > 0


def test_the_report_reads_as_a_sentence_and_names_what_was_never_seen():
    class Rarely(Processor):
        emits = (Sentence,)

        @on(Token)
        def token(self, token: Token) -> Token | Sentence:
            return Sentence("!", reply=token.reply) if token.text == "!" else token

    report = check_processor(Rarely)
    assert report.never_seen == ("Sentence",)
    assert str(report).startswith("Rarely keeps 12 rules in ")
    assert "declared but never seen: Sentence" in str(report)
    report = check_processor(Rarely, frames=[Token("a"), Token("!")])
    assert report.never_seen == ()


def test_it_is_the_same_every_time():
    assert check_processor(SocketTTS, services=speaking()) == check_processor(SocketTTS, services=speaking())


# -- the frames they are tried with --------------------------------------------------------------


@dataclass(slots=True)
class Mood(CallerFrame):
    name: str
    strength: float
    certain: bool = True


@dataclass(slots=True)
class Gesture(AgentFrame):
    shape: np.ndarray


@dataclass(slots=True)
class Poke(ControlFrame):
    pass


def recording(*types: type[Frame]) -> tuple[type[Processor], list[Frame]]:
    seen: list[Frame] = []

    class Look(Processor):
        @tap(*types)
        def look(self, frame: Frame) -> None:
            seen.append(frame)

    return Look, seen


def test_own_frames_are_made_from_their_annotations():
    look, seen = recording(Mood, Poke)
    check_processor(look)
    assert {type(frame) for frame in seen} == {Mood, Poke}
    assert Mood("text 1", 1.0) in seen


def test_own_frames_that_cannot_be_made_are_asked_for():
    look, seen = recording(Gesture)
    with pytest.raises(VoiceflowError, match=r"cannot make a Gesture.*`shape`.*frames=\[Gesture\(\.\.\.\)"):
        check_processor(look)
    assert not seen
    check_processor(look, frames=[Gesture(np.zeros(2)), Gesture(np.ones(2))])
    assert len(seen) > 4


def test_frames_may_be_made_for_a_reply():
    look, seen = recording(Heard, Sentence)
    check_processor(look, frames=lambda reply: [Sentence("a", reply=reply), Heard(reply, "a"), Sentence("b")])
    assert all(frame.reply is not None for frame in seen if isinstance(frame, Sentence))
    assert len({frame.of for frame in seen if isinstance(frame, Heard)}) > 2


def test_the_scene_goes_on_from_reply_to_reply():
    look, seen = recording(AudioIn, TurnEnd)
    check_processor(look)
    rounds = [frame for frame in seen if isinstance(frame, TurnEnd)]
    assert {frame.turn for frame in rounds} == {1, 2}
    later = {frame.at for frame in seen if isinstance(frame, AudioIn)}
    assert later == set(range(0, max(later) + 160, 160))


def test_a_link_without_services_is_asked_for():
    with pytest.raises(VoiceflowError, match=r"opens a link to wss://voice.example.*services=Services"):
        check_processor(SocketTTS)


def test_what_is_no_processor_or_an_old_one_is_refused():
    once = Redact()
    for wrong in (lambda: once, lambda: Redact):
        with pytest.raises(VoiceflowError, match="needs a new processor each time"):
            check_processor(wrong)
    with pytest.raises(VoiceflowError, match="takes frames, not 'hello'"):
        check_processor(Redact, frames=["hello"])


def test_a_processor_that_hangs_up_is_given_no_rules():
    class HangsUp(Processor):
        @on(Dtmf)
        def key(self, key: Dtmf) -> Dtmf:
            self.call.end("the caller pressed a key")
            return key

    with pytest.raises(VoiceflowError, match=r"HangsUp ended its call \(the caller pressed a key\)"):
        check_processor(HangsUp)


def test_it_wants_a_plain_test():
    async def main() -> None:
        with pytest.raises(RuntimeError, match="plain `def` test"):
            check_processor(Redact)

    asyncio.run(main())


# -- what breaks a rule ------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "rule", "seen"), BROKEN, ids=[make.__name__ for make, _, _ in BROKEN])
def test_each_rule_catches_who_breaks_it(make, rule, seen):
    services = speaking() if issubclass(make, SocketTTS) else None
    patience = {PushesAfterTheEnd: 70.0, IgnoresCancel: 25.0}.get(make, 5.0)
    with pytest.raises(NotConforming) as caught:
        check_processor(make, services=services, patience=patience)
    message = str(caught.value)
    assert caught.value.rule == rule, message
    assert caught.value.processor == make.__name__
    assert message.startswith(f"{make.__name__} breaks the rule that a processor {rule}\n")
    assert seen in message
    assert "\n  do     " in message
    assert isinstance(caught.value, AssertionError)
    assert isinstance(caught.value, VoiceflowError)


def test_every_rule_has_one_that_breaks_it_and_a_line_in_the_docstring():
    assert {rule for _, rule, _ in BROKEN} == set(RULES)
    for rule in RULES:
        assert f"\n    {rule}  " in (conformance_module.__doc__ or "")


def test_a_message_says_at_which_moment():
    with pytest.raises(NotConforming, match=r"when +a reply was cut off before frame \d+ of 6 of the sample"):
        check_processor(Forgetful)
    with pytest.raises(NotConforming, match=r"when +a reply was cut off .* more turns of the event loop"):
        check_processor(RaisesWhenCancelled)


def test_an_engine_that_lets_a_dead_reply_speak_is_noticed(monkeypatch):
    class Goes(SocketTTS):
        @on(Interrupt)
        def forget(self, interrupt: Interrupt) -> None:
            pass

    check_processor(Goes, services=speaking())  # the engine drops what it still gives
    monkeypatch.setattr(Reply, "become", lambda self, state: None)
    with pytest.raises(NotConforming, match="of the dead reply came out after the Interrupt"):
        check_processor(Goes, services=speaking())


def test_a_rig_waits_for_a_slow_start(virtual_time):
    class Connects(Processor):
        ready = False

        async def start(self) -> None:
            await asyncio.sleep(3)
            self.ready = True

    async def main() -> None:
        async with Rig(Connects()) as rig:
            assert rig.processors[0].ready
            assert virtual_time.now == 3.0

    virtual_time.run(main())


def test_what_raises_while_it_is_made_is_reported():
    with pytest.raises(NotConforming, match=r"Play breaks the rule(.|\n)*cannot find nowhere.wav") as caught:
        check_processor(type("Play", (), {"__new__": lambda cls: Play("nowhere.wav")}))
    assert caught.value.rule == "does not fail"
