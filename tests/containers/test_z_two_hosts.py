"""A second Linux host joins the lane's cluster, late, so that no other test's pods land on it: ways and policies.

`--linux 3` is a third of the same: what `ip` is told for it is data (tests/unit/local/test_cables.py).
"""

from __future__ import annotations

import ipaddress
from concurrent.futures import ThreadPoolExecutor

import pytest

from espalier_local import api
from espalier_local.cluster import Cluster, up
from espalier_local.containers import cable_of
from espalier_local.hosts import container_profiles
from espalier_local.places import Places
from espalier_local.progress import Terminal
from tests.support.machines import answers, cluster_ip, eventually, kubectl, pod, service

pytestmark = pytest.mark.cluster

HOMES = {"near": "linux-1", "far": "linux-2", "ally": "linux-2"}
"""Pods, each a server with its own name for an answer, and a client of the others."""
ALLIES = {"podSelector": {"matchLabels": {"app": "ally"}}}
POLICIES = {
    "ingress": {"podSelector": {"matchLabels": {"app": "near"}}, "ingress": [{"from": [ALLIES]}]},
    "egress": {"podSelector": {"matchLabels": {"app": "far"}}, "policyTypes": ["Egress"]},
}
"""Either keeps `far` from `near`: the one is held where the server is, the other where the client is."""


@pytest.fixture(scope="module")
def wide(lab: Cluster, places: Places) -> Cluster:
    """The same cluster with `--linux 2`, a server with a Service on each host, all ready."""
    grown = up(lab.name, places, Terminal(), profiles=container_profiles(2), kind="container")
    eventually(lambda: "default" in kubectl(grown, "get", "serviceaccounts", "--namespace=default"), "an account")
    api.apply(grown.kubeconfig, [
        *(pod(name, "serve", ":8080", labels={"app": name}, node=node) for name, node in HOMES.items()),
        *(service(name, 8080, selector={"app": name}) for name in HOMES),
    ])  # fmt: skip
    kubectl(grown, "wait", "--for=condition=Ready", *(f"pod/{name}" for name in HOMES), "--timeout=60s")
    return grown


def address(wide: Cluster, name: str) -> str:
    """A pod's own."""
    return kubectl(wide, "get", "pod", name, "--output=jsonpath={.status.podIP}")


@pytest.mark.parametrize(("client", "server"), [("near", "far"), ("far", "near")])
def test_pods_of_two_hosts_reach_each_other_by_address_service_and_name(
    wide: Cluster, client: str, server: str
) -> None:
    assert wide.cables is not None
    home = ipaddress.ip_network(wide.cables.pods(cable_of(wide.cables, HOMES[server]).k))
    assert ipaddress.ip_address(address(wide, server)) in home
    for host in (f"{address(wide, server)}:8080", cluster_ip(wide, server), f"{server}.default.svc.cluster.local"):
        eventually(lambda: answers(wide, client, f"http://{host}/", server), f"{server} at {host}", 20.0)  # noqa: B023


@pytest.mark.parametrize("direction", POLICIES)
def test_a_policy_of_either_side_holds_between_hosts(wide: Cluster, direction: str) -> None:
    """For whom it is meant, and for nobody else."""
    name = f"across-{direction}"
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": POLICIES[direction],
    }
    assert all(reached(wide, "far"))
    api.apply(wide.kubeconfig, [policy])
    try:
        eventually(lambda: not any(reached(wide, "far")), "shut out", 30.0)
        assert all(reached(wide, "ally"))
    finally:
        kubectl(wide, "delete", "networkpolicy", name)
    eventually(lambda: all(reached(wide, "far")), "let in again", 30.0)


def reached(wide: Cluster, client: str) -> list[bool]:
    """Whether that pod reaches `near` by address, and through its Service; both at once, for a refusal takes 5 s."""
    urls = f"http://{address(wide, 'near')}:8080/", f"http://{cluster_ip(wide, 'near')}/"
    with ThreadPoolExecutor(len(urls)) as pool:
        return list(pool.map(lambda url: answers(wide, client, url, "near"), urls))
