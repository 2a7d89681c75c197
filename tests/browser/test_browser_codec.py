"""The browser's codec: golden messages both ways, and nothing a stranger sends can make it raise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.browser import BrowserCodec
from processors.browser.codec import WIDEBAND
from voiceflow.line.codec import (
    Codec,
    LineAudio,
    LineDigit,
    LineIgnored,
    LineMark,
    LineRefused,
    LineStarted,
    LineStopped,
)

START = '{"type":"start","call":"k3","rate":16000}'


def started() -> BrowserCodec:
    codec = BrowserCodec()
    assert codec.parse(START) == [LineStarted("k3", "k3", WIDEBAND)]
    return codec


def test_it_is_a_codec() -> None:
    codec: Codec = BrowserCodec()
    assert (codec.name, codec.format, codec.has_marks, codec.frame_bytes) == ("browser", WIDEBAND, True, 640)


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (b"\x01\x00" * 320, LineAudio(b"\x01\x00" * 320)),
        (b"\x01\x00", LineAudio(b"\x01\x00")),
        ('{"type":"mark","name":"r1.2"}', LineMark("r1.2")),
        ('{"type":"mark","name":""}', LineMark("")),
        ('{"type":"key","key":"#"}', LineDigit("#")),
        ('{"type":"stop"}', LineStopped("the caller hung up")),
    ],
)
def test_from_the_page(message: str | bytes, event: Any) -> None:
    assert started().parse(message) == [event]


def test_to_the_page() -> None:
    codec = started()
    assert codec.audio(b"\0\1") == b"\0\1"
    assert json.loads(codec.mark('r"1')) == {"type": "mark", "name": 'r"1'}
    assert json.loads(codec.clear()) == {"type": "clear"}


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (b"", "bad audio"),
        (b"\0\0\0", "bad audio"),
        ("", "bad JSON"),
        ("{", "bad JSON"),
        ("[" * 100_000, "bad JSON"),
        ("[]", "not an object"),
        ("null", "not an object"),
        (START, "second start"),
        ("{}", "unknown type"),
        ('{"type":"clear"}', "unknown type"),
        ('{"type":["stop"]}', "unknown type"),
        ('{"type":"mark"}', "bad mark"),
        ('{"type":"mark","name":7}', "bad mark"),
        (json.dumps({"type": "mark", "name": "x" * 101}), "bad mark"),
        ('{"type":"key","key":"55"}', "bad key"),
        ('{"type":"key","key":""}', "bad key"),
        ('{"type":"key","key":5}', "bad key"),
        ('{"type":"key"}', "bad key"),
    ],
)
def test_what_breaks_the_protocol_is_ignored(message: str | bytes, kind: str) -> None:
    codec = started()
    (event,) = codec.parse(message)
    assert isinstance(event, LineIgnored)
    assert event.kind == kind
    assert len(event.detail) < 60
    assert codec.parse(b"\0\0") == [LineAudio(b"\0\0")]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (b"\0\0", "audio before start"),
        ('{"type":"stop"}', "message before start"),
        ('{"type":"start","rate":16000}', "bad start"),
        ('{"type":"start","call":"","rate":16000}', "bad start"),
        ('{"type":"start","call":5,"rate":16000}', "bad start"),
    ],
)
def test_nothing_comes_before_a_good_start(message: str | bytes, kind: str) -> None:
    codec = BrowserCodec()
    (event,) = codec.parse(message)
    assert isinstance(event, LineIgnored)
    assert event.kind == kind
    assert isinstance(codec.parse(START)[0], LineStarted)


@pytest.mark.parametrize("rate", [8000, 48000, "16000", 16000.0, True, None, [16000]])
def test_another_rate_is_refused(rate: Any) -> None:
    (event,) = BrowserCodec().parse(json.dumps({"type": "start", "call": "k3", "rate": rate}))
    assert isinstance(event, LineRefused)
    assert "only 16000 Hz is spoken here" in event.reason


def test_nothing_comes_after_stop() -> None:
    codec = started()
    codec.parse('{"type":"stop"}')
    for message in (b"\0\0", START, '{"type":"stop"}'):
        assert codec.parse(message) == [LineIgnored("message after stop")]


def test_nothing_is_sent_before_start() -> None:
    for send in (lambda c: c.audio(b"\0\0"), lambda c: c.mark("a"), lambda c: c.clear()):
        with pytest.raises(ValueError, match="start"):
            send(BrowserCodec())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.one_of(
    st.binary(max_size=2000),
    st.text(max_size=200),
    JSON.map(json.dumps),
    st.builds(
        lambda kind, name, key, rate, call: json.dumps(
            {"type": kind, "name": name, "key": key, "rate": rate, "call": call}
        ),
        st.sampled_from(["start", "mark", "key", "stop", "x"]) | JSON,
        JSON,
        JSON,
        st.just(16000) | JSON,
        JSON,
    ),
)


@given(st.lists(MESSAGES, max_size=8), st.booleans())
def test_it_never_raises(messages: list[str | bytes], begin: bool) -> None:
    codec = started() if begin else BrowserCodec()
    for message in messages:
        events = codec.parse(message)
        assert len(events) == 1
        for event in events:
            if isinstance(event, LineAudio):
                assert event.audio
                assert len(event.audio) % 2 == 0
            if isinstance(event, LineIgnored):
                assert len(event.detail) < 60
                assert event.detail.isascii()
