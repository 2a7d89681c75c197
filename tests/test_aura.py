"""Deepgram Aura's protocol, message by message: what goes in, and what comes out. No socket, and no clock."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors.aura import AuraTTS
from processors.aura.protocol import CLEAR_TIMEOUT, FLUSHES, GATHERED, IN_FLIGHT, UNSEEN, WINDOW
from processors.aura.protocol import AuraProtocol as Protocol
from voiceflow.errors import DeclarationError
from voiceflow.frames import PHONE, AudioFormat
from voiceflow.speech import Audio, Finished, Ignored, Item, Send, Trouble

SLOW = [HealthCheck.too_slow]
"""A machine with other work is no failure."""

FLUSHED = '{"type":"Flushed","sequence_id":0}'
CLEARED = '{"type":"Cleared","sequence_id":0}'


def told(items: Iterable[Item]) -> list[Any]:
    """Items as something that is easy to compare: a Speak is its text, another message its type."""
    plain: list[Any] = []
    for item in items:
        match item:
            case Send(message):
                body = json.loads(message)
                plain.append(body.get("text", body["type"]))
            case Audio(key, audio, piece, until):
                plain.append((key, audio, piece, until))
            case Finished(key, spoken):
                plain.append(("finished", key, spoken))
            case Trouble(reason, permanent):
                assert not permanent
                plain.append(("trouble", reason))
            case Ignored(kind):
                plain.append(("ignored", kind))
    return plain


def said(protocol: Protocol, key: str, *texts: str, now: float = 0.0) -> list[Any]:
    return told(item for text in texts for item in protocol.speak(key, text, now))


def heard(protocol: Protocol, *messages: str | bytes, now: float = 0.0) -> list[Any]:
    return told(item for message in messages for item in protocol.parse(message, now))


# -- the life of a reply


def test_the_life_of_a_reply() -> None:
    protocol = Protocol()
    assert heard(protocol, '{"type":"Metadata","request_id":"x"}') == []
    assert said(protocol, "a", " Hello there. ") == ["Hello there.", "Flush"]
    assert protocol.owes("a")
    assert not protocol.room(), "one reply at a time"
    assert heard(protocol, b"one", b"two") == [("a", b"one", 0, 0), ("a", b"two", 0, 0)]
    assert said(protocol, "a", "Bye.") == ["Bye.", "Flush"]
    assert heard(protocol, FLUSHED, b"three") == [("a", b"three", 1, 1)]
    assert protocol.done("a") == 1
    assert told(protocol.end("a", 0.0)) == []
    assert heard(protocol, FLUSHED) == [("finished", "a", 2)]
    assert not protocol.owes("a")
    assert protocol.room()
    assert protocol.clean()
    assert protocol.done("a") == 0


def test_a_reply_that_ends_after_its_last_audio() -> None:
    protocol = Protocol()
    said(protocol, "a", "Hello.")
    assert heard(protocol, b"one", FLUSHED) == [("a", b"one", 0, 0)]
    assert not protocol.owes("a")
    assert told(protocol.end("a", 9.0)) == [("finished", "a", 1)]


def test_what_would_have_to_wait_is_gathered() -> None:
    protocol = Protocol()
    assert said(protocol, "a", "One.", "Two.", "Three.", "Four.") == ["One.", "Flush", "Two.", "Flush"]
    assert heard(protocol, b"1", FLUSHED) == [("a", b"1", 0, 0), "Three. Four.", "Flush"]
    assert said(protocol, "a", "Five.") == []
    assert heard(protocol, b"2", FLUSHED) == [("a", b"2", 1, 1), "Five.", "Flush"]
    assert heard(protocol, b"3", FLUSHED, b"5") == [("a", b"3", 2, 3), ("a", b"5", 4, 4)]
    assert protocol.done("a") == 4
    told(protocol.end("a", 0.0))
    assert heard(protocol, FLUSHED) == [("finished", "a", 5)]


def test_no_more_is_gathered_than_the_ledger_can_do_without() -> None:
    protocol = Protocol()
    text = "x" * 60
    said(protocol, "a", *[text] * 6)
    gathered, _ = heard(protocol, b"1", FLUSHED)[1:]
    assert gathered == f"{text} {text}"
    assert len(gathered) < GATHERED
    assert said(Protocol(), "b", "y" * 2 * GATHERED) == ["y" * 2 * GATHERED, "Flush"], (
        "one piece is never cut"
    )


# -- interrupts


def test_after_a_clear_everything_is_old_until_cleared() -> None:
    protocol = Protocol()
    said(protocol, "a", "Hello there.", "Bye.", "Third.")
    assert told(protocol.cancel("a", 0.0, reached=True)) == ["Clear"]
    assert protocol.room(), "the next reply need not wait"
    assert not protocol.clean()
    assert said(protocol, "b", "Yes?") == ["Yes?", "Flush"]
    assert heard(protocol, b"late", b"later", CLEARED) == []
    assert heard(protocol, b"new") == [("b", b"new", 0, 0)]
    told(protocol.end("b", 0.0))
    assert heard(protocol, FLUSHED) == [("finished", "b", 1)]
    assert not protocol.clean(), "three Flushes in a minute"
    told(protocol.due(WINDOW + 1))
    assert protocol.clean()


def test_two_clears_need_two_answers() -> None:
    protocol = Protocol()
    said(protocol, "a", "Hello.")
    told(protocol.cancel("a", 0.0, reached=True))
    said(protocol, "b", "Hello.")
    told(protocol.cancel("b", 0.1, reached=True))
    said(protocol, "c", "Hello.")
    assert heard(protocol, b"a", CLEARED, b"b", CLEARED, b"c") == [("c", b"c", 0, 0)]


def test_what_was_never_sent_is_not_cleared() -> None:
    protocol = Protocol()
    said(protocol, "a", "Hello.")
    assert told(protocol.cancel("a", 0.0, reached=False)) == []
    assert told(protocol.cancel("x", 0.0, reached=True)) == [], "somebody else's"
    assert said(protocol, "b", "Hello.") == ["Hello.", "Flush"]
    assert heard(protocol, b"b") == [("b", b"b", 0, 0)]


@pytest.mark.parametrize(
    "messages",
    [
        [CLEARED, b"new", FLUSHED],
        [FLUSHED, CLEARED, b"new", FLUSHED],
        [CLEARED, FLUSHED, b"new", FLUSHED],
        [FLUSHED, CLEARED, FLUSHED, b"new", FLUSHED],
    ],
)
def test_a_flush_that_was_cleared_may_or_may_not_be_answered(messages: list[str | bytes]) -> None:
    protocol = Protocol()
    said(protocol, "a", "Hello there.", "Bye.")
    told(protocol.cancel("a", 0.0, reached=True))
    said(protocol, "b", "Yes?")
    told(protocol.end("b", 0.0))
    assert heard(protocol, *messages) == [("b", b"new", 0, 0), ("finished", "b", 1)]


def test_a_flush_without_audio_is_answered_all_the_same() -> None:
    """There was nothing to say for it; only behind a Clear it could be an old answer."""
    protocol = Protocol()
    said(protocol, "a", "Mm.", "Hello.")
    assert heard(protocol, FLUSHED, b"1") == [("a", b"1", 1, 1)]


def test_cleared_that_never_comes() -> None:
    protocol = Protocol()
    said(protocol, "a", "Hello.")
    told(protocol.cancel("a", 1.0, reached=True))
    assert told(protocol.due(1.0 + CLEAR_TIMEOUT)) == []
    said(protocol, "b", "Hello.")
    told(protocol.cancel("b", 1.5, reached=True))
    assert told(protocol.due(1.1 + CLEAR_TIMEOUT)) == [("trouble", "it did not clear within 2 s")]


# -- flushes


def test_flushes_run_out_and_the_rest_goes_elsewhere() -> None:
    protocol = Protocol()
    text = "x" * GATHERED
    for number in range(FLUSHES):
        assert said(protocol, "a", text, now=float(number)) == [text, "Flush"]
        if number < FLUSHES - 1:
            assert heard(protocol, b"1", FLUSHED, now=float(number))[1:] == []
    assert said(protocol, "a", "One.", "Two.", now=20.0) == []
    assert heard(protocol, b"2", FLUSHED, now=20.0) == [
        ("a", b"2", FLUSHES - 1, FLUSHES - 1),
        ("finished", "a", FLUSHES),
    ], "of two more pieces than that"
    assert not protocol.room()
    assert not protocol.clean()
    told(protocol.due(WINDOW))
    assert not protocol.room()
    told(protocol.due(WINDOW + 0.1))
    assert protocol.room()
    assert not protocol.clean()
    told(protocol.due(WINDOW + FLUSHES))
    assert protocol.clean()


def test_a_piece_that_comes_when_there_is_no_flush_left_goes_elsewhere_at_once() -> None:
    protocol = Protocol()
    for _ in range(FLUSHES):
        said(protocol, "a", "One.")
        heard(protocol, b"1", FLUSHED)
    assert said(protocol, "a", "Two.") == [("finished", "a", FLUSHES)]


def test_a_call_leaves_few_flushes_behind() -> None:
    """Who gets the connection next does not know of them."""
    protocol = Protocol()
    for number in range(UNSEEN + 1):
        assert protocol.clean()
        said(protocol, f"r{number}", "One.")
        told(protocol.end(f"r{number}", 0.0))
        heard(protocol, b"1", FLUSHED)
    assert not protocol.clean()
    assert IN_FLIGHT <= UNSEEN + FLUSHES <= 20


# -- messages of all kinds


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('{"type":"Warning","description":"Too many Flush messages.","code":"X"}', "trouble"),
        (
            '{"type":"Warning","description":"The text is odd.","code":"ODD"}',
            ("ignored", "a warning: ODD The text is odd."),
        ),
        ('{"type":"Error","description":"It broke.","code":"NET-0000"}', ("trouble", "NET-0000 It broke.")),
        ('{"type":"Error","err_msg":"It broke."}', ("trouble", "It broke.")),
        ('{"type":"SpeechStarted"}', ("ignored", "a message of type 'SpeechStarted'")),
        ('{"type":["a"]}', ("ignored", "a message of type ['a']")),
        ("{}", ("ignored", "a message of type None")),
        ('{"audio": "AAAA', ("ignored", "a message that is no JSON object")),
        ("[]", ("ignored", "a message that is no JSON object")),
        ("[" * 100_000, ("ignored", "a message that is no JSON object")),
    ],
)
def test_other_messages(message: str, expected: Any) -> None:
    protocol = Protocol()
    said(protocol, "a", "Hello.")
    (item,) = heard(protocol, message)
    assert item == expected or item[0] == expected


@pytest.mark.parametrize("message", [b"", b"audio", FLUSHED, CLEARED])
def test_what_comes_unasked_is_dropped(message: str | bytes) -> None:
    protocol = Protocol()
    assert heard(protocol, message, message) == []
    assert protocol.clean()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("speak"), st.text(max_size=80)),
        st.tuples(st.just("end"), st.none()),
        st.tuples(st.just("cancel"), st.booleans()),
        st.tuples(st.just("hear"), st.sampled_from([b"1", FLUSHED, CLEARED, '{"type":"Warning"}', "x"])),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 3.0, 70.0])),
    ),
    max_size=60,
)


@settings(deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
@given(steps)
def test_whatever_happens_it_keeps_its_promises(script: list[tuple[str, Any]]) -> None:
    """Audio belongs to pieces that went out, in order, and no minute has too many Flushes."""
    protocol, now, number = Protocol(), 0.0, 0
    open_, given_, flushes, last = False, 0, [], -1
    for step, what in script:
        key = f"r{number}"
        items: list[Item] = []
        match step:
            case "speak" if open_ or protocol.room():
                open_ = True
                given_ += 1
                items = list(protocol.speak(key, what, now))
            case "end" if open_:
                items = list(protocol.end(key, now))
            case "cancel" if open_:
                items = list(protocol.cancel(key, now, reached=what))
                open_, number = False, number + 1
            case "hear":
                items = list(protocol.parse(what, now))
            case "wait":
                now += what
                items = list(protocol.due(now))
        for item in items:
            match item:
                case Send(message):
                    if '"Flush"' in str(message):
                        flushes.append(now)
                case Audio(name, _, first, until):
                    assert name == key
                    assert last <= first <= until < given_
                    last = first
                case Finished(name, spoken):
                    assert (name, open_) == (key, True)
                    assert spoken <= given_
                    open_, number = False, number + 1
        if not open_:
            given_, last = 0, -1
            assert not protocol.owes(key)
        assert protocol.done(f"r{number}") <= given_
        assert sum(now - at <= WINDOW for at in flushes) <= FLUSHES


# -- where it connects


def test_the_address_has_what_the_service_needs() -> None:
    url = urlsplit(AuraTTS("aura-2-luna-en", api_key="k", speed=1.25).url(PHONE))
    assert url.path == "/v1/speak"
    assert parse_qs(url.query) == {
        "model": ["aura-2-luna-en"],
        "encoding": ["mulaw"],
        "sample_rate": ["8000"],
        "speed": ["1.25"],
    }
    assert AuraTTS(api_key="k").headers() == {"Authorization": "Token k"}
    assert "encoding=linear16&sample_rate=16000" in AuraTTS(api_key="k").url(AudioFormat("pcm16", 16_000))


@pytest.mark.parametrize("format", [AudioFormat("mulaw", 44_100), AudioFormat("pcm16", 11_025)])
def test_a_format_it_cannot_speak_is_named(format: AudioFormat) -> None:
    with pytest.raises(DeclarationError, match=f"{format.encoding} at {format.rate} Hz"):
        AuraTTS(api_key="k").url(format)


def test_what_cannot_work_is_refused_when_it_is_made() -> None:
    with pytest.raises(DeclarationError, match=r"0\.7 to 1\.5"):
        AuraTTS(api_key="k", speed=2.0)
