"""Put our charts on a running cluster with its own helm, whose files stay inside the cluster's directory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from espalier_kit.errors import Permanent
from espalier_kube.cluster import POD, SECRET, Object
from espalier_local import api, building, recipe
from espalier_local.addresses import Cables, Range
from espalier_local.bootstrap import NAMESPACE, local_volume
from espalier_local.building import Built
from espalier_local.cluster import Cluster
from espalier_local.containers import LinuxHost
from espalier_local.files import write_atomically
from espalier_local.imagestore import Image
from espalier_local.locks import held
from espalier_local.places import Places
from espalier_local.progress import Progress

CRDS, PLATFORM = "espalier-crds", "espalier"
TIMEOUT_S = 180
COORDINATOR_NODE = "linux-1"
JOB_NAMESPACES = ("default",)
"""Namespaces in which `espalier push` may be used without further set-up."""
LOCAL_VALUES, CONTAINER_VALUES = "values-local.yaml", "values-local-container.yaml"
IMAGE_ANNOTATION = "espalier.dev/image"
_HALF_DONE = "owner=helm,status in (pending-install,pending-upgrade,pending-rollback)"
"""Helm's records of an operation that was interrupted. Nobody else installs here (we hold the lock), and helm would
refuse to go on; without the record it adopts what is there."""


def install(
    cluster: Cluster, places: Places, progress: Progress, *, job_namespaces: Sequence[str] = JOB_NAMESPACES,
    overrides: Mapping[str, Any] | None = None, environment: str = "",
) -> Built | None:
    """Install or upgrade both charts and wait until their pods are ready; may be repeated. Container nodes are given
    the images of this checkout, which are returned.

    `overrides` is a values file of your own, laid over everything else as Helm does it: maps key by key, lists whole.
    `environment` names a values file of the chart that holds instead of the local ones, as on a cluster of yours.
    Raises `Permanent` with helm's words and what the pods wait for.
    """
    with held(cluster.control.layout.lock):
        if cluster.cables is None:
            computed = values(cluster.address_range, job_namespaces)
            _install(cluster, places, progress, (computed, overrides or {}), (environment or LOCAL_VALUES,))
            return None
        built = building.ensure(places, progress)
        computed = container_values(cluster.cables, job_namespaces, built)
        linux = [host for host in cluster.hosts if isinstance(host, LinuxHost)]
        with _loaded(linux, built, progress):
            files = (environment,) if environment else (LOCAL_VALUES, CONTAINER_VALUES)
            _install(cluster, places, progress, (computed, overrides or {}), files)
        return built


@contextmanager
def _loaded(hosts: Sequence[LinuxHost], built: Built, progress: Progress) -> Iterator[None]:
    """Images on the hosts: those of the charts' own pods first, then, beside the caller's work, those of jobs."""
    names = ", ".join(host.name for host in hosts)

    def load(images: Sequence[Image]) -> None:
        for host in hosts:
            host.load_images(built.store, images)

    with ThreadPoolExecutor(1) as pool:
        with progress.step(f"images of the platform on {names}"):
            load(built.of("operator", "coordinator"))
        others = pool.submit(load, built.of("worker", "mlx"))
        yield
        with progress.step(f"images of jobs on {names}"):
            others.result()


def _install(
    cluster: Cluster, places: Places, progress: Progress, layers: Sequence[Mapping[str, Any]], files: Sequence[str]
) -> None:
    """`layers` are laid over the chart's `files`."""
    directory = cluster.control.layout.volumes / "coordinator"
    directory.mkdir(parents=True, exist_ok=True)
    api.apply(cluster.kubeconfig, [local_volume("espalier-coordinator", str(directory), COORDINATOR_NODE)])
    written = [cluster.control.layout.root / f"{name}.yaml" for name in ("values", "overrides")]
    for file, layer in zip(written, layers, strict=True):
        write_atomically(file, yaml.safe_dump(dict(layer)))
    api.delete_all(cluster.kubeconfig, SECRET, NAMESPACE, labels=_HALF_DONE)
    with progress.step("chart espalier-crds"):
        _helm(cluster, CRDS, places.charts / CRDS, ())
    with progress.step("chart espalier, until its pods are ready"):
        chart = places.charts / PLATFORM
        _helm(cluster, PLATFORM, chart, (*(chart / name for name in files), *written))


def container_values(cables: Cables, job_namespaces: Sequence[str], built: Built) -> dict[str, Any]:
    """The same for container nodes, where Services and names work. An image that changed under its name replaces the
    pods that run the one before: its digest is among their annotations."""
    (operator,), (coordinator,) = built.of("operator"), built.of("coordinator")
    return {
        "images": {"registry": recipe.REGISTRY},
        "operator": {"podAnnotations": {IMAGE_ANNOTATION: operator.manifest}},
        "coordinator": {"podAnnotations": {IMAGE_ANNOTATION: coordinator.manifest}},
        "nodes": {"addresses": [cables.cidr]},
        "jobs": {"namespaces": list(job_namespaces)},
        "networkPolicies": {
            "apiServer": {"cidrs": [f"{cables.server}/32"]},
            "dns": {"peers": [{"cidr": f"{cables.server}/32"}]},
        },
    }


def values(address_range: Range, job_namespaces: Sequence[str]) -> dict[str, Any]:
    """What differs from one local cluster to the next; the rest is `values-local.yaml`."""
    return {
        "coordinator": {"address": address_range.coordinator},
        "nodes": {"addresses": [address_range.cidr]},
        "jobs": {"namespaces": list(job_namespaces)},
    }


def helm_environment(environ: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Helm's cache, configuration, data and plugins under `directory`: none of the user's."""
    homes = {f"HELM_{name}_HOME": str(directory / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
    others = {key: value for key, value in api.clean_environment(environ).items() if not key.startswith("HELM_")}
    return {**others, **homes}


def _helm(cluster: Cluster, release: str, chart: Path, values_files: Sequence[Path]) -> None:
    command = [
        str(cluster.assets["helm"]), "upgrade", "--install", release, str(chart),
        f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}", "--wait", f"--timeout={TIMEOUT_S}s",
        *(f"--values={file}" for file in values_files),
    ]  # fmt: skip
    environment = helm_environment(os.environ, cluster.control.layout.helm)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        pods = waiting_pods(api.list_all(cluster.kubeconfig, POD, NAMESPACE))
        words = "; ".join((" ".join(done.stderr.split())[-600:], *pods))
        raise Permanent(f"helm cannot install {release}: {words}", reason="InstallFailed")


def waiting_pods(pods: Iterable[Object]) -> tuple[str, ...]:
    """One clause for each pod that is not ready, with what its containers wait for."""
    clauses = []
    for pod in pods:
        status = pod.get("status", {})
        containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
        waiting = [c["state"]["waiting"] for c in containers if not c.get("ready") and "waiting" in c.get("state", {})]
        reasons = ", ".join(f"{w.get('reason', '')} {w.get('message', '')}".strip() for w in waiting)
        is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
        if not is_ready:
            clauses.append(f"pod {pod['metadata']['name']} is {reasons or status.get('phase', 'Pending')}")
    return tuple(clauses)
