"""A BenchmarkJob's life against FakeCluster and FakeCoordinator: the real reconciler, no kopf."""

from __future__ import annotations

from typing import Any

import pytest

from espalier_api.benchmarkload import Price
from espalier_api.benchmarktasks import REJECTIONS, BenchmarkSettings
from espalier_api.reasons import REASONS
from espalier_kit.digest import sha256
from espalier_kube.cluster import BENCHMARK_JOB, JOB, MODEL_SERVER, SECRET, Object
from espalier_kube.objects import config_map, metadata, secret
from espalier_rpc.views import Counts, JobRequest, TaskOutcome
from tests.support.benchmark import ENDPOINT, INVALID, REPORT
from tests.support.operator_world import NAMESPACE, World, benchmark_job, conditions, grading_job, linux_node


async def started(world: World, **spec: Any) -> str:
    made = await world.create(benchmark_job(**spec))
    return str(made["metadata"]["uid"])


async def load(world: World, name: str = "load-1") -> Object:
    return await world.job(name, BENCHMARK_JOB)


def request(world: World, uid: str) -> JobRequest:
    return world.coordinator.requests[uid]


async def finish(world: World, uid: str, report: dict[str, Any]) -> Object:
    done = TaskOutcome("report", "benchmark.report", "done", value=report)
    world.coordinator.move(uid, state="complete", outcomes=(done,), counts=Counts(done=3), tallies={"admitted": 1.0})
    await world.settle()
    return await load(world)


async def test_a_template_is_put_on_the_macs_and_one_task_is_handed_over() -> None:
    world = await World().begin()
    uid = await started(world)
    assert await world.names(MODEL_SERVER) == ["load-1-target-0"]
    assert await world.names(JOB) == ["load-1-generator"]
    submitted = request(world, uid)
    assert [(t.key, t.type) for t in submitted.tasks] == [("admit", "benchmark.admit")]
    assert [e.role for e in submitted.endpoints] == ["target-0"]
    assert (submitted.kind, submitted.suspended) == ("BenchmarkJob", False)
    settings = BenchmarkSettings.model_validate(submitted.tasks[0].payload)
    assert (settings.targets[0].role, settings.generators, settings.dataset.synthetic is not None) == (
        "target-0", 1, True
    )
    status = (await load(world))["status"]
    assert (status["phase"], conditions(await load(world))["Accepted"]) == ("Admitting", ("Unknown", "Admitting"))


async def test_the_report_fills_the_status_and_the_servers_go() -> None:
    world = await World().begin()
    uid = await started(world)
    world.coordinator.move(uid, tallies={"admitted": 1.0, "requests": 40.0}, workers=1, fraction=0.4, message="40 sent")
    await world.settle()
    status = (await load(world))["status"]
    assert (status["phase"], status["progressPercent"]) == ("Running", 40)
    job = await finish(world, uid, REPORT)
    status = job["status"]
    assert (status["phase"], status["progressPercent"]) == ("Complete", 100)
    assert status["headline"] == {"ttftP50Ms": 50.0, "outputTokensPerSecond": 81.24, "goodputPerSecond": 1.9}
    assert (status["validity"]["verdict"], status["resultUri"]) == ("Valid", f"artifact://{'d' * 64}")
    assert status["targets"][0]["errors"] == [{"type": "timeout", "count": 1}]
    assert conditions(job)["Degraded"] == ("False", "NoDegradation")
    assert "Passed" not in conditions(job)
    assert await world.names(MODEL_SERVER) == []


@pytest.mark.parametrize(
    ("gate", "report", "expected"),
    [
        ({"metric": "ttft", "max": 60}, {}, ("True", "GatePassed")),
        ({"metric": "ttft", "max": 40}, {}, ("False", "GateFailed")),
        ({"metric": "ttft", "max": 50}, {}, ("False", "GateInconclusive")),
        ({"metric": "ttft", "statistic": "p99", "max": 900}, {}, ("False", "GateInconclusive")),
        ({"metric": "outputTokensPerSecond", "min": 80}, {}, ("True", "GatePassed")),
        ({"metric": "errorShare", "max": 0.001}, {}, ("False", "GateFailed")),
        ({"metric": "accuracy", "name": "humaneval", "min": 0.5}, {}, ("False", "GateInconclusive")),
        ({"metric": "ttft", "max": 60}, {"validity": INVALID}, ("False", "GateInconclusive")),
    ],
)
async def test_the_gate_decides_the_condition_passed(
    gate: dict[str, Any], report: dict[str, Any], expected: tuple[str, str]
) -> None:
    world = await World().begin()
    uid = await started(world, gate=[gate])
    assert conditions(await finish(world, uid, {**REPORT, **report}))["Passed"] == expected


