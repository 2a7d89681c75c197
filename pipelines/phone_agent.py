"""A phone agent: Flux listens and takes turns, a language model answers, ElevenLabs speaks.

cp .env.example .env  # and put your keys in
bin/voiceflow run pipelines/phone_agent.py
"""

from processors.elevenlabs import ElevenLabsTTS
from processors.flux import FluxSTT
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from processors.speech_text import SpeechText
from voiceflow import Call, Pipeline

INSTRUCTIONS = """You answer the phone for Harbour Street Bakery, open seven to six, closed on Mondays.
You are on a phone call: answer in one or two short sentences, and ask one thing at a time."""


def pipeline(call: Call) -> Pipeline:
    return Pipeline(
        call.source(),  # the line: Twilio, 8 kHz mu-law
        FluxSTT(),  # what the caller says, and whose turn it is
        ChatLLM(instructions=INSTRUCTIONS, greeting="Harbour Street Bakery, good day!"),
        SentenceAggregator(),  # tokens to sentences, as soon as each is complete
        SpeechText(),  # numbers, money, dates and times as one says them
        ElevenLabsTTS(),  # straight to mu-law, on a socket that is warm already
        call.sink(),  # paced onto the line; keeps the ledger of what was heard
    )
