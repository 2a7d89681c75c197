"""`python -m benchmarks [name ...] [--quick] [--json FILE]`: voiceflow and its peers in one run.

Each benchmark runs in a process of its own, ours and then the peer's, one after another: nothing of one is
in the figures of the other. Those of the whole agent interleave the bots instead, in one run. The peers
need pipecat-ai: this interpreter if it is installed there (the extra `bench`), else the one that
VOICEFLOW_BENCH_PYTHON names. stdout gets one JSON document (or --json FILE does), stderr progress and a
table. Exit code 0 when everything ran, also when a target was missed: these are measurements, not tests. 1
when something could not be measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.bots import PYTHON, find_peer
from benchmarks.measure import environment, noise

ROOT = Path(__file__).resolve().parents[1]
INSTALL = (
    "the peer is not measured: pip install -e '.[bench]', "
    f"or set {PYTHON} to a Python that has pipecat-ai 1.14"
)
DEADLINE = 900.0


@dataclass(slots=True, frozen=True)
class Benchmark:
    """Two modules that print one JSON document each, with what they are given for a full and a quick run.
    `together`: the module runs the peer beside ours, and there is one document."""

    module: str
    peer: str | None = None
    quick: tuple[str, ...] = ()
    peer_quick: tuple[str, ...] = ()
    peer_full: tuple[str, ...] = ()
    together: bool = False


BENCHMARKS = {
    "hops": Benchmark("hops", "pipecat_hops", ("--rounds", "5"), ("--rounds", "2")),
    "interrupt": Benchmark("interrupt", "pipecat_interrupt", ("--runs", "15"), ("--runs", "5")),
    "imports": Benchmark("imports", "pipecat_import", ("--repetitions", "3"), ("--repetitions", "2")),
    "barge_in": Benchmark(
        "barge_in",
        "pipecat_vad_bot",
        ("--rounds", "21", "--loads", "0", "10", "--loaded-rounds", "21"),
        ("--rounds", "20"),
        ("--rounds", "100"),
    ),
    "calls": Benchmark(
        "calls",
        "pipecat_calls",
        ("--rounds", "8", "--calls", "1", "10"),
        ("--rounds", "8", "--calls", "1", "10"),
    ),
    "soak": Benchmark("soak", None, ("--calls", "300")),
    "voice_to_voice": Benchmark(
        "voice_to_voice", quick=("--rounds", "2", "--turns", "6", "--slow-turns", "3"), together=True
    ),
    "agent_barge_in": Benchmark(
        "agent_barge_in", quick=("--rounds", "1", "--interruptions", "8"), together=True
    ),
    "warm_pool": Benchmark("warm_pool", quick=("--rounds", "1"), together=True),
    "speculation": Benchmark(
        "speculation", quick=("--rounds", "1", "--turns", "6", "--paused-turns", "4"), together=True
    ),
    "hold": Benchmark("hold", quick=("--quick",), together=True),
    "tool_turn": Benchmark("tool_turn", quick=("--rounds", "1", "--turns", "8"), together=True),
    "offline_models": Benchmark("offline_models", quick=("--quick",), together=True),
    "offline_calls": Benchmark("offline_calls", quick=("--turns", "3"), together=True),
    "browser": Benchmark("browser", quick=("--talks", "5"), together=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="voiceflow and its peers in one run."
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: 3 minutes instead of 20")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the document there, not to stdout")
    options = parser.parse_args()
    names = options.names or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"no benchmark named {', '.join(unknown)}: there are {', '.join(BENCHMARKS)}")

    console = Console(stderr=True)
    peer_python = find_peer()
    if peer_python is None:
        console.print(INSTALL, style="yellow", markup=False)
    document: dict[str, Any] = {
        "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "machine": environment(),
        "noise": noise(),
        "results": {},
    }
    for name in names:
        document["results"][name] = _both(BENCHMARKS[name], options.quick, peer_python, console)
    ran = [side for both in document["results"].values() for side in both.values()]
    targets = [target for side in ran for target in side.get("targets", [])]
    document["targets_met"] = sum(target["met"] for target in targets)
    document["targets"] = len(targets)
    for name, both in document["results"].items():
        for line in tables(name, both):
            console.print(line)
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    if options.json is not None:
        options.json.write_text(text)
    else:
        sys.stdout.write(text)
    sys.exit(any("failed" in side for side in ran))


def _both(benchmark: Benchmark, quick: bool, peer_python: str | None, console: Console) -> dict[str, Any]:
    ours = "all" if benchmark.together else "voiceflow"
    sides = {ours: _run(sys.executable, benchmark.module, benchmark.quick if quick else (), console)}
    if benchmark.peer is not None and peer_python is not None:
        words = benchmark.peer_quick if quick else benchmark.peer_full
        sides["pipecat"] = _run(peer_python, f"peers.{benchmark.peer}", words, console)
    return sides


def _run(python: str, module: str, words: tuple[str, ...], console: Console) -> dict[str, Any]:
    """One module's document, or {"failed": why}."""
    console.print(f"running benchmarks.{module} {' '.join(words)}", style="dim", markup=False)
    try:
        done = subprocess.run(
            [python, "-m", f"benchmarks.{module}", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"failed": str(error)}
    if done.returncode:
        console.print(done.stderr[-2000:], style="red", markup=False)
        return {"failed": f"exit code {done.returncode}: {done.stderr[-300:]}"}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def tables(name: str, both: dict[str, Any]) -> list[Table]:
    """One table of the figures, voiceflow's and the peer's below each other, and one of the targets."""
    figures = Table("who", "what", "median", "p99", "n", title=name, title_justify="left")
    for who, result in both.items():
        if "failed" in result:
            figures.add_row(who, "failed", result["failed"][:60], "", "")
        for path, found in _leaves(result):
            unit = found.get("unit", "")
            figures.add_row(
                who, path, f"{found['median']:g} {unit}", f"{found['p99']:g} {unit}", str(found["n"])
            )
        for path, value in _plain(result):
            figures.add_row(who, path, f"{value:g}", "", "")
    targets = Table("target", "at most", "this run", "", title=f"{name}: targets", title_justify="left")
    for target in [target for result in both.values() for target in result.get("targets", [])]:
        met = "[green]met[/green]" if target["met"] else "[red]missed[/red]"
        value = "-" if target["value"] is None else f"{target['value']:g}"
        unit = target["unit"]
        targets.add_row(target["name"], f"{target['at_most']:g} {unit}", f"{value} {unit}", met)
    return [figures, *([targets] if targets.row_count else [])]


HIDDEN = (
    *("environment", "noise", "targets", "load", "others", "pacing_lag_ms", "to_first_ms", "to_last_ms"),
    *("own_ms", "fakes_ms"),
)
"""In the document only."""
PLAIN = (
    *("cpu_ms_per_call_s", "clears_followed_by_media", "missing", "runs_with_stale", "rss_growth_percent"),
    *("above_bare_median_ms", "above_bare_p99_ms", "slower_tokens_ms", "unanswered"),
    *("draft_audio_ms", "kept_audio_ms", "words_in_history", "words_in_requests", "drafts_dropped"),
    *("ghost_s", "uncancelled", "waited_for_a_dial", "waited_for_a_handshake", "silent", "llm", "tts"),
)


def _leaves(found: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every summary of times in a result, with where it stands."""
    if not isinstance(found, dict):
        return []
    if "median" in found and "p99" in found:
        return [(path.replace("setups ", ""), found)]
    return [
        leaf
        for key, value in found.items()
        if key not in HIDDEN
        for leaf in _leaves(value, f"{path} {key}".strip())
    ]


def _plain(found: Any, path: str = "") -> list[tuple[str, float]]:
    """The single figures worth a line."""
    if not isinstance(found, dict):
        return []
    lines = []
    for key, value in found.items():
        if key in HIDDEN:
            continue
        where = f"{path} {key}".strip().replace("setups ", "")
        if (key in PLAIN or path.endswith("slope")) and isinstance(value, int | float):
            lines.append((where, float(value)))
        lines += _plain(value, f"{path} {key}".strip())
    return lines


if __name__ == "__main__":
    main()
