"""`.env`: keys and addresses from a file, so that nobody has to export them.

    .env of the working directory      first
    .env beside the pipeline file      then; for pipelines/agent.py also the one in the folder above

The first file that has a variable decides it, and the real environment wins over all of them. A line without
a value sets nothing. Only the names of variables are ever shown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import typer
from dotenv.parser import parse_stream

from voiceflow.server.project import Project

DISABLED = "PYTHON_DOTENV_DISABLED"
"""Set to anything but 0, no or false, keeps every .env from being read: python-dotenv's own switch."""


def files(words: Sequence[str]) -> list[Path]:
    """The .env files for a command line. `words` are its arguments: the first that is a Python file is the
    pipeline's."""
    if os.environ.get(DISABLED, "").strip().lower() not in ("", "0", "no", "false"):
        return []
    folders = [Path.cwd()]
    pipeline = next((word for word in words if word.endswith(".py") and os.path.isfile(word)), None)
    if pipeline is not None:
        folders += Project(Path(os.path.realpath(pipeline))).folders
    found = dict.fromkeys(Path(os.path.realpath(folder)) / ".env" for folder in folders)
    return [path for path in found if path.is_file()]  # a virtual environment may be a folder named .env


def read(path: Path) -> tuple[dict[str, str], list[str]]:
    """The variables of one file, and what is wrong with it: complaints name the line, never a value."""
    variables: dict[str, str] = {}
    complaints: list[str] = []
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for binding in parse_stream(stream):
                if binding.error or "\0" in binding.original.string:
                    complaints.append(f"{path}:{binding.original.line} is not like NAME=value: left out")
                elif binding.key and binding.value:
                    variables[binding.key] = binding.value
    except OSError as error:
        complaints.append(f"{path} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        complaints.append(f"{path} is not UTF-8 text: not used")
    return variables, complaints


def load(words: Sequence[str]) -> None:
    """Puts the variables of all files into the environment, where they are not set there. What is wrong with
    a file is told on stderr: it may be meant for another program."""
    for path in files(words):
        variables, complaints = read(path)
        for complaint in complaints:
            typer.secho(f"warning: {complaint}", fg=typer.colors.YELLOW, err=True)
        for name, value in variables.items():
            os.environ.setdefault(name, value)
