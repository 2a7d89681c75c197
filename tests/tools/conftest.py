"""A quiet log, and a list of what was logged for tests that ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loguru import logger


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[str]]:
    messages: list[str] = []
    logger.remove()
    sink = logger.add(lambda m: messages.append(f"{m.record['level'].name} {m.record['message']}"))
    yield messages
    logger.remove(sink)
