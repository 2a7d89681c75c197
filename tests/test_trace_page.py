"""The page of a call: complete without a script, closed to whatever was said, and it loads nothing."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import pytest
from trace_calls import phone, talker

from voiceflow.testing import run
from voiceflow.trace.file import CallRecord, Part, TurnRecord, from_json, record_of, to_json
from voiceflow.trace.page import page
from voiceflow.trace.path import Step
from voiceflow.trace.recorder import Event, Outcome
from voiceflow.trace.text import plain

STARTED = "2026-11-22T10:15:30.123+00:00"
VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = [
    "</script><script>alert(1)</script>",
    "</style></title><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "' autofocus onfocus='alert(1)",
    "<!-- <b>",
    "]]>&lt;&#x3c;script&gt;",
    "javascript:alert(1)",
    "שלום \u202e evil \u2066",
    "\x00\x1b[31m\u2028\ud800",
]


class Dom(HTMLParser):
    """The page as elements, each closed as it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def of_class(self, name: str) -> list[dict[str, str]]:
        return [attrs for _, attrs in self.elements if name in attrs.get("class", "").split()]


def one_call(*, redact: bool = False) -> CallRecord:
    async def main() -> CallRecord:
        answers = (
            "It is open until seven.",
            "You can park behind the harbour, under the bridge.",
            "Wonderful.",
        )
        async with phone(*talker(*answers), delay=0.02) as p:
            await p.call.say("Harbour bakery.")
            p.turn("When are you there", spoke=0.3)
            await asyncio.sleep(3)
            p.turn("Where can I park")
            await asyncio.sleep(2)
            p.turns.started()
            p.turns.may_be_over("Thank")
            await asyncio.sleep(0.2)
            p.turns.resumed()
            p.turns.ended("Thanks a million")
            await asyncio.sleep(1.0)
        return record_of(p.call, STARTED, redact=redact, pools={"voice": {"hits": 3}})

    return run(main())


@pytest.fixture(scope="module")
def record() -> CallRecord:
    return one_call()


def test_what_it_shows(record):
    dom = Dom(page(record))
    for words in (
        "Call w0-7", "22 November 2026, 10:15:30 UTC", "+12025550143", "the caller hung up", "Median gap",
        "90th percentile", "Barge-ins", "When are you there", "It is open until seven.",
        "You can park behind the", "harbour, under the bridge.", "by itself", "Aggregator", "LineSink",
        "dropped: the caller went on", "voice: hits",
    ):  # fmt: skip
        assert words in dom.text, words
    assert re.search(r"✂ cut by the caller after 1\.\d s", dom.text)
    assert "harbour, under the bridge." in re.sub(
        r"<.?bdi>", "", "".join(re.findall(r"<s>.*?</s>", page(record)))
    )
    rows = [attrs["id"] for attrs in dom.of_class("turn") if "id" in attrs]
    assert rows == [f"r{turn.reply}" for turn in record.turns]


def test_the_bars_are_to_scale_and_their_numbers_sum(record):
    text = page(record)
    bars = re.findall(r'<div class="bar".*?</div>', text)
    longest = max(sum(part.ms for part in turn.parts) for turn in record.turns if not turn.dropped)
    shown = [turn for turn in record.turns if turn.parts and not turn.dropped]
    assert len(bars) == len(shown) + 1  # and the medians
    for bar, turn in zip(bars, shown, strict=False):
        widths = [float(width) for width in re.findall(r"width:([\d.]+)%", bar)]
        lefts = [float(left) for left in re.findall(r"left:([\d.]+)%", bar)]
        assert widths == pytest.approx([part.ms / longest * 100 for part in turn.parts], abs=0.001)
        assert lefts == pytest.approx([sum(widths[:i]) for i in range(len(widths))], abs=0.01)
        numbers = [int(number) for number in re.findall(r'data-ms="(\d+)"', bar)]
        assert sum(numbers) == round(sum(part.ms for part in turn.parts))
        assert f"{turn.gap_ms:.0f} ms" in bar if turn.gap_ms is not None else "not heard" in bar


