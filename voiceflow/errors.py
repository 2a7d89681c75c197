"""Every exception voiceflow raises, as one tree.

    VoiceflowError
    ├── DeclarationError        a Processor class or a Pipeline that cannot work; raised while it is made
    │   └── PipelineFileError   a pipeline file that cannot be loaded; carries file and line
    ├── CallError               this call cannot go on; ends the call that raised it and no other
    │   ├── ProcessorError      a processor raised, hung or emitted what it may not; names the processor
    │   ├── BufferOverflowError a buffer passed its hard bound; names the buffer
    │   └── CallEnded           the call is over: nothing can be said or sent on it any more
    ├── LinkError               a connection to a vendor failed, closed or did not answer in time
    │   └── LinkRefused         it answered the connection with an HTTP error; carries the status
    ├── LineError               the carrier's side broke its protocol
    ├── ModelError              a model on this machine failed or was too slow (voiceflow.models)
    ├── AudioFileError          a recording that cannot be read (voiceflow.audio)
    ├── Refused, NotAdmitted    a call or a stream that the server does not take (voiceflow.server)
    ├── WebhookRejected         a request that is no webhook of ours (voiceflow.webhook)
    └── Deadlock, Livelock, Leak, NotConforming    what a test found (voiceflow.testing)

Messages say what happened and what to do next. They never contain keys or tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class VoiceflowError(Exception):
    """The root: `except VoiceflowError` catches whatever voiceflow raises on purpose."""


class DeclarationError(VoiceflowError):
    """A processor class or a chain that cannot work. Raised when it is declared, never during a call."""


class PipelineFileError(DeclarationError):
    """A pipeline file that cannot be used. `str()` is ready to print: file, line, reason, what to do."""

    def __init__(self, path: Path | str, reason: str, line: int | None = None) -> None:
        self.path = Path(path)
        self.line = line
        self.reason = reason
        where = f"{path}:{line}" if line is not None else f"{path}"
        super().__init__(f"{where}: {reason}")


class CallError(VoiceflowError):
    """This call cannot go on. The caller hears the carrier's fallback; other calls are not touched."""


class ProcessorError(CallError):
    """A processor failed. `processor` is its name, `stage` what it was doing (start, a handler, stop)."""

    def __init__(self, processor: str, stage: str, reason: str) -> None:
        self.processor = processor
        self.stage = stage
        self.reason = reason
        super().__init__(f"{processor} failed in {stage}: {reason}")


class BufferOverflowError(CallError):
    """A buffer passed its hard bound and its policy is to end the call rather than lose frames."""

    def __init__(self, buffer: str, bound: int, hint: str) -> None:
        self.buffer = buffer
        self.bound = bound
        super().__init__(f"{buffer} is full ({bound} frames): {hint}")


class CallEnded(CallError):
    """The call is over."""


class LinkError(VoiceflowError):
    """A connection to a vendor failed, closed or did not answer in time."""


class LinkRefused(LinkError):
    """The host answered with an HTTP error instead of a connection. `headers` have names in lower case."""

    def __init__(
        self, host: str, status: int, body: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self.host = host
        self.status = status
        self.body = body
        self.headers = {name.lower(): value for name, value in (headers or {}).items()}
        super().__init__(f"{host} refused the connection: HTTP {status}")


class LineError(VoiceflowError):
    """The carrier's side broke its protocol in a way that ends the stream."""
