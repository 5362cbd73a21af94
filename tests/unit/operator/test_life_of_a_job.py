"""A GradingJob's life against FakeCluster and FakeCoordinator: the real reconciler, no kopf."""

from __future__ import annotations

from espalier_kube.cluster import DEPLOYMENT, GRADING_JOB, JOB, MODEL_SERVER, POD
from espalier_rpc.views import Counts, JobView, TaskOutcome
from tests.support.operator_world import NAMESPACE, World, conditions, grading_job

REPORT = {
    "index": "c" * 64,
    "submissions": {"total": 3, "graded": 2, "needsReview": 1, "notGradable": 1, "failed": 0},
    "scores": {"mean": 20.0, "median": 20.0, "min": 10.0, "max": 30.0, "histogram": [1] * 10},
    "code": {"tokensPerSecond": 31, "promptTokens": 9, "outputTokens": 9, "p50Seconds": 1, "p95Seconds": 2},
    "feedback": {"tokensPerSecond": 36, "promptTokens": 9, "outputTokens": 9, "p50Seconds": 1, "p95Seconds": 2},
    "combinedTokensPerSecond": 67.0, "parallelSpeedup": 1.8, "parallelEfficiency": 0.9, "submissionsPerHour": 200.0,
}
DONE = TaskOutcome("report", "grading.report", "done", value=REPORT)


async def running(world: World) -> tuple[JobView, str]:
    made = await world.create(grading_job())
    uid = made["metadata"]["uid"]
    return world.coordinator.move(uid, tallies={"submissions": 3.0}, counts=Counts(pending=5, done=1), workers=1), uid


async def test_a_job_puts_its_models_on_the_macs_and_hands_its_work_over() -> None:
    world = await World().begin()
    made = await world.create(grading_job())
    assert await world.names(MODEL_SERVER) == ["week-1-code", "week-1-feedback"]
    request = world.coordinator.requests[made["metadata"]["uid"]]
    assert [e.role for e in request.endpoints] == ["code", "feedback"]
    assert all(e.ready and e.api_key and e.ca_pem for e in request.endpoints)
    assert request.tasks[0].type == "grading.admit"
    assert request.tasks[0].payload["sharedHardware"] is True
    job = await world.job()
    assert job["status"]["phase"] == "Admitting"
    assert conditions(job)["Accepted"] == ("Unknown", "Admitting")


async def test_the_report_ends_the_job_and_the_models_go() -> None:
    world = await World().begin()
    _, uid = await running(world)
    await world.settle()
    assert (await world.job())["status"]["phase"] == "Running"
    world.coordinator.move(uid, state="complete", outcomes=(DONE,), counts=Counts(done=9))
    await world.settle()
    status = (await world.job())["status"]
    assert (status["phase"], status["resultUri"]) == ("Complete", f"artifact://{'c' * 64}")
    assert status["performance"]["band"] == "Excellent"
    assert status["performance"]["sharedHardware"] is True
    assert (status["scores"]["mean"], status["progressPercent"]) == (20, 100)
    assert await world.names(MODEL_SERVER) == []
    assert await world.names(DEPLOYMENT) == []
    assert len(await world.events("ChildDeleted")) == 2
    assert await world.names(JOB) == ["week-1-worker"]


async def test_a_rejected_bundle_ends_the_job_with_every_finding() -> None:
    world = await World().begin()
    made = await world.create(grading_job())
    said = "criteria add up to 90, not 100; data.csv is missing"
    world.coordinator.move(
        made["metadata"]["uid"], state="complete", counts=Counts(failed=1),
        outcomes=(TaskOutcome("admit", "grading.admit", "failed", reason="BundleRejected", message=said),),
    )
    await world.settle()
    job = await world.job()
    assert conditions(job)["Accepted"] == ("False", "BundleRejected")
    assert job["status"]["phase"] == "Failed"
    assert next(c for c in job["status"]["conditions"] if c["type"] == "Accepted")["message"] == said
    assert await world.names(MODEL_SERVER) == []