def test_it_loads_nothing_and_runs_nothing_else(record):
    text = page(record)
    dom = Dom(text)
    assert not [attrs for _, attrs in dom.elements if "src" in attrs or "srcset" in attrs]
    assert all(attrs["href"].startswith("#") for _, attrs in dom.elements if "href" in attrs)
    assert not dom.all("link")
    assert not re.search(r"https?:|//[a-z]|url\(|@import|fetch\(|innerHTML|eval\(", text)
    assert not [name for _, attrs in dom.elements for name in attrs if name.startswith("on")]
    (policy,) = (attrs["content"] for attrs in dom.all("meta") if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_names_for_those_who_cannot_see_it(record):
    dom = Dom(page(record))
    assert dom.all("html")[0]["lang"] == "en"
    ids = [attrs["id"] for _, attrs in dom.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in dom.elements:
        if attrs.get("href"):
            assert attrs["href"][1:] in ids
            assert attrs["aria-label"]
        if attrs.get("aria-labelledby"):
            assert attrs["aria-labelledby"] in ids
        if attrs.get("role") == "img" or "tabindex" in attrs:
            assert attrs["aria-label"]
    bars = dom.of_class("bar")
    assert bars[1]["aria-label"].startswith("turn 1: ")
    assert "end of turn 3" in bars[1]["aria-label"]  # 0.3 s and what of a packet had come
    # Every number of a bar is in a table too, for whom neither hovers nor runs scripts.
    assert len(dom.all("details")) == len(bars) + 1
    headings = [tag for tag, _ in dom.elements if tag in ("h1", "h2", "h3")]
    assert headings[:2] == ["h1", "h2"]


def hostile(record: CallRecord, text: str) -> CallRecord:
    """The record with `text` wherever a string from outside can be."""
    turns = [
        dataclasses.replace(
            turn,
            asked=text,
            heard=text,
            lost=text,
            cut=text if turn.cut else "",
            parts=[dataclasses.replace(part, owner=text) for part in turn.parts],
        )
        for turn in record.turns
    ]
    events = [dataclasses.replace(e, kind=text, owner=text, words=text, detail=text) for e in record.events]
    return dataclasses.replace(
        record, call=text, started=text, caller=text, called=text, chain=[text, text], turns=turns,
        events=[*events, *record.events], outcome=Outcome(text, text, False), figures={text: 1.0},
        pools={text: {text: 2.0}}, voiceflow=text,
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_was_said_is_only_text(record, text):
    clean, dom = Dom(page(record)), Dom(page(hostile(record, text)))
    for tag in ("script", "style", "img", "title", "b", "body"):
        assert len(dom.all(tag)) == len(clean.all(tag)), tag
    allowed = {name for _, attrs in clean.elements for name in attrs}
    assert {name for _, attrs in dom.elements for name in attrs} <= allowed
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\u2028\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page(hostile(record, text))
    )
    assert dom.text.count(plain(text)) > 20


def test_words_have_their_own_direction_of_writing(record):
    text = page(hostile(record, "שלום עולם"))
    assert '<bdi dir="auto">שלום עולם</bdi>' in text


def test_redacted():
    text = page(one_call(redact=True))
    assert "What was said is replaced by its count." in text
    assert "[4 words]" in text
    assert not re.search("harbour|bakery|wonderful|million|555", text.lower())


def test_a_call_in_which_nothing_happened():
    empty = CallRecord("w0-1", "some day", 0.0, "", "", [], Outcome(""), [], [], [])
    dom = Dom(page(empty))
    assert "The agent never had a turn." in dom.text
    assert "nothing was heard" in dom.text
    assert "some day" in dom.text


@pytest.mark.parametrize("ms", [-5.0, 0.0, 1e-9, 1e12])
def test_strange_numbers(ms):
    turn = TurnRecord(1, 1, -1.0, Step.LAST_SPEECH, -2.0, ms, [Part(Step.HEARD, "x", ms)], over=-9.0)
    strange = CallRecord(
        "c", "", -1.0, "", "", [], Outcome("r"), [turn, turn], [], [Event(-1.0, "caller speaks", turn=1)]
    )
    dom = Dom(page(from_json(to_json(strange).encode())))
    for attrs in dom.of_class("part") + dom.all("a"):
        assert all(0 <= float(number) <= 100 for number in re.findall(r"([-\d.]+)%", attrs["style"]))
