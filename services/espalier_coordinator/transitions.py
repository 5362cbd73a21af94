"""What can happen to tasks, jobs and workers inside the engine, whichever command caused it. No I/O."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from espalier_coordinator import graph
from espalier_coordinator.messages import (
    Ack,
    Assignment,
    Cancel,
    Close,
    Drain,
    Hello,
    Input,
    JobContext,
    Lease,
    Message,
    Report,
    Tasks,
    Verdict,
)
from espalier_coordinator.model import (
    ENDED_BY,
    MAX_PAYLOAD_BYTES,
    Attempt,
    Ending,
    Event,
    Job,
    NewTask,
    Spent,
    TaskRecord,
    record_of,
)
from espalier_coordinator.scheduling import Demand, Lane, Profile, ReadyTasks, may_run
from espalier_coordinator.state import MAX_OUTCOMES, JobEntry, Statistics, TaskEntry, WorkerEntry
from espalier_coordinator.store import DropWorker, PutEnding, PutJob, PutSpent, PutTasks, Write
from espalier_kit.clock import Clock
from espalier_kit.errors import Permanent
from espalier_kit.execution import MAX_INLINE_BYTES, ModelEndpoint, TaskState
from espalier_kit.retry import Backoff

PLATFORM_FAULT = "PlatformFault"
MAX_INPUT_BYTES = 48 * 1024 * 1024
"""All values that one task gets from its dependencies: they must fit into one message."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds."""

    lease_s: float = 30.0
    heartbeat_s: float = 5.0
    timeout_grace_s: float = 30.0
    """The worker ends an attempt at its timeout; the coordinator only when the worker did not, this much later."""
    cancel_grace_s: float = 30.0
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def reconnect_s(self) -> float:
        """How long a worker whose stream broke may take to come back: a closed stream is news, silence is not."""
        return self.lease_s / 3


@dataclass(frozen=True, slots=True)
class Commit:
    """Writes that belong together; answer with `committed([ticket])` once they are on disk."""

    ticket: int
    writes: tuple[Write, ...]


@dataclass(slots=True)
class Effects:
    """What the shell has to do now."""

    messages: list[tuple[int, Message]] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    """Jobs whose view changed."""


