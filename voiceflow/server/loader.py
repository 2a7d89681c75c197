"""Loads a pipeline file: any Python file with `def pipeline(call)`.

    agent = load("pipelines/phone_agent.py")
    agent.make(call)        # a pipeline of its own for every call
    agent.changed()         # for --reload: was the file edited, or a module of the user's that it imports?
    agent = agent.reload()

Whatever is wrong becomes a `PipelineFileError` that is ready to print: the file, the line in it, the reason,
what to do. A file that calls `sys.exit()` is reported, not obeyed.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from traceback import TracebackException, walk_tb
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from voiceflow.errors import DeclarationError, PipelineFileError
from voiceflow.server.project import Project

if TYPE_CHECKING:
    from voiceflow.call import Call
    from voiceflow.declaration.pipeline import Pipeline

EXAMPLE = """\
    def pipeline(call):
        return Pipeline(call.source(), ..., call.sink())"""

PACKAGES = {
    "audioop": "audioop-lts",  # left the standard library with Python 3.13
    "deepgram": "deepgram-sdk",
    "dotenv": "python-dotenv",
    "yaml": "pyyaml",
}
"""What to install for modules whose package has another name, of those that phone agents tend to import."""

_loads = itertools.count(1)


class PipelineFile:
    """A pipeline file that was loaded and has a usable `pipeline` function. Made by `load`."""

    def __init__(
        self, path: Path, project: Project, function: Callable[[Call], Pipeline], line: int | None
    ) -> None:
        self.path = path
        """As it was given to `load`."""
        self.line = line
        """Where its `def pipeline` is."""
        self._project = project
        self._function = function

    def make(self, call: Call) -> Pipeline:
        """Calls the file's `pipeline(call)`. PipelineFileError when that raises or gives no Pipeline."""
        from voiceflow.declaration.pipeline import Pipeline

        try:
            with self._project.noting_imports():
                made: object = self._function(call)
        except (Exception, SystemExit) as error:
            raise _explain(self.path, self._project, error, "in pipeline(call)") from error
        if isinstance(made, Pipeline):
            return made
        if inspect.iscoroutine(made):
            made.close()
        raise PipelineFileError(self.path, _not_a_pipeline(made), self.line)

    def sources(self) -> dict[Path, int]:
        """The file and the user's own modules that it imported, with their modification times in ns."""
        return self._project.sources()

    def changed(self) -> bool:
        """Whether one of the sources has changed since it was read, or since this was last asked."""
        return self._project.changed()

    def reload(self) -> PipelineFile:
        """Loads the file again, with the user's modules that it imports.

        PipelineFileError as with `load`; then this one stays usable, and `changed` also watches the files
        where the error came from, so that it tells when they have been mended.
        """
        project = _project(self.path)
        try:
            return _load(self.path, project)
        except PipelineFileError:
            self._project.watch_all_of(project)
            raise


def load(path: Path | str) -> PipelineFile:
    """Loads the pipeline file at `path`. PipelineFileError when it cannot be used."""
    given = Path(path)
    return _load(given, _project(given))


def _project(given: Path) -> Project:
    return Project(Path(os.path.realpath(given)))  # Path.resolve raises on a loop of symlinks


def _load(given: Path, project: Project) -> PipelineFile:
    _check_path(given)
    obstacle = project.obstacle()
    if obstacle is not None:
        raise PipelineFileError(given, obstacle)
    code = _compile(given, project)
    project.enter()
    # A name of its own for each load: calls made by an earlier one go on with the earlier module, which
    # stays registered because dataclasses, typing and pickle look a class's module up there.
    name = f"_pipeline_{next(_loads)}_{project.file.stem}"
    spec = spec_from_file_location(name, project.file)
    assert spec is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        try:
            with project.noting_imports():
                # Not by the spec's loader: it takes old bytecode for an edit within the same second.
                exec(code, module.__dict__)
        except (Exception, SystemExit) as error:
            raise _explain(given, project, error, "while it is loaded") from error
        function, line = _pipeline_function(given, project, module)
    except BaseException:
        del sys.modules[name]
        raise
    return PipelineFile(given, project, function, line)


# -- the file ----------------------------------------------------------------------------------------


def _check_path(given: Path) -> None:
    if given.is_dir():
        raise PipelineFileError(given, f"is a folder, not a pipeline file.{_files_in(given)}")
    if not os.path.exists(given):
        raise PipelineFileError(given, f"there is no such file.{_similar_files(given)}")
    if given.suffix != ".py":
        raise PipelineFileError(given, "is not a Python file: a pipeline file's name ends in .py.")


def _similar_files(given: Path) -> str:
    folder = given.parent
    if not folder.is_dir():
        return f" There is no folder {folder} either."
    files = [*sorted(folder.glob("*.py")), *sorted(folder.glob("pipelines/*.py"))]
    near = difflib.get_close_matches(given.stem, {file.stem for file in files})
    if not near:
        return _files_in(folder)
    return f" Did you mean {_listed(str(file) for file in files if file.stem in near)}?"


def _files_in(folder: Path) -> str:
    files = [*sorted(folder.glob("*.py")), *sorted(folder.glob("pipelines/*.py"))]
    return f" Python files there: {_listed(map(str, files))}." if files else " It has no Python files."


