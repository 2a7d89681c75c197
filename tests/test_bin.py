"""bin/voiceflow, bin/test and what they share, in a copy of the checkout with Pythons that only pretend."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHELLS = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]
TOOLS = ["cat", "cksum", "cp", "date", "env", "grep", "ln", "mkdir", "ps"]
TOOLS += ["readlink", "rm", "rmdir", "sed", "sh", "sleep", "tail", "uname"]

# Answers as a Python would, notes every call, and lets the test decide what pip does.
FAKE_PYTHON = """\
#!/bin/sh
printf '%s\\n' "$*" | sed q >>"{calls}"
case $* in
    -V) echo "Python 3.12.1" ;;
    "-I -c import pip") ;;
    "-I -c "*) {answer} ;;
    "-I -m venv "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    "-I -m pip install "*)
        . "{pip}"
        for tool in voiceflow ruff mypy pytest; do
            cp "{tool}" "$PWD/.venv/bin/$tool"
        done
        ;;
    *) exit 9 ;;
esac
"""

# voiceflow, ruff, mypy and pytest: says how it was called, and fails if it is the one named in FAIL.
FAKE_TOOL = """\
#!/bin/sh
printf '%s' "${0##*/}"; for one; do printf ' <%s>' "$one"; done; printf ' in %s\\n' "$PWD"
[ "${FAIL:-}" != "${0##*/}" ] || exit 7
"""


@dataclass
class Machine:
    """A checkout, and a PATH with the usual tools and no Python but those that the test puts there."""

    folder: Path

    def __post_init__(self) -> None:
        self.checkout = self.folder / "check out"
        self.path = self.folder / "path"
        self.calls_file = self.folder / "calls"
        self.pip = self.folder / "pip.sh"
        self.tool = self.folder / "tool.sh"
        self.path.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            if found:
                (self.path / tool).symlink_to(found)
        shutil.copytree(ROOT / "bin", self.checkout / "bin")
        self.pyproject = self.checkout / "pyproject.toml"
        self.pyproject.write_text("[project]\n")
        self.venv = self.checkout / ".venv"
        self.calls_file.touch()
        self.pip.touch()
        self.script(self.tool, FAKE_TOOL)

    def script(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def python(self, name: str, answer: str = 'echo "ok 3.12.1 $0"') -> Path:
        """Installs a Python; `answer` is what it does when it is asked for its version."""
        text = FAKE_PYTHON.format(calls=self.calls_file, answer=answer, pip=self.pip, tool=self.tool)
        self.script(self.path / name, text)
        return self.path / name

    def start(self, *command: str, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        first = str(self.checkout / command[0]) if command[0].startswith("bin/") else command[0]
        return subprocess.Popen(
            [first, *command[1:]],
            cwd=cwd or self.folder,
            env={"PATH": str(self.path), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*command, cwd=cwd, **env)
        out, err = process.communicate(timeout=20)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def calls(self) -> list[str]:
        """What the Pythons were asked to do since the last look: "venv", "pip .", "pip .[test]"."""
        lines = self.calls_file.read_text().splitlines()
        self.calls_file.write_text("")
        asked = []
        for line in lines:
            if line.startswith("-I -m venv"):
                asked.append("venv")
            elif line.startswith("-I -m pip"):
                asked.append(f"pip {line.split()[-1]}")
        return asked

    def lock(self, owner: str) -> Path:
        """Leaves a lock as if `owner` was setting up."""
        self.venv.mkdir()
        (self.venv / ".lock").symlink_to(owner)
        return self.venv / ".lock"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def said(machine: Machine, *arguments: str) -> str:
    """What the pretended voiceflow prints."""
    return "voiceflow" + "".join(f" <{one}>" for one in arguments) + f" in {machine.folder}\n"


# -- .venv is made once ------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_first_start_sets_up_and_the_next_one_only_starts(machine: Machine, shell: str) -> None:
    machine.python("python3.12")
    command = (str(shutil.which(shell)), str(machine.checkout / "bin/voiceflow"))
    first = machine.run(*command, "run", "a b", "")
    assert first.returncode == 0, first.stderr
    assert first.stdout == said(machine, "run", "a b", "")
    assert "setting up .venv with Python 3.12.1 (once, about a minute) ..." in first.stderr
    assert "ready after" in first.stderr
    assert machine.calls() == ["venv", "pip ."]

    second = machine.run(*command, "run")
    assert (second.returncode, second.stdout, second.stderr) == (0, said(machine, "run"), "")
    assert machine.calls_file.read_text() == ""  # no Python at all was started: that would cost 20 ms
    assert not (machine.venv / ".lock").is_symlink()


def test_works_through_symlinks_and_from_anywhere(machine: Machine) -> None:
    machine.python("python3.12")
    (machine.folder / "one").symlink_to(machine.checkout / "bin/voiceflow")
    elsewhere = machine.folder / "else where"
    elsewhere.mkdir()
    (elsewhere / "two").symlink_to("../one")
    (machine.path / "vf").symlink_to(elsewhere / "two")
    for command in ([str(elsewhere / "two")], ["./two"], ["vf"], ["sh", "two"]):
        done = machine.run("env", *command, "x", cwd=elsewhere, CDPATH="/")
        assert (done.returncode, done.stdout) == (0, f"voiceflow <x> in {elsewhere}\n"), (
            command,
            done.stderr,
        )
    inside = machine.run("env", "sh", "voiceflow", cwd=machine.checkout / "bin")
    assert inside.returncode == 0


def test_changed_pyproject_updates(machine: Machine) -> None:
    machine.python("python3.12")
    assert machine.run("bin/voiceflow").returncode == 0
    assert machine.calls() == ["venv", "pip ."]
    machine.pyproject.write_text("[project]\nname = 'x'\n")
    updated = machine.run("bin/voiceflow")
    assert "pyproject.toml has changed: updating .venv ..." in updated.stderr
    assert machine.calls() == ["pip ."]
    assert machine.run("bin/voiceflow").stderr == ""


def test_each_command_adds_what_it_needs(machine: Machine) -> None:
    machine.python("python3.12")
    assert machine.run("bin/voiceflow").returncode == 0
    added = machine.run("bin/test")
    assert "adding to .venv what bin/test needs (once) ..." in added.stderr
    assert machine.run("bin/test").stderr == ""
    assert machine.run("bin/voiceflow").stderr == ""
    assert machine.calls() == ["venv", "pip .", "pip .[test]"]


def test_what_the_checks_need_is_enough_to_run(machine: Machine) -> None:
    machine.python("python3.12")
    assert machine.run("bin/test").returncode == 0
    assert machine.run("bin/voiceflow").stderr == ""
    assert machine.calls() == ["venv", "pip .[test]"]


def test_the_demo_brings_its_models(machine: Machine) -> None:
    machine.python("python3.12")
    for short in (("demo", "--vad-only"), ("demo", "-h"), ("run", "demo")):
        assert machine.run("bin/voiceflow", *short).stdout == said(machine, *short)
    assert machine.calls() == ["venv", "pip ."]
    added = machine.run("bin/voiceflow", "demo", "--out", "a b.wav")
    assert added.stdout == said(machine, "demo", "--out", "a b.wav")
    assert "adding to .venv the models that the demo talks with" in added.stderr
    assert machine.calls() == ["pip .[local]"]
    assert machine.run("bin/voiceflow", "demo").stderr == ""
    assert machine.run("bin/voiceflow", "run").stderr == ""
    assert machine.calls_file.read_text() == ""


def test_what_the_checks_need_is_enough_for_the_demo(machine: Machine) -> None:
    machine.python("python3.12")
    assert machine.run("bin/test").returncode == 0
    machine.calls()
    assert machine.run("bin/voiceflow", "demo").stderr == ""


def test_the_demo_where_there_are_no_models(machine: Machine) -> None:
    machine.python("python3.12")
    machine.pip.write_text("case $* in *local*) echo 'No matching distribution found'; exit 1 ;; esac\n")
    first = machine.run("bin/voiceflow", "demo")
    assert (first.returncode, first.stdout) == (0, said(machine, "demo"))
    assert "the demo's models cannot be installed here" in first.stderr
    assert machine.calls() == ["venv", "pip .[local]", "pip ."]
    assert "No matching" in (machine.venv / "setup-models.log").read_text()
    assert machine.run("bin/voiceflow", "demo").stderr == ""  # not tried every time


def test_the_demo_when_there_is_no_network(machine: Machine) -> None:
    machine.python("python3.12")
    machine.pip.write_text("echo 'Max retries exceeded: name resolution'; exit 1\n")
    refused = machine.run("bin/voiceflow", "demo")
    assert refused.returncode == 1
    assert "pip cannot reach the package index" in refused.stderr
    machine.pip.write_text("")
    assert machine.run("bin/voiceflow", "run").returncode == 0
    machine.pip.write_text("exit 1\n")
    short = machine.run("bin/voiceflow", "demo")
    assert (short.returncode, short.stdout) == (0, said(machine, "demo"))
    assert "the demo's models cannot be fetched now" in short.stderr
    machine.pip.write_text("")
    machine.calls()
    assert machine.run("bin/voiceflow", "demo").returncode == 0
    assert machine.calls() == ["pip .[local]"]  # tried again when there is one


def test_venv_of_the_users_own_making_is_used(machine: Machine) -> None:
    python = machine.python("python3.12")
    (machine.venv / "bin").mkdir(parents=True)
    shutil.copy(python, machine.venv / "bin/python")
    assert machine.run("bin/voiceflow").returncode == 0
    assert machine.calls() == ["pip ."]


def test_moved_checkout_gets_a_new_venv(machine: Machine) -> None:
    machine.python("python3.12")
    assert machine.run("bin/voiceflow").returncode == 0
    moved = machine.folder / "moved"
    machine.checkout.rename(moved)
    machine.calls()
    assert machine.run(str(moved / "bin/voiceflow")).returncode == 0
    assert machine.calls() == ["venv", "pip ."]


def test_venv_whose_python_is_gone_is_made_again(machine: Machine) -> None:
    machine.python("python3.12")
    assert machine.run("bin/voiceflow").returncode == 0
    machine.calls()
    (machine.venv / "bin/python").unlink()
    (machine.venv / "bin/python").symlink_to("/nowhere/python3.11")
    assert machine.run("bin/voiceflow").returncode == 0
    assert machine.calls() == ["venv", "pip ."]


def test_killed_first_start_is_done_again_from_the_beginning(machine: Machine) -> None:
    machine.python("python3.12")
    machine.pip.write_text("kill -9 $PPID; exit 1\n")
    assert machine.run("bin/voiceflow").returncode == -9
    assert (machine.venv / ".lock").is_symlink()
    assert machine.calls() == ["venv", "pip ."]
    (machine.venv / "half").touch()
    machine.pip.write_text("")
    assert machine.run("bin/voiceflow").stdout == said(machine)
    assert machine.calls() == ["venv", "pip ."]
    assert not (machine.venv / "half").exists()
    assert sorted(path.name for path in machine.venv.iterdir() if path.name.startswith(".")) == [
        ".voiceflow-run"
    ]


def test_killed_pip_is_done_again_from_the_beginning(machine: Machine) -> None:
    machine.python("python3.12")
    machine.pip.write_text("kill -9 $$\n")
    killed = machine.run("bin/voiceflow")
    assert killed.returncode == 1
    assert "pip was killed by signal 9; run this again." in killed.stderr
    machine.pip.write_text("")
    machine.calls()
    assert machine.run("bin/voiceflow").returncode == 0
    assert machine.calls() == ["venv", "pip ."]


def test_checkout_that_cannot_be_written(machine: Machine) -> None:
    machine.python("python3.12")
    machine.venv.touch()  # not chmod: root may write everywhere
    refused = machine.run("bin/voiceflow")
    assert refused.returncode == 1
    assert f"cannot write to {machine.venv}: is the checkout read-only?" in refused.stderr


# -- which Python ------------------------------------------------------------------------------------


def test_no_python_at_all(machine: Machine) -> None:
    refused = machine.run("bin/voiceflow")
    assert refused.returncode == 1
    assert "needs Python 3.11, 3.12 or 3.13 and found none that it can use." in refused.stderr
    assert "Install one" in refused.stderr
    assert "VOICEFLOW_PYTHON=/path/to/python3" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('echo "old 3.9.6 $0"', "3.9.6 is too old"),
        ('echo "new 3.14.0 $0"', "3.14.0 is too new"),
        ('echo "pypy 3.11.9 $0"', "3.11.9 is pypy, not CPython"),
        ('echo "no-ensurepip 3.12.3 $0"', "3.12.3 has no module ensurepip"),
        ('echo "no-ssl 3.12.3 $0"', "3.12.3 has no module ssl: it was built without it"),
        ("echo 'pyenv: python3: command not found' >&2; exit 127", "does not start, or is Python 2"),
        ("exit 0", "does not start, or is Python 2"),
    ],
)
def test_python_that_cannot_be_used(machine: Machine, answer: str, reason: str) -> None:
    machine.python("python3", answer)
    refused = machine.run("bin/voiceflow")
    assert refused.returncode == 1
    assert f"\n    python3: {reason}" in refused.stderr
    assert "pyenv" not in refused.stderr.replace("uv or pyenv", "")
    assert machine.calls() == []


def test_debian_says_which_package_brings_venv(machine: Machine) -> None:
    machine.python("python3", 'echo "no-ensurepip 3.12.3 $0"')
    machine.script(machine.path / "apt-get", "#!/bin/sh\nexit 9\n")
    refused = machine.run("bin/voiceflow")
    assert "3.12.3 has no module ensurepip: sudo apt-get install python3.12-venv\n" in refused.stderr
    assert "sudo apt-get install python3 python3-venv" in refused.stderr


def test_the_first_that_works_is_taken(machine: Machine) -> None:
    machine.python("python3.13", "exit 127")
    machine.python("python3.12", 'echo "no-ensurepip 3.12.3 $0"')
    machine.python("python3.11", 'echo "ok 3.11.7 $0"')
    machine.python("python3", 'echo "ok 3.13.9 $0"')
    assert "with Python 3.11.7" in machine.run("bin/voiceflow").stderr


def test_voiceflow_python_is_obeyed(machine: Machine) -> None:
    machine.python("python3.13", 'echo "ok 3.13.0 $0"')
    mine = machine.python("my python", 'echo "ok 3.11.2 $0"')
    first = machine.run("bin/voiceflow", VOICEFLOW_PYTHON=str(mine))
    assert "with Python 3.11.2" in first.stderr
    assert machine.run("bin/voiceflow", VOICEFLOW_PYTHON=str(mine)).stderr == ""
    assert machine.run("bin/voiceflow").stderr == ""  # without it, what is there is good enough
    other = machine.run("bin/voiceflow", VOICEFLOW_PYTHON="python3.13")
    assert "with Python 3.13.0" in other.stderr
    assert machine.calls() == ["venv", "pip .", "venv", "pip ."]


def test_voiceflow_python_that_cannot_be_used_is_not_replaced(machine: Machine) -> None:
    machine.python("python3.13")
    machine.python("python3", 'echo "old 3.9.6 $0"')
    for name, reason in (("python3", "3.9.6 is too old"), ("/no/python", "there is no such program")):
        refused = machine.run("bin/voiceflow", VOICEFLOW_PYTHON=name)
        assert refused.returncode == 1
        assert "the one that VOICEFLOW_PYTHON names cannot be used" in refused.stderr
        assert f"    {name}: {reason}" in refused.stderr
    assert machine.calls() == []


def test_the_probe_accepts_the_python_that_runs_the_tests(machine: Machine) -> None:
    script = (
        'root=$1; . "$1/bin/lib/environment.sh"; try_python "$2"; echo "$verdict $found_version $found_path"'
    )
    done = machine.run("sh", "-c", script, "sh", str(machine.checkout), sys.executable)
    version = ".".join(map(str, sys.version_info[:3]))
    assert done.stdout == f"ok {version} {sys.executable}\n", done.stderr


# -- pip ---------------------------------------------------------------------------------------------

OFFLINE = """\
echo "WARNING: Retrying after connection broken by 'NewConnectionError: Temporary failure in name resolution'"
echo "ERROR: No matching distribution found for hatchling>=1.27"
exit 1
"""


def test_no_network(machine: Machine) -> None:
    machine.python("python3.12")
    machine.pip.write_text(OFFLINE)
    refused = machine.run("bin/voiceflow")
    assert refused.returncode == 1
    assert "pip cannot reach the package index: is there a network?" in refused.stderr
    assert f"All that pip said is in {machine.venv}/setup.log" in refused.stderr
    assert "NewConnectionError" not in refused.stderr
    assert "NewConnectionError" in (machine.venv / "setup.log").read_text()

    machine.pip.write_text("")
    machine.calls()
    assert machine.run("bin/voiceflow").returncode == 0
    assert machine.calls() == ["pip ."]  # the venv itself was fine


def test_no_network_for_an_update_leaves_the_venv_alone(machine: Machine) -> None:
    machine.python("python3.12")
    assert machine.run("bin/voiceflow").returncode == 0
    before = machine.pyproject.read_text()
    machine.pyproject.write_text("[project]\nname = 'x'\n")
    machine.pip.write_text(OFFLINE)
    assert machine.run("bin/voiceflow").returncode == 1
    machine.pyproject.write_text(before)
    assert machine.run("bin/voiceflow").stderr == ""


def test_certificate_that_is_not_trusted(machine: Machine) -> None:
    machine.python("python3.12")
    machine.pip.write_text("echo 'SSLError: CERTIFICATE_VERIFY_FAILED'; exit 1\n")
    assert "point PIP_CERT at its certificate file" in machine.run("bin/voiceflow").stderr


def test_other_failure_shows_the_last_words_of_pip(machine: Machine) -> None:
    machine.python("python3.12")
    machine.pip.write_text(
        "for i in 1 2 3 4 5 6 7 8; do echo line $i; echo; done; echo ERROR: no >&2; exit 2\n"
    )
    refused = machine.run("bin/voiceflow")
    assert refused.returncode == 1
    assert "    line 8\n    ERROR: no\n" in refused.stderr
    assert "network" not in refused.stderr


def test_pip_is_left_alone_by_the_callers_settings(machine: Machine) -> None:
    machine.python("python3.12")
    machine.pip.write_text('echo "$PIP_USER $PIP_RETRIES in $PWD"\n')
    assert machine.run("bin/voiceflow", PIP_USER="1", PIP_RETRIES="7").returncode == 0
    assert (machine.venv / "setup.log").read_text() == f"0 7 in {machine.checkout}\n"


# -- one set-up at a time ----------------------------------------------------------------------------


def test_two_first_starts_at_the_same_time(machine: Machine) -> None:
    machine.python("python3.12")
    go = machine.folder / "go"
    machine.pip.write_text(
        f'n=0; while [ ! -e "{go}" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done\n'
    )
    first = machine.start("bin/voiceflow", "first")
    assert first.stderr is not None
    assert "setting up" in first.stderr.readline()
    second = machine.start("bin/voiceflow", "second")
    assert second.stderr is not None
    waiting = second.stderr.readline()
    assert f"waiting for another set-up of .venv (process {first.pid}@" in waiting
    go.touch()
    assert first.communicate(timeout=20)[0] == said(machine, "first")
    assert second.communicate(timeout=20)[0] == said(machine, "second")
    assert (first.returncode, second.returncode) == (0, 0)
    assert machine.calls() == ["venv", "pip ."]
    assert not (machine.venv / ".lock").is_symlink()


def test_lock_of_a_process_that_died_is_taken_over(machine: Machine) -> None:
    machine.python("python3.12")
    dead = subprocess.Popen(["true"])
    dead.wait()
    lock = machine.lock(f"{dead.pid}@{os.uname().nodename}")
    assert machine.run("bin/voiceflow").stdout == said(machine)
    assert not lock.is_symlink()
    assert not (machine.venv / ".lock.broken").exists()


@pytest.mark.parametrize("host", [os.uname().nodename, "another-host"])
def test_lock_that_is_held_is_respected(machine: Machine, host: str) -> None:
    machine.python("python3.12")
    pid = os.getpid() if host == os.uname().nodename else 2**22 - 1
    lock = machine.lock(f"{pid}@{host}")
    refused = machine.run("bin/voiceflow", VOICEFLOW_SETUP_WAIT="0")
    assert refused.returncode == 1
    assert f"another set-up (process {pid}@{host}) has held {lock} for 0 s." in refused.stderr
    assert f"rm -rf '{lock}'" in refused.stderr
    assert lock.is_symlink()
    assert machine.calls() == []


# -- bin/test ----------------------------------------------------------------------------------------


def stages(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith(("ruff", "mypy", "pytest"))]


def test_checks_run_one_after_another(machine: Machine) -> None:
    machine.python("python3.12")
    done = machine.run("bin/test", "-k", "two words", "tests/x.py")
    where = f"in {machine.checkout}"
    assert done.returncode == 0, done.stderr
    assert stages(done.stdout) == [
        f"ruff <format> <--check> <.> {where}",
        f"ruff <check> <.> {where}",
        f"mypy {where}",
        f"pytest <-k> <two words> <tests/x.py> {where}",
    ]
    assert done.stdout.startswith("Python 3.12.1\n")
    for heading in ("== ruff format --check .", "== ruff check .", "== mypy", "== pytest -k two words"):
        assert f"\n{heading}" in done.stdout
    assert "\n== pytest: ok, " in done.stdout
    assert "\nAll checks passed in " in done.stdout


@pytest.mark.parametrize(("failing", "ran"), [("ruff", 1), ("mypy", 3), ("pytest", 4)])
def test_checks_stop_at_the_first_that_fails(machine: Machine, failing: str, ran: int) -> None:
    machine.python("python3.12")
    done = machine.run("bin/test", FAIL=failing)
    assert done.returncode == 7
    assert len(stages(done.stdout)) == ran
    assert f"\n== {failing}: FAILED (exit code 7) after " in done.stdout
    assert "All checks passed" not in done.stdout


def test_quick_leaves_the_tests_out(machine: Machine) -> None:
    machine.python("python3.12")
    done = machine.run("bin/test", "--quick")
    assert done.returncode == 0
    assert [line.split()[0] for line in stages(done.stdout)] == ["ruff", "ruff", "mypy"]
    refused = machine.run("bin/test", "--quick", "x")
    assert refused.returncode == 2
    assert "usage: bin/test" in refused.stderr


def test_help_needs_nothing(machine: Machine) -> None:
    for option in ("-h", "--help"):
        done = machine.run("bin/test", option)
        assert (done.returncode, done.stderr) == (0, "")
        assert "usage: bin/test" in done.stdout
    assert not machine.venv.exists()


def test_two_dashes_hand_everything_to_pytest(machine: Machine) -> None:
    machine.python("python3.12")
    assert "pytest <--help> in" in machine.run("bin/test", "--", "--help").stdout
