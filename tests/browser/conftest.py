"""Says loudly when there was no Chromium: then nobody has seen the page."""

from __future__ import annotations

from typing import Any

import pytest
from chromium import VARIABLE, usable

NO_CHROMIUM = "there is no Chromium"
NOT_RUN = (
    "NO CHROMIUM: the page was tried in no real browser, {count} tests were not run. "
    f"Install it (apt-get install chromium), or name one with {VARIABLE}."
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chromium: needs a real Chromium")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("chromium") is not None]
    if marked and not usable():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=NO_CHROMIUM))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = [
        report for report in terminalreporter.stats.get("skipped", []) if NO_CHROMIUM in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.section("not tested", sep="!", red=True, bold=True)
        terminalreporter.line(NOT_RUN.format(count=len(skipped)), red=True, bold=True)
