"""The caller of `voiceflow demo`: what is said to the receptionist, and when.

recording ─┐
HibariTTS ─┴▶ Remark, Remark, ... ─▶ SimulatedCaller, each when the agent was heard out
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voiceflow.assets import speech
from voiceflow.audio import read_wav
from voiceflow.cli.dial import MOMENT, voiced
from voiceflow.errors import LinkError
from voiceflow.frames import PHONE
from voiceflow.models import ModelHost

if TYPE_CHECKING:
    from processors.twilio.simulated.caller import SimulatedCaller
    from processors.twilio.simulated.report import Samples

ANSWER = 15.0
"""Seconds within which the agent begins each answer."""
LONGEST = 30.0
"""Seconds within which it has finished an answer, and at the end has hung up."""
SAYING = 0.1
"""Seconds that a sentence takes to be made, about."""
LOUD = 16_384
"""Peak of a spoken remark: -6 dBFS, as that of the recordings."""


@dataclass(slots=True, frozen=True)
class Remark:
    """Something the caller says. `recording`: of a person; otherwise the model speaks it. `into`: so many
    seconds after the agent has begun to speak, which is to interrupt it; None: when it has finished."""

    words: str
    recording: str = ""
    into: float | None = None


REMARKS = (
    Remark("Go forward ten meters.", recording="go_forward_ten_meters"),
    Remark("When are you open?"),
    Remark("Can I come in on Thursday, at ten in the morning?", into=2.0),
    Remark("My name is Anna Miller."),
    Remark("Yes, please."),
    Remark("Thank you, goodbye!"),
)


async def speak(host: ModelHost, remarks: Sequence[Remark] = REMARKS) -> AsyncIterator[Samples]:
    """What each remark sounds like at 8 kHz, without silence at its ends. ModelError when the model fails."""
    import numpy as np
    import soxr

    from processors.hibari.model import RATE
    from processors.hibari.tts import HibariTTS

    for remark in remarks:
        if remark.recording:
            yield voiced(read_wav(speech(remark.recording)))
            continue
        pieces = host.stream(HibariTTS.model, "speak", remark.words, cost=SAYING)
        async with aclosing(pieces) as spoken:
            pcm = b"".join([piece async for piece in spoken])
        samples = soxr.resample(np.frombuffer(pcm, np.int16).astype(np.float64), RATE, PHONE.rate)
        scaled = samples * (LOUD / max(1.0, float(np.abs(samples).max(initial=0.0))))
        yield voiced(scaled.astype(np.int16))


async def converse(
    phone: SimulatedCaller, sounds: Sequence[Samples], remarks: Sequence[Remark] = REMARKS
) -> None:
    """Says all of it, then waits for the agent to hang up. LinkError when it does not in time, when an answer
    does not come or does not end, and when it hangs up before."""
    for remark, samples in zip(remarks, sounds, strict=True):
        await phone.wait_for("agent heard", timeout=ANSWER)
        if remark.into is None:
            await _heard_out(phone)
        else:
            await asyncio.sleep(remark.into)
        await phone.say(samples)
        await phone.wait_for("caller stops")
    await phone.wait_for("hung up", timeout=LONGEST)


async def _heard_out(phone: SimulatedCaller) -> None:
    """Waits until the agent has been silent for a MOMENT: between two sentences it may be, for less."""
    await phone.wait_for("agent silent", timeout=LONGEST)
    while True:
        try:
            await phone.wait_for("agent heard", timeout=MOMENT)
        except LinkError:
            if phone.over:
                raise
            return
        await phone.wait_for("agent silent", timeout=LONGEST)
