"""FakeCluster passes the suite that the real client passes in tests/integration/test_cluster_contract.py."""

from __future__ import annotations

import pytest

from espalier_kit.errors import Gone
from espalier_kube.fake import FakeCluster
from tests.contract.cluster_suite import *  # noqa: F403
from tests.contract.cluster_suite import CONFIG_MAP, settings


@pytest.fixture
def subject() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def place() -> str:
    return "test"


async def test_an_expired_position_is_gone() -> None:
    """The real server forgets only after minutes, so this is the fake's alone."""
    cluster = FakeCluster()
    position = (await cluster.list(CONFIG_MAP)).resource_version
    await cluster.create(settings("elsewhere"))
    cluster.compact()
    with pytest.raises(Gone):
        async for _ in cluster.watch(CONFIG_MAP, resource_version=position, timeout_s=1):
            pass
