"""An outbound reminder: the agent calls, says what for, and notes whether the patient will come.

    voiceflow call pipelines/reminder.py +12025550143 --param name=Ada --param when="Tuesday at three"
    python -m tests.vendors.play reminder                # the same on fake vendors, without an account

What is known of the appointment comes with the call, as `call.parameters`. The patient may speak or press a
key: keys that nobody waits for become words like all others.
"""

from typing import Literal

from processors.barge_in import BargeIn
from processors.elevenlabs import ElevenLabsTTS
from processors.flux import FluxSTT
from processors.idle import IdlePrompts
from processors.keypad import Keypad
from processors.openai import ChatLLM
from processors.sentences import SentenceAggregator
from processors.speech_text import SpeechText
from voiceflow import Call, Pipeline, end_call, tool

INSTRUCTIONS = """You call patients of Harbour Street Dental to remind them of an appointment.
You are speaking to {name}, whose appointment is {when}. Find out whether they come, note it, say goodbye.
You are on a phone call: one short sentence at a time. For another appointment they have to call the desk.
The key 1 means that they will come, 2 that they will not."""
GREETING = """Hello {name}, this is Harbour Street Dental. You have an appointment with us {when}.
Will you come? You can say yes or no, or press one or two."""


@tool(effect="commit")
def note_answer(answer: Literal["comes", "does not come", "wants another time"], call: Call) -> str:
    """Notes what the patient has said."""
    call.state["answer"] = answer
    return "Noted."


def report(call: Call) -> None:
    """What the practice wants to know. A database, a message to the desk: it would be written here."""
    print(f"{call.parameters.get('name', 'the patient')}: {call.state.get('answer', 'no answer')}")


def pipeline(call: Call) -> Pipeline:
    call.on_end(report)
    known = {"name": call.parameters.get("name", ""), "when": call.parameters.get("when", "this week")}
    return Pipeline(
        call.source(),
        FluxSTT(),
        BargeIn(),
        Keypad(),  # "1" becomes words when nobody asked for keys
        ChatLLM(
            instructions=INSTRUCTIONS.format(**known),
            greeting=GREETING.format(**known),
            tools=[note_answer, end_call()],
        ),
        SentenceAggregator(),
        SpeechText(),
        ElevenLabsTTS(),
        IdlePrompts(lines=("Will you come? Please say yes or no.",), goodbye="We will call again. Goodbye!"),
        call.sink(),
    )
