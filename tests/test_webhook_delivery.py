"""Delivery: what is told about calls of every ending, when it is tried again, and that no call waits for it.

The first half in virtual time, with a receiver that is a function; the second over real sockets.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from loguru import logger

from processors.twilio.routes import VOICE, TwilioRoutes
from processors.twilio.simulated.caller import SimulatedCaller
from tests.trace_calls import SECRET as API_KEY
from tests.trace_calls import Breaks, Turner, agent, phone, talker
from tests.vendors.receiver import PATH, Drop, FakeReceiver, Hang, Reply
from tests.vendors.server import Serving
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.errors import DeclarationError, LinkError, VoiceflowError
from voiceflow.server.listener import Listener
from voiceflow.server.server import Server, Settings
from voiceflow.services import Services
from voiceflow.testing import run
from voiceflow.tools.tool import Effect
from voiceflow.tools.use import Requested, ToolUse, UseState
from voiceflow.webhook import Webhook, WebhookDelivery, WebhookEvent, delivery, post, read_event, verify
from voiceflow.webhook.delivery import AT_ONCE, CLOSING
from voiceflow.webhook.endpoint import Endpoint
from voiceflow.webhook.event import TOOL_TEXT, VERSION, event_of, to_json
from voiceflow.webhook.retry import Answer, Retry
from voiceflow.webhook.spool import Kept, Spool, kept

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
URL = "https://example.com/calls/9f8e7d6c"
ENDPOINT = Endpoint.of(URL, SECRET)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What is logged, tracebacks and all. No address and no secret may be in it."""
    lines: list[str] = []
    sink = logger.add(
        lambda m: lines.append(str(m)), level="DEBUG", format="{level} {message}\n{exception}", diagnose=True
    )
    yield lines
    logger.remove(sink)
    text = "".join(lines)
    for hidden in ("9f8e7d6c", SECRET, SECRET.removeprefix("whsec_"), "v1,"):
        assert hidden not in text


class Receiver:
    """A receiver in memory: gives its answers in turn, then 204; keeps when each try came."""

    def __init__(self, *answers: Answer | float | None) -> None:
        self.answers = list(answers)
        """A number is that of the seconds until the connection breaks; None never answers."""
        self.tries: list[tuple[float, Mapping[str, str], bytes]] = []
        self.open = self.most_open = 0

    async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        assert url == URL
        stamp = float(headers["webhook-timestamp"])
        assert verify(SECRET, headers, body, now=stamp) == headers["webhook-id"] == json.loads(body)["id"]
        self.tries.append((asyncio.get_running_loop().time(), headers, body))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            answer = self.answers.pop(0) if self.answers else Answer(204)
            if answer is None:
                await asyncio.Event().wait()
            if isinstance(answer, float):
                await asyncio.sleep(answer)
                raise LinkError("it cannot be reached (ConnectionResetError)")
            assert answer is not None
            return answer
        finally:
            self.open -= 1

    @property
    def events(self) -> list[WebhookEvent]:
        return [read_event(body) for _, _, body in self.tries]

    def pauses(self) -> list[float]:
        times = [at for at, _, _ in self.tries]
        return [b - a for a, b in pairwise(times)]


def telling(told: Callable[[Call], Any]) -> Callable[[Call], None]:
    """What a phone is prepared with."""

    def prepare(call: Call) -> None:
        call.on_end(told)

    return prepare


async def one_call(
    told: Callable[[Call], Any], *, seconds: float = 0.0, ends: str = "the caller hung up"
) -> Call:
    async with phone(Turner(), prepare=telling(told), ends=ends) as it:
        await asyncio.sleep(seconds)
    return it.call


async def idle(of: WebhookDelivery) -> None:
    """Waits until nothing is on its way."""
    while of._tasks:
        await asyncio.wait(of._tasks)


# -- what is told -----------------------------------------------------------------------------------------


