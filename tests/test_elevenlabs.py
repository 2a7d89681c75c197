"""ElevenLabs' protocol, message by message: what goes in, and what comes out. No socket, and no clock."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors.elevenlabs import ElevenLabsTTS
from processors.elevenlabs.protocol import CLOSE_AFTER, CONTEXTS, FINAL_TIMEOUT, GIVE_UP_AFTER, REST
from processors.elevenlabs.protocol import ElevenLabsProtocol as Protocol
from voiceflow.errors import DeclarationError
from voiceflow.frames import PHONE, AudioFormat
from voiceflow.speech import Audio, Finished, Ignored, Item, Send, Trouble

SLOW = [HealthCheck.too_slow]
"""A machine with other work is no failure."""

SETTINGS = {"stability": 0.5, "speed": 1.1}
MS = 60
"""Milliseconds of a character."""


def told(items: Iterable[Item]) -> list[Any]:
    """Items as something that is easy to compare: a message is its dict."""
    plain: list[Any] = []
    for item in items:
        match item:
            case Send(message):
                plain.append(json.loads(message))
            case Audio(key, audio, piece, until, words):
                assert piece == until
                plain.append((key, len(audio), piece, " ".join(word.text for word in words)))
            case Finished(key, spoken):
                plain.append(("finished", key) if spoken is None else ("finished", key, spoken))
            case Trouble(reason, permanent):
                plain.append(("permanent" if permanent else "trouble", reason))
            case Ignored(kind):
                plain.append(("ignored", kind))
    return plain


def audio(key: str, text: str, *, lead: int = 0, **more: Any) -> str:
    """What the service sends for `text`: 8 bytes a millisecond."""
    length = len(text) * MS + lead
    alignment = {
        "chars": list(text),
        "charStartTimesMs": [lead + MS * n for n in range(len(text))],
        "charDurationsMs": [MS] * len(text),
    }
    body = {
        "audio": base64.b64encode(bytes(length * 8)).decode(),
        "isFinal": None,
        "contextId": key,
        "normalizedAlignment": alignment,
        "alignment": alignment,
    }
    return json.dumps({**body, **more})


def final(key: str) -> str:
    return json.dumps({"isFinal": True, "contextId": key})


def said(protocol: Protocol, key: str, *texts: str, now: float = 0.0) -> list[Any]:
    return told(item for text in texts for item in protocol.speak(key, text, now))


# -- the life of a context


def test_the_life_of_a_context() -> None:
    protocol = Protocol(PHONE, SETTINGS)
    assert said(protocol, "a", "Hello there.") == [
        {"text": " ", "context_id": "a", "voice_settings": SETTINGS},
        {"text": "Hello there. ", "context_id": "a"},
    ]
    assert said(protocol, "a", " Bye! \n") == [{"text": "Bye! ", "context_id": "a"}]
    assert protocol.owes("a")
    assert told(protocol.parse(audio("a", "Hello "), 0.2)) == [("a", 6 * MS * 8, 0, "Hello")]
    assert told(protocol.end("a", 0.3)) == [{"context_id": "a", "flush": True}]
    # The next message ends the first sentence and begins the second: it is cut between them.
    assert told(protocol.parse(audio("a", "there. By"), 0.4)) == [
        ("a", 7 * MS * 8, 0, "there."),
        ("a", 2 * MS * 8, 1, ""),
    ]
    assert told(protocol.due(0.5)) == [], "the flush is too fresh"
    assert told(protocol.due(0.3 + REST)) == [{"context_id": "a", "close_context": True}]
    assert told(protocol.parse(audio("a", "e!"), 0.7)) == [("a", 2 * MS * 8, 1, "Bye!")]
    assert not protocol.owes("a")
    assert not protocol.clean()
    assert told(protocol.parse(final("a"), 0.8)) == [("finished", "a")]
    assert protocol.clean()
    assert told(protocol.parse(final("a"), 0.8)) == [
        ("ignored", "a message about a context that is not open")
    ]


def test_audio_after_the_rest_closes_the_context() -> None:
    protocol = Protocol(PHONE)
    assert said(protocol, "a", "Hello.")[0] == {"text": " ", "context_id": "a"}, (
        "no settings, no key for them"
    )
    told(protocol.end("a", 0.0))
    assert told(protocol.parse(audio("a", "Hell"), REST + 0.1)) == [
        ("a", 4 * MS * 8, 0, ""),
        {"context_id": "a", "close_context": True},
    ]


def test_words_have_the_times_of_their_audio() -> None:
    protocol = Protocol(PHONE)
    said(protocol, "a", "Good day.")
    (first,) = protocol.parse(audio("a", "Good d", lead=100), 0.0)
    (second,) = protocol.parse(audio("a", "ay."), 0.0)
    assert isinstance(first, Audio)
    assert isinstance(second, Audio)
    assert [(w.text, w.start, w.end) for w in first.words] == [
        ("Good", pytest.approx(0.1), pytest.approx(0.34))
    ]
    assert [(w.text, w.start, w.end) for w in second.words] == [
        ("day.", pytest.approx(-0.06), pytest.approx(0.18))
    ]


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"contextId": "context_id", "isFinal": "is_final"},
        {"charDurationsMs": "charsDurationsMs", "charStartTimesMs": "charsStartTimesMs"},
        {"alignment": "x", "normalizedAlignment": "normalized_alignment"},
        {"alignment": "x"},
    ],
)
def test_all_spellings(names: dict[str, str]) -> None:
    def respelled(message: str) -> str:
        def walk(body: Any) -> Any:
            return {names.get(k, k): walk(v) for k, v in body.items()} if isinstance(body, dict) else body

        return json.dumps(walk(json.loads(message)))

    protocol = Protocol(PHONE)
    said(protocol, "a", "Hello.")
    assert told(protocol.parse(respelled(audio("a", "Hello.")), 0.0)) == [("a", 6 * MS * 8, 0, "Hello.")]
    assert told(protocol.parse(respelled(final("a")), 0.0)) == [("finished", "a")]


def test_a_null_beside_the_other_spelling_means_nothing() -> None:
    protocol = Protocol(PHONE)
    said(protocol, "a", "Hello.")
    told(protocol.parse(audio("a", "Hello."), 0.0))
    message = {"isFinal": None, "is_final": True, "contextId": None, "context_id": "a"}
    assert told(protocol.parse(json.dumps(message), 0.0)) == [("finished", "a")]


# -- interrupts and places


def test_a_cancelled_context_is_closed_once_and_silent() -> None:
    protocol = Protocol(PHONE)
    said(protocol, "a", "Hello there.")
    close = {"context_id": "a", "close_context": True}
    assert told(protocol.cancel("a", 0.1, reached=True)) == [close]
    assert told(protocol.cancel("a", 0.1, reached=True)) == []
    assert told(protocol.parse(audio("a", "Hello"), 0.2)) == [], "late audio"
    assert not protocol.clean(), "its place is still taken"
    assert told(protocol.due(99.0)) == []
    assert told(protocol.parse(final("a"), 0.3)) == [], "nobody waits for it"
    assert protocol.clean()
    assert told(protocol.cancel("b", 0.1, reached=True)) == [], "no phantom"


def test_what_the_service_never_heard_of_is_not_closed() -> None:
    protocol = Protocol(PHONE)
    said(protocol, "a", "Hello there.")
    assert told(protocol.cancel("a", 0.1, reached=False)) == []
    assert protocol.clean()


def test_a_close_that_waits_for_the_socket_is_not_sent_twice() -> None:
    """It is marked so that the queue keeps it though the rest of the context is dropped."""
    protocol = Protocol(PHONE)
    said(protocol, "a", "Hello.")
    told(protocol.end("a", 0.0))
    (_, close) = protocol.parse(audio("a", "Hello."), REST)
    assert isinstance(close, Send)
    assert (close.key, close.closes) == ("a", True)
    assert told(protocol.cancel("a", REST, reached=True)) == []


def test_five_places() -> None:
    """Closing contexts, dead ones and those whose isFinal never came have theirs until it comes."""
    protocol = Protocol(PHONE)
    for number in range(CONTEXTS):
        assert protocol.room()
        said(protocol, f"c{number}", "Hello.")
    assert not protocol.room()
    told(protocol.cancel("c0", 0.1, reached=True))
    told(protocol.end("c1", 0.1))
    told(protocol.parse(audio("c1", "Hello."), 0.1))
    assert told(protocol.due(0.2 + CLOSE_AFTER)) == [{"context_id": "c1", "close_context": True}]
    assert told(protocol.due(0.3 + CLOSE_AFTER + FINAL_TIMEOUT)) == [("finished", "c1")]
    assert told(protocol.due(99.0)) == [], "once"
    assert not protocol.room()
    told(protocol.parse(final("c1"), 99.0))
    assert protocol.room()


# -- what does not come


def test_the_last_sentence_that_does_not_begin_is_given_time_and_then_closed() -> None:
    protocol = Protocol(PHONE)
    said(protocol, "a", "Hello.", "Bye.")
    told(protocol.end("a", 0.0))
    told(protocol.parse(audio("a", "Hello. "), 1.0))
    assert told(protocol.due(1.0 + CLOSE_AFTER + 0.1)) == [], "something is missing"
    assert protocol.owes("a")
    assert told(protocol.due(1.0 + GIVE_UP_AFTER + 0.1)) == [{"context_id": "a", "close_context": True}]
    assert told(protocol.due(99.0)) == [], "what is owed and does not come is missed by others"
    assert protocol.done("a") == 1
    assert told(protocol.parse(final("a"), 3.0)) == [("finished", "a", 1)], "one of two"


def test_a_context_that_idles_away_is_finished_as_far_as_it_came() -> None:
    """The documented form of the inactivity timeout: isFinal, though nobody has ended it."""
    protocol = Protocol(PHONE)
    said(protocol, "a", "Hello.")
    told(protocol.parse(audio("a", "Hello."), 0.5))
    assert told(protocol.parse(final("a"), 180.0)) == [("finished", "a")]
    assert said(protocol, "b", "Bye.")[0]["text"] == " ", "what follows gets a context of its own"


@pytest.mark.parametrize("alignment", [None, {}, {"chars": ["H"]}, {"chars": 5}, [1], "x"])
def test_without_alignments_all_text_is_told_in_the_end(alignment: Any) -> None:
    protocol = Protocol(PHONE)
    said(protocol, "a", "Hello there.", "Goodbye now.", "Really.")
    told(protocol.end("a", 0.0))
    short = audio("a", "Hello there.", alignment=alignment, normalizedAlignment=alignment)
    assert told(protocol.parse(short, 0.1))[0] == ("a", 12 * MS * 8, 0, "")
    short = audio("a", "Goodby", alignment=alignment, normalizedAlignment=alignment)
    told(protocol.parse(short, 0.2))
    items = told(protocol.parse(final("a"), 0.5))
    assert items == [("a", 160, 2, ""), ("finished", "a")], "20 ms of silence for the last sentence"


def test_without_alignments_too_little_audio_is_noticed() -> None:
    protocol = Protocol(PHONE)
    said(protocol, "a", "This is a sentence that takes its time to say.")
    told(protocol.parse(audio("a", "This", alignment=None, normalizedAlignment=None), 0.1))
    assert protocol.owes("a")
    assert told(protocol.parse(final("a"), 0.2)) == [("finished", "a", 0)]


# -- messages of all kinds

SUBSCRIPTION = "https://elevenlabs.io/app/subscription"
KEYS = "https://elevenlabs.io/app/settings/api-keys"
NOT_OPEN = ("ignored", "a message about a context that is not open")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('{"audio": "AAAA', ("ignored", "a message that is no JSON object")),
        ("[1]", ("ignored", "a message that is no JSON object")),
        ("null", ("ignored", "a message that is no JSON object")),
        (b"\xff\xfe\x00", ("ignored", "a message that is no JSON object")),
        ("[" * 100_000, ("ignored", "a message that is no JSON object")),
        ("{}", NOT_OPEN),
        ('{"isFinal": true}', NOT_OPEN),
        ('{"audio": "AAAA", "contextId": "b"}', NOT_OPEN),
        ('{"audio": "AAAA", "contextId": ["a"]}', NOT_OPEN),
        ('{"audio": "***", "contextId": "a"}', ("ignored", "audio that is not base64")),
        ('{"audio": "AAAAA", "contextId": "a"}', ("ignored", "audio that is not base64")),
        (
            '{"message": "You are over it.", "error": "quota_exceeded", "code": 1008}',
            (
                "permanent",
                "quota_exceeded You are over it.: the account has no characters left, see " + SUBSCRIPTION,
            ),
        ),
        (
            '{"message": "Invalid API key", "error": "invalid_api_key", "code": 1008}',
            (
                "permanent",
                "invalid_api_key Invalid API key: ELEVENLABS_API_KEY is not valid, see " + KEYS,
            ),
        ),
        (
            '{"message": "Too many contexts", "error": "max_active_conversations", "code": 1008}',
            ("trouble", "max_active_conversations Too many contexts"),
        ),
        (
            '{"message": "No input\\ncame", "error": "input_timeout_exceeded", "contextId": "a"}',
            ("trouble", "input_timeout_exceeded No input came"),
        ),
        (
            '{"message": "settings", "error": "policy_violation", "code": 1008}',
            ("permanent", "policy_violation settings"),
        ),
        ('{"message": "gone", "code": 1011}', ("trouble", "gone")),
    ],
)
def test_other_messages(message: str | bytes, expected: Any) -> None:
    protocol = Protocol(PHONE)
    said(protocol, "a", "Hello.")
    assert told(protocol.parse(message, 0.0)) == [expected]


@pytest.mark.parametrize(
    "message", ['{"contextId": "a"}', '{"audio": null, "contextId": "a"}', '{"audio": "", "contextId": "a"}']
)
def test_a_message_of_nothing(message: str) -> None:
    protocol = Protocol(PHONE)
    said(protocol, "a", "Hello.")
    assert told(protocol.parse(message, 0.0)) == []


def test_a_message_beyond_a_mebibyte() -> None:
    protocol = Protocol(PHONE)
    text = "so " * 10_000
    said(protocol, "a", text)
    message = audio("a", text)
    assert len(message) > 2**20
    ((key, length, piece, words),) = told(protocol.parse(message, 0.0))
    assert (key, length, piece) == ("a", len(text) * MS * 8, 0)
    assert words == text.strip()


KNOWN = (
    "audio isFinal is_final contextId context_id alignment normalizedAlignment chars charStartTimesMs "
    "charDurationsMs charsDurationsMs error message code x"
)
names = st.sampled_from(KNOWN.split())
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["a", "AAAA", "quota", "", "H", "é"]),
)
bodies = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
@given(st.lists(st.dictionaries(names, bodies, max_size=6), max_size=4), st.text(max_size=20))
def test_no_message_makes_it_raise(messages: list[Any], text: str) -> None:
    protocol = Protocol(AudioFormat("pcm16", 16_000))
    said(protocol, "a", text)
    for now, message in enumerate(messages):
        for item in (*protocol.parse(json.dumps({"contextId": "a", **message}), now), *protocol.due(now)):
            assert isinstance(item, Send | Audio | Finished | Trouble | Ignored)
        assert protocol.done("a") in (0, 1)


# -- where it connects


def test_the_address_has_what_the_service_needs() -> None:
    url = urlsplit(ElevenLabsTTS("a/b c", api_key="k", language="de").url(PHONE))
    assert url.path == "/v1/text-to-speech/a%2Fb%20c/multi-stream-input"
    assert parse_qs(url.query) == {
        "model_id": ["eleven_flash_v2_5"],
        "output_format": ["ulaw_8000"],
        "auto_mode": ["true"],
        "sync_alignment": ["true"],
        "inactivity_timeout": ["180"],
        "language_code": ["de"],
    }
    assert "output_format=pcm_16000" in ElevenLabsTTS(api_key="k").url(AudioFormat("pcm16", 16_000))


def test_settings_go_to_the_first_message() -> None:
    voice = ElevenLabsTTS(api_key="k", stability=0.3, similarity=0.9, style=0.1, speed=0.9)
    first = next(iter(voice.protocol(PHONE).speak("a", "Hello.", 0.0)))
    assert isinstance(first, Send)
    assert json.loads(first.message)["voice_settings"] == {
        "stability": 0.3,
        "similarity_boost": 0.9,
        "style": 0.1,
        "speed": 0.9,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "eleven_v3"}, "does not stream eleven_v3"),
        ({"speed": 1.3}, "0.7 to 1.2"),
        ({"stability": -0.1}, "stability goes from 0 to 1"),
        ({"base_url": "elevenlabs"}, "is no address"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        ElevenLabsTTS(api_key="k", **settings)


@pytest.mark.parametrize("format", [AudioFormat("mulaw", 16_000), AudioFormat("pcm16", 11_025)])
def test_a_format_it_cannot_speak_is_named(format: AudioFormat) -> None:
    with pytest.raises(DeclarationError, match=f"{format.encoding} at {format.rate} Hz"):
        ElevenLabsTTS(api_key="k").url(format)
