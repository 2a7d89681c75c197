"""Voice activity by the Silero network. `from processors.silero import SileroVAD`."""

from processors.silero.vad import SileroVAD

__all__ = ["SileroVAD"]
