"""The engine's memory, what it asks of the world, and the steps that every transition is made of. No I/O."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from espalier_coordinator.cache import ResultCache
from espalier_coordinator.fairness import Fairness
from espalier_coordinator.messages import Ack, Cancel, Drain, JobContext, Lease, Message
from espalier_coordinator.model import Attempt, EndedJob, Ending, Event, Job, NewTask, TaskRecord, record_of
from espalier_coordinator.reservations import Reservation
from espalier_coordinator.rules import Bucket
from espalier_coordinator.scheduling import Lane, Profile, ReadyTasks
from espalier_coordinator.state import MAX_OUTCOMES, JobEntry, Statistics, Submission, TaskEntry, WorkerEntry
from espalier_coordinator.store import DropWorker, PutJob, Write
from espalier_coordinator.templates import Template
from espalier_kit.clock import Clock
from espalier_kit.execution import ModelEndpoint, TaskState
from espalier_kit.retry import Backoff


@dataclass(frozen=True, slots=True)
class Limits:
    """What the administrator may choose. Times in seconds."""

    lease_s: float = 30.0
    heartbeat_s: float = 5.0
    timeout_grace_s: float = 30.0
    """The worker ends an attempt at its timeout; the coordinator only when the worker did not, this much later."""
    cancel_grace_s: float = 30.0
    backoff: Backoff = field(default_factory=Backoff)
    fairness: Fairness = Fairness.PRIORITY
    max_completed_jobs: int = 1000
    """More than these are moved out of memory, the first to end first; they stay readable in the store."""
    completed_ttl_s: float = 0.0
    """Completed jobs are forgotten so long after their end; 0: only when somebody deletes them."""
    cache_entries: int = 10_000
    """Results that answer for equal tasks."""
    reserved_share: float = 0.5
    """Of the slots on workers that serve every namespace, what the reservations of one may take."""

    @property
    def reconnect_s(self) -> float:
        """How long a worker whose stream broke may take to come back: a closed stream is news, silence is not."""
        return self.lease_s / 3


@dataclass(frozen=True, slots=True)
class Commit:
    """Writes of one transaction; answer with `committed([ticket])` once they are on disk."""

    ticket: int
    writes: tuple[Write, ...]


@dataclass(slots=True)
class Effects:
    """What the shell has to do now."""

    messages: list[tuple[int, Message]] = field(default_factory=list)
    commit: Commit | None = None
    changed: set[str] = field(default_factory=set)
    """Jobs whose view changed."""


class Core:
    """The memory and its small steps. Times come from `clock`, jitter from `rng`."""

    def __init__(self, clock: Clock, rng: random.Random, *, epoch: str, limits: Limits | None = None) -> None:
        self.epoch = epoch
        self.statistics = Statistics()
        self.jobs: dict[str, JobEntry] = {}
        self.workers: dict[str, WorkerEntry] = {}
        self._clock = clock
        self._rng = rng
        self._limits = limits or Limits()
        self.ready = ReadyTasks(self._limits.fairness)
        self.templates: dict[tuple[str, str], Template] = {}
        self.reservations: dict[tuple[str, str], Reservation] = {}
        self.archived: dict[str, EndedJob] = {}
        """Namespace and end (seconds since 1970) by uid of completed jobs that are only in the store."""
        self.cache = ResultCache(self._limits.cache_entries)
        self._tasks: dict[str, TaskEntry] = {}
        self._sessions: dict[int, WorkerEntry] = {}
        self._in_doubt: set[str] = set()
        self._is_someone_missing = False
        self._retries: list[tuple[float, str]] = []
        self._deadlines: list[tuple[float, str, int]] = []
        self._last_tick = clock.monotonic()
        self._completed: dict[str, None] = {}
        """Jobs that ended, the first first."""
        self._limited: dict[str, JobEntry] = {}
        """Jobs with a limit on their rate or width."""
        self._next_sweep = 0.0
        self._written_templates: dict[tuple[str, str], Template] = {}
        self._written_reservations: dict[tuple[str, str], Reservation] = {}
        self._has_resources = False
        """Whether any task ever asked for some."""
        self._submitting: dict[str, Submission] = {}
        """By uid."""
        self._sequence = 0
        self._ticket = 0
        self._applies: dict[int, list[Callable[[], None]]] = {}
        self._writes: list[Write] = []
        self._once_written: list[Callable[[], None]] = []
        self._acks: dict[int, list[Lease]] = {}
        """By session: what the `Ack` among the effects so far tells."""
        self._out = Effects()

    # ------------------------------------------------------------ effects

    def _commit(self, writes: Iterable[Write], apply: Callable[[], None] | None) -> None:
        """Write with everything else of these effects, then `apply`."""
        self._writes += writes
        if apply is not None:
            self._once_written.append(apply)

    def _take_effects(self) -> Effects:
        """All that has to be done since the last time."""
        out, self._out = self._out, Effects()
        self._acks.clear()
        if self._writes or self._once_written:
            self._ticket += 1
            out.commit = Commit(self._ticket, tuple(self._writes))
            self._applies[self._ticket] = self._once_written
            self._writes, self._once_written = [], []
        return out

    def _send(self, session: int | None, message: Message) -> None:
        if session is not None:
            self._out.messages.append((session, message))

    def _ack(self, worker_key: str, lease: Lease) -> None:
        worker = self.workers.get(worker_key)
        if worker is None or worker.session is None:
            return
        leases = self._acks.get(worker.session)
        if leases is None:
            leases = self._acks[worker.session] = []
            self._send(worker.session, Ack(leases))
        leases.append(lease)

    # ------------------------------------------------------------ jobs

    def _add_job(self, job: Job) -> JobEntry:
        return self.jobs.setdefault(job.uid, JobEntry(job, job))

    def _steer(self, entry: JobEntry) -> None:
        job = entry.job
        self.ready.steer(job.uid, priority=job.priority, is_held=entry.is_held, weight=job.weight)
        if not job.max_tasks_per_s:
            entry.bucket = None
        elif entry.bucket is None or entry.bucket.rate != job.max_tasks_per_s:
            entry.bucket = Bucket(job.max_tasks_per_s, self._clock.monotonic())
        if entry.bucket or job.max_running:
            self._limited[job.uid] = entry
        else:
            self._limited.pop(job.uid, None)

    def _await_endpoints(self, entry: JobEntry) -> None:
        """Tasks of a job whose endpoints nobody has pushed to this process wait for them, for one lease time."""
        if entry.job.has_endpoints and not entry.endpoints_version and entry.endpoints_due_at is None:
            entry.endpoints_due_at = self._clock.monotonic() + self._limits.lease_s
            self._steer(entry)

    def _set_endpoints(self, entry: JobEntry, endpoints: tuple[ModelEndpoint, ...]) -> None:
        if entry.endpoints_version and entry.endpoints == endpoints:
            return
        entry.endpoints, entry.endpoints_due_at = endpoints, None
        entry.endpoints_version += 1
        self._steer(entry)
        for worker in self.workers.values():
            if entry.job.uid in worker.contexts:
                self._send_context(worker, entry)

    def _send_context(self, worker: WorkerEntry, entry: JobEntry) -> None:
        if entry.endpoints_version and worker.contexts.get(entry.job.uid) != entry.endpoints_version:
            worker.contexts[entry.job.uid] = entry.endpoints_version
            self._send(worker.session, JobContext(entry.job.uid, entry.endpoints))

    def _check_finished(self, entry: JobEntry) -> None:
        if not entry.is_finished:
            return
        if not entry.job.finished_at:
            now = self._clock.now().timestamp()
            entry.job, entry.written = replace(entry.job, finished_at=now), replace(entry.written, finished_at=now)
            self._commit([PutJob(entry.written)], None)
        self._completed.setdefault(entry.job.uid)
        self._drain(entry.job.uid, "the job has ended")

    def _drain(self, job_uid: str, reason: str) -> None:
        """Tell the workers that serve only this job to leave."""
        for worker in self.workers.values():
            if worker.profile.job_uid == job_uid and not worker.is_draining and worker.session is not None:
                worker.is_draining = True
                self._send(worker.session, Drain(reason))

    # ------------------------------------------------------------ tasks

    def _records(self, job_uid: str, tasks: Iterable[NewTask]) -> tuple[TaskRecord, ...]:
        records = []
        for task in tasks:
            self._sequence += 1
            records.append(record_of(job_uid, task, self._sequence))
        return tuple(records)

    def _add_task(self, entry: JobEntry, record: TaskRecord) -> TaskEntry:
        kind = (record.type, record.tags, record.resources)
        lane = entry.lanes.get(kind)
        if lane is None:
            lane = entry.lanes[kind] = Lane(entry.job.namespace, entry.job.uid, record.type, frozenset(record.tags),
                                            entry.job.pool, record.resources)
            self._has_resources |= bool(record.resources)
        task = TaskEntry(record, lane)
        self._tasks[record.id] = task
        entry.enter(task)
        return task

    def _add_tasks(self, entry: JobEntry, records: Iterable[TaskRecord]) -> None:
        """Tasks that were just committed; keys that exist are left as they are, as on disk."""
        new = {r.key: self._add_task(entry, r) for r in records if r.key not in entry.tasks}
        if entry.job.cancelled:
            for task in new.values():
                entry.move(task, Event.CANCELLED)
            return

        ready, skipped = entry.graph.add([(k, t.record.depends_on) for k, t in new.items()], entry.final_state)
        for key in skipped:
            more_ready, more_skipped = entry.graph.finish(key, TaskState.SKIPPED)
            self._follow(entry, more_ready, [key, *more_skipped])
        self._follow(entry, ready, [])

    def _follow(self, entry: JobEntry, ready: Iterable[str], skipped: Iterable[str]) -> None:
        """Carry out what the graph found."""
        for key in skipped:
            task = entry.tasks[key]
            entry.move(task, Event.SKIPPED)
            task.ending = Ending(TaskState.SKIPPED, 0, "DependencyFailed", "a task that it needs did not succeed")
            self.statistics.ended[TaskState.SKIPPED] += 1
            self._remember(entry, task)
        for key in ready:
            task = entry.tasks[key]
            entry.move(task, Event.UNBLOCKED)
            self._enqueue(task)

    def _enqueue(self, task: TaskEntry) -> None:
        task.ready_since = self._clock.monotonic()
        self.ready.put(task.lane, task.record.sequence, task.record.id)

    def _lease(self, worker: WorkerEntry, task: TaskEntry, number: int, timeout_s: float) -> None:
        """The backstop allows twice the timeout: a task that was fetched ahead starts when the one before it ended."""
        entry = self.jobs[task.record.job_uid]
        deadline_at = self._clock.monotonic() + 2 * timeout_s + self._limits.timeout_grace_s
        heapq.heappush(self._deadlines, (deadline_at, task.record.id, number))
        entry.move(task, Event.GRANTED)
        task.lease, task.revoked_at = Attempt(number, worker.key, deadline_at), None
        worker.leases[task.record.id] = task
        worker.contexts.setdefault(entry.job.uid, 0)
        self._out.changed.add(entry.job.uid)

    def _release(self, task: TaskEntry) -> None:
        """Nobody holds it any more."""
        if task.lease and (worker := self.workers.get(task.lease.worker)):
            worker.leases.pop(task.record.id, None)
        task.lease = None

    def _cancel_lease(self, task: TaskEntry, reason: str = "") -> None:
        assert task.lease is not None
        if worker := self.workers.get(task.lease.worker):
            self._send(worker.session, Cancel((Lease(task.record.id, task.lease.number),), reason))

    def _return(self, task: TaskEntry, delay_s: float = 0.0) -> None:
        """Back to the ready tasks, now or after `delay_s` seconds."""
        entry = self.jobs[task.record.job_uid]
        self._release(task)
        entry.move(task, Event.RETURNED)
        self._out.changed.add(entry.job.uid)
        if entry.job.cancelled:
            entry.move(task, Event.CANCELLED)
            self._check_finished(entry)
        elif delay_s:
            heapq.heappush(self._retries, (self._clock.monotonic() + delay_s, task.record.id))
        else:
            self._enqueue(task)

    def _remember(self, entry: JobEntry, task: TaskEntry) -> None:
        """What the job's view shows of an ended task."""
        self._count_ending(entry, task)
        if not entry.graph.is_needed(task.record.key):
            entry.leaves.append(task)

    def _count_ending(self, entry: JobEntry, task: TaskEntry) -> None:
        assert task.ending is not None
        for name, value in task.ending.tallies.items():
            entry.tallies[name] = entry.tallies.get(name, 0.0) + value
        if task.state is TaskState.FAILED and len(entry.failed) < MAX_OUTCOMES:
            entry.failed.append(task)

    # ------------------------------------------------------------ workers

    def _renew(self, worker: WorkerEntry) -> None:
        worker.heard_at = self._clock.monotonic()
        worker.expires_at = worker.heard_at + self._limits.lease_s

    def _remove(self, worker: WorkerEntry) -> None:
        """Forget a worker without live leases: a restart need not wait for it."""
        del self.workers[worker.key]
        self._commit([DropWorker(worker.key)], None)

    def _mark_workers_changed(self, profile: Profile) -> None:
        uids = [profile.job_uid] if profile.job_uid in self.jobs else self.jobs
        self._out.changed.update(uid for uid in uids if not self.jobs[uid].job.finished_at)
