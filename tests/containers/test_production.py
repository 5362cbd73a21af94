"""Production's values, shrunk to this machine: tasks in PostgreSQL, a shared pool, `helm test`, policies in force."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from espalier_kit.execution import TaskSpec
from espalier_kube.client import Client
from espalier_local import api, cables
from espalier_local.building import Built
from espalier_local.cluster import Cluster
from espalier_local.places import Places
from espalier_local.progress import Terminal
from espalier_local.release import container_values, helm_environment, install
from tests.support.flows import recording
from tests.support.machines import kubectl
from tests.support.pools import SYSTEM, coordinator_of, executors, request, until_ended
from tests.support.postgres import Place, PostgresServer, running_server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

TASKS = 20
SECRET = "espalier-database"


@pytest.fixture(scope="module")
def server(released: Cluster) -> Iterator[PostgresServer]:
    """PostgreSQL on a host of its own, as far as pods can tell: on a Mac's cable."""
    assert released.cables is not None
    address = kubectl(released, "get", "node", "mac-studio-2", "--output=jsonpath={.status.addresses[0].address}")
    place = Place(cables.inside(released.cables.namespace("mac-studio-2")), address)
    with running_server(place) as started:
        yield started


@pytest.fixture(scope="module")
def production(released: Cluster, built: Built, places: Places, server: PostgresServer) -> Iterator[str]:
    """The chart with values-prod.yaml; yields the database's name. Afterwards the lane's own values hold again."""
    database = f"espalier_{secrets.token_hex(3)}"
    server.execute("postgres", f"CREATE DATABASE {database}")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": SYSTEM}}
    api.apply(released.kubeconfig, [executors(), {**secret, "stringData": {"url": server.remote_url(database)}}])
    install(released, places, Terminal(), overrides=shrunk(released, built, server), basis=("values-prod.yaml",))
    yield database
    install(released, places, Terminal())


def shrunk(released: Cluster, built: Built, server: PostgresServer) -> dict[str, object]:
    """What one small node cannot hold, and the database's address, which only its owner knows."""
    assert released.cables is not None
    policies = container_values(released.cables, ("default",), built)["networkPolicies"]
    small = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    scaling = {"mode": "external-metrics", "min": 1, "max": 2}
    return {
        "networkPolicies": {**policies, "database": {"peers": [{"cidr": f"{server.address}/32"}]}},
        "pools": [{
            "name": "shared", "replicas": 1, "capacity": 2, "executors": "probe-executors", "resources": small,
            "autoscaling": scaling,
        }],
    }  # fmt: skip


async def test_tasks_lie_in_postgresql_and_outlive_the_coordinators_pod(
    released: Cluster, client: Client, server: PostgresServer, production: str
) -> None:
    with recording(released) as seen:
        tasks = [TaskSpec(key=f"t{n}", type="probe.nap", payload={"seconds": 0.3}) for n in range(TASKS)]
        async with coordinator_of(client, released) as coordinator:
            await coordinator.submit(request("prod", tasks, pool="shared"))
        place = f"--namespace={SYSTEM}"
        kubectl(released, "delete", "pod", "espalier-coordinator-0", place, "--grace-period=0", "--force")
        kubectl(released, "rollout", "status", "statefulset/espalier-coordinator", place, "--timeout=120s")
        async with coordinator_of(client, released) as coordinator:
            view = await until_ended(coordinator, "prod", timeout_s=120)
            await coordinator.delete("prod")
    assert (view.counts.done, view.counts.failed) == (TASKS, 0)
    assert seen.seen is not None
    reached = {(a.pod.name, port) for a, b, _, port in seen.seen.flows if a.pod and b.address == server.address}
    assert reached == {("espalier-coordinator-0", 5432)}
    assert (seen.seen.forbidden(), seen.seen.refused()) == ([], [])
    with psycopg.connect(server.url(production)) as connection:
        found = connection.execute("SELECT count(*) FROM information_schema.tables WHERE table_name = 'tasks'")
        assert found.fetchone() == (1,)


def test_helm_test_runs_a_canary_through_it(released: Cluster, production: str) -> None:
    command = [
        str(released.assets["helm"]), "test", "espalier", f"--kubeconfig={released.kubeconfig}",
        f"--namespace={SYSTEM}", "--logs", "--timeout=120s",
    ]  # fmt: skip
    environment = helm_environment(os.environ, released.control.layout.helm)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "canary: submitted, run and read back in" in done.stdout, done.stdout + done.stderr
