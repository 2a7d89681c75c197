"""ElevenLabs text to speech, streamed: one socket per call, one context per reply.

protocol    the messages of multi-stream-input, without IO
alignment   from characters to words and sentences
tts         the processor
"""

from processors.elevenlabs.tts import ElevenLabsTTS as ElevenLabsTTS
