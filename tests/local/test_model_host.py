"""The model process: jobs in order of urgency, cancelling, deadlines, and a process that dies. It is real."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import uvloop

from voiceflow.errors import DeclarationError
from voiceflow.models import Model, ModelDied, ModelError, ModelHost, Urgency, need
from voiceflow.models import host as host_module
from voiceflow.services import Services

ECHO = Model.of("local_models:Echo")
PATIENCE = 30.0
"""Seconds that a process may take on a machine that is busy."""


def live(
    test: Callable[[ModelHost], Awaitable[None]],
    loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> None:
    """Runs a test on the system's clock, with a host that is closed behind it."""

    async def main() -> None:
        services = Services()
        host = ModelHost.of(services)
        assert ModelHost.of(services) is host
        async with asyncio.timeout(PATIENCE):
            try:
                await test(host)
            finally:
                await services.close()
        assert host.pid is None

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


async def say(host: ModelHost, method: str, *arguments: object, urgency: Urgency = Urgency.NOW) -> object:
    return await host.ask(ECHO, method, *arguments, cost=0.1, urgency=urgency, deadline=PATIENCE)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what it waits for is in another process
        await asyncio.sleep(0.001)


# -- jobs


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_answers_from_a_process_of_its_own_that_is_nicer(loop):
    async def test(host: ModelHost) -> None:
        await host.load(ECHO)
        assert await say(host, "where") == host.pid != os.getpid()
        assert await say(host, "niceness") > os.nice(0) or os.nice(0) == 19
        assert await say(host, "say", "hello") == "hello"
        other = Model.of("local_models:Echo", prefix="> ")
        assert await host.ask(other, "say", "hello", cost=0, deadline=PATIENCE) == "> hello"
        assert await say(host, "counted") == 1, "each model is loaded once"
        assert host.figures()["started"] == 1

    live(test, loop)


def test_an_answer_in_pieces():
    async def test(host: ModelHost) -> None:
        pieces = host.stream(ECHO, "letters", "abc", cost=0, deadline=PATIENCE)
        assert [piece async for piece in pieces] == ["a", "b", "c"]
        for text, answers in (("abc", 3), ("", 0)):
            with pytest.raises(ModelError, match=f"letters gave {answers} answers"):
                await host.ask(ECHO, "letters", text, cost=0, deadline=PATIENCE)

    live(test)


def test_what_somebody_waits_for_comes_first(tmp_path: Path):
    async def test(host: ModelHost) -> None:
        done: list[str] = []

        async def job(name: str, urgency: Urgency) -> None:
            await say(host, "say", name, urgency=urgency)
            done.append(name)

        first = asyncio.create_task(say(host, "wait_for", str(tmp_path / "go")))
        await until(lambda: not host.idle)
        jobs = [asyncio.create_task(job(name, Urgency.SOON)) for name in ("1", "2")]
        await asyncio.sleep(0)
        jobs += [asyncio.create_task(job(name, Urgency.NOW)) for name in ("3", "4")]
        await asyncio.sleep(0)
        (tmp_path / "go").touch()
        await asyncio.gather(first, *jobs)
        assert done == ["3", "4", "1", "2"]
        assert host.figures()["cancelled"] == 0
        assert host.idle

    live(test)


def test_who_is_cancelled_takes_his_job_out_of_the_queue(tmp_path: Path):
    async def test(host: ModelHost) -> None:
        first = asyncio.create_task(say(host, "wait_for", str(tmp_path / "go")))
        await until(lambda: not host.idle)
        waiting = [asyncio.create_task(say(host, "say", "never")) for _ in range(3)]
        await until(lambda: host.figures()["waiting"] == 3)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert host.figures()["waiting"] == 0
        (tmp_path / "go").touch()
        assert await first == "there"
        assert await say(host, "counted") == 0
        assert host.figures()["cancelled"] == 3

    live(test)


def test_who_is_cancelled_stops_the_model_before_the_next_piece(tmp_path: Path):
    async def test(host: ModelHost) -> None:
        pieces = host.stream(ECHO, "pieces_until", str(tmp_path / "never"), cost=0, deadline=PATIENCE)
        async with aclosing(pieces):
            async for piece in pieces:
                if piece == 2:
                    break
        assert await say(host, "say", "next") == "next"

    live(test)


def test_a_job_that_is_too_late(tmp_path: Path):
    async def test(host: ModelHost) -> None:
        await host.load(ECHO)
        with pytest.raises(ModelError, match=r"did not answer in 0.05 s"):
            await host.ask(ECHO, "wait_for", str(tmp_path / "go"), cost=0, deadline=0.05)
        with pytest.raises(ModelError, match="too many calls"):  # it waits behind that
            await host.ask(ECHO, "say", "hello", cost=0, deadline=0.05)
        (tmp_path / "go").touch()
        assert await say(host, "say", "again") == "again"

    live(test)


