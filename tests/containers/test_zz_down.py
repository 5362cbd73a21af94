"""Runs last in this lane: the cluster goes, and nothing of it stays in the kernel."""

from __future__ import annotations

import pytest

from espalier_local.cluster import Cluster, down
from espalier_local.places import Places
from espalier_local.progress import Silent
from tests.support.machines import Traces, traces

pytestmark = pytest.mark.cluster


def test_down_leaves_nothing(lab: Cluster, before: Traces, places: Places) -> None:
    assert lab.cables is not None
    during = traces(lab.name, lab.cables.switch)
    assert during.processes
    assert during.namespaces != before.namespaces
    assert during.devices != before.devices
    assert during.routes != before.routes
    assert during.mounts
    assert during.cgroups
    assert down(lab.name, places, Silent())
    assert traces(lab.name, lab.cables.switch) == before
