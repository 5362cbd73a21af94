"""From a submitted job to results that count once."""

from __future__ import annotations

import pytest

from espalier_coordinator.messages import Ack, Report, Verdict
from espalier_coordinator.model import JobState
from espalier_kit.errors import Forbidden, NotFound, Permanent
from espalier_kit.execution import MAX_INLINE_BYTES, TaskState
from tests.support.coordination import UID, World, lease_of, task


def test_a_job_completes_when_its_last_task_is_done() -> None:
    world = World()
    world.submit(task("a"), task("b", "a"))
    worker = world.worker(job_uid=UID)
    (a,) = worker.want(2)
    assert (a.record.key, a.attempt, a.namespace, a.job_name) == ("a", 1, "ns", UID)
    worker.report(a, value=b'{"n":1}', tallies={"points": 2.5})
    b = worker.assignments()[-1]
    assert [(i.key, i.state, i.value) for i in b.inputs] == [("a", TaskState.DONE, b'{"n":1}')]
    assert not worker.is_drained
    worker.report(b, value=b"{}", tallies={"points": 1.0})
    view = world.view()
    assert (view.state, view.counts["done"], view.tallies) == (JobState.COMPLETE, 2, {"points": 3.5})
    assert [o.key for o in view.outcomes] == ["b"]
    assert view.job.finished_at > 0
    assert worker.is_drained


def test_nothing_is_acked_or_unblocked_before_it_is_on_disk() -> None:
    world = World()
    world.submit(task("a"), task("b", "a"))
    worker = world.worker()
    (a,) = worker.want(2)
    world.is_disk_stuck = True
    worker.report(a)
    worker.report(a)
    assert worker.acked() == []
    assert world.states()["a"] is TaskState.RUNNING
    world.write()
    assert worker.acked() == [lease_of(a), lease_of(a)]
    assert worker.keys() == ["a", "b"]
    assert world.engine.statistics.accepted == 1


def test_results_that_come_together_are_written_and_acked_together() -> None:
    world = World()
    world.submit(task("a"), task("b"), task("c"))
    worker = world.worker()
    granted = worker.want(2)
    effects = world.engine.results(worker.number, [Report(lease_of(a), Verdict.DONE) for a in granted], want=1)
    assert effects.commit is not None
    assert len(effects.commit.writes) == 2
    world.do(effects)
    assert [len(ack.leases) for ack in worker.all(Ack)] == [2]
    assert worker.keys() == ["a", "b", "c"], "room that was told with the results is filled"


def test_a_result_that_comes_again_is_acked_and_counts_once() -> None:
    world = World()
    world.submit(task("a"))
    worker = world.worker()
    (a,) = worker.want()
    worker.report(a, tallies={"n": 1})
    worker.report(a, tallies={"n": 1})
    assert worker.acked() == [lease_of(a), lease_of(a)]
    assert world.view().tallies == {"n": 1}


def test_a_worker_may_only_report_what_is_leased_to_it() -> None:
    world = World()
    world.submit(task("a"))
    (a,) = world.worker("honest").want()
    thief = world.worker("thief")
    thief.report(a, value=b'{"stolen":true}')
    assert world.states() == {"a": TaskState.RUNNING}
    assert world.engine.statistics.fenced == 1


def test_submitting_again_leaves_what_is_there() -> None:
    world = World()
    world.submit(task("a", payload=b"1"))
    (a,) = world.worker().want()
    world.submit(task("a", payload=b"2"), task("b"), priority=9)
    assert a.record.payload == b"1"
    assert world.entry("a").record.payload == b"1"
    assert world.view().job.priority == 0
    assert world.states() == {"a": TaskState.RUNNING, "b": TaskState.READY}


def test_a_finished_job_that_gets_tasks_runs_again() -> None:
    world = World()
    world.submit(task("a"))
    worker = world.worker()
    worker.report(worker.want()[0])
    world.submit(task("b", "a"))
    assert (world.view().state, world.view().job.finished_at) == (JobState.RUNNING, 0)
    worker.want()
    assert worker.keys() == ["a", "b"]


def test_a_job_without_tasks_is_complete() -> None:
    world = World()
    world.submit()
    assert world.view().state is JobState.COMPLETE


