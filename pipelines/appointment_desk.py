"""An appointment desk: the agent looks up free times, books one, and hangs up once its goodbye was heard.

    voiceflow run pipelines/appointment_desk.py
    python -m tests.vendors.play appointment_desk        # the same on fake vendors, without an account

Three tools with the three effects: `free_times` only looks, so an interruption cancels it; `book` is finished
whatever happens, and never begun for a reply that the caller did not wait for; `end_call` runs after the last
word was heard. Around them: what is said to everybody first may not be interrupted, a cough does not stop the
agent, "uh-huh" neither, and who falls silent is asked once, then said goodbye to.
"""

from datetime import date, time, timedelta

from processors.barge_in import BargeIn
from processors.elevenlabs import ElevenLabsTTS
from processors.filler import Filler
from processors.flux import FluxSTT
from processors.idle import IdlePrompts
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from processors.silero import SileroVAD
from processors.speech_text import SpeechText
from processors.time_limit import TimeLimit
from voiceflow import Call, Pipeline, end_call, tool

INSTRUCTIONS = """You answer the phone for Harbour Street Dental and make appointments for check-ups.
You are on a phone call: answer in one or two short sentences, and ask one thing at a time.
Today is {today}. Offer two times at most, read the day and time back before you book, and ask for a name.
When the caller needs nothing more, say goodbye and end the call."""
NOTICE = "Harbour Street Dental. This call may be recorded to keep our appointments right."
HOURS = (time(9), time(10, 30), time(14), time(15, 30))

diary: dict[tuple[date, time], str] = {}
"""Whose appointment it is. A real one would be a database, asked in the same two places."""


@tool(effect="read")
def free_times(day: date) -> list[time]:
    """The times that are still free on a day.

    day: the day the caller would like to come
    """
    if day.weekday() > 4:
        raise ValueError("closed on Saturdays and Sundays: offer a weekday")
    return [hour for hour in HOURS if (day, hour) not in diary]


@tool(effect="commit")
def book(day: date, at: time, name: str) -> str:
    """Books an appointment. Only after the caller has agreed to the day and time.

    at: one of the free times
    name: the patient's name
    """
    if at not in HOURS or (day, at) in diary:
        raise ValueError("that time is not free: ask for the free times again")
    diary[day, at] = name
    return f"Booked for {name}: {day:%A %d %B}, {at:%H:%M}."


async def notice(call: Call) -> None:
    await call.say(NOTICE, interruptible=False)


def pipeline(call: Call) -> Pipeline:
    call.on_start(notice)
    today = date.today()
    days = "; ".join(f"{day:%A} is {day:%Y-%m-%d}" for day in (today + timedelta(n) for n in range(1, 8)))
    return Pipeline(
        call.source(),
        SileroVAD(),  # a voice holds the agent's speech
        FluxSTT(
            eager_eot_threshold=0.5
        ),  # and answers are drafted before it is sure that the caller has finished
        BargeIn(),  # words interrupt it; a cough or "uh-huh" does not
        ChatLLM(
            instructions=INSTRUCTIONS.format(today=f"{today:%A %d %B %Y} ({days})"),
            greeting="How can I help you?",  # after the notice, unless the caller has spoken meanwhile
            tools=[free_times, book, end_call()],
        ),
        SentenceAggregator(),
        Filler(),  # "One moment, please", when a tool takes its time
        SpeechText(),
        ElevenLabsTTS(),
        IdlePrompts(lines=("Are you still there?",), goodbye="I will let you go. Goodbye!"),
        TimeLimit(600, warn=60, line="We have one minute left.", goodbye="Our time is up. Goodbye!"),
        call.sink(),
    )
