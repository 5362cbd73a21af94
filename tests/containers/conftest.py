"""One cluster with a real Linux node for the whole lane, our images and charts on it. The last file takes it down."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from espalier_kube.client import Client, connect
from espalier_local import api, bootstrap
from espalier_local.building import Built
from espalier_local.cluster import Cluster, down, up
from espalier_local.hosts import container_profiles
from espalier_local.places import Places, places_from
from espalier_local.progress import Silent, Terminal
from espalier_local.release import install
from tests.support.flows import recording
from tests.support.machines import Traces, traces
from tests.support.pool_stories import ELASTIC, FIXED
from tests.support.pools import executors, pool_values


@pytest.fixture(scope="session")
def places() -> Places:
    """Cache and checkout, as the command line finds them."""
    return places_from(os.environ)


@pytest.fixture(scope="session")
def name(places: Places) -> Iterator[str]:
    """The cluster's name; whatever a test leaves is taken down."""
    chosen = f"run-{os.getpid()}-{secrets.token_hex(2)}"
    yield chosen
    down(chosen, places, Silent())


@pytest.fixture(scope="session")
def before(name: str) -> Traces:
    """The machine without the cluster."""
    return traces(name)


@pytest.fixture(scope="session")
def lab(before: Traces, name: str, places: Places) -> Cluster:
    """One Linux host and two Macs."""
    assert not before.processes
    return up(name, places, Terminal(), profiles=container_profiles(1), kind="container")


@pytest.fixture(scope="session")
def built(lab: Cluster, places: Places) -> Built:
    """Our images, on the Linux host, where both charts are installed and their pods ready."""
    found = install(lab, places, Terminal())
    assert found is not None
    return found


@pytest.fixture(scope="session")
def released(lab: Cluster, built: Built) -> Cluster:
    """The cluster with them."""
    assert built.images
    return lab


@pytest.fixture(scope="session")
def pooled(released: Cluster, places: Places) -> Cluster:
    """The cluster with three shared pools: `elastic` by the work that waits, `warm` by CPU use, `fixed` by nobody.

    Operator and coordinator are new ones then, who look up each other's names: that is recorded.
    """
    api.apply(released.kubeconfig, [executors()])
    warm = {"autoscaling": {"mode": "cpu", "min": 1, "max": 2}}
    pools = pool_values(elastic=ELASTIC, warm=warm, fixed=FIXED)
    with recording(released):
        install(released, places, Terminal(), overrides=pools)
    return released


@pytest.fixture
async def client(lab: Cluster) -> AsyncIterator[Client]:
    """The administrator's client."""
    connected = await connect(lab.kubeconfig)
    yield connected
    await connected.close()


@pytest.fixture
def namespace(lab: Cluster) -> str:
    """A namespace of the test's own under Pod Security restricted; it goes with the cluster."""
    name = f"test-{secrets.token_hex(3)}"
    metadata = {"name": name, "labels": bootstrap.RESTRICTED}
    api.apply(lab.kubeconfig, [{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])
    return name
