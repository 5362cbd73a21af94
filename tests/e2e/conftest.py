"""One cluster with our charts for all life stories of a run; a client and a namespace per test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from espalier_local.cluster import Cluster
from espalier_local.places import Places
from espalier_local.progress import Terminal
from espalier_local.release import install
from tests.integration.conftest import client, cluster, cluster_name, control_plane, kubectl, namespace, places  # noqa: F401
from tests.support.platform import Platform


@pytest.fixture(scope="session")
def released(cluster: Cluster, places: Places) -> Cluster:  # noqa: F811
    """The cluster with both charts installed and their pods ready."""
    install(cluster, places, Terminal())
    return cluster


@pytest.fixture
async def platform(released: Cluster, client) -> AsyncIterator[Platform]:  # noqa: F811
    """The platform as one test drives it."""
    return Platform(released, client)