def _listed(names: Iterable[str], most: int = 6) -> str:
    all_names = list(names)
    return ", ".join(all_names[:most]) + (", ..." if len(all_names) > most else "")


def _compile(given: Path, project: Project) -> CodeType:
    try:
        return compile(project.file.read_bytes(), str(project.file), "exec", dont_inherit=True)
    except OSError as error:
        raise PipelineFileError(given, f"cannot be read: {error.strerror}.") from error
    except SyntaxError as error:
        raise PipelineFileError(given, _syntax(error), error.lineno or None) from error
    except (ValueError, RecursionError) as error:  # null bytes before Python 3.11.4; absurd nesting
        raise PipelineFileError(given, f"cannot be compiled: {error}.") from error


def _syntax(error: SyntaxError) -> str:
    """The message, then the source line with Python's own marker under it."""
    source = list(TracebackException.from_exception(error).format_exception_only())[1:-1]
    return f"{type(error).__name__}: {error.msg}\n{''.join(source)}".rstrip()


# -- what went wrong in it ---------------------------------------------------------------------------


def _explain(given: Path, project: Project, error: BaseException, when: str) -> PipelineFileError:
    """`error`, raised by the user's code, with the deepest line that it reached in the user's file."""
    project.watch_failed(error)
    line = None
    inner = ""
    for frame, number in walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        if file == project.file:
            line, inner = number, ""
        elif project.owns(file):
            inner = f"{file}:{number}: "
    return PipelineFileError(given, inner + _reason(error, project, when), line)


def _reason(error: BaseException, project: Project, when: str) -> str:
    if isinstance(error, DeclarationError):
        return str(error)
    if isinstance(error, SystemExit):
        return (
            f"calls sys.exit() {when}, which would end every call. What belongs to running the "
            'file by itself goes under `if __name__ == "__main__":`.'
        )
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {_syntax(error)}"
    if isinstance(error, ModuleNotFoundError) and error.name and "is not a package" not in str(error):
        return _missing_module(error.name, project)
    text = "".join(TracebackException.from_exception(error).format_exception_only()).strip()
    if isinstance(error, ImportError) and "relative import" in text:
        return (
            f"{text}. A pipeline file is not part of a package: write `from mine import X` without the dot."
        )
    return text


def _missing_module(name: str, project: Project) -> str:
    reason = f"there is no module {name!r}."
    package, _, leaf = name.rpartition(".")
    folders = list(getattr(sys.modules.get(package), "__path__", [])) if package else project.folders
    near = difflib.get_close_matches(leaf, {module.name for module in iter_modules(map(str, folders))})
    if near:
        dotted = (f"{package}.{module}" if package else module for module in near)
        reason += f" Did you mean {_listed(dotted)}?"
    if folders and package:
        return f"{reason} Looked for {leaf}.py in {_listed(map(str, folders))}."
    wanted = shlex.join([sys.executable, "-m", "pip", "install", PACKAGES.get(name, name)])
    other = "" if name in PACKAGES else " (its package may have another name)"
    return f"{reason} If it is a package, install it{other}:\n    {wanted}"


# -- its function ------------------------------------------------------------------------------------


def _pipeline_function(
    given: Path, project: Project, module: ModuleType
) -> tuple[Callable[[Call], Pipeline], int | None]:
    """The file's `pipeline` and the line of its `def`, after a look whether it can be called."""
    if not hasattr(module, "pipeline"):
        own = [name for name, value in vars(module).items() if _is_own_function(value, module)]
        there = f"Its functions: {_listed(own)}." if own else "It has no functions at all."
        raise PipelineFileError(given, f"has no function named pipeline. {there} Write\n{EXAMPLE}")
    function: Any = module.pipeline
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    line = code.co_firstlineno if code is not None and Path(code.co_filename) == project.file else None
    wrong = _wrong_with(function)
    if wrong is not None:
        raise PipelineFileError(given, f"{wrong} Write\n{EXAMPLE}", line)
    return function, line


def _is_own_function(value: object, module: ModuleType) -> bool:
    return inspect.isfunction(value) and value.__module__ == module.__name__


def _wrong_with(function: Any) -> str | None:
    if not callable(function):
        kind = "a module" if inspect.ismodule(function) else f"of type {type(function).__name__}"
        return f"pipeline is {kind}, not a function: every call needs a pipeline of its own."
    if inspect.iscoroutinefunction(function):
        return (
            "pipeline is an `async def`. It must only declare the chain, at once; what has to wait goes into "
            "a processor's start()."
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "pipeline contains a `yield`. It must return one Pipeline."
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-ins have none
        return None
    try:
        signature.bind(None)
    except TypeError:
        return f"pipeline must take one parameter, the call; this one takes {signature}."
    return None


def _not_a_pipeline(made: object) -> str:
    if made is None:
        return f"pipeline(call) returned nothing: is there a `return`? Write\n{EXAMPLE}"
    if isinstance(made, list | tuple):
        return f"pipeline(call) returned a {type(made).__name__}: put it into Pipeline(...)."
    return f"pipeline(call) must return a Pipeline, not {type(made).__name__}. Write\n{EXAMPLE}"
