"""docs/webhook.md: its Python runs, its example can be read, its tables name what is there."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from processors.twilio.codec import TwilioCodec
from tests.trace_calls import Turner
from tests.vendors.server import Serving
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.trace.recorder import EVENTS_BOUND
from voiceflow.webhook import (
    EndedCall,
    Entry,
    Latency,
    WebhookEvent,
    delivery,
    event,
    post,
    read_event,
    retry,
)
from voiceflow.webhook import signature as signatures
from voiceflow.webhook.endpoint import Endpoint

PAGE = (Path(__file__).parents[1] / "docs" / "webhook.md").read_text(encoding="utf-8")
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def rows() -> dict[str, str]:
    """The tables: first cell to second."""
    found = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): cells[1].strip() for cells in found}


def test_the_example_is_what_is_sent() -> None:
    (example,) = blocks("json")
    told = read_event(example)
    assert json.loads(event.to_json(told)) == json.loads(example)
    assert told.version == event.VERSION


def test_every_field_has_a_row() -> None:
    named = {"data", *re.findall(r"`(\w+)`", " ".join([*rows(), *rows().values()]))}
    for each in (WebhookEvent, EndedCall, Entry, Latency, event.Tool, event.Ending):
        for field in dataclasses.fields(each):
            assert field.name in named, f"{each.__name__}.{field.name}"


def test_the_numbers_are_those_of_the_code() -> None:
    table, policy = rows(), retry.Retry()
    pauses = [min(policy.most, policy.first * policy.growth**n) for n in range(7)]
    words = ", ".join(f"{pause:g}" for pause in pauses[:-1]) + f" and then {pauses[-1]:g} seconds"
    assert words in table["tried again"]
    assert f"within {post.TIMEOUT:g} s" in table["tried again"]
    assert f"{policy.tries} tries" in table["tried again"]
    assert f"up to {retry.RETRY_AFTER_MOST:g} s" in table["`Retry-After`"]
    assert f"{delivery.AT_ONCE} tries; {delivery.WAITING_BOUND} calls" in table["at once"]
    assert f"have {delivery.CLOSING:g} s" in table["when the process stops"]
    assert f"older than {signatures.TOLERANCE:g} s" in PAGE
    assert f"{event.TOOL_TEXT:,} characters" in PAGE
    assert f"{EVENTS_BOUND:,} events" in table["`truncated`"]


def test_the_one_liner_and_the_receiver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A call of the page's pipeline is told to its receiver, once; what somebody else sends is not taken."""
    monkeypatch.setenv("VOICEFLOW_WEBHOOK_SECRET", SECRET)
    declared, receiver = blocks("python")
    names: dict[str, Any] = {"seen": set()}
    call = Call(TwilioCodec(), id="w0-1", caller="+12025550143")
    names["Pipeline"] = lambda *_: Pipeline(call.source(), Turner(), call.sink())
    exec(declared + "\n" + receiver, names)

    class Receiver:
        def routes(self) -> list[web.RouteDef]:
            return [web.post("/calls", names["calls"])]

    async def main() -> None:
        async with Serving(Receiver()) as serving:
            local = Endpoint.of(f"{serving.url}/calls")
            monkeypatch.setattr("voiceflow.webhook.hook.Endpoint.of", lambda url, secret: local)
            call.prepare(names["pipeline"](call))
            await call.abandon("nobody came")
            await call.services.close()
            told = event.event_of(call, id="msg_1", ended=delivery._now(), redact=False)
            body = event.to_json(told)
            for _ in range(2):
                assert not (await post.attempt(post.post, local, "msg_1", body, delivery._now)).problem
            assert (await post.post(local.url, {"webhook-id": "msg_2"}, body)).status == 401

    asyncio.run(main())
    assert capsys.readouterr().out == "+12025550143 nobody came []\n" * 2  # the hook's, and msg_1 once
