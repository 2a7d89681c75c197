"""The wheel, built and installed into a fresh environment beside a project of a user's."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("voiceflow", "processors", "pipelines")
HEAVY = ("aiohttp", "loguru", "numpy", "onnxruntime", "rich", "soxr", "typer", "uvloop")


def run(*command: str | Path, cwd: Path) -> str:
    """What the command prints. It gets no PYTHONPATH, nor anything else that could lend it the checkout."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the hatchling of the test environment, so that no network is needed."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment in which only the wheel is installed.

    The dependencies are borrowed by a .pth file that names the folder in which the tests' own environment has
    them. A folder named so goes on `sys.path`, but the .pth files inside it are not read, and that is how the
    checkout gets into the tests' environment (`pip install -e` leaves a .pth file with its path). So what the
    fresh environment finds of voiceflow, processors and pipelines can only come from the wheel. The file is
    written after pip has run: before, pip would see voiceflow-agents in the borrowed folder.
    """
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in sorted(borrowed)))
    return python


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project with processors of its own and a pipeline that needs them beside ours."""
    (tmp_path / "processors").mkdir()
    (tmp_path / "processors/mine.py").write_text(
        "from voiceflow import Processor\n\nclass Mine(Processor):\n    pass\n"
    )
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/agent.py").write_text(
        "import processors.silero\n"
        "from processors.mine import Mine\n"
        "from processors.twilio import codec\n"
        "from voiceflow import Call, Pipeline\n"
        "\n"
        "def pipeline(call: Call) -> Pipeline:\n"
        "    return Pipeline(Mine(), parts=True)\n"
    )
    return tmp_path


def ask(python: Path, project: Path, script: str, *arguments: str) -> Any:
    """Runs a script that lies in the project's folder, as a user would; it prints JSON."""
    (project / "script.py").write_text(script)
    return json.loads(run(python, project / "script.py", *arguments, cwd=project))


def shipped() -> set[str]:
    """All that is in the packages of the checkout, but for what Python and tools leave there."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    relative = (path.relative_to(ROOT) for path in files)
    return {
        str(path)
        for path in relative
        if not any(part.startswith((".", "__pycache__")) for part in path.parts)
    }


# -- what is in it -----------------------------------------------------------------------------------


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == shipped()
    assert {name.split("/")[0] for name in names} == set(PACKAGES)


def test_wheel_holds_the_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        size = {info.filename: info.file_size for info in archive.infolist()}
    for name in ("voiceflow/py.typed", "processors/silero/silero_vad.onnx", "processors/silero/LICENSE"):
        assert size[name] == (ROOT / name).stat().st_size
    recordings = [name for name in size if name.startswith("voiceflow/assets/") and name.endswith(".wav")]
    assert len(recordings) >= 2
    assert "voiceflow/assets/speech/LICENSE" in size
    licences = {name.split("/licenses/")[1] for name in size if "/licenses/" in name}
    assert licences == {"LICENSE", "processors/silero/LICENSE", "voiceflow/assets/speech/LICENSE"}


def test_shared_folders_are_namespace_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert names.isdisjoint({"processors/__init__.py", "pipelines/__init__.py"})


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
        commands = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert metadata["Name"] == "voiceflow-agents"
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert "voiceflow = voiceflow.cli:main\n" in commands


# -- how it works when it is installed ---------------------------------------------------------------


def test_imports_from_both_sides(fresh: Path, project: Path) -> None:
    script = """
import importlib, json, pkgutil, sys
import processors, voiceflow
from processors.mine import Mine
site = voiceflow.__path__[0].removesuffix("/voiceflow")
ours = [m.name for m in pkgutil.walk_packages([site + "/processors"], "processors.")]
for name in ours:
    importlib.import_module(name)
from voiceflow.server.loader import load
print(json.dumps([site, list(processors.__path__), ours, sys.modules["processors.mine"].__file__]))
"""
    site, folders, ours, mine = ask(fresh, project, script)
    assert Path(site).is_relative_to(fresh.parents[1])
    assert folders == [f"{project}/processors", f"{site}/processors"]
    assert {"processors.silero", "processors.twilio", "processors.play"} <= set(ours)
    assert mine == f"{project}/processors/mine.py"


def test_pipeline_file_of_the_project_loads(fresh: Path, project: Path) -> None:
    script = """
import json, sys
sys.path.pop(0)  # a console script does not have the project's folder there
from voiceflow.server.loader import load
agent = load("pipelines/agent.py")
print(json.dumps([repr(agent.make(None)), sorted(map(str, agent.sources()))]))
"""
    made, sources = ask(fresh, project, script)
    assert made == "Pipeline(Mine)"
    assert sources == [f"{project}/pipelines/agent.py", f"{project}/processors/mine.py"]


@pytest.mark.parametrize("folder", ["processors", "pipelines"])
def test_init_file_in_the_project_is_explained(fresh: Path, project: Path, folder: str) -> None:
    (project / folder / "__init__.py").touch()
    script = """
import json, sys
from voiceflow.errors import PipelineFileError
from voiceflow.server.loader import load
try:
    load("pipelines/agent.py")
except PipelineFileError as error:
    print(json.dumps(str(error)))
"""
    text = ask(fresh, project, script)
    assert f"{project}/{folder}/__init__.py hides voiceflow's own {folder}" in text
    assert "Delete that file" in text


@pytest.mark.parametrize("module", ["voiceflow", "voiceflow.server.loader"])
def test_import_is_light(fresh: Path, project: Path, module: str) -> None:
    script = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps([name for name in sys.argv[2:] if name in sys.modules]))
"""
    assert ask(fresh, project, script, module, *HEAVY) == []


def test_recordings_and_model_are_found_where_they_were_installed(fresh: Path, project: Path) -> None:
    script = """
import json
from processors.silero import SileroVAD
from voiceflow.assets import speech
print(json.dumps([str(speech("answer")), type(SileroVAD()).__name__]))
"""
    recording, name = ask(fresh, project, script)
    assert Path(recording).is_relative_to(fresh.parents[1])
    assert Path(recording).is_file()
    assert name == "SileroVAD"
