"""Speech to text and turn taking by Deepgram Flux. `from processors.flux import FluxSTT`."""

from processors.flux.stt import FluxSTT

__all__ = ["FluxSTT"]
