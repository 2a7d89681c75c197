"""Records calls: a stereo WAV file and a transcript. `from processors.recording import Recording`."""

from processors.recording.processor import Recording

__all__ = ["Recording"]
