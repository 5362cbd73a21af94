"""The same with a real kubelet: images from the cache onto the node, charts ready; a changed line back on the node."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from bench.local_up import memory_mib, timed_up
from bench.runner import Figure, Options, Result, Scenario, figure, machine, repeat
from espalier_local import building, recipe, remains
from espalier_local.addresses import Cables
from espalier_local.cluster import Cluster, down, up
from espalier_local.containers import LinuxHost
from espalier_local.hosts import container_profiles
from espalier_local.layout import Layout
from espalier_local.places import Places, places_from
from espalier_local.progress import Silent

N = 3
UNITS = {
    "command start to three Ready nodes": "s",
    "command start to the charts' pods ready": "s",
    "a changed source line to new images on the node": "s",
    "resident memory of it all": "MiB",
    "of that, in containers": "MiB",
}
_CHANGED = "services/espalier_kit/clock.py"


def run(options: Options) -> Result:
    """Up, change, down, n times; the images of this checkout are built before. Once, images from nothing."""
    warmup, n = (0, 1) if options.quick else (1, N)
    built = building.ensure(places_from(os.environ), Silent())
    metrics = repeat(_measure, warmup=warmup, n=n, units=UNITS)
    metrics |= {} if options.quick else _from_nothing()
    sizes = ", ".join(f"{image.name.rpartition('/')[2]} {image.packed_bytes / 1e6:.0f} MB" for image in built.images)
    return Result(
        scenario=SCENARIO.name, machine=machine(), seed=options.seed, warmup=warmup, n=n, metrics=metrics,
        note="etcd, API server, controller manager, scheduler, CoreDNS, metrics-server; a Linux node with kubelet,"
        " containerd, kube-proxy and the policy filter; two Macs' agents; operator and coordinator in containers."
        f" Images, compressed: {sizes}. From nothing is once, into an empty cache: Debian's and Python's packages are"
        " fetched; the first image makes the layers that the others share. No peer.",
    )


def _measure() -> Mapping[str, float]:
    places, name = places_from(os.environ), f"bench-{os.getpid()}"
    try:
        nodes_s, all_s = timed_up(name, "--nodes", "container")
        cluster = up(name, places, Silent(), profiles=container_profiles(1), kind="container")
        contained = _contained_mib(cluster.cables)
        total = memory_mib(Layout(places.clusters / name).root) + contained
        changed_s = _changed(cluster, places)
        return dict(zip(UNITS, (nodes_s, all_s, changed_s, total, contained), strict=True))
    finally:
        down(name, places, Silent())


def _from_nothing() -> Mapping[str, Figure]:
    """Seconds of each image's build where no layer is there, and of all of it, the base from Debian included."""
    places = places_from(os.environ)
    places.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="from-nothing-", dir=places.cache) as scratch:
        places = replace(places, cache=Path(scratch))
        started = time.monotonic()
        built = building.ensure(places, Silent())
        whole = time.monotonic() - started
    seconds = {f"from nothing: espalier-{program}": took for program, took in built.seconds.items()}
    return {name: figure([took], "s") for name, took in {**seconds, "from nothing: all images": whole}.items()}


def _changed(cluster: Cluster, places: Places) -> float:
    """Seconds for images of a copy of the checkout that differs by a line, built and on the Linux node."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = replace(places, checkout=Path(scratch))
        _copy(places.checkout, copy.checkout)
        with (copy.checkout / _CHANGED).open("a") as source:
            source.write(f"# {time.time_ns()}\n")
        started = time.monotonic()
        built = building.ensure(copy, Silent())
        for host in cluster.hosts:
            if isinstance(host, LinuxHost):
                host.load_images(built.store, built.images)
        return time.monotonic() - started


def _copy(checkout: Path, target: Path) -> None:
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(checkout / name, target)
    packages = recipe.read_project((checkout / "pyproject.toml").read_text()).packages
    for name in ("images", *packages):
        shutil.copytree(checkout / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))


def _contained_mib(cables: Cables | None) -> float:
    """Resident memory of the processes in the Linux node's pods, found by their control groups."""
    assert cables is not None
    roots = remains.cgroup_roots(remains.PROC_MOUNTS.read_text())
    files = {file for root in roots for file in root.glob(f"{cables.switch}-*/**/cgroup.procs")}
    pids = {int(pid) for file in files for pid in file.read_text().split()}
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_info().rss
        except psutil.Error:
            continue
    return total / 2**20


SCENARIO = Scenario("local-containers", "From `espalier local up --nodes container` to a cluster that takes jobs", run)