def test_a_conversation_with_a_tool() -> None:
    async def main() -> None:
        receiver = Receiver()
        told = WebhookDelivery(ENDPOINT, send=receiver)
        chain = agent("It is open until seven. Would you like to come by?", first=0.3)
        async with phone(*chain, prepare=telling(told.ended)) as it:
            it.call.parameters = {"name": "Ada"}
            await it.carrier.speak(1.0)
            await asyncio.sleep(3.0)
            loop = asyncio.get_running_loop()
            use = ToolUse(
                Requested("c1", "opening_hours", '{"day": "Sunday"}'), Effect.READ, 1, UseState.DONE,
                "until seven", loop.time() - 1.0, loop.time() - 0.75,
            )  # fmt: skip
            it.call.history.tool_was_used(use)
            await it.carrier.speak(0.5)  # cuts in
            await asyncio.sleep(0.7)
        await idle(told)
        (event,) = receiver.events
        assert (event.type, event.version) == ("call.ended", VERSION)
        assert event.id.startswith("msg_")
        data = event.data
        assert (data.call, data.carrier_call) == ("w0-7", "c")
        assert (data.caller, data.called, data.parameters) == (
            "+12025550143",
            "+12025550199",
            {"name": "Ada"},
        )
        assert (data.outcome.reason, data.outcome.normal, data.outcome.fault) == (
            "the caller hung up",
            True,
            None,
        )
        assert (data.connected, data.truncated, data.redacted) == (True, False, False)
        assert data.ended == event.timestamp
        assert data.seconds == pytest.approx(it.call.trace.seconds, abs=0.001)
        roles = [entry.role for entry in data.transcript]
        assert roles == ["caller", "agent", "tool", "caller"]  # Detector makes no words, but turns
        (tool,) = [entry for entry in data.transcript if entry.role == "tool"]
        assert tool.tool is not None
        assert (tool.tool.name, tool.tool.effect, tool.tool.state) == ("opening_hours", "read", "done")
        assert (tool.tool.arguments, tool.text, tool.tool.seconds) == (
            '{"day": "Sunday"}',
            "until seven",
            0.25,
        )
        assert tool.at == pytest.approx(0.1 + 1.0 + 3.0 - 1.0, abs=0.01)
        assert [entry.at for entry in data.transcript] == sorted(entry.at for entry in data.transcript)
        assert any(entry.cut for entry in data.transcript if entry.role == "agent")
        assert data.interrupts == 1
        assert (data.latency.turns, data.latency.heard) == (2, 1)
        assert data.latency.since == "last speech"
        assert data.latency.median_ms is not None
        assert sum(data.latency.parts_ms.values()) == pytest.approx(data.latency.median_ms, abs=0.01)
        assert data.figures["interrupts"] == 1
        assert API_KEY.encode() not in receiver.tries[0][2]
        await told.close()

    run(main())


def test_what_the_caller_said_is_told(log: list[str]) -> None:
    async def main() -> None:
        receiver = Receiver()
        told = WebhookDelivery(ENDPOINT, send=receiver)
        async with phone(*talker("Yes, until seven."), prepare=telling(told.ended)) as it:
            it.turn("Are you open on Sunday?")
            await asyncio.sleep(4.0)
        await idle(told)
        entries = receiver.events[0].data.transcript
        assert [(e.role, e.text, e.cut) for e in entries] == [
            ("caller", "Are you open on Sunday?", False),
            ("agent", "Yes, until seven.", False),
        ]

    run(main())
    assert not any("Sunday" in line for line in log)


