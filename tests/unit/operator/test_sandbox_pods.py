"""One-shot pods for submissions' code: their shape, their Jobs' life, and never anything weaker than was asked for."""

from __future__ import annotations

from typing import Any

import pytest

from espalier_api.gradingjob import GradingJob
from espalier_api.names import NODE_KIND, SIMULATED
from espalier_api.tasks import sandbox_tags
from espalier_kube.cluster import JOB, RUNTIME_CLASS, Object
from espalier_kube.objects import metadata, typed
from espalier_operator.plan import sandbox
from espalier_operator.plan.facts import CoordinatorFacts, JobFacts, WorkerFacts
from espalier_rpc.views import JobView
from espalier_sandbox.settings import SandboxSettings
from espalier_worker import once
from espalier_worker.settings import WorkerSettings, words
from tests.support.operator_world import NAMESPACE, World, conditions, grading_job, linux_node, operator_settings

STAMP = {"uid": "u-1", "generation": 1, "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
ADMITTED = {"submissions": 3.0}


async def world_with_linux() -> World:
    world = await World().begin()
    await world.cluster.create(linux_node())
    return world


def grading(obj: Object) -> GradingJob:
    return GradingJob.model_validate({"metadata": obj["metadata"], "spec": obj["spec"]})


def made(kind: str = "container", *, tallies: dict[str, float] | None = None, **spec: Any) -> Object:
    """The Job as it is made."""
    obj = grading_job(execution={"sandbox": kind}, **spec)
    obj = {**obj, "metadata": {**obj["metadata"], **STAMP}}
    view = JobView("u-1", NAMESPACE, "week-1", "GradingJob", "running", tallies=tallies or {})
    facts = JobFacts(obj, grading(obj), "PEM", coordinator=CoordinatorFacts(True, view=view))
    children = sandbox.follow(facts, operator_settings(), False).children
    return next(child for child in children if child["kind"] == "Job")


def containers(job: Object) -> tuple[Object, Object]:
    spec = job["spec"]["template"]["spec"]
    return spec["containers"][0], spec["initContainers"][0]


def environment(container: Object) -> dict[str, str]:
    return {e["name"]: e.get("value", "from the pod") for e in container["env"]}


def test_the_pod_meets_the_restricted_standard_and_the_sandbox_has_nothing_of_the_workers() -> None:
    job = made()
    spec, (worker, confined) = job["spec"]["template"]["spec"], containers(job)
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    for container in (worker, confined):
        security = container["securityContext"]
        assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
        assert security["capabilities"] == {"drop": ["ALL"]}
    assert confined["securityContext"]["runAsUser"] != spec["securityContext"]["runAsUser"]
    assert [mount["name"] for mount in confined["volumeMounts"]] == ["scratch"]
    scratch = next(volume for volume in spec["volumes"] if volume["name"] == "scratch")
    assert scratch["emptyDir"] == {"medium": "Memory", "sizeLimit": str(256 * 2**20)}
    assert confined["resources"]["limits"] == {"cpu": "1", "memory": str((1024 + 512) * 2**20)}
    assert confined["restartPolicy"] == "Always", "it must not keep a finished pod from ending"


def test_both_programs_can_read_their_settings() -> None:
    worker, confined = containers(made())
    given = {name.removeprefix("ESPALIER_WORKER_").lower(): value for name, value in environment(worker).items()}
    settings = WorkerSettings.model_validate(given)
    assert words(settings.types) == ("grading.admit",)
    assert words(settings.tags) == ("sandbox/container",)
    assert worker["args"] == ["--once"]
    given = {name.removeprefix("ESPALIER_SANDBOX_").lower(): value for name, value in environment(confined).items()}
    assert SandboxSettings.model_validate(given).runtime == "container"


def test_gvisor_pods_name_the_runtime_class_and_tell_the_sandbox() -> None:
    job = made("gvisor", tallies=ADMITTED)
    assert job["spec"]["template"]["spec"]["runtimeClassName"] == "gvisor"
    assert environment(containers(job)[1])["ESPALIER_SANDBOX_RUNTIME"] == "gvisor"
    assert "runtimeClassName" not in made()["spec"]["template"]["spec"]


def test_agents_nodes_are_avoided_and_a_users_own_fields_reach_the_pod() -> None:
    toleration = {"key": "course", "operator": "Exists"}
    overrides = {"nodeSelector": {"zone": "a"}, "tolerations": [toleration], "resources": {"memory": "9Gi"}}
    spec = made(workers={"pod": overrides})["spec"]["template"]["spec"]
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": SIMULATED, "operator": "DoesNotExist"}]
    assert spec["nodeSelector"] == {"zone": "a", NODE_KIND: "linux"}
    assert spec["tolerations"] == [toleration]
    assert spec["containers"][0]["resources"]["limits"] == {"memory": "1Gi"}


def test_a_lost_node_does_not_take_the_whole_pool_with_it() -> None:
    template = made(tallies=ADMITTED)["spec"]["template"]
    (spread,) = template["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert spread["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("tallies", "name", "completions", "parallelism"),
    [
        ({}, "week-1-admission", 1, 1),
        ({"submissions": 3.0}, "week-1-sandbox", 3, 2),
        ({"submissions": 3.0, "executed": 2.0}, "week-1-sandbox", 1, 1),
    ],
)
def test_one_pod_for_the_admission_then_one_for_each_submission_whose_code_has_not_run(
    tallies: dict[str, float], name: str, completions: int, parallelism: int
) -> None:
    job = made(tallies=tallies)
    assert job["metadata"]["name"] == name
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (completions, parallelism)
    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert rules[1] == {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [once.EXIT_AGAIN, 143]}}


