"""`.env`: where it is looked for, who wins, and that no value is ever shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from voiceflow.cli import environment

ROOT = Path(__file__).parents[2]
SECRET = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
MAIN = [sys.executable, "-c", "from voiceflow.cli import main; main()"]
PIPELINE = """
import os
from voiceflow import Pipeline

def pipeline(call):
    print("SEEN", os.environ.get("WHO"), os.environ.get("TWILIO_NUMBER"))
    return Pipeline(call.source(), call.sink())
"""


@pytest.fixture(autouse=True)
def _a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """.env files count here, and what a test puts into the environment is gone afterwards."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(os, "environ", {**os.environ, environment.DISABLED: "0"})


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def voiceflow(*words: str | Path, cwd: Path, **given: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != environment.DISABLED}
    return subprocess.run(
        [*MAIN, *map(str, words)],
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200", **given},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


# -- where ----------------------------------------------------------------------------------------------


def test_the_working_directory_then_the_pipeline_s_project(tmp_path):
    here = write(tmp_path / "here/.env", "")
    beside = write(tmp_path / "project/pipelines/.env", "")
    above = write(tmp_path / "project/.env", "")
    agent = write(tmp_path / "project/pipelines/agent.py", PIPELINE)
    other = write(tmp_path / "other/agent.py", PIPELINE)
    write(tmp_path / ".env", "")  # above the working directory and above `other`: nobody's
    assert environment.files(["run", str(agent), "--port", "1"]) == [here, beside, above]
    assert environment.files(["run", str(other)]) == [here]
    assert environment.files(["run", "nothing.py"]) == [here]
    assert environment.files([]) == [here]


def test_a_file_in_the_working_directory_is_read_once(tmp_path):
    here = write(tmp_path / "here/.env", "")
    write(tmp_path / "here/agent.py", PIPELINE)
    assert environment.files(["graph", "agent.py"]) == [here]


def test_a_folder_named_env_is_no_file(tmp_path):
    (tmp_path / "here/.env").mkdir()  # a virtual environment, as some people name it
    assert environment.files([]) == []


@pytest.mark.parametrize(
    ("value", "read"), [("1", False), ("true", False), ("0", True), ("", True), ("no", True)]
)
def test_the_switch(tmp_path, value, read):
    write(tmp_path / "here/.env", "WHO=file")
    os.environ[environment.DISABLED] = value
    environment.load([])
    assert (os.environ.get("WHO") == "file") is read


def test_no_test_reads_a_developer_s_own_file_or_keys():
    """What tests/conftest.py sees to, in a process that a test starts in the checkout."""
    code = "import os; from voiceflow.cli import environment as e; print(e.files([]), sorted(os.environ))"
    os.environ[environment.DISABLED] = "1"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("[] ")
    assert not re.search(r"'(TWILIO|DEEPGRAM|OPENAI|ELEVENLABS)_", done.stdout)


# -- who wins -------------------------------------------------------------------------------------------


def test_the_environment_wins_then_the_first_file(tmp_path):
    write(tmp_path / "here/.env", "A=here\nB=here\n")
    write(tmp_path / "project/.env", "A=project\nB=project\nC=project\n")
    agent = write(tmp_path / "project/agent.py", PIPELINE)
    os.environ["A"] = "real"
    environment.load([str(agent)])
    assert [os.environ[name] for name in "ABC"] == ["real", "here", "project"]


def test_an_empty_variable_of_the_environment_wins_an_empty_line_does_not_count(tmp_path):
    write(tmp_path / "here/.env", "SET=file\nEMPTY=\nBARE\nexport LAST=it\n")
    os.environ["SET"] = ""
    environment.load([])
    assert os.environ["SET"] == ""
    assert "EMPTY" not in os.environ
    assert "BARE" not in os.environ
    assert os.environ["LAST"] == "it"


def test_values_are_taken_as_they_are(tmp_path):
    text = "\ufeffKEY=a$HOME${HOME}\nQUOTED=\"two words\"  # why\nHASH='a#b'\nEQUALS=a=b==\n"
    write(tmp_path / "here/.env", text.replace("\n", "\r\n"))
    environment.load([])
    values = [os.environ[name] for name in ("KEY", "QUOTED", "HASH", "EQUALS")]
    assert values == ["a$HOME${HOME}", "two words", "a#b", "a=b=="]


# -- what is wrong with a file --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (f'GOOD=1\nKEY="{SECRET}\nMORE=2\n'.encode(), ".env:2 is not like NAME=value"),
        (f"GOOD=1\nKEY={SECRET}\0\n".encode(), ".env:2 is not like NAME=value"),
        (f"KEY={SECRET}\n".encode("utf-16"), ".env is not UTF-8 text"),
    ],
)
def test_a_broken_file_is_told_and_does_not_stop_anything(tmp_path, capsys, content, complaint):
    (tmp_path / "here/.env").write_bytes(content)
    environment.load([])
    told = capsys.readouterr().err
    assert f"warning: {tmp_path / 'here'}/{complaint}" in told
    assert SECRET not in told
    assert "KEY" not in os.environ
    if b"GOOD" in content:
        assert os.environ["GOOD"] == "1"


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, capsys):
    write(tmp_path / "here/.env", f"KEY={SECRET}")

    def refuse(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    environment.load([])
    assert ".env cannot be read: Permission denied" in capsys.readouterr().err


# -- the command ----------------------------------------------------------------------------------------


def test_options_and_pipeline_files_see_it(tmp_path):
    write(tmp_path / "project/.env", f"WHO=file\nTWILIO_NUMBER=+12025550199\nTWILIO_AUTH_TOKEN={SECRET}\n")
    agent = write(tmp_path / "project/pipelines/agent.py", PIPELINE)
    seen = voiceflow("graph", agent, cwd=tmp_path / "here")
    assert "SEEN file +12025550199" in seen.stdout, seen.stderr
    assert "SEEN mine +12025550199" in voiceflow("graph", agent, cwd=tmp_path / "here", WHO="mine").stdout
    assert "SEEN None None" in voiceflow("graph", agent, cwd=tmp_path, PYTHON_DOTENV_DISABLED="1").stdout
    # An option: without the token of the file it would be refused.
    tokenless = voiceflow("run", agent, "--host", "0.0.0.0", "--public-url", "x", cwd=tmp_path / "here")
    assert "--public-url 'x' is no address" in tokenless.stderr
    for done in (seen, tokenless):
        assert SECRET not in done.stdout + done.stderr


# -- .env.example ---------------------------------------------------------------------------------------


def example() -> list[tuple[str, str, str]]:
    """Each variable of the example: its name, its value, the comment above it."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    found = []
    for number, line in enumerate(lines):
        if match := re.fullmatch(r"(?:# )?([A-Z][A-Z_]+)=(\S*)", line):
            found.append((match[1], match[2], lines[number - 1]))
    return found


def test_the_example_has_every_variable_that_is_read():
    names = [name for name, _, _ in example()]
    assert len(names) == len(set(names))
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("voiceflow", "processors", "pipelines")
        for path in (ROOT / folder).rglob("*.py")
    )
    read = set(re.findall(r'"((?:DEEPGRAM|OPENAI|ELEVENLABS|TWILIO|VOICEFLOW)_[A-Z_]+)"', sources))
    assert read == set(names)


def test_the_example_says_where_to_get_each_and_sets_nothing(tmp_path):
    for name, value, comment in example():
        assert comment.startswith("# "), name
        assert not value or not name.endswith(("_KEY", "_TOKEN", "_SECRET", "_SID", "_NUMBER")), name
    variables, complaints = environment.read(ROOT / ".env.example")
    assert (variables, complaints) == ({}, [])


def test_it_stays_out_of_git():
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
