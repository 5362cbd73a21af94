"""How the whole stands: workers, capacity, jobs by status, health. Pure pictures of the engine's memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from espalier_coordinator.model import EndedJob, ended_status
from espalier_coordinator.state import JobEntry, WorkerEntry
from espalier_kit.execution import TaskState

_WAITING = (TaskState.BLOCKED, TaskState.READY)


# ---------------------------------------------------------------- jobs


def job_status(entry: JobEntry) -> str:
    """pending | running | suspended | completed | failed | cancelled: a job in one word of a small client.

    Pending is a job of which no task has started yet; failed one that ended with a failed task.
    """
    if entry.job.cancelled or entry.is_finished:
        return ended_status(is_cancelled=entry.job.cancelled, has_failed=bool(entry.counts[TaskState.FAILED]))
    if entry.job.suspended:
        return "suspended"
    return "running" if any(n for state, n in entry.counts.items() if state not in _WAITING) else "pending"


# ---------------------------------------------------------------- workers


@dataclass(frozen=True, slots=True)
class WorkerPicture:
    """A worker as told to a caller; `status` is idle, busy, draining or unhealthy (silent, or without a session)."""

    worker_id: str
    namespace: str
    status: str
    capacity: int
    current_tasks: int
    tags: tuple[str, ...]
    types: tuple[str, ...]
    pool: str
    job_uid: str
    last_heartbeat_age_s: float
    resources: Mapping[str, float] = field(default_factory=dict)
    address: str = ""

    @property
    def load(self) -> float:
        return self.current_tasks / self.capacity


def worker_pictures(workers: Iterable[WorkerEntry], now: float, *, timeout_s: float) -> list[WorkerPicture]:
    """All known ones by name; silent for longer than `timeout_s` is unhealthy. `now` is monotonic."""
    return sorted(
        (_picture(w, now, timeout_s) for w in workers), key=lambda picture: (picture.namespace, picture.worker_id)
    )


def _picture(worker: WorkerEntry, now: float, timeout_s: float) -> WorkerPicture:
    hello = worker.hello
    owner, _, worker_id = worker.key.partition("/")
    age = max(0.0, now - worker.heard_at) if hello else 0.0
    return WorkerPicture(
        worker_id, (hello.namespace or "") if hello else owner.lstrip("*"), _status(worker, age, timeout_s),
        worker.capacity, len(worker.leases), tuple(sorted(worker.profile.tags)), tuple(sorted(worker.profile.types)),
        worker.profile.pool, worker.profile.job_uid, age, dict(hello.resources) if hello else {},
        hello.address if hello else "",
    )


def _status(worker: WorkerEntry, age_s: float, timeout_s: float) -> str:
    if worker.session is None or age_s > timeout_s:
        return "unhealthy"
    if worker.is_draining:
        return "draining"
    return "busy" if worker.leases else "idle"


# ---------------------------------------------------------------- everything


@dataclass(frozen=True, slots=True)
class Fleet:
    """Workers by health: degraded ones are silent for longer than a health check may take; unhealthy ones have lost
    their session and are waited for."""

    healthy: int
    degraded: int
    unhealthy: int


def fleet(workers: Iterable[WorkerEntry], now: float, *, timeout_s: float) -> Fleet:
    """Counts of all known workers."""
    kinds = Counter(
        "unhealthy" if w.session is None else "degraded" if now - w.heard_at > timeout_s else "healthy"
        for w in workers
    )
    return Fleet(kinds["healthy"], kinds["degraded"], kinds["unhealthy"])


def overall(found: Fleet, problems: Collection[str], waiting_tasks: int) -> tuple[str, str]:
    """healthy | degraded | unhealthy, and why: for one who looks at the whole."""
    if problems:
        return "unhealthy", "; ".join(problems)
    if waiting_tasks and not (found.healthy or found.degraded):
        return "unhealthy", f"{waiting_tasks} tasks wait and no worker is connected"
    if found.degraded or found.unhealthy:
        return "degraded", f"{found.degraded} workers are silent, {found.unhealthy} have lost their session"
    return "healthy", f"{found.healthy} workers"


@dataclass(frozen=True, slots=True)
class Stats:
    """Sums over everything that the caller may see."""

    workers: int
    active_workers: int
    capacity: int
    used: int
    jobs: Mapping[str, int]
    """By status, archived ones too."""
    archived: int
    pending_tasks: int
    running_tasks: int
    pending_by_pool: Mapping[str, int]

    @property
    def load(self) -> float:
        """Used capacity, 0..1."""
        return self.used / self.capacity if self.capacity else 0.0


def stats(jobs: Iterable[JobEntry], archived: Iterable[EndedJob], workers: Iterable[WorkerEntry]) -> Stats:
    """Of these jobs and workers. Active workers have a session; only their capacity counts."""
    entries, ended, known = tuple(jobs), Counter(job.status for job in archived), tuple(workers)
    active = [w for w in known if w.session is not None]
    by_pool: Counter[str] = Counter()
    for entry in entries:
        by_pool[entry.job.pool] += _waiting(entry)
    return Stats(
        len(known), len(active), sum(w.capacity for w in active), sum(len(w.leases) for w in active),
        ended + Counter(job_status(entry) for entry in entries), ended.total(), sum(by_pool.values()),
        sum(entry.counts[TaskState.RUNNING] for entry in entries), {k: n for k, n in sorted(by_pool.items()) if k},
    )


def _waiting(entry: JobEntry) -> int:
    return sum(entry.counts[state] for state in _WAITING)
