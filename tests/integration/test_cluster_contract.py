"""The real client on a real API server passes the suite that FakeCluster passes in tests/contract/test_cluster.py."""

from __future__ import annotations

import pytest

from espalier_kube.client import Client
from tests.contract.cluster_suite import *  # noqa: F403

pytestmark = pytest.mark.cluster


@pytest.fixture
def subject(client: Client) -> Client:
    return client


@pytest.fixture
def place(namespace: str) -> str:
    return namespace
