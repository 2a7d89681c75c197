"""voiceflow: phone agents as a chain of async processors.

    from voiceflow import Call, Pipeline, Processor, on
    from voiceflow import Token, AudioIn, TurnEnd            # every frame
    from voiceflow.testing import check_processor            # tests without a phone

Nothing heavy is imported before it is used: `import voiceflow` itself loads no other module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from voiceflow.version import __version__

if TYPE_CHECKING:
    from voiceflow.call import Call as Call
    from voiceflow.declaration.pipeline import Pipeline as Pipeline
    from voiceflow.engine.buffers import Depth as Depth
    from voiceflow.engine.history import Message as Message
    from voiceflow.engine.processor import Processor as Processor
    from voiceflow.engine.processor import on as on
    from voiceflow.engine.processor import tap as tap
    from voiceflow.engine.reply import Reply as Reply
    from voiceflow.errors import CallEnded as CallEnded
    from voiceflow.errors import CallError as CallError
    from voiceflow.errors import DeclarationError as DeclarationError
    from voiceflow.errors import LinkError as LinkError
    from voiceflow.errors import ProcessorError as ProcessorError
    from voiceflow.errors import VoiceflowError as VoiceflowError
    from voiceflow.frames import AgentFrame as AgentFrame
    from voiceflow.frames import AudioIn as AudioIn
    from voiceflow.frames import AudioOut as AudioOut
    from voiceflow.frames import CallEnd as CallEnd
    from voiceflow.frames import CallerFrame as CallerFrame
    from voiceflow.frames import CallStart as CallStart
    from voiceflow.frames import ControlFrame as ControlFrame
    from voiceflow.frames import DraftEnd as DraftEnd
    from voiceflow.frames import DraftResumed as DraftResumed
    from voiceflow.frames import Dtmf as Dtmf
    from voiceflow.frames import Fault as Fault
    from voiceflow.frames import Frame as Frame
    from voiceflow.frames import Heard as Heard
    from voiceflow.frames import Interrupt as Interrupt
    from voiceflow.frames import Prompt as Prompt
    from voiceflow.frames import RecordingPause as RecordingPause
    from voiceflow.frames import RecordingResume as RecordingResume
    from voiceflow.frames import ReplyEnd as ReplyEnd
    from voiceflow.frames import Sentence as Sentence
    from voiceflow.frames import Token as Token
    from voiceflow.frames import Transcript as Transcript
    from voiceflow.frames import TurnEnd as TurnEnd
    from voiceflow.frames import TurnStart as TurnStart
    from voiceflow.frames import VoiceStart as VoiceStart
    from voiceflow.frames import VoiceStop as VoiceStop
    from voiceflow.frames import Word as Word
    from voiceflow.line.link import Link as Link
    from voiceflow.record import CallResult as CallResult
    from voiceflow.tools.ending import end_call as end_call
    from voiceflow.tools.tool import Effect as Effect
    from voiceflow.tools.tool import Tool as Tool
    from voiceflow.tools.tool import ToolWithdrawn as ToolWithdrawn
    from voiceflow.tools.tool import tool as tool

_HOMES = {
    "engine.buffers": "Depth",
    "call": "Call",
    "record": "CallResult",
    "errors": "CallEnded CallError DeclarationError LinkError ProcessorError VoiceflowError",
    "frames": "AgentFrame AudioIn AudioOut CallEnd CallerFrame CallStart ControlFrame DraftEnd DraftResumed "
    "Dtmf Fault Frame Heard Interrupt Prompt RecordingPause RecordingResume ReplyEnd Sentence Token "
    "Transcript TurnEnd TurnStart VoiceStart VoiceStop Word",
    "engine.history": "Message",
    "line.link": "Link",
    "declaration.pipeline": "Pipeline",
    "engine.processor": "Processor on tap",
    "engine.reply": "Reply",
    "tools.ending": "end_call",
    "tools.tool": "Effect Tool ToolWithdrawn tool",
}
_WHERE = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'voiceflow' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"voiceflow.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
