"""The pytest plugin: the fixture `virtual_time`.

    async def test_goodbye(virtual_time):         # runs on the virtual loop
        await asyncio.sleep(3600)
        assert virtual_time.now == 3600

    def test_goodbye_too(virtual_time):           # the same by hand, any number of times
        virtual_time.run(goodbye())

It is found through its entry point in every pytest run of everyone who has voiceflow installed, so it
imports nothing but pytest, and it leaves alone all tests that do not ask for the fixture.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from voiceflow.testing.clock import VirtualTimeLoop

T = TypeVar("T")


class VirtualTime:
    """Virtual time in the hands of one test."""

    def __init__(self) -> None:
        self._loop: VirtualTimeLoop | None = None

    @property
    def now(self) -> float:
        """Virtual seconds since the start of the run that is on, or that was the last; 0.0 before any."""
        return 0.0 if self._loop is None else self._loop.time()

    def run(self, main: Coroutine[Any, Any, T], *, debug: bool = False) -> T:
        """`voiceflow.testing.run` on a new loop, at 0.0. Raises what that raises."""
        __tracebackhide__ = True
        from voiceflow.testing.clock import VirtualTimeLoop, run

        self._loop = VirtualTimeLoop()
        return run(main, debug=debug, loop=self._loop)


@pytest.fixture
def virtual_time() -> VirtualTime:
    """Virtual time: `.run(coroutine)` and `.now`. An `async def` test that asks for it runs on it."""
    return VirtualTime()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Puts a plain function in the place of a coroutine test that asks for `virtual_time`.

    Being a plain function, it is left alone by pytest-asyncio and anyio. The test is taken as it was written:
    by now pytest-asyncio in its auto mode has put a wrapper of its own, on its own loop, around it."""
    clock = pyfuncitem.funcargs.get("virtual_time")
    if not isinstance(clock, VirtualTime):
        return (yield)
    owner = pyfuncitem.module if pyfuncitem.instance is None else pyfuncitem.instance
    test = getattr(owner, pyfuncitem.originalname)
    if not inspect.iscoroutinefunction(test):
        return (yield)

    @functools.wraps(test)
    def in_virtual_time(**arguments: object) -> object:
        __tracebackhide__ = True
        return clock.run(test(**arguments))

    collected, pyfuncitem.obj = pyfuncitem.obj, in_virtual_time
    try:
        return (yield)
    finally:
        pyfuncitem.obj = collected
