"""The Twilio codec: golden messages both ways, and nothing a stranger sends can make it raise."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.twilio.codec import TwilioCodec
from processors.twilio.simulated.carrier import CarrierCodec, Clear, Complaint, Mark, Play
from voiceflow.frames import PHONE
from voiceflow.line.codec import (
    Codec,
    LineAudio,
    LineDigit,
    LineEvent,
    LineIgnored,
    LineMark,
    LineRefused,
    LineStarted,
    LineStopped,
)

STREAM = "MZ18ad3ab5a668481ce02b83e7395059f0"
CALL = "CA8b0d4e4e5c5a4f0f9e0d1c2b3a495867"
FORMAT = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
CONNECTED = '{"event":"connected","protocol":"Call","version":"1.0.0"}'


def start(**changes: Any) -> str:
    content = {
        "accountSid": "AC1",
        "streamSid": STREAM,
        "callSid": CALL,
        "tracks": ["inbound"],
        "mediaFormat": FORMAT,
        "customParameters": {"agent": "booking"},
        **changes,
    }
    return json.dumps({"event": "start", "sequenceNumber": "1", "streamSid": STREAM, "start": content})


def message(event: str, content: Any, stream: Any = STREAM) -> str:
    return json.dumps({"event": event, "sequenceNumber": "4", "streamSid": stream, event: content})


def started() -> TwilioCodec:
    codec = TwilioCodec()
    assert isinstance(codec.parse(start())[0], LineStarted)
    return codec


def ignored(events: list[LineEvent]) -> str:
    (event,) = events
    assert isinstance(event, LineIgnored)
    assert len(event.detail) < 60
    return event.kind


def test_it_is_a_codec() -> None:
    codec: Codec = TwilioCodec()
    assert (codec.name, codec.has_marks, codec.frame_bytes) == ("twilio", True, 160)


def test_a_whole_stream_as_twilio_documents_it() -> None:
    codec = TwilioCodec()
    assert codec.parse(CONNECTED) == []
    assert codec.parse(start()) == [LineStarted(STREAM, CALL, PHONE, {"agent": "booking"})]
    media = {
        "track": "inbound",
        "chunk": "2",
        "timestamp": "20",
        "payload": b64encode(b"\xff" * 160).decode(),
    }
    assert codec.parse(message("media", media)) == [LineAudio(b"\xff" * 160, 20)]
    assert codec.parse(message("dtmf", {"track": "inbound_track", "digit": "#"})) == [LineDigit("#")]
    assert codec.parse(message("mark", {"name": "u3"})) == [LineMark("u3")]
    assert codec.parse(message("stop", {"accountSid": "AC1", "callSid": CALL})) == [
        LineStopped("Twilio stopped the stream")
    ]
    assert ignored(codec.parse(message("media", media))) == "message after stop"


def test_numbers_may_be_strings_or_numbers() -> None:
    for rate, channels in (("8000", "1"), (8000, 1)):
        codec = TwilioCodec()
        given_format = {**FORMAT, "sampleRate": rate, "channels": channels}
        assert isinstance(codec.parse(start(mediaFormat=given_format))[0], LineStarted)
        for timestamp in ("60", 60):
            media = {"timestamp": timestamp, "payload": "//8="}
            assert codec.parse(message("media", media)) == [LineAudio(b"\xff\xff", 60)]


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "mulaw",
        {},
        {**FORMAT, "encoding": "audio/l16"},
        {**FORMAT, "sampleRate": "16000"},
        {**FORMAT, "sampleRate": "fast"},
        {**FORMAT, "channels": 2},
        {**FORMAT, "channels": True},
    ],
)
def test_another_audio_format_is_refused(wrong: Any) -> None:
    codec = TwilioCodec()
    (event,) = codec.parse(start(mediaFormat=wrong))
    assert isinstance(event, LineRefused)
    with pytest.raises(ValueError, match="start"):
        codec.clear()


def test_the_refusal_says_what_was_offered() -> None:
    (event,) = TwilioCodec().parse(
        start(mediaFormat={**FORMAT, "encoding": "audio/l16", "sampleRate": 16000})
    )
    assert isinstance(event, LineRefused)
    assert "'audio/l16', 16000 Hz, 1 channels" in event.reason


@pytest.mark.parametrize("event", ["media", "mark", "dtmf", "stop", "nonsense", None, 7, ["start"]])
def test_only_connected_and_start_come_before_start(event: Any) -> None:
    body = json.dumps({"event": event, "streamSid": STREAM})
    assert ignored(TwilioCodec().parse(body)) == "message before start"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"\x00\x01", "binary message"),
        (start().encode(), "binary message"),
        ("{", "bad JSON"),
        ("", "bad JSON"),
        ("[" * 100_000, "bad JSON"),
        ("1" * 5_000, "bad JSON"),
        ("[]", "not an object"),
        ("null", "not an object"),
        ('"text"', "not an object"),
        (start(), "second start"),
        (json.dumps({"event": "connected", "streamSid": STREAM}), "second connected"),
        (CONNECTED, "wrong streamSid"),
        (message("media", {"payload": "//8="}, stream="MZother"), "wrong streamSid"),
        (message("media", {"payload": "//8="}, stream=None), "wrong streamSid"),
        (message("wave", {}), "unknown event"),
        (json.dumps({"streamSid": STREAM}), "unknown event"),
        (message("media", None), "bad media"),
        (message("media", "//8="), "bad media"),
        (message("media", {}), "bad media"),
        (message("media", {"payload": 5}), "bad media"),
        (message("media", {"payload": ""}), "bad media"),
        (message("media", {"payload": "//8"}), "bad media"),
        (message("media", {"payload": "/ /8="}), "bad media"),
        (message("media", {"payload": "//8=\n"}), "bad media"),
        (message("media", {"payload": "żółć"}), "bad media"),
        (message("media", {"payload": "//8=", "track": "outbound"}), "wrong track"),
        (message("media", {"payload": "//8=", "track": ["inbound"]}), "wrong track"),
        (message("mark", {}), "bad mark"),
        (message("mark", {"name": 3}), "bad mark"),
        (message("dtmf", {"digit": "12"}), "bad digit"),
        (message("dtmf", {"digit": ""}), "bad digit"),
        (message("dtmf", {"digit": "e"}), "bad digit"),
        (message("dtmf", []), "bad digit"),
    ],
)
def test_what_breaks_the_protocol_is_ignored_by_kind(text: str | bytes, kind: str) -> None:
    codec = started()
    assert ignored(codec.parse(text)) == kind
    assert codec.parse(message("mark", {"name": "after"})) == [LineMark("after")]


@pytest.mark.parametrize(
    "bad",
    [
        json.dumps({"event": "start", "streamSid": STREAM}),
        json.dumps({"event": "start", "streamSid": STREAM, "start": []}),
        start(callSid=None),
        start(callSid=""),
        start(streamSid="MZanother"),
        json.dumps({"event": "start", "streamSid": 5, "start": json.loads(start())["start"]}),
    ],
)
def test_a_start_that_lacks_its_ids_does_not_start(bad: str) -> None:
    codec = TwilioCodec()
    assert ignored(codec.parse(bad)) == "bad start"
    assert isinstance(codec.parse(start())[0], LineStarted)


def test_sound_with_a_bad_timestamp_is_kept_and_told() -> None:
    wrong: list[Any] = ["-20", "soon", None, [], "9" * 5_000]
    for timestamp in wrong:
        audio, told = started().parse(message("media", {"payload": "//8=", "timestamp": timestamp}))
        assert audio == LineAudio(b"\xff\xff", None)
        assert isinstance(told, LineIgnored)
        assert told.kind == "bad timestamp"


def test_parameters_that_are_no_text_are_left_out() -> None:
    (event,) = TwilioCodec().parse(start(customParameters={"a": "1", "b": 2, "c": {"d": []}}))
    assert isinstance(event, LineStarted)
    assert event.parameters == {"a": "1"}
    (event,) = TwilioCodec().parse(start(customParameters=None))
    assert isinstance(event, LineStarted)
    assert event.parameters == {}


def test_outbound_messages() -> None:
    codec = started()
    assert json.loads(codec.audio(b"\x7f\x00")) == {
        "event": "media",
        "streamSid": STREAM,
        "media": {"payload": "fwA="},
    }
    assert json.loads(codec.mark("u3")) == {"event": "mark", "streamSid": STREAM, "mark": {"name": "u3"}}
    assert json.loads(codec.clear()) == {"event": "clear", "streamSid": STREAM}


def test_nothing_can_be_sent_before_start() -> None:
    codec = TwilioCodec()
    codec.parse(CONNECTED)
    with pytest.raises(ValueError, match="start"):
        codec.audio(b"\xff" * 160)
    with pytest.raises(ValueError, match="start"):
        codec.mark("m")
    with pytest.raises(ValueError, match="start"):
        codec.clear()


# -- properties ----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "payload",
        "name",
        "digit",
        "timestamp",
        "track",
        "mediaFormat",
        "callSid",
        "streamSid",
        "customParameters",
    ]
)


@st.composite
def nearly_messages(draw: st.DrawFn) -> str:
    """Messages that are right but for a part that is anything at all."""
    event = draw(st.sampled_from(["connected", "start", "media", "mark", "dtmf", "stop", "clear"]))
    content = draw(JSON | st.dictionaries(FIELDS, JSON | st.just("//8=") | st.just(FORMAT), max_size=5))
    return message(event, content, draw(st.just(STREAM) | JSON))


@given(
    st.lists(
        st.text() | st.binary() | JSON.map(json.dumps) | nearly_messages() | st.just(start()), max_size=6
    )
)
def test_no_input_makes_it_raise(messages: list[str | bytes]) -> None:
    codec = TwilioCodec()
    open_ = stopped = False
    for raw in messages:
        for event in codec.parse(raw):
            assert isinstance(event, LineEvent)
            if isinstance(event, LineIgnored):
                assert event.kind
                assert event.detail.isascii()
            elif isinstance(event, LineStarted):
                assert not open_
                open_ = True
            elif not isinstance(event, LineRefused):
                assert open_
                assert not stopped
                stopped = isinstance(event, LineStopped)


@given(
    stream=st.text(min_size=1),
    audio=st.binary(min_size=1, max_size=400),
    name=st.text(),
    parameters=st.dictionaries(st.text(), st.text(), max_size=3),
    frame=st.integers(0, 10**6),
)
def test_both_ends_of_the_wire_understand_each_other(
    stream: str, audio: bytes, name: str, parameters: dict[str, str], frame: int
) -> None:
    far = CarrierCodec(stream=stream, call="CA1", account="AC1", parameters=parameters)
    near = TwilioCodec()
    assert near.parse(far.connected()) == []
    assert near.parse(far.start()) == [LineStarted(stream, "CA1", PHONE, parameters)]
    assert near.parse(far.media(audio, frame)) == [LineAudio(audio, frame * 20)]
    assert near.parse(far.dtmf("*")) == [LineDigit("*")]
    assert near.parse(far.mark(name)) == [LineMark(name)]
    assert far.read(near.audio(audio)) == Play(audio)
    assert far.read(near.mark(name)) == Mark(name)
    assert far.read(near.clear()) == Clear()
    assert isinstance(near.parse(far.stop())[0], LineStopped)


@given(st.text() | st.binary() | JSON.map(json.dumps) | nearly_messages())
def test_the_far_end_never_raises_either(raw: str | bytes) -> None:
    far = CarrierCodec(stream=STREAM, call="CA1", account="AC1", parameters={})
    assert isinstance(far.read(raw), Play | Mark | Clear | Complaint)


def from_server(**fields: Any) -> str:
    return json.dumps({"streamSid": STREAM, **fields})


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\xff", 31950),
        ("{", 31951),
        ("3", 31951),
        (from_server(event="dtmf", dtmf={"digit": "1"}), 31951),
        (from_server(event="clear", streamSid="MZother"), 31951),
        (from_server(event="clear", clear={}), 31951),
        (from_server(event="mark"), 31951),
        (from_server(event="media", media={"payload": "//8=", "track": "outbound"}), 31951),
        (from_server(event="media", media={"payload": "RIFF!"}), 31951),
    ],
)
def test_the_far_end_complains_in_twilios_codes(raw: str | bytes, code: int) -> None:
    complaint = CarrierCodec(stream=STREAM, call="CA1", account="AC1", parameters={}).read(raw)
    assert isinstance(complaint, Complaint)
    assert complaint.code == code
