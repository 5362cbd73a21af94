"""The local cluster as its user meets it: idempotent, supervised, clean when it goes."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from espalier_cli.local import app
from espalier_kit.errors import Misconfigured, Permanent
from espalier_kube.client import Client, connect
from espalier_kube.cluster import NAMESPACE, NODE, SERVICE_ACCOUNT
from espalier_local import addresses
from espalier_local.api import apply
from espalier_local.cluster import Cluster, Status, down, status, up
from espalier_local.hosts import PROFILES, HostProfile
from espalier_local.layout import Layout
from espalier_local.places import Places
from espalier_local.processtable import is_same, leftovers, start_time
from espalier_local.progress import Silent
from espalier_local.supervised import Phase, ProcessState

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(places: Places) -> Iterator[Cluster]:
    """A control plane of this module's own, which its tests may break as long as it heals."""
    with fresh(places, profiles=()) as found:
        yield found


@contextmanager
def fresh(places: Places, *, profiles: Sequence[HostProfile]) -> Iterator[Cluster]:
    """A new cluster, gone afterwards whatever happens."""
    name = f"run-{os.getpid()}-{secrets.token_hex(2)}"
    try:
        yield up(name, places, Silent(), profiles=profiles)
    finally:
        down(name, places, Silent())


def eventually(is_so: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for a condition with a deadline."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {timeout_s} s"
        time.sleep(0.05)


def process(found: Status, name: str) -> ProcessState:
    return next(state for state in found.processes if state.name == name)


SLEEPER = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "sleeper", "namespace": "default"},
    "spec": {
        "automountServiceAccountToken": False,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "sleeper",
                "image": "espalier-worker",
                "imagePullPolicy": "Never",
                "command": ["sleep", "86399"],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}


def words_of(root: Path) -> set[str]:
    """All arguments of all processes of a cluster."""
    words: set[str] = set()
    for one in leftovers(root):
        with suppress(psutil.Error):
            words.update(one.cmdline())
    return words


def service_account_exists(cluster: Cluster) -> bool:
    """The controller manager makes it a moment after the namespace; pods are refused without."""

    async def found() -> bool:
        client = await connect(cluster.kubeconfig)
        try:
            accounts = await client.list(SERVICE_ACCOUNT, "default")
        finally:
            await client.close()
        return any(account["metadata"]["name"] == "default" for account in accounts.items)

    return asyncio.run(found())


def namespaces_of(cluster: Cluster) -> set[str]:
    async def listed() -> set[str]:
        client = await connect(cluster.kubeconfig)
        try:
            return {item["metadata"]["name"] for item in (await client.list(NAMESPACE)).items}
        finally:
            await client.close()

    return asyncio.run(listed())


def test_second_up_finds_the_same_processes(control_plane: Cluster, places: Places) -> None:
    before = status(control_plane.name, places)
    again = up(control_plane.name, places, Silent(), profiles=())
    after = status(control_plane.name, places)
    assert not again.is_new
    assert [p.pid for p in after.processes[:4]] == [p.pid for p in before.processes[:4]]
    assert after.is_ready


def test_a_killed_process_is_restarted_and_reported(lab: Cluster, places: Places) -> None:
    victim = process(status(lab.name, places), "kube-scheduler")
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    eventually(lambda: process(status(lab.name, places), "kube-scheduler").restarts == victim.restarts + 1)
    eventually(lambda: process(status(lab.name, places), "kube-scheduler").phase is Phase.RUNNING)
    state = process(status(lab.name, places), "kube-scheduler")
    assert state.pid != victim.pid
    assert state.last_exit == "signal SIGKILL"


def test_the_api_server_comes_back_with_its_data(lab: Cluster, places: Places) -> None:
    victim = process(status(lab.name, places), "etcd")
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    eventually(lambda: process(status(lab.name, places), "etcd").restarts == 1)
    eventually(lambda: status(lab.name, places).is_ready)
    assert "espalier-system" in namespaces_of(lab)


def test_a_killed_supervisor_is_told_and_its_processes_are_adopted(lab: Cluster, places: Places) -> None:
    layout = Layout(places.clusters / lab.name)
    before = status(lab.name, places)
    os.kill(int(layout.supervisor_pid.read_text()), signal.SIGKILL)
    eventually(lambda: not lab.control.is_running())
    assert "supervisor is gone" in status(lab.name, places).problem
    up(lab.name, places, Silent(), profiles=())
    after = status(lab.name, places)
    assert after.problem == ""
    assert [p.pid for p in after.processes] == [p.pid for p in before.processes]
    victim = process(after, "kube-scheduler")
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    eventually(lambda: process(status(lab.name, places), "kube-scheduler").restarts == victim.restarts + 1)