def test_children_come_with_their_parents_result_and_keys_count_once() -> None:
    world = World()
    world.submit(task("admit"))
    worker = world.worker(job_uid=UID)
    (admit,) = worker.want(9)
    worker.report(admit, children=(task("x"), task("y", "x", "admit"), task("admit", payload=b"other")))
    assert not worker.is_drained
    assert world.states() == {"admit": TaskState.DONE, "x": TaskState.RUNNING, "y": TaskState.BLOCKED}
    worker.report(worker.assignments()[-1], children=(task("y"), task("z")))
    assert worker.keys() == ["admit", "x", "y", "z"]


def test_children_are_not_there_when_the_crash_came_before_the_commit() -> None:
    world = World()
    world.submit(task("admit"))
    worker = world.worker()
    (admit,) = worker.want()
    world.is_disk_stuck = True
    worker.report(admit, children=(task("x"),))
    world.crash()
    assert world.states() == {"admit": TaskState.READY}
    worker = world.worker(holds=[admit])
    worker.report(admit, children=(task("x"),))
    assert world.states() == {"admit": TaskState.DONE, "x": TaskState.READY}


@pytest.mark.parametrize(("verdict", "reason"), [
    (Verdict.USER_FAULT, "NotANotebook"), (Verdict.EVALUATOR_FAULT, "BundleRejected"),
])
def test_faults_of_people_are_final_and_keep_their_reason(verdict: Verdict, reason: str) -> None:
    world = World()
    world.submit(task("a"), task("b", "a"), task("c", finished=["a"]), task("d", "b"))
    worker = world.worker()
    (a,) = worker.want(2)
    worker.report(a, verdict, reason=reason, message="say why")
    assert world.states() == {
        "a": TaskState.FAILED, "b": TaskState.SKIPPED, "c": TaskState.RUNNING, "d": TaskState.SKIPPED,
    }
    c = worker.assignments()[-1]
    assert [(i.state, i.reason, i.message) for i in c.inputs] == [(TaskState.FAILED, reason, "say why")]
    assert [(o.key, o.reason, o.attempts) for o in world.view().outcomes] == [
        ("a", reason, 1), ("d", "DependencyFailed", 0),
    ]


def test_a_value_over_the_limit_is_a_fault_of_the_platform_with_a_sentence() -> None:
    world = World()
    world.submit(task("a", retries=0))
    worker = world.worker()
    worker.report(worker.want()[0], value=b"x" * (MAX_INLINE_BYTES + 1))
    (outcome,) = world.view().outcomes
    assert outcome.reason == "PlatformFault"
    assert "ValueTooLarge" in outcome.message
    assert "artifact" in outcome.message


def test_children_that_make_no_sense_are_a_fault_of_the_platform() -> None:
    world = World()
    world.submit(task("a", retries=0))
    worker = world.worker()
    worker.report(worker.want()[0], children=(task("x", "nobody"),))
    (outcome,) = world.view().outcomes
    assert "'x' depends on 'nobody'" in outcome.message
    assert world.states() == {"a": TaskState.FAILED}


@pytest.mark.parametrize(("tasks", "sentence"), [
    ([task("a", "b"), task("b", "a")], "circle: "),
    ([task("a", "a")], "circle: a -> a"),
    ([task("a", "ghost")], "'a' depends on 'ghost'"),
    ([task("")], "needs a key"),
    ([task("a", payload=b"x" * 300_000)], "payload of 300000 bytes"),
    ([task("a", retries=-1)], "negative"),
])
def test_a_bad_job_is_refused_with_a_sentence_and_leaves_nothing(tasks: list[object], sentence: str) -> None:
    world = World()
    with pytest.raises(Permanent, match=sentence):
        world.submit(*tasks)  # type: ignore[arg-type]
    assert world.store.load().jobs == ()
    with pytest.raises(NotFound):
        world.view()


def test_a_job_of_another_namespace_cannot_be_added_to() -> None:
    world = World()
    world.submit(task("a"))
    with pytest.raises(Forbidden):
        world.submit(task("b"), namespace="other")


def test_a_worker_that_says_nothing_of_itself_is_refused() -> None:
    world = World()
    with pytest.raises(Permanent, match="Hello first"):
        world.engine.want(77, 1)


def test_results_of_tasks_that_nobody_knows_are_acked_so_that_they_are_forgotten() -> None:
    world = World()
    world.submit(task("a"))
    worker = world.worker()
    (a,) = worker.want()
    world.delete()
    worker.reports(Report(lease_of(a), Verdict.DONE))
    assert worker.cancelled() == [lease_of(a)]
    assert worker.acked() == [lease_of(a)]
