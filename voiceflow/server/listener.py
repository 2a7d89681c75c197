"""Serving: the HTTP listener around a Server, from binding the port to the last signal."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from loguru import logger

from voiceflow.call import Call
from voiceflow.declaration.check import check_keys
from voiceflow.errors import ProcessorError, VoiceflowError
from voiceflow.line.codec import Codec
from voiceflow.server.server import BODY_LIMIT, Agent, Server

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Listener:
    """`async with Listener(server, routes, host, port) as listener`: serves until the block ends.

    Port 0 takes a free one; `url` says which. VoiceflowError when the port cannot be had. Leaving the block
    ends calls that are still there; `drain` before that lets them finish.
    """

    def __init__(
        self, server: Server, routes: Iterable[web.AbstractRouteDef], *, host: str, port: int
    ) -> None:
        self.server = server
        self.host = host
        self.port = port
        app = web.Application(client_max_size=BODY_LIMIT)
        app.add_routes([*server.routes(), *routes])
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            logger=_complaints(),
            shutdown_timeout=2.0,
            lingering_time=1.0,
        )

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, backlog=512)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise VoiceflowError(
                f"cannot listen on {self.host}:{self.port} ({error.strerror or error}): "
                "is another server running there? Choose another with --port"
            ) from error
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.server.end_calls()
        await self._runner.cleanup()
        await self.server.close()

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class _OneLine(logging.Handler):
    """What aiohttp complains about, in our log. Strangers send what they like to an open port: one line,
    which quotes nothing; the traceback only for a fault of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, web.RequestPayloadError):
            return  # a body that broke: whoever wanted to read it has said so
        if isinstance(error, HttpProcessingError | ConnectionError):
            logger.warning(f"a request that is no HTTP was refused ({type(error).__name__})")
        else:
            logger.opt(exception=error).log(record.levelname, f"HTTP: {record.getMessage()}")


def _complaints() -> logging.Logger:
    complaints = logging.Logger("voiceflow.http", logging.INFO)  # not registered: nobody else writes to it
    complaints.addHandler(_OneLine())
    return complaints


async def warm(agent: Agent, codec: Codec, server: Server) -> None:
    """Makes one pipeline that serves no call: finds what is wrong with it, and loads its models.

    Raises what `agent.make` raises, and ProcessorError when a processor fails to warm up. A file that
    looks up the number called may not find the one of this call, which is empty: that is only noted.
    """
    call = Call(codec, id="warm-up", services=server.services)
    try:
        pipeline = agent.make(call)
    except VoiceflowError as error:
        if not isinstance(error.__cause__, LookupError):
            raise
        logger.warning(f"not tried before the first call, as it needs a number called: {error}")
        return
    check_keys(pipeline.chain)
    for warning in pipeline.warnings:
        logger.warning(warning)
    for processor in pipeline.chain:
        processor._call = call
        try:
            await processor.warm()
        except VoiceflowError:
            raise
        except Exception as error:
            raise ProcessorError(processor.name, "warm", f"{type(error).__name__}: {error}") from error


def settle() -> None:
    """What was loaded until now stays: full garbage collections need not look at it again.

    With the vendors' SDKs one took 16 ms, in which no caller is served. For a process that only serves, after
    `warm`."""
    gc.collect()
    gc.freeze()


async def until_stopped(server: Server) -> None:
    """Waits for SIGTERM or SIGINT, then drains. A second signal ends all calls at once."""
    loop = asyncio.get_running_loop()
    first, second = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (second if first.is_set() else first).set()

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        await first.wait()
        logger.info("stopping: no new calls are taken; once more to end those that are live")
        draining = asyncio.create_task(server.drain(), name="drain")
        hurry = asyncio.create_task(second.wait(), name="second signal")
        await asyncio.wait([draining, hurry], return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            logger.warning(f"stopping at once: {len(server.calls)} calls are ended")
        for task in (draining, hurry):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
