"""Container nodes as the tests of their lane see them: what they make in the kernel, pods on them, waiting."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from espalier_kube.cluster import NODE
from espalier_local import cables, remains
from espalier_local.addresses import SWITCH
from espalier_local.api import clean_environment, list_all, ready_nodes
from espalier_local.cluster import Cluster
from espalier_local.images import TINY_IMAGE
from espalier_local.layout import MARKER

NOTICED_S = 40.0
"""A node is called lost after 12 s without a Lease; the rest is for a busy machine."""
_OF_A_CLUSTER = re.compile(rf"\b{SWITCH}\d+")


@dataclass(frozen=True)
class Traces:
    """What clusters make in the kernel, of the whole machine."""

    processes: frozenset[tuple[int, str]]
    namespaces: tuple[str, ...]
    devices: tuple[str, ...]
    routes: tuple[str, ...]
    mounts: tuple[str, ...]
    cgroups: tuple[str, ...]
    settings: tuple[str, ...]
    sockets: frozenset[str]
    """In the places that shims and kubelets of all clusters share; those of other clusters that run are left out."""


def traces(name: str, switch: str = "") -> Traces:
    """Now. Other clusters may run beside this one: what names another's switch is left out, and of processes and
    mounts only those that name this cluster count."""
    groups = [g for root in remains.all_cgroup_roots(remains.PROC_MOUNTS.read_text()) for g in root.glob(f"{SWITCH}*")]
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    return Traces(
        processes=frozenset((p.pid, p.name()) for p in psutil.process_iter() if _is_of(p, name)),
        namespaces=_not_of_others(cables.namespaces_now(), switch),
        devices=_not_of_others(cables.devices_now(), switch),
        routes=_not_of_others(routes.splitlines(), switch),
        mounts=tuple(line for line in remains.PROC_MOUNTS.read_text().splitlines() if name in line),
        cgroups=_not_of_others(sorted(map(str, groups)), switch),
        settings=_settings(switch),
        sockets=frozenset(map(str, _shared_sockets())) - _bound_by_others(switch),
    )


def _settings(switch: str) -> tuple[str, ...]:
    """Of the kernel, without what kubelets change; while other clusters run, as they were noted for the last `down`."""
    others = set(cables.switches(cables.devices_now())) - {switch}
    noted = json.loads(remains.KERNEL_SETTINGS.read_text()) if others and remains.KERNEL_SETTINGS.exists() else {}
    names = ("vm/overcommit_memory", "kernel/panic")
    return tuple(noted.get(name) or Path(f"/proc/sys/{name}").read_text().strip() for name in names)


def _shared_sockets() -> list[Path]:
    return [path for place in (remains.SHIM_SOCKETS, remains.KUBELET_SOCKET.parent) for path in place.glob("*")]


def bound_in(namespace: str) -> frozenset[str]:
    """Paths of the sockets on which programs of a host listen, as the kernel lists them by network namespace."""
    table = cables.run(("nsenter", f"--net=/run/netns/{namespace}", "cat", "/proc/self/net/unix"))
    return frozenset(line.rsplit(" ", 1)[-1] for line in table.splitlines() if " /" in line)


def _bound_by_others(switch: str) -> frozenset[str]:
    others = [name for name in cables.namespaces_now() if not name.startswith(f"{switch}-")]
    return frozenset().union(*map(bound_in, others))


def _not_of_others(lines: Iterable[str], switch: str) -> tuple[str, ...]:
    return tuple(line for line in lines if {switch}.issuperset(_OF_A_CLUSTER.findall(line)))


def _is_of(process: psutil.Process, name: str) -> bool:
    try:
        return name in process.environ().get(MARKER, "") or any(f"clusters/{name}" in w for w in process.cmdline())
    except (psutil.Error, OSError):
        return False


def kubectl(lab: Cluster, *arguments: str, stdin: str | None = None) -> str:
    """What the cluster's own kubectl prints; a failure carries its words."""
    done = tried(lab, *arguments, stdin=stdin)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def tried(lab: Cluster, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """The same, whatever comes of it."""
    command = [str(lab.assets["kubectl"]), f"--kubeconfig={lab.kubeconfig}", *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=120,
        env=clean_environment(os.environ),
    )  # fmt: skip


def pod(
    name: str, *arguments: str, labels: Mapping[str, str] | None = None, image: str = TINY_IMAGE,
    memory: str = "64Mi", security: Mapping[str, object] | None = None, command: tuple[str, ...] = (),
    node: str = "linux-1", namespace: str = "default",
) -> dict[str, object]:
    """A pod of one of our own images on a Linux host, as Pod Security restricted wants it."""
    main = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        "args": list(arguments),
        "resources": {"requests": {"memory": memory, "cpu": "50m"}, "limits": {"memory": memory, "cpu": "1"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, **(security or {})},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {})},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "restartPolicy": "Never" if command else "Always",
            "terminationGracePeriodSeconds": 1,
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{**main, "command": list(command)} if command else main],
        },
    }


def crash(lab: Cluster, host: str) -> None:
    """kill -9 of the supervisor, then of all that manages the pods of a Linux host: nobody ends them or cleans up."""
    states = lab.control.states()
    os.kill(int(lab.control.layout.supervisor_pid.read_text()), signal.SIGKILL)
    for name in (host, f"{host}.containerd", f"{host}.kube-proxy", f"{host}.policies"):
        pid = states[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    shims = [process for process in psutil.process_iter() if _is_shim(process, lab, host)]
    assert shims, "pods run there"
    for shim in shims:
        shim.kill()


def _is_shim(process: psutil.Process, lab: Cluster, host: str) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "-id" in words and any(word.startswith(str(lab.control.layout.nodes / host)) for word in words)


def service(name: str, port: int, **spec: object) -> dict[str, object]:
    """A Service on port 80."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": 80, "targetPort": port}], **spec},
    }


def cluster_ip(lab: Cluster, name: str) -> str:
    """A Service's address."""
    return kubectl(lab, "get", "service", name, "--output=jsonpath={.spec.clusterIP}")


def answers(lab: Cluster, client: str, url: str, expected: str) -> bool:
    """Whether that pod gets that answer."""
    return tried(lab, "exec", client, "--", "/tiny", "get", url).stdout.strip() == expected


def eventually(look: Callable[[], bool], what: str, timeout_s: float = NOTICED_S) -> None:
    """Wait for a condition with a deadline."""
    deadline = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < deadline, f"not {what} after {timeout_s} s"
        time.sleep(0.1)


def ready(lab: Cluster) -> frozenset[str]:
    """The nodes that are Ready."""
    return ready_nodes(list_all(lab.kubeconfig, NODE))
