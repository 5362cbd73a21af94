"""Handing out ready tasks. No I/O."""

from __future__ import annotations

from espalier_coordinator.core import Effects
from espalier_coordinator.messages import Assignment, Input, Tasks
from espalier_coordinator.model import Ending
from espalier_coordinator.results import Results
from espalier_coordinator.scheduling import Demand
from espalier_coordinator.state import TaskEntry, WorkerEntry
from espalier_kit.execution import TaskState

MAX_INPUT_BYTES = 48 * 1024 * 1024
"""All values that one task gets from its dependencies: they must fit into one message."""


class Dispatch(Results):
    """From wishes to assignments."""

    def _flush(self) -> Effects:
        """Hand out what is ready, then everything that has to be done."""
        self._dispatch()
        out, self._out = self._out, Effects()
        return out

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


def _input(task: TaskEntry) -> Input:
    ending = task.ending or Ending(task.state, 0)
    return Input(task.record.key, task.state, ending.reason, ending.message, ending.value)
