from __future__ import annotations

import wave

import numpy as np
import pytest

from voiceflow.assets import speech
from voiceflow.audio import read_wav
from voiceflow.errors import VoiceflowError

NAMES = ["answer", "go_forward_ten_meters", "ten_of_clubs", "three_cards"]


@pytest.mark.parametrize("name", NAMES)
def test_every_recording_is_ready_for_the_phone(name: str) -> None:
    path = speech(name)
    assert path == speech(f"{name}.wav")
    with wave.open(str(path), "rb") as source:
        assert source.getparams()[:3] == (1, 2, 8_000)
    peak = np.abs(read_wav(path).astype(int)).max() / 32_768
    assert 20 * np.log10(peak) == pytest.approx(-6, abs=0.1)


def test_every_recording_is_described_and_licensed() -> None:
    folder = speech("answer").parent
    assert sorted(path.stem for path in folder.glob("*.wav")) == NAMES
    readme = (folder / "README.md").read_text()
    assert all(f"`{name}.wav`" in readme for name in NAMES)
    assert "Carnegie Mellon University" in (folder / "LICENSE").read_text()


def test_an_unknown_recording_is_refused_with_the_known_ones() -> None:
    with pytest.raises(VoiceflowError, match="answer, go_forward_ten_meters, ten_of_clubs, three_cards"):
        speech("../../errors")
