"""Which executor runs which task type: entry points of group `espalier.executors`, imported when first needed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from espalier_kit.errors import Misconfigured
from espalier_kit.execution import Executor, PlatformFault

GROUP = "espalier.executors"


class Executors(Protocol):
    """The executors of one worker."""

    @property
    def types(self) -> tuple[str, ...]:
        """The task types it can run."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever one of them may answer otherwise; empty: unknown, so that no result is ever reused."""
        ...

    def find(self, type_: str) -> Executor:
        """The executor of a type; may import it, which takes a while. Raises `PlatformFault`."""
        ...


class InstalledExecutors:
    """What the installed distributions offer."""

    def __init__(
        self, points: Mapping[str, EntryPoint] | None = None, more: Mapping[str, EntryPoint] | None = None
    ) -> None:
        found = {p.name: p for p in entry_points(group=GROUP)} if points is None else dict(points)
        self._points = found | dict(more or {})

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(sorted(self._points))

    @property
    def version(self) -> str:
        """Of the distributions that they come from."""
        versions = {f"{p.dist.name} {p.dist.version}" if p.dist else "" for p in self._points.values()}
        return "" if "" in versions else ", ".join(sorted(versions))

    def only(self, types: tuple[str, ...]) -> InstalledExecutors:
        """Just these; all if none is named. Raises `Misconfigured` for a type that nothing installed offers."""
        if unknown_types := [type_ for type_ in types if type_ not in self._points]:
            raise Misconfigured(
                f"ESPALIER_WORKER_TYPES: no executor for {', '.join(unknown_types)} is installed; "
                f"there are {', '.join(self.types) or 'none'}"
            )
        return InstalledExecutors({type_: self._points[type_] for type_ in types or self.types})

    def find(self, type_: str) -> Executor:
        point = self._points.get(type_)
        if point is None:
            raise unknown(type_, self.types)
        try:
            loaded: Executor = point.load()
        except (ImportError, AttributeError) as error:
            raise PlatformFault(
                f"the executor of {type_!r} ({point.value}) cannot be imported: {error}", reason="ExecutorImportFailed"
            ) from error
        return loaded


def named_points(text: str) -> dict[str, EntryPoint]:
    """`TYPE=MODULE:FUNCTION,…` as entry points. Raises `Misconfigured`."""
    points = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        type_, _, place = item.partition("=")
        module, _, function = place.partition(":")
        if not (type_ and module and function):
            raise Misconfigured(f"ESPALIER_WORKER_EXECUTORS: {item!r} is not TYPE=MODULE:FUNCTION, such as "
                                "benchmark=my_executor:run", reason="Misconfigured")
        points[type_] = EntryPoint(type_, place, GROUP)
    return points


class GivenExecutors:
    """Executors from a dictionary: for embedding and for tests."""

    def __init__(self, executors: Mapping[str, Executor], version: str = "") -> None:
        self._executors = dict(executors)
        self.version = version

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(sorted(self._executors))

    def find(self, type_: str) -> Executor:
        executor = self._executors.get(type_)
        if executor is None:
            raise unknown(type_, self.types)
        return executor


def unknown(type_: str, known: tuple[str, ...]) -> PlatformFault:
    """The fault for a type that nobody here runs."""
    return PlatformFault(
        f"no executor for task type {type_!r} is installed in this worker; it has {', '.join(known) or 'none'}",
        reason="UnknownTaskType",
    )
