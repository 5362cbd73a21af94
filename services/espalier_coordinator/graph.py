"""Dependencies between the tasks of a job: who waits for whom, who may run, who is skipped. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from espalier_coordinator.model import FINAL
from espalier_kit.errors import Permanent
from espalier_kit.execution import Dependency, TaskState, When

Node = tuple[str, tuple[Dependency, ...]]
"""A task's key and what it waits for."""


def check(new: Sequence[Node], known: Collection[str]) -> None:
    """Raise `Permanent` with a sentence when a dependency is unknown or the new tasks wait for each other.

    `known` are the keys that the job already has: they cannot wait for new ones, so no cycle runs through them.
    """
    if not any(depends_on for _, depends_on in new):
        return
    mine: dict[str, tuple[Dependency, ...]] = {}
    for key, depends_on in new:
        if key not in known:
            mine.setdefault(key, depends_on)  # of two with one key the first counts
    for key, depends_on in mine.items():
        for dependency in depends_on:
            if dependency.key not in mine and dependency.key not in known:
                raise Permanent(
                    f"task {key!r} depends on {dependency.key!r}, which the job does not have: "
                    "submit it too or correct the key", reason="UnknownDependency",
                )
    try:
        TopologicalSorter({key: [d.key for d in deps if d.key in mine] for key, deps in mine.items()}).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise Permanent(f"tasks wait for each other in a circle: {circle}; remove one dependency",
                        reason="DependencyCycle") from error


def is_met(when: When, state: TaskState) -> bool:
    """Whether an edge is satisfied by a final state."""
    return state is TaskState.DONE or when is When.FINISHED


def revived(
    tasks: Mapping[str, tuple[TaskState, tuple[Dependency, ...]]], reopened: Collection[str]
) -> set[str]:
    """Which skipped tasks come back when failed ones are `reopened`: those that nothing else keeps from running.

    `tasks` has every task's state and dependencies by key.
    """
    back = {key for key, (state, _) in tasks.items() if state is TaskState.SKIPPED}
    while True:
        stays = {
            key for key in back
            if any(not is_met(d.when, tasks[d.key][0]) and tasks[d.key][0] in FINAL
                   and d.key not in reopened and d.key not in back for d in tasks[key][1])
        }
        if not stays:
            return back
        back -= stays


class Graph:
    """The edges of one job with a counter of open dependencies per waiting task."""

    def __init__(self) -> None:
        self._dependents: dict[str, list[tuple[str, When]]] = {}
        self._open: dict[str, int] = {}
        self._needed: set[str] = set()

    def add(self, nodes: Iterable[Node], state_of: Callable[[str], TaskState | None]) -> tuple[list[str], list[str]]:
        """Add tasks; returns the keys that may run at once and those that are skipped at once (not those behind them:
        `finish` them). `state_of` tells the final state of a task added earlier, None while it is open or new."""
        ready, skipped = [], []
        for key, depends_on in nodes:
            if not depends_on:
                ready.append(key)
                continue
            self._needed.update(d.key for d in depends_on)
            states = [(d, state_of(d.key)) for d in depends_on]
            open_edges = [d for d, state in states if state is None or state not in FINAL]
            for dependency in open_edges:
                self._dependents.setdefault(dependency.key, []).append((key, dependency.when))
            if any(state in FINAL and not is_met(d.when, state) for d, state in states if state is not None):
                skipped.append(key)
            elif open_edges:
                self._open[key] = len(open_edges)
            else:
                ready.append(key)
        return ready, skipped

    def finish(self, key: str, state: TaskState) -> tuple[list[str], list[str]]:
        """A task ended: returns the keys that may run now and, transitively, those skipped because of it."""
        if key not in self._dependents:
            return [], []
        ready: list[str] = []
        skipped: list[str] = []
        ended = [(key, state)]
        while ended:
            name, final = ended.pop()
            for dependent, when in self._dependents.pop(name, ()):
                if dependent not in self._open:
                    continue
                if not is_met(when, final):
                    del self._open[dependent]
                    skipped.append(dependent)
                    ended.append((dependent, TaskState.SKIPPED))
                    continue
                self._open[dependent] -= 1
                if not self._open[dependent]:
                    del self._open[dependent]
                    ready.append(dependent)
        return ready, skipped

    def need(self, keys: Iterable[str]) -> None:
        """Somebody waits, or waited, for these."""
        self._needed.update(keys)

    def is_needed(self, key: str) -> bool:
        """Whether any task was added that waits, or waited, for this one."""
        return key in self._needed

    def close(self) -> None:
        """Nothing waits any more: the job was cancelled."""
        self._dependents.clear()
        self._open.clear()
