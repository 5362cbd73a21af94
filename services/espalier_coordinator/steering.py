"""What submitters say: jobs and their tasks, changes, cancellation, the end. No I/O."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from espalier_coordinator.checks import check_job, check_tasks
from espalier_coordinator.completed import Completed
from espalier_coordinator.core import Effects
from espalier_coordinator.model import Event, Job, NewTask, TaskRecord
from espalier_coordinator.state import JobEntry, Submission, TaskEntry
from espalier_coordinator.store import DropJob, PutJob, PutTasks
from espalier_kit.errors import Forbidden
from espalier_kit.execution import ModelEndpoint


class Steering(Completed):
    """Each returns what has to be done now; it is true once it is on disk."""

    def submit(
        self, job: Job, tasks: Sequence[NewTask], endpoints: tuple[ModelEndpoint, ...] | None = None
    ) -> Effects:
        """Add a job, or tasks to it: what is there already is left as it is. Raises `Permanent` with a sentence."""
        if job.uid in self.archived:
            self.job(job.uid)
        known, coming = self.jobs.get(job.uid), self._submitting.get(job.uid)
        before = known.written if known else coming.job if coming else None
        if before and before.namespace != job.namespace:
            raise Forbidden(f"job {job.uid} belongs to another namespace", reason="Forbidden")
        keys = known.tasks if known else {}
        check_job(job)
        check_tasks(tasks, keys)
        if known and known.job.cancelled:
            return self._flush()
        records = self._records(job.uid, (t for t in tasks if t.key not in keys))
        if before is None:
            job = replace(job, submitted_at=self._clock.now().timestamp(), has_endpoints=bool(endpoints))
        else:
            job = replace(
                before, has_endpoints=before.has_endpoints or bool(endpoints),
                finished_at=0.0 if records else before.finished_at,
            )
        if known is None or records or endpoints:
            whose = known or self._submitting.setdefault(job.uid, Submission(job))
            self._commit([PutJob(job), PutTasks(records)], partial(self._submitted, whose, job, records, endpoints))
            if isinstance(whose, Submission):
                whose.job = job
                whose.open += 1
            else:
                whose.written = job
        return self._flush()

    def update(
        self, uid: str, *, priority: int | None = None, suspended: bool | None = None, cancel: bool = False,
        endpoints: tuple[ModelEndpoint, ...] | None = None, cancel_reason: str = "", weight: float | None = None,
        max_tasks_per_s: float | None = None, max_running: int | None = None,
    ) -> Effects:
        """Steer a job; None leaves as it is. Cancelling one that has ended changes nothing.

        Raises `NotFound`, and `Permanent` with a sentence.
        """
        entry = self.job(uid)
        before = entry.written
        does_cancel = cancel and not before.cancelled and not entry.has_ended
        job = replace(
            before,
            priority=before.priority if priority is None else priority,
            suspended=before.suspended if suspended is None else suspended,
            cancelled=before.cancelled or does_cancel,
            cancel_reason=cancel_reason if does_cancel else before.cancel_reason,
            has_endpoints=before.has_endpoints or bool(endpoints),
            weight=before.weight if weight is None else weight,
            max_tasks_per_s=before.max_tasks_per_s if max_tasks_per_s is None else max_tasks_per_s,
            max_running=before.max_running if max_running is None else max_running,
        )
        check_job(job)
        if job != before:
            entry.written = job
            self._commit([PutJob(job)], partial(self._updated, job))
        if endpoints is not None:
            self._set_endpoints(entry, endpoints)
        return self._flush()

    def delete(self, uid: str) -> Effects:
        """Forget a job; its running tasks are cancelled. Forgetting what is unknown is success."""
        self.archived.pop(uid, None)
        self._submitting.pop(uid, None)
        entry = self.jobs.get(uid)
        if entry:
            for task in entry.tasks.values():
                if task.lease:
                    self._cancel_lease(task, "the job was deleted")
                    self._release(task)
            self._drop(entry)
            self._drain(uid, "the job was deleted")
            self._out.changed.add(uid)
        self._commit([DropJob(uid)], None)
        return self._flush()

    def task(self, task_id: str) -> TaskEntry | None:
        """The task of that id, where there is one."""
        return self._tasks.get(task_id)

    # ------------------------------------------------------------ once it is on disk

    def _submitted(
        self, whose: JobEntry | Submission, job: Job, records: tuple[TaskRecord, ...],
        endpoints: tuple[ModelEndpoint, ...] | None,
    ) -> None:
        """Unless the job was deleted meanwhile: on disk it is gone again, or about to be."""
        known = self.jobs.get(job.uid)
        if not self._arrived(whose, known):
            return
        entry = self._add_job(job)
        if known is not None:
            finished_at = 0.0 if records else known.job.finished_at
            entry.job = replace(known.job, finished_at=finished_at, has_endpoints=job.has_endpoints)
            self._catch_up(entry)
        if records:
            self._completed.pop(job.uid, None)
            self._await_endpoints(entry)
        self._steer(entry)
        if endpoints:
            self._set_endpoints(entry, endpoints)
        self._add_tasks(entry, records)
        self._check_finished(entry)
        self._out.changed.add(job.uid)

    def _catch_up(self, entry: JobEntry) -> None:
        """A submission that was on its way with the job's first one knew nothing of what was written since."""
        written = replace(entry.written, finished_at=entry.job.finished_at, has_endpoints=entry.job.has_endpoints)
        if written != entry.written:
            entry.written = written
            self._commit([PutJob(written)], None)

    def _arrived(self, whose: JobEntry | Submission, known: JobEntry | None) -> bool:
        """Whether the job is still the one that was submitted."""
        if isinstance(whose, JobEntry):
            return known is whose
        if self._submitting.get(whose.job.uid) is not whose:
            return False
        whose.open -= 1
        if not whose.open:
            del self._submitting[whose.job.uid]
        return True

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
        self._steer(entry)
        entry.graph.close()
        entry.message = entry.job.cancel_reason
        until = self._clock.monotonic() + self._limits.cancel_grace_s
        for task in entry.tasks.values():
            if task.lease:
                self._cancel_lease(task, entry.job.cancel_reason)
                task.lease = task.lease._replace(deadline_at=until)
                heapq.heappush(self._deadlines, (until, task.record.id, task.lease.number))
            elif not task.is_final and not task.is_settling:
                entry.move(task, Event.CANCELLED)
        self._check_finished(entry)