@pytest.mark.parametrize("redact", [True, False])
def test_a_call_that_died_of_a_fault(redact: bool) -> None:
    """What failed is named; with redaction no word is told, not even one that the fault, a parameter or a
    tool repeats."""

    async def main() -> None:
        receiver = Receiver()
        told = WebhookDelivery(ENDPOINT, redact=redact, send=receiver)
        chain = [Turner(), Breaks(1), *talker()[1:]]
        async with phone(*chain, prepare=telling(told.ended), hang_up=False) as it:
            it.call.parameters = {"name": "Ada Lovelace"}
            use = ToolUse(
                Requested("c1", "book", '{"flavour": "marmalade"}'), Effect.COMMIT, 1, UseState.FAILED,
                f"no marmalade, {API_KEY}", None, asyncio.get_running_loop().time(),
            )  # fmt: skip
            it.call.history.tool_was_used(use)
            it.turn("zebras purchase marmalade")
        await idle(told)
        data = receiver.events[0].data
        assert not data.outcome.normal
        assert data.outcome.fault is not None
        assert data.outcome.fault.startswith("Breaks failed in ")
        assert data.outcome.reason == data.outcome.fault
        assert data.redacted == redact
        text = receiver.tries[0][2].decode()
        assert API_KEY not in text
        for word in ("zebras", "marmalade", "Lovelace", "0143"):
            assert (word in text) != redact
        if redact:
            assert [e.text for e in data.transcript] == ["[3 words]", "[3 words]"]
            (tool,) = [entry.tool for entry in data.transcript if entry.tool is not None]
            assert (tool.name, tool.arguments) == ("book", "[2 words]")
            assert (data.caller, data.parameters) == ("…43", {"name": "[2 words]"})

    run(main())


def test_a_call_whose_stream_never_came() -> None:
    async def main() -> None:
        receiver = Receiver()
        told = WebhookDelivery(ENDPOINT, send=receiver)
        async with phone(Turner()) as it:
            pass
        call = Call(it.call.line.codec, id="w0-8", caller="+12025550143")
        call.on_end(told.ended)
        call.prepare(Pipeline(call.source(), Turner(), call.sink()))
        await call.abandon("its stream never came")
        await idle(told)
        (event,) = receiver.events
        assert (event.data.call, event.data.connected) == ("w0-8", False)
        assert event.data.outcome.reason == "its stream never came"
        assert (event.data.transcript, event.data.latency.median_ms) == ([], None)

    run(main())


def test_texts_that_are_no_utf_8_too_long_or_no_number() -> None:
    async def main() -> None:
        receiver = Receiver()
        told = WebhookDelivery(ENDPOINT, send=receiver)
        async with phone(Turner(), prepare=telling(told.ended)) as it:
            for arguments in ("\ud800", "x" * (TOOL_TEXT + 1)):
                it.call.history.tool_was_used(ToolUse(Requested("c", "f", arguments), Effect.READ))
            it.turn("half \ud83d of it")
            it.call._pipeline.chain[1].figures = lambda: {"bad": float("nan"), "good": 1.0}  # type: ignore
        await idle(told)
        data = receiver.events[0].data
        assert {"bad", "good"} & {name.rpartition(".")[2] for name in data.figures} == {"good"}
        said, *tools = sorted(data.transcript, key=lambda entry: entry.role)
        assert said.text == "half ? of it"
        assert [(t.tool.state, t.at) for t in tools if t.tool] == [("waiting", data.seconds)] * 2
        assert [len(t.tool.arguments) for t in tools if t.tool] == [1, TOOL_TEXT + 3]

    run(main())


def test_read_event_refuses_what_is_none() -> None:
    async def main() -> None:
        call = await one_call(lambda call: None)
        body = to_json(event_of(call, id="msg_1", ended=delivery._now(), redact=False))
        assert read_event(body) == read_event(body.decode())
        newer = {**json.loads(body), "more": 1}
        assert read_event(json.dumps(newer)).id == "msg_1"  # fields that are not known are passed over
        for wrong in ({"version": VERSION + 1}, {"type": "call.began"}, {"data": 1}):
            with pytest.raises(VoiceflowError):
                read_event(json.dumps({**newer, **wrong}))
        for broken in (b"", b"\xff", b"[]", b"{}"):
            with pytest.raises(VoiceflowError, match="no webhook of ours"):
                read_event(broken)

    run(main())


# -- when it is tried again -------------------------------------------------------------------------------


def test_again_until_it_is_taken_with_the_same_id(log: list[str]) -> None:
    async def main() -> None:
        receiver = Receiver(Answer(500), 15.0, Answer(503), 0.0, Answer(408))
        told = WebhookDelivery(ENDPOINT, send=receiver)
        await one_call(told.ended)
        await idle(told)
        assert len({headers["webhook-id"] for _, headers, _ in receiver.tries}) == 1
        assert len({body for _, _, body in receiver.tries}) == 1
        pauses = receiver.pauses()
        pauses[1] -= 15.0  # that try took so long
        for pause, exact in zip(pauses, (1, 3, 9, 27, 81), strict=True):
            assert exact / 2 <= pause <= exact
        assert told.figures() == {"delivered": 1, "failed": 0, "retries": 5, "waiting": 0}

    run(main())
    assert [line for line in log if "webhook" in line and line.startswith("WARNING")] == [
        "WARNING webhook: example.com answered HTTP 500; it is tried again\n\n"
    ]


