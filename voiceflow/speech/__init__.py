"""Text to speech over a socket: what every vendor's voice has in common.

    Sentence ──▶ utterance ─────────────▶ connection ══ socket ══▶ vendor
                     │                       │ ◀───────────────────── audio, word by word
    AudioOut ◀── outlet ◀── utterance ◀── protocol (the vendor's, without IO)
                            which sentence it is, for the ledger

protocol      the seam: what a vendor has to say about its own messages
utterance     one reply: its sentences, how far they have come, what to say again after a failure
outlet        its audio, as fast as the line takes it
connection    a socket, its queue and its reader
connections   those of one call, from the warm pool and back to it
processor     TextToSpeech itself
"""

from voiceflow.speech.processor import TextToSpeech as TextToSpeech
from voiceflow.speech.protocol import Audio as Audio
from voiceflow.speech.protocol import Finished as Finished
from voiceflow.speech.protocol import Ignored as Ignored
from voiceflow.speech.protocol import Item as Item
from voiceflow.speech.protocol import Send as Send
from voiceflow.speech.protocol import SpeechProtocol as SpeechProtocol
from voiceflow.speech.protocol import Trouble as Trouble
