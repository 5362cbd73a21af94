"""Handing out ready tasks. No I/O."""

from __future__ import annotations

from espalier_coordinator import stealing
from espalier_coordinator.cache import key_of
from espalier_coordinator.core import Effects
from espalier_coordinator.messages import Assignment, Input, Lease, Revoke, Tasks
from espalier_coordinator.model import CACHED, Ending
from espalier_coordinator.reservations import HeldBack, Reservation, Seat
from espalier_coordinator.results import Results
from espalier_coordinator.rules import Round, free_of
from espalier_coordinator.scheduling import Demand
from espalier_coordinator.state import JobEntry, TaskEntry, WorkerEntry
from espalier_coordinator.stealing import Waiting
from espalier_kit.execution import TaskState

MAX_INPUT_BYTES = 48 * 1024 * 1024
"""All values that one task gets from its dependencies: they must fit into one message."""


class Dispatch(Results):
    """From wishes to assignments."""

    def _flush(self) -> Effects:
        """Hand out what is ready, then everything that has to be done."""
        self._dispatch()
        return self._take_effects()

    def _dispatch(self) -> None:
        if self.ready.is_empty:
            return
        demands = self._demands()
        if not demands:
            return
        granted: dict[str, list[Assignment]] = {}
        for key, task_id in self.ready.assign(demands, self._round()):
            task = self._tasks.get(task_id)
            if task is None or task.state is not TaskState.READY:
                continue
            assignment = self._grant(self.workers[key], task)
            if assignment is not None:
                granted.setdefault(key, []).append(assignment)
        for key, assignments in granted.items():
            self._send(self.workers[key].session, Tasks(tuple(assignments)))

    def _demands(self) -> list[Demand]:
        return [
            Demand(w.key, w.profile, w.wants, len(w.leases), w.capacity) for w in self.workers.values()
            if w.wants and w.is_registered and w.session is not None and not w.is_draining
        ]

    def _round(self) -> Round | None:
        """The rules of this moment; None where none can apply, which is most of the time."""
        if not (self._limited or self._has_resources or self.reservations):
            return None
        now = self._clock.monotonic()
        room = {uid: _room(entry, now) for uid, entry in self._limited.items()}
        return Round(room, self._free_resources(), self._held_back(), {})

    def _free_resources(self) -> dict[str, dict[str, float]]:
        return {
            w.key: free_of(w.profile.resources, (t.lane.resources for t in w.leases.values()))
            for w in self.workers.values() if w.profile.resources
        }

    def _held_back(self) -> HeldBack | None:
        if not self.reservations:
            return None
        known = [(r, self._pool_of(r)) for r in self.reservations.values()]
        return HeldBack(known, self._seats(), share=self._limits.reserved_share)

    def _seats(self) -> list[Seat]:
        return [
            Seat(w.profile, w.capacity, max(0, w.capacity - len(w.leases)), tuple(t.lane for t in w.leases.values()))
            for w in self.workers.values() if w.session is not None and not w.is_draining
        ]

    def _pool_of(self, reservation: Reservation) -> str:
        entry = self.jobs.get(reservation.job_uid)
        return entry.job.pool if entry else ""

    def _grant(self, worker: WorkerEntry, task: TaskEntry) -> Assignment | None:
        entry = self.jobs[task.record.job_uid]
        needs = task.record.depends_on
        inputs = tuple(_input(entry.tasks[d.key]) for d in needs) if needs else ()
        if inputs and sum(len(i.value) for i in inputs) > MAX_INPUT_BYTES:
            self._end(task, Ending(TaskState.FAILED, task.spent.attempt, "InputsTooLarge",
                                   f"the values of its dependencies exceed {MAX_INPUT_BYTES} bytes: use artifacts"))
            return None
        if task.record.cache and self._is_answered(worker, task, entry, inputs):
            return None
        worker.wants -= 1
        self._send_context(worker, entry)
        number, timeout_s = task.spent.attempt + 1, entry.timeout_s_of(task)
        self._lease(worker, task, number, timeout_s)
        self.statistics.granted += 1
        if entry.bucket:
            entry.bucket.take()
        return Assignment(task.record, number, entry.job.name, entry.job.namespace, timeout_s, inputs)

    def _is_answered(self, worker: WorkerEntry, task: TaskEntry, entry: JobEntry, inputs: tuple[Input, ...]) -> bool:
        """Whether the result of an equal task ends this one. A worker that does not say its version has no part in it.
        """
        task.cache_key = ""
        version = worker.hello.version if worker.hello else ""
        if not version:
            return False
        task.cache_key = key_of(task.record, entry.job.namespace, version, inputs, entry.endpoints)
        found = self.cache.get(task.cache_key)
        if found is None:
            return False
        task.cache_key = ""
        self.statistics.cache_hits += 1
        self._end(task, Ending(TaskState.DONE, task.spent.faults, CACHED, value=found.value, tallies=found.tallies,
                               finished_at=self._clock.now().timestamp()))
        return True

    # ------------------------------------------------------------ stealing

    def _steal(self) -> None:
        """Ask busy workers for what they have not started where others have nothing to do."""
        idle = [d for d in self._demands() if d.held < d.capacity]
        if not idle:
            return
        waiting = [w for worker in self.workers.values() for w in self._unstarted(worker)]
        if not waiting:
            return
        rules, now = self._round(), self._clock.monotonic()
        allows = rules.allows if rules else lambda _demand, _lane: True
        for chosen in stealing.choose(idle, waiting, allows, asked=self._count_asked(now)):
            self._tasks[chosen.lease.task_id].revoked_at = now
            self.statistics.revoked += 1
            self._send(self.workers[chosen.holder].session, Revoke((chosen.lease,)))

    def _count_asked(self, now: float) -> int:
        """Leases that were asked back within a heartbeat; one that is older was started and stays where it is."""
        return sum(
            t.revoked_at is not None and now - t.revoked_at < self._limits.heartbeat_s
            for w in self.workers.values() if len(w.leases) > w.capacity for t in w.leases.values()
        )

    def _unstarted(self, worker: WorkerEntry) -> list[Waiting]:
        """What it fetched ahead: the last ones that it got; each is asked back once."""
        ahead = len(worker.leases) - worker.capacity
        if ahead <= 0 or worker.session is None or worker.hello is None or not worker.hello.prefetch:
            return []
        load = len(worker.leases) / worker.capacity
        last = list(worker.leases.values())[-min(ahead, worker.hello.prefetch):]
        return [
            Waiting(worker.key, Lease(t.record.id, t.lease.number), t.lane, load) for t in reversed(last)
            if t.lease and t.revoked_at is None and not t.is_settling and not self.jobs[t.record.job_uid].job.cancelled
        ]


def _room(entry: JobEntry, now: float) -> int:
    """How many more tasks a limited job may have now."""
    running = entry.job.max_running - entry.counts[TaskState.RUNNING] if entry.job.max_running else None
    per_s = entry.bucket.room(now) if entry.bucket else None
    return min(room for room in (running, per_s) if room is not None)


def _input(task: TaskEntry) -> Input:
    ending = task.ending or Ending(task.state, 0)
    return Input(task.record.key, task.state, ending.reason, ending.message, ending.value)
