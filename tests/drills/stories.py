"""Drills: one thing breaks in the middle of a class on container nodes; every submission is graded, exactly once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from espalier_kube.client import Client
from espalier_kube.cluster import MODEL_SERVER, NODE, POD, Object
from espalier_local import cluster as local
from espalier_local.bootstrap import NAMESPACE as SYSTEM
from espalier_local.cluster import Cluster
from espalier_local.dns import DNS
from espalier_local.places import Places
from espalier_local.release import COORDINATOR_NODE
from espalier_local.supervised import Wish
from tests.drills.timeline import Times, recording, serving_nodes, times
from tests.support import classroom
from tests.support.machines import tried
from tests.support.platform import Job, Platform
from tests.support.waiting import has, until

START_S = 180.0
READY_S = 60.0
EXECUTION = {"sandbox": "container", "kernelTimeoutSeconds": 60, "memory": "512Mi", "warmPods": 2}
EXECUTE = "grading.execute"

LOOK_S = 0.2
NAMES_GO_S = 15.0
SLOWED = 1.5
"""Through a slow cable a judge's median call takes at least so many times as long as the other judge's."""

MAC, WORKERS, COORDINATOR, NAMES, NOTHING = "mac", "workers", "coordinator", "dns", ""
"""What a drill breaks: the Mac that serves the code judge, the Linux node without coordinator, the one with it."""


@dataclass(frozen=True, slots=True)
class Drill:
    """One fault. `lasts_s` is how long; without, until the job has ended."""

    name: str
    what: str
    victim: str = NOTHING
    rate: int | None = None
    """Bits per second that the victim's cable still carries; None cuts it."""
    lasts_s: float | None = None
    bound_s: float = 360.0
    """The job must end within so many seconds after the fault."""
    signs: frozenset[str] = frozenset()
    """Of `Times`: what must be seen of it. The job may end before the others come."""
    moves: bool = False
    """Whether the victim's work must be seen elsewhere: another server answered for a Mac, a task began again."""
    slows: bool = False
    """Whether the other judge must be seen to be faster."""


