"""A small deterministic dialogue in the place of a language model: see docs/dialogue.md.

script.py      what is declared: Intent, Form, Goodbye
slots.py       what a Form has to know: Day, Time, Name, Number, Choice
days.py, times.py, words.py, answers.py, found.py      how callers say it
matching.py    which intent a sentence is closest to
deciding.py    what is said next: a pure function
processor.py   Dialogue: drafts, interruptions, tools
"""

from processors.dialogue.matching import E5Matcher as E5Matcher
from processors.dialogue.matching import Match as Match
from processors.dialogue.matching import Matcher as Matcher
from processors.dialogue.matching import TextMatcher as TextMatcher
from processors.dialogue.processor import Dialogue as Dialogue
from processors.dialogue.script import Form as Form
from processors.dialogue.script import Goodbye as Goodbye
from processors.dialogue.script import Intent as Intent
from processors.dialogue.slots import Choice as Choice
from processors.dialogue.slots import Day as Day
from processors.dialogue.slots import Name as Name
from processors.dialogue.slots import Number as Number
from processors.dialogue.slots import Slot as Slot
from processors.dialogue.slots import Time as Time