def test_the_jitter_is_the_call_s_own() -> None:
    async def pauses() -> list[float]:
        receiver = Receiver(*[Answer(500)] * 3)
        told = WebhookDelivery(ENDPOINT, send=receiver)
        await one_call(told.ended)
        await idle(told)
        return receiver.pauses()

    assert run(pauses()) == run(pauses())  # the call's seed is the same


def test_given_up_after_so_many_tries(log: list[str]) -> None:
    async def main() -> None:
        receiver = Receiver(*[Answer(500)] * 100)
        told = WebhookDelivery(ENDPOINT, send=receiver, retry=Retry(tries=4))
        await one_call(told.ended)
        await idle(told)
        assert len(receiver.tries) == 4
        assert told.figures()["failed"] == 1

    run(main())
    (error,) = [line for line in log if line.startswith("ERROR")]
    assert "example.com answered HTTP 500; it was tried 4 times; it is lost" in error


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410, 413])
def test_what_is_final_is_told_once(log: list[str], status: int) -> None:
    async def main() -> None:
        receiver = Receiver(Answer(status, "1"))
        told = WebhookDelivery(ENDPOINT, send=receiver)
        await one_call(told.ended)
        await idle(told)
        assert len(receiver.tries) == 1

    run(main())
    (error,) = [line for line in log if line.startswith(("ERROR", "WARNING"))]
    assert f"its webhook was not delivered: example.com answered HTTP {status}: " in error


def test_a_receiver_that_asks_for_time_is_given_it() -> None:
    async def main() -> None:
        receiver = Receiver(Answer(429, "50"), Answer(503, "86400"), Answer(503, "0"))
        told = WebhookDelivery(ENDPOINT, send=receiver)
        await one_call(told.ended)
        await idle(told)
        first, second, third = receiver.pauses()
        assert (first, second) == (50, 600)
        assert 4.5 <= third <= 9

    run(main())


def test_bounds(monkeypatch: pytest.MonkeyPatch, log: list[str], tmp_path: Path) -> None:
    """A receiver that never answers: so many at once, so many waiting; more are kept on disk, or lost."""
    monkeypatch.setattr(delivery, "WAITING_BOUND", 12)

    async def main() -> None:
        for spool in (None, Spool(tmp_path)):
            receiver = Receiver(*[None] * 100)
            told = WebhookDelivery(ENDPOINT, send=receiver, spool=spool)
            call = await one_call(lambda call: None)
            for number in range(30):
                told._told.clear()
                call.id = f"w0-{number}"
                told.ended(call)
            assert len(told._tasks) == (24 if spool else 12)
            await asyncio.sleep(1.0)
            assert receiver.most_open == AT_ONCE
            assert len(told._tasks) == 12
            await told.close()
            assert not told._tasks
            assert told.figures() == {"delivered": 0, "failed": 30, "retries": 0, "waiting": 0}
        assert len(list(kept(tmp_path))) == 24

    run(main())
    assert sum("its webhook is lost: 12 wait for example.com" in line for line in log) == 18
    assert sum("its webhook is lost: 24 wait for example.com" in line for line in log) == 6
    assert sum("12 wait for example.com; it is kept: voiceflow webhook resend" in line for line in log) == 12


# -- the end ----------------------------------------------------------------------------------------------


def test_no_call_waits_for_it() -> None:
    async def main() -> None:
        receiver = Receiver(None)
        told = WebhookDelivery(ENDPOINT, send=receiver)
        loop = asyncio.get_running_loop()
        async with phone(Turner(), prepare=telling(told.ended)) as it:
            began = loop.time()
        assert loop.time() == began  # in virtual time: not a moment
        assert it.result is not None
        assert it.call.phase.value == "over"
        await told.close()

    run(main())