async def test_the_pool_follows_the_job_from_its_admission_to_its_end() -> None:
    world = await world_with_linux()
    obj = await world.create(grading_job(execution={"sandbox": "container"}))
    uid = obj["metadata"]["uid"]
    assert world.coordinator.requests[uid].tasks[0].tags == ("sandbox/container",)
    assert await world.names(JOB) == ["week-1-admission", "week-1-worker"]
    world.coordinator.move(uid, tallies=ADMITTED)
    await world.settle()
    assert await world.names(JOB) == ["week-1-admission", "week-1-sandbox", "week-1-worker"]
    await world.edit("week-1", runPolicy={"suspend": True})
    paused = await world.cluster.get(JOB, "week-1-sandbox", NAMESPACE)
    assert paused["spec"]["suspend"] is True
    await world.edit("week-1", runPolicy={"suspend": False})
    assert (await world.cluster.get(JOB, "week-1-sandbox", NAMESPACE))["spec"]["suspend"] is False
    world.coordinator.move(uid, state="complete")
    await world.settle()
    assert await world.names(JOB) == ["week-1-worker"]


async def test_a_pool_that_is_used_up_while_code_is_left_is_made_again() -> None:
    world = await world_with_linux()
    uid = (await world.create(grading_job(execution={"sandbox": "container"})))["metadata"]["uid"]
    world.coordinator.move(uid, tallies={"submissions": 3.0})
    await world.settle()
    first = await world.cluster.get(JOB, "week-1-sandbox", NAMESPACE)
    world.coordinator.move(uid, tallies={"submissions": 3.0, "executed": 2.0})
    await end(world, "Complete")
    again = await world.cluster.get(JOB, "week-1-sandbox", NAMESPACE)
    assert again["metadata"]["uid"] != first["metadata"]["uid"]
    assert again["spec"]["completions"] == 1
    world.coordinator.move(uid, tallies={"submissions": 3.0, "executed": 3.0})
    await end(world, "Complete")
    last = await world.cluster.get(JOB, "week-1-sandbox", NAMESPACE)
    assert last["metadata"]["uid"] == again["metadata"]["uid"], "all code has run: nothing more is made"


def test_pods_stay_as_they_are_while_nobody_knows_how_far_the_job_is() -> None:
    """The operator is new and the coordinator away: an admission that has ended is not run once more."""
    obj = grading_job(execution={"sandbox": "container"})
    obj = {**obj, "metadata": {**obj["metadata"], **STAMP}}
    job = grading(obj)
    ended = WorkerFacts("week-1-admission", "a-1", made()["metadata"]["annotations"][sandbox.WORKERS_HASH], False, 1,
                        is_finished=True)
    away, back = (
        sandbox.follow(JobFacts(obj, job, "PEM", coordinator=known, sandboxes=(ended,)), operator_settings(), False)
        for known in (CoordinatorFacts(), CoordinatorFacts(is_synced=True))
    )
    assert away == type(away)()
    assert [deletion.name for deletion in back.deletions] == ["week-1-admission"], "it is a new job there"


async def end(world: World, type_: str, message: str = "") -> None:
    condition = {"type": type_, "status": "True", "message": message}
    status = {"status": {"conditions": [condition]}}
    await world.cluster.patch(JOB, "week-1-sandbox", NAMESPACE, status, subresource="status")
    await world.settle()


async def test_a_pool_that_fails_for_good_ends_the_job_as_the_platforms_fault() -> None:
    world = await world_with_linux()
    uid = (await world.create(grading_job(execution={"sandbox": "container"})))["metadata"]["uid"]
    world.coordinator.move(uid, tallies=ADMITTED)
    await world.settle()
    await end(world, "Failed", "exit code 78")
    world.coordinator.move(uid, state="cancelled")
    await world.settle()
    job = await world.job()
    assert conditions(job)["Failed"] == ("True", "PlatformFault")


async def test_without_a_node_that_runs_containers_the_job_waits_and_says_so() -> None:
    world = await World().begin()
    await world.cluster.create(linux_node("agents-own", **{SIMULATED: "false"}))
    obj = await world.create(grading_job(execution={"sandbox": "container"}))
    assert obj["metadata"]["uid"] not in world.coordinator.requests
    assert conditions(await world.job())["Progressing"] == ("False", "SandboxUnavailable")
    await world.cluster.create(linux_node())
    await world.pass_time(20)
    assert obj["metadata"]["uid"] in world.coordinator.requests


async def test_gvisor_needs_its_runtime_class_and_a_node_that_fits_it() -> None:
    world = await world_with_linux()
    obj = await world.create(grading_job(execution={"sandbox": "gvisor"}))
    assert "no RuntimeClass gvisor" in await said(world)
    selector = {"nodeSelector": {"runtime": "gvisor"}}
    await world.cluster.create(typed(RUNTIME_CLASS, metadata("gvisor", None), handler="runsc", scheduling=selector))
    await world.pass_time(20)
    assert "labels of RuntimeClass gvisor (runtime=gvisor)" in await said(world)
    assert obj["metadata"]["uid"] not in world.coordinator.requests
    await world.cluster.create(linux_node("linux-2", runtime="gvisor"))
    await world.pass_time(20)
    assert obj["metadata"]["uid"] in world.coordinator.requests


async def said(world: World) -> str:
    status = (await world.job())["status"]
    return next(str(c["message"]) for c in status["conditions"] if c["type"] == "Progressing")


def test_bubblewrap_asks_for_no_pods() -> None:
    obj = grading_job()
    job = grading({**obj, "metadata": {**obj["metadata"], **STAMP}})
    assert sandbox_tags(job.spec.execution.sandbox) == ()
    assert sandbox.wanted(job, None) is None
