"""The coordinator's mind: commands in, effects out. The only owner of mutable state; no I/O, no threads.

Nothing is true before it is on disk: a result, an attempt that failed, a submitted job change the state when their
commit returns (`committed`), never before. So whatever was granted follows from what a restart will find.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from functools import partial

from espalier_coordinator.core import Commit, Effects, Limits
from espalier_coordinator.messages import Close, Drain, Hello, Lease, Progress, Report, Welcome
from espalier_coordinator.results import is_held_by
from espalier_coordinator.scheduling import Profile
from espalier_coordinator.state import WorkerEntry
from espalier_coordinator.steering import Steering
from espalier_coordinator.store import PutWorker, Snapshot
from espalier_kit.errors import Permanent
from espalier_kit.execution import TaskState

__all__ = ["Commit", "Effects", "Engine", "Limits"]

MAX_WANTS = 10_000
"""More wishes than this are not remembered: a worker asks again."""


class Engine(Steering):
    """The commands. Each returns what has to be done now; commits are answered with `committed`."""

    def waits(self) -> dict[frozenset[str], float]:
        """Seconds that the next task of a lane has waited for a worker, the longest for each set of required tags."""
        found: dict[frozenset[str], float] = {}
        for lane, task_id in self.ready.heads():
            waited = self._clock.monotonic() - self._tasks[task_id].ready_since
            found[lane.tags] = max(waited, found.get(lane.tags, 0.0))
        return found

    # ------------------------------------------------------------ jobs

    def load(self, snapshot: Snapshot) -> Effects:
        """Take over what a former process left on disk. Call once, before anything else.

        Tasks that may be running are in doubt until every worker of the former process has said what it runs, or
        one lease time has passed; then they are queued again under the next attempt number.
        """
        now = self._clock.monotonic()
        for job in snapshot.jobs:
            entry = self._add_job(job)
            if not job.finished_at:
                self._await_endpoints(entry)
            self._steer(entry)
        self._sequence = snapshot.last_sequence
        self.archived = dict(snapshot.archived)
        self.templates = {(t.namespace, t.name): t for t in snapshot.templates}
        self._written_templates = dict(self.templates)
        self.reservations = {(r.namespace, r.name): r for r in snapshot.reservations}
        self._written_reservations = dict(self.reservations)
        for cached in snapshot.cached:
            self._keep(cached)
        for stored in snapshot.tasks:
            if entry_of := self.jobs.get(stored.record.job_uid):
                task = self._add_task(entry_of, stored.record)
                task.spent, task.ending = stored.spent, stored.ending
                entry_of.lost_leases += stored.spent.lost
        for entry in self.jobs.values():
            self._reload(entry)
        self._completed = dict.fromkeys(sorted(self._completed, key=lambda uid: self.jobs[uid].job.finished_at))
        nobody = Profile(None, "", frozenset(), frozenset())
        for key in snapshot.workers:
            expires_at = now + self._limits.lease_s
            self.workers[key] = WorkerEntry(key, nobody, 1, None, expires_at, is_awaited=True, is_registered=True)
        self._resolve_doubt()
        return self._flush()

    # ------------------------------------------------------------ workers

    def hello(self, session: int, hello: Hello) -> Effects:
        """A worker introduces itself, the first time or again. What it holds and is still valid, it keeps."""
        worker = self.workers.get(hello.key)
        if worker is None:
            worker = WorkerEntry(hello.key, _profile_of(hello), hello.capacity, session, 0.0)
            self.workers[worker.key] = worker
            self._commit([PutWorker(worker.key)], partial(self._registered, worker))
        elif worker.session is not None:
            del self._sessions[worker.session]
            self._send(worker.session, Close("another session says it is this worker"))
        worker.profile, worker.capacity, worker.session = _profile_of(hello), max(1, hello.capacity), session
        worker.wants, worker.is_awaited, worker.is_draining = 0, False, False
        worker.hello = hello
        worker.contexts.clear()
        self._sessions[session] = worker
        self._renew(worker)
        self._send(session, Welcome(self.epoch, self._limits.heartbeat_s))
        self._reconcile(worker, hello.in_flight)
        self._resolve_doubt()
        entry = self.jobs.get(hello.job_uid)
        if hello.job_uid in self.archived or (entry and entry.is_finished):
            self._drain(hello.job_uid, "the job has ended")
        self._mark_workers_changed(worker.profile)
        return self._flush()

    def want(self, session: int, n: int) -> Effects:
        """The worker has room for `n` more tasks than it already asked for."""
        self._wish(self._worker(session), n)
        return self._flush()

    def withdraw(self, session: int) -> None:
        """The worker no longer waits for what it asked for and did not get."""
        self._worker(session).wants = 0

    def results(self, session: int, reports: Iterable[Report], want: int = 0) -> Effects:
        """Attempts ended, and there is room for `want` more. Each is acked once its effect, or the one that won over
        it, is on disk."""
        worker = self._worker(session)
        self._wish(worker, want)
        for report in reports:
            self._report(worker, report)
        return self._flush()

    def heartbeat(self, session: int, progress: Iterable[Progress] = ()) -> Effects:
        """The worker is alive, and so are its leases; `progress` is what its attempts said since the last one."""
        worker = self._worker(session)
        for said in progress:
            self._progress(worker, said)
        return self._flush()

    def hand_back(self, session: int, leases: Iterable[Lease]) -> Effects:
        """Nothing of these was started: queue them again under the same number, no attempt spent."""
        worker = self._worker(session)
        for lease in leases:
            task = self._tasks.get(lease.task_id)
            if task and is_held_by(task, worker, lease) and not task.is_settling:
                self.statistics.handed_back += 1
                self._return(task)
        return self._flush()

    def drain_worker(self, key: str, reason: str) -> Effects:
        """Tell a worker to finish what it runs, hand back the rest and leave. Unknown or leaving already: nothing."""
        worker = self.workers.get(key)
        if worker is not None and worker.session is not None and not worker.is_draining:
            worker.is_draining, worker.wants = True, 0
            self._send(worker.session, Drain(reason))
            self._mark_workers_changed(worker.profile)
        return self._flush()

    def disconnect(self, session: int) -> Effects:
        """The stream ended. The leases stay for as long as a reconnect may take."""
        worker = self._sessions.pop(session, None)
        if worker is not None:
            worker.session, worker.wants = None, 0
            worker.expires_at = min(worker.expires_at, self._clock.monotonic() + self._limits.reconnect_s)
            self._mark_workers_changed(worker.profile)
            if not worker.leases:
                self._remove(worker)
        return self._flush()

    # ------------------------------------------------------------ time and disk

    def tick(self) -> Effects:
        """Do what is due: leases that ran out, deadlines, retries."""
        now = self._clock.monotonic()
        self._forgive_stall(now)
        self._expire_reservations()
        self._retire()
        for worker in [w for w in self.workers.values() if w.expires_at <= now]:
            self._expire(worker)
        self._resolve_doubt()
        self._trim_deadlines()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, task_id, number = heapq.heappop(self._deadlines)
            self._overdue(task_id, number)
        while self._retries and self._retries[0][0] <= now:
            task = self._tasks.get(heapq.heappop(self._retries)[1])
            if task and task.state is TaskState.READY:
                self._enqueue(task)
        for entry in self.jobs.values():
            if entry.endpoints_due_at is not None and entry.endpoints_due_at <= now:
                entry.endpoints_due_at = None
                self._steer(entry)
        self._dispatch()
        self._steal()
        return self._flush()

    def next_due(self) -> float:
        """Monotonic time of the next retry, deadline or task that a rate limit lets go; infinity without any."""
        now = self._clock.monotonic()
        limited = (
            at for entry in self._limited.values()
            if entry.bucket and entry.counts[TaskState.READY] and not entry.is_held
            and (at := entry.bucket.next_at()) > now  # what is due and has not gone waits for a worker
        )
        return min(
            self._retries[0][0] if self._retries else float("inf"),
            self._deadlines[0][0] if self._deadlines else float("inf"),
            *limited,
        )

    def committed(self, tickets: Iterable[int]) -> Effects:
        """These commits are on disk, in this order: what they said is true now."""
        for ticket in tickets:
            for apply in self._applies.pop(ticket):
                apply()
        return self._flush()

    def _wish(self, worker: WorkerEntry, n: int) -> None:
        worker.wants = min(worker.wants + max(n, 0), MAX_WANTS)

    def _worker(self, session: int) -> WorkerEntry:
        """The session's worker, whose leases every message renews. Raises `Permanent` before its Hello."""
        worker = self._sessions.get(session)
        if worker is None:
            raise Permanent("say Hello first: this session belongs to no worker", reason="NoHello")
        self._renew(worker)
        return worker

    # ------------------------------------------------------------ once it is on disk

    def _registered(self, worker: WorkerEntry) -> None:
        worker.is_registered = True


def _profile_of(hello: Hello) -> Profile:
    """What a worker may run."""
    return Profile(hello.namespace, hello.job_uid, hello.types, hello.tags, hello.pool, hello.resources)