async def test_an_invalid_run_is_complete_and_says_that_its_figures_are_not_the_servers() -> None:
    world = await World().begin()
    job = await finish(world, await started(world), {**REPORT, "validity": INVALID})
    assert job["status"]["phase"] == "Complete"
    assert conditions(job)["Degraded"] == ("True", "InvalidRun")


async def test_a_run_without_one_answer_has_failed() -> None:
    world = await World().begin()
    nothing = {**REPORT, "targets": [{"name": "target-0", "requests": 5, "succeeded": 0}]}
    job = await finish(world, await started(world), nothing)
    assert conditions(job)["Failed"] == ("True", "NothingMeasured")


@pytest.mark.parametrize("reason", REJECTIONS)
async def test_what_the_admission_refuses_is_not_accepted_and_says_why(reason: str) -> None:
    assert reason in REASONS
    world = await World().begin()
    uid = await started(world)
    refused = TaskOutcome("admit", "benchmark.admit", "failed", reason=reason, message="this and that is wrong")
    world.coordinator.move(uid, state="complete", outcomes=(refused,), counts=Counts(failed=1))
    await world.settle()
    job = await load(world)
    assert conditions(job)["Accepted"] == ("False", reason)
    assert job["status"]["phase"] == "Failed"


async def test_generators_start_together_or_not_at_all() -> None:
    world = await World().begin()
    uid = await started(world, targets=[ENDPOINT], generators={"replicas": 3})
    assert request(world, uid).suspended is True
    world.coordinator.move(uid, workers=2)
    await world.pass_time(20)
    assert world.view(uid).state == "suspended"
    progressing = next(c for c in (await load(world))["status"]["conditions"] if c["type"] == "Progressing")
    assert (progressing["reason"], progressing["message"]) == ("Starting", "2 of 3 workers are connected")
    world.coordinator.move(uid, workers=3)
    await world.settle()
    assert world.view(uid).state == "running"
    world.coordinator.move(uid, workers=2, tallies={"admitted": 1.0})
    await world.settle()
    assert world.view(uid).state == "running"


async def test_a_run_waits_for_every_replica_of_its_target() -> None:
    world = await World().begin()
    template = {"models": [{"name": "m", "source": "random://tiny"}], "replicas": 2, "placement": "mlx"}
    world.doctor.down = Half()
    uid = await started(world, targets=[{"template": template}])
    await world.pass_time(10)  # a message alone is told at most every few seconds
    assert uid not in world.coordinator.requests
    progressing = next(c for c in (await load(world))["status"]["conditions"] if c["type"] == "Progressing")
    assert (progressing["reason"], progressing["message"]) == ("Starting", "1 of 2 servers of target-0 are ready")
    world.doctor.down = {}
    await world.pass_time(20)
    assert uid in world.coordinator.requests


class Half(dict[str, str]):
    """Every second pod that is asked about is down."""

    def get(self, key: str, default: Any = None) -> Any:
        self.setdefault(key, "loading" if len(self) % 2 else "")
        return self[key] or default


