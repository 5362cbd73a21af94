"""One pod's life on a fake API server and a fake runtime, in virtual time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from espalier_kit.clock import ManualClock
from espalier_kit.errors import NotFound
from espalier_kube.cluster import EVENT, POD, Object
from espalier_kube.fake import FakeCluster
from espalier_node.addresses import AddressBook
from espalier_node.context import Context
from espalier_node.events import Events
from espalier_node.machine.linux import LinuxMachine
from espalier_node.metrics import Metrics
from espalier_node.pods import Pods
from espalier_node.settings import NodeSettings
from tests.support.node import UID, FakeRuntime, container, pod_object, states

DEADLINE_S = 5


class World:
    """An API server, a runtime and the agent's pods."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock()
        self.cluster = FakeCluster(clock=self.clock)
        self.runtime = FakeRuntime(self.clock)
        settings = NodeSettings.model_validate({
            "name": "linux-1", "address": "127.77.1.1", "pod_range": "127.77.1.0/24", "state_dir": directory,
            "bootstrap_kubeconfig": directory / "b",
        })  # fmt: skip
        self.metrics = Metrics()
        self.context = Context(
            settings=settings, cluster=self.cluster, runtime=self.runtime,
            events=Events(self.cluster, self.clock, "linux-1"), addresses=AddressBook(settings), metrics=self.metrics,
            clock=self.clock, api_server=("127.77.0.1", "6443"), allocatable={}, machine=LinuxMachine(directory),
        )  # fmt: skip
        self.uid = UID

    async def create(self, *containers: Object, **fields: Any) -> None:
        made = pod_object(*containers, nodeName="linux-1", **fields)
        del made["metadata"]["uid"]
        self.uid = (await self.cluster.create(made))["metadata"]["uid"]

    async def pod(self) -> Object:
        return await self.cluster.get(POD, "p", "class")

    async def until(self, predicate: Callable[[Object], bool]) -> Object:
        """The pod once it is so; real time passes for the agent's tasks, virtual time stands."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found = await self.pod()
                if found.get("status", {}).get("phase") and predicate(found["status"]):
                    return found
                await asyncio.sleep(0.005)

    async def until_state(self, name: str, expected: str) -> Object:
        return await self.until(lambda status: states(status).get(name) == expected)

    async def until_gone(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    await self.pod()
                except NotFound:
                    return
                await asyncio.sleep(0.005)

    async def reasons(self) -> set[str]:
        return {event["reason"] for event in (await self.cluster.list(EVENT, "class")).items}

    async def until_event(self, reason: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if reason in await self.reasons():
                    return
                await asyncio.sleep(0.005)

    def end(self, name: str, code: int) -> None:
        self.runtime.end(name, code, uid=self.uid)


async def eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.005)


@asynccontextmanager
async def living(world: World) -> AsyncIterator[Pods]:
    """The agent's pods at work."""
    pods = Pods(world.context)
    task = asyncio.create_task(pods.run())
    try:
        yield pods
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_init_then_main_then_ready(world: World) -> None:
    await world.create(container(), init=(container("first"),))
    async with living(world):
        await world.until_state("first", "running")
        assert [config.name for config in world.runtime.configs] == ["first"]
        world.end("first", 0)
        found = await world.until_state("main", "running")
    assert states(found["status"]) == {"first": "Completed", "main": "running"}
    assert found["status"]["podIP"] == "127.77.1.16"
    config = world.runtime.configs[1]
    assert config.environment["KUBERNETES_SERVICE_HOST"] == "127.77.0.1"
    assert config.environment["HOME"] == "/tmp"
    assert config.command == ("espalier-worker",)
    assert "Started" in await world.reasons()


