"""Import time of pipecat 1.14, each module in a fresh interpreter.

`import_ms` is taken inside the child, around the import statement alone: the interpreter's own start is not
in it. One run before the measured ones compiles the .pyc files and warms the disk cache. The modules:

- pipecat.pipeline.pipeline: `Pipeline`, the least a chain can be declared with.
- pipecat.pipeline.worker: `PipelineWorker` (formerly PipelineTask), the least it can be run with.
- pipecat.audio.vad.silero: the VAD; brings numpy and onnxruntime.

loguru's sink is left as it is in the child (pipecat prints one banner line on import, to a pipe).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.metadata import version
from typing import Any

from benchmarks.measure import emit, environment, noise, summary

MODULES = ("pipecat.pipeline.pipeline", "pipecat.pipeline.worker", "pipecat.audio.vad.silero")
CHILD = """
import sys, time
before = len(sys.modules)
began = time.perf_counter()
import {module}
print(time.perf_counter() - began, len(sys.modules) - before)
"""
CHILD_DEADLINE = 30.0


def run(repetitions: int = 7, modules: tuple[str, ...] = MODULES) -> dict[str, Any]:
    """Import times of `modules`, `repetitions` fresh interpreters each, as a dict for JSON. About 12 s.

    Raises subprocess.CalledProcessError or TimeoutExpired when a child fails or takes over 30 s.
    """
    result: dict[str, Any] = {
        "benchmark": "import",
        "peer": {"name": "pipecat-ai", "version": version("pipecat-ai")},
        "modules": {},
    }
    for module in modules:
        runs = [_import_once(module) for _ in range(repetitions + 1)][1:]
        result["modules"][module] = {
            "import_ms": summary([seconds for seconds, _ in runs]),
            "modules_loaded": runs[0][1],
        }
    return result


def _import_once(module: str) -> tuple[float, int]:
    child = subprocess.run(
        [sys.executable, "-c", CHILD.format(module=module)],
        capture_output=True,
        text=True,
        check=True,
        timeout=CHILD_DEADLINE,
    )
    # The last line: a package may print on import too.
    seconds, loaded = child.stdout.splitlines()[-1].split()
    return float(seconds), int(loaded)


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    emit({**run(parser.parse_args().repetitions), "environment": environment(), "noise": noise()})


if __name__ == "__main__":
    main()