async def test_generators_may_run_on_macs() -> None:
    world = await World().begin()
    await started(world, targets=[ENDPOINT], generators={"placement": "mlx"})
    job = await world.cluster.get(JOB, "load-1-generator", NAMESPACE)
    pod = job["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"espalier.dev/node-kind": "mlx"}
    assert {"key": "espalier.dev/mlx", "operator": "Exists"} in pod["tolerations"]


async def test_an_endpoints_key_and_authority_travel_with_the_job() -> None:
    world = await World().begin()
    await world.cluster.create(secret(metadata("key", NAMESPACE), {"token": b"sesame\n", "ca": b"PEM"}))
    refs = {"apiKeySecretRef": {"name": "key", "key": "token"}, "caSecretRef": {"name": "key", "key": "ca"}}
    uid = await started(world, targets=[{"endpoint": {**ENDPOINT["endpoint"], **refs}}])
    (endpoint,) = request(world, uid).endpoints
    assert (endpoint.api_key, endpoint.ca_pem, endpoint.role) == ("sesame", "PEM", "target-0")


async def test_sources_reach_the_tasks_as_digests_and_the_judge_as_an_endpoint() -> None:
    world = await World().begin()
    await world.cluster.create(config_map(metadata("texts", NAMESPACE), {"lines": "{}"}))
    await world.cluster.create(linux_node())
    artifact = {"uri": f"artifact://{'a' * 64}"}
    uid = await started(
        world, targets=[{**ENDPOINT, "price": {"outputPerMillion": 2.0}}], dataset={"file": artifact},
        load={"pattern": "trace", "trace": {"source": {"uri": f"artifact://{'b' * 64}"}, "format": "azure"}},
        accuracy={
            "packs": [{"name": "humaneval"}, {"name": "gsm8k", "file": {"uri": f"artifact://{'c' * 64}"}}],
            "evaluators": ["judge"], "texts": {"uri": "configmap://texts/lines"}, "judge": ENDPOINT,
        },
    )
    settings = BenchmarkSettings.model_validate(request(world, uid).tasks[0].payload)
    assert (settings.dataset.file, settings.dataset.synthetic, settings.trace) == ("a" * 64, None, "b" * 64)
    assert settings.targets[0].price == Price(output_per_million=2.0)
    assert settings.accuracy is not None
    assert [pack.file for pack in settings.accuracy.packs] == [None, "c" * 64]
    assert (settings.accuracy.texts, world.store.stored) == (sha256(b"{}"), [b"{}"])
    assert settings.accuracy.judge is not None
    assert [e.role for e in request(world, uid).endpoints] == ["target-0", settings.accuracy.judge.role]


async def test_a_source_that_is_missing_is_told_with_its_field() -> None:
    world = await World().begin()
    await started(world, dataset={"file": {"uri": "configmap://nothing/lines"}})
    job = await load(world)
    assert conditions(job)["Accepted"] == ("False", "SourceNotFound")
    said = next(c for c in job["status"]["conditions"] if c["type"] == "Accepted")["message"]
    assert said.startswith("spec.dataset.file: there is no ConfigMap nothing")


async def test_a_secret_that_is_missing_is_waited_for() -> None:
    world = await World().begin()
    ref = {"apiKeySecretRef": {"name": "key", "key": "token"}}
    uid = await started(world, targets=[{"endpoint": {**ENDPOINT["endpoint"], **ref}}])
    assert conditions(await load(world))["Progressing"] == ("False", "SecretNotFound")
    await world.cluster.create(secret(metadata("key", NAMESPACE), {"token": b"sesame"}))
    await world.pass_time(20)
    assert uid in world.coordinator.requests
    assert (await world.cluster.get(SECRET, "key", NAMESPACE))["data"]


async def test_names_of_targets_must_differ_and_gates_must_name_one() -> None:
    world = await World().begin()
    twins = [{**ENDPOINT, "name": "a"}, {**ENDPOINT, "name": "a"}]
    await world.create(benchmark_job(targets=twins))
    assert conditions(await load(world))["Accepted"] == ("False", "BadTargets")
    await world.create(benchmark_job("other", targets=[ENDPOINT], gate=[{"metric": "e2e", "target": "b", "max": 9}]))
    assert conditions(await load(world, "other"))["Accepted"] == ("False", "BadTargets")


async def test_a_workflow_is_submitted_as_it_is_written() -> None:
    world = await World().begin()
    tasks = [
        {"name": "make", "type": "analysis", "payload": {"n": 3}, "requiredTags": ["gpu"], "resources": {"gpu": 1.0}},
        {"name": "sum", "type": "analysis", "dependsOn": [{"task": "make", "when": "finished"}], "cache": "read-write"},
    ]
    uid = await started(world, targets=[], load=None, tasks=tasks, tags=["nightly"])
    submitted = request(world, uid)
    first, second = submitted.tasks
    assert (first.payload, first.tags, first.resources) == ({"n": 3}, ("gpu",), {"gpu": 1.0})
    assert [(d.key, d.when) for d in second.depends_on] == [("make", "finished")]
    assert (second.cache, submitted.tags) == ("read-write", ("nightly",))
    done = TaskOutcome("sum", "analysis", "done", value={"mean": 2})
    world.coordinator.move(uid, state="complete", counts=Counts(done=2), outcomes=(done,))
    await world.settle()
    status = (await load(world))["status"]
    assert (status["phase"], status["results"]) == (
        "Complete", [{"name": "sum", "state": "done", "value": '{"mean": 2}'}]
    )


async def test_a_failed_task_fails_its_workflow_and_is_named() -> None:
    world = await World().begin()
    uid = await started(world, targets=[], load=None, tasks=[{"name": "make", "type": "analysis"}])
    failed = TaskOutcome("make", "analysis", "failed", reason="UserFault", message="n is no number")
    world.coordinator.move(uid, state="complete", counts=Counts(failed=1, skipped=2), outcomes=(failed,))
    await world.settle()
    job = await load(world)
    assert conditions(job)["Failed"] == ("True", "TaskFailed")
    said = next(c for c in job["status"]["conditions"] if c["type"] == "Failed")["message"]
    assert said == "1 of 3 tasks failed: make: n is no number; 2 were skipped"


async def test_a_template_is_named_with_its_parameters() -> None:
    world = await World().begin()
    ref = {"name": "nightly", "parameters": [{"name": "model", "value": "m"}]}
    uid = await started(world, targets=[], load=None, templateRef=ref)
    submitted = request(world, uid)
    assert (submitted.template, submitted.parameters, submitted.tasks) == ("nightly", {"model": "m"}, ())


async def test_suspend_cancel_and_priority_reach_the_coordinator() -> None:
    world = await World().begin()
    uid = await started(world, targets=[ENDPOINT])
    await world.edit("load-1", kind=BENCHMARK_JOB, runPolicy={"suspend": True, "priority": 7})
    assert world.view(uid).state == "suspended"
    await world.edit("load-1", kind=BENCHMARK_JOB, runPolicy={"suspend": False})
    world.coordinator.move(uid, workers=1)
    await world.settle()
    assert (world.view(uid).state, world.view(uid).priority) == ("running", 7)
    await world.edit("load-1", kind=BENCHMARK_JOB, runPolicy={"cancel": True})
    assert world.view(uid).state == "cancelling"
    world.coordinator.move(uid, state="cancelled", counts=Counts(done=1, cancelled=2))
    await world.settle()
    assert (await load(world))["status"]["phase"] == "Cancelled"


async def test_a_job_that_is_not_done_in_time_has_failed_and_keeps_what_is_done() -> None:
    world = await World().begin()
    uid = await started(world, targets=[ENDPOINT], runPolicy={"activeDeadlineSeconds": 60})
    await world.pass_time(59)
    assert world.view(uid).state == "running"
    await world.pass_time(2)
    assert world.view(uid).state == "cancelling"
    assert (await load(world))["status"]["phase"] == "Cancelling"
    world.coordinator.move(uid, state="cancelled", counts=Counts(done=1, cancelled=2))
    await world.settle()
    assert conditions(await load(world))["Failed"] == ("True", "DeadlineExceeded")


async def test_it_goes_when_its_time_to_live_is_over() -> None:
    world = await World().begin()
    uid = await started(world, targets=[ENDPOINT], runPolicy={"ttlSecondsAfterFinished": 100})
    await finish(world, uid, REPORT)
    await world.pass_time(101)
    assert await world.names(BENCHMARK_JOB) == []


async def test_kinds_share_names_and_macs_without_touching_each_other() -> None:
    world = await World().begin()
    graded = await world.create(grading_job("same"))
    await world.clock.advance(5)
    measured = await world.create(benchmark_job("same"))
    assert conditions(await load(world, "same"))["Progressing"] == ("False", "WaitingForNodes")
    said = next(c for c in (await load(world, "same"))["status"]["conditions"] if c["type"] == "Progressing")["message"]
    assert "GradingJob course/same holds 2" in said
    assert await world.names(JOB) == ["same-generator", "same-worker"]
    assert graded["metadata"]["uid"] in world.coordinator.requests
    assert measured["metadata"]["uid"] not in world.coordinator.requests
    assert world.coordinator.deleted == []