WARM_UP = Drill("warm-up", "nothing breaks, and nobody looks")
"""Before the others: a cluster's first class also pays for images that are unpacked and pods that are made once."""
DRILLS = (
    Drill("baseline", "nothing breaks"),
    Drill("mac-cut", "the Mac of the code judge is cut off", MAC, signs=frozenset({"withdrawn", "degraded"}),
          moves=True),
    Drill("linux-cut", "the Linux node without coordinator is cut off", WORKERS, signs=frozenset({"not_ready"}),
          moves=True),
    Drill("cable", "the cable of the code judge's Mac carries 1 Mbit/s", MAC, rate=1_000_000),
    Drill("slow-cable", "the cable of the code judge's Mac carries 64 kbit/s", MAC, rate=64_000, slows=True),
    Drill("dns", "CoreDNS is stopped for 20 s", NAMES, lasts_s=20),
    Drill("node-back", "the coordinator's Linux node is cut off for 60 s", COORDINATOR, lasts_s=60,
          signs=frozenset({"not_ready"})),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a drill showed; only a job that ended with one result for each submission has one."""

    drill: Drill
    victim: str
    submissions: int
    tasks: int
    again: int
    """Tasks that were begun more than once; one result of each counted."""
    times: Times


async def run(drill: Drill, lab: Cluster, places: Places, client: Client, namespace: str, *, students: int) -> Outcome:
    """Submit a class, break something once two results are there, see it end. Fails loudly; mends in any case."""
    platform = Platform(lab, client)
    job = await platform.submit(
        namespace, drill.name, students=slow_class(students), execution=EXECUTION,
        workers={"replicas": 2, "capacity": 1},
    )  # fmt: skip
    await platform.until(job, lambda o: done_of(o) >= 2, timeout_s=START_S, what="two results")
    victim = await _victim(drill, client, job)
    if drill.victim == WORKERS:
        await _begun_on(platform, job, victim)
    begin, end = _fault(drill, lab.name, places, lab, victim)
    async with recording(client, job) as looks:
        fault_at = time.monotonic()
        try:
            await asyncio.to_thread(begin)
            waiting = asyncio.create_task(
                platform.until(job, has("Complete"), timeout_s=drill.bound_s, what=f"Complete after: {drill.what}")
            )
            if drill.victim == NAMES:
                await _no_name_is_found(lab)
            if drill.lasts_s is not None:
                await asyncio.wait([waiting], timeout=drill.lasts_s)
                await asyncio.to_thread(end)
            done = await waiting
        finally:
            await asyncio.to_thread(end)
    seen = times(looks, fault_at, victim)
    unseen = sorted(sign for sign in drill.signs if getattr(seen, sign) is None)
    assert not unseen, f"{drill.name}: never {', '.join(unseen)}"
    await _all_ready(client)
    tasks = await counted_once(platform, job, done, students)
    again = sum(task["attempts"] > 1 for task in tasks)
    if drill.moves:
        await _moved(drill, platform, job, again=again)
    if drill.slows:
        _slowed(drill, done)
    return Outcome(drill, victim, students, len(tasks), again, seen)


def slow_class(size: int) -> dict[str, bytes]:
    """Right answers that take their time."""
    code = classroom.SLOW_CODE.format(seconds=2)
    return classroom.submissions(
        {f"s{n:02d}": classroom.notebook(f"{code}  # {n}", f"because of {n}") for n in range(size)}
    )


def done_of(job: Object) -> int:
    """Its tasks with a result."""
    return int(job.get("status", {}).get("tasks", {}).get("done", 0))


async def counted_once(platform: Platform, job: Job, done: Object, students: int) -> list[dict[str, Any]]:
    """The job's tasks; fails unless each submission has one row with its points, and each task one result."""
    assert done["status"]["submissions"]["graded"] == students, done["status"]
    assert done["status"]["tasks"].get("failed", 0) == 0, done["status"]
    rows = await platform.report_rows(job)
    assert Counter(row["name"] for row in rows) == {f"s{n:02d}": 1 for n in range(students)}
    assert {row["tests"] for row in rows} == {"2.0/2"}, rows
    tasks = await platform.tasks(job)
    assert {task["state"] for task in tasks} == {"done"}, tasks
    assert max(Counter(task["key"] for task in tasks).values()) == 1
    assert sum(task["type"] == EXECUTE for task in tasks) == students
    assert len(tasks) == done["status"]["tasks"]["done"]
    return tasks


async def _begun_on(platform: Platform, job: Job, node: str) -> None:
    """Return as soon as a pod there begins to execute a notebook: it runs for seconds, so the cut finds it at it."""
    before = await _executing(platform, job, node)
    end = time.monotonic() + START_S
    while not (now := await _executing(platform, job, node)) - before:
        assert time.monotonic() < end, f"no notebook was begun on {node} within {START_S:.0f} s"
        before &= now
        await asyncio.sleep(LOOK_S)


async def _executing(platform: Platform, job: Job, node: str) -> set[tuple[str, int]]:
    """Attempts of tasks that execute a notebook and are leased to a pod of that node."""
    pods = (await platform.cluster.list(POD, job.namespace)).items
    there = {pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") == node}
    return {
        (task["key"], task["attempts"]) for task in await platform.tasks(job)
        if task["state"] == "running" and task["type"] == EXECUTE and task["worker"] in there
    }  # fmt: skip


async def _moved(drill: Drill, platform: Platform, job: Job, *, again: int) -> None:
    if drill.victim == MAC:
        told = has("Degraded", "True", "ModelServerFailover")
        await platform.until(job, told, timeout_s=READY_S, what="another server's answers")
    else:
        assert again >= 1, f"{drill.name}: no task of the victim was begun again"


async def _no_name_is_found(lab: Cluster) -> None:
    """Until a pod of the platform is told so; CoreDNS itself remembers nothing once it is stopped."""
    look = "import socket; socket.getaddrinfo('kubernetes.default.svc.cluster.local.', 443)"
    ask = ("exec", "deployment/espalier-operator", f"--namespace={SYSTEM}", "--", "python", "-c", look)
    end = time.monotonic() + NAMES_GO_S
    while "gaierror" not in (said := await asyncio.to_thread(tried, lab, *ask)).stderr:
        assert time.monotonic() < end, f"names are still found: {said.stdout}{said.stderr}"
        await asyncio.sleep(LOOK_S)


def _slowed(drill: Drill, done: Object) -> None:
    models = done["status"]["performance"]["models"]
    code, feedback = (models[judge]["p50Seconds"] for judge in ("code", "feedback"))
    assert code > SLOWED * feedback, f"{drill.name}: {code} s a call, {feedback} s where the cable is not slow"


async def _victim(drill: Drill, client: Client, job: Job) -> str:
    if drill.victim == MAC:
        return serving_nodes(await client.get(MODEL_SERVER, f"{job.name}-code", job.namespace))[0]
    return {WORKERS: "linux-2", COORDINATOR: COORDINATOR_NODE}.get(drill.victim, drill.victim)


def _fault(
    drill: Drill, name: str, places: Places, lab: Cluster, victim: str
) -> tuple[Callable[[], None], Callable[[], None]]:
    """How it begins and ends; ending twice is harmless."""
    if drill.victim == NOTHING:
        return (lambda: None), (lambda: None)
    if drill.victim == NAMES:
        return partial(lab.control.wish, DNS, Wish.STOP), partial(lab.control.wish, DNS, Wish.RUN)
    if drill.rate is not None:
        return partial(local.shape, name, places, victim, drill.rate), partial(local.shape, name, places, victim, None)
    return partial(local.cut, name, places, victim), partial(local.mend, name, places, victim)


async def _all_ready(client: Client) -> None:
    for node in (await client.list(NODE)).items:
        await until(client, NODE, None, node["metadata"]["name"], has("Ready"), timeout_s=READY_S, what="Ready")
