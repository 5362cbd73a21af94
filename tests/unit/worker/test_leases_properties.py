"""The worker's book under any order of events: each lease in one place, the window kept, nothing forgotten."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from espalier_kit.execution import Task
from espalier_rpc.views import TaskReport
from espalier_worker.leases import Grant, Lease, Leases

CAPACITY, PREFETCH = 2, 2


class Book(RuleBasedStateMachine):
    """Plays coordinator (grants what is wanted, acks what was sent) and executors (attempts end)."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases(capacity=CAPACITY, prefetch=PREFETCH)
        self.numbers = 0
        self.wanted = 0
        self.running: list[Lease] = []
        self.owed: set[Lease] = set()
        """Granted, and neither acked nor handed back."""
        self.sent: set[Lease] = set()

    @rule()
    def want(self) -> None:
        self.wanted += self.leases.take_want()

    @precondition(lambda self: self.wanted > 0)
    @rule()
    def grant(self) -> None:
        self.wanted -= 1
        self.numbers += 1
        task = Task(
            id=str(self.numbers), job_uid="j", job_name="x", namespace="n", key="k", type="t", payload={}, inputs={},
            attempt=1, deadline=None,  # type: ignore[arg-type]
        )
        self.leases.grant([Grant(Lease(task.id, 1), task, 1.0)])
        self.owed.add(Lease(task.id, 1))

    @rule()
    def start(self) -> None:
        self.running += [grant.lease for grant in self.leases.start()]

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.running))
        self.running.remove(lease)
        self.leases.finish(TaskReport(*lease, outcome="done"))

    @precondition(lambda self: self.owed)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.leases.cancel_queued(data.draw(st.sampled_from(sorted(self.owed))))

    @rule()
    def send(self) -> None:
        self.sent |= {Lease(r.task_id, r.attempt) for r in self.leases.take_results()}
        self.owed -= set(self.leases.take_hand_back())

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(sorted(self.sent)))
        self.leases.ack([lease])
        self.sent.discard(lease)
        self.owed.discard(lease)

    @rule()
    def reconnect(self) -> None:
        held = set(self.leases.held())
        self.leases.new_session()
        self.wanted = 0
        self.sent.clear()
        self.owed &= held

    @rule()
    def drain(self) -> None:
        self.leases.drain()

    @invariant()
    def every_lease_is_in_one_place(self) -> None:
        held = self.leases.held()
        assert len(held) == len(set(held))

    @invariant()
    def nothing_owed_is_forgotten(self) -> None:
        missing = self.owed - set(self.leases.held())
        assert not missing or self.leases.is_draining, "only a draining worker gives back what it has not started"

    @invariant()
    def window_is_kept(self) -> None:
        assert self.leases.running <= CAPACITY
        assert self.leases.running + self.leases.queued + self.wanted <= CAPACITY + PREFETCH or self.leases.is_draining


TestBook = Book.TestCase
TestBook.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
