"""The recordings that come with voiceflow: people for the demo and the tests, and the agent's answer."""

from __future__ import annotations

from pathlib import Path

from voiceflow.errors import VoiceflowError


def speech(name: str) -> Path:
    """The WAV called `name` (8 kHz, 16-bit, mono), with or without ".wav".

    What there is, and what is said in it: speech/README.md beside this file. VoiceflowError for an
    unknown name; the message lists the known ones.
    """
    from importlib.resources import files

    # voiceflow is always installed unpacked, so a resource is a file; a zip import would not get this far.
    folder = Path(str(files(__name__))) / "speech"
    known = {path.stem: path for path in sorted(folder.glob("*.wav"))}
    path = known.get(name.removesuffix(".wav"))
    if path is None:
        raise VoiceflowError(f'there is no recording "{name}"; there are {", ".join(known)}')
    return path
