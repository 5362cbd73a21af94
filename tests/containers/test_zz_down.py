"""Runs last in this lane: the cluster goes, and nothing of it stays in the kernel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from espalier_local import api, remains
from espalier_local.cluster import Cluster, down
from espalier_local.places import Places
from espalier_local.progress import Silent
from tests.support.machines import Traces, bound_in, eventually, kubectl, pod, traces

pytestmark = pytest.mark.cluster


def test_down_leaves_nothing(lab: Cluster, before: Traces, places: Places) -> None:
    assert lab.cables is not None
    eventually(lambda: "default" in kubectl(lab, "get", "serviceaccounts", "--namespace=default"), "a service account")
    api.apply(lab.kubeconfig, [pod("last", "pause")])
    kubectl(lab, "wait", "--for=condition=Ready", "pod/last", "--timeout=60s")
    during = traces(lab.name, lab.cables.switch)
    assert during.processes
    assert during.namespaces != before.namespaces
    assert during.devices != before.devices
    assert during.routes != before.routes
    assert during.mounts
    assert during.cgroups
    made = bound_in(lab.cables.namespace("linux-1")) & during.sockets
    assert remains.SHIM_SOCKETS in {Path(path).parent for path in made}
    assert down(lab.name, places, Silent())
    after = traces(lab.name, lab.cables.switch)
    assert not made & after.sockets
    assert after.sockets <= before.sockets
    assert replace(after, sockets=before.sockets) == before
