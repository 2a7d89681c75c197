"""A model by name: what both processes know of it, and how it goes wrong."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

from voiceflow.errors import DeclarationError, VoiceflowError

INSTALL = "pip install 'voiceflow-agents[local]'"


class ModelError(VoiceflowError):
    """A model could not be loaded, failed, or did not answer in time."""


class ModelDied(ModelError):
    """The process died in which it ran."""


@dataclass(slots=True, frozen=True)
class Model:
    """A class, `path` as in "package.module:Class", and the keyword arguments it is made with.

    Equal ones are one model: loaded once. Its methods do the work; what they take and return goes through
    pickle. One that is a generator answers piece by piece.
    """

    path: str
    settings: tuple[tuple[str, Hashable], ...] = ()

    @classmethod
    def of(cls, path: str, /, **settings: Hashable) -> Self:
        return cls(path, tuple(sorted(settings.items())))

    def load(self) -> Any:
        """The model itself: imported and made here, in this process. Takes as long as it takes."""
        module, _, name = self.path.partition(":")
        return getattr(importlib.import_module(module), name)(**dict(self.settings))


_packages_needed = ContextVar("packages_needed", default=True)


@contextmanager
def without_packages() -> Iterator[None]:
    """Inside, nothing is needed: for whoever makes a chain to use only those of its processors that are not
    models (`voiceflow chat`)."""
    before = _packages_needed.set(False)
    try:
        yield
    finally:
        _packages_needed.reset(before)


def need(package: str, who: str) -> None:
    """DeclarationError when `package`, which `who` stands on, is not installed. Imports nothing."""
    if _packages_needed.get() and importlib.util.find_spec(package) is None:
        raise DeclarationError(f"{who} needs the package {package}, which is not installed: {INSTALL}")