async def test_two_jobs_that_want_both_macs_run_one_after_the_other() -> None:
    world = await World().begin()
    first = await world.create(grading_job("first"))
    await world.clock.advance(5)
    await world.create(grading_job("second"))
    waiting = await world.job("second")
    assert conditions(waiting)["Progressing"] == ("False", "WaitingForNodes")
    message = next(c for c in waiting["status"]["conditions"] if c["type"] == "Progressing")["message"]
    assert message == "needs 2 Macs, 0 free; GradingJob course/first holds 2"
    assert await world.names(MODEL_SERVER) == ["first-code", "first-feedback"]
    world.coordinator.move(first["metadata"]["uid"], state="complete", outcomes=(DONE,))
    await world.settle()
    assert await world.names(MODEL_SERVER) == ["second-code", "second-feedback"]
    assert (await world.job("second"))["status"]["phase"] == "Admitting"


async def test_a_job_that_needs_more_macs_than_there_are_says_so() -> None:
    world = await World(macs=1).begin()
    await world.create(grading_job())
    message = next(c for c in (await world.job())["status"]["conditions"] if c["type"] == "Progressing")["message"]
    assert "even idle that is too few" in message
    assert await world.names(MODEL_SERVER) == []


async def test_suspended_jobs_cost_one_status_write_and_no_model_server() -> None:
    world = await World().begin()
    for number in range(5):
        await world.create(grading_job(f"j{number}", runPolicy={"suspend": True}))
    await world.pass_time(120)
    assert await world.names(MODEL_SERVER) == []
    jobs = (await world.cluster.list(JOB, NAMESPACE)).items
    assert [j["spec"]["suspend"] for j in jobs] == [True] * 5
    assert world.reporter.most_writes == 1
    assert (await world.job("j0"))["status"]["phase"] == "Suspended"


async def test_suspend_lets_running_tasks_finish_then_takes_workers_and_models_away_and_back() -> None:
    world = await World().begin()
    _, uid = await running(world)
    world.coordinator.move(uid, counts=Counts(pending=4, running=1, done=1))
    await world.settle()
    await world.edit("week-1", runPolicy={"suspend": True})
    assert world.view(uid).state == "suspended"
    assert len(await world.names(MODEL_SERVER)) == 2
    world.coordinator.move(uid, counts=Counts(pending=4, done=2))
    await world.settle()
    assert await world.names(MODEL_SERVER) == []
    assert (await world.cluster.get(JOB, "week-1-worker", NAMESPACE))["spec"]["suspend"] is True
    await world.edit("week-1", runPolicy={"suspend": False})
    assert world.view(uid).state == "running"
    assert len(await world.names(MODEL_SERVER)) == 2
    assert (await world.job())["status"]["phase"] == "Running"


async def test_cancel_waits_for_the_coordinator_and_keeps_what_is_done() -> None:
    world = await World().begin()
    _, uid = await running(world)
    await world.edit("week-1", runPolicy={"cancel": True})
    assert world.view(uid).state == "cancelling"
    assert (await world.job())["status"]["phase"] == "Cancelling"
    world.coordinator.move(uid, state="cancelled", counts=Counts(done=2, cancelled=4))
    await world.settle()
    job = await world.job()
    assert job["status"]["phase"] == "Cancelled"
    assert job["status"]["tasks"]["done"] == 2
    assert await world.names(MODEL_SERVER) == []


async def test_a_dead_model_server_degrades_the_job_which_goes_on_and_stays_degraded() -> None:
    world = await World().begin()
    _, uid = await running(world)
    await world.settle()
    pod = (await world.server_pods("week-1-code"))[0]
    world.doctor.down[pod["metadata"]["uid"]] = "/ready: ConnectError"
    await world.pass_time(6)
    assert conditions(await world.job())["Degraded"] == ("True", "ModelServerDown")
    assert world.view(uid).state == "running"
    pushed = world.coordinator.updates[-1].endpoints
    assert pushed is not None
    assert [(e.role, e.ready) for e in pushed] == [("code", False), ("feedback", True)]
    assert len(await world.events("EndpointNotReady")) == 1
    world.coordinator.move(uid, tallies={"submissions": 3.0, "failover": 2.0, "graded": 2.0, "points": 40.0})
    world.doctor.down.clear()
    await world.pass_time(6)
    assert conditions(await world.job())["Degraded"] == ("True", "ModelServerFailover")
    world.coordinator.move(uid, state="complete", outcomes=(DONE,))
    await world.settle()
    job = await world.job()
    assert conditions(job)["Degraded"] == ("True", "ModelServerFailover")
    assert conditions(job)["Complete"] == ("True", "Finished")


