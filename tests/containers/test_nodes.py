"""Hosts on cables: a real kubelet beside two Macs, the plug pulled and put back."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from espalier_cli.local import app
from espalier_kit.errors import Misconfigured
from espalier_kube.cluster import NODE
from espalier_local import api, cables, remains
from espalier_local.api import list_all
from espalier_local.cluster import Cluster, status, up
from espalier_local.hosts import container_profiles
from espalier_local.places import Places
from espalier_local.progress import Silent
from tests.support.machines import answers, cluster_ip, eventually, kubectl, pod, ready, service

pytestmark = pytest.mark.cluster


def test_one_containerd_node_and_two_macs(lab: Cluster) -> None:
    """The runtime of each, and no address of loopback among theirs."""
    nodes = {node["metadata"]["name"]: node["status"] for node in list_all(lab.kubeconfig, NODE)}
    runtimes = {name: found["nodeInfo"]["containerRuntimeVersion"].split(":")[0] for name, found in nodes.items()}
    assert runtimes == {"linux-1": "containerd", "mac-studio-1": "process", "mac-studio-2": "process"}
    addresses = {found["addresses"][0]["address"] for found in nodes.values()}
    assert len(addresses) == 3
    assert not any(address.startswith("127.") for address in addresses)
    assert ready(lab) == nodes.keys()


def test_a_pod_of_our_own_image_runs_with_logs_exec_and_limits(lab: Cluster) -> None:
    eventually(lambda: "default" in kubectl(lab, "get", "serviceaccounts", "--namespace=default"), "a service account")
    api.apply(lab.kubeconfig, [pod("first", "say", "hello", "from", "a", "container")])
    kubectl(lab, "wait", "--for=condition=Ready", "pod/first", "--timeout=60s")
    assert kubectl(lab, "logs", "first") == "hello from a container\n"
    assert kubectl(lab, "exec", "first", "--", "/tiny", "echo", "inside") == "inside\n"
    uid = kubectl(lab, "get", "pod", "first", "--output=jsonpath={.metadata.uid}")
    groups = [
        group
        for root in remains.cgroup_roots(remains.PROC_MOUNTS.read_text())
        for group in root.glob(f"esp*-linux-1/**/pod{uid}/memory*")
        if group.name in ("memory.limit_in_bytes", "memory.max")
    ]
    assert [group.read_text().strip() for group in groups] == [str(64 * 2**20)]


def endpoints(name: str, address: str, port: int) -> dict[str, object]:
    """The one endpoint of a Service without selector."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"port": port}],
        "endpoints": [{"addresses": [address]}],
    }


def test_pods_reach_services_and_macs(lab: Cluster) -> None:
    mac = kubectl(lab, "get", "node", "mac-studio-1", "--output=jsonpath={.status.addresses[0].address}")
    api.apply(lab.kubeconfig, [
        pod("web", "serve", ":8080", labels={"app": "web"}), pod("client", "pause"),
        service("web", 8080, selector={"app": "web"}), service("mac", 8099), endpoints("mac", mac, 8099),
    ])  # fmt: skip
    kubectl(lab, "wait", "--for=condition=Ready", "pod/web", "pod/client", "--timeout=60s")
    on_mac = cables.inside(f"esp{lab.address_range.n}-mac-studio-1", str(lab.assets["tiny"]), "serve", ":8099")
    with subprocess.Popen(on_mac) as server:
        try:
            me = socket.gethostname()
            for url, expected in (
                (f"http://{cluster_ip(lab, 'web')}/", "web"),
                ("http://web.default.svc.cluster.local/", "web"),
                ("http://mac/", me),
                (f"http://{mac}:8099/", me),
                (f"http://{cluster_ip(lab, 'mac')}/", me),
            ):
                eventually(lambda: answers(lab, "client", url, expected), f"answered by {url}", 20.0)  # noqa: B023
        finally:
            server.terminate()