def test_closing_tries_once_more_at_once_what_waits(log: list[str], tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        receiver = Receiver(Answer(500), Answer(500), Answer(500), Answer(500))
        told = WebhookDelivery(ENDPOINT, send=receiver)
        await one_call(told.ended)
        await asyncio.sleep(4.2)  # between the third try and the fourth
        began = loop.time()
        await told.close()
        assert loop.time() - began == pytest.approx(1.0)
        assert receiver.pauses()[-1] == pytest.approx(1.0)
        assert told.figures()["delivered"] == 1

    run(main())


def test_closing_is_bounded_and_what_is_left_is_kept(log: list[str], tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        receiver = Receiver(None, Answer(429, "60"), None)
        told = WebhookDelivery(ENDPOINT, send=receiver, spool=Spool(tmp_path))
        for _ in range(3):
            await one_call(told.ended)
        await asyncio.sleep(5.0)
        began = loop.time()
        await told.close()
        assert loop.time() - began == pytest.approx(CLOSING)
        await told.close()
        assert len(receiver.tries) == 3  # who asked for a minute is not asked again
        ids = {found.id for found in kept(tmp_path) if isinstance(found, Kept)}
        assert ids == {headers["webhook-id"] for _, headers, _ in receiver.tries}

    run(main())
    errors = [line for line in log if line.startswith("ERROR")]
    assert len(errors) == 3
    assert all(f"it is kept: voiceflow webhook resend {tmp_path}" in line for line in errors)


def test_what_was_taken_is_kept_no_longer_and_a_full_disk_costs_only_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    async def main() -> None:
        receiver = Receiver(Answer(500))
        told = WebhookDelivery(ENDPOINT, send=receiver, spool=Spool(tmp_path))
        await one_call(told.ended)
        await asyncio.sleep(0.1)
        (waiting,) = kept(tmp_path)
        assert isinstance(waiting, Kept)
        assert (waiting.body, waiting.call) == (receiver.tries[0][2], "w0-7")
        assert SECRET.removeprefix("whsec_") not in waiting.path.read_text()
        await idle(told)
        assert list(kept(tmp_path)) == []

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("voiceflow.webhook.spool.write_private", full)
        await one_call(told.ended)
        await idle(told)
        assert told.figures()["delivered"] == 2

    run(main())
    assert any("its webhook cannot be kept in" in line and "No space left" in line for line in log)


def test_a_fault_of_ours_is_told_and_harms_no_call(monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        told = WebhookDelivery(ENDPOINT, send=Receiver())
        with monkeypatch.context() as patch:
            patch.setattr(delivery, "event_of", broken)
            assert (await one_call(told.ended)).fault is None
            await idle(told)
        await one_call(told.ended)
        await idle(told)
        assert (told.delivered, told.failed) == (1, 1)

    run(main())
    assert any("its webhook was not delivered: ZeroDivisionError" in line for line in log)


# -- in a pipeline file -----------------------------------------------------------------------------------


def test_the_one_liner_shares_one_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver(Answer(500))
    monkeypatch.setattr(WebhookDelivery.__init__, "__kwdefaults__", {
        **(WebhookDelivery.__init__.__kwdefaults__ or {}), "send": receiver,
    })  # fmt: skip

    async def main() -> None:
        services = Services()
        told: list[WebhookDelivery] = []
        async with phone(Turner()) as it:
            codec = it.call.line.codec
        for number in range(3):
            call = Call(codec, id=f"w0-{number}", services=services)
            hook = Webhook(URL, secret=SECRET)
            call.on_end(hook)
            call.on_end(Webhook(URL, secret=SECRET))  # declared twice: told once
            call.prepare(Pipeline(call.source(), Turner(), call.sink()))
            await call.abandon("nobody came")
            told.append(hook.delivery(call))
        assert len({id(each) for each in told}) == 1
        await services.close()  # the one that waits for its second try is tried now
        assert told[0].figures() == {"delivered": 3, "failed": 0, "retries": 1, "waiting": 0}
        assert services.figures() == {}

    run(main())


def test_the_one_liner_is_checked_before_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="VOICEFLOW_WEBHOOK_URL"):
        Webhook()
    with pytest.raises(DeclarationError, match="VOICEFLOW_WEBHOOK_SECRET is not set"):
        Webhook(URL)
    monkeypatch.setenv("VOICEFLOW_WEBHOOK_URL", URL)
    monkeypatch.setenv("VOICEFLOW_WEBHOOK_SECRET", SECRET)
    assert Webhook().endpoint == ENDPOINT
    for value, redact in (("1", True), ("Yes", True), ("0", False), ("", False)):
        monkeypatch.setenv("VOICEFLOW_REDACT", value)
        assert Webhook().redact is redact
        assert Webhook(redact=True).redact
    (tmp_path / "file").write_text("")
    with pytest.raises(VoiceflowError, match="cannot be kept"):
        Webhook(spool=tmp_path / "file" / "x")


# -- over real sockets ------------------------------------------------------------------------------------


QUICK = Retry(first=0.02)


def real(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    asyncio.run(bounded())


@asynccontextmanager
async def receiving(
    *script: Reply | Hang | Drop, **options: Any
) -> AsyncIterator[tuple[FakeReceiver, WebhookDelivery]]:
    receiver = FakeReceiver(SECRET)
    receiver.script.extend(script)
    async with Serving(receiver) as serving:
        told = WebhookDelivery(Endpoint.of(serving.url + PATH, SECRET), **{"retry": QUICK, **options})
        yield receiver, told
        await told.close()


def test_signed_and_taken(log: list[str]) -> None:
    async def main() -> None:
        async with receiving() as (receiver, told):
            await one_call(told.ended)
            (request,) = await receiver.until(1)
            assert request.genuine
            assert verify(SECRET, request.headers, request.body) == request.id == request.event["id"]
            assert request.headers["content-type"] == "application/json"
            assert request.headers["user-agent"].startswith("voiceflow/")
            assert "cookie" not in request.headers
            await idle(told)
            assert told.delivered == 1

    real(main())


def test_after_an_error_a_dropped_connection_and_a_timeout(
    monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    monkeypatch.setattr(post, "TIMEOUT", 0.2)

    async def main() -> None:
        async with receiving(Reply(500), Drop(), Hang(), Drop(after=True)) as (receiver, told):
            await one_call(told.ended)
            requests = await receiver.until(5)
            await idle(told)
            assert len({r.id for r in requests}) == 1
            assert all(r.genuine for r in requests)
            assert len(receiver.events()) == 1  # it took it twice, and can tell
            assert told.figures() == {"delivered": 1, "failed": 0, "retries": 4, "waiting": 0}

    real(main())


def test_nobody_listens(log: list[str]) -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/9f8e7d6c"
            told = WebhookDelivery(Endpoint.of(url, SECRET), retry=Retry(tries=2, first=0.01))
            await one_call(told.ended)
            await idle(told)
            assert told.failed == 1

    real(main())
    assert any("it cannot be reached (ClientConnectorError); it was tried 2 times" in line for line in log)


def test_whatever_goes_wrong_shows_no_address(monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
    def broken(self: aiohttp.ClientSession, url: Any, **_: Any) -> None:
        raise RuntimeError(f"cannot post to {url} with {SECRET}")

    monkeypatch.setattr(aiohttp.ClientSession, "post", broken)

    async def main() -> None:
        told = WebhookDelivery(ENDPOINT, retry=Retry(tries=2, first=0.01))
        await one_call(told.ended)
        await idle(told)
        assert told.failed == 1

    real(main())
    assert any("it cannot be reached (RuntimeError); it was tried 2 times" in line for line in log)


def test_redirects_are_not_followed(log: list[str]) -> None:
    async def main() -> None:
        async with receiving(Reply(307, {"Location": "/elsewhere"})) as (receiver, told):
            await one_call(told.ended)
            await idle(told)
            assert (len(receiver.requests), receiver.strays) == (1, [])

    real(main())
    assert any("HTTP 307: it leads to another address: give that one" in line for line in log)


def test_a_body_without_end_is_not_read(log: list[str]) -> None:
    """Neither that of a success nor that of an error; and it is quoted nowhere."""

    async def main() -> None:
        async with receiving(Reply(200, endless=True), Reply(400, endless=True)) as (_, told):
            await one_call(told.ended)
            await one_call(told.ended)
            await idle(told)
            assert (told.delivered, told.failed) == (1, 1)

    real(main())
    assert "xxx" not in "".join(log)


def test_not_again_after_400_and_not_before_retry_after(log: list[str]) -> None:
    async def main() -> None:
        async with receiving(Reply(400, body=b"you said marmalade")) as (receiver, told):
            await one_call(told.ended)
            await idle(told)
            assert len(receiver.requests) == 1
            receiver.script.append(Reply(429, {"Retry-After": "1"}))
            await one_call(told.ended)
            _, first, second = await receiver.until(3)
            await idle(told)
            assert second.at - first.at >= 1.0  # by no timer of ours: the receiver's own clock
            assert told.delivered == 1

    real(main())
    assert "marmalade" not in "".join(log)


def test_a_server_that_stops_while_it_delivers(tmp_path: Path, log: list[str]) -> None:
    """A real server with two calls: both are told at its end, though the receiver is down just then; the one
    that is announced and never came is told, too."""

    async def main() -> None:
        receiver = FakeReceiver(SECRET)
        receiver.script.extend([Reply(503), Drop()])
        async with Serving(receiver) as serving:
            hook = Webhook(serving.url + PATH, secret=SECRET, spool=tmp_path)

            def make(call: Call) -> Pipeline:
                call.on_end(hook)
                return Pipeline(call.source(), Turner(), call.sink())

            server = Server(SimpleNamespace(make=make), Settings(drain=0.1))
            routes = TwilioRoutes(server, auth_token=None)
            async with (
                Listener(server, routes.routes(), host="127.0.0.1", port=0) as listener,
                SimulatedCaller(listener.url + VOICE) as first,
                SimulatedCaller(listener.url + VOICE) as second,
            ):
                await first.wait_for("stream started")
                await second.wait_for("stream started")
                form = {"CallSid": "CA" + "7" * 32, "From": "+12025550143"}
                async with aiohttp.ClientSession() as http, http.post(listener.url + VOICE, data=form):
                    pass
                await server.drain()
            # left: the listener, and with it the services and what they share
            events = receiver.events()
            assert sorted(e["data"]["connected"] for e in events) == [False, True, True]
            assert {e["data"]["outcome"]["reason"] for e in events} == {"the server is shutting down"}
            assert not any(e["data"]["outcome"]["normal"] for e in events if e["data"]["connected"])
            assert all(e["data"]["carrier_call"].startswith("CA") for e in events)

    real(main())
    assert list(tmp_path.iterdir()) == []


def test_a_receiver_that_never_answers_delays_nothing(log: list[str]) -> None:
    async def main() -> None:
        async with receiving(*[Hang()] * 20) as (receiver, told):
            for _ in range(AT_ONCE + 4):
                call = await one_call(told.ended)
                assert call.phase.value == "over"
                assert told._tasks  # nothing of it is over
            await receiver.until(AT_ONCE)
            assert receiver.most_open == AT_ONCE
            for task in told._tasks:
                task.cancel()
            await asyncio.wait(told._tasks)

    real(main())


def test_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine is reached through it: it is asked for a tunnel, and for this machine it is not."""
    asked: list[bytes] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        writer.close()

    async def main() -> None:
        proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
        async with proxy:
            address = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
            monkeypatch.setenv("https_proxy", address)
            monkeypatch.setenv("http_proxy", address)
            monkeypatch.setenv("no_proxy", "")
            with pytest.raises(LinkError, match="cannot be reached"):
                await post.post("https://receiver.example/9f8e7d6c", {}, b"{}")
            assert asked == [b"CONNECT receiver.example:443 HTTP/1.1\r\n"]
            async with receiving() as (receiver, told):
                await one_call(told.ended)
                await receiver.until(1)
            assert len(asked) == 1

    real(main())
