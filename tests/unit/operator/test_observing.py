"""Cache, intake, routing, readers, doctor, health: how the operator sees."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from espalier_kit.clock import ManualClock
from espalier_kube.cluster import CONFIG_MAP, GRADING_JOB, MODEL_SERVER, NODE, POD, Listing, Object
from espalier_kube.fake import FakeCluster
from espalier_kube.objects import config_map, metadata, typed
from espalier_operator import reading
from espalier_operator.cache import Cache
from espalier_operator.doctor import Doctor, Target, Verdict, judged
from espalier_operator.health import Vitals, problems
from espalier_operator.queue import Key
from espalier_operator.routing import affected
from espalier_operator.watching import Intake
from tests.support.operator_world import NAMESPACE, World, conditions, grading_job


def stored(obj: Object, version: int, uid: str = "u-1") -> Object:
    meta = {**obj["metadata"], "uid": uid, "resourceVersion": str(version)}
    return {**obj, "metadata": meta}


def setting(version: int, uid: str = "u-1") -> Object:
    return stored(config_map(metadata("s", NAMESPACE), {"v": str(version)}), version, uid)


def test_the_cache_keeps_the_newest() -> None:
    cache = Cache()
    assert cache.put(setting(2))
    assert not cache.put(setting(1))
    assert not cache.put(setting(2))
    known = cache.get(CONFIG_MAP, "s", NAMESPACE)
    assert known is not None
    assert known["data"] == {"v": "2"}


def test_what_was_deleted_does_not_come_back_by_a_late_answer() -> None:
    cache = Cache()
    cache.put(setting(1))
    cache.remove(setting(3))
    assert not cache.put(setting(2))
    assert cache.put(setting(4, uid="u-2")), "a new object of that name is another one"


def test_a_list_removes_ghosts_but_not_what_is_newer_than_it() -> None:
    cache = Cache()
    cache.put(setting(5))
    assert cache.replace(CONFIG_MAP, Listing((), "4")) == ([], [])
    _, ghosts = cache.replace(CONFIG_MAP, Listing((), "9"))
    assert [g["metadata"]["uid"] for g in ghosts] == ["u-1"]


def test_the_cache_drops_what_nobody_reads() -> None:
    cache = Cache()
    noisy = setting(1)
    last = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 1000, "mine": "1"}
    noisy["metadata"] |= {"managedFields": [{}], "annotations": last}
    cache.put(noisy)
    known = cache.get(CONFIG_MAP, "s", NAMESPACE)
    assert known is not None
    assert known["metadata"]["annotations"] == {"mine": "1"}
    assert "managedFields" not in known["metadata"]


async def test_a_change_that_only_a_list_shows_means_a_dead_watch() -> None:
    cluster, clock, keys = FakeCluster(), ManualClock(), list[Key]()
    intake = Intake(Cache(), keys.append, clock)
    await intake.resync(cluster)
    assert intake.blind_s == 0
    made = await cluster.create(grading_job())
    await intake.resync(cluster)
    assert keys[0] == Key("GradingJob", NAMESPACE, "week-1"), "the list mends what the watch missed"
    await clock.advance(50)
    assert intake.blind_s == 50
    intake.event("ADDED", made)
    assert intake.blind_s == 0, "it was only late"


async def test_the_first_list_is_no_proof_against_the_watch() -> None:
    cluster, clock = FakeCluster(), ManualClock()
    await cluster.create(grading_job())
    intake = Intake(Cache(), lambda _key: None, clock)
    await intake.resync(cluster)
    await clock.advance(500)
    assert (intake.blind_s, intake.listed_s) == (0, 500)


def node(ready: str, version: int, **labels: str) -> Object:
    made = typed(NODE, metadata("mac-1", None, labels={"espalier.dev/node-kind": "mlx", **labels}), spec={})
    status = {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": str(version)}]}
    return stored({**made, "status": status}, version)


def test_a_heartbeat_concerns_nobody_a_lost_node_concerns_all_that_need_macs() -> None:
    cache = Cache()
    cache.put(stored(grading_job(), 1))
    assert list(affected(node("True", 3), node("True", 2), cache)) == []
    assert list(affected(node("Unknown", 4), node("True", 3), cache)) == [Key("GradingJob", NAMESPACE, "week-1")]


def test_a_model_server_concerns_its_owner_and_those_that_name_it() -> None:
    cache = Cache()
    named = grading_job("by-name", models={"code": {"modelServer": "qwen"}, "feedback": {"modelServer": "other"}})
    cache.put(stored(named, 1))
    server = stored(typed(MODEL_SERVER, metadata("qwen", NAMESPACE), spec={}), 2, "u-2")
    assert set(affected(server, None, cache)) == {
        Key("ModelServer", NAMESPACE, "qwen"), Key("GradingJob", NAMESPACE, "by-name")
    }


def test_a_pod_concerns_whom_its_labels_name() -> None:
    cache = Cache()
    cache.put(stored(grading_job(), 1))
    labels = {"espalier.dev/owner-kind": "GradingJob", "espalier.dev/owner-name": "week-1"}
    pod = stored(typed(POD, metadata("w-0", NAMESPACE, labels=labels), spec={}), 2, "u-2")
    assert list(affected(pod, None, cache)) == [Key("GradingJob", NAMESPACE, "week-1")]


ENDED: dict[str, tuple[dict[str, Any], str | None]] = {
    "killed": ({"containerStatuses": [{"state": {"terminated": {"exitCode": 137, "reason": "Error"}}}]}, "Error 137"),
    "evicted": ({"reason": "NodeLost"}, "NodeLost"),
    "well": ({"phase": "Succeeded"}, None),
    "running": ({"phase": "Running"}, None),
}


@pytest.mark.parametrize("case", ENDED)
def test_which_worker_pods_count_as_lost(case: str) -> None:
    status, why = ENDED[case]
    pod = stored({**typed(POD, metadata("w-0", NAMESPACE), spec={}), "status": {"phase": "Failed", **status}}, 1)
    lost = reading.lost_pod(pod)
    assert (lost.why if lost else None) == why


def test_capacity_counts_ready_macs_that_take_pods() -> None:
    able = node("True", 1)
    able["status"]["allocatable"] = {"espalier.dev/metal": "2"}
    away = {**node("Unknown", 1), "metadata": {**node("Unknown", 1)["metadata"], "name": "mac-2"}}
    cordoned = {**able, "metadata": {**able["metadata"], "name": "mac-3"}, "spec": {"unschedulable": True}}
    facts = reading.macs((able, away, cordoned))
    assert (facts.capacity, facts.away) == (2, ("mac-2", "mac-3"))


def test_verdicts_two_failures_withdraw_one_success_restores() -> None:
    first = judged(None, 30.0, "")
    assert first == Verdict(answers=True, tokens_per_second=30.0)
    second = judged(first, None, "refused")
    assert (second.answers, second.failures) == (True, 1)
    third = judged(second, None, "refused")
    assert (third.answers, third.why) == (False, "refused")
    assert judged(third, 28.0, "") == Verdict(answers=True, tokens_per_second=28.0)
    assert not judged(None, None, "loading").answers


async def test_the_doctor_asks_again_at_once_before_it_withdraws() -> None:
    clock, changes, answers = ManualClock(), list[tuple[str, str]](), list[float | None]([30.0, None, None])
    target = Target("p-1", ("course", "qwen"), "127.9.2.1", "qwen.course.svc")

    async def probe(_target: Target) -> float | None:
        answer = answers.pop(0)
        if answer is None:
            raise OSError("connection refused")
        return answer

    doctor = Doctor(probe, lambda: [target], changes.append, clock)
    await doctor.visit()
    assert doctor.verdict("p-1") == (True, 30.0, "")
    await doctor.visit()
    assert len(answers) == 2, "who serves is asked every three seconds only"
    await clock.advance(3)
    visiting = asyncio.create_task(doctor.visit())
    await clock.advance(0.5)
    await visiting
    assert doctor.verdict("p-1") == (False, None, "connection refused")
    assert changes == [("course", "qwen")] * 2


async def test_a_node_that_goes_away_withdraws_its_endpoint_at_once_and_its_pods_after_a_while() -> None:
    world = await World().begin()
    await world.create(grading_job())
    (pod,) = await world.server_pods("week-1-code")
    await world.set_node(pod["spec"]["nodeName"], "Unknown")
    await world.settle()
    server = await world.cluster.get(MODEL_SERVER, "week-1-code", NAMESPACE)
    assert conditions(server)["Ready"] == ("False", "EndpointNotReady")
    assert server["status"]["endpoints"][0]["ready"] is False
    await world.pass_time(46)
    after = await world.server_pods("week-1-code")
    assert pod["metadata"]["uid"] not in [p["metadata"]["uid"] for p in after]


async def test_workers_of_a_lost_node_are_marked_as_disrupted_and_replaced() -> None:
    world = await World().begin()
    await world.create(grading_job())
    await world.cluster.create(typed(NODE, metadata("linux-1", None), spec={}))
    await world.set_node("linux-1", "Unknown")
    watched = (await world.cluster.list(POD, NAMESPACE)).resource_version
    await world.pass_time(30)
    (before,) = await world.server_pods("week-1")
    await world.pass_time(16)
    (after,) = await world.server_pods("week-1")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    seen = [e async for e in world.cluster.watch(POD, NAMESPACE, resource_version=watched, timeout_s=0)]
    (failed,) = [e for e in seen if e.type == "MODIFIED" and e.object["metadata"]["uid"] == before["metadata"]["uid"]]
    assert failed.object["status"]["phase"] == "Failed"
    assert failed.object["status"]["conditions"][0]["type"] == "DisruptionTarget"


async def test_a_process_that_came_back_between_two_probes_is_told() -> None:
    world = await World().begin()
    await world.create(grading_job())
    (pod,) = await world.server_pods("week-1-code")
    status = {"containerStatuses": [{"name": "mlx", "restartCount": 1, "state": {"running": {}}}]}
    await world.cluster.patch(POD, pod["metadata"]["name"], NAMESPACE, {"status": status}, subresource="status")
    await world.pass_time(1)
    await world.pass_time(1)
    assert [e["count"] for e in await world.events("EndpointNotReady")] == [1]


async def test_a_new_operator_does_not_withdraw_endpoints_it_has_not_probed_yet() -> None:
    world = await World().begin()
    await world.create(grading_job())
    world.doctor.verdict = lambda _uid: None  # type: ignore[method-assign] # a doctor that has just started
    world.start_operator()
    await world.authority.load()
    await world.settle()
    server = await world.cluster.get(MODEL_SERVER, "week-1-code", NAMESPACE)
    assert conditions(server)["Ready"] == ("True", "Serving")


HEALTH = {
    "well": (Vitals(is_leader=True, listed_s=10), ""),
    "a standby without lists": (Vitals(listed_s=None), ""),
    "no list": (Vitals(is_leader=True, listed_s=300), "no list"),
    "a dead watch": (Vitals(is_leader=True, listed_s=10, blind_s=100), "missed a change"),
    "a stuck queue": (Vitals(is_leader=True, listed_s=10, queue_oldest_s=200), "oldest key"),
    "a blocked loop": (Vitals(loop_lag_s=9), "event loop"),
}


@pytest.mark.parametrize("case", HEALTH)
def test_health(case: str) -> None:
    vitals, said = HEALTH[case]
    found = problems(vitals)
    assert bool(found) is bool(said)
    assert said in " ".join(found)


async def test_jobs_are_read_from_the_cache_not_from_the_api_server() -> None:
    world = await World().begin()
    await world.create(grading_job("quiet", runPolicy={"suspend": True}))
    world.cluster.calls.clear()
    world.queue.add(Key(GRADING_JOB.kind, NAMESPACE, "quiet"))
    await world._work_off()
    assert world.cluster.calls == []
