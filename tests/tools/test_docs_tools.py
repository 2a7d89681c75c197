"""docs/tools.md: its Python runs as it stands, as one pytest file, and its numbers are those of the code."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from voiceflow.tools.desk import BATCH_BOUND
from voiceflow.tools.result import LONGEST
from voiceflow.tools.threads import THREADS
from voiceflow.tools.tool import LIMIT

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")


def test_the_examples_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    source = "\n\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    tests = re.findall(r"^(?:async )?def (test_\w+)", source, re.MULTILINE)
    assert len(tests) == 2
    pytester.makepyfile(test_page=source)
    # The plugin is named with -p and entry points are off: it is loaded once, installed or not.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    result = pytester.runpytest_subprocess("-p", "voiceflow.testing.pytest_plugin", "-W", "error", timeout=60)
    result.assert_outcomes(passed=len(tests))


def test_the_numbers_are_those_of_the_code():
    for says in (
        f"`limit` ({LIMIT:g} s)",
        f"more than {LONGEST} characters",
        f"At most {BATCH_BOUND} calls",
        f"there are\n{THREADS}",
    ):
        assert says in PAGE
