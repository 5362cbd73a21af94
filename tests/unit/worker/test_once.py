"""`espalier-worker --once`: one task, and an exit code that a Job can count on."""

from __future__ import annotations

import pytest

from espalier_kit.clock import SystemClock
from espalier_kit.errors import EXIT_STOPPED, Misconfigured
from espalier_kit.execution import Task
from espalier_rpc.views import ResultOutcome, TaskReport
from espalier_worker import once
from espalier_worker.executors import InstalledExecutors
from espalier_worker.leases import Grant, Lease, Leases


def grant(attempt: int = 1) -> Grant:
    made = Task(
        id="a", job_uid="j", job_name="class", namespace="course", key="a", type="t", payload={}, inputs={},
        attempt=attempt, deadline=SystemClock().now(),
    )  # fmt: skip
    return Grant(Lease("a", attempt), made, timeout_s=60.0)


DONE = TaskReport("a", 1, "done")


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("done", 0), ("userFault", 0), ("evaluatorFault", 0), ("platformFault", once.EXIT_AGAIN), ("cancelled", 75)],
)
def test_only_a_task_that_does_not_come_again_counts(outcome: ResultOutcome, code: int) -> None:
    assert once.exit_code(TaskReport("a", 1, outcome), is_dismissed=False) == code


def test_without_a_task_it_counts_if_there_is_none_left() -> None:
    assert once.exit_code(None, is_dismissed=True) == 0
    assert once.exit_code(None, is_dismissed=False) == EXIT_STOPPED


def test_the_book_takes_one_task_and_is_done_when_its_result_is_acked() -> None:
    book = Leases(capacity=1, prefetch=0, at_most=1)
    assert book.take_want() == 1
    book.grant([grant()])
    assert [g.task.id for g in book.start()] == ["a"]
    assert (book.take_want(), book.is_draining) == (0, False)
    book.finish(DONE)
    assert (book.take_want(), book.is_draining, book.is_empty) == (0, True, False)
    book.ack([Lease("a", 1)])
    assert book.is_empty
    assert book.settled == DONE


def test_a_task_that_it_gives_back_is_not_the_one() -> None:
    book = Leases(capacity=1, prefetch=0, at_most=1)
    book.take_want()
    book.grant([grant()])
    book.start()
    book.grant([grant(2)])
    book.finish(DONE)
    assert not book.is_draining, "a newer attempt replaced it: that one is to be run"


def test_types_are_chosen_from_what_is_installed() -> None:
    installed = InstalledExecutors()
    assert installed.only(()).types == installed.types
    assert installed.only(("grading.execute",)).types == ("grading.execute",)
    with pytest.raises(Misconfigured, match=r"no executor for grading\.exekute is installed"):
        installed.only(("grading.exekute",))
