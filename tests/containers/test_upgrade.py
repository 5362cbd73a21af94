"""From the previous chart to this one under a running class, on a real kubelet: policies come while pods talk.

The previous chart has none. What its job's worker could reach before and none of our edges needs is shut afterwards;
everything that the job needs goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from espalier_kube.client import Client
from espalier_kube.cluster import NETWORK_POLICY, NODE, POD, Object
from espalier_local.building import Built
from espalier_local.cluster import Cluster
from espalier_local.places import Places
from espalier_local.progress import Terminal
from espalier_local.release import JOB_NAMESPACES, container_values, install
from tests.drills.stories import EXECUTION
from tests.support.flows import recording
from tests.support.machines import eventually, tried
from tests.support.platform import SYSTEM, Platform
from tests.support.pods import KUBELET_PORT
from tests.support.upgrades import (
    Release,
    begun_under_the_old_chart,
    graded_once,
    release_of,
    rights,
    slow_students,
)
from tests.support.waiting import condition

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

STUDENTS = 6
COORDINATOR = "espalier-coordinator-0"
# A Mac's agent answers whoever connects to KUBELET_PORT, and no edge of ours leads there.
DIAL = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()"


@pytest.fixture
def release(released: Cluster, built: Built, places: Places, tmp_path: Path) -> Iterator[Release]:
    """Leaves the lane's own release behind, whatever happened."""
    assert released.cables is not None
    yield release_of(released, container_values(released.cables, JOB_NAMESPACES, built), tmp_path)
    install(released, places, Terminal())


async def test_a_running_class_survives_the_upgrade_that_brings_policies(
    released: Cluster, client: Client, namespace: str, release: Release
) -> None:
    current, platform, students = release.chart(), Platform(released, client), slow_students(STUDENTS, seconds=4)
    mac = (await client.get(NODE, "mac-studio-1"))["status"]["addresses"][0]["address"]
    with rights(release):
        job = await begun_under_the_old_chart(release, platform, namespace, students=students, execution=EXECUTION)
        worker, before = await worker_of(client, namespace), await client.get(POD, COORDINATOR, SYSTEM)
        assert await policies(client, SYSTEM, namespace) == []
        with recording(released) as sight:
            assert reaches(released, worker, mac), "nothing forbids it yet"
            release.upgrade(release.new)
            assert release.chart() == current
            eventually(lambda: not reaches(released, worker, mac), "shut in")
            done = await graded_once(platform, job, students)
    after = await client.get(POD, COORDINATOR, SYSTEM)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert moment(condition(done, "Complete")["lastTransitionTime"]) > moment(after["status"]["startTime"])
    assert {"espalier-default-deny", "espalier-worker", "espalier-coordinator"} <= set(
        await policies(client, SYSTEM, namespace)
    )
    seen = sight.seen
    assert seen is not None
    name, address = f"{namespace}/{worker['metadata']['name']}", worker["status"]["podIP"]
    assert [line.split(": ")[0] for line in seen.forbidden()] == [f"{name} -> {mac} TCP/{KUBELET_PORT}"]
    assert seen.refused() == [f"dropped: {address} -> {mac} TCP/{KUBELET_PORT}"]


async def worker_of(client: Client, namespace: str) -> Object:
    """The pod of the job's one worker."""
    (worker,) = (await client.list(POD, namespace, labels="app.kubernetes.io/component=worker")).items
    return worker


async def policies(client: Client, *namespaces: str) -> list[str]:
    """Names of the policies that hold there."""
    found = [each for where in namespaces for each in (await client.list(NETWORK_POLICY, where)).items]
    return [each["metadata"]["name"] for each in found]


def reaches(released: Cluster, worker: Object, address: str) -> bool:
    """Whether the worker's pod gets a connection to the agent of a Mac."""
    meta = worker["metadata"]
    done = tried(
        released, "exec", meta["name"], f"--namespace={meta['namespace']}", "--",
        "python", "-c", DIAL, address, str(KUBELET_PORT),
    )  # fmt: skip
    assert done.returncode == 0 or "TimeoutError" in done.stderr, done.stderr
    return done.returncode == 0


def moment(text: str) -> datetime:
    """As the API server writes times."""
    return datetime.fromisoformat(text)
