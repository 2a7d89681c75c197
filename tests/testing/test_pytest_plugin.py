"""The plugin, in a pytest process of its own. It is named there with -p and entry points are switched off,
so that it is loaded exactly once whether or not voiceflow is installed (twice would be an error)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from voiceflow import testing

pytest_plugins = ["pytester"]

PATH = os.pathsep.join(path for path in sys.path if path)


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs a test file with the plugin; gives pytest's result."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", PATH)

    def run(source: str) -> pytest.RunResult:
        pytester.makepyfile(textwrap.dedent(source))
        return pytester.runpytest_subprocess(
            "-p", "voiceflow.testing.pytest_plugin", "-W", "error", timeout=60
        )

    return run


def test_async_tests_that_ask_for_it_run_in_virtual_time_and_plain_ones_by_hand(inner):
    inner(
        """
        import asyncio
        import pytest

        @pytest.fixture
        def hour(virtual_time):
            return 3600

        async def test_function(virtual_time, hour):
            assert virtual_time.now == 0.0
            await asyncio.sleep(hour)
            assert virtual_time.now == asyncio.get_running_loop().time() == 3600.0

        @pytest.mark.parametrize("seconds", [1, 2])
        async def test_parameters(virtual_time, seconds):
            await asyncio.sleep(seconds)
            assert virtual_time.now == seconds

        class TestMethod:
            async def test_method(self, virtual_time):
                await asyncio.sleep(60)
                assert virtual_time.now == 60.0

        async def test_through_another_fixture(hour):
            await asyncio.sleep(hour)
            assert asyncio.get_running_loop().time() == 3600.0

        def test_by_hand(virtual_time):
            assert virtual_time.now == 0.0
            assert virtual_time.run(asyncio.sleep(5, "result")) == "result"
            assert virtual_time.now == 5.0
            virtual_time.run(asyncio.sleep(7))
            assert virtual_time.now == 7.0
        """
    ).assert_outcomes(passed=6)


def test_failures_leaks_and_deadlocks_fail_the_test(inner):
    result = inner(
        """
        import asyncio
        import pytest

        tasks = []

        async def test_assertion(virtual_time):
            await asyncio.sleep(1)
            assert virtual_time.now == 2.0

        async def test_leak(virtual_time):
            tasks.append(asyncio.create_task(asyncio.sleep(5), name="left behind"))

        async def test_deadlock(virtual_time):
            await asyncio.Event().wait()

        async def test_skip(virtual_time):
            pytest.skip("not today")
        """
    )
    result.assert_outcomes(failed=3, skipped=1)
    result.stdout.fnmatch_lines_random(
        [
            "*assert 1.0 == 2.0*",
            "*Leak: main returned at 0.000000 s and left tasks behind (1)*",
            "*left behind (sleep)*",
            "*Deadlock: nothing is ready*",
            "*test_deadlock) at *test_failures_leaks_and_deadlocks_fail_the_test.py:14 *",
        ]
    )


# Stand-ins for anyio, which runs coroutine tests itself, and for pytest-asyncio in its auto mode, which puts
# a plain function in the place of every coroutine test.
RUNS_COROUTINES = """
    import asyncio, inspect, pytest

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(pyfuncitem):
        if inspect.iscoroutinefunction(pyfuncitem.obj):
            arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
            asyncio.run(pyfuncitem.obj(**arguments))
            return True
"""
WRAPS_COROUTINES = """
    import asyncio, functools, inspect, pytest

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(item):
        test = item.obj
        if inspect.iscoroutinefunction(test):
            item.obj = functools.wraps(test)(lambda **arguments: asyncio.run(test(**arguments)))
"""


@pytest.mark.parametrize("other", [RUNS_COROUTINES, WRAPS_COROUTINES], ids=["runs", "wraps"])
def test_other_plugins_keep_their_tests_and_leave_us_ours(inner, pytester: pytest.Pytester, other: str):
    pytester.makeconftest(textwrap.dedent(other))
    inner(
        """
        import asyncio
        from voiceflow.testing import VirtualTimeLoop

        async def test_theirs(tmp_path):
            assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)

        async def test_ours(virtual_time):
            assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)

        class TestOurs:
            async def test_method(self, virtual_time):
                assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
        """
    ).assert_outcomes(passed=3)


def test_loading_the_plugin_loads_nothing_heavy():
    code = (
        "import pytest, sys; before = set(sys.modules); import voiceflow.testing.pytest_plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": PATH},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.split()
    assert "voiceflow.testing.pytest_plugin" in loaded
    heavy = {"aiohttp", "asyncio", "loguru", "numpy", "onnxruntime", "rich", "soxr", "typer", "uvloop"}
    ours = {
        "voiceflow.frames",
        "voiceflow.declaration.pipeline",
        "voiceflow.testing.clock",
        "voiceflow.testing.links",
    }
    assert not set(loaded) & (heavy | ours)


def test_the_names_of_voiceflow_testing_are_loaded_when_asked_for():
    assert testing.run.__module__ == "voiceflow.testing.clock"
    assert testing.pair.__module__ == "voiceflow.testing.links"
    assert set(testing.__all__) <= set(dir(testing))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        testing.nonsense  # noqa: B018
