"""Jobs that ended: the last ones stay in memory, the others in the store, until somebody deletes them. No I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from itertools import islice

from espalier_coordinator.core import Effects
from espalier_coordinator.messages import JobContext
from espalier_coordinator.model import Job, JobState, ended_job
from espalier_coordinator.operations import Operations
from espalier_coordinator.state import JobEntry
from espalier_coordinator.store import Archived, ArchiveJob, DropJob, PutJob, Snapshot
from espalier_kit.execution import TaskState

MAX_AT_ONCE = 100
"""Jobs that one tick archives or forgets: the loop is never busy with it for long."""

SWEEP_S = 5.0


class Completed(Operations):
    """Which jobs are where."""

    def recall(self, snapshot: Snapshot) -> Effects:
        """Take an archived job back into memory, to be seen in full or steered. `snapshot` is `TaskStore.job`'s."""
        for job in snapshot.jobs:
            if job.uid not in self.archived or job.uid in self.jobs:
                continue
            del self.archived[job.uid]
            entry = self._add_job(job)
            for stored in snapshot.tasks:
                task = self._add_task(entry, stored.record)
                task.spent, task.ending = stored.spent, stored.ending
                entry.lost_leases += stored.spent.lost
            self._reload(entry)
            self._steer(entry)
            self._commit([PutJob(job)], None)
        return self._flush()

    def _retire(self) -> None:
        """Archive what is too much, forget what is too old."""
        excess = len(self._completed) - self._limits.max_completed_jobs
        for uid in list(islice(self._completed, max(0, min(excess, MAX_AT_ONCE)))):
            entry = self.jobs[uid]
            if not entry.is_archiving:
                entry.is_archiving = True
                writes = [ArchiveJob(uid, summary_of(entry))]
                self._commit(writes, partial(self._retired, entry, entry.written))
        if self._limits.completed_ttl_s and self._clock.monotonic() >= self._next_sweep:
            self._next_sweep = self._clock.monotonic() + SWEEP_S
            self._forget_before(self._clock.now().timestamp() - self._limits.completed_ttl_s)

    def _retired(self, entry: JobEntry, written: Job) -> None:
        """On disk it is archived, unless a later write has brought it back already."""
        entry.is_archiving = False
        uid = entry.job.uid
        if self.jobs.get(uid) is not entry or entry.written is not written:
            return
        self._drop(entry)
        self.archived[uid] = ended_job(entry.job, has_failed=bool(entry.counts[TaskState.FAILED]))
        self.statistics.archived += 1

    def _drop(self, entry: JobEntry) -> None:
        """Out of memory."""
        uid = entry.job.uid
        del self.jobs[uid]
        self.ready.forget(uid)
        self._completed.pop(uid, None)
        self._limited.pop(uid, None)
        for task in entry.tasks.values():
            del self._tasks[task.record.id]
        for worker in self.workers.values():
            if worker.contexts.pop(uid, 0):
                self._send(worker.session, JobContext(uid, ()))

    def _forget_before(self, time: float) -> None:
        old = [uid for uid in self._completed if 0 < self.jobs[uid].job.finished_at < time]
        for uid in old[:MAX_AT_ONCE]:
            self._drop(self.jobs[uid])
            self._out.changed.add(uid)
            self._commit([DropJob(uid)], None)
        gone = [uid for uid, job in self.archived.items() if job.finished_at < time]
        for uid in gone[:MAX_AT_ONCE]:
            del self.archived[uid]
            self._commit([DropJob(uid)], None)


@dataclass(frozen=True, slots=True)
class ToldTask:
    """An ended task as an archived job's list entry tells it."""

    id: str
    key: str
    type: str
    state: str
    attempts: int
    worker: str
    reason: str
    message: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Summary:
    """What is told of an archived job without recalling it."""

    job: Job
    state: JobState
    counts: dict[TaskState, int]
    tallies: dict[str, float]
    outcomes: tuple[ToldTask, ...]
    lost_leases: int


def summary_of(entry: JobEntry) -> str:
    """For `ArchiveJob`."""
    return json.dumps({
        "state": entry.state, "counts": {state: n for state, n in entry.counts.items() if n},
        "tallies": entry.tallies, "lost": entry.lost_leases,
        "outcomes": [
            {"id": t.record.id, "key": t.record.key, "type": t.record.type, "state": t.state,
             "attempts": t.ending.attempts, "worker": t.ending.worker, "reason": t.ending.reason,
             "message": t.ending.message, "value": t.ending.value.decode("latin-1")} for t in entry.told if t.ending
        ],
    })


def read_summary(archived: Archived) -> Summary:
    """What `summary_of` wrote."""
    said = json.loads(archived.summary)
    return Summary(
        archived.job, JobState(said["state"]), {TaskState(s): n for s, n in said["counts"].items()}, said["tallies"],
        tuple(ToldTask(**{**told, "value": told["value"].encode("latin-1")}) for told in said["outcomes"]),
        said["lost"],
    )
