"""What a person sees of a job while something is broken, look by look, and the seconds that follow from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise

from espalier_kube.client import Client
from espalier_kube.cluster import GRADING_JOB, MODEL_SERVER, NODE, Object
from espalier_kube.objects import has_condition
from tests.support.platform import Job
from tests.support.waiting import condition

_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Look:
    """The cluster at one moment, `at` in seconds of the monotonic clock."""

    at: float
    done: int
    """Tasks of the job with a result, as its status counts them."""
    ready: frozenset[str]
    """Nodes that are Ready."""
    serving: frozenset[str]
    """Nodes with a ready endpoint of a model server of the job's namespace."""
    servers: int
    """Those model servers; they go when the job ends, which withdraws endpoints for another reason."""
    degraded: str
    """Reason of the job's condition Degraded, empty while it is not."""
    phase: str


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds since the fault; None where it never came."""

    not_ready: float | None
    withdrawn: float | None
    degraded: float | None
    reason: str
    next_result: float | None
    longest_gap: float
    """The longest time without a new result, the fault's moment and the end of the job included."""
    finished: float | None
    done_before: int
    """Tasks with a result at the fault: what was left after it is the rest."""


def times(looks: Sequence[Look], fault_at: float, node: str) -> Times:
    """The seconds of each sign; signs that were there before the fault do not count."""
    before = [look for look in looks if look.at <= fault_at][-1]
    after = [look for look in looks if look.at > fault_at]

    def first(found: Sequence[Look]) -> float | None:
        return found[0].at - fault_at if found else None

    told = [look for look in after if look.degraded and look.degraded != before.degraded]
    gains = [new.at for old, new in pairwise([before, *after]) if new.done > old.done]
    ends = [look for look in after if look.phase in ("Complete", "Failed")]
    moments = [fault_at, *gains, *(look.at for look in ends[:1])]
    return Times(
        not_ready=first([look for look in after if node in before.ready - look.ready]),
        withdrawn=first([look for look in after if _is_withdrawn(before, look, node)]),
        degraded=first(told),
        reason=told[0].degraded if told else "",
        next_result=gains[0] - fault_at if gains else None,
        longest_gap=max((b - a for a, b in pairwise(moments)), default=0.0),
        finished=first(ends),
        done_before=before.done,
    )


def _is_withdrawn(before: Look, look: Look, node: str) -> bool:
    return node in before.serving - look.serving and look.servers == before.servers


@asynccontextmanager
async def recording(client: Client, job: Job) -> AsyncIterator[list[Look]]:
    """Looks of a job from now to the end of the block; at least one is there when it begins."""
    looks = [await _look(client, job)]
    task = asyncio.create_task(_watch(client, job, looks))
    try:
        yield looks
        if task.done():
            task.result()
        looks.append(await _look(client, job))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch(client: Client, job: Job, looks: list[Look]) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        looks.append(await _look(client, job))


async def _look(client: Client, job: Job) -> Look:
    found = await client.get(GRADING_JOB, job.name, job.namespace)
    nodes, servers = await client.list(NODE), await client.list(MODEL_SERVER, job.namespace)
    status = found.get("status", {})
    degraded = condition(found, "Degraded")
    staying = [server for server in servers.items if "deletionTimestamp" not in server["metadata"]]
    return Look(
        at=time.monotonic(),
        done=status.get("tasks", {}).get("done", 0),
        ready=frozenset(node["metadata"]["name"] for node in nodes.items if has_condition(node, "Ready")),
        serving=frozenset(node for server in staying for node in serving_nodes(server)),
        servers=len(staying),
        degraded=degraded.get("reason", "") if degraded.get("status") == "True" else "",
        phase=status.get("phase", ""),
    )


def serving_nodes(server: Object) -> list[str]:
    """The nodes of a model server's ready endpoints."""
    return [e["node"] for e in server.get("status", {}).get("endpoints", ()) if e["ready"]]