class Transitions:
    """The memory and its transitions. Times come from `clock`, jitter from `rng`."""

    def __init__(self, clock: Clock, rng: random.Random, *, epoch: str, limits: Limits | None = None) -> None:
        self.epoch = epoch
        self.statistics = Statistics()
        self.jobs: dict[str, JobEntry] = {}
        self.workers: dict[str, WorkerEntry] = {}
        self.ready = ReadyTasks()
        self._clock = clock
        self._rng = rng
        self._limits = limits or Limits()
        self._tasks: dict[str, TaskEntry] = {}
        self._sessions: dict[int, WorkerEntry] = {}
        self._in_doubt: set[str] = set()
        self._is_someone_missing = False
        self._retries: list[tuple[float, str]] = []
        self._deadlines: list[tuple[float, str, int]] = []
        self._sequence = 0
        self._ticket = 0
        self._applies: dict[int, Callable[[], None] | None] = {}
        self._out = Effects()

    # ------------------------------------------------------------ effects

    def _commit(self, writes: Sequence[Write], apply: Callable[[], None] | None) -> None:
        self._ticket += 1
        self._applies[self._ticket] = apply
        self._out.commits.append(Commit(self._ticket, tuple(writes)))

    def _send(self, session: int | None, message: Message) -> None:
        if session is not None:
            self._out.messages.append((session, message))

    def _ack(self, worker_key: str, lease: Lease) -> None:
        if worker := self.workers.get(worker_key):
            self._send(worker.session, Ack((lease,)))

    def _flush(self) -> Effects:
        """Hand out what is ready, then everything that has to be done."""
        self._dispatch()
        out, self._out = self._out, Effects()
        return out

    # ------------------------------------------------------------ jobs

    def _add_job(self, job: Job) -> JobEntry:
        entry = self.jobs.setdefault(job.uid, JobEntry(job))
        entry.job = job
        return entry

    def _steer(self, entry: JobEntry) -> None:
        self.ready.steer(entry.job.uid, priority=entry.job.priority, is_held=entry.is_held)

    def _submitted(
        self, job: Job, records: tuple[TaskRecord, ...], endpoints: tuple[ModelEndpoint, ...] | None
    ) -> None:
        known = self.jobs.get(job.uid)
        if known is not None:
            has_endpoints = known.job.has_endpoints or bool(endpoints)
            job = replace(known.job, finished_at=job.finished_at, has_endpoints=has_endpoints)
        entry = self._add_job(job)
        self._steer(entry)
        if endpoints is not None:
            self._set_endpoints(entry, endpoints)
        self._add_tasks(entry, records)
        self._check_finished(entry)
        self._out.changed.add(job.uid)

    def _updated(self, job: Job) -> None:
        entry = self.jobs.get(job.uid)
        if entry is None:
            return
        was_cancelled = entry.job.cancelled
        entry.job = replace(job, finished_at=entry.job.finished_at)
        self._steer(entry)
        if job.cancelled and not was_cancelled:
            self._cancel_job(entry)
        self._out.changed.add(job.uid)

    def _cancel_job(self, entry: JobEntry) -> None:
        self.ready.forget(entry.job.uid)
        entry.graph.close()
        until = self._clock.monotonic() + self._limits.cancel_grace_s
        for task in entry.tasks.values():
            if task.lease:
                self._cancel_lease(task)
                task.lease = replace(task.lease, deadline_at=until)
                heapq.heappush(self._deadlines, (until, task.record.id, task.lease.number))
            elif not task.is_final and not task.is_settling:
                entry.move(task, Event.CANCELLED)
        self._check_finished(entry)

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
            entry.job = replace(entry.job, finished_at=self._clock.now().timestamp())
            self._commit([PutJob(entry.job)], None)
        self._drain(entry.job.uid, "the job has ended")

    def _drain(self, job_uid: str, reason: str) -> None:
        """Tell the workers that serve only this job to leave."""
        for worker in self.workers.values():
            if worker.profile.job_uid == job_uid and not worker.is_draining and worker.session is not None:
                worker.is_draining = True
                self._send(worker.session, Drain(reason))

    # ------------------------------------------------------------ tasks come

    def _records(self, job_uid: str, tasks: Iterable[NewTask]) -> tuple[TaskRecord, ...]:
        records = []
        for task in tasks:
            self._sequence += 1
            records.append(record_of(job_uid, task, self._sequence))
        return tuple(records)

    def _add_task(self, entry: JobEntry, record: TaskRecord) -> TaskEntry:
        lane = Lane(entry.job.namespace, entry.job.uid, record.type, frozenset(record.tags))
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

        def final_state(key: str) -> TaskState | None:
            known = entry.tasks.get(key)
            return known.state if known and known.is_final else None

        ready, skipped = entry.graph.add([(k, t.record.depends_on) for k, t in new.items()], final_state)
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
        for key in ready:
            task = entry.tasks[key]
            entry.move(task, Event.UNBLOCKED)
            self._enqueue(task)

    def _enqueue(self, task: TaskEntry) -> None:
        self.ready.put(task.lane, task.record.sequence, task.record.id)

    # ------------------------------------------------------------ tasks go out

    def _dispatch(self) -> None:
        if self.ready.is_empty:
            return
        demands = [
            Demand(w.key, w.profile, w.wants, len(w.leases), w.capacity) for w in self.workers.values()
            if w.wants and w.is_registered and w.session is not None and not w.is_draining
        ]
        if not demands:
            return
        granted: dict[str, list[Assignment]] = {}
        for key, task_id in self.ready.assign(demands):
            task = self._tasks.get(task_id)
            if task is None or task.state is not TaskState.READY:
                continue
            assignment = self._grant(self.workers[key], task)
            if assignment is not None:
                granted.setdefault(key, []).append(assignment)
        for key, assignments in granted.items():
            self._send(self.workers[key].session, Tasks(tuple(assignments)))

    def _grant(self, worker: WorkerEntry, task: TaskEntry) -> Assignment | None:
        entry = self.jobs[task.record.job_uid]
        inputs = tuple(_input(entry.tasks[d.key]) for d in task.record.depends_on)
        if sum(len(i.value) for i in inputs) > MAX_INPUT_BYTES:
            self._end(task, Ending(TaskState.FAILED, task.spent.attempt, "InputsTooLarge",
                                   f"the values of its dependencies exceed {MAX_INPUT_BYTES} bytes: use artifacts"))
            return None
        worker.wants -= 1
        self._send_context(worker, entry)
        self._lease(worker, task, task.spent.attempt + 1)
        self.statistics.granted += 1
        timeout_s = entry.timeout_s_of(task)
        return Assignment(task.record, task.spent.attempt + 1, entry.job.name, entry.job.namespace, timeout_s, inputs)

    def _lease(self, worker: WorkerEntry, task: TaskEntry, number: int) -> None:
        """The backstop allows twice the timeout: a task that was fetched ahead starts when the one before it ended."""
        entry = self.jobs[task.record.job_uid]
        deadline_at = self._clock.monotonic() + 2 * entry.timeout_s_of(task) + self._limits.timeout_grace_s
        heapq.heappush(self._deadlines, (deadline_at, task.record.id, number))
        entry.move(task, Event.GRANTED)
        task.lease = Attempt(number, worker.key, deadline_at)
        worker.leases[task.record.id] = task
        worker.contexts.setdefault(entry.job.uid, 0)
        self._out.changed.add(entry.job.uid)

    def _release(self, task: TaskEntry) -> None:
        """Nobody holds it any more."""
        if task.lease and (worker := self.workers.get(task.lease.worker)):
            worker.leases.pop(task.record.id, None)
        task.lease = None

    def _cancel_lease(self, task: TaskEntry) -> None:
        assert task.lease is not None
        if worker := self.workers.get(task.lease.worker):
            self._send(worker.session, Cancel((Lease(task.record.id, task.lease.number),)))

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

    # ------------------------------------------------------------ tasks end

    def _report(self, worker: WorkerEntry, report: Report) -> None:
        task = self._tasks.get(report.lease.task_id)
        if task is None or task.is_final:
            self.statistics.duplicates += 1
            self._ack(worker.key, report.lease)
        elif task.is_settling:
            self.statistics.duplicates += 1
            task.waiting_acks.append((worker.key, report.lease))
        elif not is_held_by(task, worker, report.lease):
            self.statistics.fenced += 1
            self._ack(worker.key, report.lease)
        else:
            task.waiting_acks.append((worker.key, report.lease))
            self._accept(task, report)

    def _accept(self, task: TaskEntry, report: Report) -> None:
        entry = self.jobs[task.record.job_uid]
        problem = _problem(report, entry.tasks)
        if problem is not None:
            self._fail_attempt(task, problem.reason, str(problem))
        elif report.verdict is Verdict.PLATFORM_FAULT:
            self._fail_attempt(task, report.reason, report.message)
        elif report.verdict is Verdict.CANCELLED and not entry.job.cancelled:
            self._close_attempt(task, replace(task.spent, attempt=task.spent.attempt + 1))
        else:
            self._end(task, self._ending(task, report), report.children)

    def _ending(self, task: TaskEntry, report: Report) -> Ending:
        state = {Verdict.DONE: TaskState.DONE, Verdict.CANCELLED: TaskState.CANCELLED}.get(
            report.verdict, TaskState.FAILED
        )
        assert task.lease is not None
        return Ending(
            state, task.spent.faults + 1, report.reason, report.message, report.value, report.tallies,
            task.lease.worker, report.execution_s, self._clock.now().timestamp(),
        )

    def _fail_attempt(self, task: TaskEntry, reason: str, message: str, *, is_lost: bool = False) -> None:
        """A fault of the platform: try again later, or fail for good once the retries are spent."""
        entry = self.jobs[task.record.job_uid]
        assert task.lease is not None
        before = task.spent
        spent = Spent(task.lease.number, before.faults + 1, before.lost + is_lost)
        if is_lost:
            entry.lost_leases += 1
            self.statistics.lost_leases += 1
        if entry.job.cancelled or spent.faults > entry.retries_of(task):
            state = TaskState.CANCELLED if entry.job.cancelled else TaskState.FAILED
            cause = f"{reason}: {message}" if reason and reason != PLATFORM_FAULT else message
            ending = Ending(state, spent.faults, PLATFORM_FAULT, cause, worker=task.lease.worker,
                            finished_at=self._clock.now().timestamp())
            self._end(task, ending, spent=spent)
            return
        self.statistics.retries += 1
        self._close_attempt(task, spent, self._limits.backoff.delay_s(spent.faults, self._rng))

    def _close_attempt(self, task: TaskEntry, spent: Spent, delay_s: float = 0.0) -> None:
        """Write that this attempt's number is used up, then queue the task again."""
        task.is_settling = True
        self._commit([PutSpent(task.record.id, spent)], partial(self._attempt_closed, task, spent, delay_s))

    def _attempt_closed(self, task: TaskEntry, spent: Spent, delay_s: float) -> None:
        self._settled(task)
        if self._tasks.get(task.record.id) is task:
            task.spent = spent
            self._return(task, delay_s)

    def _end(
        self, task: TaskEntry, ending: Ending, children: Sequence[NewTask] = (), *, spent: Spent | None = None
    ) -> None:
        """Write the result and the tasks it submits, in one commit."""
        task.is_settling = True
        job_uid = task.record.job_uid
        known = self.jobs[job_uid].tasks
        records = self._records(job_uid, (c for c in children if c.key not in known))
        writes: list[Write] = [PutEnding(task.record.id, job_uid, ending)]
        if records:
            writes.insert(0, PutTasks(records))
        if spent is not None:
            task.spent = spent
            writes.append(PutSpent(task.record.id, spent))
        self._commit(writes, partial(self._ended, task, ending, records))

    def _ended(self, task: TaskEntry, ending: Ending, children: tuple[TaskRecord, ...]) -> None:
        self._settled(task)
        if self._tasks.get(task.record.id) is not task:
            return
        entry = self.jobs[task.record.job_uid]
        self._release(task)
        entry.move(task, ENDED_BY[ending.state])
        task.ending = ending
        self.statistics.accepted += 1
        self.statistics.ended[ending.state] += 1
        self._add_tasks(entry, children)
        self._remember(entry, task)
        self._follow(entry, *entry.graph.finish(task.record.key, ending.state))
        self._check_finished(entry)
        self._out.changed.add(entry.job.uid)

    def _remember(self, entry: JobEntry, task: TaskEntry) -> None:
        """What the job's view shows of an ended task. Call before the graph forgets who waits for it."""
        assert task.ending is not None
        for name, value in task.ending.tallies.items():
            entry.tallies[name] = entry.tallies.get(name, 0.0) + value
        if task.state is TaskState.FAILED and len(entry.failed) < MAX_OUTCOMES:
            entry.failed.append(task)
        elif task.state is not TaskState.FAILED and not entry.graph.has_waiting(task.record.key):
            entry.leaves.append(task)

    def _settled(self, task: TaskEntry) -> None:
        task.is_settling = False
        for worker_key, lease in task.waiting_acks:
            self._ack(worker_key, lease)
        task.waiting_acks.clear()

    # ------------------------------------------------------------ workers

    def _renew(self, worker: WorkerEntry) -> None:
        worker.expires_at = self._clock.monotonic() + self._limits.lease_s

    def _registered(self, worker: WorkerEntry) -> None:
        worker.is_registered = True

    def _reconcile(self, worker: WorkerEntry, in_flight: Iterable[Lease]) -> None:
        """Compare what a worker says it holds with what it should hold.

        One that holds nothing may be a new process after a crash: a task that kills its worker must not run for ever.
        """
        claimed = {lease.task_id: lease for lease in in_flight}
        for task in list(worker.leases.values()):
            if task.record.id in claimed or task.is_settling:
                continue
            if claimed:  # the process lived on: this one never reached it, or was handed back
                self._return(task)
            else:
                self._fail_attempt(task, "WorkerLost", "the worker came back without it", is_lost=True)
        for lease in claimed.values():
            self._claim(worker, lease)

    def _claim(self, worker: WorkerEntry, lease: Lease) -> None:
        task = self._tasks.get(lease.task_id)
        if task is not None and task.is_final:
            self._send(worker.session, Ack((lease,)))
        elif task is not None and is_held_by(task, worker, lease):
            self._send_context(worker, self.jobs[task.record.job_uid])
        elif task is not None and lease.task_id in self._in_doubt and self._may_adopt(worker, task, lease):
            self._in_doubt.discard(lease.task_id)
            self._lease(worker, task, lease.attempt)
            self.statistics.adopted += 1
            self._send_context(worker, self.jobs[task.record.job_uid])
        else:
            self._send(worker.session, Cancel((lease,)))

    def _may_adopt(self, worker: WorkerEntry, task: TaskEntry, lease: Lease) -> bool:
        return (
            task.state is TaskState.READY and not task.is_settling and lease.attempt == task.spent.attempt + 1
            and may_run(worker.profile, task.lane)
        )

    def _expire(self, worker: WorkerEntry) -> None:
        """A worker was silent for too long, or did not come back."""
        self._is_someone_missing |= worker.is_awaited
        if worker.session is not None:
            self._send(worker.session, Close("no heartbeat within the lease time"))
            self._sessions.pop(worker.session, None)
            worker.session = None
            self._mark_workers_changed(worker.profile)
        for task in list(worker.leases.values()):
            if not task.is_settling:
                self._fail_attempt(task, "WorkerLost", "the worker vanished while it ran this task", is_lost=True)
        self._remove(worker)

    def _remove(self, worker: WorkerEntry) -> None:
        """Forget a worker without live leases: a restart need not wait for it."""
        del self.workers[worker.key]
        self._commit([DropWorker(worker.key)], None)

    def _mark_workers_changed(self, profile: Profile) -> None:
        uids = [profile.job_uid] if profile.job_uid in self.jobs else self.jobs
        self._out.changed.update(uid for uid in uids if not self.jobs[uid].job.finished_at)

    # ------------------------------------------------------------ restart and deadlines

    def _reload(self, entry: JobEntry) -> None:
        """Work out from the results on disk where every task of a job stands."""
        if entry.job.cancelled:
            for task in entry.tasks.values():
                self._reload_final(entry, task, task.ending.state if task.ending else TaskState.CANCELLED)
            return
        ready, skipped = entry.graph.add([(k, t.record.depends_on) for k, t in entry.tasks.items()], lambda _: None)
        assert not skipped
        for key in ready:
            entry.move(entry.tasks[key], Event.UNBLOCKED)
        ended = [(t.ending.finished_at, t.record.sequence, t) for t in entry.tasks.values() if t.ending]
        for _, _, task in sorted(ended):
            if task.ending:
                self._reload_final(entry, task, task.ending.state)
        self._in_doubt.update(t.record.id for t in entry.tasks.values() if t.state is TaskState.READY)
        self._check_finished(entry)

    def _reload_final(self, entry: JobEntry, task: TaskEntry, state: TaskState) -> None:
        entry.counts[task.state] -= 1
        task.state = state
        entry.counts[state] += 1
        if task.ending:
            self._remember(entry, task)
        ready, skipped = entry.graph.finish(task.record.key, state)
        for waiting in [entry.tasks[key] for key in ready]:
            if waiting.state is TaskState.BLOCKED:
                entry.move(waiting, Event.UNBLOCKED)
        self._follow(entry, [], [key for key in skipped if entry.tasks[key].state is TaskState.BLOCKED])

    def _resolve_doubt(self) -> None:
        """Once nobody is awaited any more, what was not claimed is nobody's."""
        if not self._in_doubt or any(w.is_awaited for w in self.workers.values()):
            return
        tasks = [self._tasks[i] for i in self._in_doubt if i in self._tasks]
        open_tasks = [t for t in tasks if t.state is TaskState.READY]
        self._in_doubt.clear()
        if not self._is_someone_missing:
            self._queue_again(open_tasks, None)
            return
        spent = [replace(t.spent, attempt=t.spent.attempt + 1) for t in open_tasks]
        for task in open_tasks:
            task.is_settling = True
        writes = [PutSpent(t.record.id, s) for t, s in zip(open_tasks, spent, strict=True)]
        self._commit(writes, partial(self._queue_again, open_tasks, spent))

    def _queue_again(self, tasks: list[TaskEntry], spent: list[Spent] | None) -> None:
        for n, task in enumerate(tasks):
            if spent is not None:
                task.spent = spent[n]
                self._settled(task)
            if self._tasks.get(task.record.id) is task:
                self._requeue_or_cancel(task)

    def _requeue_or_cancel(self, task: TaskEntry) -> None:
        entry = self.jobs[task.record.job_uid]
        if entry.job.cancelled and task.state is TaskState.READY:
            entry.move(task, Event.CANCELLED)
            self._check_finished(entry)
        elif task.state is TaskState.READY:
            self._enqueue(task)

    def _overdue(self, task_id: str, number: int) -> None:
        """The backstop: the worker neither ended the attempt in time nor obeyed a cancellation."""
        task = self._tasks.get(task_id)
        if task is None or task.is_settling or task.lease is None or task.lease.number != number:
            return
        if task.lease.deadline_at > self._clock.monotonic():
            return
        self.statistics.timeouts += 1
        self._cancel_lease(task)
        self._fail_attempt(task, "TaskTimeout", "the attempt outlived its timeout and its worker did not end it")


