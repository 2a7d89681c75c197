"""Barge-in that can be taken back: a voice silences the agent at once, words decide.

policy     what a voice over the agent's is, by its words and place: a pure function, to be replaced
processor  BargeIn, which asks it
"""

from processors.barge_in.policy import BACKCHANNELS as BACKCHANNELS
from processors.barge_in.policy import Attempt as Attempt
from processors.barge_in.policy import Verdict as Verdict
from processors.barge_in.policy import backchannels as backchannels
from processors.barge_in.policy import normalised as normalised
from processors.barge_in.processor import BargeIn as BargeIn
