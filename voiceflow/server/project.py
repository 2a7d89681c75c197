"""The user's project: the folders around a pipeline file and the user's own modules in them.

The file's folder goes to the front of `sys.path`, as `python FILE` does it; so does the folder above when the
file sits in one named `pipelines`. `processors` is a namespace package, so a `processors/` folder there joins
ours: `from processors.mine import X` and `from processors.twilio import Y` work side by side.
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from traceback import walk_tb
from types import ModuleType

SHARED = ("processors", "pipelines")
"""The namespace packages that a project's folders of the same names join."""

_imported: set[str] = set()
"""The user's modules that are in `sys.modules` because a pipeline file imported them."""


class Project:
    """The surroundings of one pipeline file, and which of the user's files it came to need."""

    def __init__(self, file: Path) -> None:
        """`file` is absolute and its symlinks are resolved."""
        self.file = file
        self.folders = [file.parent]
        if file.parent.name == "pipelines":
            self.folders.append(file.parent.parent)
        self._seen: dict[Path, int] = {}
        self.watch(file)

    # -- importing -------------------------------------------------------------------------------

    def obstacle(self) -> str | None:
        """What would keep voiceflow's own processors from being found, and what to do about it."""
        for folder in self.folders:
            for name in SHARED:
                marker = folder / name / "__init__.py"
                if marker.is_file():
                    return (
                        f"{marker} hides voiceflow's own {name}: with it, Python looks for {name}.* in that "
                        f"folder only. Delete that file; a {name} folder works without it."
                    )
        importlib.invalidate_caches()
        found = PathFinder.find_spec("processors", [*map(str, self.folders), *sys.path])
        if found is None or found.loader is None:  # a namespace package has no loader
            return None
        origin = Path(found.origin or "")
        if self.owns(origin):
            return f"{origin} hides voiceflow's own processors. Give that file another name."
        return (
            f"another installed package named processors ({origin}) hides voiceflow's own. "
            "Uninstall it, or use an environment of its own for voiceflow."
        )

    def enter(self) -> None:
        """Makes the project importable, in front of everything else, and what it imports fresh.

        Modules that an earlier load brought in are forgotten, so that `--reload` sees edits in them and two
        projects with a `processors/mine.py` each get their own. Calls that run keep what they hold.
        """
        for name in _imported:
            sys.modules.pop(name, None)
            package, _, attribute = name.rpartition(".")
            if package in sys.modules:  # else `from processors import mine` would give the old one
                vars(sys.modules[package]).pop(attribute, None)
        _imported.clear()
        importlib.invalidate_caches()
        for folder in map(str, reversed(self.folders)):
            if folder in sys.path:
                sys.path.remove(folder)
            sys.path.insert(0, folder)

    @contextmanager
    def noting_imports(self) -> Iterator[None]:
        """Watches what of the user's own is imported inside the block."""
        before = set(sys.modules)
        try:
            yield
        finally:
            for name in sys.modules.keys() - before:
                source = _source(sys.modules.get(name))
                if source is not None and self.owns(source) and source != self.file:
                    _imported.add(name)
                    self.watch(source)

    def owns(self, path: Path) -> bool:
        """Whether `path` is Python the user wrote: in the project's folders, not voiceflow, not installed."""
        return (
            path.suffix == ".py"
            and any(path.is_relative_to(folder) for folder in self.folders)
            and not any(path.is_relative_to(folder) for folder in _NOT_THE_USERS)
            and not {"site-packages", "dist-packages"}.intersection(path.parts)
        )

    # -- watching --------------------------------------------------------------------------------

    def watch(self, path: Path) -> None:
        """Adds a file to the sources, as it is now."""
        modified = _modified(path)
        if modified is not None:
            self._seen.setdefault(path, modified)

    def watch_failed(self, error: BaseException) -> None:
        """Adds the user's files that `error` went through: its cure is an edit in one of them."""
        blamed = [frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)]
        if isinstance(error, SyntaxError) and error.filename:
            blamed.append(error.filename)
        for path in map(Path, blamed):
            if self.owns(path):
                self.watch(path)

    def watch_all_of(self, other: Project) -> None:
        """Takes over the sources of `other`, as they were there."""
        self._seen.update(other._seen)

    def sources(self) -> dict[Path, int]:
        """The user's files with their modification times in ns. One that is gone right now is left out."""
        found = ((path, _modified(path)) for path in list(self._seen))
        return {path: modified for path, modified in found if modified is not None}

    def changed(self) -> bool:
        """Whether a source has changed since it was read, or since this was last asked.

        A file that is gone does not count until it is back: editors save by moving a new file in place.
        """
        now = self.sources()
        changed = any(self._seen[path] != modified for path, modified in now.items())
        self._seen.update(now)
        return changed


_NOT_THE_USERS = [
    Path(__file__).resolve().parent,
    *(Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")),
]
"""A virtual environment, or this very checkout, may lie inside the project's folder."""


def _source(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if isinstance(file, str) else None


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
