"""A running pipecat 1.14 pipeline for the benchmarks beside this file, with its logging silenced.

Two set-ups are measured, because they differ a lot:

- "default": what `PipelineWorker(pipeline)` gives with no argument. pipecat puts an RTVI processor in front
  and three observers (RTVI, turn tracking, idle) that are told of every frame at every hop.
- "lean": the same with all three switched off. The best pipecat can do without changing it.

In 1.14 `PipelineTask` and `PipelineRunner` are deprecated aliases of `PipelineWorker` and `WorkerRunner`.

Logging: loguru has no sink here, so nothing is written. pipecat still formats the f-strings of its trace
lines (two or three for every push); that is pipecat's own cost and stays in the figures.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version
from typing import Any

from loguru import logger

logger.remove()  # before pipecat is imported: it logs a banner

from pipecat.frames.frames import Frame  # noqa: E402
from pipecat.pipeline.pipeline import Pipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineParams, PipelineWorker  # noqa: E402
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor  # noqa: E402
from pipecat.workers.runner import WorkerRunner  # noqa: E402

SETUPS: dict[str, dict[str, Any]] = {
    "default": {},
    "lean": {"enable_rtvi": False, "enable_turn_tracking": False, "idle_timeout_secs": None},
}
RATES = ("audio_in_sample_rate", "audio_out_sample_rate")
START_DEADLINE = 10.0
STOP_DEADLINE = 10.0


def peer() -> dict[str, str]:
    """Name and installed version of what is measured."""
    return {"name": "pipecat-ai", "version": version("pipecat-ai")}


class Pass(FrameProcessor):
    """Gives on whatever it gets, as pipecat's documentation says a processor must."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


@contextlib.asynccontextmanager
async def running(
    processors: Sequence[FrameProcessor], setup: str = "lean", *, sample_rate: int | None = 8000
) -> AsyncIterator[PipelineWorker]:
    """A started pipeline of `processors`, with audio of `sample_rate` both ways (None: pipecat's defaults,
    16 kHz in and 24 kHz out); cancelled and waited for at the end.

    Raises TimeoutError when it does not start or stop in 10 s.
    """
    rates = {} if sample_rate is None else dict.fromkeys(RATES, sample_rate)
    worker = PipelineWorker(Pipeline(list(processors)), params=PipelineParams(**rates), **SETUPS[setup])
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def on_started(*_: object) -> None:
        started.set()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    task = asyncio.create_task(runner.run())
    try:
        async with asyncio.timeout(START_DEADLINE):
            await started.wait()
        yield worker
    finally:
        async with asyncio.timeout(STOP_DEADLINE):
            await runner.cancel("benchmark over")
            await task