async def test_a_job_pauses_while_no_model_server_answers_and_goes_on_when_both_do() -> None:
    world = await World().begin()
    _, uid = await running(world)
    pods = [p["metadata"]["uid"] for s in ("code", "feedback") for p in await world.server_pods(f"week-1-{s}")]
    world.doctor.down = dict.fromkeys(pods, "away")
    await world.pass_time(6)
    assert world.view(uid).state == "suspended"
    del world.doctor.down[pods[0]]
    await world.pass_time(6)
    assert world.view(uid).state == "suspended"
    world.doctor.down.clear()
    await world.pass_time(6)
    assert world.view(uid).state == "running"


async def test_a_lost_worker_is_told_once() -> None:
    world = await World().begin()
    await running(world)
    pod = next(p for p in (await world.cluster.list(POD, NAMESPACE)).items if p["spec"].get("nodeName") == "linux-1")
    ended = {"name": "worker", "state": {"terminated": {"exitCode": 137, "reason": "Error"}}}
    status = {"phase": "Failed", "containerStatuses": [ended]}
    await world.cluster.patch(POD, pod["metadata"]["name"], NAMESPACE, {"status": status}, subresource="status")
    await world.pass_time(6)
    await world.pass_time(6)
    events = await world.events("WorkerLost")
    assert [(e["count"], "Error 137" in e["message"]) for e in events] == [(1, True)]


async def test_a_restarted_coordinator_is_told_and_gets_the_endpoints_again() -> None:
    world = await World().begin()
    _, uid = await running(world)
    await world.settle()
    world.coordinator.updates.clear()
    world.coordinator.restart()
    await world.settle()
    assert len(await world.events("CoordinatorRestarted")) == 1
    assert [u.endpoints is not None for u in world.coordinator.updates] == [True]
    assert world.view(uid).epoch == "2"


async def test_a_coordinator_that_stays_away_is_told_and_forgotten_when_it_is_back() -> None:
    world = await World().begin()
    await running(world)
    await world.settle()
    world.coordinator.leave()
    await world.settle()
    assert conditions(await world.job())["Degraded"][0] == "False"
    await world.pass_time(7)
    found = conditions(await world.job())
    assert found["Progressing"] == ("Unknown", "CoordinatorUnavailable")
    assert found["Degraded"] == ("True", "CoordinatorUnavailable")
    world.coordinator.restart()
    await world.settle()
    assert conditions(await world.job())["Progressing"] == ("True", "Running")
    assert conditions(await world.job())["Degraded"] == ("False", "NoDegradation")


async def test_a_new_operator_process_tells_running_jobs_and_repeats_nothing() -> None:
    world = await World().begin()
    _, uid = await running(world)
    await world.settle()
    updates = len(world.coordinator.updates)
    await world.clock.advance(10)
    world.start_operator()
    await world.authority.load()
    world.observer.took_over("operator-b after operator-a")
    await world.settle()
    assert [e["count"] for e in await world.events("OperatorRestarted")] == [1]
    assert len(world.coordinator.updates) == updates + 1, "only the endpoints, which the coordinator may have lost"
    assert [e["count"] for e in await world.events("ChildCreated")] == [1] * 5, "told by the first process only"
    assert world.view(uid).state == "running"


async def test_deleting_a_job_takes_its_children_and_its_work() -> None:
    world = await World().begin()
    _, uid = await running(world)
    await world.cluster.delete(GRADING_JOB, "week-1", NAMESPACE)
    await world.settle()
    assert world.coordinator.deleted == [uid]
    assert await world.names(MODEL_SERVER) == await world.names(JOB) == []


async def test_without_the_lease_nothing_is_written() -> None:
    world = await World().begin()
    world.holds_lease = False
    before = len(world.cluster.calls)
    await world.create(grading_job())
    verbs = {verb for verb, _ in world.cluster.calls[before:]}
    assert verbs <= {"get", "list", "create"}
    assert await world.names(MODEL_SERVER) == await world.names(JOB) == []
