"""The Python of docs/local.md runs as it stands."""

from __future__ import annotations

import asyncio
import importlib
import re
from pathlib import Path

import numpy as np

from processors.smart_turn import detector
from processors.twilio.codec import TwilioCodec
from voiceflow import AudioIn, VoiceStart, VoiceStop
from voiceflow.audio import encode
from voiceflow.call import Call
from voiceflow.testing import check_processor
from voiceflow.testing.rig import Rig

PAGE = (Path(__file__).parents[2] / "docs" / "local.md").read_text(encoding="utf-8")
CHAIN, GUESS, OWN = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_chain_and_the_guess(monkeypatch, tmp_path):
    monkeypatch.setattr(detector, "find", lambda path: tmp_path)
    names: dict = {}
    exec(CHAIN + GUESS, names)
    assert names["pipeline"](Call(TwilioCodec())).warnings == []
    assert [type(each).__name__ for each in names["hearing"]] == [
        "SileroVAD",
        "SmartTurn",
        "MoonshineSTT",
        "VADTurns",
    ]


async def test_a_model_of_ones_own(virtual_time, monkeypatch, tmp_path):
    (tmp_path / "processors").mkdir()
    (tmp_path / "processors/loudness.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("processors.loudness")
    loudness = own.Loudness()
    tone = (8000 * np.sqrt(2) * np.sin(np.arange(160) * 2 * np.pi / 20)).astype(np.int16)
    async with Rig(loudness) as rig:
        rig.push(VoiceStart(0), *(AudioIn(encode(tone), at) for at in range(0, 8000, 160)), VoiceStop(8000))
        await asyncio.sleep(0.1)
    assert 7500 < loudness.measured[0] < 8500


def test_it_conforms(monkeypatch, tmp_path):
    (tmp_path / "processors").mkdir()
    (tmp_path / "processors/loudness.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    check_processor(importlib.import_module("processors.loudness").Loudness)
