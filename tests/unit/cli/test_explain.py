"""Explanations: the most specific thing first, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from espalier_api.names import OWNER_KIND, OWNER_NAME
from espalier_api.reasons import REASONS
from espalier_cli.explain import Facts, explanation, gather
from espalier_cli.options import job_reference
from espalier_kit.errors import Permanent
from espalier_kube.cluster import BENCHMARK_COMPARISON, BENCHMARK_JOB, EVENT, GRADING_JOB, JOB, MODEL_SERVER, POD, Kind
from espalier_kube.fake import FakeCluster
from espalier_kube.objects import metadata, typed


def job(*conditions: tuple[str, str, str, str]) -> dict[str, Any]:
    keys = ("type", "status", "reason", "message")
    found = [dict(zip(keys, values, strict=True)) for values in conditions]
    return {"metadata": {"name": "class", "namespace": "course"}, "status": {"phase": "X", "conditions": found}}


def pod(**status: Any) -> dict[str, Any]:
    meta = {"name": "class-worker-0", "namespace": "course"}
    return {"metadata": meta, "spec": {"nodeName": "linux-1"}, "status": status}


@pytest.mark.parametrize("field", ["workers", "generators"])
def test_a_job_of_a_shared_pool_has_no_worker_job_to_look_for(field: str) -> None:
    pooled = {**job(("Progressing", "True", "Running", "")), "spec": {field: {"pool": "gpu"}}}
    (evidence,) = explanation(facts(pooled)).evidence
    assert evidence.startswith("workers of the shared pool gpu: ")
    assert explanation(facts(job(("Progressing", "True", "Running", "")))).evidence == ("no worker Job",)


def facts(found: dict[str, Any], *pods: dict[str, Any]) -> Facts:
    return Facts(found, None, pods, ())


WAITING = {"waiting": {"reason": "ErrImagePull", "message": "no"}}
PULLING = {"phase": "Pending", "containerStatuses": [{"state": WAITING}]}
UNSCHEDULED = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}],
}


@pytest.mark.parametrize(
    ("given", "said", "step"),
    [
        (facts(job()), "operator has not looked", "operator runs"),
        (
            facts(job(("Accepted", "False", "BundleRejected", "sums differ: 9 and 10"))),
            "BundleRejected: sums differ: 9 and 10", REASONS["BundleRejected"].remedy,
        ),
        (
            facts(job(("Progressing", "False", "WaitingForRuns", "BenchmarkJob after is Running")), pod(**PULLING)),
            "BenchmarkJob after is Running", REASONS["WaitingForRuns"].remedy,
        ),
        (
            facts(job(("Progressing", "True", "WaitingForNodes", "held by other"))),
            "held by other", REASONS["WaitingForNodes"].remedy,
        ),
        (facts(job(("Progressing", "True", "Starting", "")), pod(**PULLING)), "ErrImagePull no", "describe pod"),
        (facts(job(("Progressing", "True", "Starting", "")), pod(**UNSCHEDULED)), "Unschedulable 0/3", "describe pod"),
        (
            facts(job(("Complete", "True", "Finished", "")), pod(**PULLING)), REASONS["Finished"].sentence,
            "espalier report",
        ),
        (
            facts(job(("Progressing", "True", "Running", "")), pod(phase="Running")), REASONS["Running"].sentence,
            "Nothing to do",
        ),
        (
            facts(job(("Progressing", "True", "Running", ""), ("Degraded", "True", "ModelServerDown", "mac-1"))),
            "ModelServerDown: mac-1", REASONS["ModelServerDown"].remedy,
        ),
    ],
    ids=[
        "unseen", "refused", "waits for runs", "waits for Macs", "image", "unscheduled", "complete", "running",
        "degraded",
    ],
)
def test_sentence_and_next_step(given: Facts, said: str, step: str) -> None:
    found = explanation(given)
    assert said in found.sentence
    assert step in found.next_step


def test_evidence_lists_the_job_pods_and_events() -> None:
    running = pod(phase="Running", containerStatuses=[{"restartCount": 2, "state": {}}])
    failed = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "exit code 78"}
    worker_job = {"metadata": {"name": "class-worker"}, "status": {"failed": 1, "conditions": [failed]}}
    events = ({"reason": "Unhealthy", "message": "probe"}, {"reason": "BackOff", "message": "restarting"})
    assert explanation(Facts(job(), worker_job, (running,), events)).evidence == (
        "job class-worker: 0 active, 0 succeeded, 1 failed; PodFailurePolicy exit code 78",
        "pod class-worker-0 on linux-1: Running, 2 restarts",
        "event BackOff: restarting",
    )


@pytest.mark.parametrize(
    ("kind", "worker", "server"),
    [
        (GRADING_JOB, "class-worker", "class-code"),
        (BENCHMARK_JOB, "class-generator", "class-target-0"),
        (BENCHMARK_COMPARISON, "class-comparison", ""),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
async def test_gathers_what_belongs_to_the_job(kind: Kind, worker: str, server: str) -> None:
    cluster = FakeCluster()
    made = await cluster.create(typed(kind, metadata("class", "course"), spec={}))
    await cluster.create(typed(JOB, metadata(worker, "course"), spec={}))
    pods = [(f"{worker}-0", kind.kind, "class"), ("other-0", kind.kind, "other"), ("same-name-0", "Other", "class")]
    if server:
        await cluster.create(typed(MODEL_SERVER, metadata(server, "course", owner=made), spec={}))
        pods.append((f"{server}-0", "ModelServer", server))
    for name, owner_kind, owner in pods:
        labels = {OWNER_KIND: owner_kind, OWNER_NAME: owner}
        await cluster.create(typed(POD, metadata(name, "course", labels=labels), spec={}))
    for name, uid in (("e1", made["metadata"]["uid"]), ("e2", "somebody-else")):
        fields = {"involvedObject": {"uid": uid}, "type": "Warning", "reason": "R", "message": "m"}
        await cluster.create(typed(EVENT, metadata(name, "course"), **fields))
    found = await gather(cluster, "class", "course", kind)
    assert {p["metadata"]["name"] for p in found.pods} == {f"{worker}-0", *([f"{server}-0"] if server else [])}
    assert [e["metadata"]["name"] for e in found.warnings] == ["e1"]
    assert found.worker_job is not None


@pytest.mark.parametrize(
    ("reference", "kind", "name"),
    [
        ("class", GRADING_JOB, "class"), ("gj/class", GRADING_JOB, "class"), ("bj/load", BENCHMARK_JOB, "load"),
        ("benchmarkjobs.espalier.dev/load", BENCHMARK_JOB, "load"), ("BMC/gate", BENCHMARK_COMPARISON, "gate"),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_a_job_is_named_as_kubectl_names_it(reference: str, kind: Kind, name: str) -> None:
    assert job_reference(reference) == (kind, name)


def test_another_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(Permanent, match=r"bmc .BenchmarkComparison., not 'pod'"):
        job_reference("pod/x")
