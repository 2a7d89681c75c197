"""docs/testing.md: its examples run as they stand, in the order they are written, as one pytest file."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[1] / "docs" / "testing.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_examples_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    source = "\n\n".join(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    tests = re.findall(r"^(?:async )?def (test_\w+)", source, re.MULTILINE)
    assert len(tests) == len(set(tests)) >= 8
    pytester.makepyfile(test_page=source)
    # The plugin is named with -p and entry points are off: it is loaded once, installed or not.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    result = pytester.runpytest_subprocess("-p", "voiceflow.testing.pytest_plugin", "-W", "error", timeout=60)
    result.assert_outcomes(passed=len(tests))


def test_the_table_of_rules_is_complete():
    from voiceflow.testing.rules import RULES

    page = PAGE.read_text(encoding="utf-8")
    assert [rule for rule in RULES if f"\n| {rule} | " not in page] == []
