"""Who gets what next: strict priority, then first come first served or by weight, to the least loaded worker that may.

No I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Protocol

from espalier_coordinator.fairness import Fairness, Shares
from espalier_coordinator.model import Resources


@dataclass(frozen=True, slots=True)
class Lane:
    """Ready tasks that are alike to the scheduler: one job, type, set of required tags and needed resources."""

    namespace: str
    job_uid: str
    type: str
    tags: frozenset[str]
    pool: str = ""
    resources: Resources = ()
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        whole = (self.namespace, self.job_uid, self.type, self.tags, self.pool, self.resources)
        object.__setattr__(self, "_hash", hash(whole))

    def __hash__(self) -> int:
        """Computed once: a lane is looked up several times per task."""
        return self._hash


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
    resources: Resources = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """A worker that wants `wants` more tasks and holds `held` of its `capacity`."""

    worker: str
    profile: Profile
    wants: int
    held: int
    capacity: int


class Rules(Protocol):
    """What else decides whether a task may go out now."""

    def is_open(self, lane: Lane) -> bool:
        """Whether anybody may get a task of it; once False it stays so until the next `assign`."""
        ...

    def allows(self, demand: Demand, lane: Lane) -> bool:
        """Whether this worker may."""
        ...

    def took(self, demand: Demand, lane: Lane) -> None:
        """It got one."""
        ...


def may_run(profile: Profile, lane: Lane) -> bool:
    """Pool, namespace, dedication, type, all required tags, and resources that it has at all."""
    return (
        lane.type in profile.types
        and is_of_pool(profile, lane.pool, lane.job_uid)
        and (not profile.job_uid or profile.job_uid == lane.job_uid)
        and (profile.namespace is None or profile.namespace == lane.namespace)
        and lane.tags <= profile.tags
        and (not lane.resources or _has(dict(profile.resources), lane))
    )


def is_of_pool(profile: Profile, pool: str, job_uid: str) -> bool:
    """A pool's tasks are its workers', and those workers' that the very job has of its own, such as one-shot pods."""
    return profile.pool == pool or (not profile.pool and profile.job_uid == job_uid)


def _has(resources: dict[str, float], lane: Lane) -> bool:
    return all(resources.get(name, 0.0) >= amount for name, amount in lane.resources)


_Rank = tuple[int, float, int]
"""-priority, share, sequence of its first task."""


class Queue:
    """A lane's tasks by sequence. Nearly all come in order and wait in a line; what comes back is sorted in beside it.
    """

    __slots__ = ("_back", "_line")

    def __init__(self) -> None:
        self._line: deque[tuple[int, str]] = deque()
        self._back: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._line) + len(self._back)

    @property
    def first(self) -> tuple[int, str]:
        """The lowest sequence and whose it is."""
        return self._back[0] if self._is_back_first else self._line[0]

    def put(self, sequence: int, task_id: str) -> None:
        """Queue a task at its own place."""
        if self._line and sequence < self._line[-1][0]:
            heappush(self._back, (sequence, task_id))
        else:
            self._line.append((sequence, task_id))

    def pop(self) -> str:
        """Take the first."""
        return (heappop(self._back) if self._is_back_first else self._line.popleft())[1]

    @property
    def _is_back_first(self) -> bool:
        return bool(self._back) and not (self._line and self._line[0] < self._back[0])


_Head = tuple[_Rank, int, Lane, Queue]
"""A lane's rank, a tie-breaker, the lane, and its tasks."""