async def test_a_crash_is_restarted_at_once_then_with_back_off(world: World) -> None:
    await world.create()
    async with living(world):
        await world.until_state("main", "running")
        world.end("main", 1)
        await world.until(lambda s: s["containerStatuses"][0]["restartCount"] == 1 and states(s)["main"] == "running")
        world.end("main", 1)
        found = await world.until_state("main", "CrashLoopBackOff")
    assert found["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 1
    assert "BackOff" in await world.reasons()


async def test_a_job_pod_ends(world: World) -> None:
    await world.create(restartPolicy="Never")
    async with living(world):
        await world.until_state("main", "running")
        world.end("main", 78)
        found = await world.until(lambda status: status["phase"] == "Failed")
    assert states(found["status"]) == {"main": "Error"}
    assert len(world.runtime.configs) == 1


async def test_deletion_ends_gracefully_and_removes_the_object(world: World) -> None:
    await world.create(terminationGracePeriodSeconds=30)
    async with living(world):
        await world.until_state("main", "running")
        await world.cluster.delete(POD, "p", "class", grace_s=30)
        await world.until_gone()
    assert world.runtime.signals == [("TERM", "main")]
    assert "Killing" in await world.reasons()


async def test_what_does_not_obey_is_killed_after_its_grace(world: World) -> None:
    world.runtime.obeys = False
    await world.create(terminationGracePeriodSeconds=1)
    async with living(world):
        await world.until_state("main", "running")
        await world.cluster.delete(POD, "p", "class", grace_s=1)
        await eventually(lambda: ("TERM", "main") in world.runtime.signals)
        await world.clock.advance(1)
        await world.until_gone()
    assert world.runtime.signals[:2] == [("TERM", "main"), ("KILL", "main")]


@pytest.mark.parametrize(("hook", "grace_s", "least_s", "most_s"), [
    ({"sleep": {"seconds": 1}}, 30, 1.0, 30.0),
    ({"sleep": {"seconds": 60}}, 1, 1.0, 30.0),
    ({"exec": {"command": ["true"]}}, 30, 0.0, 5.0),
], ids=["sleep", "longer than the grace", "exec"])
async def test_a_container_is_told_to_end_once_its_pre_stop_hook_has(
    world: World, hook: Object, grace_s: int, least_s: float, most_s: float
) -> None:
    await world.create(container(lifecycle={"preStop": hook}), terminationGracePeriodSeconds=grace_s)
    async with living(world):
        await world.until_state("main", "running")
        began = time.monotonic()
        await world.cluster.delete(POD, "p", "class", grace_s=grace_s)
        await eventually(lambda: ("TERM", "main") in world.runtime.signals)
        assert least_s <= time.monotonic() - began < most_s
        await world.until_gone()


async def test_a_forced_deletion_kills_soon(world: World) -> None:
    world.runtime.obeys = False
    await world.create(terminationGracePeriodSeconds=0)
    async with living(world):
        await world.until_state("main", "running")
        await world.cluster.delete(POD, "p", "class", grace_s=0)
        await eventually(lambda: ("KILL", "main") in world.runtime.signals)


async def test_a_missing_config_map_is_told_and_waited_for(world: World) -> None:
    await world.create(container(envFrom=[{"configMapRef": {"name": "late"}}]))
    async with living(world):
        found = await world.until_state("main", "CreateContainerConfigError")
        assert "ConfigMap late does not exist" in str(found["status"])
        assert found["status"]["phase"] == "Pending"
        await world.cluster.create({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": "class"}, "data": {},
        })  # fmt: skip
        await world.until_state("main", "running")
    assert "Failed" in await world.reasons()


async def test_a_missing_volume_is_a_failed_mount(world: World) -> None:
    await world.create(volumes=[{"name": "v", "secret": {"secretName": "late"}}])
    async with living(world):
        await world.until_state("main", "ContainerCreating")
        await world.until_event("FailedMount")


async def test_an_unmapped_image_is_told(world: World) -> None:
    await world.create({**container(), "image": "nginx"})
    async with living(world):
        await world.until_state("main", "ErrImagePull")


async def test_a_machine_that_cannot_start_is_told_and_backs_off(world: World) -> None:
    world.runtime.refuses = "no more processes"
    await world.create()
    async with living(world):
        found = await world.until_state("main", "CrashLoopBackOff")
    last = found["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert (last["reason"], last["message"]) == ("StartError", "no more processes")


@pytest.mark.parametrize("turns", range(6))
async def test_it_stops_also_where_news_come_at_the_same_moment(world: World, turns: int) -> None:
    await world.create({**container(), "image": "nginx"})
    async with asyncio.timeout(DEADLINE_S):
        async with living(world) as pods:
            await world.until_state("main", "ErrImagePull")
            worker = pods.find("class", "p")
            assert worker is not None
            worker.update(worker.pod.raw)
            for _ in range(turns):
                await asyncio.sleep(0)


async def test_a_successor_adopts_and_removes_what_was_deleted_meanwhile(world: World) -> None:
    await world.create()
    async with living(world):
        before = await world.until_state("main", "running")
    assert world.runtime.signals == []
    async with living(world) as pods:
        await asyncio.wait_for(pods.has_listed.wait(), DEADLINE_S)
        after = await world.until_state("main", "running")
        assert after["status"] == before["status"]
        assert pods.running() == (1, 1)
    await world.cluster.delete(POD, "p", "class", grace_s=0)
    async with living(world) as pods:
        await asyncio.wait_for(pods.has_listed.wait(), DEADLINE_S)
    assert world.runtime.signals == [("KILL", "main")]
    assert world.runtime.pods() == ()


async def test_readiness_that_others_took_away_is_asserted_again(world: World) -> None:
    await world.create()
    async with living(world):
        await world.until(lambda s: s["containerStatuses"][0]["ready"])
        lost = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
        await world.cluster.patch(POD, "p", "class", lost, subresource="status", strategic=True)
        await world.until(
            lambda s: {"Ready": "True"}.items() <= {c["type"]: c["status"] for c in s["conditions"]}.items()
        )


async def test_a_failing_liveness_probe_restarts(world: World) -> None:
    probe = {"exec": {"command": ["x"]}, "periodSeconds": 0.01, "failureThreshold": 1}
    world.runtime.ill.add("main")
    await world.create(container(livenessProbe=probe))
    async with living(world):
        await world.until(lambda s: s["containerStatuses"][0]["restartCount"] >= 1)
    assert {"Unhealthy", "Killing"} <= await world.reasons()


async def test_repeated_events_are_counted_on_one_object_and_written_seldom(world: World) -> None:
    await world.create()
    about = await world.pod()
    counts = []
    for _ in range(3):
        await world.context.events.write({**about, "kind": "Pod"}, "Unhealthy", "ill", kind="Warning")
        await world.clock.advance(6)
        (event,) = (await world.cluster.list(EVENT, "class")).items
        counts.append(event["count"])
    assert counts == [1, 1, 3]
