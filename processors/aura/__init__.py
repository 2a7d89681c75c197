"""Deepgram Aura text to speech, streamed: with a Deepgram account it needs no second vendor.

protocol   the messages of /v1/speak, without IO      tts   the processor
"""

from processors.aura.tts import AuraTTS as AuraTTS
