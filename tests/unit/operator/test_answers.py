"""Answers that run: which sandbox a benchmark gets, what stands beside its generators, and never anything weaker."""

from __future__ import annotations

from typing import Any

import pytest

from espalier_api.benchmarktasks import BenchmarkSettings
from espalier_api.names import SIMULATED
from espalier_kube.cluster import BENCHMARK_JOB, JOB, NODE, Object
from espalier_operator import reading
from espalier_operator.plan import answers
from espalier_operator.plan.workers import worker_children, workers_hash
from espalier_rpc.views import Counts, TaskOutcome
from espalier_sandbox.settings import SandboxSettings
from espalier_worker.settings import WorkerSettings, words
from tests.support.benchmark import ENDPOINT, REPORT
from tests.support.operator_world import NAMESPACE, World, benchmark_job, conditions, linux_node, operator_settings

CONTAINERS, PROCESSES = linux_node(), linux_node("linux-2", **{SIMULATED: "true"})
MAC = {**linux_node("mac"), "metadata": {"name": "mac", "labels": {"espalier.dev/node-kind": "mlx"}}}
CODE = {"packs": [{"name": "humaneval"}]}
STAMP = {"uid": "u-1", "generation": 1, "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
EVALUATION = {"name": "asks", "type": "evaluation", "payload": {"pack": "humaneval", "items": 3}}


def asking(**spec: Any) -> Object:
    """A job that only asks."""
    made = benchmark_job(targets=[ENDPOINT], accuracy=CODE)
    kept = {key: value for key, value in made["spec"].items() if key != "load"} | spec
    return {**made, "spec": {key: value for key, value in kept.items() if value is not None}}


def chosen(nodes: list[Object], status: dict[str, Any] | None = None, **spec: Any) -> str | None:
    obj = asking(**spec)
    return answers.chosen(reading.job({**obj, "metadata": {**obj["metadata"], **STAMP}, "status": status or {}}), nodes)


@pytest.mark.parametrize(
    ("nodes", "spec", "expected"),
    [
        ([CONTAINERS, MAC], {}, "container"),
        ([PROCESSES, MAC], {}, "bubblewrap"),
        ([PROCESSES, CONTAINERS], {}, "container"),
        ([MAC], {}, None),
        ([CONTAINERS], {"execution": {"sandbox": "gvisor"}}, "gvisor"),
        ([CONTAINERS], {"execution": {"sandbox": "bubblewrap"}}, "bubblewrap"),
        ([], {"execution": {"sandbox": "container"}}, "container"),
        ([CONTAINERS], {"execution": {}}, "container"),
        ([CONTAINERS], {"accuracy": {"packs": [{"name": "bfcl:simple"}]}}, None),
        ([CONTAINERS], {"accuracy": {"packs": [{"name": "reasoning-gym:ab"}]}}, "container"),
        ([CONTAINERS], {"generators": {"pool": "shared"}}, "bubblewrap"),
        ([CONTAINERS], {"generators": {"placement": "mlx"}}, None),
        ([CONTAINERS], {"accuracy": None, "tasks": [EVALUATION]}, "container"),
        ([CONTAINERS], {"accuracy": None, "tasks": [{**EVALUATION, "payload": {"pack": "bfcl:simple"}}]}, None),
        ([CONTAINERS], {"accuracy": None, "templateRef": {"name": "t"}}, None),
        ([CONTAINERS], {"accuracy": None, "templateRef": {"name": "t"}, "execution": {"sandbox": "container"}},
         "container"),
    ],
)  # fmt: skip
def test_the_spec_decides_and_the_nodes_where_it_is_silent(
    nodes: list[Object], spec: dict[str, Any], expected: str | None
) -> None:
    assert chosen(nodes, **spec) == expected


def test_what_was_chosen_stays_when_the_nodes_change() -> None:
    assert chosen([PROCESSES], status={"sandbox": "container"}) == "container"
    assert chosen([], status={"sandbox": "container"}) == "container"


def generators(sandbox: str | None, **spec: Any) -> Object:
    obj = asking(**spec)
    obj = {**obj, "metadata": {**obj["metadata"], **STAMP}}
    made = worker_children(
        obj, reading.job(obj), settings=operator_settings(), ca_pem="PEM", suspend=False, live=None, sandbox=sandbox
    )
    return next(o for o in made if o["kind"] == "Job")


def test_the_sandbox_beside_a_generator_meets_the_restricted_standard_and_has_nothing_of_its() -> None:
    spec = generators("container")["spec"]["template"]["spec"]
    (worker,), (confined,) = spec["containers"], spec["initContainers"]
    assert confined["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        "runAsUser": 65533, "runAsGroup": 65533,
    }  # fmt: skip
    assert spec["securityContext"]["runAsUser"] == 65532
    assert (confined["image"], confined["restartPolicy"]) == (worker["image"], "Always")
    assert [mount["name"] for mount in confined["volumeMounts"]] == ["scratch"]
    assert confined["resources"]["limits"]["memory"] == str((1024 + 512) * 2**20)
    given = {e["name"].removeprefix("ESPALIER_WORKER_").lower(): e.get("value", "x") for e in worker["env"]}
    assert words(WorkerSettings.model_validate(given).tags) == ("sandbox/container",)
    told = {e["name"].removeprefix("ESPALIER_SANDBOX_").lower(): e["value"] for e in confined["env"]}
    assert SandboxSettings.model_validate(told).runtime == "container"
    assert "runtimeClassName" not in spec
    assert generators("gvisor")["spec"]["template"]["spec"]["runtimeClassName"] == "gvisor"


@pytest.mark.parametrize("sandbox", [None, "bubblewrap"])
def test_without_one_a_generators_pods_are_what_they_were(sandbox: str | None) -> None:
    made = generators(sandbox)
    assert made == generators(None)
    assert "initContainers" not in made["spec"]["template"]["spec"]


def test_pods_with_a_sandbox_are_other_pods() -> None:
    workers = reading.job(asking()).spec.generators  # type: ignore[union-attr]
    assert workers_hash(workers, "container") != workers_hash(workers) == workers_hash(workers, "bubblewrap")


async def test_a_job_gets_the_sandbox_of_the_nodes_and_its_status_says_which() -> None:
    world = await World().begin()
    await world.cluster.create(linux_node())
    uid = (await world.create(asking()))["metadata"]["uid"]
    (admit,) = world.coordinator.requests[uid].tasks
    assert admit.tags == ("sandbox/container",)
    assert BenchmarkSettings.model_validate(admit.payload).sandbox == "container"
    job = await world.cluster.get(JOB, "load-1-generator", NAMESPACE)
    assert [c["name"] for c in job["spec"]["template"]["spec"]["initContainers"]] == ["sandbox"]
    world.coordinator.move(uid, tallies={"admitted": 1.0}, workers=1)
    await world.settle()
    assert (await world.job("load-1", BENCHMARK_JOB))["status"]["sandbox"] == "container"
    await world.cluster.delete(NODE, "linux-1", None)
    await world.pass_time(20)
    again = await world.cluster.get(JOB, "load-1-generator", NAMESPACE)
    assert again["metadata"]["uid"] == job["metadata"]["uid"], "a node that goes changes nobody's pods"
    accuracy = [{"target": "target-0", "name": "humaneval", "metric": "share", "items": 1, "sandbox": "container"}]
    report = TaskOutcome("report", "benchmark.report", "done", value={**REPORT, "accuracy": accuracy})
    world.coordinator.move(uid, state="complete", outcomes=(report,), counts=Counts(done=3))
    await world.settle()
    status = (await world.job("load-1", BENCHMARK_JOB))["status"]
    assert (status["sandbox"], status["accuracy"][0]["sandbox"]) == ("container", "container")


async def test_a_workflows_questions_are_told_the_sandbox_and_other_tasks_are_not() -> None:
    world = await World().begin()
    await world.cluster.create(linux_node())
    other = {"name": "other", "type": "analysis", "payload": {"field": "right"}, "requiredTags": ["gpu"]}
    uid = (await world.create(asking(accuracy=None, tasks=[EVALUATION, other])))["metadata"]["uid"]
    first, second = world.coordinator.requests[uid].tasks
    assert (first.tags, first.payload["sandbox"]) == (("sandbox/container",), "container")
    assert (second.tags, second.payload) == (("gpu",), {"field": "right"})


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, "no Linux node is there yet"),
        ({"execution": {"sandbox": "container"}}, "execution.sandbox container: no Linux node here runs containers"),
        ({"execution": {"sandbox": "gvisor"}}, "execution.sandbox gvisor: no Linux node here runs containers"),
    ],
    ids=["not said", "container", "gvisor"],
)
async def test_without_a_node_for_it_the_job_waits_and_says_so(spec: dict[str, Any], said: str) -> None:
    world = await World().begin()
    uid = (await world.create(asking(**spec)))["metadata"]["uid"]
    job = await world.job("load-1", BENCHMARK_JOB)
    assert conditions(job)["Progressing"] == ("False", "SandboxUnavailable")
    message = next(c["message"] for c in job["status"]["conditions"] if c["type"] == "Progressing")
    assert said in message
    assert uid not in world.coordinator.requests
    await world.cluster.create(linux_node())
    await world.pass_time(20)
    assert (uid in world.coordinator.requests) == ("gvisor" not in said)
