"""One real control plane per run, its nodes when a test wants them, a namespace per test.

The cluster is the product's own (`espalier_local`); a missing tool fails the run. `cluster` is `control_plane` with
nodes on it, so that both cost one API server.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from espalier_api.schema import KINDS
from espalier_kube import signing
from espalier_kube.client import Client, connect
from espalier_kube.cluster import CSR, NAMESPACE
from espalier_kube.watch import follow
from espalier_local import bootstrap
from espalier_local.api import apply, clean_environment
from espalier_local.cluster import Cluster, down, up
from espalier_local.hosts import PROFILES
from espalier_local.places import Places, places_from
from espalier_local.progress import Silent, Terminal
from espalier_local.release import install
from tests.support.pods import KUBELET_PORT, NODE_NAME, TIMEOUT_S
from tests.support.pool_stories import ELASTIC, FIXED
from tests.support.pools import executors, pool_values
from tests.support.sandboxes import sandbox_process

Kubectl = Callable[..., str]
_OF_A_RUN = re.compile(r"run-(\d+)-")
"""Names of test clusters begin with the process id of their run."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A sandbox's socket and its process, as a one-shot pod's container would have them."""
    with sandbox_process(tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def places() -> Places:
    """Cache and checkout, as the command line finds them."""
    return places_from(os.environ)


@pytest.fixture(scope="session")
def cluster_name(places: Places) -> str:
    """Unique to this run; clusters of runs that were killed are taken down first."""
    for path in places.clusters.glob("run-*"):
        found = _OF_A_RUN.match(path.name)
        if found and not psutil.pid_exists(int(found[1])):
            down(path.name, places, Silent())
    return f"run-{os.getpid()}-{secrets.token_hex(2)}"


@pytest.fixture(scope="session")
def control_plane(cluster_name: str, places: Places) -> Iterator[Cluster]:
    """etcd, API server, controller manager and scheduler; no nodes unless another test asked for `cluster`."""
    try:
        # Progress goes to the terminal: the first run of all builds the binaries.
        yield up(cluster_name, places, Terminal(), profiles=())
    finally:
        down(cluster_name, places, Silent())


@pytest.fixture(scope="session")
def cluster(control_plane: Cluster, places: Places) -> Cluster:
    """The same control plane with the three nodes, all Ready."""
    return up(control_plane.name, places, Terminal(), profiles=PROFILES)


@pytest.fixture(scope="session")
def pooled(cluster: Cluster, places: Places, kubectl: Kubectl) -> Cluster:
    """The cluster with our charts and two shared pools: `fixed` has two workers, `elastic` one to four by the HPA."""
    kinds = [f"crd/{kind.plural}.espalier.dev" for kind in KINDS]
    kubectl("delete", "--ignore-not-found", *kinds)  # other tests apply them as files, which Helm does not take over
    apply(cluster.kubeconfig, [executors()])
    install(cluster, places, Terminal(), overrides=pool_values(fixed=FIXED, elastic=ELASTIC))
    return cluster


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """A namespace of the test's own under Pod Security restricted, deleted afterwards without waiting."""
    name = f"test-{secrets.token_hex(3)}"
    metadata = {"name": name, "labels": bootstrap.RESTRICTED}
    apply(control_plane.kubeconfig, [{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])
    yield name
    asyncio.run(_delete_namespace(control_plane, name))


@pytest.fixture
async def client(control_plane: Cluster) -> AsyncIterator[Client]:
    """The administrator's client."""
    connected = await connect(control_plane.kubeconfig)
    yield connected
    await connected.close()


@pytest.fixture(scope="session")
def kubectl(control_plane: Cluster) -> Kubectl:
    """The cluster's own kubectl: `kubectl("get", "nodes")` returns what it printed; a failure carries its words."""

    def run(*arguments: str, stdin: str | None = None) -> str:
        command = [str(control_plane.assets["kubectl"]), f"--kubeconfig={control_plane.kubeconfig}", *arguments]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=120,
            env=clean_environment(os.environ),
        )  # fmt: skip
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    return run


@pytest.fixture
async def serving(cluster: Cluster, client: Client) -> None:
    """The node's kubelet API answers: its serving certificate is approved as the operator does it, its port is open."""
    async with asyncio.timeout(TIMEOUT_S):
        await _approve_serving(client)
        await _until_open(str(cluster.address_range.node(1)), KUBELET_PORT)


async def _approve_serving(client: Client) -> None:
    async with aclosing(follow(client, CSR)) as changes:
        async for event in changes:
            spec = event.object["spec"]
            if spec["signerName"] == signing.SERVING_SIGNER and spec["username"] == f"system:node:{NODE_NAME}":
                if not signing.is_decided(event.object):
                    approved = signing.decided(
                        event.object, approve=True, reason="Test", message="approved by the test", now=datetime.now(UTC)
                    )
                    await client.replace(approved, subresource="approval")
                return


async def _until_open(host: str, port: int) -> None:
    """Between approval and listening lie the signer and the agent, which tell nobody when they are done."""
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            await writer.wait_closed()
            return


async def _delete_namespace(control_plane: Cluster, name: str) -> None:
    connected = await connect(control_plane.kubeconfig)
    try:
        await connected.delete(NAMESPACE, name)
    finally:
        await connected.close()
