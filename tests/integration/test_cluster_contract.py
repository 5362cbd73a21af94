"""The real client on a real API server passes the suite that FakeCluster passes in tests/contract/test_cluster.py."""

from __future__ import annotations

from urllib.parse import urlsplit

import psutil
import pytest

from espalier_kube.client import Client, connect
from espalier_kube.cluster import CONFIG_MAP, SERVICE_ACCOUNT
from espalier_local.cluster import Cluster
from tests.contract.cluster_suite import *  # noqa: F403

pytestmark = pytest.mark.cluster


@pytest.fixture
def subject(client: Client) -> Client:
    return client


@pytest.fixture
def place(namespace: str) -> str:
    return namespace


async def test_a_closed_client_has_no_socket_left_nor_those_of_watches_that_were_cut(
    control_plane: Cluster, namespace: str
) -> None:
    watcher = await connect(control_plane.kubeconfig)
    port = urlsplit(watcher.server).port
    before = sockets(port)
    streams = [watcher.watch(kind, namespace, resource_version="0") for kind in (CONFIG_MAP, SERVICE_ACCOUNT)]
    for stream in streams:
        await anext(stream)  # every namespace has the authority's certificate and a ServiceAccount
    assert len(sockets(port)) == len(before) + 2
    for stream in streams:
        await stream.aclose()
    await watcher.close()
    assert sockets(port) == before


def sockets(port: int | None) -> set[int]:
    """File descriptors of this process's connections to the API server."""
    held = psutil.Process().net_connections("tcp")
    return {found.fd for found in held if found.raddr and found.raddr.port == port}