@pytest.mark.parametrize("is_orphaned", [False, True], ids=["supervised", "supervisor killed before"])
def test_down_leaves_nothing(places: Places, is_orphaned: bool) -> None:
    with fresh(places, profiles=()) as doomed:
        layout = Layout(places.clusters / doomed.name)
        if is_orphaned:
            os.kill(int(layout.supervisor_pid.read_text()), signal.SIGKILL)
        assert leftovers(layout.root)
        assert down(doomed.name, places, Silent())
        assert leftovers(layout.root) == []
        assert not layout.root.exists()
        assert addresses.port_blocker(doomed.address_range) is None
        assert not down(doomed.name, places, Silent())


def test_down_ends_the_pods_too(places: Places) -> None:
    with fresh(places, profiles=PROFILES[:1]) as doomed:
        root = places.clusters / doomed.name
        eventually(lambda: service_account_exists(doomed))
        apply(doomed.kubeconfig, [SLEEPER])
        eventually(lambda: "86399" in words_of(root))
        before = {one.pid: start_time(one.pid) for one in leftovers(root)}
        down(doomed.name, places, Silent())
        assert [pid for pid, started in before.items() if is_same(pid, started)] == []


def test_a_port_taken_while_the_cluster_was_off_is_one_sentence(lab: Cluster, places: Places) -> None:
    lab.control.stop()
    with socket.create_server((lab.address_range.control_plane, addresses.API_PORT)):
        with pytest.raises(Misconfigured, match="6443 is in use by a program that is not this cluster's"):
            up(lab.name, places, Silent(), profiles=())
        assert not lab.control.is_running()
    assert not up(lab.name, places, Silent(), profiles=()).is_new


def test_the_next_range_is_taken_when_a_stranger_holds_ours(places: Places) -> None:
    name = f"run-{os.getpid()}-next-{secrets.token_hex(2)}"
    wished = next(addresses.candidates(name))
    try:
        with socket.create_server((wished.control_plane, addresses.API_PORT)):
            assert up(name, places, Silent(), profiles=()).address_range != wished
    finally:
        down(name, places, Silent())


async def test_job_namespaces_refuse_privileged_pods(client: Client, namespace: str) -> None:
    container = {"name": "c", "image": "espalier-worker", "securityContext": {"privileged": True}}
    metadata = {"name": "p", "namespace": namespace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
    with pytest.raises(Permanent, match="violates PodSecurity"):
        await client.create(pod)


def test_the_users_kubeconfig_is_not_touched(places: Places, lab: Cluster) -> None:
    home = places.cache.parent.parent / ".kube" / "config"
    before = home.read_bytes() if home.exists() else None
    status(lab.name, places)
    assert (home.read_bytes() if home.exists() else None) == before
    assert lab.kubeconfig.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["down", "--name", "no-such"], 0, "there is no cluster no-such; nothing to do"),
        (["status", "--name", "no-such"], 1, "espalier local up --name no-such starts it"),
        (["logs", "etcd", "--name", "no-such"], 1, "the cluster is down"),
        (["up", "--name", "No Such"], 78, "lower-case letters"),
    ],
    ids=["down of nothing", "status of nothing", "logs of nothing", "bad name"],
)
def test_commands_without_a_cluster_answer_with_a_sentence(arguments: list[str], code: int, sentence: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code
    assert sentence in result.output


def test_status_and_logs_commands_show_the_processes(control_plane: Cluster) -> None:
    shown = CliRunner().invoke(app, ["status", "--name", control_plane.name])
    assert "kube-controller-manager" in shown.output
    logged = CliRunner().invoke(app, ["logs", "kube-apiserver", "--name", control_plane.name])
    assert "Serving securely" in logged.output


async def test_three_nodes_are_ready(cluster: Cluster, client: Client) -> None:
    nodes = (await client.list(NODE)).items
    assert {node["metadata"]["name"] for node in nodes} == {"linux-1", "mac-studio-1", "mac-studio-2"}


@pytest.mark.parametrize(
    ("lose", "regain"), [("cut", "mend"), ("stop", "start")], ids=["cut and mended", "stopped and started"]
)
def test_a_host_is_lost_and_comes_back(cluster: Cluster, places: Places, lose: str, regain: str) -> None:
    host = next(host for host in cluster.hosts if host.name == "mac-studio-2")
    getattr(host, lose)()
    try:
        eventually(lambda: host.name not in status(cluster.name, places).ready_nodes, timeout_s=40)
        assert host.name in status(cluster.name, places).problem
    finally:
        getattr(host, regain)()
    eventually(lambda: host.name in status(cluster.name, places).ready_nodes)
