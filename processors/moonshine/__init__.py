"""Speech to text on this machine, English: Moonshine. `from processors.moonshine import MoonshineSTT`."""

from processors.moonshine.stt import MoonshineSTT

__all__ = ["MoonshineSTT"]