def is_held_by(task: TaskEntry, worker: WorkerEntry, lease: Lease) -> bool:
    """Whether this very attempt is leased to this very worker."""
    return task.lease is not None and task.lease.worker == worker.key and task.lease.number == lease.attempt


def profile_of(hello: Hello) -> Profile:
    """What a worker may run."""
    return Profile(hello.namespace, hello.job_uid, hello.types, hello.tags)


def check_tasks(tasks: Sequence[NewTask], known: Collection[str]) -> None:
    """Raise `Permanent` with a sentence that names the task."""
    for task in tasks:
        if not task.key or not task.type:
            raise Permanent(f"a task needs a key and a type, got {task.key!r} and {task.type!r}", reason="InvalidTask")
        if len(task.payload) > MAX_PAYLOAD_BYTES:
            raise Permanent(f"task {task.key!r}: payload of {len(task.payload)} bytes exceeds {MAX_PAYLOAD_BYTES}; "
                            "put it into the artifact store and pass its digest", reason="PayloadTooLarge")
        if task.timeout_s < 0 or (task.retries or 0) < 0:
            raise Permanent(f"task {task.key!r}: timeout and retries cannot be negative", reason="InvalidTask")
    graph.check([(t.key, t.depends_on) for t in tasks], known)


def _problem(report: Report, known: Collection[str]) -> Permanent | None:
    """Why a result cannot be taken as it is: a bug of its executor, so a fault of the platform."""
    if len(report.value) > MAX_INLINE_BYTES:
        return Permanent(f"a value of {len(report.value)} bytes exceeds {MAX_INLINE_BYTES}: store it as an artifact "
                         "and return its digest", reason="ValueTooLarge")
    try:
        check_tasks(report.children, known)
    except Permanent as error:
        return error
    return None


def _input(task: TaskEntry) -> Input:
    ending = task.ending or Ending(task.state, 0)
    return Input(task.record.key, task.state, ending.reason, ending.message, ending.value)
