"""The worker's book: each lease in one place, results kept until acked."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from espalier_kit.execution import Task
from espalier_rpc.views import TaskReport
from espalier_worker.leases import Grant, Lease, Leases

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def grant(task: str, attempt: int = 1) -> Grant:
    made = Task(
        id=task, job_uid="j", job_name="class", namespace="course", key=task, type="t", payload={}, inputs={},
        attempt=attempt, deadline=NOW,
    )
    return Grant(Lease(task, attempt), made, timeout_s=60.0)


def done(task: str, attempt: int = 1) -> TaskReport:
    return TaskReport(task_id=task, attempt=attempt, outcome="done")


def book(*tasks: str, capacity: int = 2, prefetch: int = 1) -> Leases:
    leases = Leases(capacity=capacity, prefetch=prefetch)
    leases.take_want()
    leases.grant(grant(task) for task in tasks)
    return leases


def test_wants_capacity_and_prefetch_once() -> None:
    leases = Leases(capacity=2, prefetch=1)
    assert (leases.take_want(), leases.take_want()) == (3, 0)


@pytest.mark.parametrize(
    ("granted", "finished", "wanted"),
    [((), (), 0), (("a",), (), 0), (("a",), ("a",), 1), (("a", "b", "c"), ("a", "b"), 2)],
    ids=["all on their way", "one came, two on their way", "one ended", "two ended, one waits"],
)
def test_asks_for_what_ended(granted: tuple[str, ...], finished: tuple[str, ...], wanted: int) -> None:
    leases = book(*granted)
    leases.start()
    for task in finished:
        leases.finish(done(task))
    assert leases.take_want() == wanted


def test_new_session_asks_for_the_whole_window_again() -> None:
    leases = book("a")
    leases.start()
    leases.new_session()
    assert leases.take_want() == 2


def test_starts_up_to_capacity_in_order() -> None:
    leases = book("a", "b", "c")
    assert [g.task.id for g in leases.start()] == ["a", "b"]
    assert leases.start() == ()
    leases.finish(done("a"))
    assert [g.task.id for g in leases.start()] == ["c"]


def test_same_lease_twice_is_taken_once() -> None:
    leases = book("a")
    leases.start()
    leases.grant([grant("a")])
    assert (leases.queued, leases.running) == (0, 1)


def test_newer_attempt_replaces_the_older_running_one() -> None:
    leases = book("a")
    leases.start()
    assert leases.grant([grant("a", 2)]) == (Lease("a", 1),)
    leases.finish(done("a", 1))
    assert leases.unacked == 0, "the replaced attempt leaves nothing behind"
    assert leases.held() == (Lease("a", 2),)


def test_results_are_sent_once_a_session_and_kept_until_acked() -> None:
    leases = book("a", "b")
    leases.start()
    leases.finish(done("a"))
    assert [r.task_id for r in leases.take_results()] == ["a"]
    assert leases.take_results() == ()
    leases.new_session()
    assert [r.task_id for r in leases.take_results()] == ["a"]
    leases.ack([Lease("a", 1)])
    leases.new_session()
    assert (leases.take_results(), leases.unacked) == ((), 0)


def test_hello_lists_queued_running_and_unacked() -> None:
    leases = book("a", "b", "c")
    leases.start()
    leases.finish(done("a"))
    assert set(leases.held()) == {Lease("a", 1), Lease("b", 1), Lease("c", 1)}


def test_drain_hands_back_what_has_not_started_and_wants_nothing() -> None:
    leases = book("a", "b", "c")
    leases.start()
    leases.drain()
    leases.finish(done("a"))
    assert leases.take_hand_back() == (Lease("c", 1),)
    assert (leases.take_want(), leases.start()) == (0, ())
    assert not leases.is_empty
    leases.finish(done("b"))
    leases.ack([Lease("a", 1), Lease("b", 1)])
    assert leases.is_empty


def test_what_arrives_while_draining_goes_back_at_once() -> None:
    leases = book()
    leases.drain()
    leases.grant([grant("late")])
    assert leases.take_hand_back() == (Lease("late", 1),)


def test_cancelled_before_it_started() -> None:
    leases = book("a", "b", "c")
    leases.start()
    leases.cancel_queued(Lease("c", 1))
    leases.cancel_queued(Lease("a", 1))
    assert [(r.task_id, r.outcome) for r in leases.take_results()] == [("c", "cancelled")]
    assert leases.running == 2
