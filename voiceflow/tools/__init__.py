"""Tools: Python functions that a model may call, and what keeps them from misfiring.

tool.py        a Tool: its name, schema, effect and limits; the `@tool` decorator
schema.py      the JSON schema of a function, from signature and types; docstring.py: what is said of each one
arguments.py   what a model sent as arguments, validated, or a refusal in words it can use
use.py         one call of a tool: what was asked, how far it is, what came of it
desk.py        one per answering processor: runs the calls of a reply by the rules of their effects
job.py         a use while it lives: begun, bounded in time, finished; threads.py: where plain functions run
result.py      what came of it, in words
announcing.py  tells results that nobody has asked about
ending.py      `end_call`, which hangs up once the goodbye was heard
"""

from voiceflow.tools.desk import ToolDesk as ToolDesk
from voiceflow.tools.ending import end_call as end_call
from voiceflow.tools.tool import Effect as Effect
from voiceflow.tools.tool import Tool as Tool
from voiceflow.tools.tool import ToolWithdrawn as ToolWithdrawn
from voiceflow.tools.tool import tool as tool
from voiceflow.tools.use import Requested as Requested
from voiceflow.tools.use import ToolUse as ToolUse
from voiceflow.tools.use import UseState as UseState
