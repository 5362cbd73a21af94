"""The chart's environments on a real node, as their files say: their pools, their database, their autoscaler.

Each file takes the place of the local values; only sizes, images, the volume's class and what an owner alone knows
are laid over it. Production's runs: tasks in PostgreSQL, a shared pool, `helm test`, policies in force.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator

import psycopg
import pytest

from espalier_kit.execution import TaskSpec
from espalier_kube.client import Client
from espalier_kube.cluster import POD, Object
from espalier_kube.objects import has_condition
from espalier_local import api, cables
from espalier_local.cluster import Cluster
from espalier_local.places import Places
from espalier_local.progress import Terminal
from espalier_local.release import helm_environment, install
from tests.support.charts import ENVIRONMENTS
from tests.support.environments import cut_down, file_of, values_of
from tests.support.flows import recording
from tests.support.machines import kubectl
from tests.support.pools import EXECUTORS, SYSTEM, coordinator_of, executors, request, until_ended
from tests.support.postgres import Place, PostgresServer, running_server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

TASKS = 20
SECRET = "espalier-database"
POOL = "espalier-pool-shared"


@pytest.fixture(scope="module")
def server(released: Cluster) -> Iterator[PostgresServer]:
    """PostgreSQL on a host of its own, as far as pods can tell: on a Mac's cable."""
    assert released.cables is not None
    address = kubectl(released, "get", "node", "mac-studio-2", "--output=jsonpath={.status.addresses[0].address}")
    place = Place(cables.inside(released.cables.namespace("mac-studio-2")), address)
    with running_server(place) as started:
        yield started


@pytest.fixture(scope="module")
def database(released: Cluster, server: PostgresServer) -> str:
    """A database, and the Secret that names it to the chart, beside what the pools run."""
    made = f"espalier_{secrets.token_hex(3)}"
    server.execute("postgres", f"CREATE DATABASE {made}")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": SYSTEM}}
    api.apply(released.kubeconfig, [executors(), {**secret, "stringData": {"url": server.remote_url(made)}}])
    return made


@pytest.fixture(scope="module")
def deploy(
    released: Cluster, places: Places, server: PostgresServer, database: str
) -> Iterator[Callable[[str], None]]:
    """Installs the chart as an environment's file says. Afterwards the lane's own values hold again."""

    def deployed(environment: str) -> None:
        own = cut_down(environment, executors=EXECUTORS, database=server.address)
        install(released, places, Terminal(), overrides=own, environment=file_of(environment))

    assert database
    yield deployed
    install(released, places, Terminal())


@pytest.fixture(scope="module")
def production(deploy: Callable[[str], None], database: str) -> str:
    """The chart with values-prod.yaml; the database's name."""
    deploy("prod")
    return database


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_runs_on_a_real_node_as_its_file_says(
    released: Cluster, deploy: Callable[[str], None], environment: str
) -> None:
    deploy(environment)
    said = values_of(environment)
    (pool,) = said["pools"]
    pods = ready_pods(released)
    assert pods.keys() == {"operator", "coordinator", "worker"}
    assert variables(pods["worker"])["ESPALIER_WORKER_CAPACITY"] == str(pool["capacity"])
    in_postgresql = variables(pods["coordinator"])["ESPALIER_COORDINATOR_DATABASE"] != ""
    assert in_postgresql is ("database" in said["coordinator"])
    scalers = shown(released, "horizontalpodautoscalers")
    assert shown(released, f"poddisruptionbudget/{POOL}")["spec"]["maxUnavailable"] == pool.get("maxUnavailable", 1)
    assert [each["metadata"]["name"] for each in scalers["items"]] == ([POOL] if "autoscaling" in pool else [])
    for scaler in scalers["items"]:
        (metric,) = scaler["spec"]["metrics"]
        assert metric["external"]["target"]["averageValue"] == str(pool["autoscaling"].get("targetPerWorker", 16))


def shown(released: Cluster, what: str) -> Object:
    """As `kubectl get` shows it."""
    found: Object = json.loads(kubectl(released, "get", what, f"--namespace={SYSTEM}", "--output=json"))
    return found


def ready_pods(released: Cluster) -> dict[str, Object]:
    """By program; those that go are none of the release's any more."""
    listed = api.list_all(released.kubeconfig, POD, SYSTEM)
    found = [pod for pod in listed if "deletionTimestamp" not in pod["metadata"]]
    return {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod for pod in found if has_condition(pod, "Ready")
    }


def variables(pod: Object) -> dict[str, object]:
    """Of its one container; a reference where the value is not written there."""
    (container,) = pod["spec"]["containers"]
    return {each["name"]: each.get("value", each.get("valueFrom", "")) for each in container["env"]}


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
    assert production
    command = [
        str(released.assets["helm"]), "test", "espalier", f"--kubeconfig={released.kubeconfig}",
        f"--namespace={SYSTEM}", "--logs", "--timeout=120s",
    ]  # fmt: skip
    environment = helm_environment(os.environ, released.control.layout.helm)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "canary: submitted, run and read back in" in done.stdout, done.stdout + done.stderr