class ReadyTasks:
    """Ready tasks by lane, each in the order of submission; jobs have a priority and may be held back."""

    def __init__(self, fairness: Fairness = Fairness.PRIORITY) -> None:
        self._lanes: dict[Lane, Queue] = {}
        self._priority: dict[str, int] = {}
        self._held: set[str] = set()
        self._shares = Shares(fairness)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is ready."""
        return not self._lanes

    def steer(self, job_uid: str, *, priority: int, is_held: bool, weight: float = 1.0) -> None:
        """Set a job's priority, its weight, and whether its tasks are handed out."""
        self._priority[job_uid] = priority
        self._shares.weigh(job_uid, weight)
        (self._held.add if is_held else self._held.discard)(job_uid)

    def put(self, lane: Lane, sequence: int, task_id: str) -> None:
        """Queue a task at its own place, also one that comes back."""
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = Queue()
            self._shares.enter(lane.namespace, lane.job_uid)
        queue.put(sequence, task_id)

    def forget(self, job_uid: str) -> None:
        """Drop all of a job's tasks."""
        for lane in [lane for lane in self._lanes if lane.job_uid == job_uid]:
            del self._lanes[lane]
            self._shares.leave(lane.namespace, lane.job_uid)
        self._priority.pop(job_uid, None)
        self._held.discard(job_uid)
        self._shares.forget(job_uid)

    def depths(self) -> dict[Lane, int]:
        """Tasks waiting per lane."""
        return {lane: len(queue) for lane, queue in self._lanes.items()}

    def heads(self) -> Iterator[tuple[Lane, str]]:
        """The task that has its turn next in each lane, jobs that are held back left out."""
        return ((lane, queue.first[1]) for lane, queue in self._lanes.items() if lane.job_uid not in self._held)

    def assign(self, demands: Iterable[Demand], rules: Rules | None = None) -> Iterator[tuple[str, str]]:
        """Take tasks for the workers that want some: yields (worker, task id), the least loaded worker first."""
        if not self._lanes:
            return
        wanting = [d for d in demands if d.wants > 0]
        heads = {profile: self._heads(profile) for profile in {d.profile for d in wanting}}
        turn = [(d.held / d.capacity, n, d, d.wants, heads[d.profile]) for n, d in enumerate(wanting)]
        heapify(turn)
        while turn:
            load, n, demand, wants, mine = heappop(turn)
            task_id = self._take(mine, demand, rules)
            if task_id is None:
                continue
            yield demand.worker, task_id
            if wants > 1:
                heappush(turn, (load + 1 / demand.capacity, n, demand, wants - 1, mine))

    def _heads(self, profile: Profile) -> list[_Head]:
        heads = [
            (self._rank(lane, queue), n, lane, queue) for n, (lane, queue) in enumerate(self._lanes.items())
            if lane.job_uid not in self._held and may_run(profile, lane)
        ]
        heapify(heads)
        return heads

    def _rank(self, lane: Lane, queue: Queue) -> _Rank:
        share = self._shares.of(lane.namespace, lane.job_uid)
        return -self._priority.get(lane.job_uid, 0), share, queue.first[0]

    def _take(self, heads: list[_Head], demand: Demand, rules: Rules | None) -> str | None:
        """The first task of the best lane; ranks that another profile has made stale are mended on the way.

        A lane that does not suit this worker is passed over, not waited for: what fits runs.
        """
        aside: list[_Head] = []
        taken = None
        while heads and taken is None:
            head = heappop(heads)
            rank, n, lane, queue = head
            if not queue:
                continue
            if rank != (now := self._rank(lane, queue)):
                heappush(heads, (now, n, lane, queue))
            elif rules is not None and not rules.is_open(lane):
                continue
            elif rules is not None and not rules.allows(demand, lane):
                aside.append(head)
            else:
                taken = self._pop(lane, queue)
                if queue:
                    heappush(heads, (self._rank(lane, queue), n, lane, queue))
                if rules is not None:
                    rules.took(demand, lane)
        for head in aside:
            heappush(heads, head)
        return taken

    def _pop(self, lane: Lane, queue: Queue) -> str:
        task_id = queue.pop()
        self._shares.charge(lane.namespace, lane.job_uid)
        if not queue:
            del self._lanes[lane]
            self._shares.leave(lane.namespace, lane.job_uid)
        return task_id
