"""What kubectl does to a shared pool: the same story on process nodes and on container nodes."""

from __future__ import annotations

from collections.abc import Callable

from espalier_kube.client import Client
from espalier_local.cluster import Cluster
from tests.support.pools import SYSTEM, Diary, coordinator_of, request, until_ended, until_replicas

POOL, DEPLOYMENT = "fixed", "espalier-pool-fixed"
FIXED = {"replicas": 2, "drainSeconds": 3, "autoscaling": {"mode": "off"}}
"""The pool that the stories are about: two workers, and nobody but us scales it."""
ELASTIC = {
    "autoscaling": {"mode": "external-metrics", "min": 1, "max": 4, "targetPerWorker": 4, "scaleDownSeconds": 3}
}
"""One that follows the work that waits."""
Kubectl = Callable[..., str]


async def a_worker_goes(pooled: Cluster, client: Client, diary: Diary, kubectl: Kubectl) -> None:
    """Two workers run a long and a short task each, two more wait in each; then one worker has to go.

    It finishes the short one, hands back what waits, and gives up the long one when its three seconds are over: that
    alone begins again, and costs a job that allows no retries nothing.
    """
    await until_replicas(client, POOL, 2, timeout_s=30, is_ready=True)
    async with coordinator_of(client, pooled) as coordinator:
        tasks = [diary.task(f"long-{n}", 6.0) for n in range(2)] + [diary.task(f"short-{n}", 1.5) for n in range(6)]
        await coordinator.submit(request("scaled", tasks, pool=POOL))
        await diary.until(lambda: len(diary.keys("begin")) == 4, "four tasks run")
        kubectl("-n", SYSTEM, "scale", "deployment", DEPLOYMENT, "--replicas=1")
        view = await until_ended(coordinator, "scaled", timeout_s=40)
        results = await coordinator.tasks("scaled")
        await coordinator.delete("scaled")
    assert (view.counts.done, view.lost_leases) == (8, 0)
    assert {task.attempts for task in results} == {1}
    assert sorted(diary.keys("end")) == sorted(task.key for task in tasks), "each ended once"
    assert list(diary.more_than_once().values()) == [2]
    assert next(iter(diary.more_than_once())).startswith("long-")
    await until_replicas(client, POOL, 1, timeout_s=30, is_ready=True)


async def an_autoscaler_keeps_the_bounds(client: Client, kubectl: Kubectl) -> None:
    """`kubectl autoscale`: fewer and more workers than its bounds are put right; afterwards there are two again."""
    kubectl("-n", SYSTEM, "scale", "deployment", DEPLOYMENT, "--replicas=1")
    kubectl("-n", SYSTEM, "autoscale", "deployment", DEPLOYMENT, "--min=2", "--max=3", "--cpu=80%")
    try:
        await until_replicas(client, POOL, 2, timeout_s=20)
        kubectl("-n", SYSTEM, "scale", "deployment", DEPLOYMENT, "--replicas=5")
        await until_replicas(client, POOL, 3, timeout_s=20)
    finally:
        kubectl("-n", SYSTEM, "delete", "hpa", DEPLOYMENT)
        kubectl("-n", SYSTEM, "scale", "deployment", DEPLOYMENT, "--replicas=2")
