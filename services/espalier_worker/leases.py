"""What a worker holds of each task: queued, running, or a result not yet acked. No I/O, no clock.

A lease is (task, attempt). Each lives in exactly one place; a result is kept, and sent again in each new session,
until the coordinator acks it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

from espalier_kit.execution import Task
from espalier_rpc.views import TaskReport


class Lease(NamedTuple):
    """The right to run one attempt."""

    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Grant:
    """One attempt as granted; its deadline starts when it starts, `timeout_s` seconds."""

    lease: Lease
    task: Task
    timeout_s: float

    def at(self, now: datetime) -> Task:
        """The task, started now."""
        return replace(self.task, deadline=now + timedelta(seconds=self.timeout_s))


class Leases:
    """The worker's book. The window is `capacity + prefetch` tasks that are queued, running or on their way.

    After `at_most` attempts have ended (None: never) it drains by itself.
    """

    def __init__(self, *, capacity: int, prefetch: int, at_most: int | None = None) -> None:
        self._capacity = capacity
        self._left = at_most
        self._window = capacity + prefetch
        self._queued: dict[Lease, Grant] = {}
        self._running: dict[Lease, Grant] = {}
        self._open: dict[str, Lease] = {}
        """The lease of each task that is queued or running."""
        self._results: dict[Lease, TaskReport] = {}
        self._unsent: dict[Lease, TaskReport] = {}
        self._hand_back: set[Lease] = set()
        self._wanted = 0
        self._draining = False
        self._settled: TaskReport | None = None

    @property
    def settled(self) -> TaskReport | None:
        """The last result that is on the coordinator's disk."""
        return self._settled

    @property
    def queued(self) -> int:
        return len(self._queued)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def unacked(self) -> int:
        return len(self._results)

    @property
    def is_draining(self) -> bool:
        return self._draining

    @property
    def is_empty(self) -> bool:
        """Whether leaving now would lose nothing."""
        return not (self._queued or self._running or self._results or self._hand_back)

    def held(self) -> tuple[Lease, ...]:
        """Every lease that a Hello must list."""
        return (*self._queued, *self._running, *self._results)

    # ------------------------------------------------------------ in
    def new_session(self) -> None:
        """Wishes of the last session are void; every result goes out again. Call before Hello is made."""
        self._wanted = 0
        self._unsent = dict(self._results)
        self._hand_back.clear()  # leases that Hello does not list go back by themselves

    def grant(self, grants: Iterable[Grant]) -> tuple[Lease, ...]:
        """Take tasks. Returns running leases that a newer attempt of the same task replaces: abort them."""
        replaced: list[Lease] = []
        for grant in grants:
            self._wanted = max(0, self._wanted - 1)
            lease = grant.lease
            known = self._open.get(lease.task_id)
            if known == lease or lease in self._results:
                continue
            if known is not None and self._forget(known):
                replaced.append(known)
            if self._draining:
                self._hand_back.add(lease)
            else:
                self._queued[lease] = grant
                self._open[lease.task_id] = lease
        return tuple(replaced)

    def start(self) -> tuple[Grant, ...]:
        """Move what capacity allows from queued to running, oldest first."""
        if self._draining or not self._queued:
            return ()
        started = tuple(islice(self._queued.values(), max(0, self._capacity - len(self._running))))
        for grant in started:
            self._running[grant.lease] = self._queued.pop(grant.lease)
        return started

    def finish(self, report: TaskReport) -> None:
        """An attempt ended; a replaced one leaves nothing behind."""
        lease = Lease(report.task_id, report.attempt)
        if self._open.get(lease.task_id) == lease:
            self._forget(lease)
            self._keep(lease, report)

    def reject(self, report: TaskReport) -> None:
        """A granted task that could not even be read."""
        self._wanted = max(0, self._wanted - 1)
        self._keep(Lease(report.task_id, report.attempt), report)

    def ack(self, leases: Iterable[Lease]) -> None:
        """These results are on disk."""
        for lease in leases:
            self._settled = self._results.pop(lease, None) or self._settled
            self._unsent.pop(lease, None)

    def cancel_queued(self, lease: Lease) -> None:
        """A task that has not started ends as cancelled; anything else is not the book's to stop."""
        if lease in self._queued:
            said = "cancelled before it started"
            self.finish(TaskReport(*lease, outcome="cancelled", reason="Cancelled", message=said))

    def give_back(self, leases: Iterable[Lease]) -> None:
        """Another worker is idle: what of these has not started goes back; the rest stays."""
        for lease in leases:
            if lease in self._queued:
                self._forget(lease)
                self._hand_back.add(lease)

    def drain(self) -> None:
        """Want no more, give back what has not started."""
        self._draining = True
        self.give_back(tuple(self._queued))

    # ------------------------------------------------------------ out
    def take_results(self) -> tuple[TaskReport, ...]:
        """The results that this session has not sent; they stay until acked."""
        unsent, self._unsent = self._unsent, {}
        return tuple(unsent.values())

    def take_hand_back(self) -> tuple[Lease, ...]:
        """Leases to give back, once."""
        taken = tuple(self._hand_back)
        self._hand_back.clear()
        return taken

    def take_want(self) -> int:
        """How many more tasks to ask for; counts them as on their way."""
        if self._draining:
            return 0
        more = max(0, self._window - len(self._queued) - len(self._running) - self._wanted)
        self._wanted += more
        return more

    def _keep(self, lease: Lease, report: TaskReport) -> None:
        """Until it is acked; the last that this book may take ends its work."""
        self._results[lease] = self._unsent[lease] = report
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self.drain()

    def _forget(self, lease: Lease) -> bool:
        """Neither queued nor running any more; whether it was running."""
        del self._open[lease.task_id]
        self._queued.pop(lease, None)
        return self._running.pop(lease, None) is not None
