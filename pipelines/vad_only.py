"""The smallest agent that feels like a conversation: no account, no model but a voice detector.

When the caller stops speaking, a recording is played; when they speak, it stops at once.

    voiceflow run pipelines/vad_only.py
"""

from processors.play import Play
from processors.silero import SileroVAD
from processors.turns import VADTurns
from voiceflow import Call, Pipeline
from voiceflow.assets import speech

ANSWER = (
    "Thanks for calling. This is a recorded answer from voiceflow. "
    "Start talking whenever you like, and I will stop at once."
)


def pipeline(call: Call) -> Pipeline:
    return Pipeline(
        call.source(),
        SileroVAD(),
        VADTurns(silence=0.6),
        Play(speech("answer"), text=ANSWER),
        call.sink(),
    )
