"""The table of kills: kill -9 of any one process is told within 30 s, the job completes, nothing counts twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from espalier_kube.cluster import NODE, POD
from tests.support import classroom
from tests.support.waiting import has, seen_events, until, until_event

pytestmark = pytest.mark.timeout(900)

STUDENTS = 5
TOLD_WITHIN_S = 30


@dataclass(frozen=True)
class Kill:
    """`word` is the program, `where` stands in its environment; the Event `reason` on a `kind` tells it."""

    word: str
    kind: str
    reason: str
    where: str = ""
    everywhere: bool = False
    """The telling object lives in another namespace than the job, or in none."""


KILLS = {
    "operator": Kill("operator", "GradingJob", "OperatorRestarted"),
    "coordinator": Kill("coordinator", "GradingJob", "CoordinatorRestarted"),
    "worker": Kill("worker", "GradingJob", "WorkerLost", where="worker-worker-"),
    "agent-of-a-mac": Kill("node", "Node", "AgentRestarted", where="/nodes/mac-studio-1/", everywhere=True),
    "agent-of-linux": Kill("node", "Node", "AgentRestarted", where="/nodes/linux-1/", everywhere=True),
    "code-model": Kill("mlx", "ModelServer", "EndpointNotReady", where="code-model-code-"),
    "feedback-model": Kill("mlx", "ModelServer", "EndpointNotReady", where="feedback-model-feedback-"),
}


def _slow_class() -> dict[str, bytes]:
    return classroom.submissions(
        {f"s{n}": classroom.notebook(classroom.SLOW_CODE.format(seconds=3), f"because of {n}") for n in range(STUDENTS)}
    )


async def _is_graded_once(platform, job) -> None:
    done = await platform.until(job, has("Complete"), timeout_s=240, what="Complete")
    assert done["status"]["submissions"]["graded"] == STUDENTS
    rows = Counter(row["name"] for row in await platform.report_rows(job))
    assert rows == {f"s{n}": 1 for n in range(STUDENTS)}
    results = Counter(task["key"] for task in await platform.tasks(job) if task["state"] == "done")
    assert results
    assert set(results.values()) == {1}


@pytest.mark.parametrize("victim", KILLS)
async def test_a_killed_process_is_told_and_nothing_is_lost(platform, namespace, victim, record_property) -> None:
    kill = KILLS[victim]
    job = await platform.submit(namespace, victim, students=_slow_class())
    await platform.until(
        job, lambda o: o.get("status", {}).get("tasks", {}).get("done", 0) >= 2, timeout_s=240, what="start"
    )
    before = await seen_events(platform.cluster)
    pids = platform.kill(kill.word, kill.where)
    event, seconds = await until_event(
        platform.cluster,
        None if kill.everywhere else namespace,
        lambda e: e["reason"] == kill.reason and e["involvedObject"]["kind"] == kill.kind,
        timeout_s=TOLD_WITHIN_S,
        what=f"{kill.reason} on a {kill.kind}",
        seen=before,
    )
    print(
        f"\nkilled {victim} {pids}: {kill.kind}/{event['involvedObject']['name']} {kill.reason} after {seconds:.1f} s"
    )
    record_property("told_after_s", round(seconds, 1))
    await _is_graded_once(platform, job)


async def test_deleting_the_coordinators_pod_is_told_and_nothing_is_lost(platform, namespace) -> None:
    job = await platform.submit(namespace, "evicted", students=_slow_class())
    await platform.until(
        job, lambda o: o.get("status", {}).get("tasks", {}).get("done", 0) >= 2, timeout_s=240, what="start"
    )
    before = await seen_events(platform.cluster, namespace)
    await platform.cluster.delete(POD, "espalier-coordinator-0", "espalier-system")
    await until_event(
        platform.cluster,
        namespace,
        lambda e: e["reason"] == "CoordinatorRestarted",
        timeout_s=60,
        what="CoordinatorRestarted",
        seen=before,
    )
    await _is_graded_once(platform, job)


async def test_a_worker_that_is_told_to_stop_is_replaced(platform, namespace) -> None:
    job = await platform.submit(namespace, "moved", students=_slow_class(), workers={"replicas": 2, "capacity": 1})
    await platform.until(
        job, lambda o: o.get("status", {}).get("tasks", {}).get("done", 0) >= 2, timeout_s=240, what="start"
    )
    workers = {"labels": "app.kubernetes.io/component=worker"}
    before = {pod["metadata"]["name"] for pod in (await platform.cluster.list(POD, namespace, **workers)).items}
    assert len(before) == 2
    await platform.cluster.delete(POD, min(before), namespace)
    await _is_graded_once(platform, job)
    after = {pod["metadata"]["name"] for pod in (await platform.cluster.list(POD, namespace, **workers)).items}
    assert len(after) == 2
    assert min(before) not in after


async def test_a_job_outlives_one_of_its_two_macs_and_says_so_for_ever(platform, namespace) -> None:
    job = await platform.submit(namespace, "lone", students=_slow_class())
    await platform.until(
        job, lambda o: o.get("status", {}).get("tasks", {}).get("done", 0) >= 2, timeout_s=240, what="start"
    )
    (pod,) = (await platform.cluster.list(POD, namespace, labels="espalier.dev/owner-name=lone-code")).items
    (mac,) = [host for host in platform.local.hosts if host.name == pod["spec"]["nodeName"]]
    mac.cut()
    try:
        platform.kill("mlx", "lone-code-")
        await platform.until(job, has("Degraded"), timeout_s=TOLD_WITHIN_S, what="Degraded")
        await _is_graded_once(platform, job)
        done = await platform.until(job, has("Degraded", "True", "ModelServerFailover"), timeout_s=10, what="Degraded")
        assert done["status"]["submissions"]["needsReview"] >= 1
    finally:
        mac.mend()
    await until(platform.cluster, NODE, None, mac.name, has("Ready"), timeout_s=60, what="Ready")
