"""An agent that looks things up: a processor before the model adds what fits the caller's question.

    voiceflow run pipelines/knowledge.py

`Knowledge` is a dozen lines of your own between the ears and the model. It gets the Prompt with the caller's
words, and returns it with something added. Here it finds notes by the words they share with the question; a
search engine, a database or the caller's account would be asked in the same place, with `async def` when it
takes a while.
"""

import re
from dataclasses import replace

from processors.elevenlabs import ElevenLabsTTS
from processors.flux import FluxSTT
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from processors.speech_text import SpeechText
from voiceflow import Call, Pipeline, Processor, Prompt, on

INSTRUCTIONS = """You answer the phone for Harbour Street Bakery.
You are on a phone call: answer in one or two short sentences. What you do not know you do not make up."""

NOTES = (
    "Opening hours: Tuesday to Sunday, seven to six. Closed on Mondays and public holidays.",
    "Delivery: free within five miles for orders over forty dollars; order before noon for the same day.",
    "Birthday and wedding cakes: order three days ahead; a deposit of twenty dollars is asked for.",
    "Allergies: gluten-free bread on Thursdays and Fridays only; the same kitchen uses nuts every day.",
)


class Knowledge(Processor):
    """Adds the `most` notes that share the most words with what the caller said."""

    def __init__(self, notes: tuple[str, ...], most: int = 2) -> None:
        self.notes = [(note, _words(note)) for note in notes]
        self.most = most

    @on(Prompt)
    def look_up(self, prompt: Prompt) -> Prompt:
        asked = _words(prompt.text)
        found = sorted(self.notes, key=lambda note: -len(note[1] & asked))[: self.most]
        fitting = "\n".join(note for note, words in found if words & asked)
        if not fitting:
            return prompt
        known = f"What you know of this:\n{fitting}"
        return replace(prompt, instructions=f"{prompt.instructions}\n\n{known}".strip())


def _words(text: str) -> set[str]:
    """Words of four letters and more, without their plural."""
    return {word.rstrip("s") for word in re.findall(r"\w{4,}", text.lower())}


def pipeline(call: Call) -> Pipeline:
    return Pipeline(
        call.source(),
        FluxSTT(),
        Knowledge(NOTES),
        ChatLLM(instructions=INSTRUCTIONS, greeting="Harbour Street Bakery, good day!"),
        SentenceAggregator(),
        SpeechText(),
        ElevenLabsTTS(),
        call.sink(),
    )
