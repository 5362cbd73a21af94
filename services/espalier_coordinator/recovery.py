"""After something broke: workers that come back, workers that do not, a restart, an attempt without end. No I/O."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from functools import partial

from espalier_coordinator.dispatch import Dispatch
from espalier_coordinator.messages import Ack, Cancel, Close, Lease
from espalier_coordinator.model import Event, Spent
from espalier_coordinator.results import is_held_by
from espalier_coordinator.scheduling import may_run
from espalier_coordinator.state import JobEntry, TaskEntry, WorkerEntry
from espalier_coordinator.store import PutSpent
from espalier_kit.execution import TaskState

TRIM_FROM = 10_000


class Recovery(Dispatch):
    """Who still holds what."""

    # ------------------------------------------------------------ workers

    def _reconcile(self, worker: WorkerEntry, in_flight: Iterable[Lease]) -> None:
        """Compare what a worker says it holds with what it should hold.

        One that holds nothing may be a new process after a crash: a task that kills its worker must not run for ever.
        """
        claimed = set(in_flight)
        for task in list(worker.leases.values()):
            assert task.lease is not None
            if task.is_settling or Lease(task.record.id, task.lease.number) in claimed:
                continue
            if claimed:  # the process lived on: this one never reached it, or was handed back
                self._return(task)
            else:
                self._fail_attempt(task, "WorkerLost", "the worker came back without it", is_lost=True)
        for lease in sorted(claimed, key=lambda lease: (lease.task_id, lease.attempt)):
            self._claim(worker, lease)

    def _claim(self, worker: WorkerEntry, lease: Lease) -> None:
        task = self._tasks.get(lease.task_id)
        if task is not None and task.is_final:  # it holds a result to forget, or still runs what is over
            self._send(worker.session, Ack((lease,)))
            self._send(worker.session, Cancel((lease,)))
        elif task is not None and is_held_by(task, worker, lease) and lease.task_id in worker.leases:
            self._send_context(worker, self.jobs[task.record.job_uid])
        elif task is not None and lease.task_id in self._in_doubt and self._may_adopt(worker, task, lease):
            self._in_doubt.discard(lease.task_id)
            self._lease(worker, task, lease.attempt, self.jobs[task.record.job_uid].timeout_s_of(task))
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

    # ------------------------------------------------------------ a restart

    def _reload(self, entry: JobEntry) -> None:
        """Work out from the results on disk where every task of a job stands."""
        if entry.job.cancelled:
            for task in entry.tasks.values():
                self._reload_final(entry, task, task.ending.state if task.ending else TaskState.CANCELLED)
            entry.message = entry.job.cancel_reason
            self._check_finished(entry)
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
        spent = [t.spent._replace(attempt=t.spent.attempt + 1) for t in open_tasks]
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

    # ------------------------------------------------------------ deadlines

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

    def _forgive_stall(self, now: float) -> None:
        """While this process itself stood still it could hear nobody: that time is not the workers' silence.

        Another may have taken over meanwhile: an empty write asks the database, before old news is told for long.
        """
        stalled_s = now - self._last_tick
        self._last_tick = now
        if stalled_s > self._limits.heartbeat_s:
            self._commit([], lambda: None)
            for worker in self.workers.values():
                worker.expires_at += stalled_s

    def _trim_deadlines(self) -> None:
        """Drop the deadlines of attempts that have ended: at thousands a second they would pile up until they pass."""
        leases = sum(len(w.leases) for w in self.workers.values())
        if len(self._deadlines) < max(TRIM_FROM, 4 * leases):
            return
        held = [(t.lease.deadline_at, t.record.id, t.lease.number) for t in self._leased() if t.lease]
        heapq.heapify(held)
        self._deadlines = held

    def _leased(self) -> Iterator[TaskEntry]:
        return (task for worker in self.workers.values() for task in worker.leases.values())
