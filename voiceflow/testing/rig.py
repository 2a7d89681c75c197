"""A rig: any processors, bound to a call without a phone, their frames in the hands of the test.

    async with Rig(Redact()) as rig:
        reply = rig.reply()
        rig.push(Token("4111 1111 1111 1111", reply=reply))
        await rig.settled()
        assert rig.texts() == ["[number]"]

It works on any event loop; with the fixture `virtual_time` it takes no real time at all.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self, TypeVar

from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on
from voiceflow.engine.reply import Reply, ReplyState
from voiceflow.errors import VoiceflowError
from voiceflow.frames import PHONE, AudioFormat, ControlFrame, Frame
from voiceflow.line.codec import LineStarted
from voiceflow.record import CallResult
from voiceflow.services import Services
from voiceflow.testing.line import MemoryCodec
from voiceflow.testing.links import ScriptedLink

F = TypeVar("F", bound=Frame)
KEPT = 100_000
"""Frames a rig keeps at each end."""
DONE = "the test is done"
"""Why its call ends."""


class Above(Processor):
    """Stands above the processors under test: what the rig pushes starts here, what goes up ends here."""

    emits = (Frame,)

    def __init__(self) -> None:
        self.seen: list[Frame] = []

    @on(ControlFrame)
    def keep(self, frame: ControlFrame) -> None:
        if len(self.seen) < KEPT:
            self.seen.append(frame)


class AboveWithTurns(Above):
    """The same, and the turn's authority, for processors that are none themselves."""

    takes_turns = True


class Below(Processor):
    """Stands below them: everything that comes out ends here."""

    def __init__(self) -> None:
        self.seen: list[Frame] = []

    @on(Frame, stops=True)
    def keep(self, frame: Frame) -> None:
        if len(self.seen) < KEPT:
            self.seen.append(frame)


class Rig:
    """`async with Rig(A(), B()) as rig`. Raises what the call failed with when the block ends, unless the
    test has read `rig.fault` itself.

    `out` are the frames that came out at the lower end, `up` the control frames that came out above.
    """

    def __init__(
        self,
        *processors: Processor,
        services: Services | None = None,
        format: AudioFormat = PHONE,
        seed: int = 0,
    ) -> None:
        above = Above() if any(p.takes_turns for p in processors) else AboveWithTurns()
        self.above, self.below = above, Below()
        self.processors = processors
        self.link = ScriptedLink()
        self.call = Call(MemoryCodec(format=format), services=services, seed=seed)
        self.result: CallResult | None = None
        self._fault_read = False
        self._task: asyncio.Task[CallResult] | None = None

    async def __aenter__(self) -> Self:
        self.call.prepare(Pipeline(self.above, *self.processors, self.below, parts=True))
        started = LineStarted("rig", self.call.id, self.call.line.format)
        self._task = asyncio.create_task(self.call.run(self.link, started), name="rig call")
        assert self.call._starting is not None
        await asyncio.wait([self.call._starting])  # no frame may come before a slow start() is done
        await self.settled()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self.call.end(DONE)
        self.result = await self._task
        await self.call.services.close()
        if kind is None and self.result.fault is not None and not self._fault_read:
            raise VoiceflowError(f"the call failed during the test: {self.result.fault}")

    @property
    def out(self) -> list[Frame]:
        return self.below.seen

    @property
    def up(self) -> list[Frame]:
        return self.above.seen

    @property
    def fault(self) -> str | None:
        """What the call failed with so far."""
        self._fault_read = True
        return self.call.fault

    def push(self, *frames: Frame) -> None:
        """Sends frames down from above the processors under test."""
        for frame in frames:
            self.above.push(frame)

    def reply(self) -> Reply:
        """A live reply to stamp frames with. It is not the TurnKeeper's: kill it with `kill`."""
        return Reply(0)

    def kill(self, reply: Reply) -> None:
        """What an Interrupt does to a reply, as far as the pump is concerned."""
        reply.become(ReplyState.DEAD)
        assert self.call._pump is not None
        assert self.call._crew is not None
        for processor, task in self.call._pump.detach(reply, cancel=True):
            self.call._crew.reap(processor, task)

    def got(self, frame_type: type[F]) -> list[F]:
        """The frames of one type that came out below."""
        return [frame for frame in self.out if isinstance(frame, frame_type)]

    def texts(self) -> list[str]:
        """The texts of all frames that have one."""
        return [frame.text for frame in self.out if hasattr(frame, "text")]

    async def settled(self, turns: int = 50) -> None:
        """Lets everything that is ready run. It waits for no timer: sleep for what takes time."""
        for _ in range(turns):
            await asyncio.sleep(0)
