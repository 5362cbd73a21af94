"""Who gets what next: strict priority, then first come first served, to the least loaded worker that may. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush


@dataclass(frozen=True, slots=True)
class Lane:
    """Ready tasks that are alike to the scheduler: one job, type and set of required tags."""

    namespace: str
    job_uid: str
    type: str
    tags: frozenset[str]
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a worker may run. `namespace` None: of every namespace; `job_uid` empty: of every job.

    A worker of a pool runs its pool's jobs and no others, whatever their namespace; nobody else runs those.
    """

    namespace: str | None
    job_uid: str
    types: frozenset[str]
    tags: frozenset[str]
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Demand:
    """A worker that wants `wants` more tasks and holds `held` of its `capacity`."""

    worker: str
    profile: Profile
    wants: int
    held: int
    capacity: int


def may_run(profile: Profile, lane: Lane) -> bool:
    """Pool, namespace, dedication, type, and all required tags."""
    return (
        lane.type in profile.types
        and lane.pool == profile.pool
        and (not profile.job_uid or profile.job_uid == lane.job_uid)
        and (profile.namespace is None or profile.namespace == lane.namespace)
        and lane.tags <= profile.tags
    )


_Head = tuple[int, int, int, Lane]
"""A lane's rank (-priority, sequence of its first task), a tie-breaker, and the lane."""


class ReadyTasks:
    """Ready tasks by lane, each a heap by sequence; jobs have a priority and may be held back."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, list[tuple[int, str]]] = {}
        self._priority: dict[str, int] = {}
        self._held: set[str] = set()

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is ready."""
        return not self._lanes

    def steer(self, job_uid: str, *, priority: int, is_held: bool) -> None:
        """Set a job's priority and whether its tasks are handed out."""
        self._priority[job_uid] = priority
        (self._held.add if is_held else self._held.discard)(job_uid)

    def put(self, lane: Lane, sequence: int, task_id: str) -> None:
        """Queue a task at its own place, also one that comes back."""
        heappush(self._lanes.setdefault(lane, []), (sequence, task_id))

    def forget(self, job_uid: str) -> None:
        """Drop all of a job's tasks."""
        for lane in [lane for lane in self._lanes if lane.job_uid == job_uid]:
            del self._lanes[lane]
        self._priority.pop(job_uid, None)
        self._held.discard(job_uid)

    def depths(self) -> dict[Lane, int]:
        """Tasks waiting per lane."""
        return {lane: len(heap) for lane, heap in self._lanes.items()}

    def assign(self, demands: Iterable[Demand]) -> Iterator[tuple[str, str]]:
        """Take tasks for the workers that want some: yields (worker, task id), the least loaded worker first."""
        if not self._lanes:
            return
        heads: dict[Profile, list[_Head]] = {}
        turn = [(d.held / d.capacity, n, d, d.wants) for n, d in enumerate(demands) if d.wants > 0]
        heapify(turn)
        while turn:
            load, n, demand, wants = heappop(turn)
            if demand.profile not in heads:
                heads[demand.profile] = self._heads(demand.profile)
            task_id = self._take(heads[demand.profile])
            if task_id is None:
                continue
            yield demand.worker, task_id
            if wants > 1:
                heappush(turn, (load + 1 / demand.capacity, n, demand, wants - 1))

    def _heads(self, profile: Profile) -> list[_Head]:
        heads = [
            (*self._rank(lane), n, lane) for n, lane in enumerate(self._lanes)
            if lane.job_uid not in self._held and may_run(profile, lane)
        ]
        heapify(heads)
        return heads

    def _rank(self, lane: Lane) -> tuple[int, int]:
        return -self._priority.get(lane.job_uid, 0), self._lanes[lane][0][0]

    def _take(self, heads: list[_Head]) -> str | None:
        """The first task of the best lane; ranks that another profile has made stale are mended on the way."""
        while heads:
            priority, sequence, n, lane = heappop(heads)
            if lane not in self._lanes:
                continue
            if (priority, sequence) != self._rank(lane):
                heappush(heads, (*self._rank(lane), n, lane))
                continue
            heap = self._lanes[lane]
            _, task_id = heappop(heap)
            if heap:
                heappush(heads, (*self._rank(lane), n, lane))
            else:
                del self._lanes[lane]
            return task_id
        return None
