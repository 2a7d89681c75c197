"""A receptionist that needs no account and no network: it listens, answers and speaks on this machine.

    pip install 'voiceflow-agents[local]'
    voiceflow run pipelines/offline.py
    voiceflow chat pipelines/offline.py                                  # typed: without any model
    LOCAL_LLM=http://127.0.0.1:11434/v1 voiceflow run pipelines/offline.py      # answers by Ollama

It tells opening hours and prices, and books a day and a time, which it reads back before. Without LOCAL_LLM a
`Dialogue` answers, which knows only what stands here. With it, a language model behind that address does,
with the same greeting, the same facts and the same tools; LOCAL_LLM_MODEL says which (llama3.2).
"""

import os
from datetime import date, datetime, time

from processors.dialogue import Day, Dialogue, Form, Goodbye, Intent, Name, Time
from processors.hibari import HibariTTS
from processors.moonshine import MoonshineSTT
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from processors.silero import SileroVAD
from processors.speech_text import SpeechText
from processors.turns import VADTurns
from voiceflow import Call, Pipeline, Processor, end_call, tool

GREETING = "Harbour Street Clinic, good day! How can I help you?"
HOURS = "We are open Monday to Friday, from eight in the morning to six in the evening."
PRICES = "A check-up is sixty dollars, and a cleaning is ninety."
PLACE = "We are at twelve Harbour Street, next to the library. You can park behind the house."
OPENS, CLOSES = time(8), time(18)
INSTRUCTIONS = f"""You answer the phone for Harbour Street Clinic, a small dental practice.
You are on a phone call: answer in one or two short sentences, and ask one thing at a time.
{HOURS} {PRICES} {PLACE}
You make appointments: read day and time back before you book, and ask for a name.
When the caller needs nothing more, say goodbye and end the call. Today is {{today:%A %d %B %Y}}."""

diary: dict[tuple[date, time], str] = {}
"""Whose appointment it is. A real one would be a database."""


def closed(day: date) -> str:
    """Why nobody can come on a day."""
    return "We are closed on Saturdays and Sundays." if day.weekday() > 4 else ""


def too_early_or_late(at: time) -> str:
    """Why nobody can come at a time."""
    return "" if OPENS <= at < CLOSES else "We are open from eight in the morning to six in the evening."


@tool(effect="commit")
async def book(day: date, at: time, name: str) -> str:
    """Books an appointment. Only after the caller has agreed to the day and time.

    at: between 08:00 and 18:00
    name: the patient's name
    """
    if wrong := closed(day) or too_early_or_late(at):
        raise ValueError(wrong)
    if datetime.combine(day, at) < datetime.now():
        raise ValueError("That time is over already.")
    if diary.setdefault((day, at), name) != name:
        raise ValueError("That time is taken.")
    return f"{name} is booked for {day:%A %d %B} at {at:%H:%M}."


def receptionist() -> Dialogue:
    return Dialogue(
        greeting=GREETING,
        intents=[
            Intent(
                "hours",
                examples=[
                    "When are you open?",
                    "What are your opening hours?",
                    "Are you open on Saturday?",
                    "What time do you open?",
                    "When do you close?",
                ],
                answer=HOURS,
            ),
            Intent(
                "prices",
                examples=[
                    "How much is a check-up?",
                    "What does it cost?",
                    "What are your prices?",
                    "What is the price of a check-up?",
                    "What do you charge for a cleaning?",
                ],
                answer=PRICES,
            ),
            Intent(
                "place",
                examples=[
                    "Where are you?",
                    "What is your address?",
                    "How do I get there?",
                    "Can I park there?",
                ],
                answer=PLACE,
            ),
            Form(
                "appointment",
                examples=[
                    "I would like to make an appointment",
                    "Can I book an appointment?",
                    "I need to see the dentist",
                    "I want to book a check-up",
                    "Do you have something free?",
                    "Can I come in?",
                    "I have a toothache",
                ],
                slots=[
                    Day("day", "What day would suit you?", check=closed),
                    Time(
                        "at", "At what time on {day}?", earliest=OPENS, latest=CLOSES, check=too_early_or_late
                    ),
                    Name("name", "May I have your name, please?"),
                ],
                confirm="So that is {day}, at {at}, for {name}. Is that right?",
                done=book,
                then="You are booked for {day}, at {at}.",
                failed="I'm sorry, I could not book that. {reason}",
                again=["at"],
            ),
            Goodbye(answer="Thank you for calling. Goodbye!"),
        ],
        fallback="I can tell you our opening hours and prices, or book an appointment. What would you like?",
    )


def model(url: str) -> ChatLLM:
    return ChatLLM(
        os.environ.get("LOCAL_LLM_MODEL", "llama3.2"),
        base_url=url,
        api_key="",  # a key of OpenAI's is none of its business
        instructions=INSTRUCTIONS.format(today=date.today()),
        greeting=GREETING,
        tools=[book, end_call()],
    )


def pipeline(call: Call) -> Pipeline:
    url = os.environ.get("LOCAL_LLM", "")
    answering: Processor = model(url) if url else receptionist()
    return Pipeline(
        call.source(),
        SileroVAD(),  # when somebody speaks
        MoonshineSTT(),  # what he says
        # SmartTurn(), with VADTurns(0.6, finished=0.3, unfinished=1.0, words=1.0): by melody too
        VADTurns(words=1.0),  # whose turn it is; it waits for the words
        answering,
        SentenceAggregator(),
        SpeechText(),
        HibariTTS(),
        call.sink(),
    )
