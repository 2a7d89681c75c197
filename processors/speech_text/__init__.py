"""Text made fit to be read aloud. `from processors.speech_text import SpeechText`."""

from processors.speech_text.processor import SpeechText

__all__ = ["SpeechText"]
