"""A store that forgets with its process: for tests, under the same contract suite as the durable ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from espalier_coordinator.model import Job, Spent
from espalier_coordinator.store import (
    DropJob,
    DropWorker,
    PutEnding,
    PutJob,
    PutSpent,
    PutTasks,
    PutWorker,
    Snapshot,
    StoredTask,
    Write,
)


class MemoryStore:
    """Dictionaries; survives `close` so that a test may open it again."""

    def __init__(self) -> None:
        self._epoch = 0
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, StoredTask] = {}
        self._workers: dict[str, None] = {}

    def begin_epoch(self) -> int:
        self._epoch += 1
        return self._epoch

    def load(self) -> Snapshot:
        tasks = sorted(self._tasks.values(), key=lambda t: t.record.sequence)
        return Snapshot(tuple(self._jobs.values()), tuple(tasks), tuple(self._workers))

    def commit(self, writes: Sequence[Write]) -> None:
        for write in writes:
            self._do(write)

    def close(self) -> None:
        """Nothing to release."""

    def _do(self, write: Write) -> None:
        match write:
            case PutJob(job):
                self._jobs[job.uid] = job
            case DropJob(uid):
                self._jobs.pop(uid, None)
                self._tasks = {k: t for k, t in self._tasks.items() if t.record.job_uid != uid}
            case PutWorker(key):
                self._workers[key] = None
            case DropWorker(key):
                self._workers.pop(key, None)
            case PutTasks() | PutSpent() | PutEnding():
                self._do_to_task(write)

    def _do_to_task(self, write: PutTasks | PutSpent | PutEnding) -> None:
        if isinstance(write, PutTasks):
            for record in write.records:
                self._tasks.setdefault(record.id, StoredTask(record, Spent(), None))
        elif task := self._tasks.get(write.task_id):
            if isinstance(write, PutSpent):
                self._tasks[write.task_id] = replace(task, spent=write.spent)
            elif task.ending is None:
                self._tasks[write.task_id] = replace(task, ending=write.ending)
