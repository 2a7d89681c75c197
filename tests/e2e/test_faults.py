"""Each vendor fails in each way it can, in the middle of a call: the caller is never left in silence for
longer than a stated bound, and a call is lost only when no second try could have saved it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.agents import ANSWERS, GREETING, environment, spoken, vendors
from tests.e2e.conversation import Phone, virtual
from tests.vendors.flux import GARBAGE, UNKNOWN
from tests.vendors.flux import refusal as flux_refusal
from tests.vendors.openai import Fault as ModelFault
from tests.vendors.server import Vendors
from tests.vendors.speaking import Fault as VoiceFault
from tests.vendors.wire import Refusal

SILENCE_BOUND = 8.0
"""Seconds from the caller's last word to some sound of the agent, whatever fails once: the model's patience
of 6 s, or the voice's 3 s and a second try, and the usual second for turn, token and voice."""

Fail = Callable[[Vendors], None]


def voice(kind: str, after: int | None = 0) -> Fail:
    return lambda v: v.elevenlabs.faults.append(VoiceFault(kind, after))  # type: ignore[arg-type]


def model(**fault: object) -> Fail:
    return lambda v: v.llm.faults.append(ModelFault(**fault))  # type: ignore[arg-type]


def everything(*fails: Fail) -> Fail:
    def fail(v: Vendors) -> None:
        for each in fails:
            each(v)

    return fail


SAVED: dict[str, Fail] = {
    "flux drops": lambda v: v.flux.drop(),
    "flux closes with 1011": lambda v: v.flux.shut(1011),
    "flux stalls": lambda v: v.flux.stall(),
    "flux has an error of its own": lambda v: v.flux.fail(),
    "flux speaks unknown messages and garbage": lambda v: setattr(v.flux, "inject", (*UNKNOWN, *GARBAGE)),
    "flux drops and is full for a while": everything(
        lambda v: v.flux.refusals.extend([flux_refusal(429), flux_refusal(503)]), lambda v: v.flux.drop()
    ),
    "flux drops and is slow to come back": everything(
        lambda v: setattr(v.flux, "handshake", 1.5), lambda v: v.flux.drop()
    ),
    "model: 500": model(status=500),
    "model: 429": model(status=429, retry_after=0.2),
    "model is slow": model(ttft=2.5),
    "model: slow tokens": model(gap=0.5),
    "model drops before a word": model(then="drop"),
    "model: odd but right": model(
        extras=True, no_choices=True, blank="null", crlf=True, comments=True, done=False
    ),
    "voice drops": voice("drop"),
    "voice drops in the middle": voice("drop", 2),
    "voice stalls": voice("stall"),
    "voice stalls in the middle": voice("stall", 2),
    "voice closes with 1008": voice("close"),
    "voice has an error": voice("error"),
    "voice sends garbage": voice("garbage", 1),
    "voice sends more than 1 MiB": voice("large", 1),
}
"""After these the caller hears the whole answer all the same."""

SORRY: dict[str, Fail] = {
    "model stalls": everything(*[model(then="stall")] * 3),
    "model stalls after five tokens": model(then="stall", after=5),
    "model breaks off": model(then="error", after=5),
    "model has no such model": model(status=404),
    "model: 503 twice": everything(model(status=503), model(status=503)),
    "model is down": everything(*[model(status=500)] * 5),
}
"""After these the caller hears a sentence that says so, and the next turn is answered as usual."""


@pytest.mark.parametrize("fault", SAVED)
async def test_a_fault_that_a_second_try_mends(virtual_time: None, fault: str) -> None:
    fakes = vendors()
    with environment(fakes):
        async with virtual(fakes, spoken()) as phone:
            await phone.hears_since(GREETING)
            await phone.quiet(0.3)
            SAVED[fault](fakes)
            await phone.said("When do you open?")
            await heard_within(phone, SILENCE_BOUND)
            await phone.hears_since(ANSWERS[0], 20.0)
            assert phone.said_by_caller() == ["When do you open?"]
            await next_turn(phone, ANSWERS[1])
        assert phone.result is not None
        assert phone.result.fault is None
        assert phone.result.normal


@pytest.mark.parametrize("fault", SORRY)
async def test_a_fault_that_nothing_mends_is_told(virtual_time: None, fault: str) -> None:
    fakes = vendors()
    with environment(fakes):
        async with virtual(fakes, spoken()) as phone:
            await phone.hears_since(GREETING)
            await phone.quiet(0.3)
            SORRY[fault](fakes)
            await phone.said("When do you open?")
            await heard_within(phone, SILENCE_BOUND)
            await phone.hears_since("Could you say that again?")
            fakes.llm.faults.clear()
            await phone.quiet(0.3)
            await phone.said("When do you open?")
            await heard_within(phone, SILENCE_BOUND)
            await phone.quiet(0.5)
            assert phone.said_by_agent()[-1] in ANSWERS
        assert phone.result is not None
        assert phone.result.fault is None


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda v: v.flux.refusals.extend([flux_refusal(401)] * 9), "DEEPGRAM_API_KEY is not valid"),
        (lambda v: v.flux.refusals.extend([flux_refusal(402)] * 9), "credit"),
        (lambda v: v.flux.refusals.extend([flux_refusal(403)] * 9), "may not use"),
        (lambda v: v.flux.refusals.extend([flux_refusal(429)] * 99), "too many"),
        (lambda v: v.elevenlabs.refusals.extend([Refusal(401)] * 9), "ELEVENLABS_API_KEY is not valid"),
        (lambda v: setattr(v.elevenlabs, "delay", 1e6), "could not speak, 3 times"),
    ],
)
async def test_a_vendor_that_refuses_for_good_ends_the_call_and_says_what_to_do(
    virtual_time: None, fault: Fail, says: str
) -> None:
    fakes = vendors()
    fault(fakes)
    with environment(fakes):
        async with virtual(fakes, spoken()) as phone:
            await phone.until(lambda: phone.call.fault is not None, "the call fails", 20.0)
        assert phone.result is not None
        assert says in str(phone.result.fault)
        assert not phone.result.normal, "so the carrier's fallback is heard"
        for key in (value for name, value in fakes.environment.items() if name.endswith(("KEY", "TOKEN"))):
            assert key not in str(phone.result.fault)


async def heard_within(phone: Phone, bound: float) -> None:
    """Some sound of the agent comes within `bound` seconds of now, the end of the caller's last word."""
    before = len([e for e in phone.report.events if e.kind == "agent heard"])
    await phone.until(
        lambda: len([e for e in phone.report.events if e.kind == "agent heard"]) > before,
        "the agent speaks",
        bound,
    )


async def next_turn(phone: Phone, answer: str) -> None:
    await phone.quiet(0.3)
    await phone.said("And then?")
    await phone.hears_since(answer)