def test_a_connection_that_no_policy_allows_is_dropped(lab: Cluster) -> None:
    """Real packets: by address and through the Service, which is translated before the rules are asked."""
    only_friends = {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": 8080}]}
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [only_friends]},
    }
    api.apply(lab.kubeconfig, [pod("friend", "pause", labels={"app": "friend"})])
    kubectl(lab, "wait", "--for=condition=Ready", "pod/friend", "--timeout=60s")
    url = f"http://{cluster_ip(lab, 'web')}/"
    assert answers(lab, "client", url, "web")
    api.apply(lab.kubeconfig, [policy])
    try:
        eventually(lambda: not answers(lab, "client", url, "web"), "shut out", 30.0)
        assert not answers(lab, "client", "http://web.default.svc.cluster.local/", "web")
        assert answers(lab, "friend", url, "web")
    finally:
        kubectl(lab, "delete", "networkpolicy", "web")
    eventually(lambda: answers(lab, "client", url, "web"), "let in again", 30.0)


@pytest.mark.parametrize("node", ["linux-1", "mac-studio-1"])
def test_a_pulled_plug_is_noticed_and_mended(lab: Cluster, node: str) -> None:
    eventually(lambda: node in ready(lab), "Ready")
    assert CliRunner().invoke(app, ["cut", node, "--name", lab.name]).exit_code == 0
    eventually(lambda: node not in ready(lab), "noticed")
    assert CliRunner().invoke(app, ["mend", node, "--name", lab.name]).exit_code == 0
    eventually(lambda: node in ready(lab), "Ready again")


def test_a_shaped_cable_carries_no_more_than_it_was_told(lab: Cluster, tmp_path: Path) -> None:
    """Half a megabyte takes four seconds at 1 Mbit/s, from a Mac to the switch."""
    (tmp_path / "half").write_bytes(bytes(500_000))
    mac = kubectl(lab, "get", "node", "mac-studio-1", "--output=jsonpath={.status.addresses[0].address}")
    serve = (sys.executable, "-m", "http.server", "8098", "--bind", mac, "--directory", str(tmp_path))
    with subprocess.Popen(
        cables.inside(f"esp{lab.address_range.n}-mac-studio-1", *serve), stderr=subprocess.DEVNULL
    ) as server:
        try:
            eventually(lambda: fetched_s(f"http://{mac}:8098/half") < 2, "there unshaped", 20.0)
            assert shaped(lab, "--rate", "1mbit")
            assert fetched_s(f"http://{mac}:8098/half") > 3
            assert shaped(lab, "--off")
            assert fetched_s(f"http://{mac}:8098/half") < 2
        finally:
            server.terminate()


def shaped(lab: Cluster, *how: str) -> bool:
    """By the command, as a person does it."""
    return CliRunner().invoke(app, ["shape", "mac-studio-1", *how, "--name", lab.name]).exit_code == 0


def fetched_s(url: str) -> float:
    """Seconds until all of it is here; for ever if nobody answers."""
    began = time.monotonic()
    try:
        assert len(httpx.get(url, timeout=30, trust_env=False).content) == 500_000
    except httpx.TransportError:
        return math.inf
    return time.monotonic() - began


def test_pods_outlive_everything_that_manages_them(lab: Cluster, places: Places) -> None:
    """The supervisor, the runtime, the kubelet and the proxy die at once; the next `up` finds the pods as they were."""
    query = ("get", "pod", "first", "--output=jsonpath={.status.containerStatuses[0]['containerID','restartCount']}")
    first = kubectl(lab, *query)
    states = {process.name: process for process in status(lab.name, places).processes}
    pids = {name: states[name].pid for name in ("linux-1.containerd", "linux-1", "linux-1.kube-proxy")}
    os.kill(int(lab.control.layout.supervisor_pid.read_text()), signal.SIGKILL)
    for pid in pids.values():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    up(lab.name, places, Silent(), profiles=container_profiles(1), kind="container")
    eventually(lambda: "linux-1" in ready(lab), "Ready")
    url = f"http://{cluster_ip(lab, 'web')}/"
    eventually(lambda: answers(lab, "client", url, "web"), "answering again")
    assert kubectl(lab, *query) == first
    again = {process.name: process.pid for process in status(lab.name, places).processes}
    assert all(again[name] not in (None, pid) for name, pid in pids.items())


def test_a_second_up_finds_the_same_processes(lab: Cluster, places: Places) -> None:
    first = {process.name: process.pid for process in status(lab.name, places).processes}
    again = up(lab.name, places, Silent(), profiles=container_profiles(1), kind="container")
    assert not again.is_new
    assert {process.name: process.pid for process in status(lab.name, places).processes} == first
    with pytest.raises(Misconfigured, match="has container nodes: say --nodes container"):
        up(lab.name, places, Silent())