def test_too_many_jobs(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(host_module, "WAITING_BOUND", 3)

    async def test(host: ModelHost) -> None:
        first = asyncio.create_task(say(host, "wait_for", str(tmp_path / "go")))
        await until(lambda: not host.idle and host.figures()["waiting"] == 0)
        waiting = [asyncio.create_task(say(host, "say", str(n))) for n in range(3)]
        await until(lambda: host.figures()["waiting"] == 3)
        with pytest.raises(ModelError, match="too many calls"):
            await say(host, "say", "one too many")
        (tmp_path / "go").touch()
        assert await asyncio.gather(first, *waiting) == ["there", "0", "1", "2"]

    live(test)


def test_a_job_that_fails_harms_no_other():
    async def test(host: ModelHost) -> None:
        with pytest.raises(ModelError, match="local_models:Echo failed: ValueError: this is no word"):
            await say(host, "fail")
        with pytest.raises(ModelError, match="local_models:Broken failed: OSError: its file is gone"):
            await host.load(Model.of("local_models:Broken"))
        assert await say(host, "print") == "printed"
        assert await say(host, "counted") == 0
        assert host.figures()["started"] == 1

    live(test)


# -- a process that dies


def test_a_process_that_dies_is_started_again_and_the_job_tried_once_more(tmp_path: Path):
    async def test(host: ModelHost) -> None:
        await host.load(ECHO)
        before = host.pid
        dying = asyncio.create_task(say(host, "die_once", str(tmp_path / "died")))
        await until(lambda: not host.idle)
        waiting = asyncio.create_task(say(host, "say", "after it"))
        assert await asyncio.gather(dying, waiting) == ["the second time", "after it"]
        assert host.pid != before
        assert host.figures()["started"] == 2

    live(test)


@pytest.mark.parametrize(("method", "how"), [("die", "SIGKILL"), ("leave", "exit code 3")])
def test_a_job_that_kills_it_twice_gets_the_error(method, how):
    async def test(host: ModelHost) -> None:
        with pytest.raises(ModelDied, match=how):
            await say(host, method)
        assert await say(host, "say", "hello") == "hello"
        assert host.figures()["started"] == 3

    live(test)


def test_half_an_answer_is_not_begun_again():
    async def test(host: ModelHost) -> None:
        got = []
        with pytest.raises(ModelDied):  # noqa: PT012
            async for piece in host.stream(ECHO, "die_after_a_piece", cost=0, deadline=PATIENCE):
                got.append(piece)  # noqa: PERF401
        assert got == ["half of it"]

    live(test)


def test_a_process_that_is_killed_while_idle():
    async def test(host: ModelHost) -> None:
        await host.load(ECHO)
        assert host.pid is not None
        os.kill(host.pid, signal.SIGTERM)
        assert await say(host, "say", "hello") == "hello"
        assert host.figures()["started"] == 2

    live(test)


def test_a_process_that_hangs_is_killed(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(host_module, "STUCK", 0.3)

    async def test(host: ModelHost) -> None:
        with pytest.raises(ModelDied, match="said nothing for"):
            await say(host, "wait_for", str(tmp_path / "never"))

    live(test)


def test_closing_in_the_middle_of_a_job(tmp_path: Path):
    async def main() -> None:
        services = Services()
        host = ModelHost.of(services)
        running = asyncio.create_task(say(host, "wait_for", str(tmp_path / "go")))
        await until(lambda: host.pid is not None)
        waiting = asyncio.create_task(say(host, "say", "hello"))
        await until(lambda: host.figures()["waiting"] == 1)
        (tmp_path / "go").touch()
        await services.close()
        results = await asyncio.gather(running, waiting, return_exceptions=True)
        assert isinstance(results[1], ModelError)
        with pytest.raises(ModelError, match="closed"):
            await say(host, "say", "hello")
        await host.close()

    asyncio.run(main())
    gc.collect()  # a transport or a process left open would be an error here


def test_it_does_not_outlive_its_parent(tmp_path: Path):
    """The parent is killed without a chance to end anything."""
    script = (
        "import asyncio, os\n"
        "from voiceflow.models import Model, ModelHost\n"
        "async def main():\n"
        "    host = ModelHost()\n"
        "    await host.load(Model.of('local_models:Echo'))\n"
        "    print(host.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", script]
    # The model process has inherited stderr, so this returns when both have ended.
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == -signal.SIGKILL
    assert int(done.stdout) > 0


# -- elsewhere


async def test_in_virtual_time_it_runs_in_line(virtual_time):
    host = ModelHost()
    await host.load(ECHO)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await host.ask(ECHO, "say", "hello", cost=0.25) == "hello"
    assert loop.time() - began == pytest.approx(0.25)
    assert [piece async for piece in host.stream(ECHO, "letters", "abc", cost=0.1)] == ["a", "b", "c"]
    assert loop.time() - began == pytest.approx(0.55)
    assert host.pid is None
    with pytest.raises(ModelError, match="Echo failed: ValueError: this is no word"):
        await host.ask(ECHO, "fail", cost=0)
    with pytest.raises(ModelError, match="Broken failed: OSError"):
        await host.load(Model.of("local_models:Broken"))
    await host.close()


def test_closing_before_the_process_has_begun():
    async def main() -> None:
        for yields in range(8):
            host = ModelHost()
            asking = asyncio.create_task(say(host, "say", "hello"))
            for _ in range(yields):
                await asyncio.sleep(0)
            asking.cancel()
            await host.close()
            assert host.pid is None
            await asyncio.wait([asking])

    asyncio.run(main())
    gc.collect()


def test_a_package_that_is_missing():
    need("asyncio", "Nobody")
    with pytest.raises(DeclarationError, match=r"pip install 'voiceflow-agents\[local\]'"):
        need("no_such_package", "MoonshineSTT")
