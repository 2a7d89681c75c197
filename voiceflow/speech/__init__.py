"""Text to speech over a socket: what every vendor's voice has in common.

    Sentence ──▶ utterance ──▶ connection ══ socket ══▶ vendor
                                   │ ◀─────────────────── audio, word by word
    AudioOut ◀─ which sentence it is, for the ledger ◀── protocol (the vendor's, without IO)

protocol     the seam: what a vendor has to say about its own messages      utterance    one reply, spoken
connection   a socket, its queue and its reader                             processor    TextToSpeech itself
"""

from voiceflow.speech.processor import TextToSpeech as TextToSpeech
from voiceflow.speech.protocol import Audio as Audio
from voiceflow.speech.protocol import Finished as Finished
from voiceflow.speech.protocol import Ignored as Ignored
from voiceflow.speech.protocol import Item as Item
from voiceflow.speech.protocol import Send as Send
from voiceflow.speech.protocol import SpeechProtocol as SpeechProtocol
from voiceflow.speech.protocol import Trouble as Trouble
