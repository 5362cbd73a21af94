"""Runs last in this lane: what its nodes did all along; then clusters go, after a crash too, and leave nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from espalier_kube.client import Client
from espalier_kube.cluster import EVENT, Object
from espalier_local import api, remains
from espalier_local.cluster import Cluster, down, up
from espalier_local.hosts import container_profiles
from espalier_local.places import Places
from espalier_local.progress import Silent
from tests.support.machines import Traces, bound_in, crash, eventually, kubectl, pod, traces

pytestmark = pytest.mark.cluster

AGENTS = ("kubelet", "espalier-node")
HAVE = "already present on machine"
PULL = re.compile(r"[Pp]ull|ErrImage")
"""What a node says when it asks a registry, fails to, or would have to; and, with `HAVE`, when it need not."""


async def test_no_node_ever_asked_a_registry(released: Cluster, client: Client) -> None:
    """By its Events in every namespace, which the API server keeps for an hour: no test of this lane wants a pull."""
    assert released.hosts
    events = (await client.list(EVENT)).items
    told = [said(event) for event in events if event.get("source", {}).get("component") in AGENTS]
    assert [words for words in told if PULL.search(words) and HAVE not in words] == []
    assert len([words for words in told if HAVE in words]) > 2, "each start of a container tells where its image was"


def said(event: Object) -> str:
    about = event["involvedObject"]
    return f"{about.get('namespace', '')}/{about['name']} {event['reason']}: {event.get('message', '')}"


def test_down_after_a_crash_leaves_nothing(lab: Cluster, before: Traces, places: Places) -> None:
    """With everything on it that the tests of this lane left, and nobody alive who would look after it."""
    made = settled(lab, before)
    crash(lab, "linux-1")
    leaves_nothing(lab, before, places, made)


def test_down_leaves_nothing(name: str, places: Places) -> None:
    small = f"{name}-small"
    before = traces(small)
    try:
        fresh = up(small, places, Silent(), profiles=container_profiles(1)[:1], kind="container")
        leaves_nothing(fresh, before, places, settled(fresh, before))
    finally:
        down(small, places, Silent())


def settled(lab: Cluster, before: Traces) -> frozenset[str]:
    """A pod runs; the cluster's traces are there to see. Returns the shared sockets that are its own."""
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
    return made


def leaves_nothing(lab: Cluster, before: Traces, places: Places, made: frozenset[str]) -> None:
    """`down`, and the machine is as it was."""
    assert lab.cables is not None
    assert down(lab.name, places, Silent())
    after = traces(lab.name, lab.cables.switch)
    assert not made & after.sockets
    assert after.sockets <= before.sockets
    assert replace(after, sockets=before.sockets) == before
