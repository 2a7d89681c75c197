"""TwiML: what is written reads back as it was meant, whatever the text."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.twilio.twiml import connect_stream, dial, hangup, say, say_and_hangup


def test_connect_stream() -> None:
    document = connect_stream("wss://h.example/ws/T", "https://h.example/after", {"agent": "booking"})
    assert document == (
        '<?xml version="1.0" encoding="UTF-8"?><Response><Connect action="https://h.example/after">'
        '<Stream url="wss://h.example/ws/T"><Parameter name="agent" value="booking"/></Stream>'
        "</Connect></Response>"
    )


def test_connect_stream_with_everything_and_with_nothing() -> None:
    root = ElementTree.fromstring(connect_stream("ws://127.0.0.1:8080/ws/T", None, {}, "/status?a=1&b=2"))
    connect = root.find("Connect")
    assert connect is not None
    assert connect.attrib == {}
    stream = connect.find("Stream")
    assert stream is not None
    assert stream.attrib == {"url": "ws://127.0.0.1:8080/ws/T", "statusCallback": "/status?a=1&b=2"}
    assert list(stream) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h.example/ws/SECRET",
        "https://h.example/ws/SECRET",
        "wss:///ws/SECRET",
        "wss://h.example/ws/SECRET?token=1",
        "wss://h.example/ws/SECRET?",
        "wss://h.example/ws/SECRET#x",
        "wss://h.example/ws/ SECRET",
        "wss://h.example:port/ws/SECRET",
        "wss://[::1/ws/SECRET",
    ],
)
def test_a_stream_url_that_twilio_would_not_open(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        connect_stream(url, None, {})
    assert "SECRET" not in str(caught.value)


def test_say_dial_hangup() -> None:
    assert say("a < b & c").endswith("<Response><Say>a &lt; b &amp; c</Say></Response>")
    assert say_and_hangup("Bye").endswith("<Response><Say>Bye</Say><Hangup/></Response>")
    assert dial("+12025550143").endswith("<Response><Dial>+12025550143</Dial></Response>")
    assert hangup().endswith("<Response><Hangup/></Response>")


@pytest.mark.parametrize("number", ["", "+", "abc", "+1 202", "<Hangup/>", "+1202555014312345", "123\n"])
def test_dial_wants_a_number(number: str) -> None:
    with pytest.raises(ValueError, match="telephone number"):
        dial(number)


def test_what_xml_cannot_hold_is_left_out() -> None:
    root = ElementTree.fromstring(say("a\x00b\x1b\ud800\ufffec\U0001f600").encode())
    assert root.findtext("Say") == "abc\U0001f600"


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=20)


@given(text=TEXT, action=TEXT, parameters=st.dictionaries(TEXT, TEXT, max_size=3))
def test_any_text_survives(text: str, action: str, parameters: dict[str, str]) -> None:
    assert (ElementTree.fromstring(say(text).encode()).findtext("Say") or "") == text
    root = ElementTree.fromstring(connect_stream("wss://h/ws", action, parameters).encode())
    connect = root.find("Connect")
    assert connect is not None
    assert connect.get("action") == action
    assert {item.get("name"): item.get("value") for item in root.iter("Parameter")} == parameters
