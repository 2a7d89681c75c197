"""Import time of voiceflow, each statement in a fresh interpreter.

`import_ms` is taken inside the child, around the statement alone: the interpreter's own start is not in it.
One run before the measured ones compiles the .pyc files and warms the disk cache. The statements:

- import voiceflow
- from voiceflow import Call, Pipeline, Processor, on: what a pipeline file needs.
- the server with Twilio's routes and Silero's processor, as `voiceflow run` has them: brings aiohttp, but not
  yet numpy and onnxruntime, which load with the model.
- the same and the model's libraries.

The peer's beside it: `Pipeline`, `PipelineWorker`, and its Silero, which brings numpy and onnxruntime.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

from benchmarks.chain import finish, ours, target
from benchmarks.measure import summary

AT_MOST_MS = 100.0
SERVER = (
    "from voiceflow.server.listener import Listener; from processors.twilio.routes import TwilioRoutes; "
    "from processors.silero import SileroVAD"
)
STATEMENTS = (
    "import voiceflow",
    "from voiceflow import Call, Pipeline, Processor, on",
    SERVER,
    f"{SERVER}; import numpy, onnxruntime",
)
CHILD = """
import sys, time
before = len(sys.modules)
began = time.perf_counter()
{statement}
print(time.perf_counter() - began, len(sys.modules) - before)
"""
CHILD_DEADLINE = 30.0


def run(repetitions: int = 15, statements: tuple[str, ...] = STATEMENTS) -> dict[str, Any]:
    """Import times of `statements`, `repetitions` fresh interpreters each, as a dict for JSON. About 15 s.

    Raises subprocess.CalledProcessError or TimeoutExpired when a child fails or takes over 30 s.
    """
    found: dict[str, Any] = {}
    for statement in statements:
        runs = [_import_once(statement) for _ in range(repetitions + 1)][1:]
        found[statement] = {
            "import_ms": summary([seconds for seconds, _ in runs]),
            "modules_loaded": runs[0][1],
        }
    return {
        "benchmark": "import",
        "ours": ours(),
        "modules": found,
        "targets": [
            target(statement, found[statement]["import_ms"]["median"], AT_MOST_MS, "ms")
            for statement in statements[:1]
        ],
    }


def _import_once(statement: str) -> tuple[float, int]:
    child = subprocess.run(
        [sys.executable, "-c", CHILD.format(statement=statement)],
        capture_output=True,
        text=True,
        check=True,
        timeout=CHILD_DEADLINE,
    )
    seconds, loaded = child.stdout.splitlines()[-1].split()
    return float(seconds), int(loaded)


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    finish(run(parser.parse_args().repetitions))


if __name__ == "__main__":
    main()
